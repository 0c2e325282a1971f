"""The account of a diagnosis: a few sentences that a manager can read, each with the check that an engineer can look up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.symptoms import is_harm
from noria.records import Alerted, Blocked, Cause, CohortClosed, Entry, Gated, Record, RolloutMoved, Verified

NAMED = 4
LEAST = 0.01


def account(case: Case, causes: Sequence[Cause]) -> str:
    """What was seen, the likeliest cause with its proof, what else it may be, what it costs, and what to do."""
    found = [cause for cause in causes if cause.verdict is Verdict.FAIL]
    unsure = [cause.name for cause in causes if cause.verdict is Verdict.NOT_ENOUGH_DATA]
    parts = [f"What was seen: {seen(case)}."] if case.symptoms else []
    harmless = bool(case.symptoms) and not any(is_harm(entry) for entry in case.symptoms)
    if harmless:
        parts.append(_fact(case))
    if found:
        first = found[0]
        parts.append(f"The likeliest cause is {first.name} ({first.weight:.0%}): {proof(first)}.")
        others = [f"{cause.name} ({cause.weight:.0%})" for cause in found[1 : 1 + NAMED] if cause.weight >= LEAST]
        if others:
            parts.append(f"Also found: {', '.join(others)}.")
    elif case.symptoms:
        parts.append("None of the causes that can be tested was found at work.")
    elif why := blank(case, causes):
        parts.append(f"Whether anything was wrong cannot be said: {why}. {_there(case)}")
    else:
        parts.append(f"Nothing was wrong: no cause was found at work. {_calm(case)}".strip())
    lost = _lost(case)
    if lost:
        parts.append(lost)
    if found:
        parts.append(f"Go back to {found[0].step}: {found[0].act}.")
    if unsure:
        more = f" and {len(unsure) - NAMED} more" if len(unsure) > NAMED else ""
        parts.append(f"Not enough data to test: {', '.join(unsure[:NAMED])}{more}.")
    return " ".join(parts)


def blank(case: Case, causes: Sequence[Cause]) -> str:
    """Why nothing can be said of a case without symptoms; empty when something can."""
    if all(cause.verdict not in (Verdict.PASS, Verdict.FAIL) for cause in causes):
        return "no cause could be tested"
    if case.about is None or case.home.ledger.read(since=case.about.start, until=case.about.end, newest=1):
        return ""
    start, end = case.about.start, case.about.end
    closed = any(start < e.record.window.end <= end for e in case.home.ledger.read(CohortClosed))
    return "" if closed else f"nothing was recorded and no labels closed from {_day(start)} to {_day(end)}"


def _there(case: Case) -> str:
    """From when to when there are closed labels."""
    closed = [entry.record.window for entry in case.home.ledger.read(CohortClosed)]
    if not closed:
        return "No labels have closed yet."
    return f"There are closed labels from {_day(min(w.start for w in closed))} to {_day(max(w.end for w in closed))}."


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if (moment.hour, moment.minute) != (0, 0) else f"{moment:%Y-%m-%d}"


def seen(case: Case) -> str:
    """The symptoms, at most three in words."""
    some = list(dict.fromkeys(said(entry) for entry in case.symptoms))
    more = f"; and {len(some) - 3} more" if len(some) > 3 else ""
    return "; ".join(text.rstrip(".") for text in some[:3]) + more


def _fact(case: Case) -> str:
    both = case.compared
    if both is None or not both.rise.known:
        return "So far it is a fact, not harm: nothing that closed since says that the release does worse."
    if both.rise.above(0.0):
        return f"No alert of harm is open yet, but the mean loss rose by {both.rise}."
    return f"It is a fact, not harm: the mean loss moved by {both.rise}, no more than it does from day to day."


def _calm(case: Case) -> str:
    both = case.compared
    if both is None or not both.rise.known:
        return ""
    return f"Against the time before, the mean loss moved by {both.rise}."


def _lost(case: Case) -> str:
    """What it costs, as the gravest alert has it."""
    costs = [(alert.cost, alert) for alert in case.alerts if alert.cost is not None and alert.cost.value]
    if not costs:
        return ""
    cost, _ = max(costs, key=lambda pair: _size(pair[0]))
    return f"It costs about {cost} {case.system.objective.value.currency}".rstrip() + " a window."


def _size(cost: Estimate) -> float:
    return abs(cost.value or 0.0)


def proof(cause: Cause) -> str:
    """The checks that speak for a cause, in words; at most two."""
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
