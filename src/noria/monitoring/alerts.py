"""Alerts: what the rules find becomes open, acknowledged, muted and resolved, each said once, and one fault is one alert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from noria.core import Estimate, duration
from noria.monitoring.declared import declared
from noria.monitoring.facts import MEMORY as TRAFFIC
from noria.monitoring.facts import Finding, History, resolved
from noria.monitoring.grouping import Part, belongs, covered, members, rank
from noria.monitoring.link import findings_of_link
from noria.monitoring.rules import PERFORMANCE, RECALL, findings
from noria.monitoring.severity import cost, runbook, severity, worst_slice
from noria.monitoring.windows import recent
from noria.records import Alerted, Approved, Entry, Monitored, Released, Turned
from noria.store import Home
from noria.system import System

ORDER = ("", "note", "ticket", "page")
Name = tuple[str, str]


@dataclass
class Group:
    """The findings of one fault, most upstream first, and the alert that is open for it, if there is one."""

    parts: list[Part]
    new: list[Finding] = field(default_factory=list)
    entry: Entry[Alerted] | None = None


def alert(home: Home, system: System, now: datetime) -> list[Entry[Alerted]]:
    """Opens, widens, acknowledges, mutes and resolves alerts as the newest windows and signatures say; returns the new entries.

    One fault is one alert: while it is open, what the same fault moves as well (``grouping.belongs``) is added to it, and it pages from when
    anything of it is harm. It is resolved when all of it has been back for a while (``Finding.cleared``), later than it was opened.
    """
    past = home.ledger.read(Alerted)
    state = {entry.record.alert: entry for entry in past}
    made = _signed(home, [entry for entry in state.values() if entry.record.state != "resolved"], now)
    if not _watched_since_last_turn(home):
        return made
    state |= {entry.record.alert: entry for entry in made}
    standing = {alert: entry for alert, entry in state.items() if entry.record.state != "resolved"}
    history = _history(home, system, past)
    said = [*findings(history), *findings_of_link(home, history.after)]
    said += resolved(history, [name for entry in standing.values() for name in members(entry.record)], said)
    by = {(finding.name, finding.subject): finding for finding in said}
    for group in _groups(standing.values(), said, system):
        if group.entry is None:
            made.append(_open(home, system, group, history))
        elif group.new:
            made.append(_widen(home, system, group, history))
        else:
            made += _followed(home, system, group.entry, by, history)
    return made


def open_alerts(home: Home) -> list[Entry[Alerted]]:
    """The newest entry of every alert that is not resolved, oldest first; acknowledged and muted ones count as open."""
    state = {entry.record.alert: entry for entry in home.ledger.read(Alerted)}
    return [entry for entry in state.values() if entry.record.state != "resolved"]


def _history(home: Home, system: System, past: Sequence[Entry[Alerted]]) -> History:
    over: dict[Name, datetime] = {}
    faulty = []
    for entry in past:
        if entry.record.state == "resolved":
            over |= dict.fromkeys(members(entry.record), _windows_end(entry))
            if entry.record.harm:
                faulty.append((entry.record.since, _windows_end(entry)))
    return History(
        system,
        recent(home, "traffic", TRAFFIC),
        recent(home, "outcomes", RECALL),
        lambda name, subject: over.get((name, subject)),
        tuple(faulty[-32:]),
    )


def _watched_since_last_turn(home: Home) -> bool:
    """Whether there are windows that no finished turn has judged."""
    watched, turned = home.ledger.latest(Monitored), home.ledger.latest(Turned)
    return watched is not None and (turned is None or watched.seq > turned.seq)


def _windows_end(entry: Entry[Alerted]) -> datetime:
    """Up to where the windows behind a resolution go: a new alert begins after them."""
    return entry.record.until or entry.at


# ------------------------------------------------------------------------------------------------------------- grouping


def _groups(standing: Iterable[Entry[Alerted]], said: Sequence[Finding], system: System) -> list[Group]:
    """The open alerts with what is to be added to each, then the groups of new findings that need an alert of their own."""
    every = duration(system.every)
    sources = {(finding.name, finding.subject): finding.source for finding in said}
    groups = [
        Group([Part(*name, entry.record.since, sources.get(name, "")) for name in members(entry.record)], entry=entry)
        for entry in standing
    ]
    known = {(part.name, part.subject) for group in groups for part in group.parts}
    raised = [finding for finding in said if finding.raised and (finding.name, finding.subject) not in known]
    for finding in sorted(raised, key=lambda one: rank(_part(one))):
        part = _part(finding)
        home = next((group for group in reversed(groups) if belongs(part, group.parts, every)), None)
        if home is None:
            groups.append(Group([part], [finding]))
        elif home.entry is None or not any(covered(part, other) for other in home.parts):
            home.parts.append(part)
            home.new.append(finding)
    return groups


def _part(finding: Finding) -> Part:
    return Part(finding.name, finding.subject, finding.since, finding.source)


# -------------------------------------------------------------------------------------------------------------- entries


def _open(home: Home, system: System, group: Group, history: History) -> Entry[Alerted]:
    head = group.new[0]
    record = _described(home, system, head, group.new, history)
    return home.commit(record, key=f"{record.alert}/open", parents=_behind(home, head.level))


def _described(home: Home, system: System, head: Finding, found: Sequence[Finding], history: History) -> Alerted:
    """A new alert: its head says what it is, all of it how bad it is."""
    harm = any(finding.harm for finding in found)
    since = min(finding.since for finding in found)
    lost = cost(home, history.outcomes, since)
    until = _until(history, head.level)
    part = next((finding.slice for finding in found if finding.slice), "")
    if not part and any(finding.level == "outcome" for finding in found) and until is not None:
        part = worst_slice(home, system, since, until)
    return Alerted(
        alert=f"alert/{head.name}/{head.subject}/{head.since.isoformat()}",
        name=head.name,
        subject=head.subject,
        state="open",
        since=since,
        harm=harm,
        size=_rounded(head.size),
        bound=head.bound,
        message=_message(head, found),
        level=head.level,
        until=until,
        slice=part,
        cost=lost,
        severity=severity(system, head.name, harm=harm, lost=lost),
        runbook=runbook(system, head.name),
        with_it=tuple(_part(finding).text for finding in found if finding is not head),
    )


def _message(head: Finding, found: Sequence[Finding]) -> str:
    """The head's sentence, and behind a fact the sentence of the harm that comes of it."""
    worst = next((finding for finding in found if finding.harm and finding is not head), None)
    return head.message if worst is None or head.harm else f"{head.message}; {worst.message}"


