"""Training: deterministic, resumable, blind to the test part's labels, fair in effort, for every kind of task and recipe."""

from __future__ import annotations

import numpy as np
import parcels
import polars as pl
import pytest
from scipy.special import logit
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria import measure, model
from noria.core import DataFault, Refused
from noria.development import choose, evaluate, gate, train
from noria.development.calibrate import fitted, repair
from noria.development.frames import rows_of
from noria.development.reference import reference
from noria.development.workers import run
from noria.records import Trained, Tuned
from noria.settings import Settings

FEATURES = ("depot", "load", "noise")


def trained_in(path, system, frames, *, tune=True, threads=2):
    with parcels.home(path, threads=threads) as home:
        training = parcels.training_set(home, frames)
        made = train(home, system, training, frames, tune=tune)
        return {entry.record.recipe: (entry, home.artifacts.get(entry.record.bundle)) for entry in made}


def test_two_homes_get_the_same_records_whatever_their_threads(tmp_path):
    system, frames = parcels.system(), parcels.frames()
    one = trained_in(tmp_path / "one", system, frames)
    two = trained_in(tmp_path / "two", system, frames, threads=1)
    assert list(one) == ["prior", "last", "linear", "boosting"]
    assert [entry for entry, _ in one.values()] == [entry for entry, _ in two.values()]


def test_a_training_that_was_stopped_goes_on_and_gives_the_same(tmp_path):
    system, frames = parcels.system(), parcels.frames()
    whole = trained_in(tmp_path / "whole", system, frames)

    class Stop(BaseException):
        pass

    with parcels.home(tmp_path / "cut") as home:
        training = parcels.training_set(home, frames)
        real, left = home.commit, [3]

        def commit(record, **more):
            if not left[0]:
                raise Stop
            left[0] -= 1
            return real(record, **more)

        home.commit = commit  # type: ignore[method-assign]
        with pytest.raises(Stop):
            train(home, system, training, frames, tune=True)
        home.commit = real  # type: ignore[method-assign]
        assert home.ledger.count(Tuned) + home.ledger.count(Trained) == 3
        made = train(home, system, training, frames, tune=True)
        assert [(e.id, e.record) for e in made] == [(e.id, e.record) for e, _ in whole.values()]
        before = home.ledger.count()
        assert train(home, system, training, frames, tune=True) == made
        assert home.ledger.count() == before


def test_labels_of_the_test_part_change_nothing_and_its_rows_no_fitted_number(tmp_path):
    system = parcels.system(candidates=[nr.Prior(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)])
    frames = parcels.frames()
    flipped = frames | {
        "test": frames["test"].with_columns(1 - pl.col("_label")),
        "fresh": frames["fresh"].with_columns(1 - pl.col("_label")),
    }
    moved = frames | {"test": frames["test"].with_columns(pl.col("load") * 100)}
    with parcels.home(tmp_path / "home") as home:
        training = parcels.training_set(home, frames)
        first = {e.record.recipe: home.artifacts.get(e.record.bundle) for e in train(home, system, training, frames, tune=False)}
    for place, other in enumerate((flipped, moved)):
        with parcels.home(tmp_path / f"other{place}") as home:
            training = parcels.training_set(home, frames)
            again = {
                e.record.recipe: home.artifacts.get(e.record.bundle) for e in train(home, system, training, other, tune=False)
            }
        if other is flipped:
            assert again == first
        for recipe, data in again.items():
            a, b = model.archive.read(data), model.archive.read(first[recipe])
            assert {name: a[name] for name in a if name != "spec.json"} == {name: b[name] for name in b if name != "spec.json"}


def test_effort_is_equal_and_settings_are_reused_until_the_next_search(tmp_path):
    system = parcels.system(candidates=[nr.Linear(trials=2), nr.Boosting(trials=3, seeds=2)])
    with parcels.home(tmp_path) as home:
        for number, tune in enumerate((False, False, True)):
            frames = parcels.frames(seed=number)
            made = train(home, system, parcels.training_set(home, frames), frames, tune=tune)
            searches = home.ledger.read(Tuned)
            assert len(searches) == (4 if tune else 2)
            newest = {entry.record.recipe: entry for entry in searches}
            for entry in made[1:]:
                assert entry.record.settings == newest[entry.record.recipe].record.best
                assert newest[entry.record.recipe].id in entry.parents
        assert made[0].record.recipe == "prior"  # added: a gate without a baseline could not be passed
        assert {entry.record.trials for entry in searches} == {3}
        assert all(entry.record.spread > 0 for entry in searches if entry.record.recipe == "boosting")


def test_the_last_label_becomes_a_probability(tmp_path):
    frames = parcels.frames()
    system = parcels.system(candidates=[nr.Last()])
    _, data = trained_in(tmp_path, system, frames)["last"]
    bundle = model.load(data)
    known = frames["train"]
    for last in (0.0, 1.0):
        same = known.filter(pl.col("_last") == last)["_label"]
        prior = (known["_label"].sum() + 0.5) / (known.height + 1)
        expected = (same.sum() + prior) / (len(same) + 1)
        assert bundle.predict(pl.DataFrame({"_last": [last]}))[0] == pytest.approx(expected, rel=1e-12)
    assert 0 < bundle.predict(pl.DataFrame({"_last": [None]}, schema={"_last": pl.Float64}))[0] < 1


