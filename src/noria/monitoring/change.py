"""The tests that say that a series of windows has gone below what is allowed: a slow one that misses nothing, a fast one for large falls, and one for small
falls that stay.

*Slow*: a confidence sequence is begun at every seventh window, and the fall is found when any of the running ones excludes the bound (a
change is detected by sequences started all along: Shekhar and Ramdas 2023, "Reducing sequential change detection to sequential
estimation"), provided that the last seven windows are beyond it too.

*Fast*: the mean of the last 1, 2 or 4 windows is compared with what the windows before show to be ordinary, as a chart of a process is
(Shewhart 1931); the limits allow for autocorrelated windows, for the uncertainty of the reference, and for heavy tails.

*Lasting*: a cumulative sum of the ranks of the last two to fourteen windows among those before.

All take their error from the budget of false alarms. ``benchmarks/false_alarms.py`` counts what they raise when nothing is wrong,
and how soon they find what is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from noria import stats
from noria.core import Estimate
from noria.core.window import EPOCH

ERROR = 0.02
MEMORY = 56
EVERY = 7
CURRENT = 7
SPANS = (1, 2, 4)
LEAST = 14
LIGHTEST = 0.3
ALONE = 6.0
BELIEF = 10
LASTS = 14
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One window's number: its time, how many rows it rests on."""

    start: datetime
    end: datetime
    value: float
    weight: float


@dataclass(frozen=True)
class Sequel:
    """What a test says: whether it is raised, whether it is over, since when, and the mean since then."""

    raised: bool
    cleared: bool
    since: datetime
    size: Estimate


@dataclass(frozen=True)
class Ordinary:
    """What windows show to be ordinary: mean, standard deviation of one, lag-one autocorrelation, effective number, mean weight, excess kurtosis."""

    mean: float
    spread: float
    follow: float = 0.3
    number: float = 14.0
    weight: float = 1.0
    tails: float = 1.0


