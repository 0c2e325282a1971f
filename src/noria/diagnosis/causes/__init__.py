"""Every cause that is tested, in one visible list. A new cause is a function from a ``Case`` to a ``Tested``, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from noria.diagnosis.case import Case
from noria.diagnosis.causes.acting import acting_changed_the_outcome, feedback_loop
from noria.diagnosis.causes.concept import gradual, recurring, sudden
from noria.diagnosis.causes.data import bad_data, labels, leak
from noria.diagnosis.causes.model import imbalance, miscalibration, slice_failure
from noria.diagnosis.causes.purpose import better_baseline, cost_above_value, misaligned, no_signal, threshold_stale
from noria.diagnosis.causes.shift import covariate_shift, label_shift, traffic_mix
from noria.diagnosis.causes.software import software
from noria.diagnosis.tested import Tested

CAUSES: tuple[Callable[[Case], Tested], ...] = (
    bad_data,
    labels,
    leak,
    software,
    imbalance,
    covariate_shift,
    traffic_mix,
    label_shift,
    sudden,
    gradual,
    recurring,
    miscalibration,
    slice_failure,
    feedback_loop,
    acting_changed_the_outcome,
    misaligned,
    threshold_stale,
    no_signal,
    better_baseline,
    cost_above_value,
)
