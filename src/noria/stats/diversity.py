"""How evenly something is spread over its values."""

from __future__ import annotations

import numpy as np

from noria.stats.longrun import Floats


def entropy(counts: Floats) -> float:
    """Shannon's entropy of counts in nats; NaN when there is nothing.

    >>> round(entropy(np.array([5, 5])), 4)
    0.6931
    """
    counts = np.asarray(counts, float)
    total = counts.sum()
    if not total > 0:
        return float("nan")
    share = counts[counts > 0] / total
    return float(-(share * np.log(share)).sum())


def effective_number(counts: Floats) -> float:
    """How many equally frequent values would be as diverse: the exponential of the entropy (Hill 1973, Ecology 54, order 1).

    >>> round(effective_number(np.array([10, 10, 10])), 6)
    3.0
    """
    return float(np.exp(entropy(counts)))


def evenness(counts: Floats) -> float:
    """The entropy over its largest possible value for so many values, 0 (one value only) to 1 (all alike); NaN for less than two values.

    >>> evenness(np.array([4, 0])), evenness(np.array([2, 2]))
    (0.0, 1.0)
    """
    if len(counts) < 2:
        return float("nan")
    return entropy(counts) / float(np.log(len(counts))) + 0.0


def coverage(shown: Floats, asked: Floats) -> float:
    """How much of the diversity of what was asked is in what was shown: the ratio of their effective numbers, below 1 when narrower.

    ``shown`` and ``asked`` count the same values. A loop that feeds on its own choices narrows what is shown, whatever is asked. Entropies of
    few rows are too low: both are corrected to first order, by (values seen - 1) / (2 rows) (Miller 1955).

    >>> round(coverage(np.array([900, 0, 0]), np.array([900, 900, 900])), 3)
    0.333
    """
    return float(np.exp(_corrected(shown) - _corrected(asked)))


def _corrected(counts: Floats) -> float:
    counts = np.asarray(counts, float)
    total = counts.sum()
    return entropy(counts) + float((counts > 0).sum() - 1) / (2 * total) if total > 0 else float("nan")
