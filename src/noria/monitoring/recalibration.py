"""Whether a fault is only one of calibration: then fitting the calibration anew mends it, at a fraction of a training's price.

Asked while the alert ``miscalibrated`` is open, of the closed rows since the fault began. All of it must hold: the ranking is what it was at the
gate (AUC), a repair of the scores learned on one half of the time helps on the other half beyond chance (log loss), and with that repair
the release keeps the promise that an open alert says it breaks. Anything else is left to a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Estimate, Verdict, Window, duration
from noria.model import Calibration
from noria.model.calibration import logit
from noria.monitoring.outcomes import BASE, CHAMPION, LAST
from noria.monitoring.rules import BASELINE, MEMORY
from noria.monitoring.standard import evaluated_of
from noria.monitoring.suffering import mean_lead
from noria.monitoring.windows import recent, value_of
from noria.records import Alerted, Entry, Monitored, Released
from noria.store import Home
from noria.system import System

Floats = NDArray[np.float64]
NAME = "miscalibrated"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Explained:
    """PASS: calibration explains the fault. ``reason`` is a sentence."""

    verdict: Verdict
    reason: str


def room(system: System) -> timedelta:
    """The least time since a fault that a recalibration needs: as many blocks to fit on as to be judged on, a window, and the gaps."""
    label = system.label
    gap = duration(label.within) + duration(label.horizon) + duration(label.lateness)
    return 2 * system.gate.blocks * duration(system.gate.block) + 2 * gap + duration(system.every)


def explained(home: Home, system: System, found: Alerted, harms: Sequence[Entry[Alerted]]) -> Explained:
    """Whether calibration alone explains ``found`` (the alert) and ``harms`` (open alerts on performance).

    NOT_ENOUGH_DATA: it looks so, and there are too few closed windows since the fault to act on it.
    """
    if system.combine is not None:
        return Explained(
            Verdict.FAIL, "the score combines several objectives and is no probability, so there is nothing to calibrate"
        )
    release, until = home.ledger.latest(Released), measure.closed_until(home)
    if system.task != "binary" or release is None or release.record.bundle is None or until is None:
        return Explained(Verdict.FAIL, "there is no release whose scores could be calibrated")
    bundle = release.record.bundle
    rows = _rows(home, system, bundle, Window(found.since, until)) if until > found.since else None
    if rows is None or rows.is_empty():
        return Explained(Verdict.FAIL, "the release has no closed rows since the fault began")
    label, score, weights = (rows[name].cast(pl.Float64).to_numpy() for name in ("_label", "_score", "_weight"))
    blocks = measure.blocks_of(rows["_time"], system.gate.block)
    held = _ranking(home, system, bundle, label, score, weights, blocks)
    if held.verdict is not Verdict.PASS:
        return held
    repaired = _crossed(label, score, blocks)
    if repaired is None:
        return Explained(Verdict.NOT_ENOUGH_DATA, "there are too few labels of both kinds to learn a repair from")
    gain = stats.paired(
        "log_loss", label, score, repaired, blocks, weights=weights, confidence=CONFIDENCE, least=system.gate.blocks
    )
    if gain.value is None or gain.value <= 0 or gain.below(0.0):
        return Explained(Verdict.FAIL, f"a repair of the scores does not help: log loss better by {gain}")
    better = stats.paired(system.objective.metric, label, score, repaired, blocks, weights=weights).value or 0.0
    short = _short(home, system, bundle, found.since, harms, better)
    if short:
        return Explained(Verdict.FAIL, short)
    said = f"{held.reason}; repaired scores are better by {gain} in log loss on the half they were not learned from"
    if not gain.above(0.0) or until - found.since < room(system):
        return Explained(Verdict.NOT_ENOUGH_DATA, said)
    return Explained(Verdict.PASS, said)


def _rows(home: Home, system: System, bundle: str, window: Window) -> pl.DataFrame:
    known = home.lake.schema("predictions") or {}
    wanted = [name for name in ("_score", "_act", "_act_propensity", "_release", "_variant") if name in known]
    rows = measure.usable(system, measure.closed(home, system, window, columns=wanted))
    return rows.filter((pl.col("_release") == bundle).fill_null(False) & pl.col("_score").is_finite().fill_null(False))


def _ranking(  # noqa: PLR0917  the four arrays of the same rows
    home: Home, system: System, bundle: str, label: Floats, score: Floats, weights: Floats, blocks: NDArray[np.int64]
) -> Explained:
    """The AUC since the fault against that on the test part of the gate: not lower beyond chance, nor by more than the gate's margin."""
    at_gate = evaluated_of(home, bundle)
    then = at_gate.metrics.get("auc") if at_gate is not None else None
    now = stats.estimate("auc", label, score, blocks, weights=weights, confidence=CONFIDENCE, least=2)
    if then is None or not (then.known and now.known):
        return Explained(Verdict.FAIL, "how the release ranked at its gate, or ranks now, is not known")
    apart = difference(now, then)
    least = -system.gate.margin * max(0.0, (then.value or 0.5) - 0.5)
    said = f"the AUC is {now} since the fault, {then} at the gate"
    if apart.below(0.0) or (apart.value or 0.0) < least:
        return Explained(Verdict.FAIL, f"the ranking has decayed: {said}")
    return Explained(Verdict.PASS, f"the ranking has held: {said}")


