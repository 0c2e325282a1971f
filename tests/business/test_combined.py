"""Decoupled objectives: other weights are another order from the very same models, in a batch and one by one, with nothing trained."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

import noria as nr
from noria import deployment, measure, model
from noria.cli.app import run
from noria.core import Refused, Window, digest_bytes
from noria.data.checkparts import check_rules
from noria.deployment.bundles import answer
from noria.development import blending, train
from noria.measure import Decision
from noria.model import archive
from noria.model.calibration import logit
from noria.records import CohortClosed, Released, RolloutMoved, Trained

sys.path.insert(0, str(Path(__file__).parents[1] / "development"))
import parcels

FEATURES = ("depot", "load", "noise")


def combined(weights: dict[str, float], **more: Any) -> nr.System:
    source = nr.Source("rated", None, key="parcel", time="at", owner="post")
    return parcels.system(
        objective={"metric": "auc"},
        outcomes={"quality": nr.Outcome(source, "stars", within="1d")},
        candidates=[nr.Prior(), nr.Linear(trials=2), nr.Boosting(trials=2, seeds=1)],
        **({"combine": nr.Combine(weights), "decide": nr.Decide("act when score > best")} | more),
    )


def frames() -> dict[str, pl.DataFrame]:
    """Quality goes with ``noise``, which the label has nothing to do with: two objectives that pull apart."""
    random = np.random.default_rng(0)
    return {
        name: frame.with_columns(quality=2 * pl.col("noise") + pl.Series(random.normal(0, 0.1, frame.height)))
        for name, frame in parcels.frames().items()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every candidate's archive, by recipe."""
    with parcels.home(tmp_path_factory.mktemp("combined")) as home:
        made = frames()
        training = parcels.training_set(home, made)
        entries = train(home, combined({"quality": 0.5}), training, made, tune=True)
        return {entry.record.recipe: home.artifacts.get(entry.record.bundle) for entry in entries}


@pytest.mark.parametrize("recipe", ["linear", "boosting"])
def test_the_score_is_the_labels_log_odds_and_the_weighted_outcome(trained: dict[str, bytes], recipe: str) -> None:
    bundle = model.load(trained[recipe])
    predictor = bundle.model.predictor
    assert isinstance(predictor, model.Blend)
    assert predictor.weights == {"quality": 0.5}
    rows = frames()["test"]
    matrix = bundle.model.encoder.encode(rows)
    alone = predictor.calibration.apply(predictor.main.predict(matrix))
    quality = predictor.parts["quality"].predict(matrix)
    assert np.corrcoef(quality, rows["quality"].to_numpy())[0, 1] > 0.9  # an outcome's model learned the outcome
    assert logit(bundle.predict(rows)) == pytest.approx(logit(alone) + 0.5 * quality, abs=1e-9)
    assert model.load(trained["prior"]).model.predictor != predictor


@pytest.mark.parametrize("recipe", ["linear", "boosting"])
def test_other_weights_are_another_order_from_the_same_models(trained: dict[str, bytes], recipe: str) -> None:
    bundle, rows = model.load(trained[recipe]), frames()["test"]
    predictor = bundle.model.predictor
    assert isinstance(predictor, model.Blend)
    scores, members = {}, {}
    for weight in (0.0, 0.5, 3.0):
        other = model.Model(bundle.model.encoder, predictor.weighed({"quality": weight}))
        packed = model.pack(bundle.spec, other, pl.DataFrame(bundle.golden.rows))
        scores[weight] = model.load(packed).predict(rows)
        members[weight] = {name: digest_bytes(each) for name, each in archive.read(packed).items()}
    names = [name for name in members[0.5] if name.startswith(("predictor", "part", "encoder"))]
    assert len(names) >= 3
    for name in names:
        assert members[0.0][name] == members[0.5][name] == members[3.0][name], name
    assert members[0.0]["weights.json"] != members[3.0]["weights.json"]
    assert np.argsort(scores[0.0]).tolist() != np.argsort(scores[3.0]).tolist()
    quality = rows["quality"].to_numpy()
    follows = [spearmanr(scores[weight], quality)[0] for weight in (0.0, 0.5, 3.0)]
    assert follows[0] < follows[1] < follows[2]
    assert follows[2] > 0.8


