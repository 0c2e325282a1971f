"""The domain classifier and the nearest rows against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from noria.stats import crossed, domain_auc, nearest, rank_auc


def test_rank_auc_against_sklearn():
    random = np.random.default_rng(0)
    low, high = random.integers(0, 9, 70), random.integers(2, 12, 50)
    label = np.repeat([0, 1], [70, 50])
    assert rank_auc(low, high) == pytest.approx(roc_auc_score(label, np.concatenate([low, high])))
    assert np.isnan(rank_auc(low, low[:0]))


def test_the_classifier_is_fishers_discriminant_out_of_fold():
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, (300, 5)), random.normal(0.3, 1.2, (300, 5))
    folds = np.arange(300) // 100
    expected = []
    for fold in range(3):
        train = np.concatenate([a[folds != fold], b[folds != fold]])
        model = LinearDiscriminantAnalysis(solver="lsqr").fit(train, np.repeat([0, 1], 200))
        said = model.decision_function(np.concatenate([a[folds == fold], b[folds == fold]]))
        expected.append(roc_auc_score(np.repeat([0, 1], 100), said))
    assert domain_auc(a, b, folds, folds, ridge=1e-9) == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_changed_correlation_shows_in_products_and_not_in_the_columns():
    random = np.random.default_rng(2)
    a = random.normal(0, 1, (1500, 6))
    b = random.normal(0, 1, (600, 6))
    b[:, 1] = 0.7 * b[:, 0] + np.sqrt(1 - 0.49) * b[:, 1]
    there, here = np.arange(1500) // 375, np.arange(600) // 150
    assert domain_auc(a, b, there, here) < 0.56
    assert domain_auc(crossed(a), crossed(b), there, here) > 0.65


def test_the_same_distribution_is_not_told_apart():
    random = np.random.default_rng(3)
    found = [
        domain_auc(random.normal(0, 1, (400, 8)), random.normal(0, 1, (200, 8)), np.arange(400) // 100, np.arange(200) // 50)
        for _ in range(40)
    ]
    assert abs(np.mean(found) - 0.5) < 0.02
    assert np.isnan(domain_auc(np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(4, int), np.zeros(4, int)))


def test_nearest_against_scipy():
    random = np.random.default_rng(4)
    rows, reference = random.normal(0, 1, (80, 7)), random.normal(0, 1, (90, 7))
    assert nearest(rows, reference) == pytest.approx(cdist(rows, reference).min(axis=1))
    apart = random.random((80, 90)) < 0.5
    apart[0] = True
    expected = np.where(apart, np.inf, cdist(rows, reference)).min(axis=1)
    assert nearest(rows, reference, apart) == pytest.approx(expected)
    assert np.isinf(nearest(rows, reference[:0])).all()
