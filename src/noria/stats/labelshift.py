"""How often each label comes, from scores alone: black-box shift estimation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noria.stats.longrun import Floats, Ints
from noria.stats.spread import Spread, spread

WORST = 30.0


@dataclass(frozen=True)
class Shift:
    """What a reference says about scores given labels. ``confusion`` (k, k) has in column y the mean of the scores' vector where the label is y.

    ``noise`` is, for each class, the spread of (estimate - share of the labels) over the reference's windows; ``usual`` that of the estimate.
    """

    confusion: Floats
    noise: tuple[Spread, ...]
    usual: tuple[Spread, ...]

    @property
    def condition(self) -> float:
        """The condition number of ``confusion``: how much it multiplies errors. Infinite when scores say nothing of the label."""
        return float(np.linalg.cond(self.confusion)) if np.isfinite(self.confusion).all() else float("inf")


def vectors(score: Floats) -> Floats:
    """Scores as one probability a class: (n,) becomes (n, 2)."""
    return np.column_stack([1 - score, score]) if score.ndim == 1 else score


def shift_reference(label: Floats, score: Floats, blocks: Ints) -> Shift:
    """The reference of ``label_shift`` from out-of-sample rows: class numbers 0..k-1, scores (n,) or (n, k), the block of each row."""
    said, label = vectors(score), label.astype(int)
    classes = said.shape[1]
    counts = np.bincount(label, minlength=classes)
    confusion = np.full((classes, classes), np.nan)
    for y in range(classes):
        if counts[y]:
            confusion[:, y] = said[label == y].mean(axis=0)
    if not np.isfinite(confusion).all() or np.linalg.cond(confusion) > 1e9:
        return Shift(confusion, (), ())
    turned = np.linalg.inv(confusion)
    estimate = said @ turned.T
    noise = (said - confusion[:, label].T) @ turned.T
    usual = tuple(spread(estimate[:, y], blocks) for y in range(classes))
    return Shift(confusion, tuple(spread(noise[:, y], blocks) for y in range(classes)), usual)


def label_shift(reference: Shift, score: Floats) -> tuple[Floats, Floats]:
    """The share of each class among the rows with these scores, and its standard error as an estimate of what their labels will show.

    The mean vector of the scores is a mixture of its means given each label; where these stay what they were at the reference, the
    mixture's weights solve a linear system (Lipton, Wang and Smola 2018, "Detecting and correcting for label shift with black box
    predictors", ICML; with probabilities in place of the predicted class). The error has the noise of the scores given the labels, that of
    windows among themselves, and that of the reference. It is not cut at 0 and 1: an estimate outside says that the assumption fails.

    NaN when the system cannot be solved; see ``Shift.condition``.

    >>> random = np.random.default_rng(0)
    >>> truth = random.random(6000) < 0.3
    >>> score = np.clip(0.2 + 0.4 * truth + random.normal(0, 0.1, 6000), 0, 1)
    >>> reference = shift_reference(truth.astype(float), score, np.arange(6000) // 200)
    >>> share, error = label_shift(reference, np.concatenate([score[truth][:300], score[~truth][:100]]))
    >>> round(float(share[1]), 1), bool(error[1] < 0.02)
    (0.8, True)
    """
    classes = len(reference.confusion)
    if not reference.noise or not len(score):
        return np.full(classes, np.nan), np.full(classes, np.nan)
    share = np.linalg.solve(reference.confusion, vectors(score).mean(axis=0))
    return share, np.array([noise.error(np.array([len(score)])) for noise in reference.noise])