@pytest.mark.parametrize("recipe", ["linear", "boosting"])
def test_one_row_alone_has_the_bits_of_the_batch(trained: dict[str, bytes], recipe: str) -> None:
    from noria.model.single import single

    bundle, rows = model.load(trained[recipe]), frames()["test"].head(50)
    assert single(bundle, list(FEATURES)) is None  # the short way cannot carry it: the long way answers
    whole = bundle.predict(rows)
    for place in range(rows.height):
        row = rows[place]
        assert bundle.predict(row)[0] == whole[place]
        assert bundle.predict_rows({name: row[name].to_list() for name in FEATURES})[0] == whole[place]


def test_a_recipe_trained_twice_is_the_same(trained: dict[str, bytes], tmp_path: Path) -> None:
    with parcels.home(tmp_path) as home:
        made = frames()
        entries = train(home, combined({"quality": 0.5}), parcels.training_set(home, made), made, tune=True)
        assert {entry.record.recipe: home.artifacts.get(entry.record.bundle) for entry in entries} == trained
        assert home.ledger.count(Trained) == 3


def test_what_combines_nothing_has_no_weights(tmp_path: Path) -> None:
    with parcels.home(tmp_path) as home:
        made = frames()
        system = combined({"quality": 1.0}, combine=None)
        entries = train(home, system, parcels.training_set(home, made), made, tune=True)
        sha256 = next(entry.record.bundle for entry in entries if entry.record.recipe == "linear")
        with pytest.raises(Refused, match="combines nothing"):
            blending.weights_of(model.load(home.artifacts.get(sha256)))


def test_what_does_not_fit_is_said() -> None:
    wrong = combined({"beauty": 0.5, "quality": float("nan")}, decide=nr.Decide("act when expected value > 0"))
    places = {problem.place for problem in check_rules(wrong, None)}
    assert {"combine.weights.beauty", "combine.weights.quality", "combine"} <= places
    assert not [problem for problem in check_rules(combined({"quality": -1.0}), None) if problem.place.startswith("combine")]


# --------------------------------------------------------------------------------------------------- in a home, by command


def released(path: Path, *, value: str) -> tuple[nr.System, str]:
    """A home whose champion combines, with 26 days of closed predictions of its own; returns the declaration and the champion."""
    system = declared(value)
    with parcels.home(path) as home:
        made = frames()
        entries = train(home, system, parcels.training_set(home, made), made, tune=True)
        sha256 = next(entry.record.bundle for entry in entries if entry.record.recipe == "linear")
        bundle = model.load(home.artifacts.get(sha256))
        rows = pl.concat([made["test"], made["fresh"]])
        score = bundle.predict(rows)
        act = measure.act(home.engine, system, msgspec.convert(bundle.spec.decision, Decision), score, rows)
        asked = rows.drop("_label", "_last", "quality").with_columns(
            _unit=pl.col("_id"),
            _features=pl.lit("plan"),
            _score=pl.Series(score),
            _scores=pl.lit(None, pl.List(pl.Float64)),
            _act=pl.Series(act),
            _act_propensity=pl.lit(1.0),
            _variant=pl.lit("champion"),
            _variant_propensity=pl.lit(1.0),
            _release=pl.lit(sha256),
            _scored_at=pl.col("_time"),
        )
        known = rows.select(
            "_id",
            "_time",
            pl.col("_time").alias("_cohort"),
            pl.lit(0, pl.Int32).alias("_revision"),
            "_label",
            pl.lit(None, pl.String).alias("_class"),
            pl.col("_time").alias("_known"),
            "quality",
        )
        last = rows["_time"].max()
        window = Window(parcels.START, last)  # type: ignore[arg-type]  # a time
        closed = CohortClosed(
            window=window, revision=0, n=rows.height, labelled=rows.height, silent=0, mean=None, delay={}, rows="r"
        )
        written = [home.lake.write("predictions", asked, key="p"), home.lake.write("outcomes", known, key="o")]
        home.commit(closed, key="cohort/1", tables=written)
        home.commit(Released(number=1, bundle=sha256, previous=None, reason="by hand"), key="released/1")
    return system, sha256


