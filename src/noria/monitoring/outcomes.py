"""What closed cohorts say: labels, the release's metric beside that of baselines that cost nothing, calibration, value, guardrails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Verdict, Window
from noria.monitoring.closed import against_x, read_beside
from noria.monitoring.lastlabel import calibrated, groups_of, last_labels, look_back, pairs
from noria.monitoring.reference import carried_span, in_season, season, spec_of
from noria.monitoring.standard import base_rate_loss, label_reference, standard
from noria.monitoring.windows import answering, found, judged, number, value_of
from noria.records import CohortClosed, Monitored, Signal
from noria.store import Home
from noria.system import System

PAST = 28
CHAMPION = "champion"
LAST = "last label"
BASE = "base rate"
NOTHING = "do nothing"
Floats = NDArray[np.float64]


def outcomes(home: Home, system: System, cohort: CohortClosed, past: Sequence[Monitored]) -> Monitored:
    """One window of closed outcomes. ``past`` are the windows before it, the newest last: 28 of them are enough."""
    window = cohort.window
    frame = _closed(home, system, window)
    last = last_labels(frame, system.label, groups_of(system), column=_label_column(system))
    here = (frame["_time"] > window.start).to_numpy()
    frame, last = frame.filter(here), last.filter(here)
    earlier = [record for record in past if record.window.end <= window.start]
    signals = _labels(system, cohort, frame, last)
    release = answering(frame)
    if release is not None:
        signals += _shift(home, system, release, cohort, earlier)
        chosen = (frame["_release"] == release).fill_null(False).to_numpy()
        answered = frame.with_columns(last.alias("_last")).filter(chosen)
        signals += _performance(home, system, release, answered, earlier)
        signals += against_x(home, system, release, answered, earlier)
        frame = frame.filter(chosen)
    signals += _business(home, system, frame)
    return Monitored(
        window=window, about="outcomes", release=release, n=frame.height, signals=tuple(signals), revision=cohort.revision
    )


def _label_column(system: System) -> str:
    return "_class" if system.task == "multiclass" else "_label"


def _closed(home: Home, system: System, window: Window) -> pl.DataFrame:
    """The window's closed rows, and before them as much as it takes to know the last label."""
    known = home.lake.schema("predictions") or {}
    wanted = ["_score", "_scores", "_act", "_act_propensity", "_release", "_variant", *groups_of(system)]
    wanted += [*measure.columns_read(system.objective.value.sql), *read_beside(system)]
    span = Window(look_back(system.label, system.every, window.start), window.end)
    return measure.closed(home, system, span, columns=[name for name in dict.fromkeys(wanted) if name in known])


def _labels(system: System, cohort: CohortClosed, frame: pl.DataFrame, last: pl.Series) -> list[Signal]:
    """How many labels there are, their mean, and how they follow one another."""
    share = cohort.labelled / cohort.n if cohort.n else None
    silent = cohort.silent / cohort.labelled if cohort.labelled else None
    made = [_outcome("labelled", "label", share), _outcome("silent", "label", silent), _outcome("mean", "label", cohort.mean)]
    made += [_outcome(f"delay {quantile} hours", "label", cohort.delay.get(quantile)) for quantile in ("p50", "p90")]
    if system.task == "binary":
        made += [
            _outcome("pairs", cell, n) for cell, n in pairs(measure.numbers_of(frame["_label"]), measure.numbers_of(last)).items()
        ]
    return made


def _shift(home: Home, system: System, release: str, cohort: CohortClosed, past: Sequence[Monitored]) -> list[Signal]:
    """How far the label's mean is from what it was at the time of the release's training set."""
    before = next((record for record in reversed(past) if record.release == release), None)
    old = found(before.signals, "shift", "label") if before is not None else None
    if before is not None and old is not None:
        mean, bound, span = value_of(before, "reference mean", "label"), old.bound, carried_span(before)
    else:
        made = label_reference(home, system, release)
        mean, bound, span = made if made is not None else (None, None, None)
    if mean is None or cohort.mean is None:
        return []
    apart = number(abs(cohort.mean - mean))
    seen = span is not None and in_season(span, cohort.window.end)
    verdict = judged(apart, high=bound) if seen else Verdict.NOT_ENOUGH_DATA
    signals = [Signal("shift", "label", "outcome", apart, number(bound), verdict), _outcome("reference mean", "label", mean)]
    return signals + (season(span) if span is not None else [])


