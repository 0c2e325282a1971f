"""What closed outcomes say beyond the metric, in one list: concept, calibration, slices, edge cases. All is loss or label given x."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from noria import measure
from noria.monitoring.calibration import calibration
from noria.monitoring.concept import concept, residuals, scores_of
from noria.monitoring.edges import edges
from noria.monitoring.labelled import labels
from noria.monitoring.reference import spec_of
from noria.monitoring.sample import sample_of, window_error
from noria.monitoring.slices import slices
from noria.records import Monitored, Signal
from noria.store import Home
from noria.system import System


def read_beside(system: System) -> list[str]:
    """The columns of the predictions that these monitors need: features, and what slices go by."""
    features = [feature.name for feature in system.flat_features]
    return [*features, *system.objective.slices, *system.objective.sensitive]


def against_x(home: Home, system: System, release: str, frame: pl.DataFrame, past: Sequence[Monitored]) -> list[Signal]:
    """The signals of the release's own closed rows; ``past`` are the windows before, the newest last."""
    own = [record for record in past if record.release == release]
    found = sample_of(home, system, release, own)
    if found is None:
        return []
    sample, named = found
    known = sample.labelled
    rows = measure.usable(system, frame)
    if known is None or rows.is_empty():
        return [named]
    label = labels(home, system, release, rows)
    classes = len(spec_of(home, release).classes) if system.task == "multiclass" else 0
    score = scores_of(rows, classes)
    weight = rows["_weight"].to_numpy().astype(float)
    made: list[Signal] = []
    if known.mapping is not None:
        made += calibration(known.mapping, label, score, weight, own, window_error(system, "calibration"))
    if known.loss is not None:
        points = sample.inputs.points(rows)
        finite = np.isfinite(score).all(axis=1) if score.ndim == 2 else np.isfinite(score)
        residual = np.where(finite, residuals(system, known.loss, label, score, points), np.nan)
        made += concept(system, known.loss, residual, weight, own, window_error(system, "concept"))
        made += slices(system, known, rows, residual, weight, own, window_error(system, "slice"))
        made += edges(sample, points, residual)
    return [*made, named]
