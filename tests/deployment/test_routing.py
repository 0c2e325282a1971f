from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import noria as nr
from noria.deployment import routing

UNITS = [f"unit-{i}" for i in range(40_000)]


def test_the_draw_is_the_first_53_bits_of_a_sha256() -> None:
    raw = hashlib.sha256(b"salt\x1fada").digest()
    expected = (int.from_bytes(raw[:8], "big") >> 11) / 2**53
    assert routing.uniforms(["ada"], "salt")[0] == expected
    assert routing.uniforms(["ada"], "salt", draw=1)[0] == (int.from_bytes(raw[8:16], "big") >> 11) / 2**53


@pytest.mark.parametrize("salt", ["variant\x1fflights\x1f1", "variant\x1fflights\x1f2", "holdout\x1fflights"])
def test_draws_are_uniform(salt: str) -> None:
    draws = routing.uniforms(UNITS, salt)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 0.001


def test_draws_of_different_salts_and_of_one_hash_are_independent() -> None:
    draws = [
        routing.uniforms(UNITS, "variant\x1fs\x1f1"),
        routing.uniforms(UNITS, "variant\x1fs\x1f2"),
        routing.uniforms(UNITS, "holdout\x1fs"),
        routing.uniforms(UNITS, "explore\x1fs"),
        routing.uniforms(UNITS, "explore\x1fs", draw=1),
    ]
    for i, a in enumerate(draws):
        for b in draws[i + 1 :]:
            table = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0]
            assert stats.chi2_contingency(table).pvalue > 0.0005


def test_a_ramp_keeps_whoever_is_in() -> None:
    shares = (0.0, 0.01, 0.05, 0.25, 0.5, 1.0)
    arms = [routing.challenged("s", 3, UNITS, share) for share in shares]
    for smaller, larger in pairwise(arms):
        assert not (smaller & ~larger).any()
    for arm, share in zip(arms, shares, strict=True):
        assert abs(arm.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(UNITS)) + 1e-12


def test_the_next_rollout_draws_anew() -> None:
    first, second = (routing.challenged("s", number, UNITS, 0.25) for number in (1, 2))
    both = (first & second).mean()
    assert abs(both - 0.0625) < 0.006


@pytest.mark.parametrize(("explore", "holdout"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.1), (0.3, 0.15)])
def test_propensities_are_the_frequencies_of_the_acts(explore: float, holdout: float) -> None:
    decide = nr.Decide(explore=explore, holdout=holdout)
    ids = [f"{unit}@1" for unit in UNITS]
    for policy in (0.0, 1.0):
        taken = routing.acts("s", decide, np.full(len(UNITS), policy), ids, UNITS)
        for act in (0.0, 1.0):
            share = float((taken.act == act).mean())
            said = taken.propensity[taken.act == act]
            if len(said):
                assert np.ptp(said) == 0
                assert abs(share - said[0]) < 4.5 * np.sqrt(said[0] * (1 - said[0]) / len(UNITS)) + 1e-12


def test_weighting_by_propensity_is_unbiased_with_hold_out_and_exploration() -> None:
    random = np.random.default_rng(1)
    n = len(UNITS)
    policy = (random.uniform(size=n) < 0.7).astype(float)
    untreated = policy * 3 + random.normal(size=n)  # what doing nothing gives depends on what the policy would do
    decide = nr.Decide(explore=0.2, holdout=0.1)
    taken = routing.acts("s", decide, policy, [f"{unit}@1" for unit in UNITS], UNITS)
    idle = taken.act == 0
    estimate = float((untreated[idle] / taken.propensity[idle]).sum() / n)
    error = float(np.sqrt(((untreated**2) / 0.19).mean() / n))
    assert abs(estimate - untreated.mean()) < 4 * error
    assert abs(untreated[idle].mean() - untreated.mean()) > 1  # the unweighted mean is far off


def test_three_acts_are_tried_equally() -> None:
    decide = nr.Decide("largest expected value", explore=1.0, acts=("a", "b", "c"))
    taken = routing.acts("s", decide, np.zeros(len(UNITS)), [f"{unit}@1" for unit in UNITS], UNITS)
    counts = np.bincount(taken.act.astype(int), minlength=3)
    assert stats.chisquare(counts).pvalue > 0.001
    assert np.allclose(taken.propensity, 1 / 3)


def test_held_out_units_are_never_acted_on_and_stay_so() -> None:
    decide = nr.Decide(explore=0.5, holdout=0.2)
    out = routing.held_out("s", UNITS, 0.2)
    for asked in ("1", "2"):
        taken = routing.acts("s", decide, np.ones(len(UNITS)), [f"{unit}@{asked}" for unit in UNITS], UNITS)
        assert (taken.act[out] == 0).all()


@pytest.mark.parametrize("policy", ["score", "quantile 0.8"])
def test_amounts_are_neither_explored_nor_held_out(policy: str) -> None:
    amounts = np.array([3.5, np.nan])
    taken = routing.acts("s", nr.Decide(policy, explore=0.5, holdout=0.5), amounts, ["a@1", "b@1"], ["a", "b"])
    assert taken.act[0] == 3.5
    assert taken.propensity[0] == 1.0
    assert np.isnan(taken.propensity[1])
