"""Sequences that may be looked at every day: error rates and power by simulation, e-values against direct integration."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from noria.core import Verdict
from noria.stats import blocks_needed, drawn_as_declared, half_width, mean_sequence, sample_ratio

ROOT = Path(__file__).resolve().parents[2]


def bench():
    spec = importlib.util.spec_from_file_location("rollout_rule", ROOT / "benchmarks" / "rollout_rule.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_interval_inverts_the_mixture_of_t_tests():
    """At the interval's ends the Bayes factor of a t-statistic, integrated over the prior of the effect, is 1/error."""
    n, error, prior = 25, 0.05, 0.1
    t = half_width(n, error, prior) * np.sqrt(n)

    def weighed(effect):
        return scipy_stats.nct.pdf(t, n - 1, effect * np.sqrt(n)) * scipy_stats.norm.pdf(effect, 0, np.sqrt(prior))

    mixed, _ = integrate.quad(weighed, -3, 3)
    assert mixed / scipy_stats.t.pdf(t, n - 1) == pytest.approx(1 / error, rel=1e-6)


@pytest.mark.parametrize(("kind", "most"), [("t3", 0.06), ("lognormal difference", 0.06)])
def test_two_equal_models_are_rarely_told_apart_however_often_one_looks(kind, most):
    rules = bench()
    same = rules.days(np.random.default_rng(11), 250, kind, 0.3)
    sequence = (rules.decisions(rules.by_sequence, same)[0] != 0).mean()
    daily = (rules.decisions(rules.by_t, same)[0] != 0).mean()
    week = (rules.decisions(rules.by_last_week, same)[0] != 0).mean()
    assert sequence <= most
    assert daily > 0.3  # what looking every day does to a test that is meant to be looked at once
    assert week > 0.9


def test_a_better_model_is_found_and_hardly_ever_rolled_back():
    rules = bench()
    better = rules.days(np.random.default_rng(12), 150, "t3", 0.3, effect=0.6)
    sides, when = rules.decisions(rules.by_sequence, better)
    assert (sides == -1).mean() == 0
    assert ((sides == 1) & (when <= 120)).mean() > 0.9


def test_few_blocks_and_missing_blocks():
    assert mean_sequence(np.array([])).value is None
    assert not mean_sequence(np.ones(9)).known
    x = np.random.default_rng(1).standard_normal(40)
    holes = np.insert(x, [3, 20], np.nan)
    assert mean_sequence(holes) == mean_sequence(x)
    assert mean_sequence(np.full(20, 3.0)).low == 3.0


def test_weighted_mean_is_over_predictions():
    x, w = np.arange(12.0), np.array([1.0] * 11 + [11.0])
    assert mean_sequence(x, block_weights=w).value == pytest.approx((x * w).sum() / w.sum())


def test_a_smaller_error_is_wider():
    x = np.random.default_rng(2).standard_normal(60)
    wide, narrow = mean_sequence(x, error=0.01), mean_sequence(x, error=0.1)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_blocks_needed_is_what_the_simulation_needs():
    """With the planned number of days about the planned share is decided by then."""
    n = blocks_needed(1.0, 0.5, power=0.8)
    random = np.random.default_rng(3)
    decided = 0
    for _ in range(300):
        series = random.standard_normal(n) + 0.5
        decided += mean_sequence(series).above(0.0)
    assert 0.7 <= decided / 300 <= 0.9  # the correction for autocorrelation costs a little
    assert blocks_needed(1.0, 0.5, autocorrelation=0.3) > 1.6 * n
    assert blocks_needed(1.0, 0.0) is None
    assert blocks_needed(1.0, 1e-6) is None


def test_fixed_horizon_blocks_against_statsmodels():
    from statsmodels.stats.power import TTestPower

    planned = TTestPower().solve_power(effect_size=0.4, alpha=0.05, power=0.8)
    assert blocks_needed(1.0, 0.4, sequential=False) == pytest.approx(planned, abs=1.5)


