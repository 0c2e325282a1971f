"""What acting brings and costs, apart from every model; and how well scores order the rows, by day and by slice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from noria.core import Estimate, Verdict
from noria.diagnosis.case import Sample
from noria.diagnosis.causes import model
from noria.diagnosis.causes.payoffs import Payoffs
from noria.diagnosis.compared import Compared, placements

STILL = Estimate(0.0, -0.1, 0.1, 5)
FELL = Estimate(-50.0, -60.0, -40.0, 5)
ROSE = Estimate(45.0, 40.0, 50.0, 5)


def payoffs(brings: tuple[float, float], costs: tuple[float, float], b: Estimate, c: Estimate) -> Payoffs:
    return Payoffs(brings, costs, b, c)


def test_a_cost_that_rose_moves_the_threshold() -> None:
    made = payoffs((80.0, 80.0), (15.0, 60.0), STILL, ROSE)
    assert made.threshold_moved
    assert not made.order_is_worthless
    assert made.pays_from == (pytest.approx(15 / 95), pytest.approx(60 / 140))  # Elkan's C / (B + C)


def test_when_acting_rightly_loses_order_is_worth_nothing() -> None:
    made = payoffs((80.0, -40.0), (15.0, -15.0), FELL, FELL)
    assert made.order_is_worthless
    assert not made.threshold_moved


def test_the_same_factor_on_both_moves_no_threshold_and_noise_moves_nothing() -> None:
    assert not payoffs((80.0, 160.0), (15.0, 30.0), ROSE, ROSE).threshold_moved
    assert not payoffs((80.0, 10.0), (15.0, 90.0), STILL, STILL).moved


def sample(random: np.random.Generator, days: int, first: int, turned: str = "") -> Sample:
    n = 160
    z = random.normal(0, 1.2, days * n)
    place = random.choice(["a", "b", "c", "d"], days * n)
    label = (random.random(days * n) < 1 / (1 + np.exp(-z))).astype(float)
    if turned:
        flip = (place == turned) & (random.random(days * n) < 0.5)
        label = np.where(flip, 1 - label, label)
    blocks = np.repeat(np.arange(first, first + days), n)
    return Sample(pl.DataFrame({"z": z, "place": place}), label, 1 / (1 + np.exp(-z)), blocks, pl.DataFrame())


def test_placements_are_the_auc_of_each_day() -> None:
    made = sample(np.random.default_rng(0), 3, 0)
    found = placements(made)
    for day in range(3):
        here = made.blocks == day
        assert np.nanmean(found[here]) == pytest.approx(roc_auc_score(made.label[here], made.score[here]))
    assert np.isnan(found[made.label == 0]).all()


@pytest.mark.parametrize("turned", ["", "b"])
def test_a_slice_that_is_ordered_no_more_is_named(turned: str) -> None:
    random = np.random.default_rng(4)
    both = Compared(sample(random, 28, 0), sample(random, 8, 28, turned))
    objective = SimpleNamespace(slices=(), sensitive=())
    case: Any = SimpleNamespace(system=SimpleNamespace(objective=objective))
    made = vars(model)["_ranks_worse"](case, both)
    if not turned:
        assert made is None
        return
    assert made.verdict is Verdict.FAIL
    assert made.subject == "place = b"
