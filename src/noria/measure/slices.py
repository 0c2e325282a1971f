"""Parts of the rows that have to hold by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

MISSING = "(missing)"


def by_slice(
    frame: pl.DataFrame, columns: Sequence[str], least_n: int = 200, *, most: int = 50
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """(column, value, which rows) for every frequent value of each column, in a stable order.

    Values with fewer than ``least_n`` rows are left out: nothing can be said of them. A numeric column with more than ``most`` values is
    cut at its quartiles. At most ``most`` values a column, the largest first.

    >>> rows = pl.DataFrame({"carrier": ["AA"] * 3 + ["UA"]})
    >>> [(column, value, int(mask.sum())) for column, value, mask in by_slice(rows, ["carrier"], least_n=2)]
    [('carrier', 'AA', 3)]
    """
    for column in columns:
        series = frame[column]
        if series.dtype.is_numeric() and series.n_unique() > most:
            series = _quartiles(series)
        texts = series.cast(pl.String).fill_null(MISSING)
        counts = texts.value_counts().rename({texts.name: "value"}).filter(pl.col("count") >= least_n)
        for value in counts.sort(["count", "value"], descending=[True, False])["value"].head(most):
            yield column, value, (texts == value).to_numpy()


def _quartiles(series: pl.Series) -> pl.Series:
    numbers = series.cast(pl.Float64).to_numpy()
    finite = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(finite, [0.25, 0.5, 0.75], method="lower")) if len(finite) else np.empty(0)
    texts = [f"{edge:.6g}" for edge in edges]
    names = [f"..{t}" for t in texts[:1]] + [f"{a}..{b}" for a, b in pairwise(texts)]
    names += [f"{t}.." for t in texts[-1:]]
    places = np.searchsorted(edges, numbers, side="left")
    made = [names[i] if ok else None for i, ok in zip(places, np.isfinite(numbers), strict=True)]
    return pl.Series(series.name, made, dtype=pl.String)
