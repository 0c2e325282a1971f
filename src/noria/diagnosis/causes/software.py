"""Faults of the software that serves: what was scored is not what the model says, or is not said at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria import stats
from noria.core import Check, Estimate, Verdict, quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes.service import BROKEN, fallback_storm, why
from noria.diagnosis.tested import Tested, check

if TYPE_CHECKING:
    from noria.store.engine import Scan

REFUSED = 0.01
LATE = 0.01
ROWS = 300
TOLERANCE = 1e-9
TESTS = ("score parity", "sample ratio", "refused rows", "clean process", "columns are served")


def software_fault(case: Case) -> Tested:
    """A rollout's or gate's test of the software failed, rows are refused, scores are not the model's, or they have frozen."""
    made = [
        check(one.name, True, subject=one.subject, size=one.estimate, bound=one.bound, detail=one.detail)
        for one in case.failed(*TESTS)
    ]
    if not made:
        made.append(check("tests of the software", False, detail="no gate or rollout among the symptoms failed one"))
    made += [_refused(case), _frozen(case), _failing(case), *_alerts(case)]
    if not any(one.verdict is Verdict.FAIL for one in made):  # dear: only where nothing else tells
        made.append(parity(case))
    found = any(one.verdict is Verdict.FAIL for one in made)
    seen = any(one.verdict is Verdict.FAIL and one.name in ("score parity", "refused") for one in made)
    act = "go back to the last release that worked (noria rollback), then compare features and scores of a prediction with noria trace"
    kept = [
        one for one in made if one.verdict is not Verdict.NOT_ENOUGH_DATA or one.name not in ("score parity", "the model fails")
    ]
    return Tested("software fault", "deployment", act, tuple(kept), 0.97 if seen else 0.9 if found else 0.0, blocks=True)


def _refused(case: Case) -> Check:
    n = sum(record.n for record in case.scored)
    if not n:
        return check("refused", None)
    share = sum(record.refused for record in case.scored) / n
    said = f"{share:.2%} of {n} rows could not be scored"
    return check("refused", share > REFUSED, size=Estimate(share, n=len(case.scored)), bound=REFUSED, detail=said)


def _failing(case: Case) -> Check:
    """Whether what the fallback answers is what failed (and not what was late)."""
    name = "the model fails"
    reasons = why(case)
    if not reasons:
        return check(name, None)
    share = reasons.get(BROKEN, 0.0)
    storm = streams.tested(case, fallback_storm).verdict is Verdict.FAIL
    said = f"{share:.0%} of what the fallback answered had failed"
    return check(name, storm and share >= 0.5, size=Estimate(share), bound=0.5, detail=said)


def _alerts(case: Case) -> list[Check]:
    return [
        check(alert.name, True, subject=alert.subject, size=alert.size, bound=alert.bound, detail=alert.message)
        for alert in case.harmed
        if alert.name in ("errors", "stuck score", "score parity")
    ]


def parity(case: Case) -> Check:
    """Whether the champion says again what was logged in its name, from the features that were logged: of at most 300 of its newest rows."""
    from noria.deployment import Bundles
    from noria.deployment.bundles import answer

    name = "score parity"
    release = case.release
    known = case.home.lake.schema("predictions")
    if release is None or known is None:
        return check(name, None)
    start = max(case.window.start, case.now - 7 * max(case.every, DAY))
    scan: Scan = case.home.lake.scan("predictions", _time=(start, case.now))
    alone = f"and {quoted('_fallback')} is null" if "_fallback" in known else ""
    query = (
        f"select * from (select * from t where _release = '{release}' and _score is not null {alone} "
        f"and {streams.between('_time', start, case.now)} order by md5(_id), _id limit {ROWS}) order by _time, _id"
    )
    rows = case.home.engine.sql(query, t=scan)
    if rows.is_empty():
        return check(name, None, detail="the release has not scored a row lately")
    said = answer(case.system, Bundles(case.home), release, rows)
    if said.refused.all():
        return check(name, None, detail="the release cannot be asked again here")
    apart = np.abs(said.score - rows["_score"].cast(pl.Float64).to_numpy())
    k = int((~(apart <= TOLERANCE)).sum())
    detail = f"{k} of {rows.height} scores differ by more than {TOLERANCE:g} when the release computes them again"
    return check(name, k > 0, size=stats.proportion(k, rows.height), bound=0.0, detail=detail)


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
