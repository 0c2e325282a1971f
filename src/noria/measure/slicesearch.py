"""The search for slices: parts of the rows, by one column or two, on which a number is higher than elsewhere, found on one half and confirmed on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Estimate
from noria.measure.slices import MISSING, by_slice

LEAST = 60
MOST_VALUES = 24
PAIRED = 8
CLAIMED = 0.05


@dataclass(frozen=True)
class Slice:
    """A part of the rows: ``where`` names it, ``rows`` selects it; ``excess`` is how much higher the number is there, on the half that confirms.

    ``share`` is the part of the rows in it, ``explains`` the part of the number's positive total that lies in its excess.
    """

    where: tuple[tuple[str, str], ...]
    rows: NDArray[np.bool_]
    n: int
    excess: Estimate
    share: float
    explains: float

    @property
    def name(self) -> str:
        return " and ".join(f"{column} = {value}" for column, value in self.where)


def slice_search(
    frame: pl.DataFrame,
    excess: NDArray[np.float64],
    blocks: NDArray[np.int64],
    *,
    columns: Sequence[str] | None = None,
    least: int = LEAST,
    most: int = 3,
    error: float = CLAIMED,
) -> list[Slice]:
    """The slices whose ``excess`` (one number a row, such as the loss beyond what is usual for it) is higher than elsewhere, the largest sum first.

    Parameters
    ----------
    frame, columns:
        The rows, and the columns to cut by (all): frequent values of categories, quartiles of numbers, and pairs of the most promising.
    excess, blocks:
        One number and one block of time a row.
    least:
        Slices of fewer rows, on either half, are not looked at: nothing can be said of them.
    most:
        How many slices to return at most; later ones are of the rows that are in none of the earlier.
    error:
        The chance that any slice is claimed where there is none.

    Odd and even blocks are two halves (with fewer than ten blocks, odd and even rows). The candidates are ranked on the first by the t-value of
    their excess; the best few are tested on the second, each with ``error`` divided by their number (Bonferroni), so that what is claimed was
    not chosen by the numbers that confirm it. Search and confirmation apart: Chung et al. 2019, "Slice Finder"; Cox 1975, Biometrika 62.

    >>> rows = pl.DataFrame({"kind": ["a", "b"] * 400, "x": [float(k % 7) for k in range(800)]})
    >>> worse = np.where(rows["kind"].to_numpy() == "a", 1.0, 0.0) + 0.1 * np.sin(np.arange(800))
    >>> [found.name for found in slice_search(rows, worse, np.arange(800) // 40)]
    ['kind = a']
    """
    names = list(columns) if columns is not None else list(frame.columns)
    days, places = np.unique(blocks, return_inverse=True)
    by_day = len(days) >= 10
    half = (places % 2 if by_day else np.arange(len(blocks)) % 2) == 0
    left = np.isfinite(excess)
    found: list[Slice] = []
    while len(found) < most:
        one = _best(
            frame, excess, blocks if by_day else np.arange(len(blocks)), names, half=half, left=left, least=least, error=error
        )
        if one is None:
            break
        found.append(one)
        left = left & ~one.rows
        if left.sum() < 4 * least:
            break
    return found


def _best(
    frame: pl.DataFrame, excess: NDArray[np.float64], blocks: NDArray[np.int64], names: Sequence[str],
    *, half: NDArray[np.bool_], left: NDArray[np.bool_], least: int, error: float,
) -> Slice | None:  # fmt: skip
    """The best slice of the rows ``left``, confirmed; ``None`` when there is none."""
    if (left & half).sum() < 2 * least or (left & ~half).sum() < 2 * least:
        return None
    singles = [((column, value), mask) for column, value, mask in _cut(frame, names, least)]
    first = half & left
    ranked = sorted(((_t(excess, mask & first, first), k) for k, (_, mask) in enumerate(singles)), reverse=True)
    promising = [singles[k] for t, k in ranked if t > 0][:PAIRED]
    candidates: list[tuple[tuple[tuple[str, str], ...], NDArray[np.bool_]]] = [((name,), mask) for name, mask in promising]
    for a, (one, mask) in enumerate(promising):
        for other, second in promising[a + 1 :]:
            both = mask & second
            if one[0] != other[0] and (both & half).sum() >= least and (both & ~half).sum() >= least:
                candidates.append(((one, other), both))
    tried = sorted(
        ((_t(excess, mask & first, first), -len(where), k) for k, (where, mask) in enumerate(candidates)), reverse=True
    )[:4]
    tested: list[Slice] = []
    for _, _, k in tried:
        where, mask = candidates[k]
        rows = mask & left
        rest = left & ~half
        if (rows & rest).sum() < least or (rest & ~rows).sum() < least:
            continue
        made = _excess(excess, blocks, rows & rest, rest & ~rows, 1 - error / len(tried))
        if made.above(0.0) and made.value is not None:
            total = float(np.maximum(excess[left].sum(), 1e-12))
            share = float(rows.sum() / left.sum())
            tested.append(Slice(where, rows, int(rows.sum()), made, share, float(excess[rows].sum()) / total))
    return max(tested, key=lambda one: (one.excess.low or 0.0) * one.n**0.5) if tested else None


def _cut(frame: pl.DataFrame, names: Sequence[str], least: int) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Every value to look at; numbers at their quartiles, so that a slice is a range."""
    made = []
    for name in names:
        series = frame[name]
        if series.dtype == pl.Boolean or not series.dtype.is_numeric():
            series = series.cast(pl.String).fill_null(MISSING)
        elif series.n_unique() > 6:
            series = series.cast(pl.Float64)
            made += list(by_slice(series.to_frame(), [name], least, most=6))
            continue
        made += list(by_slice(series.to_frame(), [name], least, most=MOST_VALUES))
    return made


def _t(values: NDArray[np.float64], inside: NDArray[np.bool_], within: NDArray[np.bool_]) -> float:
    a, b = values[inside], values[within & ~inside]
    if len(a) < 2 or len(b) < 2:
        return 0.0
    error = float(np.sqrt(a.var() / len(a) + b.var() / len(b)))
    return float(a.mean() - b.mean()) / error if error > 0 else 0.0


def _excess(
    values: NDArray[np.float64],
    blocks: NDArray[np.int64],
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    confidence: float,
) -> Estimate:
    """mean(inside) - mean(outside), with an interval over blocks: both sides share their days, so each day gives one difference."""
    a = stats.block_mean(values[inside], blocks[inside], confidence=confidence)
    b = stats.block_mean(values[outside], blocks[outside], confidence=confidence)
    if a.value is None or b.value is None or a.low is None or b.low is None:
        return Estimate(None if a.value is None or b.value is None else a.value - b.value, n=a.n)
    half = float(np.hypot(a.value - a.low, b.value - b.low))
    value = a.value - b.value
    return Estimate(value, value - half, value + half, a.n)
