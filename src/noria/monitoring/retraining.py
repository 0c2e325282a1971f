"""When to train again: one policy over the clock, decay, drift and volume, with what holds it back.

An order to train is a record under ``retraining/go/<time>``; what keeps a wanted training back is recorded once for each cause, under
``retraining/blocked/<cause>``. One cause gives one order: an alert that has led to a training does not lead to another before the
schedule's length has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from noria.core import Verdict, digest, duration
from noria.monitoring.alerts import harms, open_alerts
from noria.monitoring.grouping import members
from noria.records import (
    Alerted,
    Approved,
    Blocked,
    CohortClosed,
    Diagnosed,
    Entry,
    Gated,
    Ingested,
    Record,
    Retraining,
    RolloutMoved,
    TrainingSet,
    Verified,
)
from noria.store import Home
from noria.system import System

GO = "retraining/go/"
BLOCKED = "retraining/blocked/"
YEAR = timedelta(days=365)
STALE = timedelta(days=28)
STATIC, FRESHEST = "superior to baseline", "backtest on the freshest data"


@dataclass(frozen=True)
class Trigger:
    """A reason to train: its text, the record behind it, and whether it asks for a new search over settings."""

    text: str
    parent: str | None = None
    tune: bool = False


def retraining(home: Home, system: System, now: datetime, blocked_by: Entry[Diagnosed] | None) -> Entry[Retraining] | None:
    """Orders a training, or says once why a wanted one is kept back; ``None`` when nothing is due.

    ``blocked_by`` is a diagnosis that blocks; it counts while one of its symptoms stands (``stands``), unless a person has approved
    its key. Held back by it, by a failed verification of this turn, by the cool-down or by the budget.
    """
    if _under_way(home, now):
        return None
    last = home.ledger.latest(Retraining, prefix=GO)
    triggers = _triggers(home, system, now, last)
    if not triggers:
        return None
    held = _held(home, system, now, last, blocked_by)
    texts = tuple(trigger.text for trigger in triggers)
    if held is not None:
        cause, reason, parents = held
        return _say_once(home, cause, Retraining(decision="blocked", triggers=texts, reason=reason), parents)
    parents = [trigger.parent for trigger in triggers if trigger.parent is not None]
    tune = any(trigger.tune for trigger in triggers)
    record = Retraining(decision="go", triggers=texts, reason="; ".join(texts), tune=tune)
    return home.commit(record, key=f"{GO}{now.isoformat()}", parents=parents)


# ------------------------------------------------------------------------------------------------------------- triggers


def _triggers(home: Home, system: System, now: datetime, last: Entry[Retraining] | None) -> list[Trigger]:
    if last is None:
        return [Trigger("first training", tune=True)] if _enough(home, system) else []
    policy = system.retrain
    made = []
    if policy.every is not None and now - last.at >= duration(policy.every):
        made.append(Trigger(f"schedule: {policy.every} since the last training"))
    elif policy.every is None and home.ledger.latest(Gated) is not None and _never_passed(home) and now - last.at >= STALE:
        made.append(Trigger("nothing has passed the gate yet, and there are four more weeks of labels"))
    alerts = open_alerts(home) if {"decay", "drift"} & set(policy.on) else []
    used = _used(home, now, duration(policy.every) if policy.every else STALE)
    ever = _used(home, now, YEAR)
    for entry in alerts:
        found = entry.record
        if found.alert in used:
            continue
        if "decay" in policy.on and harms(found):
            made.append(Trigger(f"decay: {found.alert}", entry.id, tune=found.alert not in ever))
        elif "drift" in policy.on and any(name == "drift" for name, _ in members(found)):
            made.append(Trigger(f"drift: {found.alert}", entry.id))
    if "volume" in policy.on and (grown := _grown(home, last, policy.growth)) is not None:
        made.append(Trigger(grown))
    made += _outdated(home, system)
    return made


def _outdated(home: Home, system: System) -> list[Trigger]:
    """The trigger when the freshest data refused what the test part had let through, and there is now a whole training set from since then."""
    gated = home.ledger.latest(Gated)
    if gated is None or gated.record.verdict is not Verdict.FAIL:
        return []
    verdicts = {name: {c.verdict for c in gated.record.checks if c.name == name} for name in (STATIC, FRESHEST)}
    training = home.ledger.latest(TrainingSet)
    newest = home.ledger.furthest(CohortClosed, "cohort/")
    if verdicts[STATIC] != {Verdict.PASS} or Verdict.FAIL not in verdicts[FRESHEST] or training is None or newest is None:
        return []
    fresh = next((part.window.start for part in training.record.parts if part.name == "fresh"), None)
    if fresh is None or newest.record.window.end - fresh < _span_needed(system):
        return []
    text = f"backtest: the data since {fresh:%Y-%m-%d} refused the last candidate, and makes a whole training set by now"
    return [Trigger(text, gated.id, tune=True)]


def _used(home: Home, now: datetime, length: timedelta) -> set[str]:
    """The alerts that have led to a training: harm for the schedule's length, drift for as long as it is open."""
    used = set()
    for entry in home.ledger.read(Retraining, prefix=GO, since=now - YEAR):
        for text in entry.record.triggers:
            kind, _, alert = text.partition(": ")
            if kind == "drift" or (kind == "decay" and now - entry.at < length):
                used.add(alert)
    return used


