"""Fitness by property, the break-even by simulation, last labels by brute force."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from noria.core import Estimate
from noria.scoping.fitness import WEIGHTS, Traits, score
from noria.scoping.money import auc_of, break_even, break_even_r2, distance_of, drawn_prediction, gain, gain_between
from noria.scoping.probe import halves, last_labels
from noria.scoping.study import prepare

traits = st.fixed_dictionaries({name: st.floats(0, 1) for name in WEIGHTS})


@settings(max_examples=200, deadline=None)
@given(traits, st.sampled_from(sorted(WEIGHTS)), st.floats(0, 1))
def test_improving_a_trait_never_lowers_the_score(given_traits, name, better):
    before = score(Traits(**given_traits))
    after = score(Traits(**(given_traits | {name: max(given_traits[name], better)})))
    assert 0 <= before <= after <= 1


@settings(max_examples=100, deadline=None)
@given(traits, st.sampled_from(sorted(WEIGHTS)))
def test_a_trait_that_is_given_counts(given_traits, name):
    without, with_it = (score(Traits(**(given_traits | {name: value}))) for value in (0.0, 1.0))
    assert with_it > without


@pytest.mark.parametrize(("base", "if_true", "if_false"), [(0.2, 60, -15), (0.5, 10, -10), (0.05, 20, -1), (0.3, -4, 2)])
@pytest.mark.parametrize("auc", [0.6, 0.75, 0.9])
def test_gain_of_a_score_against_simulation(base, if_true, if_false, auc):
    """Two normals are drawn, each score is acted on where its exact expected value is positive."""
    random = np.random.default_rng(1)
    n = 400_000
    label = random.random(n) < base
    mu = distance_of(auc)
    drawn = random.standard_normal(n) + mu * label
    assert roc_auc_score(label[:50_000], drawn[:50_000]) == pytest.approx(auc, abs=0.01)
    odds = base / (1 - base) * np.exp(mu * drawn - mu * mu / 2)
    chance = odds / (1 + odds)
    acts = chance * if_true + (1 - chance) * if_false > 0
    worth = np.where(acts, np.where(label, if_true, if_false), 0.0)
    assert gain(auc, base, if_true, if_false) == pytest.approx(worth.mean(), abs=4 * worth.std() / np.sqrt(n))


@pytest.mark.parametrize(("base", "if_true", "if_false"), [(0.2, 60, -15), (0.5, 10, -10), (0.05, 20, -1), (0.02, 5, -20)])
def test_the_break_even_is_where_the_gain_begins(base, if_true, if_false):
    least = break_even(base, if_true, if_false)
    trivial = max(0.0, base * if_true + (1 - base) * if_false)
    room = base * if_true - trivial
    for auc, reached in ((least - 0.01, False), (least + 0.01, True)):
        if auc > 0.5:
            assert (gain(auc, base, if_true, if_false) - trivial >= 0.01 * room) is reached


def test_break_even_edges():
    assert break_even(0.2, 10, 1) is None
    assert break_even(0.2, -10, -1) is None
    assert break_even(0.0, 10, -1) is None
    assert break_even(0.2, 0, 0) is None
    assert auc_of(0) == 0.5
    hard, easy = break_even(0.02, 5, -20), break_even(0.5, 10, -10)
    assert hard > easy


def test_money_of_a_better_metric_by_hand():
    """Base rate one half, stakes 10 and -10: with the symmetric cut each side is right with Φ(μ/2)."""
    from scipy.stats import norm

    def worth(auc):
        right = norm.cdf(np.sqrt(2) * norm.ppf(auc) / 2)
        return 10 * (right - (1 - right)) / 2

    found = gain_between(0.7, 0.8, Estimate(0.5, 0.5, 0.5, 20), 10, -10, predictions=1000)
    assert found.value == pytest.approx(1000 * (worth(0.8) - worth(0.7)))
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0, 0.1), st.floats(0, 0.1))
def test_more_uncertain_inputs_give_a_wider_range(rate, less, more):
    thin = gain_between(0.7, 0.75, Estimate(rate, rate - less / 4, rate + less / 4, 20), 60, -15)
    wide = gain_between(0.7, 0.75, Estimate(rate, rate - less / 4 - more, rate + less / 4 + more, 20), 60, -15)
    # the range is looked at in 41 steps, so its ends are exact to that grid
    slack = 1e-3 * abs(thin.value) + 1e-6
    assert wide.low <= thin.low + slack
    assert thin.high <= wide.high + slack


def test_drawn_predictions_have_their_r2_and_are_calibrated():
    label = np.random.default_rng(0).standard_normal(50_000) * 3 + 1
    for r2 in (0.1, 0.5, 0.9):
        made = drawn_prediction(label, r2, 1)
        assert np.corrcoef(label, made)[0, 1] ** 2 == pytest.approx(r2, abs=0.02)
        slope = np.polyfit(made, label, 1)[0]
        assert slope == pytest.approx(1, abs=0.03)
    even = break_even_r2(label, lambda p: -float(np.abs(p - label).mean()), -float(np.abs(label - 1).mean()), 0.0)
    assert even == 0.05
    assert break_even_r2(label, lambda p: 0.0, 1.0, 1.0) is None


def test_halves_leave_a_gap():
    times = np.arange(0, 100, dtype=np.int64) * 3_600_000_000
    blocks = np.arange(100) // 10
    early, late = halves(times, blocks, timedelta(hours=3))
    assert late.tolist() == list(range(50, 100))
    assert early.tolist() == list(range(48))
    assert times[late].min() - times[early].max() >= 3 * 3_600_000_000


def test_last_labels_against_looking_row_by_row(declare, rows):
    frame = rows(lambda random, f: random.random(f.height) < 0.5, days=6, a_day=40).sample(fraction=1.0, shuffle=True, seed=1)
    frame = frame.with_columns(_label=pl.when(pl.col("x") > 1.5).then(None).otherwise(pl.col("_label")))
    study = prepare(declare(), frame)
    for by in ([], ["kind"]):
        found = last_labels(study, by, timedelta(hours=1)).to_list()
        everything = study.frame.to_dicts()
        for row, last in zip(everything, found, strict=True):
            closed = [
                r for r in everything if r["_time"] + timedelta(hours=1) <= row["_time"] and all(r[b] == row[b] for b in by)
            ]
            newest = max(closed, key=lambda r: r["_time"], default=None)
            assert last == (None if newest is None else newest["_label"])
