"""The flights year: how long it takes, where the time goes, what an idle turn costs, and how much memory it needs.

    python benchmarks/year.py [--to 2014-01-01] [--home DIR]

Prints physical measurements only; they differ from machine to machine and from run to run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

from noria.cli.common import load_system as load
from noria.core import SimulatedClock, parse_time, stopwatch
from noria.loop import Turn, turn
from noria.replay import replay
from noria.settings import Settings
from noria.store import Home

FLIGHTS = Path(__file__).parents[1] / "examples" / "flights" / "system.py"
STEPS = (
    "data.ingest",
    "data.verify",
    "deployment.score",
    "data.close",
    "monitoring",
    "business",
    "deployment.rollout",
    "scoping",
    "diagnosis",
    "monitoring.retraining",
    "data.training_set",
    "development.train",
    "development.evaluate",
    "development.gate",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--file", type=Path, default=FLIGHTS)
    arguments.add_argument("--from", dest="start", default="2013-01-01")
    arguments.add_argument("--to", dest="end", default="2014-01-01")
    arguments.add_argument("--home", type=Path)
    given = arguments.parse_args()
    path = given.home or Path(tempfile.mkdtemp()) / "home"
    system, settings = load(given.file), Settings(home=path)

    months: dict[str, list[float]] = defaultdict(list)
    trained: dict[str, list[float]] = defaultdict(list)
    begun = last = stopwatch()

    def on_turn(_: Home, done: Turn) -> None:
        nonlocal last
        passed = stopwatch() - last
        (trained if "development" in done.did else months)[f"{done.at:%Y-%m}"].append(passed)
        last = stopwatch()

    home = replay(
        path, system, parse_time(given.start), parse_time(given.end), timedelta(days=1), settings=settings, on_turn=on_turn
    )
    total = stopwatch() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"the year: {total:.1f} s, peak memory {peak:.0f} MB\n")
    print("month     turns  median ms   turns with training  median s")
    for month in sorted(months):
        more = trained.get(month, [])
        tail = f"{len(more):>8}  {statistics.median(more):>18.2f}" if more else ""
        print(f"{month}  {len(months[month]):>5}  {1000 * statistics.median(months[month]):>9.1f}   {tail}")
    print("\nwhere the time goes          seconds   share   calls")
    spent = {step: home.measurements.read(f"turn.{step}")["value"] for step in STEPS}
    for step, seconds in sorted(spent.items(), key=lambda item: -item[1].sum()):
        print(f"  {step:<24} {seconds.sum():>8.1f}  {seconds.sum() / total:>6.1%}  {len(seconds):>6}")
    home.close()
    idle(path, settings, system, parse_time(given.end))


def idle(path: Path, settings: Settings, system: object, end: datetime) -> None:
    """Times turns that find nothing to do, right after the last one."""
    clock = SimulatedClock(end)
    with Home.open(path, settings, clock) as home, home.hold("benchmark"):
        turn(home, system)  # type: ignore[arg-type]
        times = []
        for _ in range(20):
            begun = stopwatch()
            turn(home, system)  # type: ignore[arg-type]
            times.append(1000 * (stopwatch() - begun))
    print(f"\nan idle turn: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms")


if __name__ == "__main__":
    main()
