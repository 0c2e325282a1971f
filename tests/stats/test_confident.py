"""Confident learning against the library of its authors, and the share of turned labels against planted truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from noria.stats import confident_joint, excess_flips, suspects

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues


def planted(seed: int, n: int, classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.full(classes, 0.3), n)
    truth = np.array([random.choice(classes, p=row) for row in scores])
    turned = random.random(n) < noise
    return np.where(turned, (truth + random.integers(1, classes, n)) % classes, truth), scores


@pytest.mark.parametrize(("seed", "classes", "noise"), [(0, 2, 0.1), (1, 2, 0.3), (2, 3, 0.1), (3, 5, 0.2), (4, 4, 0.0)])
def test_the_joint_is_the_authors_own(seed: int, classes: int, noise: float) -> None:
    label, scores = planted(seed, 900, classes, noise)
    assert np.allclose(confident_joint(label, scores), estimate_joint(label, scores), atol=2e-3)


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.1), (5, 0.25)])
def test_the_same_labels_are_doubted(seed: int, noise: float) -> None:
    label, scores = planted(seed, 900, 2, noise)
    theirs = set(np.flatnonzero(find_label_issues(label, scores, filter_by="prune_by_noise_rate", n_jobs=1)).tolist())
    ours = set(suspects(label, scores).tolist())
    assert len(ours & theirs) >= 0.97 * len(theirs)
    assert len(ours - theirs) <= 0.03 * len(theirs) + 1


def world(seed: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Twenty days with a swing of their own, labels of one rater in three turned around with chance ``share``."""
    random = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(20), 150)
    x = random.normal(0, 3, len(blocks)) + random.normal(0, 0.5, 20)[blocks]
    score = 1 / (1 + np.exp(-x))
    truth = (random.random(len(x)) < score).astype(float)
    mine = random.random(len(x)) < 1 / 3
    said = np.where(mine & (random.random(len(x)) < share), 1 - truth, truth)
    return said, score, mine, blocks


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_interval_of_turned_labels_covers(share: float) -> None:
    made = [excess_flips(*world(seed, share)) for seed in range(150)]
    covered = np.mean([one.low <= share <= one.high for one in made])
    assert covered >= 0.88
    assert abs(np.mean([one.value for one in made]) - share) < 0.015


def test_without_others_to_compare_with_nothing_is_said() -> None:
    said, score, _, blocks = world(0, 0.2)
    everybody = np.ones(len(said), bool)
    assert excess_flips(said, score, everybody, blocks).value is None


def test_where_scores_tell_nothing_nothing_is_said() -> None:
    said, score, mine, blocks = world(0, 0.2)
    coin = (np.random.default_rng(1).random(len(said)) < 0.5).astype(float)
    assert excess_flips(coin, np.full_like(score, 0.5), mine, blocks).value is None
    assert excess_flips(said, score, mine, blocks).value is not None
