"""The service is slow, or answers by its fallback: what reaches the user is not what the model says."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.streams import Floats
from noria.diagnosis.tested import Tested, check
from noria.records import Monitored, Scored
from noria.system import AtMost

STORM = 0.05
SLOW = "timeout"
BROKEN = "error"
HELD = "sticky"


def latency(case: Case) -> Tested:
    """Answers take too long: by the measured latency, by what timed out, or by rows scored long after they were asked."""
    act = "look at the slowest step (`noria trace` of a prediction); give the service more workers, or a cheaper model, or a longer `timeout`"
    made = [*_measured(case), *_timeouts(case), *_failed_rails(case)]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    known = [one for one in made if one.verdict is Verdict.PASS]
    kept = found or known or made or [check("latency", None, detail="latency is not measured here")]
    return Tested("latency", "deployment", act, tuple(kept), 0.93 if found else 0.0)


def fallback_storm(case: Case) -> Tested:
    """The fallback answers far more than before."""
    act = "see why it answers (the causes beside this one, and the service's log); mend that, or go back to the last release (noria rollback)"
    made = [_share(case), *_signals(case, "fallbacks", "volume")]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    known = [one for one in made if one.verdict is Verdict.PASS]
    reasons = why(case)
    slow = bool(found) and reasons.get(SLOW, 0.0) >= 0.5  # then latency is the cause, and the storm what it looks like
    return Tested("fallback storm", "deployment", act, tuple(found or known or made), 0.0 if not found else 0.6 if slow else 0.9)


def _share(case: Case) -> Check:
    """The share of answers by the fallback, against the time before."""
    name = "the model answers"
    records = [
        e.record
        for e in case.home.ledger.read(Scored, since=case.window.start - 2 * case.window.length, until=case.until)
        if e.record.n
    ]
    at = streams.broken([r.window.end for r in records], np.array([r.fallbacks / r.n for r in records], float), floor_=0.005)
    if at is None:
        n = sum(record.n for record in case.scored)
        if not n:
            return check(name, None, detail="nothing was answered")
        share = sum(record.fallbacks for record in case.scored) / n
        return check(
            name,
            True if share > STORM else None,
            size=Estimate(share, n=len(records)),
            bound=STORM,
            detail=f"{share:.1%} of {n} answers are the fallback's",
        )
    bound = max(STORM, at.before + 3 * at.usual)
    reasons = ", ".join(f"{reason} {share:.0%}" for reason, share in why(case).items())
    said = f"the fallback gives {at.after:.1%} of the answers since {at.at:%Y-%m-%d}, {at.before:.1%} before" + (
        f" ({reasons})" if reasons else ""
    )
    return check(name, at.after > bound, size=Estimate(at.after, n=at.days), bound=bound, detail=said)


def why(case: Case) -> dict[str, float]:
    """Why the fallback answered since the window's start: the shares of ``timeout`` and ``error`` (those held by an earlier one apart)."""
    return streams.once(case, "why fallback", lambda: _why(case))


def _why(case: Case) -> dict[str, float]:
    known = case.home.lake.schema("predictions") or {}
    if "_fallback" not in known or not any(record.fallbacks for record in case.scored):
        return {}
    scan = case.home.lake.scan("predictions", _time=(case.window.start, case.now))
    query = (
        f"select split_part(_fallback, ':', 1) as why, count(*) as n from t where _fallback is not null "
        f"and {streams.between('_time', case.window.start, case.now)} group by why order by n desc, why"
    )
    found = case.home.engine.sql(query, t=scan).filter(pl.col("why") != HELD)
    whole = int(found["n"].sum())
    return {row["why"]: row["n"] / whole for row in found.iter_rows(named=True)} if whole else {}


def _timeouts(case: Case) -> list[Check]:
    """Whether a fallback storm is one of answers that came too late."""
    reasons = why(case)
    if not reasons:
        return []
    share = reasons.get(SLOW, 0.0)
    storm = _share(case).verdict is Verdict.FAIL
    said = f"{share:.0%} of what the fallback answered had timed out, {reasons.get(BROKEN, 0.0):.0%} had failed"
    return [check("answers in time", storm and share >= 0.5, size=Estimate(share), bound=0.5, detail=said)]


def _measured(case: Case) -> list[Check]:
    """The latency that monitoring measured (live only), against the declared bound or the time before."""
    bound = next(
        (r.bound for r in case.system.objective.guardrails if isinstance(r, AtMost) and r.metric == "latency_p99_ms"), None
    )
    when, values = series(case.traffic, "latency p99 ms", "service")
    if not len(values):
        return []
    at = streams.broken(when, values, floor_=0.1)
    now = at.after if at is not None else float(np.median(values[-streams.LEAST_DAYS :]))
    size = Estimate(now, n=at.days if at is not None else len(values))
    if bound is not None:
        said = f"99 of 100 answers take at most {now:.3g} ms; {bound:g} ms are allowed"
        return [check("latency", now > bound, size=size, bound=bound, detail=said)]
    if at is None:
        return [check("latency", None, size=size, detail="too few windows to compare")]
    most = max(2 * at.before, at.before + 4 * at.usual)
    said = f"99 of 100 answers take at most {at.after:.3g} ms since {at.at:%Y-%m-%d}, {at.before:.3g} ms before"
    return [check("latency", at.after > most, size=size, bound=most, detail=said)]


def _failed_rails(case: Case) -> list[Check]:
    """A gate or rollout that failed on the latency it measured."""
    return [
        check("latency at the gate", True, subject=one.subject, size=one.estimate, bound=one.bound, detail=one.detail)
        for one in case.failed()
        if "latency" in one.subject or "latency" in one.name
    ] + [
        check("latency alert", True, subject=alert.subject, size=alert.size, bound=alert.bound, detail=alert.message)
        for alert in case.harmed
        if alert.name == "latency"
    ]


def _signals(case: Case, name: str, subject: str) -> list[Check]:
    """An operation's signal whose verdict failed on most of the windows since."""
    windows = [w for w in case.traffic if w.window.start >= case.window.start]
    found = [
        s
        for w in windows
        for s in w.signals
        if (s.name, s.subject) == (name, subject) and s.verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    if not found:
        return []
    share = float(np.mean([s.verdict is Verdict.FAIL for s in found]))
    said = f"{name} are beyond their bound in {share:.0%} of the windows"
    return [check(f"{name} as ever", share >= 0.5, subject=subject, size=Estimate(share, n=len(found)), bound=0.5, detail=said)]


def series(windows: list[Monitored], name: str, subject: str) -> tuple[list[datetime], Floats]:
    """A signal over the windows that have it."""
    found = [
        (w.window.end, s.value)
        for w in windows
        for s in w.signals
        if (s.name, s.subject) == (name, subject) and s.value is not None
    ]
    return [when for when, _ in found], np.array([value for _, value in found], float)
