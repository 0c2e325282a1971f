"""When to train again: one policy over the clock, decay, drift and volume, with the cheaper act, and what holds it back.

An order to train is a record under ``retraining/go/<time>``, one to calibrate anew under ``retraining/recalibrate/<time>``; what keeps a wanted
act back is recorded once for each cause, under ``retraining/blocked/<cause>``. One cause gives one order: an alert that has led to a
training does not lead to another before the schedule's length has passed. A drift from which performance does not suffer is recorded, and
trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from noria.core import Verdict, digest, duration
from noria.core.window import EPOCH
from noria.measure import closed_until
from noria.monitoring.alerts import harms, open_alerts
from noria.monitoring.change import CURRENT, EVERY
from noria.monitoring.grouping import members
from noria.monitoring.recalibration import NAME as MISCALIBRATED
from noria.monitoring.recalibration import explained, room
from noria.monitoring.suffering import DRIFTS, suffers
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
    Released,
    Retraining,
    RolloutMoved,
    TrainingSet,
    Verified,
)
from noria.store import Home
from noria.system import System

GO = "retraining/go/"
MEND = "retraining/recalibrate/"
BLOCKED = "retraining/blocked/"
YEAR = timedelta(days=365)
STALE = timedelta(days=28)
STATIC, FRESHEST = "superior to baseline", "backtest on the freshest data"
SKEW = "skew"


@dataclass(frozen=True)
class Trigger:
    """A reason to train: its text, the record behind it, and whether it asks for a new search over settings."""

    text: str
    parent: str | None = None
    tune: bool = False


def retraining(home: Home, system: System, now: datetime, blocked_by: Entry[Diagnosed] | None) -> Entry[Retraining] | None:
    """Orders a training or a recalibration, or says once why a wanted one is kept back; ``None`` when nothing is due.

    ``blocked_by`` is a diagnosis that blocks; it counts while one of its symptoms stands (``stands``), unless a person has approved
    its key. Held back by it, by a skew, by a failed verification of this turn, by the cool-down or by the budget.
    """
    if _under_way(home, now):
        return None
    last = next(reversed(_trainings(home)), None)
    triggers, harmless = _triggers(home, system, now, last)
    cheaper = None if last is None else _cheaper(home, system, now, triggers)
    if cheaper is not None:
        return cheaper.record_in(home, system, now, last, blocked_by)
    if not triggers:
        return _harmless(home, harmless)
    held = _held(home, system, now, last, blocked_by)
    texts = tuple(trigger.text for trigger in triggers)
    if held is not None:
        cause, reason, parents = held
        return _say_once(home, cause, Retraining(decision="blocked", triggers=texts, reason=reason), parents)
    parents = [trigger.parent for trigger in triggers if trigger.parent is not None]
    tune = any(trigger.tune for trigger in triggers)
    record = Retraining(decision="go", triggers=texts, reason="; ".join(texts), tune=tune)
    key = f"{GO}{now.isoformat()}"
    if home.ledger.find(key) is not None:  # an order of this very moment was given up: the next turn may give another
        return None
    return home.commit(record, key=key, parents=parents)


def gate_key(order: Entry[Retraining]) -> str:
    """Where the verdict on an order is found."""
    return f"gated/{order.key.removeprefix(GO).removeprefix('retraining/')}"


def last_order(home: Home) -> Entry[Retraining] | None:
    """The newest order, to train or to calibrate anew."""
    orders = [home.ledger.latest(Retraining, prefix=prefix) for prefix in (GO, MEND)]
    return max((order for order in orders if order is not None), key=lambda order: order.seq, default=None)


def unmet(home: Home, order: Entry[Retraining], reason: str) -> Entry[Retraining] | None:
    """Says once that an order cannot be met: it is given up, and another may be given."""
    record = Retraining(decision="blocked", triggers=order.record.triggers, reason=reason)
    return _say_once(home, _unmet_key(order), record, [order.id])


def given_up(home: Home, order: Entry[Retraining], now: datetime) -> bool:
    """Whether an order is no longer followed: it could not be met, or is four weeks old."""
    return now - order.at > STALE or _withdrawn(home, order)


def _withdrawn(home: Home, order: Entry[Retraining]) -> bool:
    """Whether an order could not be met: nothing was trained for it."""
    return home.ledger.find(BLOCKED + _unmet_key(order)) is not None


def _trainings(home: Home, since: datetime | None = None) -> list[Entry[Retraining]]:
    """The orders to train since then, oldest first, without those that could not be met."""
    return [order for order in home.ledger.read(Retraining, prefix=GO, since=since) if not _withdrawn(home, order)]


def _unmet_key(order: Entry[Retraining]) -> str:
    return f"unmet/{order.key.removeprefix('retraining/')}"


# ------------------------------------------------------------------------------------------------------------- triggers


def _triggers(
    home: Home, system: System, now: datetime, last: Entry[Retraining] | None
) -> tuple[list[Trigger], list[Entry[Alerted]]]:
    """The reasons to train, and the drifts that are none."""
    if last is None:
        return ([Trigger("first training", tune=True)] if _enough(home, system) else []), []
    policy = system.retrain
    made: list[Trigger] = []
    harmless: list[Entry[Alerted]] = []
    if policy.every is not None and now - last.at >= duration(policy.every):
        made.append(Trigger(f"schedule: {policy.every} since the last training"))
    elif policy.every is None and home.ledger.latest(Gated) is not None and _never_passed(home) and now - last.at >= STALE:
        made.append(Trigger("nothing has passed the gate yet, and there are four more weeks of labels"))
    alerts = open_alerts(home) if {"decay", "drift"} & set(policy.on) else []
    used = _used(home, now, duration(policy.every) if policy.every else STALE)
    ever = _used(home, now, YEAR)
    for entry in alerts:
        found = entry.record
        if found.alert in used or _of_another(home, system, found, now):
            continue
        if "decay" in policy.on and harms(found):
            made.append(Trigger(f"decay: {found.alert}", entry.id, tune=found.alert not in ever))
        elif "drift" in policy.on and any(name in DRIFTS for name, _ in members(found)):
            why = suffers(home, system, found, alerts)
            if why:
                made.append(Trigger(f"drift: {found.alert}", entry.id))
            else:
                harmless.append(entry)
    if "volume" in policy.on and (grown := _grown(home, last, policy.growth)) is not None:
        made.append(Trigger(grown))
    made += _outdated(home, system)
    return made, harmless


def _harmless(home: Home, drifts: Sequence[Entry[Alerted]]) -> Entry[Retraining] | None:
    """Says once of each drift that performance does not suffer from it."""
    for entry in drifts:
        found = entry.record
        reason = f"{found.subject} has moved, and performance does not suffer: a harmless shift is no reason to train"
        record = Retraining(decision="blocked", triggers=(f"drift: {found.alert}",), reason=reason)
        said = _say_once(home, f"harmless/{found.alert}", record, [entry.id])
        if said is not None:
            return said
    return None


# --------------------------------------------------------------------------------------------------------- the cheaper act


@dataclass(frozen=True)
class _Cheaper:
    """What is to be said of the alert ``found`` instead of ordering a training: calibrate anew (``now``), or wait until that can be told."""

    found: Entry[Alerted]
    triggers: tuple[Trigger, ...]
    reason: str
    now: bool

    def record_in(
        self,
        home: Home,
        system: System,
        now: datetime,
        last: Entry[Retraining] | None,
        blocked_by: Entry[Diagnosed] | None,
    ) -> Entry[Retraining] | None:
        """Commits it."""
        alert = self.found.record.alert
        texts = (f"{MISCALIBRATED}: {alert}", *(trigger.text for trigger in self.triggers))
        parents = [self.found.id, *(t.parent for t in self.triggers if t.parent is not None)]
        if not self.now:
            said = f"wait: {self.reason}; a training now would not hold what happened since"
            return _say_once(home, f"wait/{alert}", Retraining(decision="blocked", triggers=texts, reason=said), parents)
        held = _held(home, system, now, last, blocked_by, spends=False)
        if held is not None:
            cause, reason, behind = held
            record = Retraining(decision="blocked", triggers=texts, reason=reason)
            return _say_once(home, f"recalibrate/{cause}", record, behind)
        record = Retraining(decision="recalibrate", triggers=texts, reason=self.reason)
        return home.commit(record, key=f"{MEND}{now.isoformat()}", parents=list(dict.fromkeys(parents)))


def _cheaper(home: Home, system: System, now: datetime, triggers: Sequence[Trigger]) -> _Cheaper | None:
    """Calibrating anew in the place of these triggers, when that explains what was found; ``None`` when a training is (or nothing).

    A schedule or a volume that is due trains anyway, and calibrates with it. With nothing else due the closed rows are looked at once in
    seven windows, so that a fault that is no fault is not looked for every day.
    """
    policy = system.retrain
    if not policy.recalibrate or any(trigger.parent is None for trigger in triggers):
        return None
    opened = open_alerts(home)
    found = next((e for e in opened if any(name == MISCALIBRATED for name, _ in members(e.record))), None)
    if found is None or found.record.alert in _mended(home, now, duration(policy.every) if policy.every else STALE):
        return None
    until = closed_until(home)
    if until is None:
        return None
    early = until - found.record.since < room(system)
    if not triggers and (early or ((until - EPOCH) // duration(system.every)) % EVERY):
        return None
    made = explained(home, system, found.record, [e for e in opened if harms(e.record)])
    if made.verdict is Verdict.FAIL:
        return None
    if made.verdict is not Verdict.PASS and not (triggers and early):
        return None
    return _Cheaper(found, tuple(triggers), made.reason, made.verdict is Verdict.PASS)


def _mended(home: Home, now: datetime, length: timedelta) -> set[str]:
    """The alerts that have led to a recalibration within ``length``."""
    texts = [text for e in home.ledger.read(Retraining, prefix=MEND, since=now - length) for text in e.record.triggers]
    return {text.partition(": ")[2] for text in texts}


def _of_another(home: Home, system: System, found: Alerted, now: datetime) -> bool:
    """Whether an alert is about what answered before the newest release, which has not had the windows yet that would end it."""
    released = home.ledger.latest(Released)
    if released is None or found.since >= released.at:
        return False
    if found.name == "decay":
        return found.subject != released.record.bundle[:12]
    label = system.label
    ripe = duration(label.within) + duration(label.horizon) + duration(label.lateness)
    return now - released.at < 2 * CURRENT * duration(system.every) + ripe


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
    if fresh is None or newest.record.window.end - fresh < span_needed(system):
        return []
    text = f"backtest: the data since {fresh:%Y-%m-%d} refused the last candidate, and makes a whole training set by now"
    return [Trigger(text, gated.id, tune=True)]


def _used(home: Home, now: datetime, length: timedelta) -> set[str]:
    """The alerts that have led to a training: harm for the schedule's length, drift for as long as it is open."""
    used = set()
    for entry in _trainings(home, now - YEAR):
        for text in entry.record.triggers:
            kind, _, alert = text.partition(": ")
            if kind == "drift" or (kind == "decay" and now - entry.at < length):
                used.add(alert)
    return used


