"""Whole rollouts on simulated evidence: the rule's own error rates, and that the simulation's evidence is Noria's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.deployment.rollout import arms
from noria.stats import block_mean, mean_error, mean_sequence

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("rollout_rule", ROOT / "benchmarks" / "rollout_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def at_most(share: float, rate: float, runs: int) -> bool:
    """Whether ``share`` of ``runs`` may come of a chance of ``rate``: three standard deviations of slack."""
    return share <= rate + 3 * np.sqrt(rate * (1 - rate) / runs)


# ------------------------------------------------------------------------------------------- the evidence is the real one


@pytest.mark.parametrize("weighted", [False, True])
def test_the_running_sequence_is_the_mean_sequence_of_every_prefix(bench: Any, weighted: bool) -> None:
    random = np.random.default_rng(1)
    x = bench.days(random, 4, "t3", 0.5)
    w = random.uniform(0, 3, x.shape) * (random.uniform(size=x.shape) < 0.9) if weighted else np.ones(x.shape)
    some = bench.Sequence(4)
    for day in range(x.shape[1]):
        some.add(x[:, day], w[:, day])
        mean, half = some.interval(0.05)
        if day % 7 == 3 and day > 12:
            for run in range(4):
                real = mean_sequence(x[run, : day + 1], error=0.05, block_weights=w[run, : day + 1], prior=arms.PRIOR)
                assert real.value == pytest.approx(mean[run])
                assert (real.high - real.value if real.known else np.inf) == pytest.approx(half[run])
    if not weighted:
        assert some.error()[0] == pytest.approx(mean_error(x[0] - x[0].mean())[0])


def test_the_running_arms_are_the_real_ones(bench: Any) -> None:
    random = np.random.default_rng(2)
    days, runs, many = 30, 2, 40
    some, rows = bench.Arms(runs), [[], []]
    for day in range(days):
        value, mine = random.normal(0.3, 1, (runs, many)), random.uniform(size=(runs, many)) < (0.3 if day < 15 else 0.5)
        some.add(value, mine)
        for run in range(runs):
            rows[run].append((value[run], mine[run], np.full(many, day)))
    widest, better = some.widest(0.0125, 100), some.better()
    for run in range(runs):
        value, mine, day = (np.concatenate(one) for one in zip(*rows[run], strict=True))
        units = np.arange(len(value)).astype(str)
        real = arms.between(value, mine, units, day, error=0.0125, looks=100)
        real = arms.widest(real, arms.daily(value, mine, day, error=0.0125, least=10))
        assert (real.value, real.low, real.high) == pytest.approx(tuple(one[run] for one in widest))
        assert arms.better_arm(value, mine, units, day, day, least=10) == pytest.approx(better[run])


@pytest.mark.parametrize("rule", ["by_hac", "by_t", "by_last_week"])
def test_the_other_rules_are_what_they_say(bench: Any, rule: str) -> None:
    x = bench.days(np.random.default_rng(3), 3, "normal", 0.3, effect=0.3)
    sides = getattr(bench, rule)(x)
    for run in range(3):
        for day in (20, 45, 90):
            seen = x[run, :day]
            if rule == "by_hac":
                found = block_mean(seen, np.arange(day))
                expected = 1 if found.above(0.0) else -1 if found.below(0.0) else 0
            elif rule == "by_t":
                from scipy import stats

                expected = int(np.sign(seen.mean())) if stats.ttest_1samp(seen, 0.0).pvalue < 0.05 else 0
            else:
                week = seen[-7:].mean()
                expected = int(np.sign(week)) if abs(week) > 0.25 else 0
            assert sides[run, day - 1] == expected


# -------------------------------------------------------------------------------------------------------- its error rates


@pytest.mark.parametrize(("kind", "r"), [("normal", 0.0), ("normal", 0.5), ("t3", 0.3), ("lognormal difference", 0.5)])
def test_of_equal_models_on_the_same_rows_few_are_promoted_or_rolled_back(bench: Any, kind: str, r: float) -> None:
    runs = 200
    same = bench.days(np.random.default_rng(4), runs, kind, r, length=bench.LAST + bench.GUARD)
    ends = bench.paired(same)
    assert at_most((ends.side == 1).mean(), bench.ERROR / 2, runs)
    assert at_most((ends.side != 0).mean(), bench.ERROR, runs)
    daily = bench.decisions(bench.by_t, same)[0]
    assert (daily != 0).mean() > 0.2  # what the same days do to a test that is not meant to be looked at daily
    assert (bench.decisions(bench.by_last_week, same)[0] != 0).mean() > 0.9


@pytest.mark.parametrize("style", ["RANDOMISED", "BANDIT"])
@pytest.mark.parametrize("r", [0.0, 0.5])
def test_of_equal_arms_few_are_promoted_or_rolled_back(bench: Any, style: str, r: float) -> None:
    runs = 200
    ends = bench.randomised(np.random.default_rng(5), runs, "normal", r, gain=0.0, rules=getattr(bench, style))
    assert at_most((ends.side == 1).mean(), bench.ERROR / 2, runs)
    assert at_most((ends.side != 0).mean(), bench.ERROR, runs)


def test_a_gain_is_found_and_hardly_ever_rolled_back(bench: Any) -> None:
    random = np.random.default_rng(6)
    better = bench.days(random, 150, "t3", 0.3, effect=0.8, length=bench.LAST + bench.GUARD)
    ends = bench.paired(better)
    assert (ends.side == 1).mean() > 0.95
    assert (ends.side == -1).mean() <= 0.02
    for rules in (bench.RANDOMISED, bench.BANDIT):
        ends = bench.randomised(random, 150, "normal", 0.0, gain=0.8, rules=rules)
        assert (ends.side == 1).mean() > 0.95
        assert (ends.side == -1).mean() <= 0.02


def test_a_bandit_gives_the_better_arm_more_and_the_worse_arm_less(bench: Any) -> None:
    shares = [
        bench.randomised(np.random.default_rng(7), 60, "normal", 0.0, gain=gain, rules=bench.BANDIT).share.mean()
        for gain in (-0.3, 0.0, 0.3)
    ]
    assert shares[0] < 0.22 < shares[1] < 0.4 < shares[2]


def test_the_tables_have_a_column_for_each_rule_and_a_row_for_each_kind_of_days(bench: Any) -> None:
    found = bench.lines("normal", 0.3, 12)
    assert [one.rule for one in found] == ["noria, paired", "noria, arms", "noria, bandit", *bench.RULES]
    made = bench.markdown(found).splitlines()
    assert sum(line.startswith("| normal | 0.3 |") for line in made) == 3
    assert all(line.count("|") == len(found) + 3 for line in made if line)
    assert bench.power(0.0, 2.0, 10)["noria, paired"].startswith("100, 100; ")
