"""Bundles: the same scores as the library that trained, equal bytes for equal content, and nothing unsafe is loaded."""

from __future__ import annotations

import io
import pickle
import zipfile
from datetime import date

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor

from noria.core import Corrupt, DataFault, Refused, canonical, digest_bytes
from noria.model import (
    Bundle,
    Calibration,
    Constant,
    Encoder,
    Model,
    Passthrough,
    Rule,
    Spec,
    Trees,
    archive,
    check_parity,
    fit_design,
    fit_encoder,
    linear_from,
    load,
    masked,
    pack,
    trees_from,
)
from noria.model.foreign import Foreign, foreign_from
from noria.model.verify import verify, verify_apart

FEATURES = ["x", "c", "z", "d"]


def history(n: int = 2000, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "x": rng.normal(size=n),
            "c": rng.choice(["a", "b", "c", "rare1", "rare2"], n, p=[0.5, 0.3, 0.19, 0.005, 0.005]),
            "z": rng.integers(0, 5, n),
            "d": rng.choice(["u", "v"], n),
        }
    )
    score = frame.get_column("x").to_numpy() + (frame.get_column("c") == "b").to_numpy() * 1.5 + rng.normal(size=n)
    holes = pl.Series(rng.random(n) < 0.1)
    frame = frame.with_columns(x=pl.when(~holes).then("x"), c=pl.when(~pl.Series(rng.random(n) < 0.05)).then("c"))
    return frame, score


def strange_rows() -> pl.DataFrame:
    """Rows that training never had: unseen categories, missing values everywhere, extreme numbers."""
    return pl.DataFrame(
        {
            "x": [None, 1e12, -1e12, 0.0],
            "c": ["never", None, "a", "rare1"],
            "z": [None, 99, -99, 2],
            "d": [None, "never", "u", "v"],
        },
        schema={"x": pl.Float64, "c": pl.String, "z": pl.Int64, "d": pl.String},
    )


def spec(task: str = "binary", **more: object) -> Spec:
    return Spec(system="test", candidate="a/b", recipe="b", task=task, **more)  # type: ignore[arg-type]


def fitted(label: np.ndarray, frame: pl.DataFrame, kind: str) -> tuple[Encoder, object, np.ndarray]:
    encoder = fit_encoder(frame, FEATURES)
    matrix = masked(encoder, encoder.encode(frame))
    texts = list(encoder.texts)
    if kind == "number":
        model = HistGradientBoostingRegressor(
            categorical_features=texts, max_iter=20, loss="quantile", quantile=0.8, random_state=1
        )
    else:
        model = HistGradientBoostingClassifier(categorical_features=texts, max_iter=20, random_state=1)
    return encoder, model.fit(matrix, label), matrix


@pytest.mark.parametrize(("task", "link"), [("binary", "logit"), ("multiclass", "softmax"), ("regression", "identity")])
def test_trees_say_what_the_library_says(task, link):
    frame, score = history()
    label = {"binary": score > 0, "multiclass": np.digitize(score, [-0.5, 1]), "regression": score}[task]
    encoder, model, _ = fitted(label, frame, "number" if task == "regression" else "class")
    bundle = load(pack(spec(task), Model(encoder, trees_from(model, link)), frame))
    for rows in (history(500, 1)[0], strange_rows()):
        matrix = encoder.encode(rows)
        expected = model.predict(matrix) if task == "regression" else model.predict_proba(matrix)
        expected = expected[:, 1] if task == "binary" else expected
        assert np.abs(bundle.predict(rows) - expected).max() < 1e-12
        alone = np.concatenate([bundle.predict_rows({n: [row[n]] for n in FEATURES}) for row in rows.head(50).to_dicts()])
        assert np.array_equal(alone, bundle.predict(rows)[:50])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_linear_arrays_say_what_the_library_says(task):
    frame, score = history()
    encoder = fit_encoder(frame, FEATURES)
    matrix = masked(encoder, encoder.encode(frame))
    design = fit_design(encoder, matrix)
    label = {"binary": score > 0, "multiclass": np.digitize(score, [-0.5, 1]), "regression": score}[task]
    model = (Ridge() if task == "regression" else LogisticRegression()).fit(design.sparse(matrix), label)
    link = {"binary": "logit", "multiclass": "softmax", "regression": "identity"}[task]
    linear = linear_from(design, link, np.atleast_2d(model.coef_), model.intercept_)
    bundle = load(pack(spec(task), Model(encoder, linear), frame))
    for rows in (history(500, 1)[0], strange_rows()):
        wide = design.dense(encoder.encode(rows))
        expected = model.predict(wide) if task == "regression" else model.predict_proba(wide)
        expected = expected[:, 1] if task == "binary" else expected
        assert np.abs(bundle.predict(rows) - expected).max() < 1e-12
        alone = np.concatenate([bundle.predict_rows({n: [row[n]] for n in FEATURES}) for row in rows.head(50).to_dicts()])
        assert np.array_equal(alone, bundle.predict(rows)[:50])


