"""A release's reference rows, kept once: what monitors of several columns and of labels compare its windows with.

Rows of the time of its training set (the last eight weeks), as points; and what its test and freshest part say of scores and
labels together, since no training has seen them. All is made at the release's first window, kept as an artifact under the
hash of its content, and named by every window's record, so that a later window reads one small file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Verdict, Window, duration, from_micros, micros
from noria.monitoring import budget
from noria.monitoring.inputs import Inputs, inputs_of
from noria.monitoring.labelled import Labelled, labelled
from noria.monitoring.reference import in_season, training_span
from noria.monitoring.windows import found
from noria.records import Monitored, Signal
from noria.store import Home
from noria.system import System

NAME = "reference rows"
ROWS = 1000
WINDOW = 500
FOLDS = 4
BUFFER = 3
MOST = 40
LEAST_WINDOWS = 30
LEAST_ROWS = 30
FAR = 0.995

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Sample(msgspec.Struct, frozen=True):
    """The reference of one release.

    ``points`` are float32 of ``windows`` (the block of each row) times ``width``; ``radius`` is how far a row lies from the nearest row of
    another window at most, but for one in 200. ``domain`` and ``regions`` are the bounds of their monitors (``None``: fewer than 30
    windows).
    """

    start: int
    end: int
    inputs: Inputs
    points: bytes
    windows: tuple[int, ...]
    radius: float
    domain: float | None
    regions: float | None
    labelled: Labelled | None
    note: str = ""

    @property
    def span(self) -> Window:
        return Window(from_micros(self.start), from_micros(self.end))

    def seen(self, window: Window) -> bool:
        """Whether the reference has windows from this time of the year."""
        return in_season(self.span, window.end)

    def blocks(self) -> Ints:
        """The window of each point."""
        return np.array(self.windows, np.int64)

    def rows(self) -> Floats:
        """The points, (rows, width)."""
        return np.frombuffer(self.points, np.float32).reshape(len(self.windows), -1).astype(float)


def window_error(system: System, group: str, monitors: int = 1) -> float:
    """How often one of a group's ``monitors`` may call an ordinary window extraordinary, when two in a row make an alert."""
    return min(0.05, budget.window_error(budget.share(system, group) / monitors, budget.RULE))


def sample_of(home: Home, system: System, release: str, past: Sequence[Monitored]) -> tuple[Sample, Signal] | None:
    """The release's reference and the signal that names it; ``past`` are windows before, which may name it already."""
    named = _named(past, release)
    if named is None:
        newest = home.ledger.read(Monitored, prefix="monitored/", newest=8)
        named = _named([entry.record for entry in newest], release)
    if named is not None:
        return msgspec.msgpack.decode(home.artifacts.get(named.subject), type=Sample), named
    made = _made(home, system, release)
    if made is None:
        return None
    sha = home.artifacts.put(msgspec.msgpack.encode(made, order="deterministic"))
    return made, Signal(NAME, sha, "feature", float(len(made.windows)), None, Verdict.NOT_MEASURED, note=made.note)


def _named(past: Sequence[Monitored], release: str) -> Signal | None:
    for record in reversed(past):
        if record.release == release:
            named = next((signal for signal in record.signals if signal.name == NAME), None)
            if named is not None:
                return named
    return None


def features_of(home: Home, system: System) -> list[str]:
    """The features that the log has, in order of declaration."""
    known = home.lake.schema("predictions") or {}
    return [feature.name for feature in system.flat_features if feature.name in known]


def some(rows: int, most: int) -> Ints:
    """At most ``most`` places of ``rows``, evenly spaced."""
    return np.arange(rows) if rows <= most else np.linspace(0, rows - 1, most).astype(np.int64)


def _made(home: Home, system: System, release: str) -> Sample | None:
    span, names = training_span(home, system, release), features_of(home, system)
    if span is None or not names:
        return None
    frame = home.lake.read("predictions", columns=["_time", "_id", *names], _time=(span.start, span.end)).sort("_time", "_id")
    if frame.height < LEAST_ROWS:
        return None
    every = duration(system.every) // timedelta(microseconds=1)
    block = ((frame["_time"].dt.timestamp("us") - 1) // every).to_numpy().astype(np.int64)
    chosen = some(frame.height, ROWS)
    inputs = inputs_of(frame, names)
    kept = inputs.points(frame[chosen]).astype(np.float32)
    points, windows = kept.astype(float), block[chosen]
    near = stats.nearest(points, points, windows[:, None] == windows[None, :])
    near = near[np.isfinite(near)]
    radius = float(f"{np.quantile(near, FAR):.9g}") if len(near) else 0.0
    domain, regions = _bounds(system, inputs, frame, block, points, windows, radius)
    known, note = labelled(home, system, release, inputs, window_error(system, "slice"))
    return Sample(
        micros(span.start), micros(span.end), inputs, kept.tobytes(), tuple(windows.tolist()), radius, domain, regions, known, note
    )  # fmt: skip


def _bounds(  # noqa: PLR0917  the parts of a sample in the making
    system: System, inputs: Inputs, frame: pl.DataFrame, block: Ints, points: Floats, windows: Ints, radius: float
) -> tuple[float | None, float | None]:
    """What both monitors say of the reference's own windows, each against those at least four windows away from it: as bounds."""
    numbers = np.unique(block)
    aucs, shares = [], []
    for number in numbers[some(len(numbers), MOST)]:
        rows = np.flatnonzero(block == number)
        if len(rows) < LEAST_ROWS:
            continue
        own = inputs.points(frame[rows[some(len(rows), WINDOW)]])
        away = np.abs(windows - number) > BUFFER
        aucs.append(auc(points[away], windows[away], own))
        shares.append(outside(points[away], own, radius))
    if len(aucs) < LEAST_WINDOWS:
        return None, None
    error = window_error(system, "inputs", 2)
    spread = stats.ordinary(_logit(np.array(aucs)), error, least=LEAST_WINDOWS)
    most = stats.ordinary(np.sqrt(np.array(shares)), error, least=LEAST_WINDOWS) ** 2
    bound = float(1 / (1 + np.exp(-spread))) if np.isfinite(spread) else None
    return _short(bound), _short(most if np.isfinite(most) else None)


def auc(points: Floats, windows: Ints, own: Floats) -> float:
    """The out-of-fold AUC of telling ``own`` (in order of time) from the reference's points; folds are stretches of time in both."""
    places = np.unique(windows, return_inverse=True)[1]
    there = places * FOLDS // max(int(places.max()) + 1, 1)
    here = np.arange(len(own)) * FOLDS // max(len(own), 1)
    left, right = stats.crossed(points), stats.crossed(own)
    middle, scale = left.mean(axis=0), np.maximum(left.std(axis=0), 0.05)
    return stats.domain_auc((left - middle) / scale, (right - middle) / scale, there, here)


def outside(points: Floats, own: Floats, radius: float) -> float:
    """The share of rows that lie further than ``radius`` from every reference row."""
    return float((stats.nearest(own, points) > radius).mean()) if len(own) else float("nan")


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


def failed(record: Monitored | None, name: str, subject: str) -> bool:
    """Whether a window's signal failed."""
    signal = found(record.signals, name, subject) if record is not None else None
    return signal is not None and signal.verdict is Verdict.FAIL
