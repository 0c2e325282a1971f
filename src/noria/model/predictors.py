"""From the encoder's matrix to scores: the kinds of predictor that a bundle can hold.

``Constant``, ``Passthrough``, ``Linear`` and ``Rule`` are plain numbers and texts, stored as JSON. ``Trees`` is a tree ensemble in
Treelite's format. ``Foreign`` is any other scikit-learn estimator (see ``foreign.py``). None of them is ever a pickle.

A score is (n,) for binary (the probability of true) and regression, (n, classes) for multiclass.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import Corrupt, Refused
from noria.model.calibration import sigmoid, softmax
from noria.model.design import Design
from noria.model.encoder import Encoder, numbers

if TYPE_CHECKING:
    import polars as pl

Array: TypeAlias = NDArray[np.float64]
Link = Literal["identity", "logit", "softmax"]
FEW_ROWS = 4096


class Predictor(Protocol):
    """What every kind does."""

    def predict(self, matrix: Array) -> Array:
        """Scores of an encoded matrix (n, columns)."""
        ...


class Constant(msgspec.Struct, frozen=True, tag="constant"):
    """The same score for every row: one number, or one a class."""

    score: tuple[float, ...]

    def predict(self, matrix: Array) -> Array:
        return _shaped(np.tile(np.array(self.score), (len(matrix), 1)))


class Passthrough(msgspec.Struct, frozen=True, tag="passthrough"):
    """The score is a column of its own, such as the last closed label.

    Without ``table`` the column's number is the score, and ``fallback`` where it is missing. With it, row 0 of the table is the
    score where the column is missing (or unknown), row 1 + v that for the value v.
    """

    fallback: float
    low: float | None = None
    high: float | None = None
    table: tuple[tuple[float, ...], ...] = ()
    coded: bool = False

    def predict(self, matrix: Array) -> Array:
        value = matrix[:, 0]
        if not self.table:
            return np.clip(np.where(np.isnan(value), self.fallback, value), self.low, self.high)
        shift = 0 if self.coded else 1
        place = np.where(np.isnan(value), 0, np.nan_to_num(value) + shift)
        return _shaped(np.array(self.table)[np.clip(place, 0, len(self.table) - 1).astype(np.int64)])


class Linear(msgspec.Struct, frozen=True, tag="linear", dict=True):
    """A linear or logistic model as arrays: per output an intercept, weights of numbers and indicators, and a table per text column.

    Sums run in a fixed order, so that a row alone and the same row in a batch give the same bits.
    """

    design: Design
    link: Link
    intercept: tuple[float, ...]
    number: tuple[tuple[float, ...], ...]
    missing: tuple[tuple[float, ...], ...]
    tables: tuple[tuple[tuple[float, ...], ...], ...]

    @cached_property
    def arrays(self) -> tuple[Array, list[Array], list[Array], list[Array]]:
        """Intercept (outputs,), number and missing weights (outputs,) per number, tables (codes, outputs) per text."""
        tables = [np.array(table, dtype=np.float64) for table in self.tables]
        return (
            np.array(self.intercept, dtype=np.float64),
            [np.array(weights, dtype=np.float64) for weights in self.number],
            [np.array(weights, dtype=np.float64) for weights in self.missing],
            tables,
        )

    def predict(self, matrix: Array) -> Array:
        intercept, number, missing, tables = self.arrays
        made = np.tile(intercept, (len(matrix), 1))
        for j in range(len(number)):
            standard, absent = self.design.number(matrix, j)
            made += standard[:, None] * number[j]
            made += absent[:, None] * missing[j]
        for place, table in zip(self.design.texts, tables, strict=True):
            made += table[matrix[:, place].astype(np.int64)]
        return _linked(made, self.link)


def linear_from(design: Design, link: Link, coefficients: Array, intercept: Array) -> Linear:
    """Packs coefficients (outputs, design.width), as scikit-learn gives them, into a ``Linear``."""
    n = len(design.numbers)
    tables, start = [], 2 * n
    for size in design.sizes:
        block = coefficients[:, start : start + size].T
        tables.append(tuple(tuple(row) for row in block.tolist()))
        start += size
    return Linear(
        design,
        link,
        tuple(np.asarray(intercept, dtype=np.float64).ravel().tolist()),
        tuple(tuple(column) for column in coefficients[:, :n].T.tolist()),
        tuple(tuple(column) for column in coefficients[:, n : 2 * n].T.tolist()),
        tuple(tables),
    )


class Rule(msgspec.Struct, frozen=True, tag="rule"):
    """SQL over the features that gives the score; missing becomes ``fallback``. Runs in a DuckDB that reaches no file and no network."""

    expression: str
    fallback: float
    low: float | None = None
    high: float | None = None

    def of_frame(self, frame: pl.DataFrame, encoder: Encoder) -> Array:
        """Scores of a frame's raw values: a rule speaks of texts, not of codes."""
        import duckdb
        import polars as pl

        columns = {
            column.name: pl.Series(numbers(frame.get_column(column.name))).fill_nan(None)
            if column.kind == "number"
            else frame.get_column(column.name).cast(pl.String)
            for column in encoder.columns
        }
        kept = pl.DataFrame(columns | {"_place": pl.int_range(frame.height, eager=True)})
        with duckdb.connect(config={"enable_external_access": "false", "threads": "1"}) as connection:
            connection.execute("set TimeZone='UTC'")
            connection.register("rows", kept.to_arrow())
            connection.execute("set lock_configuration=true")
            query = f'select cast(({self.expression}) as double) as score from rows order by "_place"'
            try:
                made = connection.sql(query).pl().get_column("score")
            except duckdb.Error as error:
                raise Refused(f"the rule {self.expression!r} cannot be evaluated: {error}") from None
        scores = made.fill_null(self.fallback).to_numpy()
        return np.clip(np.where(np.isfinite(scores), scores, self.fallback), self.low, self.high)

    def predict(self, matrix: Array) -> Array:  # noqa: ARG002
        raise TypeError("a rule reads a frame, not a matrix")


