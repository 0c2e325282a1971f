"""The whole service as its own processes: killed, stopped, overloaded, misled by clients, and given a new release under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest

from noria import deployment
from noria.cli.common import load_system
from noria.core import Conflict, SystemClock
from noria.settings import Settings
from noria.store import Home

GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}
TOKEN = "a-token-for-the-tests"
DECLARATION = """
import noria as nr

facts = nr.Source("facts", key="unit", time="at", owner="us")
system = nr.System(
    name="small-world",
    predict=nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR"}, key="unit"),
    label=nr.Label(facts, "came", within="1h", otherwise=False),
    features=[nr.Source("asks", key="unit", time="asked_at").columns("x", "z", "shop")],
    objective=nr.Objective("Whom to call?", nr.Value("case when act and label then 1 when act then -1 else 0 end", "EUR"), "log_loss"),
    candidates=[nr.Prior(), nr.Linear()],
)
"""


class Place:
    """A declaration, its home with one release of ``x``, and the service on it."""

    def __init__(self, folder: Path, bundle: Any) -> None:
        self.file, self.home = folder / "system.py", folder / "home"
        self.file.write_text(DECLARATION)
        self.system = load_system(self.file)
        self._bundle = bundle
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.release("x")

    def release(self, column: str) -> str:
        with Home.open(self.home, Settings(durable=False), SystemClock()) as home, home.hold("test"):
            sha = self._bundle(home, self.system, column)
            deployment.promote(home, self.system, sha, by="ada")
        return sha

    def seal(self) -> int:
        """Seals the log; how many predictions the table then has."""
        with Home.open(self.home, Settings(durable=False), SystemClock()) as home, home.hold("test"):
            deployment.sweep(home, self.system)
            return home.lake.read("predictions", columns=["_id"]).height if home.lake.schema("predictions") else 0

    def start(self, port: int, **settings: Any) -> None:
        self.port = port
        given = {f"NORIA_{name.upper()}": str(value) for name, value in settings.items()}
        command = [
            str(Path(sys.executable).with_name("noria")),
            "serve",
            str(self.file),
            "--home",
            str(self.home),
            "--port",
            str(port),
        ]
        self.server = subprocess.Popen(command, env=os.environ | {"NORIA_TOKEN": TOKEN} | given, stderr=subprocess.PIPE)
        with self.client() as client:
            while self.server.poll() is None:
                try:
                    if client.get("/v2/health/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    continue
        assert self.server.stderr is not None
        raise AssertionError(self.server.stderr.read().decode())

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": f"Bearer {TOKEN}"}, timeout=20)

    def workers(self) -> list[psutil.Process]:
        assert self.server is not None
        found = psutil.Process(self.server.pid).children(recursive=True)
        return [child for child in found if "spawn_main" in " ".join(child.cmdline())]

    def listening(self) -> int:
        """How many workers take connections."""
        count = 0
        for worker in self.workers():
            with contextlib.suppress(psutil.Error):
                count += any(one.status == psutil.CONN_LISTEN for one in worker.net_connections("tcp"))
        return count

    def stop(self) -> int:
        assert self.server is not None
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
        self.server.communicate(timeout=40)
        return self.server.returncode


def bundle(home: Home, system: Any, column: str) -> str:
    import msgspec
    import polars as pl

    from noria.measure import Decision
    from noria.model import Column, Encoder, Model, Passthrough, Spec, pack

    spec = Spec(
        system=system.name,
        candidate=column,
        recipe="linear",
        task="binary",
        cost=1,
        decision=msgspec.to_builtins(Decision("expected", 0.0)),
    )
    model = Model(Encoder((Column(column, "number"),)), Passthrough(0.5, 0.0, 1.0))
    return home.artifacts.put(pack(spec, model, pl.DataFrame({column: [0.0, 0.25, 1.0]})))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, bundle)
    yield made
    if made.server is not None and made.server.poll() is None:
        made.server.kill()
        made.server.communicate()  # ends when the workers have ended too: they go with their parent


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Asks over a few connections, one after the other on each, until told to stop; counts what came back."""

    def __init__(self, place: Place, connections: int) -> None:
        self.place, self.connections = place, connections
        self.answers: list[dict[str, Any]] = []
        self.refused: list[int] = []
        self.broken = 0
        self.stopping = False

    async def run(self, during: Any) -> None:
        tasks = [asyncio.create_task(self._ask(number)) for number in range(self.connections)]
        try:
            await during()
        finally:
            self.stopping = True
            await asyncio.gather(*tasks)

    async def _ask(self, number: int) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.place.port}", headers=headers, timeout=30) as client:
            asked = 0
            while not self.stopping:
                asked += 1
                try:
                    said = await client.post("/v1/predict", json={"row": GOOD | {"unit": f"u{number}-{asked}"}})
                except httpx.TransportError:
                    self.broken += 1
                    continue
                (self.answers.append(said.json()) if said.status_code == 200 else self.refused.append(said.status_code))

    async def until(self, condition: Any) -> None:
        while not condition():
            await asyncio.sleep(0.01)


