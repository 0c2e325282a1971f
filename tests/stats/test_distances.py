"""Distances of histograms against scipy, on the rows themselves where there are rows."""

import numpy as np
import pytest
from scipy import spatial
from scipy import stats as oracle

from noria import stats
from noria.stats.distances import chi2_p, cramers_v, wasserstein_binned

RANDOM = np.random.default_rng(5)


def binned(values, edges):
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(float)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_against_scipy_on_counts(k):
    for _ in range(20):
        a, b = RANDOM.integers(0, 50, k).astype(float), RANDOM.integers(1, 400, k).astype(float)
        a[0] += 1
        assert stats.jensen_shannon(a, b) == pytest.approx(spatial.distance.jensenshannon(a, b, base=2))
        p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
        assert stats.psi(a, b) == pytest.approx(oracle.entropy(p, q) + oracle.entropy(q, p))
        table = np.vstack([a, b])
        found = oracle.chi2_contingency(table, correction=False)
        assert stats.chi2(a, b) == pytest.approx(found.statistic)
        assert chi2_p(a, b) == pytest.approx(found.pvalue, rel=1e-9, abs=1e-300)
        assert cramers_v(a, b) == pytest.approx(oracle.contingency.association(table.astype(int), method="cramer"))
        centres = np.sort(RANDOM.normal(0, 1, k))
        expected = oracle.wasserstein_distance(centres, centres, a, b)
        assert stats.wasserstein(a, b, centres) == pytest.approx(expected)


def test_ks_and_wasserstein_of_bins_come_near_those_of_rows():
    for shift, scale in ((0.3, 1.0), (0.0, 1.4), (-0.8, 0.7)):
        a, b = RANDOM.normal(0, 1, 4000), RANDOM.normal(shift, scale, 3000)
        edges = np.quantile(a, np.arange(1, 40) / 40)
        left, right = binned(a, edges), binned(b, edges)
        assert stats.ks(left, right) == pytest.approx(oracle.ks_2samp(a, b).statistic, abs=0.02)
        inside = np.clip(b, a.min(), a.max())
        near = wasserstein_binned(left, right, (a.min(), *edges, a.max()))
        assert near == pytest.approx(oracle.wasserstein_distance(a, inside), abs=0.03)


def test_wasserstein_of_bins_is_the_area_between_the_lines():
    """Against the same area by a fine grid."""
    points = np.array([0.0, 0.5, 2.0, 2.25, 5.0])
    for _ in range(20):
        a, b = RANDOM.integers(1, 30, 4).astype(float), RANDOM.integers(1, 30, 4).astype(float)
        fine = np.linspace(0, 5, 200_001)
        lines = [np.interp(fine, points, np.concatenate([[0], np.cumsum(c / c.sum())])) for c in (a, b)]
        assert wasserstein_binned(a, b, points) == pytest.approx(np.trapezoid(np.abs(lines[0] - lines[1]), fine), abs=1e-6)


def test_the_effect_size_of_a_tiny_shift_stays_tiny_where_its_p_value_is_zero():
    share = np.array([0.5, 0.3, 0.2])
    moved = np.array([0.505, 0.297, 0.198])
    for n, significant in ((10_000, False), (10_000_000, True)):
        assert (chi2_p(share * n, moved * n) < 1e-6) == significant
        assert cramers_v(share * n, moved * n) == pytest.approx(0.005, abs=0.001)
        assert stats.jensen_shannon(share * n, moved * n) < 0.01


def test_nothing_on_one_side_is_no_distance():
    empty, some = np.zeros(3), np.array([1.0, 2.0, 3.0])
    for found in (stats.jensen_shannon(empty, some), cramers_v(empty, some), chi2_p(empty, some)):
        assert np.isnan(found)
