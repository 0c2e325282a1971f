"""What can be seen before any label: volume, lateness, refusals, the features and the score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from noria import measure
from noria.core import Verdict, Window, duration
from noria.measure import Profile
from noria.monitoring import limits, profiles
from noria.monitoring.budget import share
from noria.monitoring.impact import impacts
from noria.monitoring.operations import operations
from noria.monitoring.ordinary import SLIDE
from noria.monitoring.reference import SCORE, Reference, bounds, distances, only, profile_of, reference, season
from noria.monitoring.served import served
from noria.monitoring.together import BESIDE, together
from noria.monitoring.windows import answering, found, judged, number, value_of
from noria.records import Monitored, Signal
from noria.store import Home
from noria.system import System

MEMORY = 42
WORST = 3
ALIKE, LEAST_ALIKE = 0.3, 30
DETAIL = ("psi", "ks", "wasserstein", "chi2")
Bounds = Mapping[tuple[str, str], float]


def traffic(home: Home, system: System, window: Window, past: Sequence[Monitored]) -> Monitored:
    """One window of traffic. ``past`` are the windows before it, the newest last: ``MEMORY`` of them are enough."""
    known = home.lake.schema("predictions") or {}
    wanted = [name for name in ("_time", "_score", "_act", "_release", "_variant", "_scored_at", *BESIDE) if name in known]
    names = [feature.name for feature in system.flat_features if feature.name in known]
    frame = home.lake.read("predictions", columns=[*wanted, *names], _time=(window.start, window.end))
    release = answering(frame)
    signals = operations(home, system, window, frame, past)
    kept = ""
    if release is not None:
        moved, kept = _moved(home, system, (release, window), frame, past)
        own = frame.filter(pl.col("_release") == release)
        signals += [*moved, *_predicted(own), *_alike(home, release, own), *served(home, system, window, release)]
        signals += together(home, system, window, own, signals, past, release)
    return Monitored(window=window, about="traffic", release=release, n=frame.height, signals=tuple(signals), profile=kept)


def _moved(
    home: Home, system: System, of: tuple[str, Window], frame: pl.DataFrame, past: Sequence[Monitored]
) -> tuple[list[Signal], str]:
    """How far the window is from the release's reference; and the artifact that keeps the window's profile."""
    release, window = of
    own = [record for record in past if record.release == release]
    stored = next((record.profile for record in reversed(own) if record.profile), "")
    against = reference(home, system, release, profiles.bounds_of(home, stored) if stored else None)
    if against is None:
        return [], ""
    profile = _profiled(against.profile, frame, release)
    kept = profiles.keep(home, release, against.kept, profile)
    limit = against.bounds(limits.kind(window.start, duration(system.every)))
    limit |= _score_bound(system, own)
    together = _together(home, against.profile, window, own, profile)
    return _judged(against, window, profile, together, limit), kept


def _profiled(reference: Profile, frame: pl.DataFrame, release: str) -> Profile:
    """The features of all rows, and the score of the release's own; features that are not logged are left out."""
    shown = frame.filter(pl.col("_release") == release).select(pl.col("_score").alias(SCORE))
    features = measure.against(only(reference, [name for name in reference.columns if name != SCORE]), frame)
    score = measure.against(only(reference, [SCORE]), shown)
    return Profile(frame.height, features.columns | score.columns)


def _score_bound(system: System, own: Sequence[Monitored]) -> dict[tuple[str, str], float]:
    """A bound for the score, once the release has answered for 30 windows: those are its ordinary ones; then it stays."""
    last = next((signal for record in reversed(own) if (signal := found(record.signals, "js", SCORE)) is not None), None)
    if last is not None and last.bound is not None:
        return {("js", SCORE): last.bound}
    seen = [{("js", SCORE): value} for record in own if (value := value_of(record, "js", SCORE)) is not None]
    return bounds(seen, share(system, "score"))


