"""What the columns of a table look like, small enough to keep: the reference of every drift signal.

A reference is made once; a window is profiled over the reference's bins in one scan. Two profiles over the same bins can be compared, and
added up: hours make days, and workers make a service. Adding up is exact, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Conflict
from noria.measure import tally
from noria.measure.tally import Grid, Numbers
from noria.stats.distances import cramers_v, jensen_shannon, ks, psi, wasserstein_binned

BINS = 20
VALUES = 200


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column: ``n`` rows, of which ``nulls`` are null (or not finite).

    A number has ``edges`` (ascending; bin i holds edges[i-1] < x <= edges[i], open at both ends, so one bin more than edges) and its
    moments. A category has ``values``, and ``other`` counts the rows whose value is not among them. ``counts`` go with bins or values.
    ``outside`` counts numbers below or above all of the reference. ``sums`` are the numbers and their squares in the fixed point of ``grid``
    (see ``tally``), from which the moments are: profiles made before there were sums have only the moments.
    """

    n: int
    nulls: int
    counts: tuple[int, ...]
    edges: tuple[float, ...] | None = None
    values: tuple[str, ...] | None = None
    other: int = 0
    outside: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    grid: Grid | None = None
    sums: tuple[int, int] | None = None

    @property
    def numeric(self) -> bool:
        return self.values is None


