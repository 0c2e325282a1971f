"""Concept change: the loss is higher than what the same x lost at the reference. A shift of x alone does not raise it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from noria import measure, stats
from noria.core import Verdict
from noria.monitoring.labelled import Loss, quantile_of
from noria.monitoring.windows import number, value_of
from noria.records import Monitored, Signal
from noria.stats import Spread
from noria.system import System

CONCEPT = ("concept", "loss given x")
RESIDUAL = ("residual", "loss")
SIZE = ("residual rows", "loss")
RUNS = (3, 14)
LEAST = 200
Floats = NDArray[np.float64]


def residuals(system: System, loss: Loss, label: Floats, score: Floats, points: Floats) -> Floats:
    """What each row lost beyond what its x lost at the reference; NaN where there is no label or score."""
    losses = stats.row_loss(loss.metric, label, score, quantile=quantile_of(system))
    found = np.full(len(label), np.nan) if losses is None else losses
    return np.asarray(found - loss.at(np.nan_to_num(score), points))


def concept(  # noqa: PLR0917  the window's rows, and what they are held against
    system: System, loss: Loss, residual: Floats, weight: Floats, past: Sequence[Monitored], error: float
) -> list[Signal]:
    """The mean excess loss over the last 3 or 14 windows, whichever says more; ``past`` are the release's own windows before.

    It fails when even the lower end of the interval, at the share of the budget of false alarms, exceeds what the gate allows a refit to
    be worse: its margin of the gain over the best constant.
    """
    keep = np.isfinite(residual) & (weight > 0)
    if not keep.any():
        return []
    w = weight[keep]
    mean, size = float(np.average(residual[keep], weights=w)), float(w.sum() ** 2 / (w**2).sum())
    kept = [Signal(*RESIDUAL, "outcome", number(mean), None, Verdict.NOT_MEASURED)]
    kept.append(Signal(*SIZE, "outcome", number(size), None, Verdict.NOT_MEASURED))
    before = [(value_of(record, *RESIDUAL), value_of(record, *SIZE)) for record in past[-RUNS[-1] + 1 :]]
    series = [(m, n) for m, n in [*before, (mean, size)] if m is not None and n]
    means, sizes = np.array([m for m, _ in series]), np.array([n for _, n in series])
    tried = [excess(loss.residual, means[-run:], sizes[-run:]) for run in RUNS if run <= max(len(means), RUNS[0])]
    value, spread = max(tried, key=lambda one: one[0] / one[1])
    bound = float(f"{system.gate.margin * loss.gain:.9g}")
    return [tested(CONCEPT, value, spread, loss.residual, bound, error / len(RUNS), float(sizes.sum())), *kept]


def excess(reference: Spread, means: Floats, sizes: Floats) -> tuple[float, float]:
    """The mean over windows less the reference's, and its standard error."""
    return float(np.average(means, weights=sizes)) - reference.mean, reference.error(sizes)


def tested(  # noqa: PLR0917  one test
    name: tuple[str, str], value: float, spread: float, reference: Spread, bound: float, error: float, rows: float
) -> Signal:
    """FAIL when the value is beyond its bound with its interval, PASS when it is not beyond it, and not enough data between and with few rows."""
    inner = float(special.stdtrit(reference.degrees, 0.975)) * spread
    outer = float(special.stdtrit(reference.degrees, 1 - error)) * spread
    beyond = value - outer > bound
    verdict = Verdict.FAIL if beyond else Verdict.PASS if value <= bound else Verdict.NOT_ENOUGH_DATA
    note = "" if verdict is not Verdict.NOT_ENOUGH_DATA else "beyond the bound, but not with its interval"
    if rows < LEAST:
        verdict, note = Verdict.NOT_ENOUGH_DATA, f"{rows:.0f} rows; {LEAST} are needed"
    low, high = number(value - inner), number(value + inner)
    return Signal(*name, "outcome", number(value), bound, verdict, low=low, high=high, note=note)


def scores_of(frame: pl.DataFrame, classes: int) -> Floats:
    """The logged scores: (n,), or (n, classes) where rows have one for each class (NaN elsewhere)."""
    if not classes:
        return measure.numbers_of(frame["_score"])
    empty = [np.nan] * classes
    return np.array([row if row is not None and len(row) == classes else empty for row in frame["_scores"].to_list()], float)
