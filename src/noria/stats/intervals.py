"""Intervals whose units are blocks of time, not rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from noria.core import Estimate
from noria.stats.longrun import Floats, Ints, block_sums, mean_error


def t_quantile(confidence: float, degrees: float) -> float:
    """The two-sided critical value of the t-distribution (``degrees`` may be fractional).

    >>> round(t_quantile(0.95, 9), 3)
    2.262
    """
    return float(special.stdtrit(degrees, 0.5 + confidence / 2))


def around(value: float, deviations: Floats, *, confidence: float = 0.95, least: int = 10) -> Estimate:
    """``value`` with the interval that the blocks' ``deviations`` (in time order, mean 0, in its units) give it."""
    n = len(deviations)
    if not np.isfinite(value):
        return Estimate(None, n=n)
    if n < max(least, 2):
        return Estimate(float(value), n=n)
    error, degrees = mean_error(deviations)
    half = t_quantile(confidence, degrees) * error
    return Estimate(float(value), float(value - half), float(value + half), n)


def block_mean(
    values: Floats, blocks: Ints, *, weights: Floats | None = None, confidence: float = 0.95, least: int = 10
) -> Estimate:
    """The mean over rows, with an interval whose observations are blocks.

    Parameters
    ----------
    values:
        One number a row; rows with NaN do not count.
    blocks:
        Each row's block number (a day); numbers ascend with time. Gaps do no harm.
    weights:
        One weight ≥ 0 a row; default 1.
    confidence, least:
        Of the interval; with fewer than ``least`` blocks ``low`` and ``high`` are ``None``.

    The mean is the ratio (sum of values) / (number of rows), so that busy days count as much as their rows; its interval
    is a t-interval over the blocks' residuals, corrected for autocorrelation between blocks (``longrun.mean_error`` has the
    method, its source and its simulated coverage).

    >>> block_mean(np.arange(40.0) % 4, np.arange(40) // 4)
    Estimate(value=1.5, low=1.5, high=1.5, n=10)
    """
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    keep = np.isfinite(values) & (weights > 0)
    values, weights, blocks = values[keep], weights[keep], np.asarray(blocks)[keep]
    if len(values) == 0:
        return Estimate(None)
    sums, sizes = block_sums(blocks, values * weights, weights)
    mean = float(sums.sum() / sizes.sum())
    return around(mean, (sums - mean * sizes) / sizes.mean(), confidence=confidence, least=least)


def block_statistic(
    f: Callable[[Ints], float],
    blocks: Ints,
    *,
    confidence: float = 0.95,
    least: int = 10,
    draws: int = 400,
    seed: int = 0,
) -> Estimate:
    """Any statistic of rows, with a percentile interval from resampling blocks.

    ``f`` takes row indices (with repetitions) and returns the statistic. Neighbouring blocks are drawn together, about n^(1/3)
    at a time in a circle (the circular block bootstrap, Politis and Romano 1992), so that autocorrelation between days is kept.
    Costs ``draws`` calls of ``f``; for the metrics of ``metrics.py`` use ``metrics.estimate``, which needs one pass.

    >>> block_statistic(lambda rows: float(np.mean(rows % 4)), np.arange(40) // 4).value
    1.5
    """
    blocks = np.asarray(blocks)
    order = np.argsort(blocks, kind="stable")
    _, starts = np.unique(blocks[order], return_index=True)
    members = np.split(order, starts[1:]) if len(blocks) else []
    n = len(members)
    value = float(f(np.arange(len(blocks)))) if n else float("nan")
    if n < max(least, 2) or not np.isfinite(value):
        return Estimate(value if np.isfinite(value) else None, n=n)
    random = np.random.default_rng(seed)
    run = max(1, round(n ** (1 / 3)))
    found = np.empty(draws)
    for draw in range(draws):
        heads = random.integers(0, n, -(-n // run))
        picked = ((heads[:, None] + np.arange(run)) % n).ravel()[:n]
        found[draw] = f(np.concatenate([members[i] for i in picked]))
    found = found[np.isfinite(found)]
    if len(found) < draws // 2:
        return Estimate(value, n=n)
    low, high = np.quantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high), n)


def proportion(k: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share of independent events with Wilson's interval (1927, JASA 22).

    >>> print(proportion(8, 10))
    0.8 [0.4902, 0.9433]
    """
    if n <= 0:
        return Estimate(None)
    z = float(special.ndtri(0.5 + confidence / 2))
    share, scale = k / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / scale
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), n)
