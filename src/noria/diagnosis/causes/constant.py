"""A constant predictor: the model says the same of everything, because one label is so rare that it is nearly always right to."""

from __future__ import annotations

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.records import Gated

SPREAD = 0.02
FEW = 50
NOTHING = 1e-6


def constant_predictor(case: Case) -> Tested:
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
    return Tested("constant predictor", "data", act, tuple(made), 0.9 if found else 0.0)


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
    """Whether the release says the same of every row, now and ever since it answers."""
    name = "constant predictor"
    if case.recent is None:
        return check(name, None)
    spread = float(np.ptp(case.recent.score))
    before = float(np.ptp(case.before.score)) if case.before is not None else spread
    rate = float(case.recent.label.mean())
    said = f"scores spread over {spread:.3g} at a base rate of {rate:.3g}"
    if spread < NOTHING <= before:
        said += f"; over {before:.3g} before, so it is not the labels' rarity"
    return check(name, spread < NOTHING and before < NOTHING, size=Estimate(spread), bound=NOTHING, detail=said)
