"""What monitoring compares with, made once with the training set and carried in the bundle.

``profile``: the features of the training part. ``score``: the score out of sample (validation, test and freshest part; labels are not looked
at). ``windows``: how far each block of time, of any part, lies from the profile: per column and for the largest column, sorted, with their
number. A threshold is a quantile of these: ordinary days differ from the whole by weekday, weather and chance. ``loss``: the candidate's mean
loss in each bin of each column on the validation part, from which monitoring tells which drift matters.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.development.frames import Floats, Frames, rounded
from noria.measure.profile import Column, Profile, places_of
from noria.stats import jensen_shannon_each
from noria.system import System

LEAST_ROWS = 30
MOST_WINDOWS = 400
UNSEEN_PARTS = ("validate", "test", "fresh")


def reference(system: System, frames: Frames, columns: tuple[str, ...]) -> dict[str, Any]:
    """The profile of the features and the windows' distances from it: the same for every candidate of a training set."""
    names = [name for name in columns if name in frames["train"].columns]
    made = measure.profile(frames["train"], names)
    rows = pl.concat([frames[part].select("_time", *names) for part in ("train", *UNSEEN_PARTS) if part in frames])
    blocks = measure.blocks_of(rows.get_column("_time"), system.every)
    numbers, places, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    usable = np.flatnonzero(sizes >= LEAST_ROWS)[-MOST_WINDOWS:]
    table = {
        name: _distances(rows.get_column(name), column, places, len(numbers))[usable] for name, column in made.columns.items()
    }
    largest = np.nanmax(np.vstack([*table.values(), np.zeros(len(usable))]), axis=0)
    windows = {
        "every": system.every,
        "n": len(usable),
        "columns": {name: _sorted(values) for name, values in table.items()},
        "largest": _sorted(largest),
    }
    return {"profile": msgspec.to_builtins(made), "windows": windows}


def score_profile(score: Floats) -> dict[str, Any]:
    """The profile of scores, as one column named ``score`` (the largest probability, for several classes)."""
    flat = score.max(axis=1) if score.ndim == 2 else score
    made: dict[str, Any] = msgspec.to_builtins(measure.profile(pl.DataFrame({"score": flat}), ["score"]))
    return made


def loss_profile(profile: Profile, frame: pl.DataFrame, loss: Floats | None) -> dict[str, Any]:
    """How the loss of rows (lower is better; NaN where there is none) is spread over the bins of the profile's columns.

    For each column the number of rows and their mean loss in each bin, the missing values last; empty without 30 rows.
    """
    if loss is None or np.isfinite(loss).sum() < LEAST_ROWS:
        return {}
    keep = np.isfinite(loss)
    kept, rows = loss[keep], frame.filter(keep)
    columns = {}
    for name, column in profile.columns.items():
        if name not in rows.columns:
            continue
        places, size = places_of(rows.get_column(name), column)
        places = np.where(places < 0, size, places)
        n = np.bincount(places, minlength=size + 1)
        means = np.bincount(places, weights=kept, minlength=size + 1) / np.maximum(n, 1)
        columns[name] = {"n": n.tolist(), "mean": [rounded(float(m)) or 0.0 for m in means]}
    return {
        "n": len(kept),
        "mean": rounded(float(kept.mean())),
        "variance": rounded(float(kept.var())),
        "columns": columns,
    }


def _distances(series: pl.Series, column: Column, places: NDArray[np.int64], windows: int) -> Floats:
    """The Jensen-Shannon distance of each window from the profile, over the profile's own bins and in one scan; NaN without a value."""
    cells, size = places_of(series, column)
    here = cells >= 0
    counts = np.bincount(places[here] * size + cells[here], minlength=windows * size).reshape(windows, size)
    base = np.array(column.counts if column.numeric else (*column.counts, column.other), dtype=float)
    return jensen_shannon_each(base, counts.astype(float))


def _sorted(values: Floats) -> list[float]:
    return [rounded(float(v)) or 0.0 for v in np.sort(values[np.isfinite(values)])]
