"""A constant predictor: the model says the same of everything, because one label is so rare that it is nearly always right to."""

from __future__ import annotations

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.records import CohortClosed, Gated, TrainingSet

SPREAD = 0.02
FEW = 50
NOTHING = 1e-6
PER_FEATURE, MEASURABLE = 10, 100


def constant_predictor(case: Case) -> Tested:
    """A constant predictor: one label is so rare that always saying the other is nearly always right."""
    act = f"{_request(case)}, and judge by recall and value instead of accuracy"
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
    certain = found and bool(
        case.failed("not a constant predictor")
    )  # the gate saw it: whatever else is found is beside the point
    return Tested("constant predictor", "data", act, tuple(made), 0.99 if certain else 0.9 if found else 0.0)


def _request(case: Case) -> str:
    """How many more rows with the rarer label to collect: for a model with this many features, and for a recall that can be measured.

    Ten of the rarer label for each feature (Peduzzi et al. 1996, J. Clin. Epidemiol. 49), and 100 so that a recall is known to ten points.
    """
    training = case.home.ledger.latest(TrainingSet)
    part = next((part for part in training.record.parts if part.name == "train"), None) if training is not None else None
    if training is None or part is None:
        return "collect more of the rarer label"
    kept = {e.record.window.end: e.record for e in case.home.ledger.read(CohortClosed, since=part.window.start)}
    mine = [c for end, c in kept.items() if c.mean is not None and c.window.start >= part.window.start and end <= part.window.end]
    positives = round(sum((c.mean or 0.0) * c.labelled for c in mine))
    there = min(positives, sum(c.labelled for c in mine) - positives)
    wanted = max(MEASURABLE, PER_FEATURE * len(training.record.columns))
    if there >= wanted:
        return f"weight the rarer label, of which the {there} rows to learn from would do"
    return f"collect at least {wanted - there} more rows with the rarer label ({there} are there, {wanted} are needed)"


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
