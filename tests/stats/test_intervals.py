"""Intervals over blocks: coverage by simulation, shares against statsmodels, resampling against a direct computation."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

from noria.stats import block_mean, block_statistic, inflation, proportion


def ar1(random, runs, n, r, kind="normal"):
    noise = random.standard_t(3, (runs, n + 50)) if kind == "t3" else random.standard_normal((runs, n + 50))
    for i in range(1, n + 50):
        noise[:, i] += r * noise[:, i - 1]
    return noise[:, 50:]


def covered(series, truth=0.0):
    made = [block_mean(x, np.arange(len(x))) for x in series]
    return float(np.mean([e.low <= truth <= e.high for e in made]))


@pytest.mark.parametrize(
    ("kind", "r", "n", "least"), [("normal", 0.0, 10, 0.93), ("t3", 0.3, 20, 0.91), ("normal", 0.5, 30, 0.9)]
)
def test_coverage_with_autocorrelation_where_the_plain_t_interval_fails(kind, r, n, least):
    series = ar1(np.random.default_rng(1), 1000, n, r, kind)
    half = scipy_stats.t.ppf(0.975, n - 1) * series.std(axis=1, ddof=1) / np.sqrt(n)
    plain = float((np.abs(series.mean(axis=1)) <= half).mean())
    found = covered(series)
    assert least <= found <= 0.985
    if r:
        assert plain < found - 0.04


def test_independent_blocks_give_about_student_s_interval():
    x = np.array([1.0, -1.0] * 10) + np.linspace(0, 1e-9, 20)  # negative autocorrelation: no inflation, no narrowing
    low, high = scipy_stats.t.interval(0.95, 19, x.mean(), scipy_stats.sem(x))
    found = block_mean(x, np.arange(20))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_clustered_rows_count_as_their_days():
    random = np.random.default_rng(3)
    effects = np.repeat(random.standard_normal(40), 200)
    rows = effects + random.standard_normal(8000)
    days = np.repeat(np.arange(40), 200)
    wide = block_mean(rows, days)
    narrow = rows.std() / np.sqrt(len(rows)) * 1.96
    assert wide.high - wide.value > 8 * narrow
    assert wide.n == 40


def test_the_mean_is_over_rows_and_unequal_days_are_covered():
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        sizes = random.integers(5, 50, 25)
        days = np.repeat(np.arange(25), sizes)
        values = random.standard_normal(25)[days] * 0.5 + random.standard_normal(len(days))
        found = block_mean(values, days)
        assert found.value == pytest.approx(values.mean())
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_too_few_blocks_give_no_interval():
    found = block_mean(np.arange(90.0), np.arange(90) // 10)
    assert found.n == 9
    assert found.value == 44.5
    assert not found.known
    assert block_mean(np.array([]), np.array([], dtype=int)).value is None
    assert block_mean(np.array([np.nan, 2.0]), np.array([0, 1])).value == 2.0


def test_weights_repeat_rows():
    random = np.random.default_rng(5)
    x, days, w = random.random(60), np.arange(60) // 5, random.integers(1, 4, 60)
    weighted = block_mean(x, days, weights=w.astype(float))
    repeated = block_mean(np.repeat(x, w), np.repeat(days, w))
    for name in ("value", "low", "high"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name))


def test_resampled_blocks_agree_with_the_ratio_interval():
    random = np.random.default_rng(6)
    x, days = random.standard_normal(900) + 2, np.arange(900) // 15
    direct = block_mean(x, days)
    drawn = block_statistic(lambda rows: float(x[rows].mean()), days, draws=600, seed=1)
    assert drawn.value == pytest.approx(direct.value)
    assert (drawn.high - drawn.low) == pytest.approx(direct.high - direct.low, rel=0.35)
    assert drawn == block_statistic(lambda rows: float(x[rows].mean()), days, draws=600, seed=1)
    assert not block_statistic(lambda rows: float(x[rows].mean()), days // 10).known


def test_inflation_estimates_the_long_run_variance():
    series = ar1(np.random.default_rng(7), 40, 400, 0.5)
    found = np.mean([inflation(x - x.mean()) for x in series])
    assert found == pytest.approx((1 + 0.5) / (1 - 0.5), rel=0.1)
    assert inflation(np.array([1.0, -1.0] * 20)) == 1.0


@pytest.mark.parametrize(("k", "n", "confidence"), [(0, 5, 0.95), (3, 7, 0.9), (50, 400, 0.99), (9, 9, 0.95)])
def test_wilson_against_statsmodels(k, n, confidence):
    found = proportion(k, n, confidence)
    low, high = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_no_events_no_share():
    assert proportion(0, 0).value is None
