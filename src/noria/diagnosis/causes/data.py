"""What is left of the faults of data when none of the specific causes explains it: unreadable, refused, failing, or with holes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes.categories import category_renamed
from noria.diagnosis.causes.clocks import time_zone_shifted
from noria.diagnosis.causes.duplicates import duplicates
from noria.diagnosis.causes.joins import join_broken
from noria.diagnosis.causes.labels import labels_missing
from noria.diagnosis.causes.purpose import misaligned, threshold_stale
from noria.diagnosis.causes.schema import EMPTY, of_schema, schema_changed, standing
from noria.diagnosis.causes.shift import SOFT, covariate_shift, traffic_mix
from noria.diagnosis.causes.skewed import stale_features
from noria.diagnosis.causes.source import source_late, source_missing, source_truncated
from noria.diagnosis.causes.units import unit_changed
from noria.diagnosis.tested import Tested, check
from noria.records import Blocked, Ingested, Verified
from noria.store.rows import DUPLICATE, NOT_READABLE

QUARANTINED = 0.05
HOLES = 0.1
MOVED, LESS = 0.6, 0.2
WORLD = SOFT | {"volume", "repeated rows"}
EXPLAINED: tuple[tuple[Callable[[Case], Tested], tuple[str, ...]], ...] = (
    (source_missing, ("freshness", "volume", "hours")),
    (source_late, ("freshness", "volume", "late rows", "hours")),
    (
        source_truncated,
        ("volume", "freshness", "hours", "lost categories", "level", "width", "range", "values move", "new numbers"),
    ),
    (schema_changed, ("missing values", "rows put aside", "new categories", "lost categories", "range", "level", "width")),
    (unit_changed, ("range", "level", "width", "new numbers")),
    (join_broken, ("new categories", "lost categories", "new forms")),
    (category_renamed, ("new categories", "lost categories", "new forms")),
    (duplicates, ("rows put aside", "volume", "repeated rows", "values move", "hours")),
    (time_zone_shifted, ("volume", "freshness", "late rows", "hours")),
    (stale_features, ("level", "width", "range", "lost categories", "values move", "repeated rows")),
    (labels_missing, ("volume", "freshness", "hours", "lost categories", "level", "width")),
    (threshold_stale, ("level", "width", "range", "new numbers")),
    (misaligned, ("level", "width", "range", "new numbers")),
)
"""Which failed verifications of a source (or of a column of it) each specific cause explains."""


def bad_data(case: Case) -> Tested:
    """A source brought what cannot be used, failed its verification, was refused in part, or misses values, and no specific cause says why."""
    made = [*_blocked(case), *_verified(case), *_quarantined(case), *_holes(case), _missing(case)]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    sources = sorted({one.subject for one in found if one.subject})
    act = f"mend {', '.join(sources) or 'the source'} with its owner, then turn again: what was quarantined can come once more"
    certain = any(one.name in ("unusable data", "verification") for one in found) and bool(case.of(Blocked) or case.of(Verified))
    left = {one.name for _, rest, whole in _unexplained(case)[0] for one in rest or whole}
    moved = bool(found) and all(one.name == "verification" for one in found) and left <= WORLD  # the world moves columns too
    world = moved and any(streams.tested(case, cause).strength > MOVED / 2 for cause in (covariate_shift, traffic_mix))
    strength = (LESS if world else MOVED if moved else 1.0) if certain or moved else 0.7 if found else 0.0
    return Tested("bad data", "data", act, tuple(made), strength, blocks=True)


def _blocked(case: Case) -> list[Check]:
    made = [
        check("unusable data", True, subject=e.record.source, detail=f"{e.record.reason} in {e.record.where}; {e.record.hint}")
        for e in standing(case)[-5:]
        if not of_schema(e.record)
    ]
    return made or [check("unusable data", False, detail="every source can be read")]


def explained(case: Case, source: str, failed: Check) -> str:
    """The specific cause that explains a failed verification of a source; empty without one."""
    for cause, names in EXPLAINED:
        if failed.name not in names:
            continue
        for one in streams.tested(case, cause).evidence:
            if one.verdict is Verdict.FAIL and one.subject in (source, f"{source}.{failed.subject}"):
                return streams.tested(case, cause).name
    return ""


def _unexplained(case: Case) -> tuple[list[tuple[str, list[Check], list[Check]]], set[str]]:
    """For each source that fails its verification: what no specific cause explains of that, and all that fails; and the causes that explain the rest."""
    return streams.once(case, "unexplained", lambda: _left(case))


def _left(case: Case) -> tuple[list[tuple[str, list[Check], list[Check]]], set[str]]:
    entries = case.of(Verified)
    if not entries:
        recent = case.home.ledger.read(Verified, since=case.window.start, until=case.until)
        newest = {entry.record.source: entry for entry in recent}
        entries = [entry for entry in newest.values() if entry.record.verdict is Verdict.FAIL]
    made, others = [], set()
    for entry in entries[-5:]:
        source = entry.record.source
        failed = [one for one in entry.record.checks if one.verdict is Verdict.FAIL]
        by = {one: explained(case, source, one) for one in failed}
        others |= {name for name in by.values() if name}
        rest = [one for one in failed if not by[one]]
        if rest or not failed:
            made.append((source, rest, failed))
    return made, others


def _verified(case: Case) -> list[Check]:
    left, others = _unexplained(case)
    made = []
    for source, rest, _ in left:
        said = "; ".join(f"{one.name} {one.subject}: {one.detail}".strip(": ") for one in rest[:3])
        made.append(check("verification", True, subject=source, detail=said))
    said = f"what fails is explained by {', '.join(sorted(others))}" if others else "no source fails its verification"
    return made or [check("verification", False, detail=said)]


def _quarantined(case: Case) -> list[Check]:
    made = []
    recent = case.home.ledger.read(Ingested, since=case.window.start, until=case.until)
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
            if most == DUPLICATE and streams.tested(case, duplicates).verdict is Verdict.FAIL:
                continue
            if most == NOT_READABLE and streams.tested(case, schema_changed).verdict is Verdict.FAIL:
                continue
            said = f"{share:.1%} of the rows were refused, {usual:.1%} before; mostly: {most}"
            made.append(check("quarantine", True, subject=source, size=Estimate(share), bound=usual + QUARANTINED, detail=said))
    return made or [check("quarantine", False, detail="no source had more rows refused than before")]


def _share(records: list[Ingested]) -> float:
    received = sum(record.received for record in records)
    return sum(record.quarantined for record in records) / received if received else 0.0


def _holes(case: Case) -> list[Check]:
    """Columns of sources that miss more values since a day, and are not empty altogether."""
    made = []
    for stream in streams.streams(case).values():
        if stream.logged:
            continue
        for column in stream.columns:
            days = [(day, cell) for day, cell in stream.of(column) if day.n >= 5]
            shares = np.array([cell.nulls / day.n for day, cell in days], float)
            at = streams.broken([day.day for day, _ in days], shares, floor_=HOLES / 4)
            if at is None or at.after >= EMPTY or at.after <= at.before + max(HOLES, 2 * at.usual):
                continue
            said = f"{column} of {stream.name} is missing in {at.after:.0%} of the rows since {at.at:%Y-%m-%d}, in {at.before:.0%} before"
            subject, bound = f"{stream.name}.{column}", at.before + HOLES
            made.append(
                check("missing values", True, subject=subject, size=Estimate(at.after, n=at.days), bound=bound, detail=said)
            )
    return made


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
    others = [
        one for cause in (schema_changed, source_missing, source_late, join_broken) for one in [streams.tested(case, cause)]
    ]
    why = next((one.name for one in others if one.verdict is Verdict.FAIL), "")
    if found and why:
        return check("missing values", False, subject=worst, detail=f"{worst} misses values: explained by {why}")
    said = f"{worst} misses more values than ordinary windows on {shares[worst]:.0%} of the days"
    return check(
        "missing values", found, subject=worst, size=Estimate(shares[worst], n=len(sizes[worst])), bound=0.5, detail=said
    )
