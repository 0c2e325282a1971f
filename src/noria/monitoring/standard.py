"""What a release promised at its gate, as a bound for what closed outcomes show later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.core import Estimate, Window, duration
from noria.core.window import EPOCH
from noria.monitoring.limits import LEAST
from noria.monitoring.reference import rarely, training_of, training_span
from noria.records import CohortClosed, Entry, Evaluated, Trained
from noria.store import Home
from noria.system import System

Floats = NDArray[np.float64]
PAST = 28
TINY = 1e-15


class Promise(NamedTuple):
    """What a release did on the blocks of its test part: the least mean to keep, the mean, the standard deviation of a block."""

    bound: float | None
    mean: float | None
    spread: float | None


def standard(home: Home, system: System, release: str, *, relative: bool) -> Promise:
    """What a release's windows have to keep, in units of the metric with higher better; ``None`` for what is unknown.

    The bound is the lower end of the interval of what the release did on its test part, less the gate's margin of that gain. ``relative``
    takes the gain over the base rate of the 28 windows before each window, so that a season in which everything is harder to
    predict is no decay.
    """
    metric = system.objective.metric
    evaluated = evaluated_of(home, release)
    daily = evaluated.daily if evaluated is not None else {}
    values = np.asarray(daily.get(metric, ()), float)
    if len(values) < 2:
        return Promise(None, None, None)
    sizes = np.asarray(daily.get("n", ()), float)
    sizes = sizes if len(sizes) == len(values) else np.ones(len(values))
    sign = stats.better(metric)
    if relative:
        base = _base_of_blocks(home, system, release, daily.get("block", ()), len(values))
        if base is None:
            return Promise(None, None, None)
        values = values - base
    keep = np.isfinite(values)
    made = stats.block_mean(
        sign * values[keep],
        np.flatnonzero(keep),
        weights=sizes[keep],
        confidence=system.gate.confidence,
        least=system.gate.blocks,
    )
    windows = duration(system.gate.block) == duration(system.every) and keep.sum() >= system.gate.blocks
    spread = float(f"{np.std(values[keep], ddof=1):.9g}") if windows else None
    mean = None if made.value is None else float(f"{made.value:.9g}")
    return Promise(_bound(made, system.gate.margin), mean, spread)


def _base_of_blocks(home: Home, system: System, release: str, blocks: Sequence[float], count: int) -> Floats | None:
    """What the base rate would have lost in each block of the test part; its mean for all where blocks and windows differ."""
    span = _test_window(home, release)
    base = _base_losses(home, system, span) if span is not None else {}
    if len(base) < 2:
        return None
    if len(blocks) == count and duration(system.gate.block) == duration(system.every):
        return np.array([base.get(int(block), np.nan) for block in blocks])
    return np.full(count, float(np.mean(list(base.values()))))


def _bound(made: Estimate, margin: float) -> float | None:
    if made.low is None or made.value is None:
        return None
    return float(f"{made.low - margin * abs(made.value):.9g}")


def evaluated_of(home: Home, release: str) -> Evaluated | None:
    """What the bundle did on its test part, as it was evaluated before its gate."""
    trained = _trained(home, release)
    if trained is None:
        return None
    made = [child for child in home.ledger.children(trained.id) if isinstance(child.record, Evaluated)]
    tested = [child.record for child in made if isinstance(child.record, Evaluated) and child.record.part == "test"]
    return tested[-1] if tested else None


def _trained(home: Home, release: str) -> Entry[Trained] | None:
    return next((entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == release), None)


def _test_window(home: Home, release: str) -> Window | None:
    training = training_of(home, release)
    if training is None:
        return None
    return next((part.window for part in training.record.parts if part.name == "test"), None)


def _base_losses(home: Home, system: System, span: Window) -> dict[int, float]:
    """What the base rate of the 28 windows before would have lost in each window of ``span``, by the number of its block."""
    cohorts: dict[datetime, CohortClosed] = {}
    every = duration(system.every)
    for entry in home.ledger.read(CohortClosed, since=span.start - (PAST + 1) * every):
        cohorts[entry.record.window.end] = entry.record
    ordered = [cohorts[end] for end in sorted(cohorts) if cohorts[end].labelled and cohorts[end].mean is not None]
    losses = {}
    for place, cohort in enumerate(ordered):
        if cohort.window.start >= span.start and cohort.window.end <= span.end:
            rate = _rate(ordered[max(0, place - PAST) : place])
            loss = base_rate_of(system.objective.metric, rate, cohort.mean) if rate is not None else None
            if loss is not None:
                losses[(cohort.window.end - EPOCH) // every - 1] = loss
    return losses


def _rate(past: Sequence[CohortClosed]) -> float | None:
    known = [(cohort.mean, cohort.labelled) for cohort in past if cohort.mean is not None]
    total = sum(n for _, n in known)
    return sum(mean * n for mean, n in known) / total if total else None


def label_reference(home: Home, system: System, release: str) -> tuple[float, float | None, Window] | None:
    """The label's mean at the time of the training set, how far ordinary windows lie from it (needs 30), and that time."""
    span = training_span(home, system, release)
    if span is None:
        return None
    cohorts = {
        e.record.window.end: e.record for e in home.ledger.read(CohortClosed, since=span.start) if e.record.window.end in span
    }
    ordered = [cohorts[end] for end in sorted(cohorts) if cohorts[end].mean is not None]
    mean = _rate(ordered)
    if mean is None:
        return None
    apart = np.array([abs(cohort.mean - mean) for cohort in ordered if cohort.mean is not None])
    return mean, rarely(apart) if len(apart) >= LEAST else None, span


def base_rate_of(metric: str, rate: float, mean: float | None) -> float | None:
    """What saying ``rate`` for every row scores by a metric, when a share ``mean`` of the labels is true; ``None`` if it needs more.

    >>> base_rate_of("accuracy", 0.2, 0.3), base_rate_of("brier", 0.5, 0.1)
    (0.7, 0.25)
    """
    if mean is None:
        return None
    if metric == "log_loss":
        p = min(max(rate, TINY), 1 - TINY)
        return -(mean * math.log(p) + (1 - mean) * math.log(1 - p))
    if metric == "brier":
        return mean * (1 - rate) ** 2 + (1 - mean) * rate**2
    if metric == "accuracy":
        return mean if rate >= 0.5 else 1 - mean
    return None


def base_rate_loss(metric: str, rate: float, label: Floats, weight: Floats) -> float | None:
    """``base_rate_of`` on rows, with their weights."""
    return base_rate_of(metric, rate, float(np.average(label, weights=weight)))