def _enough(home: Home, system: System) -> bool:
    """Whether the closed cohorts with labels reach over the shortest training part, the other three, and the gaps between them."""
    return span_closed(home) >= span_needed(system)


def span_closed(home: Home) -> timedelta:
    """How much time lies between the first closed cohort with labels and the last; nothing when there is none."""
    cohorts = [entry.record.window for entry in home.ledger.read(CohortClosed) if entry.record.labelled]
    return max(c.end for c in cohorts) - min(c.start for c in cohorts) if cohorts else timedelta(0)


def span_needed(system: System) -> timedelta:
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
    home: Home,
    system: System,
    now: datetime,
    last: Entry[Retraining] | None,
    blocked_by: Entry[Diagnosed] | None,
    *,
    spends: bool = True,
) -> tuple[str, str, list[str]] | None:
    """What keeps a wanted act back: its key, a sentence, the records behind it. Only a training ``spends`` of the budget."""
    if blocked_by is not None and stands(home, blocked_by, now):
        found = blocked_by.record
        name = found.causes[0].name if found.causes else "unknown"
        reason = f"the diagnosis is {name}: training now would learn the fault; go back to {found.back_to}"
        return blocked_by.key, reason, [blocked_by.id]
    skewed = _skewed(home, now)
    if skewed is not None:
        key, said, behind = skewed
        return key, f"{said}: what was served is not what training would compute; go back to data", [behind]
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
    budget = system.retrain.budget if spends else None
    if budget is not None:
        spent = _trainings(home, now - YEAR)
        if len(spent) >= budget:
            return f"budget/{spent[0].at.isoformat()}", f"the budget of {budget} trainings in 365 days is spent", [spent[0].id]
    return None


