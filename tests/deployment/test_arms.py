from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from noria.deployment import routing
from noria.deployment.rollout import arms
from noria.stats import mean_sequence

T0 = datetime(2024, 1, 1, tzinfo=UTC)


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


# ------------------------------------------------------------------------------------------------- clusters and covariates


def test_equal_arms_of_clusters_are_told_apart_as_rarely_as_declared_and_rows_would_not_be() -> None:
    """Shops are assigned whole; the customers of a shop are alike. Taking customers for the observations rejects far too often."""
    random = np.random.default_rng(8)
    runs, by_shop, by_row = 200, 0, 0
    for _ in range(runs):
        shop = np.repeat(np.arange(60), 20)
        mine = (random.permutation(60) < 30)[shop]
        value = random.normal(size=60)[shop] + random.normal(size=len(shop))
        days = np.tile(np.arange(20), 60)
        for units, which in ((shop.astype(str), "shop"), (np.arange(len(shop)).astype(str), "row")):
            found = arms.between(value, mine, units, days, error=0.05, looks=1)
            wrong = found.above(0.0) or found.below(0.0)
            by_shop, by_row = by_shop + (wrong and which == "shop"), by_row + (wrong and which == "row")
    assert by_shop / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert by_row / runs > 0.5


def test_the_adjusted_difference_is_the_regression_with_a_slope_for_each_arm() -> None:
    random = np.random.default_rng(9)
    n = 4000
    x = random.normal(size=n)
    mine = random.uniform(size=n) < 0.3
    value = 0.2 * mine + np.where(mine, 1.5, 0.5) * x + random.normal(size=n)
    units, one = np.arange(n).astype(str), np.zeros(n, int)
    adjusted, removed = arms.adjusted(value, x, mine, units, one)
    found = arms.between(adjusted, mine, units, one, error=0.05, looks=1)
    centred = x - x.mean()
    design = np.column_stack([np.ones(n), mine, centred, mine * centred])
    fitted = sm.OLS(value, design.astype(float)).fit(cov_type="HC1")
    assert found.value == pytest.approx(fitted.params[1], abs=0.1 * fitted.bse[1])
    half = ((found.high or 0.0) - (found.low or 0.0)) / 2
    drawn = fitted.params[3] ** 2 * x.var() / n  # the regression takes the covariates as given; other units would have others
    assert half == pytest.approx(1.96 * np.sqrt(fitted.bse[1] ** 2 + drawn), rel=0.02)
    plain = arms.between(value, mine, units, one, error=0.05, looks=1)
    plain_half = ((plain.high or 0.0) - (plain.low or 0.0)) / 2
    assert 1 - (half / plain_half) ** 2 == pytest.approx(removed, abs=0.01)


@pytest.mark.parametrize(("strength", "per_unit"), [(0.0, 1), (0.8, 1), (2.0, 3)])
def test_a_covariate_leaves_the_expectation_and_narrows_the_interval(strength: float, per_unit: int) -> None:
    random = np.random.default_rng(10)
    runs, errors, widths, missed = 300, [], [], 0
    for _ in range(runs):
        unit = np.repeat(np.arange(80), per_unit)
        mine = (random.uniform(size=80) < 0.3)[unit]
        days = random.integers(0, 4, len(unit))
        x = random.standard_t(5, size=80)[unit] + days  # tells more on some days, whoever answers
        value = 0.25 * mine + strength * x + random.normal(size=80)[unit] + random.normal(size=len(unit))
        x = np.where(random.uniform(size=len(unit)) < 0.05, np.nan, x)  # and is missing now and then
        adjusted, _ = arms.adjusted(value, x, mine, unit.astype(str), days)
        plain, less = (arms.between(v, mine, unit.astype(str), days, error=0.05, looks=1) for v in (value, adjusted))
        errors.append([plain.value - 0.25, less.value - 0.25])
        widths.append([plain.high - plain.low, less.high - less.low])
        missed += not less.low <= 0.25 <= less.high
    error, width = np.array(errors), np.array(widths)
    assert abs(error[:, 1].mean()) <= 4 * error[:, 1].std() / np.sqrt(runs)
    assert (width[:, 1] <= width[:, 0] + 1e-12).all()  # it steps aside where it does not help
    assert missed / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    if strength:
        assert error[:, 1].std() < 0.9 * error[:, 0].std()
        assert width[:, 1].mean() < 0.9 * width[:, 0].mean()