@pytest.mark.parametrize(
    ("estimator", "probe"), [(RandomForestClassifier(5, random_state=0), True), (KNeighborsClassifier(), False)]
)
def test_other_estimators_travel_without_pickle(estimator, probe):
    frame, score = history(400)
    encoder = fit_encoder(frame, FEATURES)
    matrix = encoder.encode(frame)
    design = fit_design(encoder, matrix)
    estimator.fit(design.dense(matrix), score > 0)
    packed = foreign_from(estimator, design, "logit")
    rows = history(100, 1)[0]
    again = Model(encoder, Foreign(packed.data, design, "logit", probe=False))
    made = load(pack(spec(), again, frame)) if probe else again  # loading a bundle probes it in a process of its own: seconds
    assert np.allclose(made.predict(rows), estimator.predict_proba(design.dense(encoder.encode(rows)))[:, 1], atol=1e-12)


def test_the_same_estimator_fitted_again_gives_the_same_bytes():
    frame, score = history(300)
    encoder = fit_encoder(frame, FEATURES)
    design = fit_design(encoder, encoder.encode(frame))
    wide = design.dense(encoder.encode(frame))

    def packed() -> bytes:
        made = RandomForestClassifier(3, random_state=0).fit(wide, score > 0)
        return pack(spec(), Model(encoder, foreign_from(made, design, "logit")), frame)

    def boosted() -> bytes:
        encoder, model, _ = fitted(score > 0, frame, "class")
        return pack(spec(), Model(encoder, trees_from(model, "logit")), frame)

    assert packed() == packed()
    assert boosted() == boosted()


def test_a_type_that_is_not_on_our_list_is_refused():
    class Mine(MLPRegressor):
        pass

    frame, score = history(100)
    encoder = fit_encoder(frame, FEATURES)
    design = fit_design(encoder, encoder.encode(frame))
    mine = Mine((2,), max_iter=2, solver="lbfgs").__class__  # a class of this file
    estimator = RandomForestClassifier(1).fit(design.dense(encoder.encode(frame)), score > 0)
    estimator.extra = mine
    with pytest.raises(Refused, match=r"not allowed.*Mine"):
        foreign_from(estimator, design, "logit")


def baselines() -> list[tuple[Model, list[float]]]:
    frame = pl.DataFrame({"_last": [1.0, 0.0, None], "x": [1.0, 2.0, None], "c": ["a", "b", None]})
    last = fit_encoder(frame, ["_last"])
    both = fit_encoder(frame, ["x", "c"], least=1)
    return [
        (Model(Encoder(()), Constant((0.25,))), [0.25, 0.25, 0.25]),
        (Model(last, Passthrough(0.3, table=((0.3,), (0.1,), (0.9,)))), [0.9, 0.1, 0.3]),
        (Model(last, Passthrough(0.3)), [1.0, 0.0, 0.3]),
        (Model(both, Rule("case when c = 'a' then 5 else x / 10 end", 0.5, 0.0, 1.0)), [1.0, 0.2, 0.5]),
    ]


