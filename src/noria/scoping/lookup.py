"""Is the label written in one column already? Then a lookup is the answer, and no model."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl

from noria.scoping.probe import Study

ERROR = 0.01
COVERED = 0.2


class Lookup(msgspec.Struct, frozen=True):
    """A column whose values determine the label: on ``covered`` of the later rows its value was seen before, and there ``error`` are wrong."""

    column: str
    covered: float
    error: float
    formula: bool = False


def find(study: Study, columns: Sequence[str]) -> Lookup | None:
    """The column that best determines the label on later rows, if one does.

    A map value → label is read off the earlier rows and tried on the later: it must know at least a fifth of them, err on at
    most 1 % (of the spread, for a number), and err at most a tenth as often as always saying the most common label.
    Looking only at rows it was not read off keeps an identifier that never comes back from looking like a lookup.
    """
    found: list[Lookup] = []
    for column in columns:
        if column not in study.frame.columns:
            continue
        made = _numeric(study, column) if study.task == "regression" else _classes(study, column)
        if made is not None:
            found.append(made)
    return min(found, key=lambda each: (each.error, -each.covered, each.column), default=None)


def _classes(study: Study, column: str) -> Lookup | None:
    early, late = _sides(study, column)
    counts = (
        early.group_by("key", "label").agg(pl.col("weight").sum()).sort("key", "weight", "label", descending=[False, True, False])
    )
    best = counts.group_by("key", maintain_order=True).first().select("key", said="label")
    joined = late.join(best, on="key", how="inner", maintain_order="left")
    covered = joined.height / max(late.height, 1)
    if joined.height < 50 or covered < COVERED:
        return None
    error = _wrong(joined)
    common = early.group_by("label").agg(pl.col("weight").sum()).sort("weight", "label", descending=[True, False])["label"][0]
    prior = _wrong(joined.with_columns(said=pl.lit(common)))
    if error > ERROR or error > prior / 10:
        return None
    return Lookup(column, covered, error)


def _wrong(rows: pl.DataFrame) -> float:
    return float((rows["said"] != rows["label"]).to_numpy().mean())


def _sides(study: Study, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = pl.DataFrame(
        {"key": study.frame[column].cast(pl.String), "label": pl.Series(study.raw), "weight": pl.Series(study.weights)}
    )
    return rows[study.early.tolist()].drop_nulls("key"), rows[study.late.tolist()].drop_nulls("key")


def _numeric(study: Study, column: str) -> Lookup | None:
    """A number is looked up when a map, or a straight line through the column, leaves at most 1 % of the spread."""
    early, late = _sides(study, column)
    spread = float(np.std(study.label[study.late]))
    if not spread > 0 or late.height < 50:
        return None
    means = early.group_by("key").agg(said=pl.col("label").mean())
    joined = late.join(means, on="key", how="inner", maintain_order="left")
    if joined.height >= 50 and joined.height / late.height >= COVERED:
        error = float(np.sqrt(np.mean((joined["said"] - joined["label"]).to_numpy() ** 2))) / spread
        if error <= ERROR:
            return Lookup(column, joined.height / late.height, error)
    series = study.frame[column]
    if not series.dtype.is_numeric():
        return None
    x = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    keep = np.isfinite(x[study.early])
    if keep.sum() < 50 or np.ptp(x[study.early][keep]) == 0 or not np.isfinite(x[study.late]).all():
        return None
    slope, offset = np.polyfit(x[study.early][keep], study.label[study.early][keep], 1)
    error = float(np.sqrt(np.mean((slope * x[study.late] + offset - study.label[study.late]) ** 2))) / spread
    return Lookup(column, 1.0, error, formula=True) if error <= ERROR else None