def _performance(home: Home, system: System, release: str, frame: pl.DataFrame, past: Sequence[Monitored]) -> list[Signal]:
    """How the release did on the rows that it answered; ``frame`` has the last label as ``_last``."""
    rows = measure.usable(system, frame)
    rows = rows.filter(pl.col("_score").is_finite().fill_null(False))
    if rows.is_empty():
        return [_outcome("rows", CHAMPION, 0)]
    made = [_outcome("rows", CHAMPION, rows.height)]
    if system.task != "multiclass":
        made += _metrics(system, rows, past)
    else:
        made += _classes(home, system, release, rows)
    made += _lead(home, system, release, past, made)
    return made + _value(home, system, frame)


def _metrics(system: System, rows: pl.DataFrame, past: Sequence[Monitored]) -> list[Signal]:
    """The declared metric (and accuracy) of the release, of the last label and of the base rate, on the same rows."""
    metric = system.objective.metric
    label, score, weight = (
        measure.numbers_of(rows["_label"]),
        measure.numbers_of(rows["_score"]),
        measure.numbers_of(rows["_weight"]),
    )
    last = measure.numbers_of(rows["_last"])
    quantile = _quantile(system)

    def of(name: str, said: Floats) -> float:
        return stats.compute(name, label, said, weights=weight, quantile=quantile)

    made = [_outcome(metric, CHAMPION, of(metric, score))]
    if system.task == "binary":
        seen = pairs_of(past)
        if sum(seen.values()):
            made.append(_outcome(metric, LAST, of(metric, calibrated(last, seen))))
        if metric != "accuracy":
            made.append(_outcome("accuracy", CHAMPION, of("accuracy", score)))
        made.append(_outcome("accuracy", LAST, of("accuracy", last)))
        if system.combine is None:  # a combined score orders rows, and is no probability
            made.append(_outcome("offset", "score", float(np.average(label - score, weights=weight))))
        made += _guardrails(system, label, score, measure.numbers_of(rows["_act"]), weight)
    else:
        made.append(_outcome(metric, LAST, of(metric, last)))
        made.append(_outcome("offset", "score", float(np.average(label - score, weights=weight))))
    base = base_rate(past)
    loss = base_rate_loss(metric, base, label, weight) if base is not None and system.task == "binary" else None
    if loss is not None:
        made.append(_outcome(metric, BASE, loss))
    return made


def _lead(home: Home, system: System, release: str, past: Sequence[Monitored], made: Sequence[Signal]) -> list[Signal]:
    """How far the release is ahead of the base rate (or, without one, its plain metric, higher is better); bounded by its gate.

    With it what was ordinary on its test part: the mean and the standard deviation of a window.
    """
    metric = system.objective.metric
    own, base = found(made, metric, CHAMPION), found(made, metric, BASE)
    sign = stats.better(metric)
    value = own.value if own is not None else None
    if value is not None:
        value = sign * (value - base.value) if base is not None and base.value is not None else sign * value
    name = "lead" if base is not None else "level"
    before = next((r for r in reversed(past) if r.release == release and found(r.signals, name, CHAMPION)), None)
    if before is not None:
        old = found(before.signals, name, CHAMPION)
        bound = old.bound if old is not None else None
        mean, spread = (value_of(before, f"{name} {part}", CHAMPION) for part in ("expected", "spread"))
    else:
        bound, mean, spread = standard(home, system, release, relative=name == "lead")
    signals = [Signal(name, CHAMPION, "outcome", number(value), bound, Verdict.NOT_MEASURED)]
    if mean is not None and spread is not None:
        signals += [_outcome(f"{name} expected", CHAMPION, mean), _outcome(f"{name} spread", CHAMPION, spread)]
    return signals


def _guardrails(system: System, label: Floats, score: Floats, act: Floats, weight: Floats) -> list[Signal]:
    """Each declared bound on a metric, with how many rows it rests on."""
    made = []
    for rail in system.objective.guardrails:
        if rail.metric not in stats.METRICS or "binary" not in stats.METRICS[rail.metric].tasks:
            continue
        value = number(stats.compute(rail.metric, label, score, act=act, weights=weight))
        rests = {"precision": (act > 0).sum(), "recall": (label > 0).sum()}.get(rail.metric, len(label))
        made.append(Signal("guardrail", rail.metric, "outcome", value, rail.bound, Verdict.NOT_MEASURED))
        made.append(_outcome("guardrail rows", rail.metric, float(rests)))
    return made


