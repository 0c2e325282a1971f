"""What can be seen before any label: volume, lateness, refusals, the features and the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from noria.core import Verdict, Window
from noria.monitoring.operations import operations
from noria.monitoring.reference import SCORE, Reference, bounds, distances, reference, season
from noria.monitoring.together import BESIDE, together
from noria.monitoring.windows import answering, judged, number, value_of
from noria.records import Monitored, Signal
from noria.store import Home
from noria.system import System

MEMORY = 42


def traffic(home: Home, system: System, window: Window, past: Sequence[Monitored]) -> Monitored:
    """One window of traffic. ``past`` are the windows before it, the newest last: ``MEMORY`` of them are enough."""
    known = home.lake.schema("predictions") or {}
    wanted = [name for name in ("_time", "_score", "_act", "_release", "_variant", "_scored_at", *BESIDE) if name in known]
    features = [feature.name for feature in system.flat_features if feature.name in known]
    frame = home.lake.read("predictions", columns=[*wanted, *features], _time=(window.start, window.end))
    release = answering(frame)
    before = next((record for record in reversed(past) if record.release is not None), None)
    against = reference(home, system, release, before) if release is not None else None
    signals = operations(home, system, window, frame, past)
    if against is not None:
        signals += _moved(_with_score(against, past), window, frame, release)
    if release is not None:
        own = frame.filter(pl.col("_release") == release)
        signals += _predicted(own)
        signals += together(home, system, window, own, signals, past, release)
    return Monitored(window=window, about="traffic", release=release, n=frame.height, signals=tuple(signals))


def _with_score(against: Reference, past: Sequence[Monitored]) -> Reference:
    """The reference with a bound for the score, once the release has answered for 30 windows: those are its ordinary ones."""
    name = ("js", SCORE)
    if name in against.bounds:
        return against
    own = [record for record in past if record.release == against.release]
    seen = [{name: value} for record in own if (value := value_of(record, *name)) is not None]
    return replace(against, bounds={**against.bounds, **bounds(seen)})


def _moved(against: Reference, window: Window, frame: pl.DataFrame, release: str | None) -> list[Signal]:
    """Each column's distances, and the largest of them in units of its bound."""
    shown = frame.filter(pl.col("_release") == release).select(pl.col("_score").alias(SCORE))
    features = [name for name in against.profile.columns if name != SCORE]
    measured = distances(against.profile, frame, features) | distances(against.profile, shown, [SCORE])
    seen = against.in_season(window.end)
    made: list[Signal] = []
    largest = ("", 0.0)
    for (name, column), value in measured.items():
        bound = against.bounds.get((name, column))
        verdict = judged(value, high=bound) if seen or column == SCORE else Verdict.NOT_ENOUGH_DATA
        made.append(Signal(name, column, "prediction" if column == SCORE else "feature", number(value), bound, verdict))
        if bound and value / bound > largest[1]:
            largest = (column, value / bound)
    if largest[0]:
        verdict = judged(largest[1], high=1.0) if seen or largest[0] == SCORE else Verdict.NOT_ENOUGH_DATA
        made.append(Signal("largest", largest[0], "feature", number(largest[1]), 1.0, verdict))
    if against.span is not None:
        made += season(against.span)
    return made


def _predicted(frame: pl.DataFrame) -> list[Signal]:
    """The mean score and the share acted on, of the release's own rows."""
    means = frame.select(pl.col("_score", "_act").cast(pl.Float64).fill_nan(None).mean()).row(0)
    return [
        Signal("mean", name, "prediction", number(value), None, Verdict.NOT_MEASURED)
        for name, value in zip((SCORE, "act"), means, strict=True)
        if value is not None
    ]
