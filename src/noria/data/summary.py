"""What a day of a source looked like, small enough to lie in the record of the batch that brought it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from noria.records import ColumnDay, DaySummary

KEPT_DAYS = 120
KEPT_VALUES = 200
KEPT_NUMBERS = 100
KEPT_SHAPES = 20
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
DAY = timedelta(days=1)


def summarised(
    rows: pl.DataFrame, columns: Mapping[str, str], *, keys: Sequence[str] = (), time: str = ""
) -> tuple[DaySummary, ...]:
    """One summary for each UTC day (of ``_known``) in accepted rows: counts, missing values, ranges, quantiles, frequent values, repetitions.

    A day ends at midnight and includes it. Of a long history only the newest 120 days are summarised. ``columns`` are the SQL types; ``keys``
    and ``time`` the source's own, without which repetitions under a key are those of all rows in their order.
    """
    if rows.is_empty():
        return ()
    end = (pl.col("_known") - timedelta(microseconds=1)).dt.truncate("1d") + DAY
    dated = rows.with_columns(end.alias("_day"))
    newest = dated["_day"].unique().sort().tail(KEPT_DAYS)
    dated = dated.filter(pl.col("_day") >= newest[0]) if len(newest) == KEPT_DAYS else dated
    numbers = [c for c, kind in columns.items() if kind in ("BIGINT", "DOUBLE", "BOOLEAN") or kind.startswith("DECIMAL")]
    texts = [c for c, kind in columns.items() if kind == "VARCHAR"]
    measured = [c for c in numbers if columns[c] != "BOOLEAN" and c not in keys]
    days = dated.group_by("_day", maintain_order=True).agg(
        _asked(dated, columns, numbers, texts)
    )  # sums of floats keep their order
    days = days.sort("_day")
    few = {c for c in texts if int(days[f"{c}\0kinds"].max()) <= KEPT_VALUES}  # type: ignore[arg-type]  # a count
    values = {c: _values(dated, pl.col(c)) for c in sorted(few)}
    shapes = {
        c: _values(dated, _shape(c), KEPT_SHAPES)
        for c in texts
        if c not in few or c in keys or int(days[f"{c}\0kinds"].sum()) * 2 > dated.height
    }
    grid = {c for c in measured if int(days[f"{c}\0kinds"].max()) <= KEPT_NUMBERS}  # type: ignore[arg-type]  # a count
    counted = {c: _values(dated, pl.col(c).cast(pl.Float64)) for c in sorted(grid)}
    watched = [c for c in (*texts, *numbers) if c not in keys]
    moved = _moved(dated, watched, [key for key in keys if key in dated.columns])
    again = _again(dated, [c for c, kind in columns.items() if c != time and not kind.startswith("TIMESTAMP")])

    def column(name: str, row: dict[str, Any]) -> ColumnDay:
        day = row["_day"]
        return ColumnDay(
            nulls=row[f"{name}\0nulls"],
            low=_short(row.get(f"{name}\0low")),
            high=_short(row.get(f"{name}\0high")),
            mean=_short(row.get(f"{name}\0mean")),
            values=values[name].get(day, {}) if name in values else None,
            quantiles=tuple(v for k in range(len(QUANTILES)) for v in [_short(row.get(f"{name}\0q{k}"))] if v is not None),
            numbers={_plain(v): n for v, n in counted[name].get(day, {}).items()} if name in counted else None,
            shapes=shapes[name].get(day, {}) if name in shapes else None,
            moved=moved.get(day, {}).get(name),
        )

    return tuple(
        DaySummary(
            day=row["_day"],
            n=row["_n"],
            newest=row["_newest"],
            columns={name: column(name, row) for name in columns},
            hours=tuple(row[f"_h{k}"] for k in range(24)) if "_h0" in row else (),
            again=again.get(row["_day"], 0),
        )
        for row in days.iter_rows(named=True)
    )


def _asked(dated: pl.DataFrame, columns: Mapping[str, str], numbers: list[str], texts: list[str]) -> list[pl.Expr]:
    """What is computed of every day at once."""
    made = [pl.len().alias("_n"), pl.col("_known").max().alias("_newest")]
    made += [pl.col(c).null_count().alias(f"{c}\0nulls") for c in columns]
    for c in numbers:
        value = pl.col(c).cast(pl.Float64)
        made += [value.min().alias(f"{c}\0low"), value.max().alias(f"{c}\0high"), value.mean().alias(f"{c}\0mean")]
        if columns[c] != "BOOLEAN":
            made += [value.quantile(q, "nearest").alias(f"{c}\0q{k}") for k, q in enumerate(QUANTILES)]
    made += [pl.col(c).n_unique().alias(f"{c}\0kinds") for c in (*texts, *numbers)]
    if "_time" in dated.columns:
        hour = pl.col("_time").dt.hour()
        made += [(hour == k).sum().alias(f"_h{k}") for k in range(24)]
    return made


def _values(dated: pl.DataFrame, value: pl.Expr, most: int | None = None) -> dict[object, dict[Any, int]]:
    """How often each value came, by day; of the ``most`` frequent ones only."""
    counted = dated.select("_day", value.alias("v")).drop_nulls("v").group_by("_day", "v").len()
    if most is not None:
        counted = (
            counted.sort("_day", "len", "v", descending=[False, True, False]).group_by("_day", maintain_order=True).head(most)
        )
    found: dict[object, dict[Any, int]] = {}
    for day, one, n in counted.sort("_day", "v").iter_rows():
        found.setdefault(day, {})[one] = n
    return found


def _shape(column: str) -> pl.Expr:
    """How a text is written: runs of letters as ``A``, of digits as ``9``, the rest as it is; the first 40 characters."""
    text = pl.col(column).str.slice(0, 40)
    return text.str.replace_all(r"\p{L}+", "A").str.replace_all(r"\d+", "9").str.replace_all("[A9]{2,}", "A9")


def _moved(dated: pl.DataFrame, watched: list[str], keys: list[str]) -> dict[object, dict[str, float]]:
    """The share of rows, by day and column, that say otherwise than the row before."""
    if not watched:
        return {}
    order = [c for c in ("_known", "_time", "_row") if c in dated.columns]
    rows = dated.sort(order).with_columns(pl.struct(["_day", *keys]).rank("dense").alias("_key")) if keys else dated.sort(order)
    once = not keys or int(rows["_key"].n_unique()) * 3 > rows.height  # also when every row came twice
    over = ["_day"] if once else ["_day", "_key"]
    changed = [
        pl.when(pl.col(c).is_not_null()).then(pl.col(c).ne_missing(pl.col(c).shift(1)).over(over)).alias(c) for c in watched
    ]
    first = pl.int_range(pl.len()).over(over) > 0
    made = (
        rows.select("_day", first.alias("_kept"), *changed).filter(pl.col("_kept")).group_by("_day").agg(pl.col(watched).mean())
    )
    return {row["_day"]: {c: float(f"{row[c]:.6g}") for c in watched if row[c] is not None} for row in made.iter_rows(named=True)}


def _again(dated: pl.DataFrame, columns: list[str]) -> dict[object, int]:
    """Rows that are another row of the day in all but time."""
    if len(columns) < 2:
        return {}
    kinds = (
        dated.select("_day", pl.struct(columns).alias("v")).group_by("_day").agg((pl.len() - pl.col("v").n_unique()).alias("n"))
    )
    return {day: n for day, n in kinds.iter_rows() if n}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


def _plain(value: float) -> str:
    return f"{value:.9g}"


def merged(days: Iterable[DaySummary]) -> list[DaySummary]:
    """Summaries by day, those of one day (from several batches) put together, in order."""
    found: dict[object, DaySummary] = {}
    for day in days:
        there = found.get(day.day)
        found[day.day] = day if there is None else _joined(there, day)
    return [found[day] for day in sorted(found)]  # type: ignore[type-var]  # datetimes


def _joined(a: DaySummary, b: DaySummary) -> DaySummary:
    columns = {}
    for name in a.columns | b.columns:
        left, right = a.columns.get(name), b.columns.get(name)
        if left is None or right is None:
            one, n = (left, b.n) if left is not None else (right, a.n)
            assert one is not None
            columns[name] = msgspec.structs.replace(one, nulls=one.nulls + n)
            continue
        columns[name] = _column(left, a.n - left.nulls, right, b.n - right.nulls)
    hours = tuple(x + y for x, y in zip(a.hours, b.hours, strict=True)) if a.hours and b.hours else a.hours or b.hours
    return DaySummary(
        day=a.day, n=a.n + b.n, newest=max(a.newest, b.newest), columns=columns, hours=hours, again=a.again + b.again
    )


def _column(left: ColumnDay, n: int, right: ColumnDay, m: int) -> ColumnDay:
    """A column of ``n`` and ``m`` values together; quantiles are those of both batches' quantiles, each for its part of the rows."""
    moves = [(x, k) for x, k in ((left.moved, n), (right.moved, m)) if x is not None]
    return ColumnDay(
        nulls=left.nulls + right.nulls,
        low=min((x for x in (left.low, right.low) if x is not None), default=None),
        high=max((x for x in (left.high, right.high) if x is not None), default=None),
        mean=_weighted([(x, k) for x, k in ((left.mean, n), (right.mean, m)) if x is not None]),
        values=_summed(left.values, right.values, KEPT_VALUES * 2),
        quantiles=_mixed([(left.quantiles, n), (right.quantiles, m)]),
        numbers=_summed(left.numbers, right.numbers, KEPT_NUMBERS * 2),
        shapes=_summed(left.shapes, right.shapes, KEPT_SHAPES * 2),
        moved=_weighted(moves),
    )


def _weighted(parts: list[tuple[float, int]]) -> float | None:
    return sum(x * k for x, k in parts) / max(sum(k for _, k in parts), 1) if parts else None


def _summed(left: dict[str, int] | None, right: dict[str, int] | None, most: int) -> dict[str, int] | None:
    if left is None or right is None:
        return None
    made = {v: left.get(v, 0) + right.get(v, 0) for v in sorted(left.keys() | right.keys())}
    return made if len(made) <= most else None


def _mixed(parts: list[tuple[tuple[float, ...], int]]) -> tuple[float, ...]:
    points = sorted((value, n) for values, n in parts if n for value in values)
    total = sum(n for _, n in points)
    made, upto, place = [], 0.0, 0
    for q in QUANTILES if points else ():
        while place < len(points) - 1 and upto + points[place][1] < q * total:
            upto += points[place][1]
            place += 1
        made.append(points[place][0])
    return tuple(made)
