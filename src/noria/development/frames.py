"""One part of a training set, ready for arithmetic: features, labels as numbers, weights, blocks of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.core import DataFault, Estimate, digest
from noria.records import Entry, TrainingSet
from noria.records import Part as PartRecord
from noria.system import System

Floats = NDArray[np.float64]
Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Rows:
    """``label`` is 0/1, a number, or a class number; NaN where it is missing or a class that training never had.

    ``said`` is the label as it was said (texts for classes), ``blocks`` each row's block of time, ``weights`` all positive.
    """

    name: str
    frame: pl.DataFrame
    label: Floats
    said: NDArray[Any]
    weights: Floats
    blocks: NDArray[np.int64]

    @property
    def n(self) -> int:
        return self.frame.height

    @property
    def block_count(self) -> int:
        return len(np.unique(self.blocks))

    def known(self) -> Rows:
        """Only the rows with a label."""
        return self.take(np.isfinite(self.label))

    def take(self, keep: NDArray[Any]) -> Rows:
        """Some rows, by mask or place."""
        places = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        if len(places) == self.n and np.array_equal(places, np.arange(self.n)):
            return self
        part = self.frame[places]
        return Rows(self.name, part, self.label[places], self.said[places], self.weights[places], self.blocks[places])


def rows_of(system: System, frames: Frames, part: str, classes: tuple[str, ...] = ()) -> Rows:
    """The part ``part`` of ``frames``; ``classes`` numbers the labels of a multiclass task. Raises ``DataFault`` when it is not there."""
    if part not in frames:
        raise DataFault(f"the training set has no part {part!r}", hint=f"it has {', '.join(frames)}")
    frame = frames[part]
    weights = frame.get_column("_weight").cast(pl.Float64).to_numpy() if "_weight" in frame.columns else np.ones(frame.height)
    blocks = measure.blocks_of(frame.get_column("_time"), system.gate.block)
    if system.task == "multiclass":
        said = np.array(frame.get_column("_class").to_list(), dtype=object)
        number = {name: float(place) for place, name in enumerate(classes)}
        label = np.array([number.get(name, np.nan) for name in said], dtype=np.float64)
        return Rows(part, frame, label, said, weights, blocks)
    label = frame.get_column("_label").cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return Rows(part, frame, label, label, weights, blocks)


def classes_of(system: System, frames: Frames) -> tuple[str, ...]:
    """The classes of the training part, in alphabetical order; none for other tasks."""
    if system.task != "multiclass":
        return ()
    return tuple(sorted(frames["train"].get_column("_class").drop_nulls().unique().to_list()))


def part_of(training: Entry[TrainingSet], name: str) -> PartRecord | None:
    """The record of a part, if the training set has it."""
    return next((part for part in training.record.parts if part.name == name), None)


def seed_of(*content: Any) -> int:
    """A seed that follows from content: the same for the same."""
    return int(digest(list(content))[:8], 16)


def rounded(value: float | None) -> float | None:
    """A float for a record: 12 significant digits, so that the order of threads cannot show; ``None`` when it is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.12g}")


def kept(estimate: Estimate) -> Estimate:
    """An estimate for a record."""
    return Estimate(rounded(estimate.value), rounded(estimate.low), rounded(estimate.high), estimate.n)


def spaced(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` places of ``n``, evenly spaced, in order.

    >>> spaced(10, 5).tolist(), spaced(3, 5).tolist()
    ([0, 2, 4, 6, 8], [0, 1, 2])
    """
    return np.arange(n) if n <= most else np.arange(most) * n // most


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(names)
