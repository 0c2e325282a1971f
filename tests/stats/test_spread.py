"""The variance parts against statsmodels' and brute force; the allowance against simulated windows."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from noria.stats import Spread, ordinary, spread


def blocks_of(random, count, rows, between, r=0.0):
    level, values = 0.0, []
    for _ in range(count):
        level = r * level + np.sqrt(1 - r * r) * random.normal(0, between)
        values.append(level + random.normal(0, 1, rows))
    return np.concatenate(values), np.repeat(np.arange(count), rows)


def test_the_parts_are_those_of_the_analysis_of_variance():
    random = np.random.default_rng(0)
    values, blocks = blocks_of(random, 30, 20, 0.5)
    made = spread(values, blocks)
    groups = values.reshape(30, 20)
    within = groups.var(axis=1, ddof=1).mean()
    f = scipy_stats.f_oneway(*groups).statistic
    assert made.within == pytest.approx(within)
    assert made.between == pytest.approx((f - 1) * within / 20)
    assert made.mean == pytest.approx(values.mean())
    assert made.rows == 600
    assert spread(values, blocks, np.full(600, 3.0)).between == pytest.approx(made.between)


def test_weights_of_zero_are_rows_that_are_not_there():
    random = np.random.default_rng(1)
    values, blocks = blocks_of(random, 12, 30, 0.3)
    keep = random.random(360) < 0.6
    assert spread(values, blocks, keep.astype(float)) == spread(values[keep], blocks[keep])


@pytest.mark.parametrize(
    ("between", "r", "windows", "most"), [(0.0, 0.0, 1, 0.08), (0.3, 0.0, 1, 0.08), (0.3, 0.0, 10, 0.08), (0.3, 0.5, 10, 0.12)]
)
def test_an_ordinary_mean_exceeds_its_allowance_rarely(between, r, windows, most):
    """One-sided at 5 %: the share of runs beyond, for windows of other sizes than the reference's."""
    random, beyond, runs = np.random.default_rng(2), 0, 300
    for _ in range(runs):
        values, blocks = blocks_of(random, 28 + windows, 40, between, r)
        made = spread(values[: 28 * 40], blocks[: 28 * 40])
        here = values[28 * 40 :].reshape(windows, 40)[:, :25]
        beyond += here.mean() - made.mean > made.allowance(np.full(windows, 25), 0.05)
    assert 0.005 < beyond / runs < most


@pytest.mark.parametrize(("r", "most"), [(0.0, 0.035), (0.5, 0.05)])
def test_the_next_window_exceeds_an_ordinary_bound_rarely(r, most):
    random, beyond, runs = np.random.default_rng(3), 0, 1000
    for _ in range(runs):
        series = np.empty(61)
        level = random.normal()
        for k in range(61):
            level = r * level + np.sqrt(1 - r * r) * random.normal()
            series[k] = level
        beyond += series[-1] > ordinary(series[:-1], 0.02)
    assert beyond / runs < most


def test_too_little_gives_no_bound():
    assert np.isnan(ordinary(np.arange(10.0), 0.01))
    empty = spread(np.array([np.nan]), np.array([0]))
    assert isinstance(empty, Spread)
    assert empty.error(np.array([10])) == float("inf")
