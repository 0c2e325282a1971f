"""Faults of the model itself: it says the same of everything, or its scores do not mean what they say."""

from __future__ import annotations

import numpy as np

from noria import stats
from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.records import Gated

SPREAD = 0.02
OFFSET = 0.1
SLOPE = 0.2
FEW = 50


def imbalance(case: Case) -> Tested:
    """A constant predictor: one label is so rare that always saying the other is nearly always right."""
    act = "collect more of the rare label (or weight it), and judge by recall and value instead of accuracy"
    made = []
    for failed in case.failed("not a constant predictor"):
        made.append(
            check(
                "constant predictor", True, subject=failed.subject, size=failed.estimate, bound=failed.bound, detail=failed.detail
            )
        )
    if not made:
        made = [_calibration_spread(case, entry.record) for entry in case.of(Gated)]
    if not made:
        made = [_constant(case)]
    found = any(one.verdict is Verdict.FAIL for one in made)
    return Tested("imbalance", "data", act, tuple(made), 0.9 if found else 0.0)


def _calibration_spread(case: Case, gated: Gated) -> Check:
    """Whether the candidate's scores hardly differ between its lowest and its highest rows, on the parts it was evaluated on."""
    name = "constant predictor"
    tested = [e for e in case.evaluated(gated.bundle) if e.calibration]
    if not tested:
        return check(name, None)
    scores = [score for score, _, _ in tested[-1].calibration]
    rate = sum(label * n for _, label, n in tested[-1].calibration) / sum(n for _, _, n in tested[-1].calibration)
    spread = max(scores) - min(scores)
    positives = rate * tested[-1].n
    rare = min(positives, tested[-1].n - positives)
    said = f"scores reach from {min(scores):.3g} to {max(scores):.3g}; {rare:.0f} of {tested[-1].n} rows have the rarer label"
    found = spread < SPREAD * max(min(rate, 1 - rate), 1e-9) * 10 and rare < FEW
    return check(name, found, size=Estimate(spread, n=tested[-1].blocks), bound=SPREAD, detail=said)


def _constant(case: Case) -> Check:
    name = "constant predictor"
    if case.recent is None:
        return check(name, None)
    spread = float(np.ptp(case.recent.score))
    rate = float(case.recent.label.mean())
    found = spread < 1e-6
    return check(
        name, found, size=Estimate(spread), bound=1e-6, detail=f"scores spread over {spread:.3g} at a base rate of {rate:.3g}"
    )


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
