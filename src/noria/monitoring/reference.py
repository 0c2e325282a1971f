"""What a window is compared with: the answering bundle's reference profile, and how far ordinary windows lie from it.

The profile travels in the bundle. How far windows lie from it when nothing is wrong is measured once for each release, on windows of
the logged features from the time of its training set: they differ by weekday, weather and chance as ordinary windows do. Each
column's distance is divided by what is usual for it, a window counts by its *largest* column, and the threshold is a high quantile
of that maximum under resampling of runs of windows; so a window raises one question however many columns it has. The bounds are then
carried from record to record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.core import Verdict, Window, digest, duration, from_micros, micros
from noria.measure import Profile
from noria.model import archive
from noria.model.bundle import Spec
from noria.records import Entry, Monitored, Signal, Trained, TrainingSet
from noria.store import Home
from noria.system import System

LEAST = 30
SPAN = timedelta(days=56)
MOST = 240
RUN = 7
USUAL = 0.9
RARE = 0.98
SEASON = timedelta(days=45)
FLOORS = {"js": 0.05, "missing": 0.01, "unseen": 0.01}
SCORE = "score"
Distances = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Reference:
    """A release's profile, the bound of each (signal, column), and the time its ordinary windows are from."""

    release: str
    profile: Profile
    bounds: Mapping[tuple[str, str], float] = field(default_factory=dict)
    span: Window | None = None

    def in_season(self, moment: datetime) -> bool:
        """Whether the reference has windows from this time of the year."""
        return self.span is not None and in_season(self.span, moment)


def reference(home: Home, system: System, release: str, before: Monitored | None) -> Reference | None:
    """The reference of a release; ``before`` is the last window watched, whose bounds are taken when it was the same release's."""
    profile = profile_of(home, release)
    if profile is None:
        return None
    if before is not None and before.release == release:
        return Reference(release, profile, *carried(before))
    span = training_span(home, system, release)
    if span is None:
        return Reference(release, profile)
    return Reference(release, profile, bounds(_ordinary(home, system, profile, span)), span)


def in_season(span: Window, moment: datetime) -> bool:
    """Whether a moment is of the same time of the year as ``span``, within 45 days, in any year.

    >>> from datetime import UTC
    >>> spring = Window(datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 5, 1, tzinfo=UTC))
    >>> in_season(spring, datetime(2014, 4, 1, tzinfo=UTC)), in_season(spring, datetime(2013, 8, 1, tzinfo=UTC))
    (True, False)
    """
    ahead = (moment - span.start + SEASON) % timedelta(days=365.25)
    return ahead <= span.length + 2 * SEASON


def spec_of(home: Home, release: str) -> Spec:
    """The papers of a bundle, without loading its model."""
    return msgspec.json.decode(archive.read(home.artifacts.get(release))["spec.json"], type=Spec)


def profile_of(home: Home, release: str) -> Profile | None:
    """The reference profile in a bundle: of the features, and of its score out of sample under the name ``score``."""
    kept = spec_of(home, release).reference
    if "profile" not in kept:
        return None
    made = msgspec.convert(kept["profile"], Profile)
    score = kept.get("score")
    if score:
        part = msgspec.convert(score, Profile)
        return Profile(made.n, made.columns | {SCORE: next(iter(part.columns.values()))})
    return made


def distances(profile: Profile, frame: pl.DataFrame, columns: Iterable[str] | None = None) -> Distances:
    """How far the rows are from the profile (its ``columns``), by (signal, column): ``js``, ``missing`` (absolute) and ``unseen``."""
    made: Distances = {}
    if frame.is_empty():
        return made
    if columns is not None:
        profile = Profile(profile.n, {name: profile.columns[name] for name in columns if name in profile.columns})
    for column, measured in measure.distance(profile, measure.against(profile, frame)).items():
        made["js", column] = measured["js"]
        made["missing", column] = abs(measured["missing"])
        made["unseen", column] = measured["unseen"]
    return {name: value for name, value in made.items() if math.isfinite(value)}


