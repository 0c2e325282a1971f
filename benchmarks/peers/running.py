"""Starting a server, asking it, loading it and stopping it, whatever happens in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.core import stopwatch

HERE = Path(__file__).parent
TOKEN = "a-token-for-the-benchmark"
HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 8.0
CHECK_SECONDS = 20.0
MARK = "NORIA_BENCHMARK_MARK"


class Failed(Exception):
    """A server that did not start, or said something wrong."""


@dataclass(frozen=True)
class Form:
    """How a server wants to be asked: where, the bodies that take turns, and the scores in an answer, beside those that are right.

    ``loaded`` are the bodies for the load, where they are not those whose answers are checked.
    """

    route: str
    bodies: Sequence[str]
    scores: Callable[[Any], list[float]]
    expected: Sequence[list[float]]
    loaded: Sequence[str] = ()


@dataclass(frozen=True)
class Contender:
    """A server to measure. ``command`` gets the port; ``cores`` are those it may use; ``peer`` groups variants of one thing."""

    name: str
    peer: str
    command: Callable[[int], list[str]]
    form: Form
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: str = "0"
    tolerance: float = 1e-9


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, milliseconds, answers that were not 2xx, and sockets that broke.

    ``work`` is the server's processor time for one request, in microseconds: it hardly moves when the machine does other things too.
    """

    rate: float
    p50: float
    p99: float
    work: float
    refused: int
    broken: int


@dataclass
class Server:
    """A contender that runs. ``seconds`` is the time from its start to its first right answer."""

    contender: Contender
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    bodies: Path
    mark: str
    seconds: float = 0.0

    def ask(self, body: str, *, timeout: float = 20.0) -> Any:
        """One answer; raises ``Failed`` when it is not 2xx, ``OSError`` when there is none."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        try:
            connection.request("POST", self.contender.form.route, body, headers)
            answer = connection.getresponse()
            said = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise Failed(f"{self.contender.name} answered {answer.status}: {said[:200].decode(errors='replace')}")
        return json.loads(said)

    def check(self, step: int = 1) -> float:
        """The largest difference between an answer and the model, over every ``step``-th request, or as many as there is time for.

        Raises ``Failed`` when it is more than rounding.
        """
        form, apart, end = self.contender.form, 0.0, stopwatch() + CHECK_SECONDS
        for body, expected in list(zip(form.bodies, form.expected, strict=True))[::step]:
            if stopwatch() > end:
                break
            scores = form.scores(self.ask(body))
            if len(scores) != len(expected):
                raise Failed(f"{self.contender.name} answered {len(scores)} rows of {len(expected)}")
            apart = max(apart, *(abs(score - right) for score, right in zip(scores, expected, strict=True)))
        if not apart <= self.contender.tolerance:
            raise Failed(f"{self.contender.name} is wrong by {apart:.3g}")
        return apart

    def load(self, connections: int, seconds: float, *, cores: str = "1") -> Load:
        """Keeps ``connections`` requests under way for some seconds, from one thread of wrk on ``cores``. It is paused before and after."""
        self.resume()
        url = f"http://{HOST}:{self.port}{self.contender.form.route}"
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        script = ["-s", str(HERE / "requests.lua"), url]
        given = os.environ | {"BODIES": str(self.bodies), "ROUTE": self.contender.form.route, "TOKEN": TOKEN}
        before = self._work()
        done = subprocess.run(["taskset", "-c", cores, *wrk, *script], env=given, capture_output=True, text=True, check=False)
        work = self._work() - before
        with contextlib.suppress(OSError, Failed):  # what wrk left behind is answered before this
            self.ask(self.contender.form.bodies[0])
        self.pause()
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise Failed(f"wrk could not load {self.contender.name}: {(done.stdout + done.stderr).strip()[-300:]}")
        seen = json.loads(lines[-1])
        rate = seen["requests"] / seen["micros"] * 1e6
        each = work / max(seen["requests"], 1) * 1e6
        return Load(rate, seen["p50"] / 1e3, seen["p99"] / 1e3, each, seen["refused"], seen["broken"])

    def memory(self) -> list[float]:
        """The largest memory so far of each of its processes, in megabytes, the largest first."""
        return sorted((peak for peak in map(_peak, _family(self.mark)) if peak), reverse=True)

    def _work(self) -> float:
        return sum(_seconds(pid) for pid in _family(self.mark))

    def pause(self) -> None:
        """Takes the processor from it: a server that polls must not cost those that are measured after it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends the pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in _family(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Ends every process of it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            self.resume()
            end = stopwatch() + STOP_SECONDS
            while stopwatch() < end and (self.process.poll() is None or _family(self.mark)):
                time.sleep(0.05)
        self.process.wait()


def start(contender: Contender, folder: Path) -> Server:
    """Starts a contender and waits for its first answer; raises ``Failed`` with the end of its output."""
    port = free_port()
    name = "".join(letter if letter.isalnum() else "-" for letter in contender.name)
    log, bodies = folder / f"{name}.log", folder / f"{name}.bodies"
    bodies.write_text("\n".join(contender.form.loaded or contender.form.bodies) + "\n")
    mark = uuid.uuid4().hex
    begin = stopwatch()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", contender.cores, *contender.command(port)],
            env=os.environ | dict(contender.environment) | {MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(contender, port, process, log, bodies, mark)
    try:
        _await(server, begin)
    except BaseException:
        server.stop()
        raise
    return server


@contextlib.contextmanager
def started(contenders: Sequence[Contender], folder: Path) -> Iterator[list[Server]]:
    """All of them, one after the other, each paused once it has answered; those that cannot start or answer wrongly are said and left out.

    All are stopped at the end.
    """
    servers: list[Server] = []
    try:
        for contender in contenders:
            try:
                server = start(contender, folder)
            except Failed as failed:
                say(f"left out: {failed}")
                continue
            servers.append(server)
            try:
                apart = server.check()
            except (Failed, OSError, LookupError, TypeError) as failed:
                say(f"left out: {contender.name}: {failed!r}")
                servers.pop().stop()
                continue
            say(f"{contender.name}: up in {server.seconds:.1f} s, answers differ from the model's by {apart:.1g}")
            server.pause()
        yield servers
    finally:
        for server in servers:
            server.stop()


def _await(server: Server, begin: float) -> None:
    while True:
        try:
            server.ask(server.contender.form.bodies[0])
        except OSError:
            pass
        else:
            server.seconds = stopwatch() - begin
            return
        if server.process.poll() is not None or stopwatch() - begin > START_SECONDS:
            tail = server.log.read_text(errors="replace")[-500:]
            raise Failed(f"{server.contender.name} did not start: {tail.strip()}")
        time.sleep(0.02)


def _family(mark: str) -> list[int]:
    """Every process that was started with this mark in its environment, by whomever, and has not ended.

    Not the process group, not the session: some servers put their workers into sessions of their own.
    """
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes().split(b"\0") and _parts(path)[0] != "Z":
                found.append(int(path.name))
        except OSError:
            continue
    return found


def _parts(process: Path) -> list[str]:
    """The fields of a process's stat after its name, from its state on."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _seconds(pid: int) -> float:
    """Processor time of a process so far."""
    try:
        parts = _parts(Path(f"/proc/{pid}"))
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    """Progress, for a person; the table alone goes to the standard output."""
    print(text, file=sys.stderr, flush=True)
