"""Value differences between a challenger and a champion: on the same rows, and between randomised units. Arrays in, estimates out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from noria.core import Estimate
from noria.stats import block_sums, blocks_needed, mean_error, mean_sequence
from noria.stats.intervals import t_quantile

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
Names = NDArray[np.str_]

PRIOR = 0.1  # more careful in the first weeks than the default: autocorrelated days then stay within the declared error
EXPECTED = 0.1  # a bandit expects differences of about this many standard deviations of one row's value
LEAST = 20  # units in each arm below which a covariate is not used: its slope would be noise


def paired(difference: Floats, days: Ints, *, error: float, least: int) -> Estimate:
    """The mean of ``difference`` (one number a row, NaN is left out), always valid over the days as blocks.

    >>> paired(np.tile([1.0, 2.0], 12), np.repeat(np.arange(12), 2), error=0.05, least=10)
    Estimate(value=1.5, low=1.5, high=1.5, n=12)
    """
    keep = np.isfinite(difference)
    if not keep.any():
        return Estimate(None)
    sums, sizes = block_sums(days[keep], difference[keep], np.ones(int(keep.sum())))
    return mean_sequence(sums / sizes, error=error, block_weights=sizes, least=least, prior=PRIOR)


# ------------------------------------------------------------------------------------------------- between randomised units


@dataclass(frozen=True)
class Contrast:
    """The arms' difference, each unit's influence on it (they sum to about 0), and how many units either arm has."""

    difference: float
    per_unit: Floats
    challengers: int
    champions: int

    @property
    def fewest(self) -> int:
        return min(self.challengers, self.champions)

    @property
    def spread(self) -> float:
        """The standard error of the difference."""
        return float(np.sqrt((self.per_unit**2).sum() * self.fewest / (self.fewest - 1)))


def contrast(value: Floats, challenger: Flags, units: Names, strata: Ints) -> Contrast | None:
    """The difference of the arms' means within strata, pooled with weights ``n1 n0 / (n1 + n0)``; ``None`` without both arms.

    A unit's influence is summed over all its rows (cluster-robust by unit), so a unit that is asked often does not count often, and
    a cluster that was assigned as one is one observation.
    """
    if not challenger.any() or challenger.all():
        return None
    _, place = np.unique(strata, return_inverse=True)
    mine = challenger.astype(float)
    n1, n0 = np.bincount(place, mine), np.bincount(place, 1 - mine)
    both = (n1 > 0) & (n0 > 0)
    weight = np.where(both, n1 * n0 / np.maximum(n1 + n0, 1), 0.0)
    if weight.sum() == 0:
        return None
    safe1, safe0 = np.maximum(n1, 1), np.maximum(n0, 1)
    mean1, mean0 = np.bincount(place, value * mine) / safe1, np.bincount(place, value * (1 - mine)) / safe0
    difference = float((weight * (mean1 - mean0)).sum() / weight.sum())
    pooled = np.bincount(place, value) / (n1 + n0)  # an arm's own mean would hide the spread of an arm with one row
    own = (value - pooled[place]) * np.where(challenger, 1 / safe1[place], -1 / safe0[place])
    _, unit = np.unique(units, return_inverse=True)
    per_unit = np.asarray(np.bincount(unit, own * weight[place] / weight.sum()), float)
    return Contrast(difference, per_unit, len(np.unique(unit[challenger])), len(np.unique(unit[~challenger])))


def between(value: Floats, challenger: Flags, units: Names, strata: Ints, *, error: float, looks: int) -> Estimate:
    """The difference of the arms' mean values, compared within strata (a day at one ramp step) and pooled; units are the observations.

    ``looks`` is the most times this will be asked: each look takes its share of ``error`` (Bonferroni), which holds whatever
    the looks have to do with each other. ``n`` counts the challenger's units. NaN values are left out.
    """
    keep = np.isfinite(value)
    found = contrast(value[keep], challenger[keep], units[keep], strata[keep])
    if found is None:
        return Estimate(None, n=len(np.unique(units[keep & challenger])))
    if found.fewest < 2 or len(found.per_unit) < 4:
        return Estimate(found.difference, n=found.challengers)
    half = t_quantile(1 - error / max(looks, 1), found.fewest - 1) * found.spread
    return Estimate(found.difference, found.difference - half, found.difference + half, found.challengers)


def daily(value: Floats, challenger: Flags, days: Ints, *, error: float, least: int) -> Estimate:
    """The same difference with days as the observations: each day's difference of means, weighted as in ``between``, always valid.

    It sees what units cannot: days on which the challenger as a whole does better or worse.
    """
    differences, weights = _by_day(value, challenger, days)
    if not len(differences):
        return Estimate(None)
    return mean_sequence(differences, error=error, block_weights=weights, least=least, prior=PRIOR)


def _by_day(value: Floats, challenger: Flags, days: Ints) -> tuple[Floats, Floats]:
    """Each day's difference of the arms' means and its weight, for days with both arms."""
    keep = np.isfinite(value)
    value, days, mine = value[keep], days[keep], challenger[keep].astype(float)
    if not len(value):
        return np.empty(0), np.empty(0)
    n1, n0, sum1, sum0 = block_sums(days, mine, 1 - mine, value * mine, value * (1 - mine))
    both = (n1 > 0) & (n0 > 0)
    n1, n0, sum1, sum0 = n1[both], n0[both], sum1[both], sum0[both]
    return sum1 / n1 - sum0 / n0, n1 * n0 / (n1 + n0)


def widest(*estimates: Estimate) -> Estimate:
    """The first estimate's value with an interval that covers all of theirs; without bounds when one has none."""
    first = estimates[0]
    lows = [e.low for e in estimates if e.low is not None]
    highs = [e.high for e in estimates if e.high is not None]
    if len(lows) < len(estimates) or len(highs) < len(estimates):
        return Estimate(first.value, n=first.n)
    return Estimate(first.value, min(lows), max(highs), first.n)


