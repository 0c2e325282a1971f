"""Our service and the servers people would use instead, side by side on this machine, in one run.

Run: ``python benchmarks/serving.py [--quick] [--only NAME…] [--phases PHASE…] [--json FILE]``. Needs Linux, two cores, ``wrk`` and the network (once: each
peer gets an environment of its own under ``.cache/peers``). What each peer is and how it is set up: ``benchmarks/peers/README.md``.

The server has core 0 and wrk core 1 (except where a table says both). Servers take turns, round after round, and after each the bare echo is
measured: a machine that does other work moves all figures, so read the columns "of echo" and the processor time a request. Every server's
answers are compared with the model's, before the load and after it.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import contenders
from environments import CACHE, SERVERS
from models import KINDS, MANY, Kind
from running import Failed, Load, Server, say, started
from targets import Row, judge

PHASES = ("logistic", "boosting", "windows", "many", "workers")
CONNECTIONS = (1, 32)
FEW = (1, 4)
WARM_SECONDS = 1
AFTERWARDS = 8


@dataclass
class Measured:
    """A server's loads by number of connections, and the echo's rate beside each."""

    server: Server
    loads: dict[int, list[Load]] = field(default_factory=dict)
    beside: dict[int, list[float]] = field(default_factory=dict)

    def row(self, phase: str) -> Row:
        """Medians over the rounds."""
        cells = {}
        for connections, loads in self.loads.items():
            cell = {name: statistics.median(getattr(load, name) for load in loads) for name in ("rate", "p50", "p99", "work")}
            echoes = self.beside.get(connections, [])
            if echoes:
                cell["of_echo"] = statistics.median(load.rate / max(echo, 1.0) for load, echo in zip(loads, echoes, strict=True))
            cells[connections] = cell
        bad = sum(load.refused + load.broken for loads in self.loads.values() for load in loads)
        one, memory = self.server.contender, self.server.memory()
        return Row(phase, one.name, one.peer, one.cores, cells, bad, self.server.seconds, memory)


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    seconds: float
    rounds: int


def _connections(phase: str) -> tuple[int, ...]:
    """How many at once: large requests are asked by few."""
    return FEW if phase == "many" else CONNECTIONS


def measure(phase: str, some: list[contenders.Contender], folder: Path, pace: Pace, client: str = "1") -> list[Row]:
    """Everyone of a phase in turns, the echo (if it is among them) after each."""
    with started(some, folder) as servers:
        echo = next((server for server in servers if server.contender.peer == "echo"), None)
        found = [Measured(server) for server in servers]
        for server in servers:
            server.load(8, WARM_SECONDS, cores=client)
        for number in range(pace.rounds):
            say(f"{phase}: round {number + 1} of {pace.rounds}")
            for one in found:
                for connections in _connections(phase):
                    one.loads.setdefault(connections, []).append(one.server.load(connections, pace.seconds, cores=client))
                    if echo is not None and one.server is not echo:
                        beside = echo.load(connections, max(1.0, pace.seconds / 2), cores=client)
                        one.beside.setdefault(connections, []).append(beside.rate)
        rows = [one.row(phase) for one in found]
        for server in servers:
            server.resume()
            try:
                server.check(AFTERWARDS)
            except (Failed, OSError) as failed:
                say(f"after the load: {failed!r}")
                rows = [row if row.name != server.contender.name else row.spoilt() for row in rows]
    return rows


def phase_of(phase: str, folder: Path, pace: Pace, only: list[str]) -> list[Row]:
    """The rows of one phase; ``only`` keeps contenders whose names hold one of these, and the echo."""
    client = "1"
    if phase in KINDS:
        kind: Kind = "logistic" if phase == "logistic" else "boosting"
        some = contenders.single(kind, folder)
    elif phase == "windows":
        some = contenders.windows(folder)
    elif phase == "many":
        some = contenders.many("boosting", folder)
    else:
        some, client = contenders.workers("boosting", folder, (1, 2)), "0,1"
    wanted = [one for one in some if one.peer == "echo" or not only or any(name.lower() in one.name.lower() for name in only)]
    return measure(phase, wanted, folder, pace, client)


def table(phase: str, rows: list[Row]) -> str:
    """A Markdown table of a phase."""
    each = MANY if phase == "many" else 1
    unit = "rows/s" if phase == "many" else "req/s"
    head = ["server", "cores"]
    for connections in _connections(phase):
        head += [f"{connections} conn: {unit}", "of echo", "p50 ms", "p99 ms", "µs CPU"]
    lines = [[*head, "start s", "MB, largest process", "MB, all", "errors"]]
    for row in rows:
        line = [row.name, row.cores]
        for connections in _connections(phase):
            cell = row.cells[connections]
            share = f"{cell['of_echo']:.3f}" if "of_echo" in cell else ""
            line += [f"{cell['rate'] * each:,.0f}", share, f"{cell['p50']:.2f}", f"{cell['p99']:.2f}", f"{cell['work']:.0f}"]
        memory = [f"{row.memory[0]:.0f}" if row.memory else "", f"{sum(row.memory):.0f}"]
        lines.append([*line, f"{row.start:.1f}", *memory, str(row.bad)])
    lines.insert(1, ["---", "---", *["--:"] * (len(lines[0]) - 2)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TITLES = {
    "logistic": "One row, logistic regression, one worker",
    "boosting": "One row, gradient boosting (100 iterations), one worker",
    "windows": "One row, 20 windowed features looked up, gradient boosting, one worker",
    "many": f"{MANY} rows a request, gradient boosting, one worker",
    "workers": "One row, gradient boosting, one worker and two; server and wrk share both cores",
}


def machine() -> dict[str, Any]:
    """Where this was measured."""
    model = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {"cores": len(model), "processor": model[0] if model else "", "python": platform.python_version()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one short round: to see that everything works")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="contenders whose names hold one of these; the echo always runs"
    )
    parser.add_argument("--phases", nargs="*", choices=PHASES, default=PHASES, help="what to measure")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one load")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, for a program")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    missing = [program for program in ("wrk", "taskset") if shutil.which(program) is None]
    if missing:
        say(f"{' and '.join(missing)} cannot be found: apt-get install wrk util-linux")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pace = Pace(1.0, 1) if given.quick else Pace(given.seconds, given.rounds)
    CACHE.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder:
        for phase in given.phases:
            found = phase_of(phase, Path(folder), pace, given.only)
            print(f"\n### {TITLES[phase]}\n\n{table(phase, found)}", flush=True)
            rows += found
    verdicts = judge(rows)
    print("\n### Targets\n\n" + "\n".join(f"- {verdict}" for verdict in verdicts))
    if given.json is not None:
        peers = {peer: contenders.versions(peer) for peer in SERVERS if (CACHE / peer / "complete").exists()}
        whole = {"machine": machine(), "peers": peers, "pace": asdict(pace), "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(whole | {"targets": verdicts}, indent=1))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped, and so is everything that was started")
        sys.exit(130)
