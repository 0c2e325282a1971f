"""Distances against scipy; calibration against statsmodels and by construction."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import spatial
from scipy import stats as scipy_stats

from noria.stats import calibration_test, chi2, ece, hellinger, jensen_shannon, ks, psi, reliability, wasserstein

RANDOM = np.random.default_rng(1)
A, B = RANDOM.integers(1, 90, 12), RANDOM.integers(0, 90, 12)


def test_distances_against_scipy():
    p, q = A / A.sum(), B / B.sum()
    assert jensen_shannon(A, B) == pytest.approx(spatial.distance.jensenshannon(p, q, base=2))
    assert chi2(A, B) == pytest.approx(scipy_stats.chi2_contingency(np.vstack([A, B]), correction=False).statistic)
    places = np.sort(RANDOM.random(12))
    assert wasserstein(A, B, places) == pytest.approx(scipy_stats.wasserstein_distance(places, places, p, q))
    rows = [np.repeat(np.arange(12), counts) for counts in (A, B)]
    assert ks(A, B) == pytest.approx(scipy_stats.ks_2samp(*rows, method="asymp").statistic)
    smooth = [(counts + 0.5) / (counts + 0.5).sum() for counts in (A, B)]
    both = scipy_stats.entropy(*smooth) + scipy_stats.entropy(*smooth[::-1])
    assert psi(A, B) == pytest.approx(both)
    assert hellinger(A, B) == pytest.approx(np.sqrt(1 - np.sqrt(p * q).sum()))


@pytest.mark.parametrize("distance", [psi, jensen_shannon, hellinger, ks, chi2])
def test_distance_to_itself_is_zero_and_scale_does_not_matter(distance):
    assert distance(A, A) == pytest.approx(0, abs=1e-7)
    if distance in (jensen_shannon, hellinger, ks):
        assert distance(A, 3 * B) == pytest.approx(distance(A, B))


def test_nothing_to_compare():
    assert np.isnan(jensen_shannon(A, np.zeros(12)))
    assert np.isnan(chi2(A, np.zeros(12)))


def test_reliability_counts_every_row_once_and_ties_stay_together():
    score, label = np.round(RANDOM.random(500), 1), (RANDOM.random(500) < 0.5).astype(float)
    groups = reliability(label, score)
    assert sum(n for _, _, n in groups) == 500
    assert sum(y * n for _, y, n in groups) == pytest.approx(label.sum())
    assert [s for s, _, _ in groups] == sorted(s for s, _, _ in groups)
    assert reliability(label, np.full(500, 0.3)) == ((pytest.approx(0.3), pytest.approx(label.mean()), 500),)
    assert reliability(np.array([]), np.array([])) == ()


def test_ece_is_the_gap_by_brute_force():
    score = np.concatenate([np.full(100, 0.2), np.full(300, 0.7)])
    label = np.concatenate([np.ones(50), np.zeros(50), np.ones(150), np.zeros(150)])
    assert ece(label, score, bins=4) == pytest.approx((0.3 * 100 + 0.2 * 300) / 400)


def test_slope_against_a_clustered_logistic_regression():
    days = np.repeat(np.arange(60), 50)
    logit = RANDOM.standard_normal(3000)
    label = (RANDOM.random(3000) < 1 / (1 + np.exp(-0.5 * logit))).astype(float)
    score = 1 / (1 + np.exp(-logit))  # twice too extreme
    found = calibration_test(label, score, days)
    fit = sm.GLM(label, sm.add_constant(logit), family=sm.families.Binomial()).fit(cov_type="cluster", cov_kwds={"groups": days})
    assert found["slope"].value == pytest.approx(fit.params[1], rel=1e-6)
    assert (found["slope"].high - found["slope"].low) / 2 == pytest.approx(2 * fit.bse[1], rel=0.35)
    assert found["slope"].below(1.0)
    assert found["offset"].value == pytest.approx((label - score).mean())


def test_calibrated_scores_pass_and_a_constant_has_no_slope():
    days = np.repeat(np.arange(40), 50)
    score = RANDOM.random(2000)
    label = (RANDOM.random(2000) < score).astype(float)
    found = calibration_test(label, score, days)
    assert found["slope"].low < 1 < found["slope"].high
    assert found["offset"].low < 0 < found["offset"].high
    assert calibration_test(label, np.full(2000, 0.5), days)["slope"].value is None
