from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from noria.deployment.rollout import arms
from noria.stats import mean_sequence


def test_paired_is_the_mean_sequence_of_the_days_weighted_by_their_rows() -> None:
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(20), random.integers(5, 50, 20))
    difference = random.normal(size=len(days))
    means = np.array([difference[days == day].mean() for day in range(20)])
    sizes = np.array([(days == day).sum() for day in range(20)], float)
    found, expected = (
        arms.paired(difference, days, error=0.05, least=10),
        mean_sequence(means, error=0.05, block_weights=sizes, prior=arms.PRIOR),
    )
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.value == pytest.approx(difference.mean())
    assert found.n == 20


def test_rows_without_a_value_do_not_count() -> None:
    difference, days = np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 1, 2])
    assert arms.paired(difference, days, error=0.05, least=2).value == 2.0
    assert arms.paired(np.array([np.nan]), np.array([0]), error=0.05, least=2).value is None


def test_the_difference_between_arms_is_the_regression_with_a_level_per_stratum() -> None:
    random = np.random.default_rng(3)
    n = 900
    strata = random.integers(0, 6, n)
    mine = random.uniform(size=n) < 0.3
    value = strata * 2.0 + mine * 0.4 + random.normal(size=n)
    units = np.array([f"u{i // 3}" for i in range(n)])
    found = arms.between(value, mine, units, strata, error=0.05, looks=1)
    levels = (strata[:, None] == np.arange(6)).astype(float)
    fitted = sm.OLS(value, np.column_stack([mine.astype(float), levels])).fit(
        cov_type="cluster", cov_kwds={"groups": np.arange(n) // 3}
    )
    assert found.value == pytest.approx(
        fitted.params[0], abs=1e-9
    )  # within-stratum weights n1 n0 / n are those of this regression
    half = ((found.high or 0.0) - (found.low or 0.0)) / 2
    assert half == pytest.approx(1.96 * fitted.bse[0], rel=0.08)


@pytest.mark.parametrize("per_unit", [1, 6])
def test_intervals_between_arms_cover_with_recurring_units(per_unit: int) -> None:
    random = np.random.default_rng(5)
    missed = 0
    runs = 300
    for _ in range(runs):
        units = np.repeat(np.arange(240), per_unit)
        own = random.normal(size=240)[units]  # a unit is like itself
        mine = (random.uniform(size=240) < 0.25)[units]
        days = np.tile(np.arange(per_unit), 240) if per_unit > 1 else random.integers(0, 5, 240)
        value = own + random.standard_t(3, size=len(units)) + random.normal(size=7)[days]
        found = arms.between(value, mine, units.astype(str), days, error=0.1, looks=1)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0 <= found.high
    assert missed / runs <= 0.1 + 3 * np.sqrt(0.09 / runs)


def test_more_looks_widen_the_interval() -> None:
    random = np.random.default_rng(1)
    value, mine = random.normal(size=400), np.arange(400) % 2 == 0
    units, days = np.arange(400).astype(str), np.arange(400) // 40
    one, many = (arms.between(value, mine, units, days, error=0.05, looks=looks) for looks in (1, 56))
    assert one.value == many.value
    assert (many.low or 0.0) < (one.low or 0.0)


def test_one_arm_alone_has_no_difference() -> None:
    ones = np.ones(5, bool)
    assert arms.between(np.ones(5), ones, np.arange(5).astype(str), np.zeros(5, int), error=0.05, looks=1).value is None
    assert arms.daily(np.ones(5), ones, np.zeros(5, int), error=0.05, least=10).value is None


def test_days_to_decision_shrink_with_the_share_and_the_effect() -> None:
    slow, quick = (arms.days_to_decision(30.0, 900, share, 1.0, error=0.05) for share in (0.05, 0.5))
    assert slow is not None
    assert quick is not None
    assert quick < slow
    assert arms.days_to_decision(30.0, 900, 0.05, 0.0, error=0.05) is None
