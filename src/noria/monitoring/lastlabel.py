"""The forecast that costs nothing: "the same as the last label", and "as often as lately", on the rows that were scored.

Both are computed from closed outcomes alone and look only at what was known at the time of asking, so that they are fair
opponents of the release in force, whether or not the declaration has them as candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import duration
from noria.system import Label, Last, System, _pairs

Floats = NDArray[np.float64]
SMOOTH = 1.0


def groups_of(system: System) -> tuple[str, ...]:
    """The columns of the predicted row by which the first declared ``Last`` goes; none when there is no such baseline."""
    for recipe in system.recipes:
        if isinstance(recipe, Last) and recipe.by:
            return tuple(name for name, _ in _pairs(recipe.by))
    return ()


def last_labels(frame: pl.DataFrame, label: Label, by: Sequence[str] = (), *, column: str = "_label") -> pl.Series:
    """For each row the label that had become final last when the row was asked (null where there was none).

    ``frame`` has ``_id``, ``_time``, ``_known``, the label's column and ``by``. A label is final once its own time is up, however early
    it came (taking labels as they come would select by outcome), and one that came late from when it came. Rows of the same moment
    take the last in order of (final, asked, id).
    """
    groups = [name for name in by if name in frame.columns]
    due = pl.col("_time") + duration(label.horizon) + duration(label.within) + duration(label.lateness)
    known = frame.filter(pl.col(column).is_not_null()).select(
        pl.max_horizontal("_known", due).alias("_at"), "_time", "_id", *groups, pl.col(column).alias("_last")
    )
    known = known.sort("_at", "_time", "_id").select("_at", *groups, "_last")
    asked = frame.with_row_index("_place").select("_place", pl.col("_time").alias("_at"), *groups).sort("_at", "_place")
    if groups:
        joined = asked.join_asof(known, on="_at", strategy="backward", by=groups, check_sortedness=False)
    else:
        joined = asked.join_asof(known, on="_at", strategy="backward")
    return joined.sort("_place")["_last"]


def pairs(label: Floats, last: Floats) -> dict[str, int]:
    """How often which 0/1 label (second figure) followed which (first figure).

    >>> pairs(np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, np.nan]))
    {'00': 0, '01': 0, '10': 1, '11': 1}
    """
    keep = np.isfinite(label) & np.isfinite(last)
    cells = np.bincount((2 * last[keep] + label[keep]).astype(int), minlength=4)
    return {"00": int(cells[0]), "01": int(cells[1]), "10": int(cells[2]), "11": int(cells[3])}


def calibrated(last: Floats, seen: Mapping[str, float]) -> Floats:
    """The last label as a probability: how often lately a positive followed such a label (``seen`` counts pairs; one more of each).

    >>> calibrated(np.array([1.0, 0.0]), {"11": 8, "10": 0, "01": 0, "00": 8}).round(2).tolist()
    [0.9, 0.1]
    """
    up = (seen.get("11", 0) + SMOOTH) / (seen.get("11", 0) + seen.get("10", 0) + 2 * SMOOTH)
    down = (seen.get("01", 0) + SMOOTH) / (seen.get("01", 0) + seen.get("00", 0) + 2 * SMOOTH)
    return np.where(np.isnan(last), np.nan, np.where(last == 1, up, down))


def look_back(label: Label, every: str, start: datetime) -> datetime:
    """How far before a window labels have to be read, so that its first rows have a last label."""
    return start - max(duration(every), duration(label.within) + duration(label.horizon) + duration(label.lateness))
