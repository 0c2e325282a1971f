"""Distances between two histograms over the same bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria.stats.longrun import Floats


def shares(counts: Floats) -> Floats:
    """Counts as shares of their total (all 0 when there is nothing)."""
    counts = np.asarray(counts, float)
    total = counts.sum()
    return counts / total if total > 0 else counts


def psi(a: Floats, b: Floats) -> float:
    """Population stability index of counts ``b`` against ``a``: the symmetric Kullback-Leibler divergence.

    Empty bins would make it infinite, so half a row is added to every bin; it depends on the size of small samples. Rules of
    thumb (0.1, 0.25) are not thresholds: monitoring takes its own from the reference.

    >>> round(psi(np.array([50, 50]), np.array([90, 10])), 2)
    0.85
    """
    p, q = shares(np.asarray(a, float) + 0.5), shares(np.asarray(b, float) + 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(a: Floats, b: Floats) -> float:
    """The Jensen-Shannon distance, 0 (same) to 1 (nothing in common): the root of the divergence in bits.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 5]))
    1.0
    """
    p, q = shares(a), shares(b)
    if p.sum() == 0 or q.sum() == 0:
        return float("nan")
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / m), 0.0).sum()
        right = np.where(q > 0, q * np.log2(q / m), 0.0).sum()
    return float(np.sqrt(max(0.0, (left + right) / 2)))


def jensen_shannon_each(a: Floats, rows: Floats) -> Floats:
    """``jensen_shannon`` of ``a`` with every row of counts; NaN where a side is empty.

    >>> jensen_shannon_each(np.array([1, 0]), np.array([[0, 5], [2, 0], [0, 0]]))
    array([ 1.,  0., nan])
    """
    q = np.asarray(rows, float)
    totals = q.sum(axis=1, keepdims=True)
    p = shares(a)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        q = q / totals
        m = (p + q) / 2
        left = np.where(p > 0, p * np.log2(p / m), 0.0).sum(axis=1)
        right = np.where(q > 0, q * np.log2(q / m), 0.0).sum(axis=1)
    found = np.sqrt(np.maximum(0.0, (left + right) / 2))
    return np.where((totals[:, 0] > 0) & (p.sum() > 0), found, np.nan)


def hellinger(a: Floats, b: Floats) -> float:
    """The Hellinger distance, 0 to 1.

    >>> hellinger(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    return float(np.sqrt(((np.sqrt(shares(a)) - np.sqrt(shares(b))) ** 2).sum() / 2))


def ks(a: Floats, b: Floats) -> float:
    """The largest difference of the distribution functions at the bins' right edges (ordered bins), 0 to 1.

    >>> ks(np.array([2, 2]), np.array([4, 0]))
    0.5
    """
    return float(np.abs(np.cumsum(shares(a)) - np.cumsum(shares(b))).max())


def wasserstein(a: Floats, b: Floats, centres: Floats) -> float:
    """How far mass has to move, in the units of ``centres`` (one a bin, ascending): the area between the distribution functions.

    >>> wasserstein(np.array([1, 0]), np.array([0, 1]), np.array([10.0, 13.0]))
    3.0
    """
    gap = np.abs(np.cumsum(shares(a)) - np.cumsum(shares(b)))[:-1]
    return float(gap @ np.diff(np.asarray(centres, float)))


def wasserstein_binned(a: Floats, b: Floats, points: Sequence[float]) -> float:
    """The Wasserstein distance of two histograms, in the units of ``points``: the bins' ends, ascending, one more than bins.

    Mass is taken as spread evenly within a bin, so the distribution functions are lines between the ends, and the area between
    them is exact for that (Vallender 1974: in one dimension the distance is that area). What lies beyond the ends counts as at the ends.

    >>> wasserstein_binned(np.array([1, 1]), np.array([1, 1]), (0.0, 1.0, 3.0))
    0.0
    >>> wasserstein_binned(np.array([1, 0]), np.array([0, 1]), (0.0, 1.0, 2.0))
    1.0
    """
    gap = np.concatenate([[0.0], np.cumsum(shares(b) - shares(a))])
    gap[-1] = 0.0
    left, right = gap[:-1], gap[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = (left**2 + right**2) / (2 * (np.abs(left) + np.abs(right)))
    heights = np.where(left * right < 0, crossed, (np.abs(left) + np.abs(right)) / 2)
    return float(heights @ np.diff(np.asarray(points, float)))


def cramers_v(a: Floats, b: Floats) -> float:
    """Cramér's V of two rows of counts, 0 (same shares) to 1 (nothing in common): the effect size behind ``chi2``.

    It is the root of the statistic over the number of rows, and does not grow with them (Cramér 1946): at a million rows every shift is
    significant, and a tiny one stays tiny. NaN when either side is empty.

    >>> cramers_v(np.array([10, 0]), np.array([0, 30])), cramers_v(np.array([5, 5]), np.array([500, 500]))
    (1.0, 0.0)
    """
    total = float(np.sum(a) + np.sum(b))
    found = chi2(a, b)
    return float(np.sqrt(found / total)) if total else float("nan")


def chi2(a: Floats, b: Floats) -> float:
    """Pearson's statistic of homogeneity of two rows of counts; empty columns are left out. Degrees: used columns - 1.

    Its p-value takes rows as independent, which a day's rows are not: use it to rank, not to alarm.

    >>> round(chi2(np.array([10, 20]), np.array([20, 10])), 3)
    6.667
    """
    table = np.vstack([a, b]).astype(float)
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(table.sum(), 1.0)
    if (expected <= 0).any():
        return float("nan")
    return float(((table - expected) ** 2 / expected).sum())


def chi2_p(a: Floats, b: Floats) -> float:
    """The p-value of ``chi2``, for rows that are independent; a day's rows are not, and with many rows it is 0 for a shift nobody would mind.

    >>> round(chi2_p(np.array([10, 20]), np.array([20, 10])), 4)
    0.0098
    """
    from scipy import special

    used = int((np.asarray(a, float) + np.asarray(b, float) > 0).sum())
    found = chi2(a, b)
    if not np.isfinite(found):
        return float("nan")
    return float(special.gammaincc((used - 1) / 2, found / 2)) if used > 1 else 1.0