def test_every_kind_of_recipe_is_trained(tmp_path):
    system = parcels.system(
        candidates=[
            nr.Rule("case when depot = 'B' then 0.6 else 0.25 end", title="depot B"),
            RandomForestClassifier(5, max_depth=4, n_jobs=1),
            nr.Linear(trials=1),
            nr.Linear(trials=1),
        ]
    )
    frames = parcels.frames()
    with parcels.home(tmp_path) as home:
        made = {e.record.recipe: e for e in train(home, system, parcels.training_set(home, frames), frames, tune=False)}
        assert list(made) == ["depot_b", "randomforestclassifier", "linear", "linear_2"]
        rule = model.load(home.artifacts.get(made["depot_b"].record.bundle))
        assert rule.spec.columns == ("depot",)
        assert set(rule.predict(frames["test"])) <= {0.6, 0.25} or rule.spec.calibration.kind != "none"


def test_a_training_part_with_one_label_gives_constants(tmp_path):
    frames = parcels.frames()
    frames["train"] = frames["train"].with_columns(_label=pl.lit(0.0))
    for recipe, (_, data) in trained_in(tmp_path, parcels.system(), frames).items():
        assert np.ptp(model.load(data).predict(frames["test"])) == 0 or recipe == "last"


def test_a_part_that_is_missing_or_without_labels_is_named(tmp_path):
    frames = parcels.frames()
    with parcels.home(tmp_path) as home:
        training = parcels.training_set(home, frames)
        with pytest.raises(DataFault, match="lacks validate"):
            train(home, parcels.system(), training, {"train": frames["train"]}, tune=False)
        empty = frames | {"train": frames["train"].with_columns(_label=pl.lit(None, pl.Float64))}
        with pytest.raises(DataFault, match="no row of the training part has a label"):
            train(home, parcels.system(), training, empty, tune=False)
        with pytest.raises(DataFault, match="no column '_last'"):
            train(home, parcels.system(), training, frames | {"train": frames["train"].drop("_last")}, tune=False)


def test_an_estimator_without_probabilities_or_with_foreign_types_is_refused(tmp_path):
    from sklearn.svm import LinearSVC

    class Odd(RandomForestClassifier):
        pass

    frames = parcels.frames()
    with parcels.home(tmp_path) as home:
        training = parcels.training_set(home, frames)
        with pytest.raises(DataFault, match="LinearSVC gives no probabilities"):
            train(home, parcels.system(candidates=[LinearSVC()]), training, frames, tune=False)
        with pytest.raises(Refused, match=r"not allowed.*Odd"):
            train(home, parcels.system(candidates=[Odd(2)]), training, frames, tune=False)


# ------------------------------------------------------------------------------------------------- other tasks, end to end


def test_several_classes_from_training_to_the_gate(tmp_path):
    rng = np.random.default_rng(5)
    frames = {}
    for part, frame in parcels.frames().items():
        load = frame["load"].to_numpy() + rng.normal(0, 0.5, frame.height)
        kind = np.where(load > 0.6, "late", np.where(load < -0.6, "early", "on time"))
        frames[part] = frame.drop("_label", "_last").with_columns(_class=pl.Series(kind), _last=pl.Series(np.roll(kind, 1)))
    system = parcels.system(
        label=nr.Label(nr.Source("arrived", None, key="parcel", time="at"), "kind", within="1d", otherwise="on time"),
        decide=nr.Decide("largest expected value", acts=("early", "late", "on time")),
        objective={"value": nr.Value("case when act = label then 1 else 0 end"), "metric": "log_loss"},
        candidates=[nr.Prior(), nr.Last(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)],
    )
    with parcels.home(tmp_path) as home:
        made = train(home, system, parcels.training_set(home, frames), frames, tune=False)
        seen = {e.record.recipe: evaluate(home, system, e, frames, "validate").record for e in made}
        assert seen["linear"].metrics["accuracy"].value > 0.7 > seen["prior"].metrics["accuracy"].value
        assert seen["linear"].value.value == pytest.approx(seen["linear"].metrics["accuracy"].value)
        score = model.load(home.artifacts.get(made[3].record.bundle)).predict(frames["test"])
        assert score.shape == (frames["test"].height, 3)
        assert np.allclose(score.sum(axis=1), 1)
        assert gate(home, system, choose(home, system, made), frames, None).record.verdict is nr.Verdict.PASS


