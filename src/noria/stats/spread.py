"""How far a window's mean lies from a reference's when nothing is wrong: rows vary within a window, and windows among themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from noria.stats.longrun import Floats, Ints, block_sums, inflation


@dataclass(frozen=True)
class Spread:
    """The parts of a mean's variance, from a reference of ``blocks`` windows with ``rows`` rows.

    ``within`` is the variance of a row around its window, ``between`` that of a window's own mean, ``inflation`` what autocorrelation
    makes of the variance of a long mean ((1+r)/(1-r), see ``longrun.inflation``).
    """

    mean: float
    within: float
    between: float
    inflation: float
    blocks: int
    rows: float

    @property
    def degrees(self) -> float:
        """Degrees of freedom: the effective number of windows less one, at least 2."""
        return max(self.blocks / self.inflation - 1, 2.0)

    def error(self, sizes: Floats, *, known: bool = False) -> float:
        """The standard error of (mean over successive windows of ``sizes`` rows) - (the reference's mean).

        ``known`` leaves the reference's own error out, where the mean is not estimated from it.
        """
        sizes = np.asarray(sizes, float)
        sizes = sizes[sizes > 0]
        if not len(sizes) or self.blocks < 2:
            return float("inf")
        weight = sizes / sizes.sum()
        own = float((weight**2 * (self.between + self.within / sizes)).sum()) * self._growth(len(sizes))
        even = np.full(self.blocks, self.rows / self.blocks)
        there = float((self.between + self.within / even).mean()) / self.blocks * self._growth(self.blocks)
        hidden = self.blocks / max(self.blocks - self.inflation, 0.3 * self.blocks)
        return float(np.sqrt((own + (0.0 if known else there)) * hidden))

    def allowance(self, sizes: Floats, error: float, *, known: bool = False) -> float:
        """What the difference exceeds on one side with a chance of at most ``error`` while nothing is wrong (a t-quantile of ``degrees``)."""
        return float(special.stdtrit(self.degrees, 1 - error)) * self.error(sizes, known=known)

    def _growth(self, count: int) -> float:
        """What autocorrelation makes of the variance of a mean of ``count`` successive windows (1 for one of them)."""
        r = (self.inflation - 1) / (self.inflation + 1)
        lags = np.arange(1, count)
        return 1 + 2 * float(((1 - lags / count) * r**lags).sum())


def spread(values: Floats, blocks: Ints, weights: Floats | None = None) -> Spread:
    """The parts of the variance of ``values`` (one a row, NaN does not count) over ``blocks``, by the analysis of variance.

    ``weights`` ≥ 0 are those of the rows; a window then counts as (sum)²/(sum of squares) rows (Kish 1965, *Survey Sampling*).

    >>> made = spread(np.array([0.0, 2.0, 10.0, 12.0, 0.0, 2.0]), np.array([1, 1, 2, 2, 3, 3]))
    >>> round(made.mean, 3), round(made.within, 3), round(made.between, 3)
    (4.333, 2.0, 32.333)
    """
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    keep = np.isfinite(values) & (weights > 0)
    values, weights, blocks = values[keep], weights[keep], np.asarray(blocks)[keep]
    if not len(values):
        return Spread(float("nan"), 0.0, 0.0, 1.0, 0, 0.0)
    total, sums, squares = block_sums(blocks, weights, weights * values, weights**2)
    n = total**2 / squares
    count, rows = len(n), float(n.sum())
    means = sums / total
    mean = float(sums.sum() / total.sum())
    _, places = np.unique(blocks, return_inverse=True)
    inside = weights * (values - means[places]) ** 2
    (scatter,) = block_sums(blocks, inside)
    within = float((scatter / total * n).sum() / max(rows - count, 1.0))
    apart = float((n * (means - mean) ** 2).sum())
    base = rows - float((n**2).sum()) / rows
    between = max(0.0, (apart - (count - 1) * within) / base) if base > 0 else 0.0
    return Spread(mean, within, between, inflation((means - mean) * total / total.mean()), count, rows)


def ordinary(values: Floats, error: float, *, least: int = 20) -> float:
    """What the next of a series of windows' numbers (in time order) exceeds with a chance of at most ``error``; NaN with fewer than ``least``.

    A prediction bound: mean + t · sd · √(1 + k/n), with k the inflation by autocorrelation and n/k - 1 degrees of freedom, and never less
    than what the values themselves exceed that often. Numbers whose tail is heavier than the normal's are to be transformed first.

    >>> round(ordinary(np.random.default_rng(0).normal(0, 1, 400), 0.01), 1)
    2.3
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < max(least, 3):
        return float("nan")
    k = inflation(values - values.mean())
    sd = float(values.std(ddof=1)) * float(np.sqrt(n / max(n - k, 0.3 * n)))
    bound = float(values.mean()) + float(special.stdtrit(max(n / k - 1, 2.0), 1 - error)) * sd * float(np.sqrt(1 + k / n))
    return max(bound, float(np.quantile(values, 1 - error)))