def difference(a: Estimate, b: Estimate) -> Estimate:
    """``a`` less ``b`` for estimates from different times: half-widths add up as independent errors do.

    >>> print(difference(Estimate(0.7, 0.67, 0.73, 20), Estimate(0.8, 0.76, 0.84, 20)))
    -0.1 [-0.15, -0.05]
    """
    if a.value is None or b.value is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(None)
    value = a.value - b.value
    half = float(np.hypot((a.high - a.low) / 2, (b.high - b.low) / 2))
    return Estimate(value, value - half, value + half, min(a.n, b.n))


def _crossed(label: Floats, score: Floats, blocks: NDArray[np.int64]) -> Floats | None:
    """Each half of time repaired by a logistic curve (Platt 1999) through the other half."""
    first = blocks <= np.median(blocks)
    made = np.empty_like(score)
    for half in (first, ~first):
        if half.all() or not half.any() or len(np.unique(label[~half])) < 2:
            return None
        design = np.column_stack([np.ones(int((~half).sum())), logit(score[~half])])
        offset, slope = (float(b) for b in stats.logistic_fit(design, label[~half]))
        if not slope > 0:
            return None
        made[half] = Calibration("platt", slope, offset).apply(score[half])
    return made


def _short(  # noqa: PLR0917
    home: Home, system: System, bundle: str, since: datetime, harms: Sequence[Entry[Alerted]], better: float
) -> str:
    """The promise that the release would break even with its scores repaired; empty when there is none.

    ``value`` and ``guardrail`` come from decisions, whose threshold is chosen again with the calibration: they are judged at the gate.
    """
    windows = [w for w in recent(home, "outcomes", MEMORY) if w.release == bundle and w.window.end > since]
    metric = system.objective.metric
    for entry in harms:
        name, subject = entry.record.name, entry.record.subject
        if name == "decay":
            made = mean_lead(windows)
        elif name == BASELINE:
            ahead = _ahead(windows, metric, LAST if subject == LAST else BASE)
            made = (ahead, 0.0) if ahead is not None else None
        else:
            continue
        if made is None:
            return f"what the alert {name} of {subject} would be with repaired scores is not known"
        if made[0] + better < made[1]:
            return f"calibration does not explain {name} of {subject}: repaired, it is at {made[0] + better:.4g}, and {made[1]:.4g} is asked"
    return ""


def _ahead(windows: Sequence[Monitored], metric: str, baseline: str) -> float | None:
    """How far the release is ahead of a baseline over these windows, higher is better."""
    pairs = [(value_of(w, metric, CHAMPION), value_of(w, metric, baseline), value_of(w, "rows", CHAMPION)) for w in windows]
    known = [(own - other, rows) for own, other, rows in pairs if own is not None and other is not None and rows]
    if not known:
        return None
    values, rows = np.array(known).T
    return stats.better(metric) * float(np.average(values, weights=rows))
