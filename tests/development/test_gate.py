"""The gate: what it lets through, and each thing that it must not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import parcels
import polars as pl
import pytest

import noria as nr
from noria.core import Check, SystemClock, Verdict
from noria.development import evaluate, gate, train
from noria.records import Entry, Gated, Trained
from noria.settings import Settings
from noria.store import Home
from noria.system import AtLeast, AtMost

CANDIDATES = [nr.Prior(), nr.Last(), nr.Linear(trials=1)]
CHEAP = [nr.Prior(), nr.Linear(trials=1)]


def gated(path: Path, frames: dict[str, pl.DataFrame], recipe: str = "linear", **how: Any) -> Gated:
    """The verdict on one candidate in a home of its own."""
    columns = how.pop("columns", ("depot", "load", "noise"))
    now = how.pop("now", parcels.START + timedelta(days=85))
    system = parcels.system(**{"candidates": CHEAP} | how)
    with parcels.home(path, now) as home:
        training = parcels.training_set(home, frames, columns)
        made = {entry.record.recipe: entry for entry in train(home, system, training, frames, tune=False)}
        return gate(home, system, made[recipe], frames, None).record


def of(record: Gated, name: str) -> list[Check]:
    return [check for check in record.checks if check.name == name]


def failed(record: Gated) -> set[str]:
    return {check.name for check in record.checks if check.verdict is Verdict.FAIL}


def test_a_model_with_signal_passes_every_check(tmp_path):
    record = gated(tmp_path, parcels.frames(), candidates=CANDIDATES)
    assert record.verdict is Verdict.PASS, record.checks
    assert {check.subject for check in of(record, "superior to baseline")} == {"prior", "last"}
    assert {check.subject for check in of(record, "backtest on the freshest data")} == {"prior", "last"}
    assert {check.subject for check in of(record, "not worth less than")} == {"do nothing", "always act"}
    (clean,) = of(record, "loads in a clean process")
    assert clean.verdict is Verdict.PASS
    assert "64 golden rows" in clean.detail
    (opened,) = of(record, "test part opened")
    assert opened.estimate.value == 3


def test_a_model_of_nothing_fails_by_interval(tmp_path):
    frames = parcels.frames()
    rng = np.random.default_rng(3)
    noise = {
        part: frame.with_columns(_label=pl.Series((rng.random(frame.height) < 0.4).astype(float)))
        for part, frame in frames.items()
    }
    record = gated(tmp_path, noise, candidates=CANDIDATES)
    assert record.verdict is Verdict.FAIL
    assert "superior to baseline" in failed(record)
    assert of(record, "loads in a clean process")[0].verdict is Verdict.NOT_MEASURED


def test_always_no_at_a_rare_base_rate_is_named_and_more_positives_are_asked_for(tmp_path):
    rng = np.random.default_rng(4)
    frames = {}
    for part, frame in parcels.frames(per_day=400).items():
        label = (rng.random(frame.height) < 0.001).astype(float)
        label[0] = 1.0
        frames[part] = frame.with_columns(_label=pl.Series(label))
    record = gated(tmp_path, frames)
    assert record.verdict is Verdict.FAIL
    (check,) = of(record, "not a constant predictor")
    assert check.verdict is Verdict.FAIL
    assert "constant predictor: it always says no" in check.detail
    assert "accuracy 0.99" in check.detail
    assert "recall 0" in check.detail
    assert "Collect more positives" in check.detail


@pytest.mark.parametrize("leak", ["copy", "missing", "late number"])
def test_a_column_that_knows_the_label_is_named(tmp_path, leak):
    frames = {}
    for part, frame in parcels.frames().items():
        late = pl.col("_label") == 1
        known = {
            "copy": pl.when(late).then(pl.lit("y")).otherwise(pl.lit("n")),
            # present for all that came on time, missing for some of the late ones
            "missing": pl.when(late & (pl.col("noise") > 0.3)).then(None).otherwise(pl.col("load") * 2),
            "late number": pl.col("_label") * 10 + pl.col("noise") / 5,
        }[leak]
        frames[part] = frame.with_columns(arrival=known)
    record = gated(tmp_path, frames, columns=("depot", "load", "arrival", "noise"))
    assert record.verdict is Verdict.FAIL
    assert [check.subject for check in of(record, "no leak")] == ["arrival"]


def test_too_few_blocks_are_not_enough_data_and_never_a_pass(tmp_path):
    frames = parcels.frames()
    frames["test"] = frames["test"].head(60 * 6)
    record = gated(tmp_path, frames)
    assert record.verdict is Verdict.NOT_ENOUGH_DATA
    assert of(record, "superior to baseline")[0].verdict is Verdict.NOT_ENOUGH_DATA


def test_the_backtest_on_fresh_data_fails_while_the_static_test_passes(tmp_path):
    frames = parcels.frames()
    frames["fresh"] = frames["fresh"].with_columns(load=-pl.col("load"))  # since yesterday it is the other way round
    record = gated(tmp_path, frames)
    assert failed(record) == {"backtest on the freshest data"}
    assert of(record, "superior to baseline")[0].verdict is Verdict.PASS


def test_fresh_data_of_a_few_days_is_not_measured(tmp_path):
    frames = parcels.frames()
    frames["fresh"] = frames["fresh"].head(60 * 5)
    record = gated(tmp_path, frames)
    (check,) = of(record, "backtest on the freshest data")
    assert check.verdict is Verdict.NOT_MEASURED
    assert record.verdict is Verdict.PASS


def test_evidence_from_long_ago_is_refused(tmp_path):
    record = gated(tmp_path, parcels.frames(), now=parcels.START + timedelta(days=145))
    assert failed(record) == {"evaluated on fresh data"}
    assert "62.0 days ago" in of(record, "evaluated on fresh data")[0].detail


def test_a_good_average_with_a_bad_slice_fails(tmp_path):
    frames = parcels.frames(per_day=150)
    turned = pl.when(pl.col("depot") == "C").then(-pl.col("load") / 2).otherwise(pl.col("load"))
    frames["test"] = frames["test"].with_columns(load=turned)
    frames["fresh"] = frames["fresh"].with_columns(load=turned)
    record = gated(tmp_path, frames)
    assert of(record, "superior to baseline")[0].verdict is Verdict.PASS
    assert [check.subject for check in of(record, "slice not worse")] == ["depot = C"]
    assert "slice not worse" in failed(record)


def test_guardrails_stop_what_is_shown_to_break_them(tmp_path):
    rails = [
        AtLeast("precision", 0.3),
        AtLeast("auc", 0.95),
        AtMost("bundle_mb", 1),
        AtMost("bundle_mb", 1e-6),
        AtMost("latency_p99_ms", 20),
    ]
    record = gated(tmp_path, parcels.frames(), objective={"guardrails": rails})
    verdicts = {(check.subject, check.bound): check.verdict for check in of(record, "guardrail")}
    assert verdicts == {
        ("precision", 0.3): Verdict.PASS,
        ("auc", 0.95): Verdict.FAIL,
        ("bundle_mb", 1): Verdict.PASS,
        ("bundle_mb", 1e-6): Verdict.FAIL,
        ("latency_p99_ms", 20): Verdict.NOT_MEASURED,
    }


def test_latency_is_measured_on_a_real_clock(tmp_path):
    frames = parcels.frames()
    system = parcels.system(
        candidates=CHEAP, objective={"guardrails": [AtMost("latency_p99_ms", 60_000), AtMost("latency_p99_ms", 1e-6)]}
    )
    with Home.open(tmp_path, Settings(durable=False), SystemClock()) as home, home.hold("test"):
        made = train(home, system, parcels.training_set(home, frames), frames, tune=False)
        checks = of(gate(home, system, made[1], frames, None).record, "guardrail")
    assert [check.verdict for check in checks] == [Verdict.PASS, Verdict.FAIL]
    assert checks[0].estimate.n == 300


def test_what_reads_a_column_that_is_not_served_is_refused(tmp_path):
    record = gated(tmp_path, parcels.frames(), "last", candidates=CANDIDATES)
    assert "columns are served" in failed(record)
    assert "_last" in of(record, "columns are served")[0].detail


def test_value_is_left_to_the_rollout_where_acting_changes_the_label(tmp_path):
    source = nr.Source("arrived", None, key="parcel", time="at")
    record = gated(tmp_path, parcels.frames(), label=nr.Label(source, "late", within="1d", affected_by_action=True))
    assert [check.verdict for check in of(record, "not worth less than")] == [Verdict.NOT_MEASURED]


def test_decisions_that_lose_money_fail_whatever_the_metric(tmp_path):
    # the model is good and acting on it is not: it always pays to do nothing
    value = nr.Value("case when act then -1 else 0 end", "EUR")
    record = gated(tmp_path, parcels.frames(), objective={"value": value}, decide=nr.Decide("act when score > 0.4"))
    assert "not worth less than" in failed(record)
    assert of(record, "superior to baseline")[0].verdict is Verdict.PASS


def test_badly_calibrated_scores_fail(tmp_path):
    frames = parcels.frames()
    rare = {
        part: frame if part in ("train", "validate") else parcels.rows(14, 60 + 14 * place, level=-4.5)
        for place, (part, frame) in enumerate(frames.items())
    }
    record = gated(tmp_path, rare)
    assert "calibration" in failed(record)


# ------------------------------------------------------------------------------------------------- against the champion


@pytest.fixture(scope="module")
def league(tmp_path_factory):
    """Three candidates of one training set, and three that could not see what the load does."""
    frames = parcels.frames(per_day=100)
    recipes = [nr.Prior(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)]
    system = parcels.system(candidates=recipes)
    with parcels.home(tmp_path_factory.mktemp("home")) as home:
        made: dict[str, Entry[Trained]] = {}
        for name, train_rows in (("", frames["train"]), ("weak ", frames["train"].with_columns(pl.col("load").shuffle(seed=1)))):
            some = frames | {"train": train_rows}
            training = parcels.training_set(home, some)
            made |= {name + e.record.recipe: e for e in train(home, system, training, some, tune=False)}
        yield home, system, frames, made


def against(league: Any, challenger: str, champion: str) -> Gated:
    home, system, frames, made = league
    key = f"gated/{challenger}/{champion}"
    return gate(home, system, made[challenger], frames, made[champion].record.bundle, key=key).record


def test_the_same_again_is_not_inferior(league):
    record = against(league, "linear", "linear")
    assert record.verdict is Verdict.PASS, record.checks
    (check,) = of(record, "not inferior to champion")
    assert check.estimate.value == 0
    assert check.bound < 0


def test_a_costlier_recipe_has_to_be_better(league):
    record = against(league, "boosting", "linear")
    (check,) = of(record, "superior to champion")
    assert check.verdict is Verdict.FAIL
    better = against(league, "boosting", "weak linear")
    assert better.verdict is Verdict.PASS, better.checks


def test_a_cheaper_recipe_need_not_be_better(league):
    record = against(league, "linear", "boosting")
    assert record.verdict is Verdict.PASS, record.checks


def test_a_worse_refit_is_refused(league):
    record = against(league, "weak linear", "linear")
    assert of(record, "not inferior to champion")[0].verdict is Verdict.FAIL
    assert record.against == league[3]["linear"].record.bundle


def test_a_gate_is_one_effect(league):
    home, system, frames, made = league
    first = against(league, "linear", "linear")
    before = home.ledger.count()
    assert against(league, "linear", "linear") == first
    evaluate(home, system, made["linear"], frames, "fresh")
    assert home.ledger.count() == before
    entry = home.ledger.find("gated/linear/linear")
    assert made["linear"].id in entry.parents