# --------------------------------------------------------------------------------------------------- variance reduction


def adjusted(value: Floats, covariate: Floats, challenger: Flags, units: Names, strata: Ints) -> tuple[Floats, float]:
    """The values less what a covariate known before acting says about them, and the share of the variance that this removes (0 to 1).

    The covariate's difference between the arms is 0 but for chance, so subtracting any multiple of it leaves the expectation where
    it is. The multiple taken makes the variance of the difference, units as observations, least: with one row a unit it is that
    of the regression with a slope for each arm (Lin 2013, Ann. Appl. Stat. 7; the idea of CUPED, Deng et al. 2013, WSDM).
    A missing covariate counts as the mean of its stratum. Where the covariate does not help by more than its slope costs, or an
    arm has fewer than 20 units, the values come back as they were, with 0.0.

    >>> x = np.arange(100.0)
    >>> values, removed = adjusted(2 * x, x, np.arange(100) % 2 == 0, np.arange(100).astype(str), np.zeros(100, int))
    >>> round(float(np.ptp(values)), 6), round(removed, 6)
    (0.0, 1.0)
    """
    keep = np.isfinite(value)
    _, place = np.unique(strata, return_inverse=True)
    known = np.isfinite(covariate) & keep
    sums, counts = np.bincount(place, np.where(known, covariate, 0.0)), np.bincount(place, known)
    centre = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    centred = np.where(known, covariate - centre[place], 0.0)
    plain = contrast(value[keep], challenger[keep], units[keep], strata[keep])
    moved = contrast(centred[keep], challenger[keep], units[keep], strata[keep])
    if plain is None or moved is None or plain.fewest < LEAST:
        return value, 0.0
    power, total = float(moved.per_unit @ moved.per_unit), float(plain.per_unit @ plain.per_unit)
    if not (power > 0 and total > 0):
        return value, 0.0
    slope = float(plain.per_unit @ moved.per_unit) / power
    rest = plain.per_unit - slope * moved.per_unit
    removed = 1 - float(rest @ rest) / total * plain.fewest / (plain.fewest - 1)
    return (value - slope * centred, removed) if removed > 0 else (value, 0.0)


# -------------------------------------------------------------------------------------------------- who is better, how long


def better(difference: float, spread: float, scale: float) -> float | None:
    """The chance that the true difference is above 0, given an estimate of it with standard error ``spread``.

    The prior is normal around 0 with a standard deviation of a tenth of ``scale``, the standard deviation of one row's value: it takes
    the first days, when the spread is larger than any difference that could be, for little more than nothing.

    >>> round(better(0.1, 0.1, 1.0), 3), round(better(0.1, 0.1, 100.0), 3)
    (0.76, 0.841)
    """
    if not (np.isfinite(spread) and np.isfinite(difference) and scale > 0):
        return None
    prior = EXPECTED * scale
    if spread <= 0:
        return float(difference > 0) if difference else 0.5
    return float(special.ndtr(difference / spread * prior / np.hypot(prior, spread)))


def better_arm(value: Floats, challenger: Flags, units: Names, strata: Ints, days: Ints | None, *, least: int) -> float | None:
    """The chance that the challenger's arm is worth more, by the larger standard error of units and of days as the observations."""
    keep = np.isfinite(value)
    value, challenger, units, strata = value[keep], challenger[keep], units[keep], strata[keep]
    found = contrast(value, challenger, units, strata)
    if found is None or found.fewest < 2:
        return None
    spread = found.spread
    if days is not None:
        differences, weights = _by_day(value, challenger, days[keep])
        if len(differences) >= least:
            mean = float(differences @ weights / weights.sum())
            spread = max(spread, mean_error((differences - mean) * weights / weights.mean())[0])
    return better(found.difference, spread, float(value.std()))


def better_pair(difference: Floats, days: Ints, scale: float) -> float | None:
    """The same chance from differences on the same rows, with days as the observations."""
    keep = np.isfinite(difference)
    if not keep.any():
        return None
    sums, sizes = block_sums(days[keep], difference[keep], np.ones(int(keep.sum())))
    if len(sums) < 3:
        return None
    mean = float(sums.sum() / sizes.sum())
    return better(mean, mean_error((sums - mean * sizes) / sizes.mean())[0], scale)


def days_to_decision(sd: float, units_a_day: float, share: float, effect: float, *, error: float) -> int | None:
    """About how many days the randomised arms need to tell a difference of ``effect`` from 0, with 80 % power.

    ``sd`` is the standard deviation of one unit's value, ``share`` (0 to 1) the challenger's part. ``None``: longer than any rollout.

    >>> days_to_decision(30.0, 900, 0.25, 1.0, error=0.05), days_to_decision(30.0, 900, 0.05, 1.0, error=0.05)
    (84, 336)
    """
    if units_a_day <= 0 or not 0 < share < 1:
        return None
    a_day = sd * float(np.sqrt(1 / (units_a_day * share) + 1 / (units_a_day * (1 - share))))
    return blocks_needed(a_day, effect, error=error, prior=PRIOR)
