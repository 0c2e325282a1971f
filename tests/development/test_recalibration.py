"""The champion calibrated anew: the same model inside, better where only the level moved, refused where it is not."""

from __future__ import annotations

from datetime import timedelta

import parcels
import polars as pl
import pytest

import noria as nr
from noria.core import Verdict, Window, digest
from noria.development import recalibrate, train
from noria.model import load
from noria.records import Gated, Part, TrainingSet

KEY = "gated/recalibrate/now"
LATER = {"train": (0, 60), "validate": (61, 14), "test": (76, 14), "fresh": (91, 1)}


def later(home, columns=("depot", "load", "noise"), **world):
    """What ``data.recalibration_set`` gives: the old time to train on, the new world in two halves, and one window more."""
    made, parts = {}, []
    for name, (first, days) in LATER.items():
        made[name] = parcels.rows(days, first, **({} if name == "train" else world))
        window = Window(parcels.START + timedelta(days=first), parcels.START + timedelta(days=first + days))
        parts.append(Part(name, window, made[name].height, digest(made[name].write_csv())))
    record = TrainingSet(features="plan", columns=columns, parts=tuple(parts), gap="1d", dropped={})
    return home.commit(record, key=f"training/{digest([p.rows for p in parts])[:12]}"), made


@pytest.fixture
def begun(tmp_path):
    """A home with a champion of the old world."""
    system = parcels.system(candidates=[nr.Prior(), nr.Linear(trials=1)])
    with parcels.home(tmp_path / "home", parcels.START + timedelta(days=93)) as home:
        frames = parcels.frames()
        made = train(home, system, parcels.training_set(home, frames), frames, tune=True)
        yield home, system, next(e.record for e in made if e.record.recipe == "linear")


def test_a_level_that_moved_is_mended(begun):
    home, system, champion = begun
    training, frames = later(home, level=0.8)
    gated = recalibrate(home, system, training, frames, champion.bundle, key=KEY)
    assert gated.record.verdict is Verdict.PASS
    checks = {(c.name, c.subject): c for c in gated.record.checks}
    assert checks["superior to champion", "champion"].estimate.above(0.0)
    old, new = (load(home.artifacts.get(sha)) for sha in (champion.bundle, gated.record.bundle))
    assert new.model.predictor == old.model.predictor
    assert new.model.encoder == old.model.encoder
    assert new.spec.settings == old.spec.settings | {"recalibrated": champion.bundle}
    assert new.spec.reference["profile"] == old.spec.reference["profile"]
    for part, bound in (("validate", 1e-6), ("test", 0.1)):
        rows = frames[part]
        apart = [float((rows["_label"] - pl.Series(bundle.predict(rows))).mean()) for bundle in (old, new)]
        assert apart[0] > 0.2
        assert abs(apart[1]) < bound
    count = home.ledger.count()
    assert recalibrate(home, system, training, frames, champion.bundle, key=KEY) == gated
    assert home.ledger.count() == count


def test_a_calibration_that_was_right_gains_nothing(begun):
    home, system, champion = begun
    training, frames = later(home)
    gated = recalibrate(home, system, training, frames, champion.bundle, key=KEY)
    assert gated.record.verdict is not Verdict.PASS
    assert next(c for c in gated.record.checks if c.name == "superior to champion").verdict is not Verdict.PASS


def test_calibrating_twice_starts_from_the_model_not_from_the_repair(begun):
    home, system, champion = begun
    first = recalibrate(home, system, *later(home, level=0.8), champion.bundle, key=KEY)
    second = recalibrate(home, system, *later(home, level=-2.5), first.record.bundle, key=f"{KEY}/2")
    inner, outer = (load(home.artifacts.get(g.record.bundle)) for g in (first, second))
    assert inner.spec.calibration.kind == outer.spec.calibration.kind == "platt"
    assert outer.model.predictor == inner.model.predictor
    assert outer.spec.calibration.offset < 0 < inner.spec.calibration.offset


def test_a_champion_that_cannot_answer_is_not_calibrated(begun):
    home, system, champion = begun
    training, frames = later(home, columns=("depot", "load"), level=0.8)
    lacking = {name: frame.drop("noise") for name, frame in frames.items()}
    gated = recalibrate(home, system, training, lacking, champion.bundle, key=KEY)
    assert isinstance(gated.record, Gated)
    assert gated.record.verdict is Verdict.NOT_ENOUGH_DATA
    assert "noise" in gated.record.checks[0].detail
