"""Guardrails on the business itself: bounds on what a prediction brings, and on the means of declared outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.measure.value import value
from noria.system import AtLeast, AtMost, System

if TYPE_CHECKING:
    from noria.store.engine import Engine

Floats = NDArray[np.float64]

PER_PREDICTION = "value_per_prediction"
OUTCOME = "outcome."


def business_rails(system: System) -> list[AtMost | AtLeast]:
    """The declared guardrails that bound value per prediction, or the mean of a declared outcome (``outcome.NAME``)."""
    rails = [rail for rail in system.objective.guardrails if isinstance(rail, AtMost | AtLeast)]
    return [rail for rail in rails if rail.metric == PER_PREDICTION or outcome_of(system, rail.metric) is not None]


def outcome_of(system: System, metric: str) -> str | None:
    """The declared outcome that a guardrail's ``outcome.NAME`` means, ``None`` when it means none."""
    name = metric.removeprefix(OUTCOME)
    return name if metric.startswith(OUTCOME) and name in system.outcomes else None


def business_numbers(  # noqa: PLR0917  columns of the same rows
    engine: Engine, system: System, metric: str, frame: pl.DataFrame, act: Floats, score: Floats
) -> Floats:
    """One number a closed row whose mean the guardrail bounds, NaN where it is not known.

    ``act`` is what is to be valued (not acting is 0). An outcome is what came of the act that was taken, whatever ``act`` says.
    """
    if metric == PER_PREDICTION:
        label = frame["_class"].to_numpy() if system.task == "multiclass" else _numbers(frame["_label"])
        return value(engine, system, frame, np.nan_to_num(act), label, score)
    name = outcome_of(system, metric)
    if name is None or name not in frame.columns:
        return np.full(frame.height, np.nan)
    return _numbers(frame[name])


def _numbers(series: pl.Series) -> Floats:
    return series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