def _together(
    home: Home, reference: Profile, window: Window, own: Sequence[Monitored], profile: Profile
) -> dict[tuple[str, str], float]:
    """The distance of the last seven windows of the release together, this one included, by column: from the stored profiles."""
    before = own[-(SLIDE - 1) :]
    if len(before) < SLIDE - 1 or not all(record.profile for record in before):
        return {}
    if window.start - before[0].window.start > (SLIDE + 1) * window.length:
        return {}
    parts = [profiles.read(home, record.profile, reference) for record in before]
    whole = profile
    for part in parts:
        whole = whole.merge(part)
    found = measure.distance(reference, whole)
    return {("sliding", column): by["js"] for column, by in found.items() if column != SCORE and math.isfinite(by["js"])}


def _judged(
    against: Reference, window: Window, profile: Profile, together: Mapping[tuple[str, str], float], limit: Bounds
) -> list[Signal]:
    """Each column's distances and what they mean for the loss; the largest in units of its bound; more of the worst columns."""
    full = measure.distance(against.profile, profile)
    measured = distances(against.profile, profile)
    matters = impacts(against.loss, profile)
    seen = against.in_season(window.end)
    made: list[Signal] = []
    over = {name: value / limit[name] for name, value in measured.items() if limit.get(name)}
    beyond = [name for name, value in together.items() if limit.get(name) and value > limit[name]]
    for name, column in [*measured, *sorted(beyond, key=lambda name: (-together[name] / limit[name], name))]:
        value = together[name, column] if name == "sliding" else measured[name, column]
        bound = limit.get((name, column))
        verdict = judged(value, high=bound) if seen or column == SCORE else Verdict.NOT_ENOUGH_DATA
        impact = matters.get(column) if name in ("js", "sliding") else None
        made.append(Signal(name, column, _level(column), number(value), bound, verdict, impact=impact))
    worst = [name for name, _ in sorted(over.items(), key=lambda item: (-item[1], item[0]))]
    if worst:
        top = worst[0]
        verdict = judged(over[top], high=1.0) if seen or top[1] == SCORE else Verdict.NOT_ENOUGH_DATA
        made.append(Signal("largest", top[1], "feature", number(over[top]), 1.0, verdict, impact=matters.get(top[1])))
    for column in list(dict.fromkeys(column for _, column in worst))[:WORST]:
        made += [
            Signal(name, column, _level(column), number(full[column][name]), None, Verdict.NOT_MEASURED)
            for name in DETAIL
            if number(full[column].get(name)) is not None
        ]
    if against.span is not None:
        made += season(against.span)
    return made


def _level(column: str) -> Literal["prediction", "feature"]:
    return "prediction" if column == SCORE else "feature"


def _predicted(frame: pl.DataFrame) -> list[Signal]:
    """The mean score and the share acted on, of the release's own rows."""
    means = frame.select(pl.col("_score", "_act").cast(pl.Float64).fill_nan(None).mean()).row(0)
    return [
        Signal("mean", name, "prediction", number(value), None, Verdict.NOT_MEASURED)
        for name, value in zip((SCORE, "act"), means, strict=True)
        if value is not None
    ]


def _alike(home: Home, release: str, frame: pl.DataFrame) -> list[Signal]:
    """The share of rows with one and the same score, against how full the fullest bin of the score was out of sample: a score that is stuck."""
    reference = profile_of(home, release)
    score = reference.columns.get(SCORE) if reference is not None else None
    said = frame["_score"].drop_nulls().drop_nans()
    if score is None or not sum(score.counts) or len(said) < LEAST_ALIKE:
        return []
    fullest = max(score.counts) / sum(score.counts)
    most = int(said.round(12).value_counts(name="n")["n"].max() or 0)  # type: ignore[arg-type]  # a count
    bound = min(1.0, max(ALIKE, 2 * fullest))
    share = most / len(said)
    verdict = judged(share, high=bound) if bound < 1 else Verdict.NOT_ENOUGH_DATA
    return [Signal("alike", SCORE, "prediction", number(share), number(bound), verdict)]