def _widen(home: Home, system: System, group: Group, history: History) -> Entry[Alerted]:
    """The same fault has moved more: the head is what lies most upstream, and what was a fact may be harm now."""
    assert group.entry is not None
    old = group.entry.record
    first = min(group.new, key=lambda one: rank(_part(one)))
    made = _described(home, system, first, group.new, history)
    upstream = rank(_part(first)) < rank(group.parts[0])
    texts = [part.text for part in group.parts if (part.name, part.subject) != (first.name, first.subject) or not upstream]
    head = made if upstream else old
    harm, rises = old.harm or made.harm, made.harm and not old.harm
    since = min(old.since, made.since)
    lost = cost(home, history.outcomes, since)
    grade = severity(system, head.name, harm=harm, lost=lost)
    highest = max(grade, old.severity, key=ORDER.index)
    again = rises or _to_be_told_again(old, highest)
    message = made.message if upstream else old.message
    if rises and not upstream:
        message = f"{old.message}; {next(finding.message for finding in group.new if finding.harm)}"
    record = msgspec.structs.replace(
        head,
        alert=old.alert,
        state="open" if again else old.state,
        since=since,
        harm=harm,
        message=message,
        until=made.until,
        slice=old.slice or made.slice,
        cost=lost,
        severity=highest,
        with_it=tuple(text for text in texts if text != f"{head.name}/{head.subject}"),
        muted_until=None if rises else old.muted_until,
    )
    return home.commit(record, key=_next(home, old.alert), parents=[group.entry.id, *_behind(home, made.level)])


