"""The books: every number against an account made by hand from the rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import business
from noria.business.incremental import policies_by_propensity
from noria.business.summary import advice
from noria.core import Estimate, Window
from noria.records import Valued
from noria.stats import block_mean


def by_hand(frame: pl.DataFrame, act: pl.Expr) -> float:
    """The story's value, written a second time in another language."""
    paid = pl.when(act & (pl.col("_label") == 1)).then(4.0).when(act).then(-1.0).otherwise(0.0)
    return float(frame.filter(pl.col("_label").is_not_null()).select(paid.sum()).item())


def test_each_closed_day_is_valued_once_and_by_hand(begin: Any, told: Any) -> None:
    story = begin()
    world = told.World(label_missing=0.1)
    story.tell(world, 3)
    story.release(world)
    story.tell(world, 12)
    made = business.account(story.home, story.system, story.now)
    assert len(made) == 15
    assert business.account(story.home, story.system, story.now) == []
    for entry, frame in zip(made, story.kept, strict=True):
        record = entry.record
        known = frame.filter(pl.col("_label").is_not_null())
        assert record.n == known.height < frame.height
        assert record.total == pytest.approx(by_hand(frame, pl.col("_act").fill_null(0) == 1))
        policies = {p.name: p.value.value * record.n for p in record.policies}
        assert policies["do nothing"] == 0
        assert policies["always act"] == pytest.approx(by_hand(frame, pl.lit(True)))
        assert policies["perfect"] == pytest.approx(by_hand(frame, pl.col("_label") == 1))
        assert record.per_prediction.n == 1
        assert record.per_prediction.low is None
    assert [s.name for s in made[0].record.releases] == [""]
    assert [s.name for s in made[-1].record.releases] == [story.bundle]


def test_a_revision_is_valued_again_and_replaces_the_first(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(act=1.0), 2)
    story.release(told.World())
    story.tell(told.World(act=1.0), 2)
    business.account(story.home, story.system, story.now)
    before = business.summary(story.home, story.system)
    turned = story.kept[-1].with_columns(_label=1 - pl.col("_label"))
    start = told.START + 3 * told.DAY
    story.close(turned, Window(start, start + told.DAY), 1)
    made = business.account(story.home, story.system, story.now)
    assert [entry.record.revision for entry in made] == [1]
    after = business.summary(story.home, story.system)
    assert before["windows"] == after["windows"] == 4
    labels = story.kept[-2]["_label"].to_numpy()
    assert after["total"] - before["total"] == pytest.approx(5 * ((1 - labels).sum() - labels.sum()))
    assert story.home.ledger.count(Valued) == 5


def test_the_summary_is_the_block_mean_over_days(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    story.release(told.World())
    story.tell(told.World(), 25)
    business.account(story.home, story.system, story.now)
    found = business.summary(story.home, story.system)
    rows = story.frame().with_columns(day=pl.col("_time").dt.date())
    act, label = rows["_act"].fill_null(0).to_numpy(), rows["_label"].to_numpy()
    value = np.where((act == 1) & (label == 1), 4.0, np.where(act == 1, -1.0, 0.0))
    days = rows["day"].rank("dense").to_numpy().astype(np.int64)
    expected = block_mean(value, days)
    assert found["per_prediction"].value == pytest.approx(expected.value)
    assert found["per_prediction"].low == pytest.approx(expected.low)
    assert found["total"] == pytest.approx(value.sum())
    assert [part["release"] for part in found["releases"]] == ["", story.bundle]
    assert found["releases"][0]["total"] == 0
    always = np.where(label == 1, 4.0, -1.0)
    assert found["versus"]["always act"].value == pytest.approx(block_mean(value - always, days).value)
    assert found["advice"].startswith("continue")
    half = business.summary(story.home, story.system, Window(told.START, told.START + 5 * told.DAY))
    assert half["windows"] == 5
    assert half["total"] == 0


def test_a_model_that_loses_money_is_to_be_stopped(begin: Any, told: Any) -> None:
    """A good ranking is no excuse: acting on everything that is unlikely costs money whatever the AUC."""
    story = begin()
    story.tell(told.World(), 3)
    story.release(told.World())
    story.tell(told.World(base=-3.5, act=1.0), 20)
    business.account(story.home, story.system, story.now)
    found = business.summary(story.home, story.system)
    assert found["releases"][1]["versus"]["do nothing"].high < 0
    assert found["advice"].startswith("stop")


def test_nothing_closed_is_nothing_written(begin: Any) -> None:
    story = begin()
    assert business.account(story.home, story.system, story.now) == []
    found = business.summary(story.home, story.system)
    assert found["windows"] == 0
    assert found["window"] is None
    assert found["advice"].startswith("not enough data")


@pytest.mark.parametrize(
    ("versus", "word"),
    [
        ({}, "not enough data"),
        ({"do nothing": Estimate(1.0, 0.5, 2.0, 30), "always act": Estimate(-1.0, -2.0, -0.1, 30)}, "re-scope"),
        ({"do nothing": Estimate(1.0, 0.5, 2.0, 30)}, "continue"),
        ({"do nothing": Estimate(0.1, -0.5, 2.0, 30)}, "not enough data"),
    ],
)
def test_advice(versus: dict[str, Estimate], word: str) -> None:
    assert advice(versus).startswith(word)


def test_value_against_a_hold_out_is_unbiased() -> None:
    """Acting changes the label: the naive comparison of acted with not acted is wrong, the weighted one is right."""
    random = np.random.default_rng(5)
    n, hold, explore = 200_000, 0.2, 0.1
    risk = random.random(n)
    policy = (risk > 0.6).astype(float)
    held = random.random(n) < hold
    drawn = np.where(random.random(n) < explore, random.integers(0, 2, n), policy)
    act = np.where(held, 0.0, drawn)
    chance = (1 - hold) * ((1 - explore) * (act == policy) + explore / 2) + hold * (act == 0)
    untreated, treated = risk, risk * 0.3  # the chance of a bad end without and with the act
    label = (random.random(n) < np.where(act == 1, treated, untreated)).astype(float)
    value = -10 * label - 1.0 * act
    log = pl.DataFrame({"_act_propensity": chance})
    made = policies_by_propensity(log, nr.Decide(holdout=hold, explore=explore), act, value)
    assert made["do nothing"].sum() / n == pytest.approx(-10 * 0.5, abs=0.06)
    assert made["always act"].sum() / n == pytest.approx(-10 * 0.15 - 1, abs=0.15)
    naive = value[act == 0].mean()
    assert abs(naive + 5) > 1
    assert "do nothing" not in policies_by_propensity(log, nr.Decide(), act, value)


def test_days_of_different_size_weigh_by_their_rows(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(rows=30), 1)
    story.release(told.World())
    for rows in (20, 400) * 6:
        story.tell(told.World(rows=rows, base=-1.3 if rows == 20 else 0.5), 1)
    business.account(story.home, story.system, story.now + timedelta(days=1))
    found = business.summary(story.home, story.system)["releases"][1]
    assert found["per_prediction"].value == pytest.approx(found["total"] / found["n"])
