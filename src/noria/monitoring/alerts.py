"""Alerts: what the rules find becomes open, acknowledged and resolved, each said once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from noria.monitoring.link import findings_of_link
from noria.monitoring.rules import COVERED, MEMORY, Finding, History, findings
from noria.monitoring.windows import recent
from noria.records import Alerted, Approved, Entry, Monitored, Turned
from noria.store import Home
from noria.system import System

TRAFFIC = 8


def alert(home: Home, system: System, now: datetime) -> list[Entry[Alerted]]:  # noqa: ARG001  the windows say what time it is
    """Opens, acknowledges and resolves alerts as the newest windows and signatures say; returns the new entries.

    One fault is one alert: while it is open it is not opened again, and what an open alert covers (``rules.COVERED``) is not opened
    beside it. It is resolved by ``Finding.cleared``, later than it was opened.
    """
    past = home.ledger.read(Alerted)
    state = {entry.record.alert: entry for entry in past}
    standing = {alert: entry for alert, entry in state.items() if entry.record.state != "resolved"}
    made = _acknowledge(home, list(standing.values()))
    if not _watched_since_last_turn(home):
        return made
    resolved = {(e.record.name, e.record.subject): _windows_end(e) for e in past if e.record.state == "resolved"}
    history = History(
        system,
        recent(home, "traffic", TRAFFIC),
        recent(home, "outcomes", MEMORY),
        lambda name, subject: resolved.get((name, subject)),
    )
    known = {(e.record.name, e.record.subject): e for e in standing.values()}
    said = [*findings(history), *findings_of_link(home, history.after)]
    for finding in said:
        entry = known.get((finding.name, finding.subject))
        if entry is None and finding.raised and not _covered(finding, known):
            opened = _open(home, finding, history)
            known[finding.name, finding.subject] = opened
            made.append(opened)
        elif entry is not None and finding.cleared:
            made.append(_resolve(home, entry, finding.message, finding, history))
    made += _outlived(home, list(standing.values()), said, history)
    return made


def open_alerts(home: Home) -> list[Entry[Alerted]]:
    """The newest entry of every alert that is not resolved, oldest first; acknowledged ones count as open."""
    state = {entry.record.alert: entry for entry in home.ledger.read(Alerted)}
    return [entry for entry in state.values() if entry.record.state != "resolved"]


def _watched_since_last_turn(home: Home) -> bool:
    """Whether there are windows that no finished turn has judged."""
    watched, turned = home.ledger.latest(Monitored), home.ledger.latest(Turned)
    return watched is not None and (turned is None or watched.seq > turned.seq)


def _windows_end(entry: Entry[Alerted]) -> datetime:
    """Up to where the windows behind a resolution go: a new alert begins after them."""
    return entry.record.until or entry.at


def _covered(finding: Finding, known: dict[tuple[str, str], Entry[Alerted]]) -> bool:
    wider = COVERED.get((finding.name, finding.subject), COVERED.get((finding.name, ""), ()))
    return any(name in known for name in wider)


def _open(home: Home, finding: Finding, history: History) -> Entry[Alerted]:
    name = f"alert/{finding.name}/{finding.subject}/{finding.since.isoformat()}"
    record = Alerted(
        alert=name,
        name=finding.name,
        subject=finding.subject,
        state="open",
        since=finding.since,
        harm=finding.harm,
        size=finding.size,
        bound=finding.bound,
        message=finding.message,
        level=finding.level,
        until=_until(history, finding.level),
    )
    return home.commit(record, key=f"{name}/open", parents=_behind(home, finding.level))


def _resolve(home: Home, entry: Entry[Alerted], message: str, finding: Finding | None, history: History) -> Entry[Alerted]:
    old = entry.record
    size = finding.size if finding is not None else old.size
    record = msgspec.structs.replace(old, state="resolved", size=size, message=message, until=_until(history, old.level))
    return home.commit(record, key=f"{old.alert}/resolved", parents=[entry.id])


def _outlived(home: Home, standing: Sequence[Entry[Alerted]], said: Sequence[Finding], history: History) -> list[Entry[Alerted]]:
    """Resolves what is about a release that does not answer any more: the windows of the new one are judged for themselves."""
    about = {(finding.name, finding.subject) for finding in said}
    gone = [e for e in standing if e.record.name == "decay" and (e.record.name, e.record.subject) not in about]
    if history.release is None:
        return []
    return [
        _resolve(home, entry, f"the release {entry.record.subject} was replaced", None, history)
        for entry in gone
        if entry.record.subject != history.release[:12]
    ]


def _acknowledge(home: Home, standing: Sequence[Entry[Alerted]]) -> list[Entry[Alerted]]:
    """Notes the signatures under open alerts."""
    made = []
    for entry in standing:
        if entry.record.state != "open":
            continue
        signed = home.ledger.latest(Approved, prefix=f"approved/{entry.record.alert}")
        if signed is None or not signed.record.granted:
            continue
        note = f": {signed.record.note}" if signed.record.note else ""
        said = f"acknowledged by {signed.record.by}{note}"
        record = msgspec.structs.replace(entry.record, state="acknowledged", message=said)
        made.append(home.commit(record, key=f"{record.alert}/acknowledged", parents=[entry.id, signed.id]))
    return made


def _until(history: History, level: str) -> datetime | None:
    windows = history.outcomes if level == "outcome" else history.traffic
    return windows[-1].window.end if windows else None


def _behind(home: Home, level: str) -> list[str]:
    about = "outcomes" if level == "outcome" else "traffic"
    last = home.ledger.latest(Monitored, prefix=f"monitored/{about}/")
    return [last.id] if last is not None else []