class Profile(msgspec.Struct, frozen=True):
    """The columns of one table or window."""

    n: int
    columns: dict[str, Column]

    def to_json(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic")

    @staticmethod
    def from_json(data: bytes | str) -> Profile:
        return msgspec.json.decode(data, type=Profile)

    def merge(self, other: Profile) -> Profile:
        """Both together; raises ``Conflict`` unless they have the same columns and bins."""
        if self.columns.keys() != other.columns.keys():
            raise Conflict("profiles of different columns cannot be merged", hint="profile both against one reference")
        return Profile(self.n + other.n, {k: _merged(k, c, other.columns[k]) for k, c in self.columns.items()})


def profile(
    frame: pl.DataFrame, columns: Sequence[str], *, edges: Mapping[str, Sequence[float]] | None = None, bins: int = BINS
) -> Profile:
    """Profiles a reference: numbers over about equally full bins, other columns over their most frequent values.

    ``edges`` fixes the bins of some numeric columns. Times count as numbers (microseconds), booleans as categories.

    >>> made = profile(pl.DataFrame({"x": [1.0, 2.0, None], "c": ["a", "b", "a"]}), ["x", "c"], bins=2)
    >>> made.columns["x"].counts, made.columns["x"].nulls, made.columns["c"].values
    ((1, 1), 1, ('a', 'b'))
    """
    fixed = edges or {}
    numbers: dict[str, Numbers] = {}
    values: dict[str, Sequence[str]] = {}
    for name in columns:
        series = frame[name]
        if not tally.is_number(series.dtype):
            values[name] = _top(series)
            continue
        found = tally.numbers_of(series)
        finite = np.sort(found[np.isfinite(found)])
        cuts = np.asarray(fixed[name], float) if name in fixed else _edges(finite, bins)
        grid = tally.grid(float(finite[0]) + 0.0, float(finite[-1]) + 0.0) if len(finite) else Grid(0.0, 0)
        numbers[name] = Numbers(tuple(cuts.tolist()), None, None, grid)
    counted = tally.count_frame(frame, numbers, values) if numbers or values else {}
    made = {
        name: _number(counted[name], numbers[name]) if name in numbers else Column(**counted[name], values=tuple(values[name]))
        for name in columns
    }
    return Profile(frame.height, made)


def against(reference: Profile, frame: pl.DataFrame | pl.LazyFrame) -> Profile:
    """Profiles ``frame`` over the reference's columns and bins; a column that is missing altogether is all null.

    A lazy frame is read once, in pieces; at most 67 million rows. The result does not depend on the order of the rows.

    >>> reference = profile(pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}), ["x"], bins=2)
    >>> early, late = (against(reference, pl.DataFrame({"x": some})) for some in ([0.5, 1.0], [9.0]))
    >>> both = early.merge(late)
    >>> both.columns["x"].counts, both.columns["x"].outside, both.columns["x"].mean
    ((2, 1), 2, 3.5)
    """
    schema = frame.collect_schema()
    numbers = {
        name: Numbers(column.edges or (), column.low, column.high, grid_of(column))
        for name, column in reference.columns.items()
        if column.numeric and name in schema and tally.is_number(schema[name])
    }
    values = {name: column.values or () for name, column in reference.columns.items() if not column.numeric and name in schema}
    n = frame.height if isinstance(frame, pl.DataFrame) else None
    counted = tally.count_frame(frame, numbers, values) if numbers or values else {}
    if n is None:
        n = next(iter(counted.values()))["n"] if counted else frame.lazy().select(pl.len()).collect().item()
    made: dict[str, Column] = {}
    for name, column in reference.columns.items():
        if name in numbers:
            made[name] = _number(counted[name], numbers[name])
        elif name in values:
            made[name] = Column(**counted[name], values=column.values)
        else:
            made[name] = _absent(column, n)
    return Profile(n, made)


def distance(a: Profile, b: Profile) -> dict[str, dict[str, float]]:
    """How far ``b`` is from the reference ``a``, for each column of both.

    ``js`` (Jensen-Shannon distance, 0..1), ``psi``, for numbers ``ks`` and ``wasserstein`` (in standard deviations of the reference, within its
    range), for categories ``chi2`` (Cramér's V, 0..1: the effect size, which does not grow with the rows); ``missing`` (share of
    nulls, b - a), ``unseen`` (share of b's rows with a value that the reference did not have, beyond the share of its own rare values; for
    numbers: outside its range). All but the last two are over the rows with a value; they are NaN when either side has none.
    """
    return {name: _distance(a.columns[name], b.columns[name]) for name in a.columns if name in b.columns}


def _distance(a: Column, b: Column) -> dict[str, float]:
    if (a.edges, a.values) != (b.edges, b.values):
        raise Conflict(
            "profiles over different bins cannot be compared", hint="profile the window with against(reference, frame)"
        )
    left, right = cells(a), cells(b)
    nan = float("nan")
    empty = left.sum() == 0 or right.sum() == 0
    found = {"js": nan if empty else jensen_shannon(left, right), "psi": nan if empty else psi(left, right)}
    if a.numeric:
        found["ks"] = nan if empty else ks(left, right)
        found["wasserstein"] = nan if empty else _moved(a, left, right)
    else:
        found["chi2"] = nan if empty else cramers_v(left, right)
    found["missing"] = _share(b.nulls, b.n) - _share(a.nulls, a.n)
    here = b.n - b.nulls
    found["unseen"] = _share(b.outside, here) if a.numeric else max(0.0, _share(b.other, here) - _share(a.other, a.n - a.nulls))
    return found


def cells(column: Column) -> NDArray[np.float64]:
    """The counts of a column's bins, or of its values and at last of all others."""
    return np.asarray(column.counts if column.numeric else (*column.counts, column.other), float)


def places_of(series: pl.Series, column: Column) -> tuple[NDArray[np.int64], int]:
    """Each row's place among the ``cells`` of a column, -1 for a missing value; and how many cells there are."""
    if column.numeric:
        values = tally.numbers_of(series) if tally.is_number(series.dtype) else np.full(len(series), np.nan)
        edges = np.array(column.edges or (), dtype=float)
        return np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), -1), len(edges) + 1
    names = list(column.values or ())
    texts = series.cast(pl.String)
    if not names:
        return np.where(texts.is_null().to_numpy(), -1, 0), 1
    found = texts.replace_strict(names, range(len(names)), default=len(names), return_dtype=pl.Int64)
    return np.where(texts.is_null().to_numpy(), -1, found.to_numpy()), len(names) + 1