def test_sample_ratio_e_value_is_the_mixture_over_shares():
    """Against direct integration over the share of the first variant, Beta(1, 1) for equal shares."""
    k, n = 13, 20
    mixed, _ = integrate.quad(lambda p: p**k * (1 - p) ** (n - k), 0, 1)
    assert sample_ratio([k, n - k], [0.5, 0.5]).estimate.value == pytest.approx(mixed / 0.5**n)


def test_sample_ratio_is_looked_at_after_every_unit():
    random = np.random.default_rng(5)
    fails = 0
    for _ in range(200):
        arms = (random.random(3000) < 0.05).cumsum()
        for n in range(50, 3000, 50):
            if sample_ratio([n - int(arms[n - 1]), int(arms[n - 1])], [0.95, 0.05], error=0.05).verdict is Verdict.FAIL:
                fails += 1
                break
    assert fails / 200 <= 0.05
    lost = sample_ratio([9500, 400], [0.95, 0.05])  # a fifth of the small arm is lost
    assert lost.verdict is Verdict.FAIL


def test_sample_ratio_edges():
    assert sample_ratio([0, 0], [0.5, 0.5]).verdict is Verdict.NOT_ENOUGH_DATA
    assert sample_ratio([10, 1], [1.0, 0.0]).verdict is Verdict.FAIL
    assert sample_ratio([10, 0], [1.0, 0.0]).verdict is Verdict.NOT_ENOUGH_DATA
    with pytest.raises(ValueError, match="sum to 1"):
        sample_ratio([1, 2], [0.5, 0.6])


def test_draws_with_their_own_chances_are_rarely_called_wrong():
    """Looked at after every 20 draws, with a share that follows what came out, as a bandit's does."""
    random = np.random.default_rng(20)
    runs, wrong = 300, 0
    for _ in range(runs):
        hits, chances, share = [], [], 0.1
        for _ in range(25):
            chances += [share] * 20
            hits += list((random.uniform(size=20) < share).astype(float))
            share = float(np.clip(0.1 + np.mean(hits[-20:]), 0.1, 0.9))
            if drawn_as_declared(np.array(hits), np.array(chances), error=0.05).verdict is Verdict.FAIL:
                wrong += 1
                break
    assert wrong / runs <= 0.05


def test_draws_that_are_off_are_found():
    random = np.random.default_rng(21)
    chances = np.repeat([0.05, 0.25, 0.5], 4000)
    honest = (random.uniform(size=12000) < chances).astype(float)
    lost = np.where(random.uniform(size=12000) < 0.12, 0.0, honest)  # one in eight of the challenger's is not there
    assert drawn_as_declared(honest, chances).verdict is Verdict.PASS
    assert drawn_as_declared(lost, chances).verdict is Verdict.FAIL


def test_the_e_value_is_a_mean_of_likelihood_ratios():
    from noria.stats.sequential import _TILTS

    chances, hits = np.array([0.2, 0.2, 0.7]), np.array([1.0, 0.0, 1.0])
    ratios = []
    for tilt in _TILTS:
        tilted = chances * np.exp(tilt) / (1 - chances + chances * np.exp(tilt))
        ratios.append(np.prod(np.where(hits > 0, tilted / chances, (1 - tilted) / (1 - chances))))
    assert drawn_as_declared(hits, chances).estimate.value == pytest.approx(np.mean(ratios))


def test_impossible_draws_and_nothing():
    assert drawn_as_declared(np.array([1.0]), np.array([0.0])).verdict is Verdict.FAIL
    assert drawn_as_declared(np.array([0.0]), np.array([1.0])).verdict is Verdict.FAIL
    assert drawn_as_declared(np.array([]), np.array([])).verdict is Verdict.NOT_ENOUGH_DATA
    assert drawn_as_declared(np.array([1.0]), np.array([1.0])).verdict is Verdict.NOT_ENOUGH_DATA  # certain: nothing was drawn
    with pytest.raises(ValueError, match="one chance"):
        drawn_as_declared(np.array([1.0]), np.array([0.5, 0.5]))