@pytest.mark.parametrize("metric", ["mae", "rmse", "pinball"])
def test_numbers_from_training_to_the_gate(tmp_path, metric):
    rng = np.random.default_rng(6)
    frames = {
        part: frame.drop("_last").with_columns(_label=10 + 5 * pl.col("load") + pl.Series(rng.normal(size=frame.height)))
        for part, frame in parcels.frames().items()
    }
    quantile = "quantile 0.8" if metric == "pinball" else "score"
    system = parcels.system(
        label=nr.Label(nr.Source("sold", None, key="parcel", time="at"), "amount", within="1d", otherwise=0),
        decide=nr.Decide(quantile),
        objective={"value": nr.Value("-abs(act - label)"), "metric": metric},
        candidates=[nr.Prior(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)],
    )
    with parcels.home(tmp_path) as home:
        made = train(home, system, parcels.training_set(home, frames), frames, tune=False)
        for entry in made:
            evaluate(home, system, entry, frames, "validate")
        chosen = choose(home, system, made)
        gated = gate(home, system, chosen, frames, None).record
        assert gated.verdict is nr.Verdict.PASS, gated.checks


# ---------------------------------------------------------------------------------------------- calibration and reference


def test_repairs_agree_with_the_library():
    rng = np.random.default_rng(1)
    truth = rng.random(3000)
    label = (rng.random(3000) < truth).astype(float)
    score = 1 / (1 + np.exp(-(0.4 * logit(truth) + 0.8)))
    platt = fitted("platt", label, score)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(score)[:, None], label)
    assert (platt.slope, platt.offset) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), rel=1e-4)
    few = np.round(score, 2)
    isotonic = fitted("isotonic", label, few)
    wanted = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip").fit(few, label)
    assert np.allclose(isotonic.apply(few), wanted.predict(few), atol=1e-9)


def test_a_repair_is_kept_only_when_it_helps():
    system = parcels.system()
    frame = parcels.rows(20, 0, per_day=200)
    rows = rows_of(system, {"validate": frame}, "validate")
    truth = 1 / (1 + np.exp(-(1.5 * frame["load"].to_numpy() + 1.5 * (frame["depot"] == "B").to_numpy() - 1.2)))
    assert repair(system, rows, truth).kind == "none"
    bold = 1 / (1 + np.exp(-(3 * logit(truth) - 1)))
    mended = repair(system, rows, bold)
    assert mended.kind == "platt"
    assert (mended.slope, mended.offset) == pytest.approx((1 / 3, 1 / 3), abs=0.12)  # days have levels of their own
    chances = np.column_stack([1 - bold, bold])
    assert repair(parcels.system(), rows, chances).kind == "temperature"


def test_the_reference_in_one_scan_is_what_window_by_window_gives():
    frames = parcels.frames()
    frames["train"] = frames["train"].with_columns(load=pl.when(pl.col("noise") > 1).then(None).otherwise("load"))
    made = reference(parcels.system(), frames, FEATURES)
    profile = measure.profile(frames["train"], FEATURES)
    rows = pl.concat([frames[p].select("_time", *FEATURES) for p in ("train", "validate", "test", "fresh")])
    day = pl.Series("day", measure.blocks_of(rows["_time"], "1d"))
    far = [measure.distance(profile, measure.against(profile, one)) for one in rows.with_columns(day).partition_by("day")]
    assert made["windows"]["n"] == len(far) == 80
    for name in FEATURES:
        assert made["windows"]["columns"][name] == pytest.approx(sorted(d[name]["js"] for d in far), abs=1e-9)
    assert made["windows"]["largest"] == pytest.approx(sorted(max(d[n]["js"] for n in FEATURES) for d in far), abs=1e-9)


def test_jobs_come_back_in_order_and_errors_are_raised():
    assert run([lambda k=k: k for k in range(5)], 2) == list(range(5))
    with pytest.raises(ZeroDivisionError):
        run([lambda: 1 // 0], 2)
    assert Settings().threads == 2


def test_an_estimator_of_any_kind_is_fitted_with_the_weights(tmp_path):
    """Rows that were left untreated by chance stand for those that were treated."""
    candidates = [nr.Prior(), LogisticRegression(C=1e-6)]
    frames = parcels.frames()
    weight = pl.when(pl.col("_label") == 1).then(9.0).otherwise(1.0).alias("_weight")
    frames = {part: frame.with_columns(weight) for part, frame in frames.items()}
    made = trained_in(tmp_path, parcels.system(candidates=candidates), frames)
    label = frames["train"]["_label"].to_numpy()
    rate = np.average(label, weights=frames["train"]["_weight"].to_numpy())
    raw = model.load(made["logisticregression"][1]).model
    assert logit(rate) == pytest.approx(logit(np.median(raw.predictor.predict(raw.encoder.encode(frames["test"])))), abs=0.1)


def test_a_repair_has_to_beat_the_one_in_force():
    """Against a calibration that is right nothing helps, and it stays; against one that is off, the new one is near the truth."""
    system, frames = parcels.system(), {"validate": parcels.rows(30, 0, seed=4)}
    rows = rows_of(system, frames, "validate")
    raw = np.clip(rows.frame["load"].to_numpy() * 0.1 + 0.5, 0.05, 0.95)
    right = fitted("platt", rows.label, raw)
    assert repair(system, rows, raw, right) == right
    off = model.Calibration("platt", slope=right.slope, offset=right.offset + 1.5)
    mended = repair(system, rows, raw, off)
    assert mended.kind == "platt"
    assert mended.offset == pytest.approx(right.offset, abs=1e-6)
