"""From feature columns to the matrix that predictors read.

Numbers stay as they are, with NaN where there is none (infinities too: they are not numbers). Texts become codes: 0 is the
*unknown* bucket, 1, 2, … the categories of the training part. A category seen fewer than ``LEAST`` times falls into the unknown
bucket, and a small, evenly spaced share of the training rows is put there as well, so that the bucket is always trained: a value
that turns up for the first time in production gets a prediction that was learned, and no code ever reaches a predictor that
its training did not see. A missing text is a category of its own. Everything is learned from the training part only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import DataFault, micros

if TYPE_CHECKING:
    import polars as pl

LEAST = 20
LIMIT = 250
MASKED = 0.005
UNKNOWN = 0

Kind = Literal["number", "text"]


class Column(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """One column: its kind, and for a text the categories with a code (``None`` is the missing value) and the rare ones without."""

    name: str
    kind: Kind
    categories: tuple[str | None, ...] = ()
    rare: tuple[str | None, ...] = ()

    @cached_property
    def codes(self) -> dict[str | None, float]:
        return {category: float(code) for code, category in enumerate(self.categories, 1)}

    @cached_property
    def seen(self) -> frozenset[str | None]:
        return frozenset(self.categories) | frozenset(self.rare)


class Encoder(msgspec.Struct, frozen=True):
    """The columns in their order. Frames may have them in any order, and more."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def texts(self) -> tuple[int, ...]:
        """Places of the text columns."""
        return tuple(place for place, column in enumerate(self.columns) if column.kind == "text")

    def encode(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """The matrix (rows, columns) of a frame. Raises ``DataFault`` for a missing column or a text where a number belongs.

        >>> import polars as pl
        >>> encoder = fit_encoder(pl.DataFrame({"x": [1, 2, None], "c": ["a", "b", "a"]}), ["x", "c"], least=2)
        >>> encoder.encode(pl.DataFrame({"c": ["a", "new"], "x": [3.5, None]})).tolist()
        [[3.5, 1.0], [nan, 0.0]]
        """
        self._require(frame.columns)
        matrix = np.empty((frame.height, len(self.columns)), dtype=np.float64)
        for place, column in enumerate(self.columns):
            series = frame.get_column(column.name)
            matrix[:, place] = numbers(series) if column.kind == "number" else _codes(series, column)
        return matrix

    def encode_rows(self, rows: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """The same for plain columns of values: the short way for single rows, without a frame."""
        self._require(rows)
        matrix = np.empty((len(next(iter(rows.values()), ())), len(self.columns)), dtype=np.float64)
        for place, column in enumerate(self.columns):
            values = rows[column.name]
            if column.kind == "number":
                matrix[:, place] = [number(value, column.name) for value in values]
            else:
                codes = column.codes
                matrix[:, place] = [codes.get(_text(value), UNKNOWN) for value in values]
        return matrix

    def unknown(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """Which rows hold a category that the training part never had."""
        found = np.zeros(frame.height, dtype=bool)
        for column in self.columns:
            if column.kind == "text":
                series = as_text(frame.get_column(column.name))
                strange = [value for value in series.unique().to_list() if value not in column.seen]
                if strange:
                    found |= series.is_in(strange, nulls_equal=True).to_numpy()
        return found

    def _require(self, names: Any) -> None:
        missing = [column.name for column in self.columns if column.name not in names]
        if missing:
            raise DataFault(
                f"the model needs the columns {', '.join(missing)}, which are not there",
                hint=f"give all of {', '.join(self.names)}",
            )


def fit_encoder(frame: pl.DataFrame, columns: Sequence[str], *, least: int = LEAST, limit: int = LIMIT) -> Encoder:
    """Learns the categories from the training part.

    A text column keeps its ``limit`` most frequent categories (ties in alphabetical order) that occur at least ``least`` times;
    codes are given in alphabetical order, the missing value first. Booleans and times are numbers.
    """
    import polars as pl

    made = []
    for name in columns:
        series = frame.get_column(name)
        if series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype in (pl.Boolean, pl.Null):
            made.append(Column(name, "number"))
            continue
        counts = as_text(series).value_counts(name="_n").rows()
        ranked = sorted(counts, key=lambda row: (-row[1], row[0] is not None, row[0] or ""))
        kept = [value for value, n in ranked if n >= least][:limit]
        rare = [value for value, _ in ranked if value not in set(kept)][: 8 * limit]
        made.append(Column(name, "text", _ordered(kept), _ordered(rare)))
    return Encoder(tuple(made))


def masked(encoder: Encoder, matrix: NDArray[np.float64], *, share: float = MASKED, least: int = LEAST) -> NDArray[np.float64]:
    """A training matrix in which some rows of every text column fall into the unknown bucket, so that it is trained.

    Where rare categories already fill the bucket to ``max(share · rows, least)``, nothing is changed. Rows are evenly spaced,
    each column with another offset: the same rows on every run.
    """
    wanted = min(max(int(share * len(matrix)), least), len(matrix) // 10)
    made = matrix
    for turn, place in enumerate(encoder.texts):
        lacking = wanted - int((matrix[:, place] == UNKNOWN).sum())
        if lacking <= 0:
            continue
        if made is matrix:
            made = matrix.copy()
        step = len(matrix) // lacking
        made[(7 * turn) % step :: step, place][:lacking] = UNKNOWN
    return made


def _ordered(values: list[str | None]) -> tuple[str | None, ...]:
    return tuple(sorted(values, key=lambda value: (value is not None, value or "")))


def as_text(series: pl.Series) -> pl.Series:
    """A column as texts."""
    import polars as pl

    return series if series.dtype == pl.String else series.cast(pl.String)


def numbers(series: pl.Series) -> NDArray[np.float64]:
    """A column as numbers: NaN where it is missing or infinite; times and spans of time in microseconds."""
    import polars as pl

    if not (series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype in (pl.Boolean, pl.Null)):
        raise DataFault(f"the column {series.name!r} has {series.dtype}, and the model was trained on numbers")
    if series.dtype in (pl.Date, pl.Datetime):
        series = series.cast(pl.Datetime("us"))
    if series.dtype == pl.Duration:
        series = series.cast(pl.Duration("us"))
    if series.dtype.is_temporal():
        series = series.to_physical()
    # astype makes a copy where polars hands out a read-only view
    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
    values[np.isinf(values)] = np.nan
    return values


def _codes(series: pl.Series, column: Column) -> NDArray[np.float64]:
    import polars as pl

    known, codes = list(column.codes), list(column.codes.values())
    series = as_text(series)
    if not known:
        return np.zeros(len(series))
    keys = pl.Series(known, dtype=pl.String)
    return series.replace_strict(keys, codes, default=float(UNKNOWN), return_dtype=pl.Float64).to_numpy()


def number(value: Any, name: str) -> float:
    """One value as ``numbers`` has it; raises ``DataFault`` that names the column."""
    if value is None:
        return math.nan
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return float(micros(value if value.tzinfo else value.replace(tzinfo=UTC)))
    if isinstance(value, timedelta):
        return float(value // timedelta(microseconds=1))
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise DataFault(f"the column {name!r} has {type(value).__name__} where the model was trained on numbers") from None
    return found if math.isfinite(found) else math.nan


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, str) else str(value)
