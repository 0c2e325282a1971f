"""What is seen in a window of traffic beyond single columns, in one list: all columns together, labels and performance before labels, diversity."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from noria.core import Window
from noria.monitoring.concept import scores_of
from noria.monitoring.diversity import diversity
from noria.monitoring.expected import expected
from noria.monitoring.labelshift import label_shift
from noria.monitoring.multivariate import inputs_together
from noria.monitoring.sample import Sample, sample_of, window_error
from noria.records import Monitored, Signal
from noria.store import Home
from noria.system import System

BESIDE = ("_scores", "_fallback", "_act_propensity")


def together(  # noqa: PLR0917  the window, and what it is held against
    home: Home,
    system: System,
    window: Window,
    frame: pl.DataFrame,
    signals: Sequence[Signal],
    past: Sequence[Monitored],
    release: str,
) -> list[Signal]:
    """The signals of the release's own rows ``frame``; ``signals`` are those that the window has already, ``past`` the windows before."""
    own = [record for record in past if record.release == release]
    made = diversity(system, frame, own, window_error(system, "diversity"))
    found = sample_of(home, system, release, own)
    if found is None:
        return made
    sample, named = found
    made += inputs_together(sample, window, frame)
    made += _labels(sample, window, frame, window_error(system, "label shift"))
    made += expected(home, system, sample, frame, [*signals, *made], own, release)
    return [*made, named]


def _labels(sample: Sample, window: Window, frame: pl.DataFrame, error: float) -> list[Signal]:
    mixture = sample.labelled.mixture if sample.labelled is not None else None
    if mixture is None:
        return []
    return [label_shift(mixture, scores_of(frame, 0), error, seen=sample.seen(window))]
