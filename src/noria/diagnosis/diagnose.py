"""From symptoms to a diagnosis: every cause is tested, those found are ranked, and the first says which step to go back to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from noria.core import Check, Verdict, digest
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes import CAUSES
from noria.diagnosis.symptoms import new_symptoms
from noria.diagnosis.tested import Tested, number
from noria.records import Alerted, Blocked, Cause, Diagnosed, Entry, Gated, Record, RolloutMoved, Step, Verified
from noria.store import Home
from noria.system import System


def diagnose(home: Home, system: System, now: datetime) -> list[Entry[Diagnosed]]:
    """Diagnoses the symptoms that have come since the last diagnosis; returns the new entries, none when nothing is wrong.

    Symptoms of data and symptoms of the model are diagnosed apart, in one transaction. Each symptom is diagnosed once.
    """
    made = []
    for group in new_symptoms(home):
        case = Case(home, system, now, tuple(group))
        record = diagnosed(case)
        made.append((record, f"diagnosis/{digest(list(record.symptoms))[:16]}", [entry.id for entry in group]))
    return cast(list[Entry[Diagnosed]], home.commit_all(made)) if made else []


def diagnosed(case: Case) -> Diagnosed:
    """The record of one case."""
    tested = [streams.tested(case, cause) for cause in CAUSES]
    causes = ranked(tested)
    first = causes[0] if causes and causes[0].verdict is Verdict.FAIL else None
    blocks = first is not None and next(one.blocks for one in tested if one.name == first.name)
    return Diagnosed(
        symptoms=tuple(entry.key for entry in case.symptoms),
        window=case.window,
        causes=causes,
        back_to=first.step if first is not None else _natural(case),
        account=account(case, causes),
        blocks_retraining=blocks,
    )


def ranked(tested: Sequence[Tested]) -> tuple[Cause, ...]:
    """The causes found, strongest first (weights sum to 1), then those that could not be tested, then those cleared."""
    total = sum(one.strength for one in tested if one.verdict is Verdict.FAIL)
    order = {Verdict.FAIL: 0, Verdict.NOT_ENOUGH_DATA: 1, Verdict.NOT_MEASURED: 1, Verdict.PASS: 2}
    place = {one.name: k for k, one in enumerate(tested)}
    ordered = sorted(tested, key=lambda one: (order[one.verdict], -one.strength, place[one.name]))
    return tuple(
        Cause(
            name=one.name,
            verdict=one.verdict,
            weight=number(one.strength / total) if one.verdict is Verdict.FAIL and total else 0.0,
            step=one.step,
            act=one.act,
            evidence=one.evidence,
            runbook=one.runbook,
        )
        for one in ordered
    )


def _natural(case: Case) -> Step:
    """Where to look when no cause was found: data for a failed gate of data, otherwise development."""
    return "data" if any(isinstance(entry.record, Blocked | Verified) for entry in case.symptoms) else "development"


def account(case: Case, causes: Sequence[Cause]) -> str:
    """The diagnosis as a paragraph that a manager can read."""
    seen = "; ".join(said(entry) for entry in case.symptoms[:3])
    more = f"; and {len(case.symptoms) - 3} more" if len(case.symptoms) > 3 else ""
    found = [cause for cause in causes if cause.verdict is Verdict.FAIL]
    unsure = [cause.name for cause in causes if cause.verdict is Verdict.NOT_ENOUGH_DATA]
    parts = [f"What was seen: {seen}{more}."]
    if found:
        first = found[0]
        parts.append(f"The likeliest cause is {first.name}: {_proof(first)}.")
        if len(found) > 1:
            parts.append(f"Also found: {', '.join(cause.name for cause in found[1:])}.")
        parts.append(f"Go back to {first.step}: {first.act}.")
    else:
        parts.append("None of the causes that can be tested was found at work.")
    if unsure:
        parts.append(f"Not enough data to test: {', '.join(unsure)}.")
    return " ".join(parts)


def _proof(cause: Cause) -> str:
    failed: list[Check] = [one for one in cause.evidence if one.verdict is Verdict.FAIL]
    return "; ".join((one.detail or one.name).rstrip(".") for one in failed[:2])


def said(entry: Entry[Record]) -> str:
    """One symptom in a sentence."""
    record = entry.record
    if isinstance(record, Alerted):
        return record.message
    if isinstance(record, Gated):
        failed = [f"{check.name} {check.subject}".strip() for check in record.checks if check.verdict is Verdict.FAIL]
        return f"the gate refused a candidate ({', '.join(failed[:4])})"
    if isinstance(record, RolloutMoved):
        return f"rollout {record.rollout} was {record.stage}: {record.reason}"
    if isinstance(record, Blocked):
        return f"the source {record.source} could not be taken in: {record.reason}"
    if isinstance(record, Verified):
        failed = [f"{check.name} {check.subject}".strip() for check in record.checks if check.verdict is Verdict.FAIL]
        return f"what {record.source} brought failed its verification ({', '.join(failed[:4])})"
    return entry.key