def _skewed(home: Home, now: datetime) -> tuple[str, str, str] | None:
    """A skew that stands: an open alert about it, or a diagnosis that found it, first cause or not."""
    for alert in open_alerts(home):
        if SKEW in alert.record.name:
            return f"skew/{alert.record.alert}", alert.record.message, alert.id
    for entry in reversed(home.ledger.read(Diagnosed, since=now - STALE)):
        found = [cause for cause in entry.record.causes if cause.verdict is Verdict.FAIL and SKEW in cause.name]
        if found and stands(home, entry, now):
            return f"skew/{entry.key}", f"the diagnosis found {found[0].name}", entry.id
    return None


def _say_once(home: Home, cause: str, record: Retraining, parents: Sequence[str]) -> Entry[Retraining] | None:
    key = BLOCKED + cause
    return None if home.ledger.find(key) is not None else home.commit(record, key=key, parents=parents)


def _under_way(home: Home, now: datetime) -> bool:
    """Whether a rollout runs, or the last order has no verdict yet: one at a time. What could not be met or is four weeks old is given up."""
    moved = home.ledger.latest(RolloutMoved)
    if moved is not None and moved.record.stage in ("shadow", "canary"):
        return True
    last = last_order(home)
    if last is None or given_up(home, last, now):
        return False
    return home.ledger.find(gate_key(last)) is None


def stands(home: Home, diagnosis: Entry[Diagnosed], now: datetime) -> bool:
    """Whether what was diagnosed is still so: an alert is open, nothing has come from a blocked source, a verification still fails.

    Nothing stands for longer than four weeks without another look: a fault that stays open is diagnosed again before that, and what was
    found is either confirmed by a new diagnosis or replaced.
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