def test_it_serves_remembers_and_stops(place: Place) -> None:
    place.start(free_port())
    with place.client() as client:
        said = client.post("/v1/predict", json={"row": GOOD}).json()
        assert (said["score"], said["act"]) == (0.9, True)
        with pytest.raises(Conflict, match="cannot be listened at"):
            deployment.serve(place.home, lambda: place.system, Settings(port=place.port))
    assert place.stop() == 0
    assert place.seal() == 1


def test_a_killed_worker_is_started_again_and_costs_only_what_was_under_way(place: Place) -> None:
    place.start(free_port(), workers=2, log="durable", durable=True)
    load = Load(place, 4)
    while place.listening() < 2:  # one answers already; the other has to be there before its fellow goes
        pass

    async def kill() -> None:
        await load.until(lambda: len(load.answers) > 200)
        (victim, *_) = place.workers()
        victim.kill()
        before = len(load.answers)
        await load.until(lambda: len(load.answers) > before + 200 and place.listening() == 2)

    asyncio.run(load.run(kill))
    assert load.refused == []
    assert load.broken <= 8  # at most what was in flight, and connections that have to be made anew
    assert place.stop() == 0
    assert place.seal() >= len(load.answers)  # in durable mode nothing acknowledged is lost


def test_a_stop_lets_what_is_under_way_finish(place: Place) -> None:
    place.start(free_port())
    load = Load(place, 8)

    async def stop() -> None:
        await load.until(lambda: len(load.answers) > 100)
        assert place.server is not None
        place.server.send_signal(signal.SIGTERM)
        load.stopping = True

    asyncio.run(load.run(stop))
    assert load.refused == []
    assert place.stop() == 0
    assert place.seal() == len(load.answers)


def test_a_release_under_load_fails_no_request_and_every_row_names_who_answered(place: Place) -> None:
    place.start(free_port())
    load = Load(place, 4)
    shas: list[str] = []

    async def swap() -> None:
        for column in ("z", "x", "z"):
            before = len(load.answers)
            await load.until(lambda before=before: len(load.answers) > before + 100)
            shas.append(await asyncio.to_thread(place.release, column))
            await load.until(lambda: load.answers[-1]["release"] == shas[-1])

    asyncio.run(load.run(swap))
    assert load.broken == 0
    assert load.refused == []
    assert all(answer["score"] == (0.1 if answer["release"] == shas[0] else 0.9) for answer in load.answers)
    assert {answer["release"] for answer in load.answers} == set(shas)
    place.stop()
    assert place.seal() == len(load.answers)


def test_workers_see_each_others_events(place: Place) -> None:
    place.file.write_text(
        place.file.read_text().replace(
            '.columns("x", "z", "shop")]',
            '.columns("x", "z", "shop"), facts.window("1h", every="1m", by="unit").count().named("seen")]',
        )
    )
    place.start(free_port(), workers=2)
    counts = []
    for number in range(12):
        with place.client() as client:  # a new connection each: whichever worker takes it
            event = {"id": f"e{number}", "unit": "u", "at": "2024-01-01T00:00:00Z", "came": True}
            assert client.post("/v1/events/facts", json=event).json()["accepted"] == 1
        with place.client() as client:
            assert client.post("/v1/predict", json={"row": GOOD}).status_code == 200
        counts.append(number + 1)
    place.stop()
    place.system = load_system(place.file)
    with Home.open(place.home, Settings(durable=False), SystemClock()) as home, home.hold("test"):
        deployment.sweep(home, place.system)
        assert home.lake.read("predictions").sort("_time")["seen"].to_list() == counts


def test_clients_that_do_not_behave(place: Place, wire: ModuleType) -> None:
    place.start(free_port(), body_limit_bytes=100_000)
    at = wire.At(place.port, body=json.dumps({"row": GOOD}).encode(), token=TOKEN)
    memory = {worker.pid: worker.memory_info().rss for worker in place.workers()}
    assert wire.right(at).status == 200
    for misbehave, allowed in (
        (wire.both_lengths, {200, 400}),  # the server takes the chunks, drops the length and ends the connection
        (wire.two_lengths, {400}),
        (lambda one: wire.odd_length(one, "-1"), {400}),
        (wire.bad_chunk, {400}),
        (wire.no_host, {400}),
        (wire.wrong_host, {421}),
        (wire.two_hosts, {400, 421}),
        (wire.not_http, {400}),
        (wire.huge_header, {400, 413, 431}),
        (wire.large_declared, {413}),
        (wire.large_promised, {413}),
        (wire.large_chunked, {413}),
        (wire.gzip_bomb, {413, 415, 422}),
        (wire.deep_nesting, {422, 413}),
        (wire.bad_utf8, {422}),
        (wire.duplicate_keys, {422}),
    ):
        seen = misbehave(at)
        assert seen.refused or seen.status in allowed, (misbehave, seen)
        assert seen.status is None or seen.status in allowed, (misbehave, seen)
        assert wire.right(at).status == 200
    for slow in (wire.slow_headers, wire.slow_body):
        seen = slow(at)
        assert seen.status in (None, 400, 408)
        assert seen.closed
        assert seen.seconds < 14
    assert wire.pipelined(at).statuses == (200,) * 20
    for worker in place.workers():
        assert worker.memory_info().rss < memory[worker.pid] + 40_000_000
    assert place.stop() == 0
