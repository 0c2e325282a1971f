"""The test of what is small and stays: simulated false alarms, how soon it sees a shift, and that one storm is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from noria.monitoring import change
from noria.monitoring.change import Point

DAY = timedelta(days=1)
START = datetime(2020, 1, 1, tzinfo=UTC)


def points(values: np.ndarray) -> list[Point]:  # type: ignore[type-arg]
    return [Point(START + k * DAY, START + (k + 1) * DAY, float(value), 1.0) for k, value in enumerate(values)]


def begins(values: np.ndarray, rate: float, first: int) -> int:  # type: ignore[type-arg]
    """How often an alarm begins when every window is looked at as it comes."""
    series, before, count = points(values), False, 0
    for n in range(first, len(series)):
        made = change.lasting(series[: n + 1], series[: n + 1], np.inf, rate=rate)
        raised = made is not None and made.raised
        count += raised and not before
        before = raised
    return count


@pytest.mark.parametrize("world", ["normal", "skewed", "follows"])
def test_false_alarms_are_what_was_asked_for(world: str) -> None:
    random, rate, worlds, length = np.random.default_rng(3), 0.004, 15, 100
    made = 0
    for _ in range(worlds):
        noise = random.standard_normal(length)
        if world == "follows":
            for k in range(1, length):
                noise[k] = 0.4 * noise[k - 1] + np.sqrt(1 - 0.4**2) * noise[k]
        made += begins(-np.exp(0.6 * noise) if world == "skewed" else noise, rate, 30)
    looked = worlds * (length - 30)
    assert made / looked < rate + 3 * np.sqrt(rate / looked)


def test_a_shift_that_stays_is_seen_and_dated() -> None:
    random = np.random.default_rng(1)
    values = np.r_[random.standard_normal(50), random.standard_normal(7) - 2.5]
    made = change.lasting(points(values), points(values), 0.0, rate=0.0005)
    assert made is not None
    assert made.raised
    assert abs((made.since - START) / DAY - 50) <= 2
    assert made.size.value == pytest.approx(-2.5, abs=1)
    assert not change.lasting(points(values), points(values), -5.0, rate=0.0005).raised  # type: ignore[union-attr]  # still allowed


def test_one_storm_is_no_change_and_little_history_says_nothing() -> None:
    random = np.random.default_rng(2)
    values = np.r_[random.standard_normal(50), -40.0, -30.0]
    made = change.lasting(points(values), points(values), 0.0, rate=0.0005)
    assert made is not None
    assert not made.raised
    assert change.lasting(points(values[:14]), points(values[:14]), 0.0, rate=0.0005) is None