@pytest.mark.parametrize("place", range(4))
def test_baselines_are_bundles_too(place):
    frame = pl.DataFrame({"_last": [1.0, 0.0, None], "x": [1.0, 2.0, None], "c": ["a", "b", None]})
    model, expected = baselines()[place]
    bundle = load(pack(spec(), model, frame))
    assert bundle.predict(frame).tolist() == expected
    assert bundle.spec.columns == model.encoder.names


def test_times_as_features_are_numbers_in_golden_rows_too():
    frame = pl.DataFrame({"day": [date(2013, 1, 1), None]}).with_columns(moment=pl.col("day").cast(pl.Datetime("ms")))
    encoder = fit_encoder(frame, ["day", "moment"])
    bundle = load(pack(spec("regression"), Model(encoder, Rule("(moment - day) + day / 1e6", -1.0)), frame))
    assert bundle.predict(frame).tolist() == [1356998400.0, -1.0]
    assert bundle.golden.rows == {"day": [1356998400e6, None], "moment": [1356998400e6, None]}


def test_a_rule_reaches_no_file():
    frame = pl.DataFrame({"x": [1.0]})
    with pytest.raises(Refused, match="cannot be evaluated"):
        Rule("(select count(*) from read_text('/etc/passwd'))", 0.0).of_frame(frame, fit_encoder(frame, ["x"]))


def test_calibrations_are_applied_and_kept():
    frame, score = history(300)
    encoder, model, _ = fitted(score > 0, frame, "class")
    raw = Model(encoder, trees_from(model, "logit")).predict(frame)
    for calibration, expected in [
        (Calibration("platt", 2.0, 0.5), 1 / (1 + np.exp(-(2 * np.log(raw / (1 - raw)) + 0.5)))),
        (Calibration("isotonic", x=(0.0, 0.5, 1.0), y=(0.1, 0.2, 0.9)), np.interp(raw, [0, 0.5, 1], [0.1, 0.2, 0.9])),
    ]:
        bundle = load(pack(spec(), Model(encoder, trees_from(model, "logit"), calibration), frame))
        assert np.allclose(bundle.predict(frame), expected, atol=1e-9)
        assert bundle.spec.calibration == calibration


# ------------------------------------------------------------------------------------------------- what must be refused


def small() -> bytes:
    frame, score = history(300)
    encoder, model, _ = fitted(score > 0, frame, "class")
    return pack(spec(), Model(encoder, trees_from(model, "logit")), frame)


@pytest.fixture(scope="module")
def data() -> bytes:
    return small()


