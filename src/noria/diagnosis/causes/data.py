"""Faults of what came in: data that cannot be used, and labels that are late or missing."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.records import Blocked, Ingested, Verified

QUARANTINED = 0.05
LABELLED = 0.05
DELAY = 1.5
LEAST = 14


def bad_data(case: Case) -> Tested:
    """A source brought what cannot be used, failed its verification, was refused in part, or a column went missing."""
    made = [*_blocked(case), *_verified(case), *_quarantined(case), _missing(case)]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    sources = sorted({one.subject for one in found if one.subject})
    act = f"mend {', '.join(sources) or 'the source'} with its owner, then turn again: what was quarantined can come once more"
    certain = any(one.name in ("unusable data", "verification") for one in found) and bool(case.of(Blocked) or case.of(Verified))
    return Tested("bad data", "data", act, tuple(made), 1.0 if certain else 0.7 if found else 0.0, blocks=True)


def _blocked(case: Case) -> list[Check]:
    entries = case.of(Blocked) or [
        entry
        for entry in case.home.ledger.read(Blocked, since=case.now - timedelta(days=7))
        if not any(e.record.source == entry.record.source for e in case.home.ledger.read(Ingested, after=entry.seq))
    ]
    made = [
        check("unusable data", True, subject=e.record.source, detail=f"{e.record.reason} in {e.record.where}; {e.record.hint}")
        for e in entries[-5:]
    ]
    return made or [check("unusable data", False, detail="every source can be read")]


def _verified(case: Case) -> list[Check]:
    entries = case.of(Verified)
    if not entries:
        recent = case.home.ledger.read(Verified, since=case.window.start)
        newest = {entry.record.source: entry for entry in recent}
        entries = [entry for entry in newest.values() if entry.record.verdict is Verdict.FAIL]
    made = []
    for entry in entries[-5:]:
        failed = [one for one in entry.record.checks if one.verdict is Verdict.FAIL]
        said = "; ".join(f"{one.name} {one.subject}: {one.detail}".strip(": ") for one in failed[:3])
        made.append(check("verification", True, subject=entry.record.source, detail=said))
    return made or [check("verification", False, detail="no source fails its verification")]


def _quarantined(case: Case) -> list[Check]:
    made = []
    recent = case.home.ledger.read(Ingested, since=case.window.start)
    earlier = case.home.ledger.read(Ingested, since=case.window.start - 2 * case.window.length, until=case.window.start)
    for source in sorted({entry.record.source for entry in recent}):
        now, before = ([e.record for e in some if e.record.source == source] for some in (recent, earlier))
        share, usual = _share(now), _share(before)
        if share > usual + QUARANTINED:
            reasons: dict[str, int] = {}
            for one in now:
                for reason, n in one.reasons.items():
                    reasons[reason] = reasons.get(reason, 0) + n
            most = max(sorted(reasons), key=lambda name: reasons[name], default="")
            said = f"{share:.1%} of the rows were refused, {usual:.1%} before; mostly: {most}"
            made.append(check("quarantine", True, subject=source, size=Estimate(share), bound=usual + QUARANTINED, detail=said))
    return made or [check("quarantine", False, detail="no source had more rows refused than before")]


def _share(records: list[Ingested]) -> float:
    received = sum(record.received for record in records)
    return sum(record.quarantined for record in records) / received if received else 0.0


def _missing(case: Case) -> Check:
    """A column with values missing far beyond ordinary windows, on most of the windows."""
    windows = [window for window in case.traffic if window.window.start >= case.window.start and window.release is not None]
    if not windows:
        return check("missing values", None)
    sizes: dict[str, list[float]] = {}
    for window in windows:
        for signal in window.signals:
            if signal.name == "missing" and signal.bound is not None and signal.value is not None:
                sizes.setdefault(signal.subject, []).append(signal.value / max(signal.bound, 1e-9))
    if not sizes:
        return check("missing values", None)
    shares = {name: float(np.mean([size > 1 for size in values])) for name, values in sizes.items()}
    worst = max(sorted(shares), key=lambda name: shares[name])
    found = shares[worst] >= 0.5
    said = f"{worst} misses more values than ordinary windows on {shares[worst]:.0%} of the days"
    return check(
        "missing values", found, subject=worst, size=Estimate(shares[worst], n=len(sizes[worst])), bound=0.5, detail=said
    )


def leak(case: Case) -> Tested:
    """A column tells the label by itself: it is known too late in truth, or is the label by another name."""
    failed = case.failed("no leak")
    made = [
        check("columns that know too much", True, subject=f.subject, size=f.estimate, bound=f.bound, detail=f.detail)
        for f in failed
    ]
    if not made:
        looked = any(one.name == "no leak" for one in case.checks)
        said = "no column tells the label by itself" if looked else "no gate is among the symptoms"
        made = [check("columns that know too much", False, detail=said)]
    names = ", ".join(sorted({one.subject for one in failed if one.subject}))
    act = f"ask when {names or 'the column'} is known in truth; declare its delay, or leave it out"
    strength = 0.0 if not failed else 0.9 if len(failed) == len(case.failed()) else 0.7
    return Tested("leak", "data", act, tuple(made), strength)


def labels(case: Case) -> Tested:
    """Labels come later than they did, or fewer of them come."""
    act = "ask the owner of the label's source; if the delay is there to stay, declare a longer `within` or `lateness`"
    recent = [c for c in case.cohorts if c.n and c.window.start >= case.window.start]
    earlier = [c for c in case.cohorts if c.n and c.window.start < case.window.start]
    if len(earlier) < LEAST or not recent:
        return Tested(
            "late or missing labels", "data", act, (check("label coverage", None), check("label delay", None)), blocks=True
        )
    shares = [[c.labelled / c.n for c in some] for some in (recent, earlier)]
    coverage, usual = (float(np.median(share)) for share in shares)
    lowest = min(float(np.quantile(shares[1], 0.02)), usual - LABELLED)
    said = f"{coverage:.1%} of the predictions got a label, {usual:.1%} before"
    made = [check("label coverage", coverage < lowest, size=Estimate(coverage, n=len(recent)), bound=lowest, detail=said)]
    delays = [[c.delay["p90"] for c in some if "p90" in c.delay] for some in (recent, earlier)]
    if delays[0] and len(delays[1]) >= LEAST:
        now, past = float(np.median(delays[0])), float(np.median(delays[1]))
        bound = max(DELAY * past, float(np.quantile(delays[1], 0.98)))
        said = f"nine of ten labels came within {now:.3g} h, within {past:.3g} h before"
        made.append(check("label delay", now > bound, size=Estimate(now, n=len(delays[0])), bound=bound, detail=said))
    silent = [[c.silent / c.labelled for c in some if c.labelled] for some in (recent, earlier)]
    now, past = (float(np.median(shares)) if shares else 0.0 for shares in silent)
    bound = max(past + LABELLED, float(np.quantile(silent[1], 0.98)) if silent[1] else 1.0)
    said = f"{now:.1%} of the labels were made by silence, {past:.1%} before"
    made.append(check("silence", now > bound, size=Estimate(now, n=len(recent)), bound=bound, detail=said))
    found = any(one.verdict is Verdict.FAIL for one in made)
    return Tested("late or missing labels", "data", act, tuple(made), 0.8 if found else 0.0, blocks=True)
