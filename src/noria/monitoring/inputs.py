"""Rows of features as points in one space of comparable scales, fixed at the reference: what monitors of several columns look at."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.model.encoder import as_text, numbers

KNOTS = 33
TOP = 6
BEYOND = 2.0
MISSING = 0.5
ONE = 0.7

Floats = NDArray[np.float64]


class Number(msgspec.Struct, frozen=True, tag="number"):
    """A number: ``at`` are ascending values of the reference, ``rank`` their places (-1 to 1), ``unit`` what counts as one step outside."""

    name: str
    at: tuple[float, ...]
    rank: tuple[float, ...]
    unit: float


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A category: ``values`` of the reference from frequent to rare, ``rank`` their places (-1 to 1); what is not among them is new."""

    name: str
    values: tuple[str, ...]
    rank: tuple[float, ...]


class Inputs(msgspec.Struct, frozen=True):
    """The columns in their order. A point has a place for each column, and behind these the indicators."""

    columns: tuple[Number | Text, ...]

    def points(self, frame: pl.DataFrame) -> Floats:
        """The points (rows, width) of a frame; a column that is not there is missing in every row.

        A number is at its rank among the reference's, beyond its range further out (at most 2 steps of the quartiles' distance); a
        missing value is in the middle with an indicator; a category is at the rank of its frequency, with an indicator each for the
        most frequent ones and one for what the reference did not have.
        """
        places, flags = [], []
        for column in self.columns:
            place, more = _number(column, frame) if isinstance(column, Number) else _text(column, frame)
            places.append(place)
            flags += more
        made = [*places, *flags]
        return np.column_stack(made) if made else np.zeros((frame.height, 0))


def inputs_of(frame: pl.DataFrame, names: Sequence[str]) -> Inputs:
    """The space of a reference's rows.

    >>> made = inputs_of(pl.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]}), ["x", "c"])
    >>> made.points(pl.DataFrame({"x": [2.0, None], "c": ["a", "new"]})).round(2).tolist()
    [[0.0, -0.33, 0.0, 0.7, 0.0, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0, 0.0, 1.0, 0.0]]
    """
    columns: list[Number | Text] = []
    for name in names:
        series = frame[name]
        if _numeric(series):
            columns.append(_fit_number(name, numbers(series)))
        else:
            columns.append(_fit_text(name, as_text(series)))
    return Inputs(tuple(columns))


def _fit_number(name: str, values: Floats) -> Number:
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return Number(name, (), (), 1.0)
    at = np.unique(np.quantile(finite, np.linspace(0, 1, KNOTS), method="lower"))
    below = np.searchsorted(finite, at, side="left") + np.searchsorted(finite, at, side="right")
    low, high = np.quantile(finite, [0.25, 0.75])
    unit = float(high - low) or float(finite[-1] - finite[0]) or 1.0
    return Number(name, _kept(at), _kept(below / len(finite) - 1), _kept([unit])[0])


def _fit_text(name: str, texts: pl.Series) -> Text:
    counts = texts.drop_nulls().value_counts().rename({texts.name: "value"})
    counts = counts.sort(["count", "value"], descending=[True, False])
    n = counts["count"].to_numpy().astype(float)
    upto = np.cumsum(n)
    rank = (2 * upto - n) / upto[-1] - 1 if len(n) else n
    return Text(name, tuple(counts["value"].to_list()), _kept(rank))


def _number(column: Number, frame: pl.DataFrame) -> tuple[Floats, list[Floats]]:
    readable = column.name in frame.columns and _numeric(frame[column.name])
    values = numbers(frame[column.name]) if readable else np.full(frame.height, np.nan)
    missing = ~np.isfinite(values)
    if not column.at:
        return np.zeros(frame.height), [MISSING * missing]
    place = np.interp(np.where(missing, 0.0, values), column.at, column.rank)
    outside = np.maximum(values - column.at[-1], 0.0) - np.maximum(column.at[0] - values, 0.0)
    place += np.clip(np.where(missing, 0.0, outside) / column.unit, -BEYOND, BEYOND)
    return np.where(missing, 0.0, place), [MISSING * missing]


def _text(column: Text, frame: pl.DataFrame) -> tuple[Floats, list[Floats]]:
    n = frame.height
    if column.name not in frame.columns:
        return np.zeros(n), [np.zeros(n)] * min(TOP, len(column.values)) + [np.zeros(n), np.full(n, MISSING)]
    texts = as_text(frame[column.name])
    size = len(column.values)
    codes = texts.replace_strict(column.values, range(size), default=size, return_dtype=pl.Int64) if size else None
    code = codes.fill_null(size).to_numpy() if codes is not None else np.full(n, size)
    missing = texts.is_null().to_numpy()
    place = np.append(np.asarray(column.rank, float), 1.0)[code]
    flags = [ONE * (code == one) for one in range(min(TOP, size))]
    return np.where(missing, 0.0, place), [*flags, 1.0 * ((code == size) & ~missing), MISSING * missing]


def _kept(values: Sequence[float] | Floats) -> tuple[float, ...]:
    """Nine significant digits: the same in every process."""
    return tuple(float(f"{value:.9g}") for value in np.asarray(values, float).tolist())


def _numeric(series: pl.Series) -> bool:
    return series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Null
