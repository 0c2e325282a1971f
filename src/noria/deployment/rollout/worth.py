"""What decisions were worth, within the declared bounds, and known also where nothing was shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.measure import bounds, seen, value, without_label
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

Floats = NDArray[np.float64]


def labels(system: System, frame: pl.DataFrame) -> NDArray[Any]:
    """The labels of closed rows as arrays: numbers with NaN where missing, or class names with ``None``."""
    if system.task == "multiclass":
        return np.array(frame["_class"].to_list(), dtype=object)
    return numbers(frame["_label"])


def numbers(column: pl.Series) -> Floats:
    """A column as numbers, NaN where it is null."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def worth(home: Home, system: System, frame: pl.DataFrame, act: Floats, score: Floats | None = None) -> tuple[Floats, int]:
    """What each row's act was worth, and how many values lay outside the value's bounds and were put on them."""
    return clipped(system, value(home.engine, system, frame, act, labels(system, frame), score))


def worth_as_taken(
    home: Home, system: System, frame: pl.DataFrame, act: Floats, score: Floats
) -> tuple[Floats, int, NDArray[np.bool_]]:
    """The same for the acts that were taken, and which rows their acts left unseen (``Label.observed_when``).

    Such a row has the value of its act, where no label could change that: not shown is not missing.
    """
    found = value(home.engine, system, frame, act, labels(system, frame), score)
    unseen = ~np.isfinite(found) & ~seen(home.engine, system, frame, act)
    if unseen.any():
        found[unseen] = without_label(home.engine, system, frame.filter(pl.Series(unseen)), act[unseen], score[unseen])
    return *clipped(system, found), unseen


def clipped(system: System, found: Floats) -> tuple[Floats, int]:
    """Values put within the bounds of ``Value``, and how many lay outside."""
    low, high = bounds(system.objective.value)
    made = np.clip(found, -np.inf if low is None else low, np.inf if high is None else high)
    return made, int((np.isfinite(found) & (made != found)).sum())


def said(system: System, outside: int, n: int) -> str:
    """One sentence on the bounds, for whoever reads a value difference."""
    low, high = bounds(system.objective.value)
    if low is None and high is None:
        return "no bound on the value: one huge value may move the mean; the interval is approximate"
    left, right = "-∞" if low is None else f"{low:g}", "∞" if high is None else f"{high:g}"
    how = f"{outside} of {n} values lay outside and were clipped" if outside else "nothing was clipped"
    return f"values are within [{left}, {right}], {how}"