Plain: TypeAlias = Constant | Passthrough | Linear | Rule


class Trees:
    """A tree ensemble in Treelite's format. Few rows are predicted by one thread: more would cost more. Many, by all."""

    def __init__(self, data: bytes, link: Link) -> None:
        import treelite

        try:
            self._model = treelite.Model.deserialize_bytes(data)
        except treelite.TreeliteError as error:
            raise Corrupt(f"the tree ensemble cannot be read: {str(error).splitlines()[0]}") from None
        self.data = data
        self.link: Link = link
        self._predict = treelite.gtil.predict

    @property
    def width(self) -> int:
        return int(self._model.num_feature)

    @property
    def outputs(self) -> int:
        """Margins a row: one, or one a class."""
        return int(self.predict_margin(np.zeros((1, self.width))).shape[1])

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return int(self._model.num_tree)

    def with_more(self, estimators: Sequence[Any], rate: float) -> Trees:
        """These trees and those of fitted HistGradientBoosting regressors, whose predictions, times ``rate``, are added to the margin.

        For one margin a row only. The regressors' own starting values go into the leaves of their first trees.
        """
        import treelite

        header = self._model.get_header_accessor()
        parts = [self._model]
        for estimator in estimators:
            more = treelite.Model.deserialize_bytes(trees_from(estimator, "identity").data)
            mine = more.get_header_accessor()
            begun = float(mine.get_field("base_scores")[0])
            for name in ("task_type", "postprocessor"):
                mine.set_field(name, header.get_field(name))
            mine.set_field("base_scores", np.zeros(1))
            for place in range(more.num_tree):
                tree = more.get_tree_accessor(place)
                leaf, values = tree.get_field("cleft") < 0, tree.get_field("leaf_value").copy()
                values[leaf] = rate * (values[leaf] + (begun if place == 0 else 0.0))
                tree.set_field("leaf_value", values)
            parts.append(more)
        return Trees(treelite.Model.concatenate(parts).serialize_bytes(), self.link)

    def predict_margin(self, matrix: Array) -> Array:
        """Raw margins (n, outputs), before the link."""
        threads = 1 if len(matrix) <= FEW_ROWS else -1
        margin: Array = self._predict(self._model, np.ascontiguousarray(matrix), nthread=threads, pred_margin=True)[:, 0, :]
        return margin

    def predict(self, matrix: Array) -> Array:
        if matrix.shape[1] != self.width:
            raise Refused(f"the tree ensemble reads {self.width} columns, and {matrix.shape[1]} were given")
        margin = self.predict_margin(matrix)
        single = margin.shape[1] == 1 and self.link == "softmax"  # two classes have one margin: that of the second
        return _linked(np.column_stack([np.zeros(len(margin)), margin[:, 0]]) if single else margin, self.link)


def trees_from(estimator: Any, link: Link) -> Trees:
    """Converts a fitted HistGradientBoosting estimator. Compare both on real rows before the result is trusted."""
    import treelite

    with warnings.catch_warnings():
        # Treelite casts NaN thresholds of categorical nodes to integers that it never reads
        warnings.filterwarnings("ignore", message="invalid value encountered in cast", category=RuntimeWarning)
        model = treelite.sklearn.import_model(estimator)
    return Trees(model.serialize_bytes(), link)


def _linked(margin: Array, link: Link) -> Array:
    if link == "softmax":
        return softmax(margin)
    single = np.ascontiguousarray(margin[:, 0], dtype=np.float64)
    return sigmoid(single) if link == "logit" else single


def _shaped(scores: Array) -> Array:
    return scores[:, 0] if scores.shape[1] == 1 else scores
