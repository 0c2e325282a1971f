"""Replay: history through the production code, under a simulated clock; once, or once for each of several retraining policies.

Nothing below this module knows that the clock is simulated. A replay that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from noria import data, development, stats
from noria.core import Conflict, Estimate, SettingsError, SimulatedClock, duration
from noria.deployment import Bundles
from noria.development import Freshness, Interval
from noria.loop import Turn, turn
from noria.records import Alerted, CohortClosed, Gated, Released, Scored, Trained, Valued
from noria.settings import Settings
from noria.store import Home
from noria.system import Boosting, Linear, Retrain, System

STATES = ("stateless", "stateful", "compare")
PAPERS = ("state", "from", "rows", "recalibrated")
"""What a candidate's settings say besides the settings of its recipe."""
FRESH_STEP = timedelta(days=14)
FRESH_TRAIN = timedelta(days=56)


def moments(start: datetime, end: datetime, every: timedelta) -> list[datetime]:
    """The times of the turns: ``start + every``, … up to ``end``.

    >>> from datetime import UTC
    >>> [m.day for m in moments(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 4, tzinfo=UTC), timedelta(days=1))]
    [2, 3, 4]
    """
    if end <= start:
        raise SettingsError(
            f"a replay cannot end at {end:%Y-%m-%d %H:%M}, as it begins at {start:%Y-%m-%d %H:%M}",
            hint="--to must lie after --from",
        )
    if every <= timedelta(0) or end - start < every:
        raise SettingsError(
            f"a replay from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} is shorter than one turn",
            hint="make --every shorter than that",
        )
    return [start + every * k for k in range(1, (end - start) // every + 1)]


def replay(
    path: Path,
    system: System,
    start: datetime,
    end: datetime,
    every: timedelta,
    *,
    settings: Settings,
    on_turn: Callable[[Home, Turn], None] | None = None,
) -> Home:
    """Turns the wheel over ``start..end`` and returns the home, open for reading; the caller closes it.

    ``on_turn`` is called after each turn. A data fault stops that turn only: the next one tries again, as it would in
    production. Raises ``Conflict`` when the home already holds something later than ``end``.
    """
    todo = moments(start, end, every)
    clock = SimulatedClock(start)
    home = Home.open(path, settings, clock)
    try:
        newest = home.ledger.read(newest=1)
        reached = newest[-1].at if newest else start
        if reached > end:
            raise Conflict(
                f"{path} already stands at {reached:%Y-%m-%d %H:%M}, later than {end:%Y-%m-%d %H:%M}",
                hint="replay into another --home, or to a later --to",
            )
        bundles = Bundles(home)
        with home.hold("replay"):
            for moment in todo:
                if moment < reached:
                    continue
                clock.move(moment)
                done = turn(home, system, bundles=bundles)
                if on_turn is not None:
                    on_turn(home, done)
    except BaseException:
        home.close()
        raise
    return home


# ------------------------------------------------------------------------------------------------- policies side by side


class Lived(msgspec.Struct, frozen=True):
    """What became of one policy over the same history.

    ``value`` is that of all decisions, ``cost`` that of the machine learning (``Costs``), ``net`` their difference. ``alerts`` counts those
    that page, ``alert_days`` the days with one open. ``versus`` is the difference in ``net`` to the first policy, with its interval.
    """

    policy: str
    trainings: int
    recalibrations: int
    releases: int
    value: float
    cost: float
    net: float
    alerts: int
    alert_days: float
    versus: Estimate
    home: str


class _Books(msgspec.Struct, frozen=True):
    """The value of each window by its end, and when the first release was."""

    value: dict[datetime, float]
    released: datetime | None


def policy(system: System, name: str) -> System:
    """The system under another retraining policy.

    ``declared`` is its own; ``never`` trains once; ``recalibrated`` trains once and calibrates anew when it must; a duration is that schedule and
    nothing else; ``triggered`` has no schedule, and trains on decay, drift and volume. ``+stateful``, ``+compare`` or ``+stateless`` behind any of
    them sets ``Retrain.state``. Raises ``SettingsError`` for other names.

    >>> from noria.system import Objective, Source, Value, Label
    >>> asked = Source("asked", None, key="id", time="at", owner="us")
    >>> made = System("s", asked, Label(asked, "y", within="1d"), [], Objective("p", Value("0", "EUR"), "log_loss"), [])
    >>> policy(made, "7d").retrain.every, policy(made, "never").retrain.on, policy(made, "triggered+stateful").retrain.state
    ('7d', (), 'stateful')
    """
    base, _, state = name.partition("+")
    own = system.retrain
    known: dict[str, Retrain] = {
        "declared": own,
        "never": replace(own, every=None, on=(), recalibrate=False),
        "recalibrated": replace(own, every=None, on=(), recalibrate=True),
        "triggered": replace(own, every=None, on=("decay", "drift", "volume")),
    }
    try:
        length = None if base in known else duration(base)
    except SettingsError:
        length = timedelta(0)
    if (length is not None and length <= timedelta(0)) or (state and state not in STATES):
        raise SettingsError(
            f"there is no retraining policy {name!r}",
            hint=f"one of {', '.join(known)} or a time between two trainings such as 28d; behind it, if you like, +{', +'.join(STATES)}",
        )
    made = known.get(base) or replace(own, every=base, on=(), cooldown=base, budget=None, recalibrate=False)
    return replace(system, retrain=replace(made, state=state) if state else made)  # type: ignore[arg-type]  # just looked at


def policies(text: str) -> list[str]:
    """The names in a list with commas; raises ``SettingsError`` when there are fewer than two, or one twice.

    >>> policies("never, 28d")
    ['never', '28d']
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"{text!r} does not name two policies or more", hint="for example never,28d,triggered")
    return names


def place(path: Path, name: str) -> Path:
    """Where a policy's home is, under the home of the system."""
    return path / "compare" / name


def lived(system: System, path: Path, names: Sequence[str], settings: Settings, end: datetime) -> list[Lived]:
    """What the replayed policies came to, in their order; the homes are at ``place(path, name)``."""
    rows: list[tuple[Lived, _Books]] = []
    for name in names:
        with Home.open(place(path, name), settings, SimulatedClock(end), create=False, write=False) as home:
            rows.append(_lived(home, system, name, end))
    (first, books), made = rows[0], []
    for row, other in rows:
        versus = Estimate(0.0, 0.0, 0.0, len(books.value)) if row is first else _versus(row, other, first, books)
        made.append(msgspec.structs.replace(row, versus=versus))
    return made


def _lived(home: Home, system: System, name: str, end: datetime) -> tuple[Lived, _Books]:
    value: dict[datetime, float] = {}
    for entry in home.ledger.read(Valued):
        value[entry.record.window.end] = entry.record.total
    gated = home.ledger.read(Gated)
    mended = sum(entry.key.startswith("gated/recalibrate/") for entry in gated)
    released = home.ledger.read(Released)
    count, days = _alerts(home, end)
    total = float(sum(value.values()))
    cost = _cost(home, system, len(gated) - mended)
    made = Lived(
        policy=name,
        trainings=len(gated) - mended,
        recalibrations=mended,
        releases=len(released),
        value=_number(total),
        cost=_number(cost),
        net=_number(total - cost),
        alerts=count,
        alert_days=_number(days),
        versus=Estimate(None),
        home=str(home.path),
    )
    return made, _Books(value, released[0].at if released else None)


def _cost(home: Home, system: System, trainings: int) -> float:
    """What the machine learning cost: predictions by a release, labels that came, trainings, days. Calibrating anew trains nothing, and costs none."""
    prices = system.costs
    scored = home.ledger.read(Scored)
    closed = {e.record.window.end: e.record.labelled - e.record.silent for e in home.ledger.read(CohortClosed)}
    days = (scored[-1].record.window.end - min(closed)) / timedelta(days=1) if scored and closed else 0.0
    parts = (
        prices.prediction * sum(n for entry in scored for release, n in entry.record.releases.items() if release),
        prices.label * sum(closed.values()),
        prices.training * trainings,
        prices.day * max(0.0, days),
    )
    return float(sum(parts))


def _alerts(home: Home, end: datetime) -> tuple[int, float]:
    """How many alerts of harm were opened, and for how many days at least one was open."""
    spans: dict[str, list[datetime]] = {}
    for entry in home.ledger.read(Alerted):
        record = entry.record
        if record.harm and record.state == "open":
            spans[record.alert] = [entry.at, end]
        elif record.state == "resolved" and record.alert in spans:
            spans[record.alert][1] = entry.at
    days, reached = timedelta(0), None
    for start, stop in sorted((a, b) for a, b in spans.values()):
        begun = start if reached is None else max(start, reached)
        days += max(timedelta(0), stop - begun)
        reached = stop if reached is None else max(reached, stop)
    return len(spans), days / timedelta(days=1)


def _versus(row: Lived, mine: _Books, first: Lived, theirs: _Books) -> Estimate:
    """The difference in net value to the first policy: paired by window since either had a release, less the difference in cost."""
    begun = min((b.released for b in (mine, theirs) if b.released is not None), default=None)
    ends = sorted(end for end in mine.value.keys() & theirs.value.keys() if begun is not None and end > begun)
    if not ends:
        return Estimate(None)
    apart = np.array([mine.value[end] - theirs.value[end] for end in ends])
    made = stats.block_mean(apart, np.arange(len(ends)))
    dearer = row.cost - first.cost
    low, value, high = (None if x is None else _number(x * len(ends) - dearer) for x in (made.low, made.value, made.high))
    return Estimate(value, low, high, made.n)


def _number(value: float) -> float:
    return float(f"{value:.12g}")


def freshness(home: Home, system: System, now: datetime) -> tuple[Freshness | None, Interval | None]:
    """How the recipe of the newest release ages on what had closed by ``now``, and how often to train it at the declared cost of a training.

    Without a release: the costliest declared recipe that learns, with its default settings. ``None`` where history is too short.
    """
    released = home.ledger.latest(Released)
    made = [e.record for e in home.ledger.read(Trained) if released is not None and e.record.bundle == released.record.bundle]
    models = [name for name, one in development.names(system).items() if isinstance(one, Linear | Boosting)]
    if not made and not models:
        return None, None
    recipe, chosen = (made[-1].recipe, made[-1].settings) if made else (models[-1], {})
    found = development.freshness(
        home,
        system,
        data.labelled(home, system, now),
        tuple(feature.name for feature in system.flat_features),
        recipe=recipe,
        settings={name: value for name, value in chosen.items() if name not in PAPERS},
        train=FRESH_TRAIN,
        step=FRESH_STEP,
    )
    return found, None if found is None else development.best_interval(found, system.costs.training, lag=lag(system))


def lag(system: System) -> timedelta:
    """How old a model is at least when it goes live: the parts that judge it, the gaps, and the time in shadow."""
    parts, label = system.parts, system.label
    gap = duration(label.within) + duration(label.horizon) + duration(label.lateness)
    lengths = (parts.validate, parts.test, parts.fresh, system.rollout.shadow)
    return sum((duration(length) for length in lengths), 4 * gap)
