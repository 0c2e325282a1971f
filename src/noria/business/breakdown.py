"""What the decisions were worth, by version, variant, slice and month, each with its interval over windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.business.books import Books
from noria.core import Estimate

Flags = NDArray[np.bool_]

TRIVIAL = ("do nothing", "always act")
KINDS = ("version", "variant", "month")
LEAST_ROWS = 200


class Part(msgspec.Struct, frozen=True):
    """Some of the rows: ``versus`` has by policy what the decisions made more than it, per prediction (positive: they were better)."""

    kind: str
    name: str
    n: int
    windows: int
    total: float
    per_prediction: Estimate
    policies: dict[str, float] = {}
    versus: dict[str, Estimate] = {}


def part(books: Books, kind: str, name: str, rows: Flags) -> Part:
    """The figures of the chosen rows that have a value."""
    keep = rows & np.isfinite(books.value)
    value, blocks = books.value[keep], books.blocks[keep]
    found, totals = {}, {}
    for policy in books.policies:
        other = books.of(policy, keep)
        if len(other) and np.isfinite(other).all():
            found[policy] = stats.block_mean(value - other, blocks)
            totals[policy] = float(f"{other.sum():.12g}")
    return Part(
        kind=kind,
        name=name,
        n=int(keep.sum()),
        windows=len(np.unique(blocks)),
        total=float(f"{value.sum():.12g}"),
        per_prediction=stats.block_mean(value, blocks),
        policies=totals,
        versus=found,
    )


def parts(books: Books, kinds: Sequence[str] = KINDS, slices: Sequence[str] = ()) -> list[Part]:
    """The parts of every kind asked for, in order of time or size; ``slices`` are columns of the rows.

    Slices are of the rows that a release answered; while there are none, of all rows.
    """
    made = [part(books, kind, name, rows) for kind in kinds for name, rows in _groups(books, kind)]
    if books.frame.is_empty():
        return made
    acted = books.released if books.released.any() else np.ones(books.frame.height, bool)
    there = [column for column in slices if column in books.frame.columns]
    for column, value, rows in measure.by_slice(books.frame, there, LEAST_ROWS):
        if (rows & acted).any():
            made.append(part(books, f"slice {column}", value, rows & acted))
    return made


def _groups(books: Books, kind: str) -> Iterator[tuple[str, Flags]]:
    if books.frame.is_empty():
        return
    if kind == "month":
        just_before = pl.col("_time") - pl.duration(microseconds=1)  # a window is half-open at its start
        names = books.frame.select(just_before.dt.strftime("%Y-%m").alias("name"))["name"]
    elif kind == "version":
        names = books.frame["_release"].fill_null("")
    else:
        names = books.frame.select(
            pl.when(pl.col("_release").fill_null("") == "").then(pl.lit("")).otherwise(pl.col("_variant").fill_null(""))
        ).to_series()
    for name in names.unique(maintain_order=True).to_list():
        yield str(name), (names == name).to_numpy()
