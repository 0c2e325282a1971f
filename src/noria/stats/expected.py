"""What a metric should come out as when scores mean what they say: performance before labels."""

from __future__ import annotations

import numpy as np

from noria.core import Estimate
from noria.stats.intervals import t_quantile
from noria.stats.longrun import Floats
from noria.stats.metrics import Rows, metric_named
from noria.stats.spread import Spread

AUC = "auc"


def expected(
    metric: str,
    score: Floats,
    chance: Floats,
    *,
    act: Floats | None = None,
    calibration: Spread | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """The metric that rows without labels should show, given each row's chance of its label.

    Parameters
    ----------
    score:
        What the model said, (n,) or for several classes (n, k).
    chance:
        The chance (0..1) of a positive label, (n,), or of each class, (n, k): the calibrated scores.
    act:
        0/1, for the metrics that look at acts; scores of at least one half otherwise.
    calibration:
        The spread of (label - chance) over the windows of a reference: how far whole windows come out from what calibrated scores say.

    Every row is taken once with each label, weighing as much as the label's chance. For means over rows (log loss, Brier, accuracy) that is
    the exact expectation; for ratios (precision, recall, F1) and ``average_precision`` the ratio of expectations, right up to terms of order
    1/n (average precision comes out lowest: by 0.006 at 400 rows); for ``auc`` the same without the pairs of a row with itself.

    The interval is that of the metric to come, not of its expectation: by the delta method from the variance of each label, the common
    deviation of a window's labels, and the reference's error. Needs chances that
    are calibrated on these rows: nothing in here can notice that they are not.

    >>> score = np.array([0.2, 0.9])
    >>> round(expected("accuracy", score, score).value, 3), round(expected("brier", score, score).value, 3)
    (0.85, 0.125)
    """
    score, chance = np.asarray(score, float), np.asarray(chance, float)
    finite = np.isfinite(score) & np.isfinite(chance)
    keep = finite.all(axis=1) if score.ndim == 2 else finite
    if act is not None:
        keep &= np.isfinite(act)
    score, chance = score[keep], chance[keep]
    act = act[keep] if act is not None else None
    n = len(score)
    if not n:
        return Estimate(None)
    classes = chance.shape[1] if chance.ndim == 2 else 2
    weight = chance.T.ravel() if chance.ndim == 2 else np.concatenate([1 - chance, chance])
    label = np.repeat(np.arange(classes, dtype=float), n)
    said = np.tile(score, (classes, 1)) if score.ndim == 2 else np.tile(score, classes)
    rows = Rows(label, said, np.maximum(weight, 1e-12), None if act is None else np.tile(act, classes))
    value, influence = metric_named(metric).compute(rows)
    if not np.isfinite(value):
        return Estimate(None, n=n)
    if metric == AUC:
        value = _without_itself(value, chance)
    moves, weight = influence.reshape(classes, n).T, weight.reshape(classes, n).T
    middle = (weight * moves).sum(axis=1)
    variance = float((weight * (moves - middle[:, None]) ** 2).sum()) / n**2
    degrees = 1e6
    if calibration is not None and chance.ndim == 1:
        slack = chance * (1 - chance)
        common = float(((moves[:, 1] - moves[:, 0]) @ slack) / max(float(slack.sum()), 1e-12))
        whole = calibration.error(np.array([1e12]))  # the part that more rows in the window do not take away
        variance += (common * whole) ** 2
        degrees = calibration.degrees
    half = t_quantile(confidence, degrees) * float(np.sqrt(variance))
    high = float(value + half) if metric in ("log_loss", "brier") else min(1.0, float(value + half))
    return Estimate(float(value), max(0.0, float(value - half)), high, n)


def _without_itself(auc: float, chance: Floats) -> float:
    """The expected AUC with the pairs of a row with itself, each of which counted half, taken out."""
    self_pairs = float((chance * (1 - chance)).sum())
    pairs = float(chance.sum() * (1 - chance).sum())
    return (auc * pairs - 0.5 * self_pairs) / (pairs - self_pairs) if pairs > self_pairs else auc
