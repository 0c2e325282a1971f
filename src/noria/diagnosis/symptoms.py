"""Symptoms: what has gone wrong since the last diagnosis."""

from __future__ import annotations

from noria.core import Verdict
from noria.records import Alerted, Blocked, Diagnosed, Entry, Gated, Record, RolloutMoved, Verified
from noria.store import Home

KINDS: tuple[type[Record], ...] = (Blocked, Verified, Gated, Alerted, RolloutMoved)


def new_symptoms(home: Home) -> list[list[Entry[Record]]]:
    """The symptoms since the last diagnosis, in groups that are diagnosed together: those of data, then those of the model.

    Failed gates, harm alerts that opened, rollouts rolled back or withdrawn for a failure, data that could not be taken in or that failed
    its verification. Each is a symptom once. A source's verification that fails again tomorrow is the same fault.
    """
    last = home.ledger.latest(Diagnosed)
    after = last.seq if last is not None else 0
    seen = [entry for kind in KINDS for entry in home.ledger.read(kind, after=after) if is_symptom(entry)]
    seen = [entry for entry in seen if not _known(home, entry)]
    data = [entry for entry in seen if isinstance(entry.record, Blocked | Verified)]
    model = [entry for entry in seen if not isinstance(entry.record, Blocked | Verified)]
    return [sorted(group, key=lambda entry: entry.seq) for group in (data, model) if group]


def is_symptom(entry: Entry[Record]) -> bool:
    """Whether a record says that something is wrong."""
    record = entry.record
    if isinstance(record, Alerted):
        return record.harm and record.state == "open"
    if isinstance(record, RolloutMoved):
        return record.stage in ("rolled back", "withdrawn") and record.verdict is not Verdict.PASS and bool(record.checks)
    if isinstance(record, Gated | Verified):
        return record.verdict is Verdict.FAIL
    return isinstance(record, Blocked)


def _known(home: Home, entry: Entry[Record]) -> bool:
    """Whether this is the continuation of what was diagnosed already: the same source failing the same tests, the same alert's harm."""
    if isinstance(entry.record, Alerted):
        alert = entry.record.alert
        return any(e.seq < entry.seq and e.record.alert == alert and e.record.harm for e in home.ledger.read(Alerted))
    if not isinstance(entry.record, Verified):
        return False
    newest = [e for e in home.ledger.read(Verified, newest=32) if e.record.source == entry.record.source and e.seq < entry.seq]
    if not newest or newest[-1].record.verdict is not Verdict.FAIL:
        return False
    return _failing(newest[-1].record) >= _failing(entry.record)


def _failing(record: Verified) -> set[tuple[str, str]]:
    return {(check.name, check.subject) for check in record.checks if check.verdict is Verdict.FAIL}