def _followed(
    home: Home, system: System, entry: Entry[Alerted], by: dict[Name, Finding], history: History
) -> list[Entry[Alerted]]:
    """Resolves an alert when all of it is back or not declared any more, or raises its severity as what it costs becomes known."""
    old = entry.record
    there = [name for name in members(old) if declared(system, *name)]
    names = [name for name in there if not _outlived(name, history)]
    found = [by[name] for name in names if name in by]
    if not there:
        return [_resolve(home, entry, f"{old.name} of {old.subject}: not declared any more", None, history)]
    if not names:
        return [_resolve(home, entry, f"the release {old.subject} was replaced", None, history)]
    now = _newer_release(home, old)
    if found and all(finding.cleared or (now and finding.quiet == now) for finding in found):
        return [_resolve(home, entry, found[0].message, found[0], history)]
    lost = cost(home, history.outcomes, old.since)
    grade = severity(system, old.name, harm=old.harm, lost=lost)
    if ORDER.index(grade) <= ORDER.index(old.severity or "page"):
        return []
    record = msgspec.structs.replace(old, cost=lost, severity=grade, until=_until(history, old.level))
    if _to_be_told_again(old, grade):
        record = msgspec.structs.replace(record, state="open")
    return [home.commit(record, key=_next(home, old.alert), parents=[entry.id])]


def _newer_release(home: Home, old: Alerted) -> str:
    """The release that was made after an alert opened; empty when there is none."""
    opened, last = home.ledger.find(f"{old.alert}/open"), home.ledger.latest(Released)
    return last.record.bundle if opened is not None and last is not None and last.seq > opened.seq else ""


def _to_be_told_again(old: Alerted, grade: str) -> bool:
    """Whether an acknowledged alert has become a page: what was signed for was less, so it is open again. A mute ends by its own time."""
    return old.state == "acknowledged" and grade == "page" and old.severity != "page"


def _outlived(name: Name, history: History) -> bool:
    """Whether it is about a release that does not answer any more: the windows of the new one are judged for themselves."""
    return name[0] == "decay" and history.release is not None and name[1] != history.release[:12]


def _resolve(home: Home, entry: Entry[Alerted], message: str, finding: Finding | None, history: History) -> Entry[Alerted]:
    old = entry.record
    size = _rounded(finding.size) if finding is not None else old.size
    record = msgspec.structs.replace(
        old, state="resolved", size=size, message=message, until=_until(history, old.level), muted_until=None
    )
    return home.commit(record, key=f"{old.alert}/resolved", parents=[entry.id])


# ------------------------------------------------------------------------------------------------------------ signatures


def _signed(home: Home, standing: Sequence[Entry[Alerted]], now: datetime) -> list[Entry[Alerted]]:
    """Notes the signatures under open alerts, and ends mutes whose time is up. What an alert says stays."""
    made = []
    for entry in standing:
        old = entry.record
        signed = home.ledger.latest(Approved, prefix=f"approved/{old.alert}/")
        if signed is not None and signed.record.granted and signed.seq > entry.seq:
            made.append(_acknowledge(home, entry, signed, now))
        elif old.state == "muted" and old.muted_until is not None and old.muted_until <= now:
            record = msgspec.structs.replace(old, state="open", muted_until=None)
            made.append(home.commit(record, key=f"{old.alert}/unmuted/{old.muted_until.isoformat()}", parents=[entry.id]))
    return made


def _acknowledge(home: Home, entry: Entry[Alerted], signed: Entry[Approved], now: datetime) -> Entry[Alerted]:
    until = signed.record.until
    muted = until is not None and until > now
    record = msgspec.structs.replace(
        entry.record, state="muted" if muted else "acknowledged", muted_until=until if muted else None
    )
    return home.commit(
        record, key=f"{entry.record.alert}/{record.state}/{signed.key.rpartition('/')[2]}", parents=[entry.id, signed.id]
    )


# --------------------------------------------------------------------------------------------------------------- helpers


def _next(home: Home, alert: str) -> str:
    """The key of an alert's next update."""
    return f"{alert}/more/{home.ledger.count(Alerted, prefix=f'{alert}/more/'):03d}"


def _rounded(size: Estimate) -> Estimate:
    low, value, high = (None if x is None else float(f"{x:.12g}") for x in (size.low, size.value, size.high))
    return Estimate(value, low, high, size.n)


def _until(history: History, level: str) -> datetime | None:
    windows = history.outcomes if level == "outcome" else history.traffic
    return windows[-1].window.end if windows else None


def _behind(home: Home, level: str) -> list[str]:
    about = "outcomes" if level == "outcome" else "traffic"
    last = home.ledger.latest(Monitored, prefix=f"monitored/{about}/")
    return [last.id] if last is not None else []


def harms(record: Alerted) -> bool:
    """Whether an alert is of harm to the performance, at its head or in what the same fault also moved."""
    return record.harm and any(name in PERFORMANCE for name, _ in members(record))
