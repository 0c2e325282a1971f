"""Two samples told apart by a classifier, and rows that lie where a sample has none."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.stats.longrun import Floats, Ints

RIDGE = 0.1
PAIRS = 16


def crossed(rows: Floats, pairs: int = PAIRS) -> Floats:
    """The columns of ``rows`` (n, k), the squares and the products of the first ``pairs`` of them: what shows a changed correlation.

    >>> crossed(np.array([[2.0, 3.0]])).tolist()
    [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    some = rows[:, :pairs]
    left, right = np.triu_indices(some.shape[1])
    return np.concatenate([rows, some[:, left] * some[:, right]], axis=1)


def rank_auc(low: Floats, high: Floats) -> float:
    """The chance that a number of ``high`` exceeds one of ``low`` (ties count half); NaN when one is empty.

    >>> rank_auc(np.array([0.1, 0.4]), np.array([0.4, 0.8]))
    0.875
    """
    if not len(low) or not len(high):
        return float("nan")
    ordered = np.sort(low)
    under = np.searchsorted(ordered, high, side="left") + np.searchsorted(ordered, high, side="right")
    return float(under.mean()) / (2 * len(low))


def domain_auc(a: Floats, b: Floats, folds_a: Ints, folds_b: Ints, *, ridge: float = RIDGE) -> float:
    """How well a classifier tells the rows ``b`` (m, k) from ``a`` (n, k), out of fold: 0.5 when not at all. NaN without rows in two folds.

    The classifier is Fisher's linear discriminant with both samples weighing the same and ``ridge`` times the mean variance added to the
    diagonal. It is fitted on all folds but one and judged on that one; the AUC is the folds' mean. Folds are whole blocks of time, so
    that neighbours do not vouch for each other. Columns are to be of comparable scale.

    >>> random = np.random.default_rng(0)
    >>> a, b = random.normal(0, 1, (400, 2)), random.normal(0, 1, (400, 2)) + 1.0
    >>> round(domain_auc(a, b, np.arange(400) // 100, np.arange(400) // 100), 1)
    0.9
    """
    with _one_thread():
        return _out_of_fold(a, b, folds_a, folds_b, ridge)


@lru_cache(maxsize=1)
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it ships no types

    return ThreadpoolController()


def _one_thread() -> Any:
    """Matrices this small are slower on several threads, and stall on a busy machine."""
    return _libraries().limit(limits=1, user_api="blas")


def _out_of_fold(a: Floats, b: Floats, folds_a: Ints, folds_b: Ints, ridge: float) -> float:
    found, rows = [], []
    parts = [(x, folds, {f: _moments(x[folds == f]) for f in np.unique(folds)}) for x, folds in ((a, folds_a), (b, folds_b))]
    for fold in np.intersect1d(folds_a, folds_b):
        fitted = [_added([m for f, m in moments.items() if f != fold]) for _, _, moments in parts]
        if any(one is None for one in fitted):
            continue
        (n_a, sum_a, gram_a), (n_b, sum_b, gram_b) = fitted  # type: ignore[misc]  # none is None
        mean_a, mean_b = sum_a / n_a, sum_b / n_b
        scatter = gram_a / n_a - np.outer(mean_a, mean_a) + gram_b / n_b - np.outer(mean_b, mean_b)
        scatter[np.diag_indices_from(scatter)] += ridge * max(float(np.trace(scatter)) / len(scatter), 1e-12)
        direction = np.linalg.solve(scatter, mean_b - mean_a)
        left, right = a[folds_a == fold] @ direction, b[folds_b == fold] @ direction
        found.append(rank_auc(np.round(left, 9), np.round(right, 9)))
        rows.append(len(right))
    return float(np.average(found, weights=rows)) if found else float("nan")


Moments = tuple[int, Floats, Floats]


def _moments(x: Floats) -> Moments:
    return len(x), x.sum(axis=0), x.T @ x


def _added(parts: list[Moments]) -> Moments | None:
    if not parts:
        return None
    n, sums, gram = parts[0][0], parts[0][1].copy(), parts[0][2].copy()
    for more, other, square in parts[1:]:
        n, sums, gram = n + more, sums + other, gram + square
    return n, sums, gram


def nearest(rows: Floats, reference: Floats, apart: NDArray[np.bool_] | None = None) -> Floats:
    """The Euclidean distance of each of ``rows`` (m, k) to the nearest of ``reference`` (n, k); ``apart`` (m, n) are pairs that do not count.

    >>> nearest(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0], [0.0, 1.0]])).tolist()
    [2.0]
    """
    if not len(reference):
        return np.full(len(rows), np.inf)
    x, y = np.asarray(rows, np.float32), np.asarray(reference, np.float32)
    square = (y**2).sum(axis=1)[None, :] - 2 * (x @ y.T)  # which is nearest, fast; how far, exactly
    if apart is not None:
        square = np.where(apart, np.float32(np.inf), square)
    place = square.argmin(axis=1)
    made = np.sqrt(((np.asarray(rows, float) - np.asarray(reference, float)[place]) ** 2).sum(axis=1))
    return np.asarray(np.where(np.isfinite(square[np.arange(len(x)), place]), made, np.inf), float)
