"""What the columns of a table look like, small enough to keep: the reference of every drift signal.

A reference is made once; a window is profiled over the reference's bins in one scan, and two profiles over the same bins can be compared
or added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Conflict
from noria.stats.distances import jensen_shannon, ks, psi

BINS = 20
VALUES = 200


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column: ``n`` rows, of which ``nulls`` are null (or not finite).

    A number has ``edges`` (ascending; bin i holds edges[i-1] < x <= edges[i], open at both ends, so one bin more than edges) and its
    moments. A category has ``values``, and ``other`` counts the rows whose value is not among them. ``counts`` go with bins or values.
    ``outside`` counts numbers below or above all of the reference.
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
        if list(self.columns) != list(other.columns):
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
    made: dict[str, Column] = {}
    for name in columns:
        series = frame[name]
        if _numeric(series):
            numbers = _numbers(series)
            cuts = fixed[name] if name in fixed else _edges(numbers, bins)
            made[name] = _number(numbers, np.asarray(cuts, float), None)
        else:
            made[name] = _category(series, None)
    return Profile(frame.height, made)


def against(reference: Profile, frame: pl.DataFrame) -> Profile:
    """Profiles ``frame`` over the reference's columns and bins; a column that is missing altogether is all null."""
    made: dict[str, Column] = {}
    for name, column in reference.columns.items():
        series = frame[name] if name in frame.columns else pl.Series(name, [None] * frame.height, dtype=pl.Float64)
        if column.numeric:
            numbers = _numbers(series) if _numeric(series) else np.full(frame.height, np.nan)
            made[name] = _number(numbers, np.asarray(column.edges or (), float), column)
        else:
            made[name] = _category(series, column)
    return Profile(frame.height, made)


def distance(a: Profile, b: Profile) -> dict[str, dict[str, float]]:
    """How far ``b`` is from the reference ``a``, for each column of both.

    ``js`` (Jensen-Shannon distance, 0..1), ``psi``, ``ks`` (numbers only), ``missing`` (share of nulls, b - a), ``unseen`` (share of b's rows
    with a value that the reference did not have, beyond the share of its own rare values; for numbers: outside its range).
    The first three are over the rows with a value; they are NaN when either side has none.
    """
    return {name: _distance(a.columns[name], b.columns[name]) for name in a.columns if name in b.columns}


def _distance(a: Column, b: Column) -> dict[str, float]:
    if (a.edges, a.values) != (b.edges, b.values):
        raise Conflict(
            "profiles over different bins cannot be compared", hint="profile the window with against(reference, frame)"
        )
    left, right = np.asarray(a.counts, float), np.asarray(b.counts, float)
    if not a.numeric:
        left, right = np.append(left, a.other), np.append(right, b.other)
    nan = float("nan")
    empty = left.sum() == 0 or right.sum() == 0
    found = {"js": nan if empty else jensen_shannon(left, right), "psi": nan if empty else psi(left, right)}
    if a.numeric:
        found["ks"] = nan if empty else ks(left, right)
    found["missing"] = _share(b.nulls, b.n) - _share(a.nulls, a.n)
    here = b.n - b.nulls
    found["unseen"] = _share(b.outside, here) if a.numeric else max(0.0, _share(b.other, here) - _share(a.other, a.n - a.nulls))
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _numeric(series: pl.Series) -> bool:
    return series.dtype.is_numeric() or series.dtype.is_temporal()


def _numbers(series: pl.Series) -> NDArray[np.float64]:
    if series.dtype.is_temporal():
        series = series.to_physical()
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _edges(numbers: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Inner edges at the quantiles. Edges are values that occur, so a value that many rows share gets a bin of its own."""
    finite = np.sort(numbers[np.isfinite(numbers)])
    if len(finite) == 0:
        return np.empty(0)
    edges = np.unique(np.quantile(finite, np.arange(1, bins) / bins, method="lower"))
    return np.asarray(edges[edges < finite[-1]], float)


def _number(numbers: NDArray[np.float64], edges: NDArray[np.float64], reference: Column | None) -> Column:
    finite = numbers[np.isfinite(numbers)]
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    shape: dict[str, Any] = {"edges": tuple(float(e) for e in edges), "counts": tuple(int(c) for c in counts)}
    if len(finite):
        finite = np.sort(finite)  # so that the sums do not depend on the order of the rows
        shape |= {"low": float(finite[0]), "high": float(finite[-1])}
        shape |= {"mean": float(f"{finite.mean():.12g}"), "std": float(f"{finite.std():.12g}")}
    if reference is not None and reference.low is not None and reference.high is not None:
        shape["outside"] = int(((finite < reference.low) | (finite > reference.high)).sum())
    return Column(n=len(numbers), nulls=len(numbers) - len(finite), **shape)


def _category(series: pl.Series, reference: Column | None) -> Column:
    texts = series.cast(pl.String)
    nulls = texts.null_count()
    found = texts.drop_nulls().value_counts().rename({texts.name: "value"})
    if reference is None:
        top = found.sort(["count", "value"], descending=[True, False]).head(VALUES)
        values = tuple(top["value"].to_list())
    else:
        values = reference.values or ()
    seen = dict(zip(found["value"].to_list(), found["count"].to_list(), strict=True))
    counts = tuple(int(seen.get(v, 0)) for v in values)
    return Column(n=len(texts), nulls=nulls, values=values, counts=counts, other=len(texts) - nulls - sum(counts))


def _merged(name: str, a: Column, b: Column) -> Column:
    if (a.edges, a.values) != (b.edges, b.values):
        raise Conflict(f"profiles of {name!r} over different bins cannot be merged", hint="profile both against one reference")
    left, right = a.n - a.nulls, b.n - b.nulls
    moments: dict[str, float | None] = {"low": None, "high": None, "mean": None, "std": None}
    if a.numeric and left + right:
        parts = [(c, k) for c, k in ((a, left), (b, right)) if k and c.mean is not None and c.std is not None]
        mean = sum((c.mean or 0.0) * k for c, k in parts) / (left + right)
        square = sum(((c.std or 0.0) ** 2 + ((c.mean or 0.0) - mean) ** 2) * k for c, k in parts) / (left + right)
        lows, highs = [c.low for c, _ in parts if c.low is not None], [c.high for c, _ in parts if c.high is not None]
        moments = {"low": min(lows), "high": max(highs), "mean": float(f"{mean:.12g}"), "std": float(f"{square**0.5:.12g}")}
    return Column(
        n=a.n + b.n,
        nulls=a.nulls + b.nulls,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        edges=a.edges,
        values=a.values,
        other=a.other + b.other,
        outside=a.outside + b.outside,
        **moments,
    )
