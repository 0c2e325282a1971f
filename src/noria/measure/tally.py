"""Counting a table over bins that are given: one scan, the same whole numbers whatever the order of the rows and the number of threads.

Small tables are counted by numpy, large ones by polars expressions of all columns at once (a comparison an edge, since a comparison of
a column is a few vector instructions, while a look-up of the bin is many). Both give the same: everything is a count, an extreme, or a
sum of integers. For the moments each number is rounded to a fixed point of its column (its ``grid``): 32 bits to the reference's
range for the number, 26 to the square of it. A number further than 32 ranges off counts as that far in the moments, not in the bins.

In the large scan the rounding is an addition: the bits of x + 1.5 * 2^52 are those of 1.5 * 2^52 plus x rounded to a whole number (to the even one at
a half, as IEEE 754 adds), so that the sum of the bits, less the constant's, is the sum of the whole numbers, modulo 2^64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Refused

BITS = 32
ROOT = 2.0**-19
SQUARES = ROOT * ROOT
MAGIC = 1.5 * 2.0**52
FAR = 32.0
FINEST, COARSEST = -900, 1000
SMALL = 250_000
MOST_ROWS = 1 << 26
Floats = NDArray[np.float64]


class Grid(NamedTuple):
    """The fixed point of a column: numbers are kept as their difference from ``centre`` in units of 2^(``exponent`` - 32)."""

    centre: float
    exponent: int

    @property
    def unit(self) -> float:
        return math.ldexp(1.0, BITS - self.exponent)

    @property
    def far(self) -> float:
        return FAR * math.ldexp(1.0, self.exponent)


class Numbers(NamedTuple):
    """What is counted of a numeric column: its edges, the range that is not ``outside``, its fixed point."""

    edges: Sequence[float]
    low: float | None
    high: float | None
    grid: Grid


def grid(low: float, high: float) -> Grid:
    """A fixed point for numbers between ``low`` and ``high``; whole numbers stay exact.

    >>> grid(0.0, 100.0), grid(5.0, 5.0)
    (Grid(centre=0.0, exponent=7), Grid(centre=5.0, exponent=3))
    """
    if low == high:
        return Grid(low, _exponent(abs(low)))
    exponent = _exponent(high / 2 - low / 2) + 1
    step = math.ldexp(1.0, exponent)
    return Grid(round((low / 2 + high / 2) / step) * step, exponent)


def _exponent(size: float) -> int:
    return min(max(math.frexp(size)[1] if size else 0, FINEST), COARSEST)


def moments(grid: Grid, n: int, sums: tuple[int, int]) -> tuple[float, float]:
    """The mean and standard deviation that the sums of a fixed point say; 12 significant digits."""
    first, second = sums[0] / n, sums[1] / n
    mean = grid.centre + math.ldexp(first, grid.exponent - BITS)
    spread = math.ldexp(second, 38 - 2 * BITS) - math.ldexp(first, -BITS) ** 2
    return float(f"{mean:.12g}"), float(f"{math.ldexp(math.sqrt(max(0.0, spread)), grid.exponent):.12g}")


def is_number(dtype: pl.DataType) -> bool:
    """Whether a column counts as numbers: numbers and times."""
    return dtype.is_numeric() or dtype.is_temporal()


def numbers_of(series: pl.Series) -> Floats:
    """A column as floats, NaN where there is none; times in their own unit."""
    series = series.to_physical() if series.dtype.is_temporal() else series
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


# ---------------------------------------------------------------------------------------------------------------- numpy


def count_numbers(values: Floats, asked: Numbers) -> dict[str, Any]:
    """One numeric column, by numpy."""
    finite = values[np.isfinite(values)]
    edges = np.asarray(asked.edges, float)
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    found: dict[str, Any] = {"n": len(values), "nulls": len(values) - len(finite), "counts": tuple(counts.tolist())}
    if asked.low is not None and asked.high is not None:
        found["outside"] = int(((finite < asked.low) | (finite > asked.high)).sum())
    if not len(finite):
        return found | {"sums": (0, 0)}
    apart = np.clip(
        (finite - asked.grid.centre) * asked.grid.unit, -asked.grid.far * asked.grid.unit, asked.grid.far * asked.grid.unit
    )
    sums = np.rint(apart).astype(np.int64).sum(), np.rint(apart * apart * SQUARES).astype(np.int64).sum()
    return found | {"low": float(finite.min()) + 0.0, "high": float(finite.max()) + 0.0, "sums": (int(sums[0]), int(sums[1]))}


def count_values(series: pl.Series, values: Sequence[str]) -> dict[str, Any]:
    """One column of categories, by its hash table."""
    return _value_found(series.cast(pl.String).alias("_value").value_counts(name="_n"), len(series), values)


def _value_found(table: pl.DataFrame, n: int, values: Sequence[str]) -> dict[str, Any]:
    """What is counted of a column, from how often each of its values (``_value``) occurs."""
    nulls = int(table.filter(pl.col("_value").is_null())["_n"].sum())
    seen = dict(table.filter(pl.col("_value").is_in(list(values))).iter_rows())
    counts = tuple(int(seen.get(value, 0)) for value in values)
    return {"n": n, "nulls": nulls, "counts": counts, "other": n - nulls - sum(counts)}


# --------------------------------------------------------------------------------------------------------------- polars


def count_frame(
    frame: pl.DataFrame | pl.LazyFrame, numbers: Mapping[str, Numbers], categories: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """All columns of a table, in one scan; a second one of the columns whose numbers are not finite or too far off for the first.

    Raises ``Refused`` for more than 67 million rows at once: profile parts and merge them.
    """
    if isinstance(frame, pl.DataFrame) and frame.height * (len(numbers) + len(categories)) <= SMALL:
        made = {name: count_numbers(numbers_of(frame[name]), asked) for name, asked in numbers.items()}
        return made | {name: count_values(frame[name], values) for name, values in categories.items()}
    lazy, schema = frame.lazy(), frame.collect_schema()
    asked = [pl.len().alias("n")]
    for place, (name, one) in enumerate(numbers.items()):
        asked += _number_scan(f"n{place}", _plain(name, schema), one)
    texts = [lazy.select(pl.col(name).cast(pl.String).alias("_value")).group_by("_value").len("_n") for name in categories]
    first, *tables = pl.collect_all([lazy.select(asked), *texts], engine="streaming")
    row = first.row(0, named=True)
    if row["n"] > MOST_ROWS:
        raise Refused(f"{row['n']:,} rows are too many for one profile", hint="profile parts of the table and merge them")
    made = {name: _number_found(f"n{place}", row, one) for place, (name, one) in enumerate(numbers.items())}
    again = [name for place, (name, one) in enumerate(numbers.items()) if _doubtful(made[name], row, f"n{place}", one)]
    if again:
        made |= _bounded(lazy, schema, {name: numbers[name] for name in again})
    for (name, values), table in zip(categories.items(), tables, strict=True):
        made[name] = _value_found(table, int(row["n"]), values)
    return made


def _plain(name: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    column = pl.col(name)
    if schema[name].is_temporal():
        column = column.to_physical()
    return column if schema[name] == pl.Float64 else column.cast(pl.Float64)


def _number_scan(key: str, x: pl.Expr, asked: Numbers, apart: pl.Expr | None = None) -> list[pl.Expr]:
    if apart is None:
        scale = asked.grid.unit * ROOT
        apart = x * scale - asked.grid.centre * scale
    made = [
        x.count().alias(f"{key} there"),
        x.is_finite().sum().alias(f"{key} finite"),
        x.min().alias(f"{key} low"),
        x.max().alias(f"{key} high"),
        (apart + MAGIC * ROOT).reinterpret(dtype=pl.Int64).sum().alias(f"{key} first"),
        (apart * apart + MAGIC).reinterpret(dtype=pl.Int64).sum().alias(f"{key} second"),
    ]
    made += [(x <= edge).sum().alias(f"{key} to {place}") for place, edge in enumerate(asked.edges)]
    if asked.low is not None and asked.high is not None:
        made += [(x < asked.low).sum().alias(f"{key} below"), (x <= asked.high).sum().alias(f"{key} within")]
    return made


def _number_found(key: str, row: Mapping[str, Any], asked: Numbers) -> dict[str, Any]:
    finite = int(row[f"{key} finite"])
    upto = [0, *(int(row[f"{key} to {place}"]) for place in range(len(asked.edges))), finite]
    found: dict[str, Any] = {"n": row["n"], "nulls": row["n"] - finite, "counts": tuple(np.diff(upto).tolist())}
    if asked.low is not None and asked.high is not None:
        found["outside"] = int(row[f"{key} below"]) + finite - int(row[f"{key} within"])
    there = int(row[f"{key} there"])
    found["sums"] = (_summed(row[f"{key} first"], there, MAGIC * ROOT), _summed(row[f"{key} second"], there, MAGIC))
    if finite:
        found |= {"low": float(row[f"{key} low"]) + 0.0, "high": float(row[f"{key} high"]) + 0.0}
    return found


def _summed(bits: int | None, n: int, magic: float) -> int:
    """The sum of ``n`` whole numbers from the sum of the bits of each plus ``magic``, modulo 2^64."""
    whole = ((bits or 0) - n * int(np.float64(magic).view(np.int64))) % (1 << 64)
    return whole - (1 << 64) if whole >= 1 << 63 else whole


def _doubtful(found: Mapping[str, Any], row: Mapping[str, Any], key: str, asked: Numbers) -> bool:
    """Whether the scan met numbers that the sums cannot hold: far ones, or such that are not finite."""
    if row[f"{key} there"] != row[f"{key} finite"]:
        return True
    if "low" not in found:
        return False
    centre, far = asked.grid.centre, asked.grid.far
    return bool(found["low"] <= centre - far or found["high"] >= centre + far)


def _bounded(lazy: pl.LazyFrame, schema: Mapping[str, pl.DataType], numbers: Mapping[str, Numbers]) -> dict[str, dict[str, Any]]:
    """The scan of columns with infinities or far numbers: the first become missing, the others are cut in the moments."""
    asked = [pl.len().alias("n")]
    for place, (name, one) in enumerate(numbers.items()):
        x = _plain(name, schema)
        x = pl.when(x.is_finite()).then(x)
        scale = one.grid.unit * ROOT
        limit = one.grid.far * scale
        asked += _number_scan(f"n{place}", x, one, (x * scale - one.grid.centre * scale).clip(-limit, limit))
    row = lazy.select(asked).collect(engine="streaming").row(0, named=True)
    return {name: _number_found(f"n{place}", row, one) for place, (name, one) in enumerate(numbers.items())}
