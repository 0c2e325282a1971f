"""Decoupled objectives: other weights are another order from the very same models, in a batch and one by one, with nothing trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

import noria as nr
from noria import model
from noria.core import Refused, digest_bytes
from noria.data.checkparts import check_rules
from noria.development import blending, train
from noria.model import archive
from noria.model.calibration import logit
from noria.records import Trained

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