def test_a_covariate_that_is_no_use_is_left_alone() -> None:
    random = np.random.default_rng(11)
    value, mine, units, one = random.normal(size=200), np.arange(200) % 2 == 0, np.arange(200).astype(str), np.zeros(200, int)
    for useless in (np.full(200, 3.0), np.full(200, np.nan)):
        same, removed = arms.adjusted(value, useless, mine, units, one)
        assert (removed, same.tolist()) == (0.0, value.tolist())
    few = np.arange(200) < 10  # the challenger has ten units
    assert arms.adjusted(value, value, few, units, one)[1] == 0.0


def test_the_chance_of_being_better_is_right_as_often_as_it_says() -> None:
    """True differences drawn from the prior: among runs that say 70 to 90 %, about 80 % are better."""
    random = np.random.default_rng(12)
    truth = 0.1 * random.normal(size=4000)
    seen = truth + 0.1 * random.normal(size=4000)
    said = np.array([arms.better(one, 0.1, 1.0) for one in seen])
    sure = (said > 0.7) & (said < 0.9)
    assert (truth[sure] > 0).mean() == pytest.approx(said[sure].mean(), abs=0.04)
    assert arms.better(0.0, 0.0, 1.0) == 0.5
    assert arms.better(1.0, float("nan"), 1.0) is None
    assert arms.better(1.0, 1.0, 0.0) is None


def test_the_chance_for_pairs_needs_some_days_and_goes_with_their_difference() -> None:
    days = np.repeat(np.arange(12), 5)
    noise = np.random.default_rng(13).normal(size=60)
    good, bad = (arms.better_pair(noise + shift, days, 2.0) for shift in (1.0, -1.0))
    assert good > 0.95
    assert bad < 0.05
    assert arms.better_pair(noise[:10], days[:10], 2.0) is None
    assert arms.better_pair(np.full(4, np.nan), days[:4], 2.0) is None
    mine = np.arange(60) % 2 == 0
    units = np.arange(60).astype(str)
    assert arms.better_arm(noise + 2 * mine, mine, units, days, days, least=10) > 0.9
    assert arms.better_arm(noise, np.ones(60, bool), units, days, days, least=10) is None


def test_equal_variants_in_stretches_of_time_are_told_apart_as_rarely_as_declared() -> None:
    """Neighbouring stretches are alike, the assignment is drawn anew for each: the stretch as the observation is enough. Rows are not."""
    random = np.random.default_rng(14)
    runs, many, by_stretch, by_row = 200, 180, 0, 0
    stretch = np.repeat(np.arange(many), 8)
    times = pl.Series([T0 + timedelta(hours=4 * int(k), minutes=9) for k in stretch], dtype=pl.Datetime("us", "UTC"))
    for run in range(runs):
        level = np.zeros(many)
        for k in range(1, many):
            level[k] = 0.8 * level[k - 1] + random.normal()
        mine = routing.switched("s", run, times, "4h", 0.3)
        value = level[stretch] + random.normal(size=len(stretch))
        for units in (stretch, np.arange(len(stretch))):
            found = arms.between(value, mine, units.astype(str), np.zeros(len(stretch), int), error=0.05, looks=1)
            wrong = found.above(0.0) or found.below(0.0)
            by_stretch, by_row = by_stretch + (wrong and units is stretch), by_row + (wrong and units is not stretch)
    assert by_stretch / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert by_row / runs > 0.3
