"""Slices: does a part of the rows lose more than the rest, beyond what it did at the reference? One threshold for the largest of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from noria.core import Verdict
from noria.measure.slices import MISSING
from noria.monitoring.concept import LEAST, excess
from noria.monitoring.labelled import Labelled, Part
from noria.monitoring.windows import number, value_of
from noria.records import Monitored, Signal
from noria.stats import Spread
from noria.system import System

RUN = 14
SUM = "slice excess"
SIZE = "slice rows"
Floats = NDArray[np.float64]


def slices(  # noqa: PLR0917  the window's rows, and what they are held against
    system: System,
    reference: Labelled,
    frame: pl.DataFrame,
    residual: Floats,
    weight: Floats,
    past: Sequence[Monitored],
    error: float,
) -> list[Signal]:
    """Each slice's loss given x less the rest's, over the last 14 windows; ``past`` are the release's own windows before.

    The largest t-value of all slices exceeds the critical value with a chance of at most ``error``: the critical value is a quantile of the
    maximum under the slices' correlation at the reference. A slice that is worse by less than the gate's margin of the gain is no failure.
    """
    made: list[Signal] = []
    gain = reference.loss.gain if reference.loss is not None else 0.0
    bound = float(f"{system.gate.margin * gain:.9g}")
    for part in reference.slices:
        if part.column not in frame.columns:
            continue
        mask = (frame[part.column].cast(pl.String).fill_null(MISSING) == part.value).to_numpy()
        mean, size = _window(residual, mask, weight)
        subject = f"{part.column}={part.value}"
        kept = [
            Signal(SUM, subject, "outcome", number(mean), None, Verdict.NOT_MEASURED),
            Signal(SIZE, subject, "outcome", number(size), None, Verdict.NOT_MEASURED),
        ]
        before = [(value_of(record, SUM, subject), value_of(record, SIZE, subject)) for record in past[-RUN + 1 :]]
        series = [(m, n) for m, n in [*before, (mean, size)] if m is not None and n]
        if series:
            means, sizes = np.array([m for m, _ in series]), np.array([n for _, n in series])
            made.append(_tested(part, subject, means, sizes, reference.critical, bound, error))
        made += kept
    return made


def _tested(  # noqa: PLR0917  one test
    part: Part, subject: str, means: Floats, sizes: Floats, critical: float, bound: float, error: float
) -> Signal:
    value, spread = excess(part.residual, means, sizes)
    most = heavier(critical, part.residual, error) * spread
    inner = float(special.stdtrit(part.residual.degrees, 0.975)) * spread
    few = float(sizes.sum()) < LEAST or not np.isfinite(spread)
    verdict = Verdict.FAIL if value - most > bound else Verdict.PASS if value <= bound else Verdict.NOT_ENOUGH_DATA
    note = "few rows" if few else "" if verdict is not Verdict.NOT_ENOUGH_DATA else "beyond the bound, but not with its interval"
    verdict = Verdict.NOT_ENOUGH_DATA if few else verdict
    low, high = number(value - inner), number(value + inner)
    return Signal("slice", subject, "outcome", number(value), bound, verdict, low=low, high=high, note=note)


def heavier(critical: float, reference: Spread, error: float) -> float:
    """A critical value of normal deviates for deviates whose error was estimated from few windows: stretched as the t-quantile is."""
    rare = float(special.ndtr(-critical))
    return float(-special.stdtrit(reference.degrees, max(min(rare, error), 1e-9)))


def _window(residual: Floats, mask: NDArray[np.bool_], weight: Floats) -> tuple[float | None, float]:
    """The mean residual in the slice less that in the rest, and how many rows it rests on."""
    keep = np.isfinite(residual) & (weight > 0)
    mine, rest = keep & mask, keep & ~mask
    if not mine.any() or not rest.any():
        return None, 0.0
    w = weight[mine]
    apart = float(np.average(residual[mine], weights=w) - np.average(residual[rest], weights=weight[rest]))
    return apart, float(w.sum() ** 2 / (w**2).sum())
