"""From symptoms to a diagnosis: every cause is tested, those found are ranked, and the first says which step to go back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import cast

import msgspec

from noria.core import Check, Verdict, Window, digest, duration
from noria.diagnosis import ranking, streams
from noria.diagnosis.account import account
from noria.diagnosis.case import Case
from noria.diagnosis.causes import CAUSES
from noria.diagnosis.symptoms import asked, first_look, is_harm, is_symptom, lapses
from noria.diagnosis.tested import Tested
from noria.records import Alerted, Blocked, Cause, Diagnosed, Entry, Gated, Record, RolloutMoved, Step, Verified
from noria.store import Home
from noria.system import System

SURE, PASSED = 0.5, 0.85
OVER = "seen before, and over: "
MOVED = ("covariate shift", "traffic mix", "label shift")


def diagnose(home: Home, system: System, now: datetime) -> list[Entry[Diagnosed]]:
    """Diagnoses the symptoms that have come since the last diagnosis; returns the new entries, none when nothing is wrong.

    Symptoms of data and symptoms of the model are diagnosed apart, in one transaction. Each symptom is diagnosed once; one that belongs to an
    open fault makes a new diagnosis of that fault, under the same first symptom. While a fault stays open it is looked at again after 3, 7 and
    14 windows, as evidence grows, and every 14 windows from then on. A new diagnosis is written when its first cause is another, and when the
    one before would lapse.
    """
    made = []
    for one in asked(home, system, now):
        before = first_look(home, one.earlier) if one.earlier is not None else None
        record = diagnosed(Case(home, system, now, one.symptoms), before)
        same = one.place and one.earlier is not None and first_cause(record) == first_cause(one.earlier.record)
        if same and one.earlier is not None and not lapses(one.earlier, duration(system.every), now):
            continue
        key = f"diagnosis/{digest(list(record.symptoms))[:16]}{one.place}"
        parents = [entry.id for entry in one.symptoms]
        made.append((record, key, [*parents, one.earlier.id] if one.earlier is not None else parents))
    return cast(list[Entry[Diagnosed]], home.commit_all(made)) if made else []


def diagnosed(case: Case, earlier: Diagnosed | None = None) -> Diagnosed:
    """The record of one case; ``earlier`` is the first diagnosis of the same fault."""
    tested = [streams.tested(case, cause) for cause in CAUSES]
    if earlier is not None and earlier.causes:
        tested = [_as_seen(one, earlier.causes[0], tested) for one in tested]
    causes = ranked(tested)
    first = causes[0] if causes and causes[0].verdict is Verdict.FAIL else None
    blocks = first is not None and next(one.blocks for one in tested if one.name == first.name)
    return Diagnosed(
        symptoms=tuple(entry.key for entry in case.symptoms),
        window=case.window,
        causes=causes,
        back_to=_natural(case) if first is None or _harmless(case, first.name) else first.step,
        account=account(case, causes),
        blocks_retraining=blocks,
    )


def _as_seen(one: Tested, before: Cause, now: Sequence[Tested]) -> Tested:
    """A fault of data or software that was seen at work stays seen when it is over: what came of it is still to be explained. It holds back no training.

    Unless another one is found at work now where it was: then that is what the first look could not know yet.
    """
    over = one.verdict is not Verdict.FAIL and before.name == one.name and before.verdict is Verdict.FAIL
    if not over or before.weight < SURE or ranking.level(one) > 1 or one.name in ranking.INFERRED:
        return one
    where = _sources(before.evidence)
    if any(where & _sources(other.evidence) for other in now if other.verdict is Verdict.FAIL and ranking.level(other) <= 1):
        return one
    seen = tuple(
        msgspec.structs.replace(check, detail=check.detail if check.detail.startswith(OVER) else f"{OVER}{check.detail}")
        for check in before.evidence
        if check.verdict is Verdict.FAIL
    )
    return replace(one, evidence=(*seen, *one.evidence), strength=PASSED, blocks=False)


def _sources(evidence: Sequence[Check]) -> set[str]:
    """The sources that failed checks are about."""
    return {check.subject.partition(".")[0] for check in evidence if check.verdict is Verdict.FAIL and check.subject}


def of_period(home: Home, system: System, window: Window) -> Diagnosed:
    """The diagnosis of a period that somebody asks about, with the symptoms that came in it, if any; nothing is written."""
    kinds: tuple[type[Record], ...] = (Blocked, Verified, Gated, Alerted, RolloutMoved)
    entries = [e for kind in kinds for e in home.ledger.read(kind, since=window.start, until=window.end) if is_symptom(e)]
    symptoms = tuple(sorted(entries, key=lambda entry: entry.seq))
    return diagnosed(Case(home, system, window.end, symptoms, about=window))


def first_cause(record: Diagnosed) -> str:
    """The name of the first cause, when it was found at work; else empty."""
    return record.causes[0].name if record.causes and record.causes[0].verdict is Verdict.FAIL else ""


def ranked(tested: Sequence[Tested]) -> tuple[Cause, ...]:
    """The causes found, the likeliest first, then those that could not be tested, then those cleared; ``weight`` is the probability.

    The probabilities of all causes and of "none of these" sum to 1.
    """
    chances = ranking.probabilities(tested)
    order = {Verdict.FAIL: 0, Verdict.NOT_ENOUGH_DATA: 1, Verdict.NOT_MEASURED: 1, Verdict.PASS: 2}
    place = {one.name: k for k, one in enumerate(tested)}
    weights = {name: float(f"{chance:.4f}") for name, chance in chances.items()}
    ordered = sorted(tested, key=lambda one: (order[one.verdict], -weights[one.name], place[one.name]))
    return tuple(
        Cause(
            name=one.name,
            verdict=one.verdict,
            weight=weights[one.name],
            step=one.step,
            act=one.act,
            evidence=one.evidence,
            runbook=one.runbook,
        )
        for one in ordered
    )


def _harmless(case: Case, name: str) -> bool:
    """Whether other rows came and nothing is lost by it: there is nothing to go back for, until something is."""
    if name not in MOVED or any(is_harm(entry) for entry in case.symptoms):
        return False
    return case.compared is None or not case.compared.rise.above(0.0)


def _natural(case: Case) -> Step:
    """Where to look when no cause was found: data for a failed gate of data, monitoring for a fact that does no harm, otherwise development."""
    if any(isinstance(entry.record, Blocked | Verified) for entry in case.symptoms):
        return "data"
    return "development" if any(is_harm(entry) for entry in case.symptoms) else "monitoring"
