"""Faults of the model itself: its scores do not mean what they say."""

from __future__ import annotations

import numpy as np

from noria import stats
from noria.core import Estimate
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check

OFFSET = 0.1
SLOPE = 0.2


def miscalibration(case: Case) -> Tested:
    """Scores are off on average, or far too bold or timid. When they were right before the fault, the world has moved them, not the model."""
    act = "calibrate on the newest closed labels, and choose the decision's threshold again"
    made = []
    for failed in case.failed("calibration"):
        made.append(
            check(
                "calibration at the gate",
                True,
                subject=failed.subject,
                size=failed.estimate,
                bound=failed.bound,
                detail=failed.detail,
            )
        )
    strength = 0.8 if made else 0.0
    recent = case.recent
    if recent is None or not set(np.unique(recent.label)) <= {0.0, 1.0}:
        return Tested("miscalibration", "development", act, tuple(made) or (check("calibration", None),), strength)
    offset, slope, off = _off(recent.label, recent.score, recent.blocks)
    said = f"labels less scores {offset} on average, slope {slope}"
    made.append(check("calibration", off, size=offset, bound=OFFSET * float(recent.label.mean()), detail=said))
    if off and not strength:
        before = case.before
        was_off = before is not None and bool(_off(before.label, before.score, before.blocks)[2])
        strength = 0.6 if was_off else 0.2
    return Tested("miscalibration", "development", act, tuple(made), strength)


def _off(
    label: stats.longrun.Floats, score: stats.longrun.Floats, blocks: stats.longrun.Ints
) -> tuple[Estimate, Estimate, bool | None]:
    """Offset and slope, and whether either is off by more than a tenth of the label's mean, or a fifth."""
    made = stats.calibration_test(label, score, blocks, least=5)
    offset, slope = made["offset"], made["slope"]
    if not offset.known:
        return offset, slope, None
    bound = OFFSET * float(label.mean())
    off = offset.above(bound) or offset.below(-bound)
    return offset, slope, off or slope.above(1 + SLOPE) or slope.below(1 - SLOPE)
