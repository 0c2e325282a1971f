"""What a window is compared with: the answering bundle's reference profile, and how far ordinary windows lie from it.

The profile travels in the bundle. How far windows lie from it when nothing is wrong is measured once for each release, on windows of
the logged features from the time of its training set: they differ by weekday, weather and chance as ordinary windows do. What
follows from them (the bounds, see ``limits``) is kept as an artifact, which the records of the release's windows lead to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria import measure
from noria.core import Verdict, Window, digest, duration, from_micros, micros
from noria.measure import Profile
from noria.model import archive
from noria.model.bundle import Spec
from noria.monitoring import limits
from noria.monitoring.budget import share
from noria.monitoring.ordinary import SLIDE, Distances, ordinary
from noria.records import Entry, Monitored, Signal, Trained, TrainingSet
from noria.store import Home
from noria.system import System

SPAN = timedelta(days=56)
RUN = 7
RARE = 0.98
SEASON = timedelta(days=45)
SCORE = "score"
ByColumn = dict[str, dict[str, float]]


class Usual(msgspec.Struct, frozen=True):
    """What ordinary windows say: the bounds of one window by its kind (``""``: any other), signal and column, and of seven together."""

    start: datetime
    end: datetime
    alone: dict[str, ByColumn]
    sliding: dict[str, float]


@dataclass(frozen=True)
class Reference:
    """A release's profile, what ordinary windows say (and the artifact it is kept in), and how its loss lies over the profile."""

    release: str
    profile: Profile
    usual: Usual | None = None
    kept: str = ""
    loss: Mapping[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> Window | None:
        """The time that the ordinary windows are from."""
        return Window(self.usual.start, self.usual.end) if self.usual is not None else None

    def bounds(self, kind: str) -> dict[tuple[str, str], float]:
        """The bounds of a window of this kind, by (signal, column)."""
        if self.usual is None:
            return {}
        of = self.usual.alone.get(kind, self.usual.alone.get("", {}))
        made = {(name, column): bound for name, by in of.items() for column, bound in by.items()}
        return made | {("sliding", column): bound for column, bound in self.usual.sliding.items()}

    def in_season(self, moment: datetime) -> bool:
        """Whether the reference has windows from this time of the year."""
        return self.span is not None and in_season(self.span, moment)


def reference(home: Home, system: System, release: str, kept: str | None) -> Reference | None:
    """The reference of a release; ``kept`` is the artifact of its bounds when an earlier window has made it."""
    papers = spec_of(home, release).reference
    profile = _profile(papers)
    if profile is None:
        return None
    loss = papers.get("loss") or {}
    if kept:
        return Reference(release, profile, msgspec.json.decode(home.artifacts.get(kept), type=Usual), kept, loss)
    span = training_span(home, system, release)
    if span is None:
        return Reference(release, profile, loss=loss)
    usual = _usual(home, system, profile, span)
    return Reference(release, profile, usual, home.artifacts.put(msgspec.json.encode(usual, order="deterministic")), loss)


def _usual(home: Home, system: System, profile: Profile, span: Window) -> Usual:
    """The bounds from the logged features of ``span``: half of the budget for windows alone, half for seven together."""
    known = home.lake.schema("predictions") or {}
    columns = [name for name in profile.columns if name in known]
    frame = home.lake.read("predictions", columns=["_time", *columns], _time=(span.start, span.end))
    seen = ordinary(profile, frame, span, duration(system.every))
    error = share(system, "drift") / 2
    alone = {kind: _by(found) for kind, found in limits.bounds(seen.alone, seen.kinds, error=error).items()}
    inflated = limits.inflation([{name: value for name, value in window.items() if name[0] == "js"} for window in seen.alone])
    together = limits.bounds(seen.sliding, error=error, overlap=SLIDE, inflated=inflated).get("", {})
    return Usual(span.start, span.end, alone, _by(together).get("sliding", {}))


def _by(found: Mapping[tuple[str, str], float]) -> ByColumn:
    made: ByColumn = {}
    for (name, column), bound in found.items():
        made.setdefault(name, {})[column] = bound
    return made


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
    return _profile(spec_of(home, release).reference)


def _profile(kept: Mapping[str, Any]) -> Profile | None:
    if "profile" not in kept:
        return None
    made = msgspec.convert(kept["profile"], Profile)
    score = kept.get("score")
    if score:
        part = msgspec.convert(score, Profile)
        return Profile(made.n, made.columns | {SCORE: next(iter(part.columns.values()))})
    return made


def distances(reference: Profile, window: Profile) -> Distances:
    """How far a window's profile is from the reference, by (signal, column): ``js``, ``missing`` (absolute) and ``unseen``."""
    made: Distances = {}
    for column, measured in measure.distance(reference, window).items():
        made["js", column] = measured["js"]
        made["missing", column] = abs(measured["missing"])
        made["unseen", column] = measured["unseen"]
    return {name: value for name, value in made.items() if math.isfinite(value)}


def only(profile: Profile, columns: Iterable[str]) -> Profile:
    """Some columns of a profile."""
    return Profile(profile.n, {name: profile.columns[name] for name in columns if name in profile.columns})


def bounds(seen: Sequence[Distances], error: float = 1.0) -> dict[tuple[str, str], float]:
    """``limits.bounds`` of windows that are all of one kind.

    >>> made = bounds([{("js", "a"): 0.1 + 0.001 * (k * 7 % 60)} for k in range(60)])
    >>> round(made["js", "a"], 2), bounds([])
    (0.18, {})
    """
    return limits.bounds(seen, error=error).get("", {})


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
