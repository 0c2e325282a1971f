"""Whether scores mean what they say: of the rows scored 0.3, do 30 % turn out true?"""

from __future__ import annotations

import numpy as np

from noria.core import Estimate
from noria.stats.intervals import around, block_mean
from noria.stats.longrun import Floats, Ints, block_sums


def reliability(label: Floats, score: Floats, bins: int = 10) -> tuple[tuple[float, float, int], ...]:
    """(mean score, mean label, n) in ``bins`` groups of about equally many rows by score; equal scores stay together.

    >>> reliability(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.1, 0.9, 0.7]), bins=2)
    ((0.1, 0.0, 2), (0.8, 1.0, 2))
    """
    label, score = np.asarray(label, float), np.asarray(score, float)
    keep = np.isfinite(label) & np.isfinite(score)
    label, score = label[keep], score[keep]
    if len(score) == 0:
        return ()
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, score, side="left")
    n = np.bincount(group, minlength=len(edges) + 1)
    scores, labels = np.bincount(group, score), np.bincount(group, label)
    return tuple((float(s / k), float(y / k), int(k)) for s, y, k in zip(scores, labels, n[: len(scores)], strict=True) if k)


def ece(label: Floats, score: Floats, bins: int = 10) -> float:
    """Expected calibration error over ``reliability``'s groups: the mean absolute gap, weighted by rows. NaN without rows.

    It is biased upwards in small samples (a perfect score has a positive ECE): judge by ``calibration_test``.

    >>> round(ece(np.array([0.0, 1.0]), np.array([0.25, 0.75]), bins=2), 2)
    0.25
    """
    groups = reliability(label, score, bins)
    n = sum(k for _, _, k in groups)
    return sum(abs(s - y) * k for s, y, k in groups) / n if n else float("nan")


def calibration_test(
    label: Floats, score: Floats, blocks: Ints, *, confidence: float = 0.95, least: int = 10
) -> dict[str, Estimate]:
    """``offset``: mean label minus mean score (0 when right on average); ``slope``: 1 when right everywhere.

    The slope is Cox's (1958): the coefficient of a logistic regression of the label on the score's logit; below 1 the scores
    are too extreme, above 1 too timid. Both with intervals over blocks (the slope's is the clustered sandwich).

    >>> score = np.tile([0.2, 0.8], 50)
    >>> label = np.tile([0, 1, 0, 1, 0, 1, 0, 1, 1, 0], 10).astype(float)
    >>> made = calibration_test(label, score, np.arange(100) // 10)
    >>> abs(round(made["offset"].value, 6)), round(made["slope"].value, 3)
    (0.0, 1.0)
    """
    label, score = np.asarray(label, float), np.asarray(score, float)
    keep = np.isfinite(label) & np.isfinite(score)
    label, score, blocks = label[keep], np.clip(score[keep], 1e-9, 1 - 1e-9), np.asarray(blocks)[keep]
    offset = block_mean(label - score, blocks, confidence=confidence, least=least)
    slope = Estimate(None, n=offset.n)
    if len(label) > 2 and label.min() < label.max() and score.max() - score.min() > 1e-12:
        slope = _slope(label, np.log(score / (1 - score)), blocks, confidence, least)
    return {"offset": offset, "slope": slope}


def logistic_fit(design: Floats, label: Floats) -> Floats:
    """The coefficients of a logistic regression of ``label`` (0 or 1) on the columns of ``design`` (n, k).

    Newton's method from the identity (the last column's coefficient 1, the others 0), each step halved until it helps. NaN where
    the columns cannot tell the coefficients apart, or separate the labels perfectly.
    """

    def loss(beta: Floats) -> float:
        margin = design @ beta
        return float((np.logaddexp(0.0, margin) - label * margin).sum())

    beta = np.zeros(design.shape[1])
    beta[-1] = 1.0
    for _ in range(100):
        fitted = _sigmoid(design @ beta)
        bread = design.T @ (design * (fitted * (1 - fitted))[:, None])
        if not np.isfinite(bread).all() or np.linalg.cond(bread) > 1e12:
            return np.full_like(beta, np.nan)
        step = np.linalg.solve(bread, design.T @ (label - fitted))
        while loss(beta + step) > loss(beta) and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            return beta
    return np.full_like(beta, np.nan)


def _sigmoid(margin: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(margin, -40, 40))))


def _slope(label: Floats, logit: Floats, blocks: Ints, confidence: float, least: int) -> Estimate:
    design = np.column_stack([np.ones_like(logit), logit])
    beta = logistic_fit(design, label)
    if not np.isfinite(beta).all():
        return Estimate(None)
    fitted = _sigmoid(design @ beta)
    bread = design.T @ (design * (fitted * (1 - fitted))[:, None])
    influence = (design * (label - fitted)[:, None]) @ np.linalg.inv(bread)[1]
    (sums,) = block_sums(blocks, influence)
    return around(float(beta[1]), sums * len(sums), confidence=confidence, least=least)
