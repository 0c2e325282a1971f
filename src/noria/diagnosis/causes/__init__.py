"""Every cause that is tested, in one visible list. A new cause is a function from a ``Case`` to a ``Tested``, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from noria.diagnosis.case import Case
from noria.diagnosis.causes.acting import acting_changed_the_outcome, feedback_loop
from noria.diagnosis.causes.categories import category_renamed
from noria.diagnosis.causes.clocks import time_zone_shifted
from noria.diagnosis.causes.concept import gradual, recurring, sudden
from noria.diagnosis.causes.constant import constant_predictor
from noria.diagnosis.causes.data import bad_data
from noria.diagnosis.causes.duplicates import duplicates
from noria.diagnosis.causes.joins import join_broken
from noria.diagnosis.causes.labelnoise import label_noise
from noria.diagnosis.causes.labels import label_definition_changed, label_delay_changed, labels_missing
from noria.diagnosis.causes.leaks import leak
from noria.diagnosis.causes.model import miscalibration, slice_failure
from noria.diagnosis.causes.purpose import better_baseline, cost_above_value, misaligned, no_signal, threshold_stale
from noria.diagnosis.causes.schema import schema_changed
from noria.diagnosis.causes.service import fallback_storm, latency
from noria.diagnosis.causes.shift import covariate_shift, label_shift, traffic_mix
from noria.diagnosis.causes.skewed import stale_features, training_serving_skew
from noria.diagnosis.causes.software import software_fault
from noria.diagnosis.causes.source import source_late, source_missing, source_truncated
from noria.diagnosis.causes.units import unit_changed
from noria.diagnosis.tested import Tested

CAUSES: tuple[Callable[[Case], Tested], ...] = (
    source_missing,
    source_late,
    source_truncated,
    schema_changed,
    unit_changed,
    category_renamed,
    duplicates,
    time_zone_shifted,
    join_broken,
    stale_features,
    training_serving_skew,
    labels_missing,
    label_delay_changed,
    label_definition_changed,
    label_noise,
    leak,
    constant_predictor,
    latency,
    fallback_storm,
    software_fault,
    bad_data,
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