def below(points: Sequence[Point], bound: float, every: timedelta, *, error: float = ERROR) -> Sequel | None:
    """Whether the mean of the windows' numbers has gone below ``bound``; ``None`` without a window.

    It is over when the mean of the last 7 windows and that of the last 14 are back, so that one good week does not end it. ``error`` is
    that of each confidence sequence: ``budget.sequence_error``.
    """
    usable = _usable(points)
    points, cut = usable[-MEMORY:], len(usable) > MEMORY
    if not points:
        return None
    values, weights = _arrays(points)
    recent = float(np.average(values[-CURRENT:], weights=weights[-CURRENT:]))
    size, since = Estimate(recent, n=min(CURRENT, len(points))), points[max(0, len(points) - CURRENT)].start
    raised = False
    if recent < bound:
        for place, point in enumerate(points):
            if (place or cut) and ((point.end - EPOCH) // every) % EVERY:
                continue  # where memory ends no sequence begins: it would be another one at every window, beyond the budget
            made = stats.mean_sequence(values[place:], error=error, block_weights=weights[place:])
            if made.below(bound):
                size, since, raised = made, point.start, True
                break
    longer = float(np.average(values[-2 * CURRENT :], weights=weights[-2 * CURRENT :]))
    cleared = not raised and len(points) >= CURRENT and min(recent, longer) >= bound
    return Sequel(raised, cleared, since, size)


def sudden(points: Sequence[Point], bound: float, usual: Ordinary | None, *, rate: float) -> Sequel | None:
    """Whether the last 1, 2 or 4 windows have fallen out of what is ordinary and below ``bound``; ``None`` without anything to compare with.

    Parameters
    ----------
    points:
        The windows in order of time, of which the last four are looked at.
    bound:
        What is allowed. A fall that stays above it is none.
    usual:
        What is ordinary: of windows before those four.
    rate:
        How many false alarms a window may raise.
    """
    points = _usable(points)
    if usual is None or not points:
        return None
    for span in SPANS:
        last = points[-span:]
        if len(last) < span:
            break
        values, weights = _arrays(last)
        mean = float(np.average(values, weights=weights))
        half = limit(usual, rate / len(SPANS), span) * _thin(usual, weights)
        # One storm is not two bad days: a single window weighs in with 1.25 limits at most, and the others have to bring the rest.
        capped = mean if span == 1 else float(np.average(np.maximum(values, usual.mean - 1.25 * half), weights=weights))
        if max(mean, capped) < min(bound, usual.mean - half):
            around = limit(usual, 0.025, span) * _thin(usual, weights)
            return Sequel(True, False, last[0].start, Estimate(mean, mean - around, mean + around, span))
    value = points[-1].value
    return Sequel(False, value >= bound, points[-1].start, Estimate(value, n=1))


def lasting(points: Sequence[Point], before: Sequence[Point], bound: float, *, rate: float) -> Sequel | None:
    """Whether the last 2 to 14 windows lie together lower than ordinary ones, and on average below ``bound``: what is small and stays.

    A cumulative sum of ranks: each window's rank among those of ``before`` that are older, as a normal score z, adds -z - k (Page 1954, Biometrika
    41; on ranks: Hawkins and Deng 2010, Journal of Quality Technology 42), so that one storm weighs no more than the worst day there was. k
    is ½ and what the reference, of 14 windows at least, leaves open; autocorrelated windows count for less. The height that raises an alarm
    ``rate`` times in a window comes from simulation (``tests/monitoring/test_change.py``). ``None`` with too little to compare with.
    """
    points = _usable(points)
    span = min(LASTS, len(points), len(_usable(before)) - LEAST)
    if span < 2:
        return None
    last = points[-span:]
    older = [p for p in _usable(before) if p.end <= last[0].start][-MEMORY:]
    if len(older) < LEAST:
        return None
    values, weights = _arrays(last)
    known = np.sort(_arrays(older)[0])
    inflated = stats.inflation(_arrays(older)[0] - known.mean())
    above = len(known) - (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2
    scores = special.ndtri((above + 0.5) / (len(known) + 1)) / np.sqrt(inflated)
    sums = np.cumsum((scores - 0.5 - np.sqrt(inflated / len(known)))[::-1])
    most = int(np.argmax(sums)) + 1
    mean = float(np.average(values[-most:], weights=weights[-most:]))
    size = stats.block_mean(values[-most:], np.arange(most), weights=weights[-most:], least=2)
    raised = most >= 2 and float(sums[most - 1]) > height(rate) and mean < bound
    return Sequel(raised, False, last[-most].start, Estimate(mean, size.low, size.high, most))


def height(rate: float) -> float:
    """How high the sum of ``lasting`` has to be, for ``rate`` false alarms in a window: simulated between 0.005 and 0.0001, a line in the logarithm.

    >>> round(height(0.0005), 1)
    5.8
    """
    return 3.0 + float(np.log(0.0045 / rate)) / 0.78


def ordinary(points: Sequence[Point]) -> Ordinary | None:
    """What these windows show to be ordinary; ``None`` with fewer than 14 of them."""
    points = _usable(points)
    if len(points) < LEAST:
        return None
    values, weights = _arrays(points)
    mean = float(np.average(values, weights=weights))
    deviations = values - values.mean()
    k = stats.inflation(deviations)
    n = len(values)
    spread = float(np.sqrt(deviations @ deviations / (n - k)))
    spread = max(spread, 1e-12 + 1e-9 * abs(mean))
    excess = float(np.mean((deviations / spread) ** 4)) / max(float(np.mean((deviations / spread) ** 2)) ** 2, 1e-9) - 3
    tails = max(LIGHTEST, (n * excess + BELIEF * LIGHTEST) / (n + BELIEF))
    return Ordinary(mean, spread, (k - 1) / (k + 1), n / k, float(weights.mean()), tails)


def limit(usual: Ordinary, rate: float, span: int) -> float:
    """How far below the ordinary mean the mean of ``span`` windows lies in a share ``rate`` of all times.

    The error of prediction from the reference under first-order autocorrelation, times a quantile of Student's t. Its degrees of freedom
    are the effective number of windows less one, or fewer where windows have heavy tails (a storm, a strike): those with the excess
    kurtosis 6 / (d - 4) of the reference's windows, which in the mean of ``span`` of them is as many times smaller. A single window is
    always taken to have an excess of 6, whatever a few weeks have shown.
    """
    together = 1.0
    for lag in range(1, span):
        together += 2 * (1 - lag / span) * usual.follow**lag
    error = usual.spread * float(np.sqrt(together / span + 1 / usual.number))
    tails = usual.tails if span > 1 else max(usual.tails, ALONE)
    return error * _quantile(rate, min(usual.number - 1, 4 + 6 * span / tails))


def began(points: Sequence[Point], good: float, bad: float) -> datetime | None:
    """When a series went from about ``good`` to about ``bad``: the likeliest window of a single change (Page 1954, Biometrika 41)."""
    points = _usable(points)
    if not points or good <= bad:
        return None
    values, weights = _arrays(points)
    gains = ((good + bad) / 2 - values) * weights
    totals = np.cumsum(gains[::-1])[::-1]
    return points[int(np.argmax(totals))].start


def _usable(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if np.isfinite(point.value) and point.weight > 0]


def _arrays(points: Sequence[Point]) -> tuple[Floats, Floats]:
    return np.array([p.value for p in points]), np.array([p.weight for p in points])


def _thin(usual: Ordinary, weights: Floats) -> float:
    """How much more the mean of these windows varies for having fewer rows than the ordinary ones."""
    return float(np.sqrt(max(1.0, usual.weight / float(weights.mean()))))


@lru_cache(maxsize=1024)
def _quantile(rate: float, degrees: float) -> float:
    return -float(special.stdtrit(max(degrees, 1.0), rate))
