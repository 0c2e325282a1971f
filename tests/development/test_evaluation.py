"""Evaluation against scikit-learn and by hand; the test part's openings; the choice of the simplest."""

from __future__ import annotations

import numpy as np
import parcels
import polars as pl
import pytest
from sklearn import metrics as sk

import noria as nr
from noria import model, records
from noria.core import DataFault
from noria.development import choose, evaluate, train
from noria.development.choice import by_blocks

CANDIDATES = [nr.Prior(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    system, frames = parcels.system(candidates=CANDIDATES), parcels.frames()
    with parcels.home(tmp_path_factory.mktemp("home")) as home:
        training = parcels.training_set(home, frames)
        made = {e.record.recipe: e for e in train(home, system, training, frames, tune=False)}
        yield home, system, frames, made


def test_metrics_are_the_librarys(world):
    home, system, frames, made = world
    for recipe in ("linear", "boosting"):
        seen = evaluate(home, system, made[recipe], frames, "test").record
        label = frames["test"]["_label"].to_numpy()
        score = model.load(home.artifacts.get(made[recipe].record.bundle)).predict(frames["test"])
        act = 3 * score - (1 - score) > -score  # worth more to act than not, by the declared value
        wanted = {
            "log_loss": sk.log_loss(label, score),
            "brier": sk.brier_score_loss(label, score),
            "auc": sk.roc_auc_score(label, score),
            "precision": sk.precision_score(label, act),
            "recall": sk.recall_score(label, act),
        }
        for name, value in wanted.items():
            assert seen.metrics[name].value == pytest.approx(value, rel=1e-9), name
            assert seen.metrics[name].low < value < seen.metrics[name].high
        worth = np.where(act & (label == 1), 3.0, np.where(act, -1.0, np.where(label == 1, -1.0, 0.0)))
        assert seen.value.value == pytest.approx(worth.mean())
        assert seen.n == len(label)
        assert seen.blocks == 14


def test_daily_means_make_up_the_whole(world):
    home, system, frames, made = world
    seen = evaluate(home, system, made["linear"], frames, "test").record
    n = np.array(seen.daily["n"])
    assert (np.array(seen.daily["log_loss"]) @ n) / n.sum() == pytest.approx(seen.metrics["log_loss"].value)
    assert (np.array(seen.daily["value"]) @ n) / n.sum() == pytest.approx(seen.value.value)
    assert len(n) == 14


def test_slices_have_a_floor_and_their_own_numbers(world):
    home, system, frames, made = world
    seen = evaluate(home, system, made["linear"], frames, "test").record
    score = model.load(home.artifacts.get(made["linear"].record.bundle)).predict(frames["test"])
    assert {(s.column, s.value) for s in seen.slices} == {("depot", d) for d in "ABC"}
    for part in seen.slices:
        mask = (frames["test"]["depot"] == part.value).to_numpy()
        assert part.n == mask.sum()
        label = frames["test"]["_label"].to_numpy()[mask]
        assert part.metrics["log_loss"].value == pytest.approx(sk.log_loss(label, score[mask]), rel=1e-9)
    few = frames | {"fresh": frames["fresh"].head(300)}
    assert evaluate(home, system, made["prior"], few, "fresh").record.slices == ()


def test_calibration_bins_cover_all_rows(world):
    home, system, frames, made = world
    bins = evaluate(home, system, made["boosting"], frames, "test").record.calibration
    assert sum(n for _, _, n in bins) == frames["test"].height
    assert [score for score, _, _ in bins] == sorted(score for score, _, _ in bins)


def test_each_candidate_opens_the_test_part_once_and_all_are_counted(world):
    home, system, frames, made = world
    for _ in range(2):
        for entry in made.values():
            evaluate(home, system, entry, frames, "test")
    opened = home.ledger.read(records.TestOpened)
    assert sorted(entry.record.count for entry in opened) == [1, 2, 3]
    assert len({entry.record.candidate for entry in opened}) == 3
    evaluate(home, system, made["linear"], frames, "fresh")
    assert home.ledger.count(records.TestOpened) == 3


def test_a_part_that_is_not_there_is_named(world):
    home, system, frames, made = world
    with pytest.raises(DataFault, match="no part 'other'"):
        evaluate(home, system, made["linear"], frames, "other")


def test_rows_without_a_label_do_not_count(world, tmp_path):
    _, system, frames, _ = world
    holes = frames["test"].with_columns(_label=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("_label"))
    with parcels.home(tmp_path) as home:
        made = train(home, system, parcels.training_set(home, frames), frames, tune=False)
        seen = evaluate(home, system, made[1], frames | {"test": holes}, "test").record
        assert seen.n == holes["_label"].count() < frames["test"].height


def test_the_simplest_is_chosen_unless_a_costlier_one_is_better_beyond_chance(world, tmp_path):
    home, system, frames, made = world
    seen = {recipe: evaluate(home, system, entry, frames, "validate").record for recipe, entry in made.items()}
    assert not by_blocks(system, seen["linear"], seen["boosting"]).above(0)  # the world is linear
    assert choose(home, system, list(made.values())).record.recipe == "linear"
    assert choose(home, system, [made["prior"]]) is None

    bent = {}
    for part, frame in frames.items():
        rng = np.random.default_rng(len(bent))
        odds = 4 * (np.abs(frame["load"].to_numpy()) > 0.7) - 2
        bent[part] = frame.with_columns(_label=pl.Series((rng.random(frame.height) < 1 / (1 + np.exp(-odds))).astype(float)))
    with parcels.home(tmp_path) as other:
        made = train(other, system, parcels.training_set(other, bent), bent, tune=False)
        assert choose(other, system, made) is None  # nothing was evaluated yet
        for entry in made:
            evaluate(other, system, entry, bent, "validate")
        assert choose(other, system, made).record.recipe == "boosting"
