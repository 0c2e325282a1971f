"""Tests that may be looked at after every block, any number of times, without losing their error rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from noria.core import Check, Estimate, Verdict
from noria.stats.longrun import Floats, inflation

PRIOR = 0.3


def half_width(blocks: float, error: float, prior: float = PRIOR) -> float:
    """The half width of the confidence sequence after ``blocks`` independent blocks, in standard deviations of one block.

    Infinite while the blocks cannot exclude anything.

    >>> round(half_width(30, 0.05), 3), round(half_width(90, 0.05), 3)
    (0.595, 0.335)
    """
    degrees = blocks - 1
    if degrees <= 0:
        return float("inf")
    spread = 1 + blocks * prior
    ratio = (np.sqrt(spread) / error) ** (2 / blocks)
    if ratio >= spread:
        return float("inf")
    return float(np.sqrt(degrees * (ratio - 1) / (1 - ratio / spread) / blocks))


def mean_sequence(
    block_means: Floats,
    *,
    error: float = 0.05,
    block_weights: Floats | None = None,
    least: int = 10,
    prior: float = PRIOR,
) -> Estimate:
    """The mean of a growing series of block means, with an interval that holds at every length at once.

    Parameters
    ----------
    block_means:
        One number a block (the day's mean value difference per prediction), in time order; NaN blocks are left out.
    error:
        The chance that the interval ever, at any look, misses the mean.
    block_weights:
        How much each block counts (its number of predictions); default equal. The mean is then that over predictions.
    least:
        With fewer blocks there are no bounds.
    prior:
        The prior variance of mean / standard deviation that the mixture puts on the alternatives: where the sequence is
        tightest, not whether it holds.

    Each look inverts the t-test's mixture Bayes factor with a normal prior on the standardised mean and the right-Haar prior
    on the scale, which is a test martingale for Gaussian blocks of unknown variance (Lai 1976, Ann. Statist. 4; Pérez-Ortiz
    et al. 2024, Ann. Statist. 52; Wang and Ramdas 2025, "Anytime-valid t-tests"). The number of blocks is replaced by the
    effective number under autocorrelation (``longrun.inflation``), so the guarantee is approximate; nothing has to be bounded.
    Over 1,000 runs of ``benchmarks/rollout_rule.py --bare``, looking daily from day 14 to day 120 with error 0.05, the interval ever
    excluded the true mean in this share of the runs, with this prior / with a prior of 0.1, which rollouts take:

    ====================================================  ===========  ===========  ===========
    blocks with AR(1) coefficient r =                          0            0.3          0.5
    ====================================================  ===========  ===========  ===========
    normal innovations                                    .021 / .017  .053 / .040  .074 / .052
    t with 3 degrees of freedom                           .010 / .010  .040 / .033  .069 / .043
    difference of two lognormals (an A/A comparison)      .005 / .004  .026 / .017  .044 / .026
    one lognormal, centred (skewed: not A/A)              .157 / .141  .153 / .126  .172 / .129
    ====================================================  ===========  ===========  ===========

    (A plain t-test looked at daily: .21 to .79; the autocorrelation-aware t-interval: .18 to .41.) A true difference of 0.4 standard
    deviations of a day is found by day 120 in .92 / .65 / .45 of the runs for normal innovations (r = 0 / 0.3 / 0.5), with the smaller
    prior in .93 / .63 / .40. A smaller prior is more careful while blocks are few, where autocorrelation is estimated worst.
    Two equally good models give a symmetric difference, so the first three are the rollout's case; the last shows what
    strong skewness of whole days would do, mostly on the side of the long tail.

    >>> print(mean_sequence(np.array([1.0, 2.0, 1.5, 1.2, 1.8, 2.2, 1.1, 1.4, 1.7, 1.6, 1.3, 1.9])))
    1.558 [1.123, 1.994]
    """
    values = np.asarray(block_means, float)
    weights = np.ones(len(values)) if block_weights is None else np.asarray(block_weights, float)
    keep = np.isfinite(values) & (weights > 0)
    values, weights = values[keep], weights[keep]
    n = len(values)
    if n == 0:
        return Estimate(None)
    mean = float(values @ weights / weights.sum())
    if n < max(least, 3):
        return Estimate(mean, n=n)
    deviations = (values - mean) * weights / weights.mean()
    k = inflation(deviations)
    half = half_width(n / k, error, prior) * float(np.sqrt(deviations @ deviations / (n - k)))
    if not np.isfinite(half):
        return Estimate(mean, n=n)
    return Estimate(mean, mean - half, mean + half, n)


def sample_ratio(counts: Sequence[int], shares: Sequence[float], *, error: float = 0.001) -> Check:
    """Whether units fell to the variants in the declared shares; may be asked after every unit.

    Parameters
    ----------
    counts, shares:
        For each variant the units so far, and its share (summing to 1). A variant with share 0 must have count 0.
    error:
        The chance of ever failing while the shares hold.

    The e-value is the Bayes factor of a Dirichlet mixture centred at the shares against the shares (Lindon and Malek 2022,
    "Anytime-valid inference for multinomial count data", NeurIPS); by Ville's inequality it ever reaches 1/error with
    chance at most ``error``. ``estimate.value`` is the e-value, ``bound`` is 1/error.

    >>> sample_ratio([505, 495], [0.5, 0.5]).verdict, sample_ratio([580, 420], [0.5, 0.5]).verdict
    (<Verdict.PASS: 'pass'>, <Verdict.FAIL: 'fail'>)
    """
    seen, expected = np.asarray(counts, float), np.asarray(shares, float)
    if len(seen) != len(expected) or abs(expected.sum() - 1) > 1e-9 or (expected < 0).any():
        raise ValueError(f"{len(seen)} counts for shares {tuple(shares)}: the shares must be one a variant and sum to 1")
    total = int(seen.sum())
    said = f"{[int(c) for c in seen]} units for shares {[float(s) for s in expected]}"
    if (seen[expected == 0] > 0).any():
        return Check("sample ratio", Verdict.FAIL, bound=1 / error, detail=f"{said}: a variant without a share has units")
    seen, expected = seen[expected > 0], expected[expected > 0]
    if total == 0 or len(seen) < 2:
        return Check("sample ratio", Verdict.NOT_ENOUGH_DATA, bound=1 / error, detail=f"{said}: nothing to compare")
    prior = expected / expected.min()  # a centred Dirichlet whose smallest parameter is 1
    log_e = float(
        special.gammaln(prior.sum())
        - special.gammaln(prior.sum() + total)
        + (special.gammaln(prior + seen) - special.gammaln(prior)).sum()
        - (seen * np.log(expected)).sum()
    )
    e = float(np.exp(min(log_e, 700.0)))
    verdict = Verdict.FAIL if e >= 1 / error else Verdict.PASS
    return Check("sample ratio", verdict, estimate=Estimate(e, n=total), bound=1 / error, detail=said)


def excess(hits: int, total: int, bound: float) -> float:
    """The evidence that a rate lies above ``bound``: an e-value that may be looked at after every draw.

    Parameters
    ----------
    hits, total:
        How many draws came out, of how many; in the order in which they are looked at both only grow.
    bound:
        The rate (0 to 1) that is allowed.

    While each draw comes out with a chance of at most ``bound``, whatever came before it (the chance may wander below the bound), the
    e-value ever reaches 1/error with a chance of at most ``error``: it is the likelihood ratio of rate q against the bound, mixed over
    the part of a Beta(1/2, 1/2) distribution of q that lies above the bound. Each ratio is a supermartingale then, and Ville's
    inequality holds for the mixture (Robbins 1970, "Statistical methods related to the law of the iterated logarithm", Ann. Math.
    Statist. 41; Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference", Statist. Sci. 38). It is 0 while the
    share found is not above the bound, where there is nothing to hold against it: so a larger bound never has the larger e-value.
    Draws that fail in a burst, the later ones because the earlier did, are not covered.

    Over 2,000 runs of 20,000 draws, looked at after each, with error 0.00208 (what a stage of a rollout has) and a bound of 1 %:

    =================================  ====  ====  ====  ====  =====  =====  ===  ====
    rate, %                            0.3   0.5   0.8   1     2      3      5    20
    =================================  ====  ====  ====  ====  =====  =====  ===  ====
    ever found to be above, %          0     0     0.1   0.15  100    100    100  100
    draws until then, median           -     -     -     -     2,368  667    198  17
    draws until then, 95 of 100 runs   -     -     -     -     5,075  1,439  459  46
    =================================  ====  ====  ====  ====  =====  =====  ===  ====

    >>> round(excess(12, 1000, 0.01), 4), round(excess(25, 1000, 0.01))
    (0.0227, 77)
    """
    if total == 0 or hits / total <= bound:
        return 0.0
    if bound <= 0:
        return float("inf")
    return float(np.exp(min(_log_excess(hits, total, bound), 700.0)))


def _log_excess(hits: int, total: int, bound: float) -> float:
    a, b = hits + 0.5, total - hits + 0.5
    mixed = special.betaln(a, b) - special.betaln(0.5, 0.5) + np.log(special.betaincc(a, b, bound))
    return float(mixed - special.xlogy(hits, bound) - special.xlog1py(total - hits, -bound))


def rate_sequence(hits: int, total: int, *, error: float = 0.05) -> Estimate:
    """A rate with an interval that holds at every look at once.

    Parameters
    ----------
    hits, total:
        How many draws came out, of how many.
    error:
        The chance that a side of the interval is ever, at any look, on the wrong side of the rate; each side has it.

    The interval holds the rates that ``excess`` does not exclude, counting what came out for the low side, and what did not for the high one.

    >>> print(rate_sequence(3, 1000))
    0.003 [0.0001239, 0.01431]
    """
    if total == 0:
        return Estimate(None)
    return Estimate(hits / total, _low(hits, total, error), 1 - _low(total - hits, total, error), total)


def _low(hits: int, total: int, error: float) -> float:
    """The largest rate below the share found that is excluded as too low, 0 when none is."""
    low, high = 0.0, hits / total
    for _ in range(60):
        middle = (low + high) / 2
        if 0 < middle < hits / total and _log_excess(hits, total, middle) >= -np.log(error):
            low = middle
        else:
            high = middle
    return low


_TILTS = np.concatenate([sign * np.geomspace(0.01, 4.0, 24) for sign in (-1.0, 1.0)])


def drawn_as_declared(hits: Floats, chances: Floats, *, error: float = 0.001, name: str = "sample ratio") -> Check:
    """Whether draws came out as often as their chances say, each with a chance of its own; may be asked after every draw.

    Parameters
    ----------
    hits, chances:
        For each draw whether it came out (0 or 1), and the chance (0 to 1) that it was declared to have. Where the chance is exactly 0 or 1
        any other result fails at once.
    error:
        The chance of ever failing while the chances hold.

    The e-value is the likelihood ratio of chances whose log-odds are all shifted by the same amount, averaged over 48 shifts from 0.01 to 4
    either way. A chance may depend on earlier results (a bandit's share does): the ratio is a martingale all the same, and
    Ville's inequality bounds how often it ever reaches 1/error. ``estimate.value`` is the e-value, ``bound`` is 1/error.

    >>> drawn_as_declared(np.repeat([1.0, 0.0], [52, 948]), np.full(1000, 0.05)).verdict
    <Verdict.PASS: 'pass'>
    >>> drawn_as_declared(np.repeat([1.0, 0.0], [95, 905]), np.full(1000, 0.05)).verdict
    <Verdict.FAIL: 'fail'>
    """
    hits, chances = np.asarray(hits, float), np.asarray(chances, float)
    if len(hits) != len(chances) or ((chances < 0) | (chances > 1)).any():
        raise ValueError(f"{len(hits)} draws with {len(chances)} chances: one chance between 0 and 1 for each draw")
    impossible = int((((chances <= 0) & (hits > 0)) | ((chances >= 1) & (hits < 1))).sum())
    open_ = (chances > 0) & (chances < 1)
    total, came, due = int(open_.sum()), int(hits[open_].sum()), float(chances[open_].sum())
    said = f"the challenger has {came} of {total} units, {due:.1f} were due"
    if impossible:
        detail = f"{said}; {impossible} units were in an arm that they could not be in"
        return Check(name, Verdict.FAIL, bound=1 / error, detail=detail)
    if total == 0:
        return Check(name, Verdict.NOT_ENOUGH_DATA, bound=1 / error, detail=f"{said}: nothing to compare")
    kinds, place = np.unique(chances[open_], return_inverse=True)
    seen, true = np.bincount(place).astype(float), np.bincount(place, hits[open_])
    shifted = np.log1p(kinds[None, :] * np.expm1(_TILTS)[:, None])
    ratios = true.sum() * _TILTS - shifted @ seen
    e = float(np.exp(min(special.logsumexp(ratios) - np.log(len(_TILTS)), 700.0)))
    verdict = Verdict.FAIL if e >= 1 / error else Verdict.PASS
    return Check(name, verdict, estimate=Estimate(e, n=total), bound=1 / error, detail=said)
