"""Value differences between a challenger and a champion: on the same rows, and between randomised units. Arrays in, estimates out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate
from noria.stats import block_sums, blocks_needed, mean_sequence
from noria.stats.intervals import t_quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def paired(difference: Floats, days: Ints, *, error: float, least: int) -> Estimate:
    """The mean of ``difference`` (one number a row, NaN is left out), always valid over the days as blocks.

    >>> paired(np.tile([1.0, 2.0], 12), np.repeat(np.arange(12), 2), error=0.05, least=10)
    Estimate(value=1.5, low=1.5, high=1.5, n=12)
    """
    keep = np.isfinite(difference)
    if not keep.any():
        return Estimate(None)
    sums, sizes = block_sums(days[keep], difference[keep], np.ones(int(keep.sum())))
    return mean_sequence(sums / sizes, error=error, block_weights=sizes, least=least)


def between(
    value: Floats, challenger: NDArray[np.bool_], units: NDArray[np.str_], strata: Ints, *, error: float, looks: int
) -> Estimate:
    """The difference of the arms' mean values, compared within strata (a day at one ramp step) and pooled; units are the observations.

    Strata are weighted by ``n1 n0 / (n1 + n0)``. The variance sums each unit's influence over all its rows first (cluster-robust
    by unit), so a unit that is asked often does not count often. ``looks`` is the most times this will be asked: each look takes
    its share of ``error`` (Bonferroni), which holds whatever the looks have to do with each other. ``n`` counts the challenger's
    units. NaN values are left out.
    """
    keep = np.isfinite(value)
    value, challenger, units, strata = value[keep], challenger[keep], units[keep], strata[keep]
    if not challenger.any() or challenger.all():
        return Estimate(None, n=len(np.unique(units[challenger])))
    _, place = np.unique(strata, return_inverse=True)
    mine = challenger.astype(float)
    n1, n0 = np.bincount(place, mine), np.bincount(place, 1 - mine)
    both = (n1 > 0) & (n0 > 0)
    safe1, safe0 = np.maximum(n1, 1), np.maximum(n0, 1)
    mean1, mean0 = np.bincount(place, value * mine) / safe1, np.bincount(place, value * (1 - mine)) / safe0
    weight = np.where(both, n1 * n0 / np.maximum(n1 + n0, 1), 0.0)
    if weight.sum() == 0:
        return Estimate(None, n=len(np.unique(units[challenger])))
    difference = float((weight * (mean1 - mean0)).sum() / weight.sum())
    pooled = np.bincount(place, value) / (n1 + n0)  # an arm's own mean would hide the spread of an arm with one row
    own = (value - pooled[place]) * np.where(challenger, 1 / safe1[place], -1 / safe0[place])
    influence = own * weight[place] / weight.sum()
    ids, unit = np.unique(units, return_inverse=True)
    per_unit = np.bincount(unit, influence)
    count1, count0 = len(np.unique(unit[challenger])), len(np.unique(unit[~challenger]))
    fewest = min(count1, count0)
    if fewest < 2 or len(ids) < 4:
        return Estimate(difference, n=count1)
    spread = float(np.sqrt((per_unit**2).sum() * fewest / (fewest - 1)))
    half = t_quantile(1 - error / max(looks, 1), fewest - 1) * spread
    return Estimate(difference, difference - half, difference + half, count1)


def daily(value: Floats, challenger: NDArray[np.bool_], days: Ints, *, error: float, least: int) -> Estimate:
    """The same difference with days as the observations: each day's difference of means, weighted as in ``between``, always valid.

    It sees what units cannot: days on which the challenger as a whole does better or worse.
    """
    keep = np.isfinite(value)
    value, days, mine = value[keep], days[keep], challenger[keep].astype(float)
    if not len(value):
        return Estimate(None)
    n1, n0, sum1, sum0 = block_sums(days, mine, 1 - mine, value * mine, value * (1 - mine))
    both = (n1 > 0) & (n0 > 0)
    n1, n0, sum1, sum0 = n1[both], n0[both], sum1[both], sum0[both]
    return mean_sequence(sum1 / n1 - sum0 / n0, error=error, block_weights=n1 * n0 / (n1 + n0), least=least)


def widest(*estimates: Estimate) -> Estimate:
    """The first estimate's value with an interval that covers all of theirs; without bounds when one has none."""
    first = estimates[0]
    lows = [e.low for e in estimates if e.low is not None]
    highs = [e.high for e in estimates if e.high is not None]
    if len(lows) < len(estimates) or len(highs) < len(estimates):
        return Estimate(first.value, n=first.n)
    return Estimate(first.value, min(lows), max(highs), first.n)


def days_to_decision(sd: float, units_a_day: float, share: float, effect: float, *, error: float) -> int | None:
    """About how many days the randomised arms need to tell a difference of ``effect`` from 0, with 80 % power.

    ``sd`` is the standard deviation of one unit's value, ``share`` (0 to 1) the challenger's part. ``None``: longer than any rollout.

    >>> days_to_decision(30.0, 900, 0.25, 1.0, error=0.05), days_to_decision(30.0, 900, 0.05, 1.0, error=0.05)
    (87, 362)
    """
    if units_a_day <= 0 or not 0 < share < 1:
        return None
    return blocks_needed(sd * float(np.sqrt(1 / (units_a_day * share) + 1 / (units_a_day * (1 - share)))), effect, error=error)