def declared(value: str) -> nr.System:
    system = combined({"quality": 0.5}, parts=nr.Parts(least="7d", validate="12d", test="12d", fresh="5d"))
    return dataclasses.replace(system, objective=dataclasses.replace(system.objective, value=nr.Value(value, "EUR")))


def command(path: Path, value: str) -> list[str]:
    file = path / "system.py"
    file.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('combined_here', {Path(__file__).as_posix()!r})\n"
        "module = importlib.util.module_from_spec(spec)\nsys.modules['combined_here'] = module\nspec.loader.exec_module(module)\n"
        f"system = module.declared({value!r})\n"
    )
    return ["--file", str(file), "--home", str(path / "home"), "--json"]


LIKED = "case when act then quality else 0 end"
LATE = "case when act and label then 3 when act then -1 else 0 end"


def test_other_weights_go_into_a_rollout_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where quality is what pays, weighing it more is worth more on closed rows; the next batch is scored by the new order."""
    system, old = released(tmp_path / "home", value=LIKED)
    words = command(tmp_path, LIKED)
    assert run(["weights", *words]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == {"quality": 0.5}
    assert run(["weights", "quality=4", "--at", "2020-04-01", *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gated"]["record"]["verdict"] == "pass"
    assert run(["weights", "beauty=4", "--at", "2020-04-01", *words]) != 0
    assert "no model of 'beauty'" in capsys.readouterr().out
    assert run(["weights", "quality", "--at", "2020-04-01", *words]) != 0
    with parcels.home(tmp_path / "home", parcels.START + timedelta(days=100)) as home:
        ledger = home.ledger
        assert [entry.record.recipe for entry in ledger.read(Trained)] == ["prior", "linear", "boosting", "linear"]
        new = ledger.read(Trained)[-1].record.bundle
        assert ledger.read(RolloutMoved)[-1].record.stage == "shadow"
        members = [archive.read(home.artifacts.get(sha256)) for sha256 in (old, new)]
        assert {n: d for n, d in members[0].items() if n.startswith(("predictor", "part"))} == {
            n: d for n, d in members[1].items() if n.startswith(("predictor", "part"))
        }
        rows = frames()["fresh"]
        bundles = deployment.Bundles(home)
        batch = {sha256: answer(system, bundles, sha256, rows) for sha256 in (old, new)}
        assert np.argsort(batch[old].score).tolist() != np.argsort(batch[new].score).tolist()
        assert (batch[old].act != batch[new].act).any()
        alone = [answer(system, bundles, new, rows[place]).score[0] for place in range(20)]
        assert alone == batch[new].score[:20].tolist()


def test_weights_that_cost_money_do_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where only the label pays, much weight on quality spoils the order."""
    _, old = released(tmp_path / "home", value=LATE)
    words = command(tmp_path, LATE)
    assert run(["weights", "quality=8", "--at", "2020-04-01", *words]) == 0
    said = json.loads(capsys.readouterr().out)["gated"]["record"]
    assert said["verdict"] == "fail"
    assert said["checks"][0]["estimate"]["high"] < 0
    with parcels.home(tmp_path / "home", parcels.START + timedelta(days=100)) as home:
        assert not home.ledger.read(RolloutMoved)
        assert deployment.state(home).champion == old
        made = deployment.promote(home, declared(LATE), said["bundle"], by="ada")
        assert made.record.bundle == said["bundle"]
