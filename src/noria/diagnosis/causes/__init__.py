"""Every cause that is tested, in one visible list. A new cause is a function from a ``Case`` to a ``Tested``, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from noria.diagnosis.case import Case
from noria.diagnosis.causes.data import bad_data, labels, leak
from noria.diagnosis.causes.model import imbalance, miscalibration
from noria.diagnosis.causes.purpose import better_baseline, misaligned, no_signal
from noria.diagnosis.causes.shift import concept_change, covariate_shift, label_shift
from noria.diagnosis.causes.software import software
from noria.diagnosis.tested import Tested

CAUSES: tuple[Callable[[Case], Tested], ...] = (
    bad_data,
    labels,
    leak,
    software,
    imbalance,
    covariate_shift,
    label_shift,
    concept_change,
    miscalibration,
    misaligned,
    no_signal,
    better_baseline,
)
