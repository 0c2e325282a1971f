"""Ratios of sums (precision, recall, clicks per shown row): the delta method, with units or blocks of time as the observations.

The numerator and the denominator of a ratio both vary, and together. To first order the ratio moves by the sum of
``(over - ratio * under) / sum(under)``, so that its variance is that of these residuals, summed over whatever is
independent (Cochran 1977, *Sampling Techniques*, ch. 6; Deng et al. 2018, KDD, "Applying the delta method in metric analytics").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate
from noria.stats.intervals import t_quantile
from noria.stats.longrun import Floats, Ints, block_sums
from noria.stats.metrics import linear
from noria.stats.sequential import mean_sequence


def parts(
    metric: str,
    label: Floats,
    score: Floats,
    *,
    act: Floats | None = None,
    weights: Floats | None = None,
    quantile: float | None = None,
) -> tuple[Floats, Floats]:
    """A metric as the ratio of two sums over rows, (over, under); rows that do not count are 0 in both.

    ``precision``, ``recall`` and ``f1`` are such ratios; a mean of losses is one over the weights; any other metric is taken to first
    order around its value.

    >>> over, under = parts("precision", np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.8, 0.1]))
    >>> over.tolist(), under.tolist()
    ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
    """
    keep, values, weight = linear(metric, label, score, act=act, weights=weights, quantile=quantile)
    over, under = np.zeros(len(keep)), np.zeros(len(keep))
    if metric in ("precision", "recall", "f1"):
        truth = np.asarray(label, float)[keep]
        taken = (np.asarray(score, float)[keep] >= 0.5 if act is None else np.asarray(act, float)[keep] > 0).astype(float)
        hit = taken * truth
        found = {"precision": (hit, taken), "recall": (hit, truth), "f1": (2 * hit, taken + truth)}[metric]
        over[keep], under[keep] = found[0] * weight, found[1] * weight
    else:
        over[keep], under[keep] = values * weight, weight
    return over, under


def ratio(over: Floats, under: Floats, units: NDArray[Any], *, confidence: float = 0.95) -> Estimate:
    """``sum(over) / sum(under)`` with an interval whose observations are units, however many rows each has. ``n`` counts units.

    >>> ratio(np.array([1.0, 0.0, 1.0, 0.0]), np.ones(4), np.array(["a", "b", "c", "d"])).value
    0.5
    """
    total = float(under.sum())
    if not total > 0:
        return Estimate(None)
    value = float(over.sum()) / total
    ids, place = np.unique(units, return_inverse=True)
    n = len(ids)
    if n < 3:
        return Estimate(value, n=n)
    residual = np.bincount(place, over - value * under)
    half = t_quantile(confidence, n - 1) * float(np.sqrt((residual**2).sum() * n / (n - 1))) / total
    return Estimate(value, value - half, value + half, n)


def ratio_sequence(over: Floats, under: Floats, blocks: Ints, *, error: float, least: int = 10) -> Estimate:
    """The same ratio with blocks of time as the observations, by an interval that holds at every look (``mean_sequence``).

    >>> ratio_sequence(np.tile([1.0, 0.0], 12), np.ones(24), np.arange(24) // 2, error=0.05)
    Estimate(value=0.5, low=0.5, high=0.5, n=12)
    """
    if not under.sum() > 0:
        return Estimate(None)
    overs, unders = block_sums(blocks, over, under)
    there = unders > 0
    return mean_sequence(overs[there] / unders[there], error=error, block_weights=unders[there], least=least)


def ratio_difference(
    over: Floats, under: Floats, challenger: NDArray[np.bool_], units: NDArray[Any], *, confidence: float = 0.95
) -> Estimate:
    """The challenger's ratio less the champion's; a unit that has rows in both arms is one observation. ``n`` counts units.

    >>> mine = np.array([True, True, False, False])
    >>> ratio_difference(np.array([1.0, 1.0, 0.0, 1.0]), np.ones(4), mine, np.arange(4)).value
    0.5
    """
    totals = float(under[challenger].sum()), float(under[~challenger].sum())
    if not min(totals) > 0:
        return Estimate(None)
    mine, other = float(over[challenger].sum()) / totals[0], float(over[~challenger].sum()) / totals[1]
    ids, place = np.unique(units, return_inverse=True)
    fewest = min(len(np.unique(place[challenger])), len(np.unique(place[~challenger])))
    if fewest < 3:
        return Estimate(mine - other, n=len(ids))
    residual = np.where(challenger, (over - mine * under) / totals[0], -(over - other * under) / totals[1])
    spread = float(np.sqrt((np.bincount(place, residual) ** 2).sum() * fewest / (fewest - 1)))
    half = t_quantile(confidence, fewest - 1) * spread
    return Estimate(mine - other, mine - other - half, mine - other + half, len(ids))