def _business(home: Home, system: System, frame: pl.DataFrame) -> list[Signal]:
    """Each declared bound on value or on an outcome's mean, over the rows that the release answered; before the first release over all."""
    made = []
    for rail in measure.business_rails(system):
        act, score = measure.numbers_of(frame["_act"]), measure.numbers_of(frame["_score"])
        numbers = measure.business_numbers(home.engine, system, rail.metric, frame, act, score)
        known = numbers[np.isfinite(numbers)]
        made.append(Signal("guardrail", rail.metric, "outcome", number(_mean(known)), rail.bound, Verdict.NOT_MEASURED))
        made.append(_outcome("guardrail rows", rail.metric, float(len(known))))
    return made


def _classes(home: Home, system: System, release: str, rows: pl.DataFrame) -> list[Signal]:
    """Multiclass: the metric over the bundle's classes, and how often the release and the last label name the right one."""
    places = {name: float(place) for place, name in enumerate(spec_of(home, release).classes)}
    label = np.array([places.get(name, np.nan) for name in rows["_class"].to_list()])
    scores = np.array([row or [] for row in rows["_scores"].to_list()], dtype=float).reshape(rows.height, -1)
    if scores.shape[1] != len(places):
        return []
    weight = measure.numbers_of(rows["_weight"])
    metric = system.objective.metric
    made = [_outcome(metric, CHAMPION, stats.compute(metric, label, scores, weights=weight))]
    if metric != "accuracy":
        made.append(_outcome("accuracy", CHAMPION, stats.compute("accuracy", label, scores, weights=weight)))
    hits = (rows["_class"] == rows["_last"]).drop_nulls().cast(pl.Float64).mean()
    made.append(_outcome("accuracy", LAST, hits if isinstance(hits, float) else None))
    return made


def _value(home: Home, system: System, frame: pl.DataFrame) -> list[Signal]:
    """What the logged acts were worth per prediction, and what doing nothing would have been."""
    if frame.is_empty() or system.decide.policy.strip() == "human":
        return []
    label = frame["_class"].to_numpy() if system.task == "multiclass" else measure.numbers_of(frame["_label"])
    act = np.nan_to_num(measure.numbers_of(frame["_act"]))
    worth = measure.value(home.engine, system, frame, act, label, measure.numbers_of(frame["_score"]))
    if system.label.affected_by_action:
        return _incremental(frame, act, worth)
    nothing = measure.policies(home.engine, system, frame, label)[NOTHING]
    return [_outcome("value", CHAMPION, _mean(worth)), _outcome("value", NOTHING, _mean(nothing))]


def _incremental(frame: pl.DataFrame, act: Floats, worth: Floats) -> list[Signal]:
    """Where acting changes the label: doing nothing is valued on the rows on which chance chose it."""
    chance = np.nan_to_num(measure.numbers_of(frame["_act_propensity"]), nan=1.0)
    free = np.isfinite(worth) & (act == 0) & (chance > 0)
    nothing = float(np.average(worth[free], weights=1 / chance[free])) if free.any() else None
    return [_outcome("value", CHAMPION, _mean(worth)), _outcome("value", NOTHING, nothing)]


def pairs_of(past: Sequence[Monitored]) -> Mapping[str, float]:
    """The pairs of labels over the last 28 windows."""
    cells = ("00", "01", "10", "11")
    return {cell: sum(value_of(record, "pairs", cell) or 0.0 for record in past[-PAST:]) for cell in cells}


def base_rate(past: Sequence[Monitored]) -> float | None:
    """The mean label of the last 28 windows."""
    known = [(value_of(record, "mean", "label"), record.n) for record in past[-PAST:]]
    rows = [(mean, n) for mean, n in known if mean is not None and n]
    return sum(mean * n for mean, n in rows) / sum(n for _, n in rows) if rows else None


def _quantile(system: System) -> float | None:
    words = system.decide.policy.split()
    return float(words[1]) if words and words[0] == "quantile" else None


def _outcome(name: str, subject: str, value: float | None) -> Signal:
    return Signal(name, subject, "outcome", number(value), None, Verdict.NOT_MEASURED)


def _mean(values: Floats) -> float | None:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None
