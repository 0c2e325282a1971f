"""How often alerts are false, against the declared budget, and how soon faults are found: by simulation through the real rules.

A world is a system whose windows are drawn: the release's metric and value, labels, the inputs' distances, with noise that is
autocorrelated, seasonal or heavy-tailed as asked. They are committed as the monitors would, and the real alerts are opened, window
after window. Quiet worlds say how many alerts are false; worlds with a fault from a known window on, how long it takes.

Distances and shares get the bounds that the budget promises for them (``budget.window_error``): how well the monitors keep that promise on
tables is not shown here. Run ``python benchmarks/false_alarms.py --markdown``; ``--worlds`` says how many of each kind.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

import noria as nr
from noria import monitoring, stats
from noria.core import SimulatedClock, Verdict, Window
from noria.monitoring import budget
from noria.records import Alerted, Monitored, Signal, Turned
from noria.settings import Settings
from noria.store import Home

DAY = timedelta(days=1)
START = datetime(2021, 1, 1, tzinfo=UTC)
WARM = 60
QUIET = 56
TESTED = 21
LEAD, SPREAD = 0.08, 0.02
COLUMNS = 8
RELEASE = "a" * 64
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """How a world's windows follow one another. ``tails`` are the degrees of freedom of Student's t (0: normal)."""

    name: str
    follow: float = 0.0
    tails: int = 0
    season: float = 0.0

    def noise(self, random: np.random.Generator, n: int) -> Floats:
        """``n`` windows' noise with variance 1 (and a weekly swing beside it)."""
        raw = random.normal(size=n)
        if self.tails:
            raw = random.standard_t(self.tails, n) / np.sqrt(self.tails / (self.tails - 2))
        made = np.asarray(lfilter([np.sqrt(1 - self.follow**2)], [1.0, -self.follow], raw))
        return made + self.season * np.sin(np.arange(n) * 2 * np.pi / 7)


WORLDS = (
    World("independent, normal"),
    World("autocorrelated 0.3", follow=0.3),
    World("autocorrelated 0.5", follow=0.5),
    World("weekly season", follow=0.2, season=0.7),
    World("heavy tails (t, 4)", follow=0.2, tails=4),
    World("heavy tails (t, 3)", follow=0.3, tails=3),
)
NONE = (0.0, 10**9)
BUDGETS = (2.0, 1.0, 0.25)
SIZES = (1.0, 2.0, 3.0, 4.0, 6.0)


def declared(false_alarms: float) -> nr.System:
    """A system with two sources, eight features, a guardrail and a budget."""
    sources = [nr.Source(name, None, key="id", time="at") for name in ("asked", "other")]
    done = nr.Source("done", None, key="id", time="at")
    half = COLUMNS // 2
    features = [sources[0].columns(*(f"c{k}" for k in range(half)))]
    features += [sources[1].last(f"c{k}", by="id", max_age="4h").named(f"c{k}") for k in range(half, COLUMNS)]
    return nr.System(
        name="simulated",
        predict=sources[0],
        label=nr.Label(done, "bad", within="6h", otherwise=False, task="binary"),
        features=features,
        objective=nr.Objective(
            problem="a simulation",
            value=nr.Value("case when act and label then 4 when act then -1 else 0 end", "USD"),
            metric="log_loss",
            guardrails=[nr.AtLeast("precision", 0.2)],
        ),
        candidates=[nr.Prior(), nr.Linear()],
        alerts=nr.Alerts(false_alarms=false_alarms, per="28d"),
    )


