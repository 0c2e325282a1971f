"""Delivery: which entries of alerts have been sent where. It is physical, so it is kept beside the ledger, in ``deliveries.db``.

An entry is sent, and then marked. Killed in between, it is sent again, with the same id; it is never lost. A channel that does not
answer is tried again after the next turn, and never stops one. An entry that is refused for good is given up after ``TRIES`` turns, which
``noria status`` says, and does not keep the others waiting. Nothing is sent under a simulated clock, and of what is older than a
channel nothing is sent to it.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from noria.core import NoriaError
from noria.monitoring.channels import LEAST, Channel, Permanent
from noria.monitoring.message import message
from noria.records import Alerted, Entry
from noria.store import Home
from noria.system import System

FILE = "deliveries.db"
MOST = 20
FAILURES = 2
TRIES = 3
ORDER = ("", *LEAST)
_TABLES = """
create table if not exists channels (id text primary key, name text not null, start integer not null, error text not null default '');
create table if not exists sent (channel text not null, entry text not null, primary key (channel, entry)) without rowid;
create table if not exists refused (
    channel text not null, entry text not null, tries integer not null, error text not null, primary key (channel, entry)
) without rowid;
"""


@dataclass(frozen=True)
class Standing:
    """How a channel stands: what it was sent, what waits for it, and the last error while something waits; what it refused for good, and why."""

    name: str
    sent: int
    waiting: int
    error: str
    given_up: int = 0
    refusal: str = ""


def prepare(home: Home, given: Sequence[Channel]) -> None:
    """Notes where each new channel begins: call it before a turn, so that what the turn finds is sent."""
    if not given or simulated(home):
        return
    with suppress(sqlite3.Error, OSError), _opened(home.path) as db:  # it is said by ``deliver``
        known = {row[0] for row in db.execute("select id from channels")}
        new = [channel for channel in given if channel.id not in known]
        if new:
            last = home.ledger.latest(Alerted)
            rows = [(channel.id, channel.name, last.seq if last is not None else 0) for channel in new]
            db.executemany("insert or ignore into channels (id, name, start) values (?, ?, ?)", rows)
            db.commit()


def deliver(home: Home, system: System, given: Sequence[Channel]) -> list[str]:
    """Sends what waits for each channel; returns what went wrong, one sentence for each channel. Call it after a turn.

    A second process that delivers at the same time leaves it to the first.
    """
    if not given or simulated(home):
        return []
    wrong = []
    try:
        with _alone(home.path) as mine:
            if not mine:
                return []
            everything = home.ledger.read(Alerted)
            with _opened(home.path) as db:
                for channel in given:
                    error = _sent(db, system, channel, everything)
                    if error:
                        wrong.append(f"{channel.name}: {error}")
    except (sqlite3.Error, OSError) as problem:
        wrong.append(f"{home.path / FILE}: {problem}")
    return wrong


def standings(home: Home, given: Sequence[Channel]) -> list[Standing]:
    """How the channels stand; reads only."""
    path = home.path / FILE
    everything = home.ledger.read(Alerted)
    if not path.exists():
        return [Standing(channel.name, 0, 0, "") for channel in given]
    made = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for channel in given:
            row = db.execute("select start, error from channels where id = ?", (channel.id,)).fetchone()
            if row is None:
                made.append(Standing(channel.name, 0, 0, ""))
                continue
            done, lost = _done(db, channel), _given_up(db, channel)
            waiting = [entry for entry in due(everything, row[0], channel.least) if entry.id not in done | lost.keys()]
            error, refusal = row[1] if waiting else "", next(reversed(lost.values()), "")
            made.append(Standing(channel.name, len(done), len(waiting), error, len(lost), refusal))
    return made


def due(everything: Sequence[Entry[Alerted]], start: int, least: str) -> list[Entry[Alerted]]:
    """The entries that a channel is told of, oldest first: those that need somebody, and the end of what it was told of.

    An alert that opened, became more severe, or whose mute is over; not what was acknowledged, muted, or only widened. A resolution when
    the alert was told and is not muted. ``least`` is the least severity, ``start`` the number of the last entry before the channel.
    """
    before: dict[str, Alerted] = {}
    told: set[str] = set()
    made = []
    for entry in everything:
        now = entry.record
        old = before.get(now.alert)
        before[now.alert] = now
        if now.state == "open":
            tell = old is None or old.state == "muted" or _grade(now) > _grade(old)
            tell = tell and _grade(now) >= ORDER.index(least)
        elif now.state == "resolved":
            tell = now.alert in told and old is not None and old.state != "muted"
        else:
            tell = False
        if tell and entry.seq > start:
            told.add(now.alert)
            made.append(entry)
    return made


def simulated(home: Home) -> bool:
    """Whether the home's clock is not the machine's: then what is found is history, and nobody is told."""
    return home.clock.latency(0.0) is None


def _grade(alert: Alerted) -> int:
    return ORDER.index(alert.severity or ("page" if alert.harm else "note"))


def _sent(db: sqlite3.Connection, system: System, channel: Channel, everything: Sequence[Entry[Alerted]]) -> str:
    """Sends what waits for one channel, at most ``MOST``; returns the first error. After a second one the channel is left alone.

    A refusal for good says that the channel answers: the next entry is tried.
    """
    row = db.execute("select start, error from channels where id = ?", (channel.id,)).fetchone()
    if row is None:
        return ""
    done, error, failures = _done(db, channel) | _given_up(db, channel).keys(), "", 0
    waiting = [entry for entry in due(everything, row[0], channel.least) if entry.id not in done]
    for entry in waiting[:MOST]:
        try:
            channel.send(message(system, entry))
        except Exception as problem:  # whatever it is, a channel never stops a turn
            said = problem.message if isinstance(problem, NoriaError) else f"{type(problem).__name__}: {problem}"
            if isinstance(problem, Permanent):
                said += _refused(db, channel, entry, said)
            error = error or said
            failures += not isinstance(problem, Permanent)
            if failures == FAILURES:
                break
            continue
        db.execute("insert or ignore into sent (channel, entry) values (?, ?)", (channel.id, entry.id))
        db.commit()
    if error != row[1]:
        db.execute("update channels set error = ? where id = ?", (error[:500], channel.id))
        db.commit()
    return error


def _refused(db: sqlite3.Connection, channel: Channel, entry: Entry[Alerted], error: str) -> str:
    """Counts a refusal for good; after ``TRIES`` the entry is given up, which the returned end of a sentence says."""
    tries = "insert into refused (channel, entry, tries, error) values (?, ?, 1, ?) on conflict do update set tries = tries + 1, error = ?"
    db.execute(tries, (channel.id, entry.id, error[:500], error[:500]))
    db.commit()
    return f"; {entry.record.alert} is given up" if entry.id in _given_up(db, channel) else ""


def _given_up(db: sqlite3.Connection, channel: Channel) -> dict[str, str]:
    """The entries that are not tried any more, each with the last refusal; none where the file is older than the table."""
    if not db.execute("select 1 from sqlite_master where name = 'refused'").fetchone():
        return {}
    return dict(db.execute("select entry, error from refused where channel = ? and tries >= ?", (channel.id, TRIES)).fetchall())


def _done(db: sqlite3.Connection, channel: Channel) -> set[str]:
    return {row[0] for row in db.execute("select entry from sent where channel = ?", (channel.id,))}


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / FILE, timeout=5)) as db:
        db.executescript(_TABLES)
        yield db


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that delivers; a killed one leaves the place at once."""
    with (folder / "deliveries.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
