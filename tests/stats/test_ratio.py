"""Ratios of sums: against regressions, scikit-learn and resampling; coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn import metrics as sklearn_metrics

from noria.stats import compute, mean_sequence, ratio, ratio_difference, ratio_sequence
from noria.stats.ratio import parts


def clicks(random: np.random.Generator, units: int, rate: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(over, under, unit) rows: a unit sees 1 to 9 rows and clicks on a share of them that is its own."""
    seen = random.integers(1, 10, units)
    own = random.beta(4 * rate, 4 * (1 - rate), units)
    unit = np.repeat(np.arange(units), seen)
    return (random.uniform(size=len(unit)) < own[unit]).astype(float), np.ones(len(unit)), unit


def test_the_ratio_is_the_weighted_regression_clustered_by_unit() -> None:
    random = np.random.default_rng(2)
    over, under, unit = clicks(random, 120)
    under = under * random.uniform(0.5, 2.0, len(under))
    found = ratio(over, under, unit)
    fitted = sm.WLS(over / under, np.ones(len(over)), weights=under).fit(
        cov_type="cluster", cov_kwds={"groups": unit}, use_t=True
    )
    low, high = fitted.conf_int()[0]
    assert (found.value, found.low, found.high) == pytest.approx((fitted.params[0], low, high))
    assert found.n == 120


@pytest.mark.parametrize("metric", ["precision", "recall", "f1", "accuracy", "brier", "auc"])
def test_a_metric_is_the_ratio_of_its_parts(metric: str) -> None:
    random = np.random.default_rng(3)
    label = (random.uniform(size=400) < 0.3).astype(float)
    score = np.clip(0.3 + 0.3 * label + random.normal(0, 0.3, 400), 0, 1)
    label[:7] = np.nan
    over, under = parts(metric, label, score)
    assert over.sum() / under.sum() == pytest.approx(compute(metric, label, score))
    if metric in ("precision", "recall", "f1"):
        judge = getattr(sklearn_metrics, f"{metric}_score")
        assert over.sum() / under.sum() == pytest.approx(judge(label[7:], score[7:] >= 0.5))


def test_the_difference_spreads_as_resampled_units_do() -> None:
    random = np.random.default_rng(4)
    over, under, unit = clicks(random, 300)
    mine = unit < 100
    found = ratio_difference(over, under, mine, unit, confidence=0.95)
    sums = np.stack([np.bincount(unit, over), np.bincount(unit, under)])
    drawn = []
    for _ in range(2000):
        a, b = random.integers(0, 100, 100), random.integers(100, 300, 200)
        drawn.append(np.divide(*sums[:, a].sum(axis=1)) - np.divide(*sums[:, b].sum(axis=1)))
    assert found.value == pytest.approx(over[mine].mean() - over[~mine].mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.98 * np.std(drawn), rel=0.06)


@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_over_units_cover(skewed: bool) -> None:
    """A plain interval over rows, which takes each click for an independent one, covers far less."""
    random = np.random.default_rng(5)
    runs, one, two, rows = 400, 0, 0, 0
    for _ in range(runs):
        over, under, unit = clicks(random, 150, 0.05 if skewed else 0.2)
        truth = 0.05 if skewed else 0.2
        mine = unit % 3 == 0
        single, both = ratio(over, under, unit), ratio_difference(over, under, mine, unit)
        one += single.low <= truth <= single.high
        two += both.low <= 0 <= both.high
        half = 1.96 * over.std() / np.sqrt(len(over))
        rows += abs(over.mean() - truth) <= half
    assert one / runs >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs) - (0.02 if skewed else 0.0)
    assert two / runs >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)
    assert rows / runs < 0.9


def test_over_blocks_it_is_the_sequence_of_the_blocks_ratios() -> None:
    random = np.random.default_rng(6)
    blocks = np.repeat(np.arange(30), random.integers(5, 40, 30))
    under = (random.uniform(size=len(blocks)) < 0.7).astype(float)
    over = under * (random.uniform(size=len(blocks)) < 0.4)
    sums = np.stack([np.bincount(blocks, over), np.bincount(blocks, under)])
    found, expected = ratio_sequence(over, under, blocks, error=0.05), mean_sequence(sums[0] / sums[1], block_weights=sums[1])
    assert found == expected
    assert found.value == pytest.approx(over.sum() / under.sum())


def test_looking_at_a_ratio_every_day_is_safe() -> None:
    random = np.random.default_rng(7)
    runs, left = 150, 0
    for _ in range(runs):
        shown = random.integers(20, 60, 60)
        hit = random.binomial(shown, np.clip(0.3 + random.normal(0, 0.05, 60), 0, 1))
        for day in range(10, 61, 2):
            found = ratio_sequence(hit[:day].astype(float), shown[:day].astype(float), np.arange(day), error=0.05)
            if found.known and not found.low <= 0.3 <= found.high:
                left += 1
                break
    assert left / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_nothing_to_divide_by_is_unknown() -> None:
    nothing, two = np.zeros(4), np.array([True, True, False, False])
    assert ratio(nothing, nothing, np.arange(4)).value is None
    assert ratio_sequence(nothing, nothing, np.arange(4), error=0.05).value is None
    assert ratio_difference(np.ones(4), np.array([1.0, 1.0, 0.0, 0.0]), two, np.arange(4)).value is None
    assert not ratio(np.ones(2), np.ones(2), np.arange(2)).known