def _moved(a: Column, left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    if not a.std or a.low is None or a.high is None:
        return float("nan")
    return wasserstein_binned(left, right, (a.low, *(a.edges or ()), a.high)) / a.std


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _edges(ordered: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Inner edges at the (lower) quantiles of ordered numbers: values that occur, so that one which many rows share has a bin of its own."""
    if len(ordered) == 0:
        return np.empty(0)
    edges = np.unique(ordered[np.floor((len(ordered) - 1) * (np.arange(1, bins) / bins)).astype(int)])
    return np.asarray(edges[edges < ordered[-1]], float)


def _top(series: pl.Series) -> tuple[str, ...]:
    """The most frequent values, the most frequent first."""
    texts = series.cast(pl.String)
    found = texts.drop_nulls().value_counts(name="_n")
    return tuple(found.sort(["_n", texts.name], descending=[True, False]).head(VALUES)[texts.name].to_list())


def grid_of(column: Column) -> Grid:
    """The fixed point of a numeric column; of one made before there were any, the one of its range."""
    if column.grid is not None:
        return column.grid
    return tally.grid(column.low, column.high) if column.low is not None and column.high is not None else Grid(0.0, 0)


def _number(counted: Mapping[str, Any], asked: Numbers) -> Column:
    return _with_moments(Column(**counted, edges=tuple(asked.edges), grid=asked.grid))


def _absent(column: Column, n: int) -> Column:
    """A column that the table does not have (or has as something else than numbers)."""
    shape: dict[str, Any] = {"grid": grid_of(column), "sums": (0, 0)} if column.numeric else {}
    return Column(n=n, nulls=n, counts=(0,) * len(column.counts), edges=column.edges, values=column.values, **shape)


def _with_moments(column: Column) -> Column:
    here = column.n - column.nulls
    if not here or column.grid is None or column.sums is None:
        return column
    constant = column.low is not None and column.low == column.high
    mean, std = (column.low, 0.0) if constant else tally.moments(column.grid, here, column.sums)
    return msgspec.structs.replace(column, mean=mean, std=std)


def _merged(name: str, a: Column, b: Column) -> Column:
    if (a.edges, a.values) != (b.edges, b.values):
        raise Conflict(f"profiles of {name!r} over different bins cannot be merged", hint="profile both against one reference")
    exact = a.sums is not None and b.sums is not None and a.grid == b.grid
    lows, highs = [c.low for c in (a, b) if c.low is not None], [c.high for c in (a, b) if c.high is not None]
    both = Column(
        n=a.n + b.n,
        nulls=a.nulls + b.nulls,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        edges=a.edges,
        values=a.values,
        other=a.other + b.other,
        outside=a.outside + b.outside,
        low=min(lows, default=None),
        high=max(highs, default=None),
        grid=a.grid if exact else None,
        sums=(a.sums[0] + b.sums[0], a.sums[1] + b.sums[1]) if exact and a.sums and b.sums else None,
    )
    if exact or not a.numeric:
        return _with_moments(both)
    mean, std = _pooled(a, b)
    return msgspec.structs.replace(both, mean=mean, std=std)


def _pooled(a: Column, b: Column) -> tuple[float | None, float | None]:
    """The moments of both from the moments of each, where there are no sums."""
    parts = [(c.mean, c.std, c.n - c.nulls) for c in (a, b) if c.n > c.nulls and c.mean is not None and c.std is not None]
    total = sum(k for _, _, k in parts)
    if not total:
        return None, None
    mean = sum(m * k for m, _, k in parts) / total
    square = sum((s**2 + (m - mean) ** 2) * k for m, s, k in parts) / total
    return float(f"{mean:.12g}"), float(f"{square**0.5:.12g}")