def windows(
    world: World, system: nr.System, seed: int, n: int, fault: tuple[float, int] = NONE
) -> Iterator[tuple[Monitored, Monitored]]:
    """``n`` windows of traffic and outcomes. ``fault`` is (by how many standard deviations the lead falls, from which window on)."""
    size, begins = fault
    random = np.random.default_rng(seed)
    lead = LEAD + SPREAD * world.noise(random, TESTED + n)
    tested = stats.block_mean(lead[:TESTED], np.arange(TESTED))
    bound = (tested.low or 0.0) - 0.1 * abs(tested.value or 0.0)
    spread = float(lead[:TESTED].std(ddof=1))
    lead = lead[TESTED:] - size * SPREAD * (np.arange(n) >= begins)
    base = 0.5 + 0.03 * world.noise(random, n)
    offset = 0.012 * world.noise(random, n)
    precision = 0.4 + 0.04 * world.noise(random, n)
    shift = np.abs(world.noise(random, n))
    gain = 0.3 + 4 * (lead - LEAD) + 0.05 * world.noise(random, n)
    distance = np.exp(0.25 * np.array([world.noise(random, n) for _ in range(COLUMNS)]))
    far = _bound(world, budget.window_error(budget.share(system, "drift") / 2, budget.RULE), COLUMNS // 2)
    moved = _bound(world, budget.window_error(budget.share(system, "label"), budget.RULE), 1, absolute=True)
    for k in range(n):
        window = Window(START + k * DAY, START + (k + 1) * DAY)
        made = [
            _signal("labelled", "label", 0.98 + 0.005 * float(random.normal())),
            _signal("silent", "label", 0.0),
            _signal("delay p50 hours", "label", 1 + 0.05 * abs(float(random.normal()))),
            _signal("delay p90 hours", "label", 3 + 0.2 * abs(float(random.normal()))),
            _signal("mean", "label", 0.25),
            _signal("rows", "champion", 400.0),
            _signal("log_loss", "champion", base[k] - lead[k]),
            _signal("log_loss", "base rate", base[k]),
            _signal("log_loss", "last label", base[k] + 0.02),
            _signal("accuracy", "champion", 0.8 + lead[k] / 4),
            _signal("accuracy", "last label", 0.72),
            _signal("offset", "score", offset[k]),
            Signal("guardrail", "precision", "outcome", float(precision[k]), 0.2, Verdict.NOT_MEASURED),
            _signal("guardrail rows", "precision", 90.0),
            Signal("lead", "champion", "outcome", float(lead[k]), bound, Verdict.NOT_MEASURED),
            _signal("lead expected", "champion", tested.value or 0.0),
            _signal("lead spread", "champion", spread),
            _signal("value", "champion", gain[k]),
            _signal("value", "do nothing", 0.0),
            _judged("shift", "label", "outcome", shift[k], moved),
        ]
        outcomes = Monitored(window=window, about="outcomes", release=RELEASE, n=400, signals=tuple(made))
        seen = [_judged("js", f"c{c}", "feature", distance[c, k], far) for c in range(COLUMNS)]
        yield Monitored(window=window, about="traffic", release=RELEASE, n=400, signals=tuple(seen)), outcomes


@lru_cache(maxsize=64)
def _bound(world: World, p: float, columns: int, *, absolute: bool = False) -> float:
    """What the largest of so many columns exceeds in a share ``p`` of the windows, from a long run of the same world."""
    random = np.random.default_rng(1)
    drawn = np.array([world.noise(random, 40_000) for _ in range(columns)])
    largest = np.abs(drawn).max(axis=0) if absolute else np.exp(0.25 * drawn).max(axis=0)
    return float(np.quantile(largest, 1 - p))


def _signal(name: str, subject: str, value: float) -> Signal:
    return Signal(name, subject, "outcome", float(value), None, Verdict.NOT_MEASURED)


def _judged(name: str, subject: str, level: str, value: float, bound: float) -> Signal:
    return Signal(name, subject, level, float(value), bound, Verdict.FAIL if value > bound else Verdict.PASS)  # type: ignore[arg-type]


def watched(
    world: World, system: nr.System, seed: int, n: int = WARM + QUIET, fault: tuple[float, int] = NONE
) -> list[tuple[int, Alerted]]:
    """The alerts that open after the warm-up: (window, record), through the real records and rules in a home of their own."""
    opened: dict[str, tuple[int, Alerted]] = {}
    clock = SimulatedClock(START)
    with (
        tempfile.TemporaryDirectory() as folder,
        Home.open(Path(folder) / "home", Settings(durable=False), clock) as home,
        home.hold("simulation"),
    ):
        for place, (traffic, outcomes) in enumerate(windows(world, system, seed, n, fault)):
            clock.move(outcomes.window.end + timedelta(hours=7))
            end = outcomes.window.end.isoformat()
            items = [(record, f"monitored/{record.about}/{end}/0", ()) for record in (traffic, outcomes)]
            home.commit_all(items)
            if place < WARM - 1:
                continue
            for entry in monitoring.alert(home, system, clock.now()):
                if entry.record.state == "open" and place >= WARM:
                    opened.setdefault(entry.record.alert, (place, entry.record))
            home.commit(Turned(did=("monitoring",)), key=f"turn/{end}")
            if any(at >= fault[1] for at, _ in opened.values()):
                break
    return list(opened.values())


def false_alarms(world: World, false_per_28: float, worlds: int, seed: int = 0, quiet: int = QUIET) -> float:
    """Alerts in 28 windows of quiet worlds, of which ``quiet`` windows each are counted."""
    system = declared(false_per_28)
    count = sum(len(watched(world, system, seed + k, WARM + quiet)) for k in range(worlds))
    return 28 * count / (worlds * quiet)


def delays(world: World, size: float, worlds: int, false_per_28: float = 1.0) -> Floats:
    """For each world the windows until a fault of ``size`` standard deviations has an alert; infinite when it has none in time."""
    system, begins, seed = declared(false_per_28), WARM + 7, 1000
    made = []
    for k in range(worlds):
        found = [at - begins + 1 for at, _ in watched(world, system, seed + k, begins + 28, (size, begins)) if at >= begins]
        made.append(min(found, default=np.inf))
    return np.array(made)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20, help="worlds of each kind (56 windows each)")
    parser.add_argument("--markdown", action="store_true", help="tables for a document")
    given = parser.parse_args()
    bar = "|" if given.markdown else " "
    print(_row(bar, ["false alarms in 28 windows", *(f"budget {budget:g}" for budget in BUDGETS)]))
    if given.markdown:
        print("|---|" + "---|" * len(BUDGETS))
    for world in WORLDS:
        print(_row(bar, [world.name, *(f"{false_alarms(world, budget, given.worlds):.2f}" for budget in BUDGETS)]), flush=True)
    print()
    print(
        _row(bar, ["fall of the metric, in standard deviations of a window", "found within 2", "within 7", "within 28", "median"])
    )
    if given.markdown:
        print("|---|---|---|---|---|")
    for world in (WORLDS[0], WORLDS[1], WORLDS[4]):
        for size in SIZES:
            waited = delays(world, size, given.worlds)
            shares = [f"{np.mean(waited <= limit):.0%}" for limit in (2, 7, 28)]
            print(_row(bar, [f"{size:g}, {world.name}", *shares, f"{np.median(waited):g}"]), flush=True)


def _row(bar: str, cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |" if bar == "|" else "  ".join([f"{cells[0]:<56}", *(f"{cell:>14}" for cell in cells[1:])])


if __name__ == "__main__":
    main()