def bounds(ordinary: Sequence[Distances]) -> dict[tuple[str, str], float]:
    """The bound of each (signal, column) from the distances of ordinary windows; nothing from fewer than 30.

    Each column is scaled by its 90 % quantile (at least a floor below which nobody would care), and all share one factor: the
    quantile of the windows' maximum that 9 of 10 resamples of runs of 7 windows stay below.

    >>> made = bounds([{("js", "a"): 0.1 + 0.001 * k, ("js", "b"): 0.2} for k in range(60)])
    >>> round(made["js", "a"], 2), round(made["js", "b"], 2)
    (0.16, 0.21)
    """
    if len(ordinary) < LEAST:
        return {}
    names = sorted({name for window in ordinary for name in window})
    table = np.array([[window.get(name, np.nan) for name in names] for window in ordinary])
    with np.errstate(all="ignore"):
        usual = np.nanquantile(table, USUAL, axis=0)
    usual = np.maximum(np.nan_to_num(usual), [FLOORS[name] for name, _ in names])
    factor = rarely(np.nanmax(table / usual, axis=1))
    return {name: float(f"{factor * scale:.9g}") for name, scale in zip(names, usual, strict=True)}


def rarely(values: NDArray[np.float64]) -> float:
    """What ordinary windows' numbers (in order of time) rarely exceed: their 98 % quantile, as high as 9 of 10 resamples have it.

    Runs of 7 windows are drawn together, so that weekdays and spells of weather stay what they are.
    """
    n = len(values)
    random = np.random.default_rng(int(digest(["reference", n, [float(f"{x:.9g}") for x in values]])[:8], 16))
    heads = random.integers(0, n, (200, -(-n // RUN)))
    drawn = values[((heads[:, :, None] + np.arange(RUN)) % n).reshape(200, -1)[:, :n]]
    return float(np.quantile(np.quantile(drawn, RARE, axis=1), 0.9))


def training_of(home: Home, release: str) -> Entry[TrainingSet] | None:
    """The training set that a bundle was made from."""
    made = next((entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == release), None)
    parents = home.ledger.parents(made.id) if made is not None else []
    sets = [cast(Entry[TrainingSet], parent) for parent in parents if isinstance(parent.record, TrainingSet)]
    return sets[0] if sets else None


def training_span(home: Home, system: System, release: str) -> Window | None:
    """The last eight weeks of the time a release's training set is from, on the grid of windows."""
    training = training_of(home, release)
    if training is None:
        return None
    start = min(part.window.start for part in training.record.parts)
    end = max(part.window.end for part in training.record.parts)
    every = duration(system.every)
    length = min(end - start, max(SPAN, every))
    return Window(end - length // every * every, end)


def _ordinary(home: Home, system: System, profile: Profile, span: Window) -> list[Distances]:
    """The distances of the windows within ``span``, at most 240 of them, evenly spaced."""
    known = home.lake.schema("predictions") or {}
    columns = [name for name in profile.columns if name in known]
    frame = home.lake.read("predictions", columns=["_time", *columns], _time=(span.start, span.end))
    every = duration(system.every)
    total = span.length // every
    step = -(-total // MOST)
    place = (frame["_time"].dt.timestamp("us") - micros(span.start) - 1) // (every // timedelta(microseconds=1))
    parts = frame.with_columns(place.alias("_place")).partition_by("_place", as_dict=True)
    return [distances(profile, parts[(k,)], columns) for k in range(0, total, step) if (k,) in parts]


def carried(before: Monitored) -> tuple[dict[tuple[str, str], float], Window | None]:
    """The bounds and the reference's time as a window's record has them."""
    kept = {
        (signal.name, signal.subject): signal.bound
        for signal in before.signals
        if signal.name in FLOORS and signal.bound is not None
    }
    return kept, carried_span(before)


def season(span: Window) -> list[Signal]:
    """The time that the ordinary windows are from, as signals (seconds since 1970)."""
    ends = (("reference from", span.start), ("reference until", span.end))
    return [Signal(name, "season", "operation", micros(moment) / 1e6, None, Verdict.NOT_MEASURED) for name, moment in ends]


def carried_span(before: Monitored) -> Window | None:
    """The inverse of ``season``."""
    ends = [signal.value for signal in before.signals if signal.name in ("reference from", "reference until")]
    if len(ends) != 2 or None in ends:
        return None
    start, end = (from_micros(round(value * 1e6)) for value in ends if value is not None)
    return Window(start, end)
