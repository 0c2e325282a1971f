"""How far ordinary windows lie from a release's profile: all windows of its reference's time at once, alone and seven at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Window, micros
from noria.measure import Profile
from noria.measure.profile import cells, places_of
from noria.measure.tally import is_number, numbers_of
from noria.monitoring import limits

SLIDE = 7
MOST = 400
Floats = NDArray[np.float64]
Distances = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Counted:
    """One column over windows: counts by cell (windows by cells), nulls, and rows with a value the reference did not have."""

    base: Floats
    counts: Floats
    nulls: Floats
    strange: Floats
    usual_nulls: float
    usual_strange: float

    def distances(self) -> dict[str, Floats]:
        """The window's ``js``, ``missing`` and ``unseen``, as ``measure.distance`` has them; NaN without a value."""
        here = self.counts.sum(axis=1)
        rows = here + self.nulls
        with np.errstate(all="ignore"):
            missing = np.abs(self.nulls / rows - self.usual_nulls)
            unseen = np.where(here > 0, np.maximum(0.0, self.strange / np.maximum(here, 1) - self.usual_strange), 0.0)
        return {"js": stats.jensen_shannon_each(self.base, self.counts), "missing": missing, "unseen": unseen}

    def sliding(self) -> Floats:
        """The Jensen-Shannon distance of every seven windows in a row, taken together."""
        sums = np.concatenate([np.zeros((1, self.counts.shape[1])), np.cumsum(self.counts, axis=0)])
        return stats.jensen_shannon_each(self.base, sums[SLIDE:] - sums[:-SLIDE])


def counted(profile: Profile, frame: pl.DataFrame, windows: NDArray[np.int64], total: int) -> dict[str, Counted]:
    """Counts every column of the profile that the frame has, by window: ``windows`` is each row's, 0 to ``total`` - 1."""
    made: dict[str, Counted] = {}
    for name, column in profile.columns.items():
        if name not in frame.columns:
            continue
        places, size = places_of(frame[name], column)
        here = places >= 0
        table = np.bincount(windows[here] * size + places[here], minlength=total * size).reshape(total, size)
        nulls = np.bincount(windows[~here], minlength=total)
        if not column.numeric:
            strange = table[:, -1] if column.values else table.sum(axis=1)
        elif column.low is None or column.high is None or not is_number(frame[name].dtype):
            strange = np.zeros(total)
        else:
            values = numbers_of(frame[name])
            with np.errstate(invalid="ignore"):
                out = here & ((values < column.low) | (values > column.high))
            strange = np.bincount(windows[out], minlength=total)
        known = column.n - column.nulls
        made[name] = Counted(
            cells(column),
            table.astype(float),
            nulls.astype(float),
            np.asarray(strange, float),
            column.nulls / column.n if column.n else 0.0,
            column.other / known if known and not column.numeric else 0.0,
        )
    return made


@dataclass(frozen=True)
class Ordinary:
    """Ordinary windows in order of time: their distances, what kind each is, and the distances of every seven in a row."""

    alone: Sequence[Distances]
    kinds: Sequence[str]
    sliding: Sequence[Distances]


def ordinary(profile: Profile, frame: pl.DataFrame, span: Window, every: timedelta) -> Ordinary:
    """The windows of ``span`` that have rows; ``frame`` has them with their ``_time``. Of more than 400 the last."""
    times = frame["_time"].dt.timestamp("us").to_numpy()
    step = every // timedelta(microseconds=1)
    numbers, windows = np.unique((times - micros(span.start) - 1) // step, return_inverse=True)
    first = max(0, len(numbers) - MOST)
    keep = windows >= first
    frame, windows, numbers = frame.filter(keep), windows[keep] - first, numbers[first:]
    made = counted(profile, frame, windows, len(numbers))
    by_column = {name: column.distances() for name, column in made.items()}
    together = {("sliding", name): column.sliding() for name, column in made.items()} if len(numbers) >= SLIDE else {}
    alone = {(kind, name): values for name, found in by_column.items() for kind, values in found.items()}
    starts: list[datetime] = [span.start + int(number) * every for number in numbers]
    return Ordinary(
        _rows(alone, len(numbers)), [limits.kind(start, every) for start in starts], _rows(together, len(numbers) - SLIDE + 1)
    )


def _rows(table: dict[tuple[str, str], Floats], total: int) -> list[Distances]:
    return [{name: float(values[k]) for name, values in table.items() if np.isfinite(values[k])} for k in range(max(0, total))]
