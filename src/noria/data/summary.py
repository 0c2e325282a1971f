"""What a day of a source looked like, small enough to lie in the record of the batch that brought it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import polars as pl

from noria.records import ColumnDay, DaySummary

KEPT_DAYS = 120
KEPT_VALUES = 200
DAY = timedelta(days=1)


def summarised(rows: pl.DataFrame, columns: Mapping[str, str]) -> tuple[DaySummary, ...]:
    """One summary for each UTC day (of ``_known``) in accepted rows: counts, missing values, ranges, means, frequent values.

    A day ends at midnight and includes it. Of a long history only the newest 120 days are summarised.
    """
    if rows.is_empty():
        return ()
    end = (pl.col("_known") - timedelta(microseconds=1)).dt.truncate("1d") + DAY
    dated = rows.with_columns(end.alias("_day"))
    newest = dated["_day"].unique().sort().tail(KEPT_DAYS)
    dated = dated.filter(pl.col("_day") >= newest[0]) if len(newest) == KEPT_DAYS else dated
    numbers = [c for c, kind in columns.items() if kind in ("BIGINT", "DOUBLE", "BOOLEAN") or kind.startswith("DECIMAL")]
    texts = [c for c, kind in columns.items() if kind == "VARCHAR"]
    made = [pl.len().alias("_n"), pl.col("_known").max().alias("_newest")]
    made += [pl.col(c).null_count().alias(f"{c}\0nulls") for c in columns]
    for c in numbers:
        value = pl.col(c).cast(pl.Float64)
        made += [value.min().alias(f"{c}\0low"), value.max().alias(f"{c}\0high"), value.mean().alias(f"{c}\0mean")]
    made += [pl.col(c).n_unique().alias(f"{c}\0kinds") for c in texts]
    days = dated.group_by("_day", maintain_order=True).agg(made).sort("_day")  # in order: sums of floats are then always the same
    values = {c: _values(dated, c) for c in texts if int(days[f"{c}\0kinds"].max()) <= KEPT_VALUES}  # type: ignore[arg-type]  # a count
    return tuple(
        DaySummary(
            day=row["_day"],
            n=row["_n"],
            newest=row["_newest"],
            columns={
                c: ColumnDay(
                    nulls=row[f"{c}\0nulls"],
                    low=_short(row.get(f"{c}\0low")),
                    high=_short(row.get(f"{c}\0high")),
                    mean=_short(row.get(f"{c}\0mean")),
                    values=values[c].get(row["_day"], {}) if c in values else None,
                )
                for c in columns
            },
        )
        for row in days.iter_rows(named=True)
    )


def _values(dated: pl.DataFrame, column: str) -> dict[object, dict[str, int]]:
    counted = dated.filter(pl.col(column).is_not_null()).group_by("_day", column).len().sort("_day", column)
    found: dict[object, dict[str, int]] = {}
    for day, value, n in counted.iter_rows():
        found.setdefault(day, {})[value] = n
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


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
            columns[name] = ColumnDay(nulls=one.nulls + n, low=one.low, high=one.high, mean=one.mean, values=one.values)
            continue
        n, m = a.n - left.nulls, b.n - right.nulls
        means = [(x, k) for x, k in ((left.mean, n), (right.mean, m)) if x is not None]
        values = None
        if left.values is not None and right.values is not None:
            values = {v: left.values.get(v, 0) + right.values.get(v, 0) for v in sorted(left.values | right.values)}
        columns[name] = ColumnDay(
            nulls=left.nulls + right.nulls,
            low=min((x for x in (left.low, right.low) if x is not None), default=None),
            high=max((x for x in (left.high, right.high) if x is not None), default=None),
            mean=sum(x * k for x, k in means) / max(sum(k for _, k in means), 1) if means else None,
            values=values,
        )
    return DaySummary(day=a.day, n=a.n + b.n, newest=max(a.newest, b.newest), columns=columns)
