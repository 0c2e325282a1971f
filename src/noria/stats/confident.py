"""Which labels are probably wrong, from out-of-sample probabilities: confident learning.

A row is *confidently* of class j when its probability of j is at least what rows labelled j have on average. Counting given labels against
confident classes gives the joint distribution of given and true labels, and with it how many labels of each kind to doubt.

Source: Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", JAIR 70.

Where classes overlap by nature, a surprising label need not be wrong: the joint's off-diagonal is then an upper bound. What tells the two apart is
evidence from outside the scores, such as one rater disagreeing more than the others on rows alike: ``excess_flips``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate
from noria.stats.intervals import block_mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confident_joint(label: Ints, scores: Floats) -> Floats:
    """(classes, classes): the estimated share of rows with given label i (row) and true label j (column); sums to 1.

    ``label`` are class numbers (n,), ``scores`` out-of-sample probabilities (n, classes).

    >>> scores = np.array([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 4)
    >>> confident_joint(np.array([0] * 5 + [1] + [1] * 4), scores).round(2).tolist()
    [[0.5, 0.0], [0.1, 0.4]]
    """
    classes = scores.shape[1]
    given = np.bincount(label, minlength=classes).astype(float)
    counts = np.zeros((classes, classes))
    sure = _confident(label, scores)
    here = sure >= 0
    np.add.at(counts, (label[here], sure[here]), 1.0)
    rows = counts.sum(axis=1, keepdims=True)
    counts = np.where(rows > 0, counts / np.maximum(rows, 1e-300) * given[:, None], np.diag(given))
    return np.asarray(counts / max(counts.sum(), 1.0))


def _confident(label: Ints, scores: Floats) -> Ints:
    """The class that each row is confidently of; -1 where there is none."""
    classes = scores.shape[1]
    usual = np.array([scores[label == k, k].mean() if (label == k).any() else np.inf for k in range(classes)])
    beyond = np.where(scores >= usual - 1e-6, scores, -1.0)
    best = beyond.argmax(axis=1)
    return np.asarray(np.where(beyond.max(axis=1) < 0, -1, best))


def suspects(label: Ints, scores: Floats) -> Ints:
    """Places of the rows whose label is doubted, the most doubtful first.

    Of the rows labelled i as many are doubted in favour of j as the joint says, those with the largest p(j) - p(i) ("prune by noise rate").

    >>> scores = np.array([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 4)
    >>> suspects(np.array([0] * 5 + [1] + [1] * 4), scores).tolist()
    [5]
    """
    joint = confident_joint(label, scores)
    n, classes = scores.shape
    margin = np.full(n, -np.inf)
    for i in range(classes):
        mine = np.flatnonzero(label == i)
        for j in range(classes):
            count = round(joint[i, j] * n) if i != j else 0
            if count and len(mine):
                apart = scores[mine, j] - scores[mine, i]
                chosen = np.argsort(-apart, kind="stable")[:count]
                margin[mine[chosen]] = np.maximum(margin[mine[chosen]], apart[chosen])
    found = np.flatnonzero(np.isfinite(margin))
    return np.asarray(found[np.argsort(-margin[found], kind="stable")])


def excess_flips(
    label: Floats, score: Floats, group: NDArray[np.bool_], blocks: Ints, *, confidence: float = 0.95, least: int = 5
) -> Estimate:
    """The share of labels of a group (one rater, one batch) that were turned around, beyond what its rows explain.

    Parameters
    ----------
    label, score:
        0/1 labels and out-of-sample probabilities, (n,).
    group:
        Which rows are the group's; the others calibrate what the scores mean.
    blocks:
        Each row's block of time.

    With q the chance that an honest label disagrees with the likelier class (read off the other rows at the same score), labels turned around with
    chance f disagree with chance q + f (1 - 2 q). The estimate solves that for f; its interval is over blocks. No value without both sides, or
    where q is near one half on average, since a turned label then looks like any other.

    >>> rng = np.random.default_rng(0)
    >>> score = rng.choice([0.05, 0.95], 4000)
    >>> truth = (rng.random(4000) < score).astype(float)
    >>> mine = rng.random(4000) < 0.3
    >>> said = np.where(mine & (rng.random(4000) < 0.25), 1 - truth, truth)
    >>> made = excess_flips(said, score, mine, np.arange(4000) // 100)
    >>> made.low < 0.25 < made.high
    True
    """
    from sklearn.isotonic import IsotonicRegression

    others = ~group
    if group.sum() < 2 or others.sum() < 50 or len(np.unique(label[others])) < 2:
        return Estimate(None)
    honest = (
        IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0).fit(score[others], label[others]).predict(score[group])
    )
    likelier = honest >= 0.5
    disagrees = np.where(likelier, label[group] == 0, label[group] == 1).astype(float)
    chance = np.minimum(honest, 1 - honest)
    room = float(1 - 2 * chance.mean())
    if room < 0.2:
        return Estimate(None, n=len(np.unique(blocks[group])))
    return block_mean((disagrees - chance) / room, blocks[group], confidence=confidence, least=least)