def test_every_single_damaged_byte_is_noticed(data):
    load(data, digest_bytes(data))
    for place in range(0, len(data), max(1, len(data) // 150)):
        bad = bytearray(data)
        bad[place] ^= 0x10
        with pytest.raises(Corrupt, match="is not what was written"):
            load(bytes(bad), digest_bytes(data))
        try:
            load(
                bytes(bad)
            )  # without its name: damage to a member or the directory is noticed, dates of the zip file carry nothing
        except (Corrupt, Refused):
            continue
        assert archive.read(bytes(bad)) == archive.read(data)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_bundle_is_corrupt(data, cut):
    with pytest.raises(Corrupt):
        load(data[:cut])


def test_a_pickle_is_refused_and_not_run(data):
    members = {**archive.read(data), "model.pkl": pickle.dumps({"a": 1})}
    with pytest.raises(Refused, match=r"model\.pkl"):
        load(archive.write(members))
    with pytest.raises(Corrupt):
        load(pickle.dumps(data))


@pytest.mark.parametrize("name", ["../spec.json", "/etc/passwd", "spec.json/../x", "predictor.joblib"])
def test_a_member_with_another_name_is_refused(data, name):
    with pytest.raises(Refused, match="members that a bundle does not have"):
        load(archive.write({**archive.read(data), name: b"x"}))


def test_a_bomb_is_refused(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("spec.json", b"0" * 50_000_000)
    assert len(out.getvalue()) < 100_000
    with pytest.raises(Refused, match="compressed"):
        load(out.getvalue())


def test_a_bomb_inside_an_estimator_is_refused():
    frame, score = history(100)
    encoder = fit_encoder(frame, FEATURES)
    design = fit_design(encoder, encoder.encode(frame))
    estimator = RandomForestClassifier(1, random_state=0).fit(design.dense(encoder.encode(frame)), score > 0)
    members = archive.read(pack(spec(), Model(encoder, foreign_from(estimator, design, "logit")), frame))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("schema.json", b"0" * 50_000_000)
    with pytest.raises(Refused, match="compressed"):
        load(archive.write({**members, "predictor.skops": out.getvalue()}))


def test_unknown_kinds_and_versions_are_refused(data):
    members = archive.read(data)
    with pytest.raises(Refused, match="does not know"):
        load(archive.write({**members, "predictor.json": canonical({"kind": "onnx", "link": "logit"})}))
    plain = {name: content for name, content in members.items() if name != "predictor.trees"}
    with pytest.raises(Refused, match="does not know"):
        load(archive.write({**plain, "predictor.json": canonical({"type": "oracle"})}))
    with pytest.raises(Corrupt, match=r"spec\.json"):
        load(archive.write({name: content for name, content in members.items() if name != "spec.json"}))
    newer = archive.Manifest(99, {name: digest_bytes(content) for name, content in members.items()})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name, content in {**members, "manifest.json": canonical(newer)}.items():
            made.writestr(name, content)
    with pytest.raises(Refused, match="version 99"):
        load(out.getvalue())


def test_trees_that_are_not_trees_are_corrupt(data):
    with pytest.raises(Corrupt, match="tree ensemble"):
        load(archive.write({**archive.read(data), "predictor.trees": b"no trees"}))


def test_other_golden_scores_than_at_packing_are_refused(data):
    members = archive.read(data)
    golden = msgspec.json.decode(members["golden.json"])
    golden["scores"][3] += 1e-9
    with pytest.raises(Refused, match="gives other scores here"):
        load(archive.write({**members, "golden.json": canonical(golden)}))


def test_a_compiled_form_that_differs_is_refused():
    assert check_parity(np.array([0.1]), np.array([0.1 + 1e-14]), 1e-12, "x") < 1e-13
    with pytest.raises(Refused, match=r"differs from the trained one by 0\.07"):
        check_parity(np.array([0.1]), np.array([0.17]), 1e-6, "x")
    with pytest.raises(Refused):
        check_parity(np.array([0.1]), np.array([np.nan]), 1e-6, "x")


def test_a_score_that_is_not_finite_is_not_packed():
    with pytest.raises(Refused, match="not finite"):
        pack(spec(), Model(Encoder(()), Constant((float("nan"),))), pl.DataFrame())


def test_a_missing_column_is_named(data):
    with pytest.raises(DataFault, match="columns z"):
        load(data).predict(history(10)[0].drop("z"))


def test_a_clean_process_gives_the_golden_scores(data, tmp_path):
    path = tmp_path / "bundle"
    path.write_bytes(data)
    answer = verify_apart(path, digest_bytes(data))
    assert answer == {"ok": True, "rows": 64, "difference": 0.0, "candidate": "a/b"}
    assert verify(path) == answer
    path.write_bytes(data[:-30])
    assert verify_apart(path)["ok"] is False
    assert verify(tmp_path / "none")["kind"] == "NotFound"


def test_unknown_categories_are_counted(data):
    bundle: Bundle = load(data)
    assert bundle.unknown(strange_rows()).tolist() == [True, True, False, False]
    assert isinstance(bundle.model.predictor, Trees)
