"""Sequences that may be looked at every day: error rates and power by simulation, e-values against direct integration."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from noria.core import Verdict
from noria.stats import blocks_needed, drawn_as_declared, excess, half_width, mean_sequence, rate_sequence, sample_ratio

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


# ----------------------------------------------------------------------------------------------------------- one rate


def first_excess(random, rate, n, bound=0.01, error=0.02):
    """After how many draws the evidence of an excess was there, looked at after every draw that could bring it; ``None``: never."""
    draws = random.uniform(size=n) < rate
    came = draws.cumsum()
    for place in np.flatnonzero(draws):  # between two that came out the evidence only falls
        if excess(int(came[place]), int(place) + 1, bound) >= 1 / error:
            return int(place) + 1
    return None


def test_the_excess_is_the_mixture_over_the_rates_above_the_bound():
    hits, total, bound = 7, 150, 0.02

    def ratio(q):
        beta = 1 / (np.pi * np.sqrt(q * (1 - q)))
        return beta * scipy_stats.binom.pmf(hits, total, q) / scipy_stats.binom.pmf(hits, total, bound)

    mixed, _ = integrate.quad(ratio, bound, 1, points=[0.05, 0.1, 0.3], limit=200)
    assert excess(hits, total, bound) == pytest.approx(mixed, rel=1e-6)


@pytest.mark.parametrize("rate", [0.002, 0.005, 0.008, 0.01])
def test_a_rate_within_the_bound_is_rarely_found_to_be_above_it(rate):
    random = np.random.default_rng([31, int(rate * 1000)])
    assert np.mean([first_excess(random, rate, 5000) is not None for _ in range(400)]) <= 0.02


def test_a_chance_that_wanders_below_the_bound_is_no_excess():
    """Also where it depends on what came before: up to the bound after each row that came out, and 0 else."""
    random = np.random.default_rng(32)
    wrong = 0
    for _ in range(300):
        hits, chance = 0, 0.01
        for n in range(1, 1500):
            came = random.uniform() < chance
            hits, chance = hits + came, 0.01 if came or n % 2 else 0.002
            if came and excess(hits, n, 0.01) >= 50:
                wrong += 1
                break
    assert wrong / 300 <= 0.02


@pytest.mark.parametrize(("rate", "draws"), [(0.03, 2500), (0.05, 900), (0.2, 120)])
def test_a_rate_above_the_bound_is_found(rate, draws):
    """With the error that a stage of a rollout has."""
    random = np.random.default_rng([33, int(rate * 100)])
    found = [first_excess(random, rate, draws, error=0.05 * 0.25 / 6) for _ in range(200)]
    assert np.mean([when is not None for when in found]) > 0.95


def test_a_larger_bound_has_less_evidence_against_it():
    for hits, total in ((0, 10), (3, 40), (40, 40), (25, 3000)):
        evidence = [excess(hits, total, bound) for bound in np.linspace(0.0005, 0.9995, 200)]
        assert all(a >= b for a, b in itertools.pairwise(evidence))
    assert excess(0, 0, 0.01) == 0.0
    assert excess(1, 10, 0.0) == float("inf")


def test_the_interval_of_a_rate_holds_what_is_not_excluded():
    found = rate_sequence(30, 1000, error=0.01)
    assert excess(30, 1000, found.low) == pytest.approx(100, rel=1e-6)
    assert excess(970, 1000, 1 - found.high) == pytest.approx(100, rel=1e-6)
    assert (rate_sequence(0, 50).low, rate_sequence(50, 50).high) == (0.0, 1.0)
    assert rate_sequence(0, 0).value is None


def test_the_interval_of_a_rate_holds_at_every_look():
    random = np.random.default_rng(34)
    missed = 0
    for _ in range(60):
        came = (random.uniform(size=2000) < 0.03).cumsum()
        looks = [rate_sequence(int(came[n - 1]), n, error=0.05) for n in range(50, 2001, 150)]
        missed += any(found.above(0.03) or found.below(0.03) for found in looks)
    assert missed / 60 <= 0.1
