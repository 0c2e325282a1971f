"""What was asked of the service, beside what was measured: one line a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

CONNECTIONS = (1, 32)
TIMES = {
    "boosting": {"MLflow": 10.0, "LitServe": 8.0, "FastAPI": 5.0},
    "logistic": {"MLflow": 8.0, "LitServe": 6.0, "FastAPI": 2.5},
}
ECHO_SHARE = 0.5
SLOWEST_MS = 10.0
GROWTH = 1.1


@dataclass(frozen=True)
class Row:
    """A contender's figures. ``cells`` are by number of connections; ``memory`` is the peak of each process in megabytes."""

    phase: str
    name: str
    peer: str
    cores: str
    cells: dict[int, dict[str, float]]
    bad: int
    start: float
    memory: list[float]
    wrong: bool = False

    def spoilt(self) -> Row:
        """The same, with answers that were wrong after the load: it counts as not reached."""
        return replace(self, wrong=True, name=f"{self.name} (wrong answers)")


def judge(rows: list[Row]) -> list[str]:
    """A line for each target: reached, not reached, or not measured."""
    lines = []
    for phase, times in TIMES.items():
        ours = _ours(rows, phase)
        lines += [_against(rows, ours, peer, wanted, phase) for peer, wanted in times.items()]
        lines.append(_slowest(ours, phase))
    lines.append(_of_echo(_ours(rows, "logistic")))
    lines.append(_grows(rows))
    return lines


def _ours(rows: list[Row], phase: str) -> Row | None:
    """Our service as it is set up by default."""
    found = [row for row in rows if row.phase == phase and row.peer == "Noria" and "fast" in row.name]
    return found[0] if found else None


def _share(row: Row, connections: int) -> float:
    return row.cells[connections]["of_echo"]


def _against(rows: list[Row], ours: Row | None, peer: str, wanted: float, phase: str) -> str:
    """Against the fastest variant of the peer on the same core, in units of the echo beside each; those on both cores are said too."""
    what = f"{phase}: at least {wanted:g} times {peer}"
    theirs = [row for row in rows if row.phase == phase and row.peer == peer and "log" not in row.name and not row.wrong]
    if ours is None or not theirs:
        return f"{what}: not measured"
    said, reached = [], _sound(ours)
    for connections in CONNECTIONS:
        kinds = [
            ("", [row for row in theirs if row.cores == ours.cores]),
            (" (it on both cores)", [row for row in theirs if row.cores != ours.cores]),
        ]
        for note, some in kinds:
            if not some:
                continue
            best = max(some, key=lambda row: _share(row, connections))
            times = _share(ours, connections) / max(_share(best, connections), 1e-6)  # a server may not answer once in a round
            work = best.cells[connections]["work"] / max(ours.cells[connections]["work"], 0.1)
            said.append(f"{times:.1f} at {connections}{note}, {work:.1f} in processor time")
            reached &= bool(note) or times >= wanted
    return f"{what}: {_verdict(reached)} ({'; '.join(said)})"


def _slowest(ours: Row | None, phase: str) -> str:
    what = f"{phase}: p99 at 32 connections below {SLOWEST_MS:g} ms"
    if ours is None:
        return f"{what}: not measured"
    p99 = ours.cells[32]["p99"]
    return f"{what}: {_verdict(_sound(ours) and p99 < SLOWEST_MS)} ({p99:.2f} ms)"


def _of_echo(ours: Row | None) -> str:
    what = f"logistic: at least {ECHO_SHARE:g} of the bare echo"
    if ours is None or "of_echo" not in ours.cells[32]:
        return f"{what}: not measured"
    shares = [_share(ours, connections) for connections in CONNECTIONS]
    said = ", ".join(f"{share:.2f} at {connections}" for share, connections in zip(shares, CONNECTIONS, strict=True))
    return f"{what}: {_verdict(_sound(ours) and min(shares) >= ECHO_SHARE)} ({said})"


def _grows(rows: list[Row]) -> str:
    what = "throughput grows with workers"
    found = [row for row in rows if row.phase == "workers"]
    if len(found) < 2:
        return f"{what}: not measured"
    times = found[-1].cells[32]["rate"] / found[0].cells[32]["rate"]
    return f"{what}: {_verdict(all(map(_sound, found)) and times >= GROWTH)} ({times:.2f} times with two, wrk on the same cores)"


def _sound(row: Row) -> bool:
    return row.bad == 0 and not row.wrong


def _verdict(reached: bool) -> str:
    return "reached" if reached else "NOT reached"