def _enough(home: Home, system: System) -> bool:
    """Whether the closed cohorts with labels reach over the shortest training part, the other three, and the gaps between them."""
    cohorts = [entry for entry in home.ledger.read(CohortClosed) if entry.record.labelled]
    if not cohorts:
        return False
    span = max(c.record.window.end for c in cohorts) - min(c.record.window.start for c in cohorts)
    return span >= _span_needed(system)


def _span_needed(system: System) -> timedelta:
    """How much time the shortest training set takes, gaps and all."""
    parts, label = system.parts, system.label
    gap = duration(label.within) + duration(label.horizon) + duration(label.lateness)
    lengths = (parts.least, parts.validate, parts.test, parts.fresh)
    return sum((duration(length) for length in lengths), 3 * gap + duration(system.every))


def _never_passed(home: Home) -> bool:
    return all(entry.record.verdict is not Verdict.PASS for entry in home.ledger.read(Gated, newest=32))


def _grown(home: Home, last: Entry[Retraining], growth: float) -> str | None:
    """The trigger when the labels closed since the last training are ``growth`` times those it had."""
    training = home.ledger.latest(TrainingSet)
    if training is None or training.at < last.at:
        return None
    before = sum(part.n for part in training.record.parts)
    since = {e.record.window.end: e.record.labelled for e in home.ledger.read(CohortClosed, since=last.at)}
    new = sum(n for end, n in since.items() if end > max(part.window.end for part in training.record.parts))
    return f"volume: {new} labels closed since the last training, which had {before}" if new >= growth * before > 0 else None


# ------------------------------------------------------------------------------------------------------- what holds back


def _held(
    home: Home, system: System, now: datetime, last: Entry[Retraining] | None, blocked_by: Entry[Diagnosed] | None
) -> tuple[str, str, list[str]] | None:
    """What keeps a wanted training back: its key, a sentence, the records behind it."""
    if blocked_by is not None and stands(home, blocked_by, now):
        found = blocked_by.record
        name = found.causes[0].name if found.causes else "unknown"
        reason = f"the diagnosis is {name}: training now would learn the fault; go back to {found.back_to}"
        return blocked_by.key, reason, [blocked_by.id]
    failed = [e for e in home.ledger.read(Verified, newest=16) if e.at >= now and e.record.verdict is Verdict.FAIL]
    if failed:
        sources = sorted(entry.record.source for entry in failed)
        names = sorted({check.name for entry in failed for check in entry.record.checks if check.verdict is Verdict.FAIL})
        cause = f"verified/{digest([sources, names])[:16]}"
        return cause, f"verification of {', '.join(sources)} fails: {', '.join(names)}", [entry.id for entry in failed]
    if last is not None and now - last.at < duration(system.retrain.cooldown):
        return (
            f"cooldown/{last.at.isoformat()}",
            f"the cool-down of {system.retrain.cooldown} since the last training lasts",
            [last.id],
        )
    budget = system.retrain.budget
    if budget is not None:
        spent = home.ledger.read(Retraining, prefix=GO, since=now - YEAR)
        if len(spent) >= budget:
            return f"budget/{spent[0].at.isoformat()}", f"the budget of {budget} trainings in 365 days is spent", [spent[0].id]
    return None


def _say_once(home: Home, cause: str, record: Retraining, parents: Sequence[str]) -> Entry[Retraining] | None:
    key = BLOCKED + cause
    return None if home.ledger.find(key) is not None else home.commit(record, key=key, parents=parents)


def _under_way(home: Home, now: datetime) -> bool:
    """Whether a rollout runs, or the last order to train has no verdict yet: one at a time. An order of four weeks ago is given up."""
    moved = home.ledger.latest(RolloutMoved)
    if moved is not None and moved.record.stage in ("shadow", "canary"):
        return True
    last = home.ledger.latest(Retraining, prefix=GO)
    if last is None or now - last.at > STALE:
        return False
    return home.ledger.find(f"gated/{last.key.removeprefix(GO)}") is None


def stands(home: Home, diagnosis: Entry[Diagnosed], now: datetime) -> bool:
    """Whether what was diagnosed is still so: an alert is open, nothing has come from a blocked source, a verification still fails.

    Nothing stands for longer than four weeks: by then the symptom is either seen again, and diagnosed again, or it has gone.
    """
    signed = home.ledger.latest(Approved, prefix=f"approved/{diagnosis.key}")
    if (signed is not None and signed.record.granted) or now - diagnosis.at > STALE:
        return False
    opened = {entry.record.alert for entry in open_alerts(home)}
    return any(_still(home, home.ledger.find(key), opened, now) for key in diagnosis.record.symptoms)


def _still(home: Home, entry: Entry[Record] | None, opened: set[str], now: datetime) -> bool:
    if entry is None:
        return False
    record = entry.record
    if isinstance(record, Alerted):
        return record.alert in opened
    if isinstance(record, Blocked):
        return all(e.record.source != record.source for e in home.ledger.read(Ingested, after=entry.seq))
    if isinstance(record, Verified):
        newer = [e.record for e in home.ledger.read(Verified, after=entry.seq) if e.record.source == record.source]
        return (newer[-1].verdict is Verdict.FAIL) if newer else now - entry.at < timedelta(days=2)
    return True
