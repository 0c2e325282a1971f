"""The bounds of drift: false alarms over columns and time by simulation of the alert's own rule; weekdays; the prediction limit."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import signal
from scipy import stats as oracle

from noria.monitoring import limits
from noria.monitoring.budget import share

DAY = timedelta(days=1)
COLUMNS, REFERENCE, LIVE = 12, 56, 168


def processes(random, r, shape, days):
    """Stationary columns of standard deviation 1 and lag-one correlation r, days last."""
    draws = random.standard_normal((*shape, days + 50))
    return signal.lfilter([np.sqrt(1 - r * r)], [1.0, -r], draws, axis=-1)[..., 50:]


def alarms(fails):
    """How often the alert opens: the last two windows failed; it closes when the last 5 did not. ``fails`` is runs by windows."""
    count, is_open = 0, np.zeros(len(fails), bool)
    for t in range(5, fails.shape[1] + 1):
        raised = ~is_open & (fails[:, t - 2 : t].sum(axis=1) >= 2)
        cleared = is_open & (fails[:, t - 5 : t].sum(axis=1) == 0)
        count += int(raised.sum())
        is_open = (is_open | raised) & ~cleared
    return count


@pytest.mark.parametrize(("r", "weekend"), [(0.0, 1.0), (0.5, 1.0), (0.8, 1.0), (0.3, 2.0)])
def test_stationary_windows_keep_the_budget(r, weekend):
    """Twelve columns of day-to-day correlation r, some with weekends twice as far: alarms stay below half of drift's share.

    At r = 0.8 the 56 windows are worth six, and what they say of the spread is too little: there the budget is missed by up to half.
    """
    random = np.random.default_rng(int(10 * r) + 7)
    system = SimpleNamespace(every="1d", alerts=SimpleNamespace(false_alarms=1.0, per="28d"))
    error = share(system, "drift") / 2
    runs, beyond, opened, judged = 16, 0, 0, 0
    start = datetime(2024, 1, 1, tzinfo=UTC)
    kinds = [limits.kind(start + k * DAY, DAY) for k in range(REFERENCE + LIVE)]
    far = np.array([weekend if kind in ("Saturday", "Sunday") else 1.0 for kind in kinds])
    for _ in range(runs):
        apart = 0.04 * far * np.exp(0.35 * processes(random, r, (COLUMNS,), REFERENCE + LIVE))
        ordinary = [{("js", f"c{c}"): float(apart[c, t]) for c in range(COLUMNS)} for t in range(REFERENCE)]
        made = limits.bounds(ordinary, kinds[:REFERENCE], error=error)
        if not made:
            continue
        bound = np.array(
            [[made.get(kinds[t], made[""])["js", f"c{c}"] for t in range(REFERENCE, REFERENCE + LIVE)] for c in range(COLUMNS)]
        )
        fails = (apart[:, REFERENCE:] > bound).any(axis=0)
        beyond += int(fails.sum())
        opened += alarms(fails[None, :])
        judged += LIVE
    print(
        f"r={r}, weekend {weekend}: {beyond / judged:.4f} windows beyond, {opened} alarms in {judged} windows, {error * judged:.1f} allowed"
    )
    assert judged >= 0.9 * runs * LIVE
    assert opened <= error * judged * (1.5 if r == 0.8 else 1.0)
    assert beyond / judged < 0.06


def test_the_limit_covers_the_next_window_as_often_as_it_says():
    """At 2 %, independent lognormal windows: the next one is beyond it in about 2 % of many repetitions (or less: the seen quantile is a floor)."""
    random = np.random.default_rng(4)
    beyond = []
    for _ in range(800):
        values = np.exp(0.4 * random.standard_normal(57))
        bound = limits.limit(values[:56], 1.0)
        beyond.append(values[56] > bound)
    assert 0.004 < np.mean(beyond) < 0.027


def test_the_limit_is_the_prediction_interval_of_the_textbook_when_windows_are_independent():
    """Alternating deviations have no positive autocorrelation, so the formula must be the plain one."""
    logs = np.tile([0.3, -0.3], 28)
    expected = np.exp(oracle.t.ppf(0.98, 55) * logs.std(ddof=1) * np.sqrt(1 + 1 / 56))
    assert limits.limit(np.exp(logs), 1.0) == pytest.approx(expected)


def test_persistent_windows_are_worth_less_and_few_are_worth_nothing():
    random = np.random.default_rng(5)
    loose = np.median([limits.limit(np.exp(0.3 * processes(random, 0.0, (), 56)), 1.0) for _ in range(60)])
    tied = np.median([limits.limit(np.exp(0.3 * processes(random, 0.6, (), 56)), 1.0) or np.nan for _ in range(60)])
    assert tied > 1.04 * loose
    assert limits.limit(np.ones(10), 1.0) is None
    assert limits.bounds([{("js", "a"): 0.1}] * 29) == {}


def test_a_smaller_budget_never_gives_a_smaller_bound():
    random = np.random.default_rng(6)
    values = np.exp(0.3 * processes(random, 0.7, (), 120))
    made = [limits.limit(values, error) for error in (0.1, 1e-3, 1e-4, 1e-6)]
    assert made == sorted(made)
    assert made[-1] > made[0]
    assert [limits.allowed(0.9, error) for error in (0.1, 6e-4, 1e-9)] == [0.02, 0.002, 0.001]


def test_openings_are_those_of_the_alert_simulated_step_by_step():
    for r, p in ((0.9, 0.02), (0.6, 0.2)):
        random = np.random.default_rng(8)
        fails = processes(random, r, (300,), 1000) > oracle.norm.ppf(1 - p)
        assert limits.openings(r, p) == pytest.approx(alarms(fails) / fails.size, rel=0.25)


def test_weekdays_are_compared_with_their_like_where_they_differ():
    random = np.random.default_rng(9)
    kinds = [limits.kind(datetime(2024, 1, 1, tzinfo=UTC) + k * DAY, DAY) for k in range(56)]
    ordinary = [
        {
            ("js", "busy"): float((0.3 if kind == "Sunday" else 0.1) * np.exp(0.1 * random.standard_normal())),
            ("js", "even"): float(0.1 * np.exp(0.1 * random.standard_normal())),
        }
        for kind in kinds
    ]
    made = limits.bounds(ordinary, kinds)
    assert made["Sunday"]["js", "busy"] > 2.5 * made["Monday"]["js", "busy"]
    assert set(limits.bounds([{("js", "even"): window["js", "even"]} for window in ordinary], kinds)) == {""}
    assert made["Sunday"]["js", "even"] == made["Monday"]["js", "even"]
    assert made["Monday"]["js", "busy"] < 0.17 < limits.bounds(ordinary)[""]["js", "busy"]
    few = limits.bounds(ordinary[:32], kinds[:32])
    assert few.get("Sunday", few[""])["js", "busy"] > 0.25


@pytest.fixture(scope="module")
def benchmark() -> Any:
    place = Path(__file__).parents[2] / "benchmarks" / "false_alarms_drift.py"
    spec = importlib.util.spec_from_file_location("false_alarms_drift", place)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("stream", [(0.5, 0.1, 0.0, 1000), (0.8, 0.1, 0.0, 1000), (0.0, 0.0, 0.0, 100)])
def test_counts_of_stationary_columns_keep_the_budget_and_a_moved_column_is_found(benchmark: Any, stream: Any) -> None:
    """The benchmark's streams in small: days alone and seven together, over our bounds and the alert's rule.

    One alarm in 168 days is allowed; half as many again are let pass, which is what chance makes of eight runs, and what dependence costs.
    """
    runs, quiet, found, alone = 8, 0, 0, 0
    for run in range(runs):
        for shift in (0.0, 0.3):
            counts = benchmark.days(np.random.default_rng([run, stream[3]]), stream, shift)
            one, seven = benchmark.judged(counts, counts[:, : benchmark.REFERENCE].sum(axis=1))
            if not shift:
                quiet += len(benchmark.opened(one | seven))
            else:
                found += any(t >= benchmark.BEFORE for t in benchmark.opened(one | seven))
                alone += any(t >= benchmark.BEFORE for t in benchmark.opened(one))
    print(
        f"{stream}: {quiet} alarms in {runs} x 168 days, {runs} allowed; moved by 0.3: found {found} of {runs}, by days alone {alone}"
    )
    assert quiet <= 1.5 * runs
    assert found >= runs / 2
    assert found >= alone
    if stream[3] == 100:
        assert alone < runs / 2
