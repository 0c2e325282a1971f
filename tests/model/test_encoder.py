"""The encoder: unknown and missing categories, order of columns, and statistics of the training part only."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import DataFault
from noria.model import Encoder, fit_design, fit_encoder, masked

TEXTS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "dd", "", "é"]), st.text(max_size=3))
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5).map(float))


def frame_of(rows: list[tuple[str | None, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        {"text": [text for text, _ in rows], "number": [number for _, number in rows]},
        schema={"text": pl.String, "number": pl.Float64},
    )


@given(
    st.lists(st.tuples(TEXTS, NUMBERS), min_size=1, max_size=40),
    st.lists(st.tuples(TEXTS, NUMBERS), max_size=20),
    st.integers(1, 5),
)
def test_codes_follow_their_definition(train, later, least):
    encoder = fit_encoder(frame_of(train), ["text", "number"], least=least)
    counts = {text: sum(t == text for t, _ in train) for text, _ in train}
    frequent = sorted((t for t, n in counts.items() if n >= least), key=lambda t: (t is not None, t or ""))
    matrix = encoder.encode(frame_of(train + later))
    for (text, number), (code, value) in zip(train + later, matrix, strict=True):
        assert code == (frequent.index(text) + 1 if text in frequent else 0)
        assert math.isnan(value) if number is None or not math.isfinite(number) else value == number


@given(st.lists(st.tuples(TEXTS, NUMBERS), min_size=1, max_size=30))
def test_rows_without_a_frame_and_any_column_order_give_the_same(rows):
    frame = frame_of(rows)
    encoder = fit_encoder(frame, ["text", "number"], least=2)
    matrix = encoder.encode(frame)
    turned = frame.with_columns(extra=pl.lit(1)).select("extra", "number", "text")
    assert np.array_equal(matrix, encoder.encode(turned), equal_nan=True)
    plain = {name: frame.get_column(name).to_list() for name in frame.columns}
    assert np.array_equal(matrix, encoder.encode_rows(plain), equal_nan=True)


@given(st.lists(st.tuples(TEXTS, NUMBERS), min_size=1, max_size=30), st.lists(st.tuples(TEXTS, NUMBERS), max_size=10))
def test_unknown_marks_what_training_never_had(train, later):
    encoder = fit_encoder(frame_of(train), ["text"], least=3)
    assert encoder.unknown(frame_of(later)).tolist() == [text not in {t for t, _ in train} for text, _ in later]


def test_at_most_the_limit_of_categories_is_kept_and_the_most_frequent_are():
    values = [f"c{i:03d}" for i in range(300) for _ in range(1 + i % 7)]
    encoder = fit_encoder(pl.DataFrame({"c": values}), ["c"], least=1, limit=250)
    (column,) = encoder.columns
    assert len(column.categories) == 250
    dropped = {f"c{i:03d}" for i in range(300)} - set(column.categories)
    assert {1 + int(name[1:]) % 7 for name in dropped} <= {1, 2}
    assert encoder.encode(pl.DataFrame({"c": values})).max() == 250


def test_the_unknown_bucket_is_trained_even_when_no_category_is_rare():
    frame = pl.DataFrame({"a": ["x", "y"] * 2000, "b": ["u"] * 4000})
    encoder = fit_encoder(frame, ["a", "b"])
    matrix = encoder.encode(frame)
    made = masked(encoder, matrix)
    assert (matrix != 0).all()
    assert ((made == 0).sum(axis=0) == 20).all()
    assert (made != matrix).any(axis=1).sum() == 40
    assert np.array_equal(made, masked(encoder, matrix))
    both = np.where(np.arange(4000)[:, None] < 100, 0.0, matrix)
    assert masked(encoder, both) is both


def test_types_that_are_neither_number_nor_text():
    frame = pl.DataFrame(
        {"flag": [True, None, False], "kind": pl.Series(["a", "b", "a"], dtype=pl.Categorical), "whole": [1, 2, 3]},
    ).with_columns(
        at=pl.datetime(2013, 1, 1, time_zone="UTC"), day=pl.date(2013, 1, 1), spent=pl.duration(minutes=1, time_unit="ms")
    )
    encoder = fit_encoder(frame, frame.columns, least=1)
    matrix = encoder.encode(frame)
    assert [column.kind for column in encoder.columns] == ["number", "text", *["number"] * 4]
    assert np.array_equal(matrix[:, 0], [1.0, np.nan, 0.0], equal_nan=True)
    assert matrix[0, 3:].tolist() == [1356998400e6, 1356998400e6, 60e6]
    assert np.array_equal(matrix, encoder.encode_rows(frame.to_dict(as_series=False)), equal_nan=True)


def test_a_missing_column_and_a_text_for_a_number_are_named():
    encoder = fit_encoder(pl.DataFrame({"x": [1.0], "y": [2.0]}), ["x", "y"])
    with pytest.raises(DataFault, match="columns y"):
        encoder.encode(pl.DataFrame({"x": [1.0]}))
    with pytest.raises(DataFault, match="'y' has String"):
        encoder.encode(pl.DataFrame({"x": [1.0], "y": ["much"]}))
    with pytest.raises(DataFault, match="'y' has str"):
        encoder.encode_rows({"x": [1.0], "y": ["much"]})


def test_the_design_is_dense_or_sparse_the_same_and_knows_the_training_part_only():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.normal(5, 3, 500), "c": rng.choice(["a", "b", "c"], 500), "z": np.full(500, 7.0)})
    frame = frame.with_columns(x=pl.when(pl.col("x") > 9).then(None).otherwise(pl.col("x")))
    encoder: Encoder = fit_encoder(frame, frame.columns)
    matrix = encoder.encode(frame)
    design = fit_design(encoder, matrix)
    dense = design.dense(matrix)
    assert np.array_equal(design.sparse(matrix).toarray(), dense)
    assert dense.shape[1] == design.width == 4 + 4
    seen = frame.get_column("x").drop_nulls().to_numpy()
    assert design.mean[0] == pytest.approx(seen.mean())
    assert design.scale == (pytest.approx(seen.std()), 1.0)
    assert (dense[:, 4:].sum(axis=1) == 1).all()
    assert np.abs(design.dense(np.array([[1e9, 0.0, np.nan]]))).max() == 8.0
