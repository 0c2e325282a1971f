"""Symptoms: what has gone wrong since the last diagnosis, which of it is one fault, and when to look again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from noria import monitoring
from noria.core import Verdict, duration
from noria.records import Alerted, Blocked, Diagnosed, Entry, Gated, Monitored, Record, RolloutMoved, Turned, Verified
from noria.store import Home
from noria.system import System

KINDS: tuple[type[Record], ...] = (Blocked, Verified, Gated, Alerted, RolloutMoved)
AGAIN = (3, 7, 14)
"""After so many windows an open fault is diagnosed again: by then there is more to go by. From then on every 14 windows, or every two weeks."""
WEEKS = timedelta(days=14)
MEMORY = 32
RUN = 7


@dataclass(frozen=True)
class Asked:
    """What is to be diagnosed: symptoms of one fault, the first first. ``earlier`` is what was last said of it; ``place`` tells its diagnoses apart."""

    symptoms: tuple[Entry[Record], ...]
    earlier: Entry[Diagnosed] | None = None
    place: str = ""


def new_symptoms(home: Home) -> list[list[Entry[Record]]]:
    """The symptoms since the last diagnosis, in groups that are diagnosed together: those of data, then those of the model.

    Failed gates, alerts that opened (harm, and facts too: a person wants to know why), rollouts rolled back or withdrawn for a failure,
    data that could not be taken in or that failed its verification. Each is a symptom once. A source's verification that fails again
    tomorrow is the same fault.
    """
    last = home.ledger.latest(Diagnosed)
    after = last.seq if last is not None else 0
    seen = [entry for kind in KINDS for entry in home.ledger.read(kind, after=after) if is_symptom(entry)]
    again = _continued(home, {e.record.source for e in seen if isinstance(e.record, Verified)})
    seen = [entry for entry in seen if entry.id not in again and not _known(home, entry)]
    data = [entry for entry in seen if isinstance(entry.record, Blocked | Verified)]
    model = [entry for entry in seen if not isinstance(entry.record, Blocked | Verified)]
    return [sorted(group, key=lambda entry: entry.seq) for group in (data, model) if group]


def asked(home: Home, system: System, now: datetime) -> list[Asked]:
    """What is to be diagnosed now: new symptoms, each with the open fault that it belongs to; and open faults whose evidence has grown."""
    groups = new_symptoms(home)
    if not groups and not _watched(home):
        return []
    faults = open_faults(home, now)
    made = []
    for group in groups:
        old = next((fault for fault in reversed(faults) if _same(home, system, fault, group, now)), None)
        before = _entries(home, old) if old is not None else []
        made.append(Asked((*before, *group), old))
    taken = {one.earlier.id for one in made if one.earlier is not None}
    for fault in faults:
        windows = _due(home, system, fault, now)
        if fault.id not in taken and windows:
            made.append(Asked(tuple(_entries(home, fault)), fault, f"/{windows}"))
    return made


def open_faults(home: Home, now: datetime) -> list[Entry[Diagnosed]]:
    """The newest diagnosis of each fault of which a symptom still stands, in order."""
    newest: dict[str, Entry[Diagnosed]] = {}
    for entry in home.ledger.read(Diagnosed, newest=MEMORY):
        newest[entry.record.symptoms[0]] = entry
    return sorted((e for e in newest.values() if monitoring.stands(home, e, now)), key=lambda entry: entry.seq)


def first_look(home: Home, fault: Entry[Diagnosed]) -> Diagnosed:
    """The first diagnosis of a fault that is remembered: what began with it, and not what came while it was open."""
    first = fault.record.symptoms[0]
    return next(
        entry.record for entry in [*home.ledger.read(Diagnosed, newest=MEMORY), fault] if entry.record.symptoms[0] == first
    )


def is_symptom(entry: Entry[Record]) -> bool:
    """Whether a record says that something is wrong, or that something moved."""
    record = entry.record
    if isinstance(record, Alerted):
        return record.state == "open"
    if isinstance(record, RolloutMoved):
        return record.stage in ("rolled back", "withdrawn") and record.verdict is not Verdict.PASS and bool(record.checks)
    if isinstance(record, Gated | Verified):
        return record.verdict is Verdict.FAIL
    return isinstance(record, Blocked)


def is_harm(entry: Entry[Record]) -> bool:
    """Whether a symptom is more than a fact."""
    return not isinstance(entry.record, Alerted) or entry.record.harm


def _entries(home: Home, fault: Entry[Diagnosed]) -> list[Entry[Record]]:
    found = [home.ledger.find(key) for key in fault.record.symptoms]
    return [entry for entry in found if entry is not None]


def _same(home: Home, system: System, fault: Entry[Diagnosed], group: Sequence[Entry[Record]], now: datetime) -> bool:
    """Whether new symptoms belong to an open fault: alerts within 14 windows of its first alert, or the same source failing in more ways."""
    first = home.ledger.find(fault.record.symptoms[0])
    if first is None:
        return False
    if isinstance(first.record, Alerted):
        soon = now - first.at <= max(AGAIN) * duration(system.every)
        return soon and all(isinstance(entry.record, Alerted) for entry in group)
    if isinstance(first.record, Verified | Blocked):
        source = first.record.source
        return all(isinstance(e.record, Verified | Blocked) and e.record.source == source for e in group)
    return False


def _watched(home: Home) -> bool:
    """Whether there is a window that no finished turn has seen."""
    watched, turned = home.ledger.latest(Monitored), home.ledger.latest(Turned)
    return watched is not None and (turned is None or watched.seq > turned.seq)


def _due(home: Home, system: System, fault: Entry[Diagnosed], now: datetime) -> int:
    """The number of windows since the first symptom, when it has just passed one at which to look again; else 0.

    After the first looks only what does harm or holds training back is looked at again.
    """
    first = home.ledger.find(fault.record.symptoms[0])
    turned = home.ledger.latest(Turned)
    if first is None or not isinstance(first.record, Alerted) or not _watched(home):
        return 0
    every: timedelta = duration(system.every)
    counts = [(moment - first.at) // every for moment in (max(turned.at, fault.at) if turned is not None else fault.at, now)]
    early = max((k for k in AGAIN if counts[0] < k <= counts[1]), default=0)
    if not fault.record.blocks_retraining and not any(is_harm(entry) for entry in _entries(home, fault)):
        return early
    step = between_looks(every) // every
    last = counts[1] // step * step
    return last if last > max(counts[0], early) and last > max(AGAIN) else early


def between_looks(every: timedelta) -> timedelta:
    """How long after one look at a fault that stays open the next one comes: 14 windows, two weeks at most, one window at least.

    >>> from noria.core import duration
    >>> [str(between_looks(duration(every))) for every in ("1h", "1d", "1w")]
    ['14:00:00', '14 days, 0:00:00', '14 days, 0:00:00']
    """
    return min(max(AGAIN), max(1, WEEKS // every)) * every


def lapses(fault: Entry[Diagnosed], every: timedelta, now: datetime) -> bool:
    """Whether a diagnosis would be too old to count by the next look at it, so that a look that says the same has to be written down."""
    return now + between_looks(every) - fault.at >= monitoring.STALE


def _known(home: Home, entry: Entry[Record]) -> bool:
    """Whether this goes on with what was diagnosed already: an alert that says the same harm.

    An alert of harm that widens is news when it is headed by another finding than before.
    """
    if not isinstance(entry.record, Alerted):
        return False
    mine = [e for e in home.ledger.read(Alerted) if e.record.alert == entry.record.alert and e.seq < entry.seq]
    same = bool(mine) and (mine[-1].record.name, mine[-1].record.subject) == (entry.record.name, entry.record.subject)
    return same and any(e.record.harm for e in mine)


def _continued(home: Home, sources: Collection[str]) -> set[str]:
    """The failed verifications of these sources that fail only what failed in the week before, without a day that passed in between: by their ids."""
    made: set[str] = set()
    for source in sorted(sources):
        run: list[set[tuple[str, str]]] = []
        for entry in home.ledger.read(Verified, prefix=f"verify/{source}/"):
            if entry.record.verdict is not Verdict.FAIL:
                run = []
                continue
            failing = _failing(entry.record)
            if run and set().union(*run[-RUN:]) >= failing:
                made.add(entry.id)
            run.append(failing)
    return made


def _failing(record: Verified) -> set[tuple[str, str]]:
    return {(check.name, check.subject) for check in record.checks if check.verdict is Verdict.FAIL}
