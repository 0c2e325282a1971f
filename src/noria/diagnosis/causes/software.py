"""Faults of the software that serves: what was scored is not what the model says, or is not said at all."""

from __future__ import annotations

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check

REFUSED = 0.01
LATE = 0.01
TESTS = ("score parity", "sample ratio", "refused rows", "clean process", "columns are served")


def software(case: Case) -> Tested:
    """A rollout's or gate's test of the software failed, rows are refused, or scores have frozen."""
    made = [
        check(one.name, True, subject=one.subject, size=one.estimate, bound=one.bound, detail=one.detail)
        for one in case.failed(*TESTS)
    ]
    if not made:
        made.append(check("tests of the software", False, detail="no gate or rollout among the symptoms failed one"))
    made += [_share(case, "refused", REFUSED, "could not be scored"), _frozen(case)]
    found = any(one.verdict is Verdict.FAIL for one in made)
    act = "go back to the last release that worked (noria rollback), then compare features and scores of a prediction with noria trace"
    return Tested("software", "deployment", act, tuple(made), 0.9 if found else 0.0, blocks=True)


def _share(case: Case, name: str, bound: float, what: str) -> Check:
    n = sum(record.n for record in case.scored)
    if not n:
        return check(name, None)
    share = sum(getattr(record, name) for record in case.scored) / n
    return check(
        name, share > bound, size=Estimate(share, n=len(case.scored)), bound=bound, detail=f"{share:.2%} of {n} rows {what}"
    )


def _frozen(case: Case) -> Check:
    """Whether the release, that told rows apart before, now says nearly the same for all of them while its features still move."""
    if case.recent is None or case.before is None:
        return check("frozen score", None)
    now, past = float(np.std(case.recent.score)), float(np.std(case.before.score))
    found = past > 1e-6 and now < 0.1 * past and not _constant_features(case)
    return check(
        "frozen score",
        found,
        size=Estimate(now),
        bound=0.1 * past,
        detail=f"scores spread over {now:.3g}, over {past:.3g} before",
    )


def _constant_features(case: Case) -> bool:
    """Whether every feature says the same on all rows: then a frozen score is right."""
    return case.recent is not None and all(case.recent.frame[name].n_unique() <= 1 for name in case.recent.frame.columns)
