"""What changed since a moment: coverage and false alarms by simulation, shapes and beginnings where they were planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from noria import stats


def days(random: np.random.Generator, n: int, rows: int, day: float, r: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``n`` days: noise of the row, and an effect of the day of spread ``day`` with autocorrelation ``r``."""
    effects = np.empty(n)
    effects[0] = random.normal(0, day)
    for k in range(1, n):
        effects[k] = r * effects[k - 1] + random.normal(0, day * np.sqrt(1 - r * r))
    return (effects[:, None] + random.normal(0, 1, (n, rows))).ravel(), np.repeat(np.arange(n), rows)


@pytest.mark.parametrize("recent", [1, 2, 5, 12])
@pytest.mark.parametrize(("day", "r"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.4)])
def test_two_days_are_held_against_what_days_do_by_themselves(recent: int, day: float, r: float) -> None:
    inside, runs = 0, 250
    for run in range(runs):
        random = np.random.default_rng([run, recent])
        values, blocks = days(random, 40 + recent, 30, day, r)
        past = blocks < 40
        made = stats.moved(values[past], blocks[past], values[~past], blocks[~past], confidence=0.95)
        inside += bool(made.low is not None and made.high is not None and made.low <= 0 <= made.high)
    assert inside / runs >= (0.91 if r == 0 else 0.88)
    # a test that takes rows for independent would be far off
    if day and r == 0 and recent == 2:
        naive = 0
        for run in range(runs):
            values, blocks = days(np.random.default_rng([run, recent]), 42, 30, day)
            naive += scipy_stats.ttest_ind(values[blocks < 40], values[blocks >= 40]).pvalue > 0.05
        assert naive / runs < 0.7


def test_one_day_agrees_with_the_prediction_interval_of_the_textbook() -> None:
    random = np.random.default_rng(1)
    past = random.normal(0, 1, 30)
    past = np.abs(past) * np.where(np.arange(30) % 2, 1, -1)  # no autocorrelation to inflate by
    made = stats.moved(past, np.arange(30), np.array([2.0]), np.array([30]), confidence=0.95)
    half = scipy_stats.t.ppf(0.975, 29) * past.std(ddof=1) * np.sqrt(1 + 1 / 30)
    assert made.high is not None
    assert made.low is not None
    assert (made.high - made.low) / 2 == pytest.approx(half, rel=0.02)


def test_a_gross_change_shows_in_a_day_and_a_ramp_is_no_noise() -> None:
    values, blocks = days(np.random.default_rng(0), 41, 30, 0.3)
    values[blocks == 40] += 2
    past = blocks < 40
    assert stats.moved(values[past], blocks[past], values[~past], blocks[~past]).above(0.0)
    ramp, at = days(np.random.default_rng(0), 64, 30, 0.3)
    ramp += np.clip(at - 40, 0, None) / 24
    past = at < 40
    assert stats.moved(ramp[past], at[past], ramp[~past], at[~past]).above(0.3)


def test_too_few_days_before_give_no_interval() -> None:
    made = stats.moved(np.arange(5.0), np.arange(5), np.array([9.0]), np.array([5]))
    assert made.value == 7.0
    assert not made.known
    assert stats.moved(np.array([]), np.array([]), np.array([1.0]), np.array([1])).value is None


@pytest.mark.parametrize("kind", ["step", "ramp", "none"])
def test_the_shape_of_a_change(kind: str) -> None:
    right = 0
    for run in range(60):
        random = np.random.default_rng([run, 7])
        series = random.normal(0, 0.2, 45)
        places = np.arange(45)
        series += {"step": (places >= 25) * 1.0, "ramp": np.clip(places - 20, 0, None) / 20, "none": 0 * places}[kind]
        right += stats.shape(series, margin=6.0 if kind == "none" else 2.0).kind == kind
    assert right >= 50


def test_where_it_began() -> None:
    random = np.random.default_rng(3)
    series = np.r_[random.normal(0, 1, 30), random.normal(4, 1, 6)]
    place, strength = stats.begun(series)
    assert place == 30
    assert strength > 5
    false = [stats.begun(np.random.default_rng(k).normal(0, 1, 36))[1] > 5 for k in range(200)]
    assert np.mean(false) < 0.05
