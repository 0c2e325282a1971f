"""Events that came over HTTP, on their way into the lake: durable when they are acknowledged, each id once.

One SQLite file that every process of the service and the turn share. The service appends and reads on from where it was; the turn moves what
is known into the lake and marks it as sealed; what was sealed long ago is pruned. An event's hash is that of its content, and becomes the
row's ``_row`` in the lake: there too it can come only once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from noria.core import Corrupt, DataFault, NoriaError, Unavailable
from noria.store.files import make_folder, no_room, sync_folder

LABELS_SOURCE = "_labels"
"""The reserved source under which given labels are kept; a declared source's name cannot begin with ``_``."""

_VERSION = 1
_NEVER = 2**63 - 1
_AT_ONCE = 10_000
_TABLES = f"""
create table events (
    seq integer primary key autoincrement, source text not null, id text not null, time integer not null, known integer not null,
    row blob not null, hash text not null, sealed integer not null default 0, unique (source, id)
);
create index events_waiting on events (source, known) where sealed = 0;
create index events_sealed on events (known) where sealed = 1 and source <> '{LABELS_SOURCE}';
create table conflicts (
    seq integer primary key autoincrement, source text not null, id text not null, time integer not null, known integer not null,
    row blob not null, hash text not null, unique (source, id, hash)
);
pragma user_version = {_VERSION};
"""
_COLUMNS = "seq, source, id, time, known, row, hash"
_INSERT = "insert into {} (source, id, time, known, row, hash) values (?, ?, ?, ?, ?, ?)"
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class NewEvent(NamedTuple):
    """An event that came: ``time`` is when it happened, ``known`` when it could be used, both in microseconds since 1970 (UTC)."""

    id: str
    time: int
    known: int
    row: dict[str, Any]


class Event(NamedTuple):
    """An event in the log; ``seq`` orders events as they were acknowledged."""

    seq: int
    source: str
    id: str
    time: int
    known: int
    row: dict[str, Any]
    hash: str


class Appended(NamedTuple):
    """What became of a batch: how many events are new, how many were there, and the ids that are there with another content."""

    accepted: int
    duplicates: int
    conflicts: tuple[str, ...]


class EventLog:
    """The log of events at ``path``; made when it is not there.

    Parameters
    ----------
    durable:
        Wait for the disk at every append.
    wait_seconds:
        How long to wait for another process that is writing.

    Raises
    ------
    Unavailable
        From every method, when the file stays locked or the disk has no room: nothing was written then.
    Corrupt
        When the file is damaged; the message names it.

    >>> import tempfile
    >>> log = EventLog(Path(tempfile.mkdtemp()) / "events.db", durable=False)
    >>> event = NewEvent("e1", time=0, known=0, row={"shop": "a", "units": 3})
    >>> log.append("sales", [event, event])
    Appended(accepted=1, duplicates=1, conflicts=())
    >>> log.append("sales", [event._replace(row={"shop": "a", "units": 4})]).conflicts
    ('e1',)
    >>> [(found.id, found.row["units"]) for found in log.since(0)]
    [('e1', 3)]
    >>> log.close()
    """

    def __init__(self, path: Path, *, durable: bool = True, wait_seconds: float = 10.0) -> None:
        self.path = path
        self._durable = durable
        self._lock, self._look = threading.Lock(), threading.Lock()
        self._seen: int | None = None
        self._writer = self._reader = None  # type: sqlite3.Connection | None
        try:
            if not path.exists():
                make_folder(path.parent, durable)
                self._create()
            self._writer = self._connect(wait_seconds)
            self._reader = self._connect(wait_seconds)  # never writes: to it every append is a change from outside
        except BaseException:
            self.close()
            raise
        self._version = self._reader.cursor()

    def close(self) -> None:
        """Closes the file."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def _create(self) -> None:
        """Makes the file beside its place and then gives it its name, so that an empty file under the name is always damage."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            with self._as_ours():
                connection = sqlite3.connect(part, isolation_level=None)
                try:
                    connection.executescript(f"pragma synchronous={'extra' if self._durable else 'off'};{_TABLES}")
                finally:
                    connection.close()
            with suppress(FileExistsError):  # another process was first: its file is as good
                os.link(part, self.path)
            if self._durable:
                sync_folder(self.path.parent)
        except OSError as error:
            raise no_room(error, self.path) from error
        finally:
            for tail in ("", "-journal"):
                part.with_name(part.name + tail).unlink(missing_ok=True)

    def _connect(self, wait_seconds: float) -> sqlite3.Connection:
        with self._as_ours():
            connection = sqlite3.connect(self.path, timeout=wait_seconds, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("pragma journal_mode=wal")
                connection.execute(f"pragma synchronous={'full' if self._durable else 'off'}")
                version = connection.execute("pragma user_version").fetchone()[0]
            except BaseException:
                connection.close()
                raise
        if version > _VERSION:
            connection.close()
            raise Unavailable(f"{self.path} was written by a newer Noria", hint="update, and run again")
        if version != _VERSION:
            connection.close()
            raise _damaged(self.path, "it is not a log of events")
        return connection

    # ---------------------------------------------------------------------------------------------------------- writing

    def append(self, source: str, events: Sequence[NewEvent]) -> Appended:
        """Appends the events that are new, in one transaction; they are on the disk when it returns.

        The same id with the same time and row again is a duplicate. With another content it is a conflict: it is kept apart, and the first
        stands. Raises ``DataFault`` for a row that cannot be written down; nothing of the batch was written then.
        """
        rows = [(source, event.id, event.time, event.known, *_packed(source, event)) for event in events]
        accepted, conflicts = 0, list[str]()
        with self._writing() as run:
            for row in rows:
                there = run("select hash from events where source = ? and id = ?", row[:2]).fetchone()
                if there is None:
                    accepted += 1
                    run(_INSERT.format("events"), row)
                elif there[0] != row[5]:
                    conflicts.append(row[1])
                    run(_INSERT.format("conflicts") + " on conflict do nothing", row)
        return Appended(accepted, len(rows) - accepted - len(conflicts), tuple(conflicts))

    def seal(self, seqs: Iterable[int]) -> None:
        """Marks events as being in the lake. May be repeated. Appending is never kept waiting for long."""
        for some in _batched(seqs, _AT_ONCE):
            with self._writing() as run:
                for seq in some:
                    run("update events set sealed = 1 where seq = ? and sealed = 0", (seq,))

    def prune(self, before_known: int) -> int:
        """Removes sealed events that were known before a time, and conflicts as old; gives how many events went.

        An id that was pruned and comes again is new to the log; with the same content it is known to the lake. Given labels stay: the first
        decision on a prediction stands however late another comes.
        """
        some = f"select seq from events where sealed = 1 and source <> '{LABELS_SOURCE}' and known < ? limit {_AT_ONCE}"
        gone = 0
        with self._writing() as run:
            run("delete from conflicts where known < ?", (before_known,))
        while True:
            with self._writing() as run:
                count = int(run(f"delete from events where seq in ({some})", (before_known,)).rowcount)
            gone += count
            if count < _AT_ONCE:
                return gone

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction that no other writer interleaves: everything or nothing."""
        assert self._writer is not None
        with self._lock, self._as_ours():
            self._writer.execute("begin immediate")
            try:
                yield self._writer.execute
                self._writer.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._writer.execute("rollback")
                raise

    # ---------------------------------------------------------------------------------------------------------- reading

    def changed(self) -> bool:
        """Whether anything may have been appended, by any process, since ``since`` was last called. Costs a few µs."""
        with self._look, self._as_ours():
            found: int = self._version.execute("pragma data_version").fetchone()[0]
        return found != self._seen

    def since(self, seq: int, *, limit: int = 10_000) -> list[Event]:
        """The events of all sources after ``seq``, in order, at most ``limit``; while there may be more, ``changed`` stays true."""
        query = f"select {_COLUMNS} from events where seq > ? order by seq limit ?"
        with self._look, self._as_ours():
            version: int = self._version.execute("pragma data_version").fetchone()[0]  # before: what comes between is seen twice
            rows = self._version.execute(query, (seq, limit)).fetchall()
        self._seen = None if len(rows) == limit else version
        return [self._event(row) for row in rows]

    def unsealed(self, source: str, known_upto: int, *, beyond: int = _NEVER) -> list[Event]:
        """The events of a source that are known by then, or only after ``beyond``, and not in the lake yet, in order."""
        query = f"select {_COLUMNS} from events where source = ? and (known <= ? or known > ?) and sealed = 0 order by seq"
        return [self._event(row) for row in self._rows(query, (source, known_upto, beyond))]

    def conflicts(self, source: str) -> list[Event]:
        """The events of a source that came with another content than the first of their id, in order. Their ``seq`` is of their own kind."""
        query = f"select {_COLUMNS} from conflicts where source = ? order by seq"
        return [self._event(row) for row in self._rows(query, (source,))]

    def time_of(self, source: str, id: str) -> int | None:
        """When the event of this id happened, as it was taken first; ``None`` when there is none."""
        rows = self._rows("select time from events where source = ? and id = ?", (source, id))
        return int(rows[0][0]) if rows else None

    def last(self) -> int:
        """The seq of the newest event ever appended; 0 before the first."""
        return int(self._rows("select coalesce(max(seq), 0) from sqlite_sequence where name = 'events'")[0][0])

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        assert self._reader is not None
        with self._look, self._as_ours():
            return self._reader.execute(query, values).fetchall()

    def _event(self, row: tuple[Any, ...]) -> Event:
        seq, source, name, time, known, packed, said = row
        if _hash(source, name, time, packed) != said:
            raise _damaged(self.path, f"event {seq} is not what was written")
        return Event(seq, source, name, time, known, _decoder.decode(packed), said)

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _as_ours(error, self.path) from error


def log_path(home: Path) -> Path:
    """Where a home keeps the log of its service."""
    return home / "service" / "events.db"


def _batched(some: Iterable[int], size: int) -> Iterator[list[int]]:
    rest = list(some)
    for start in range(0, len(rest), size):
        yield rest[start : start + size]


def _packed(source: str, event: NewEvent) -> tuple[bytes, str]:
    """A row as bytes, with its hash."""
    try:
        packed = _encoder.encode(event.row)
        return packed, _hash(source, event.id, event.time, packed)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataFault(
            f"an event of {source!r} cannot be written down: {type(error).__name__}",
            hint="a row is made of texts, numbers up to 64 bits, true, false and null",
        ) from None


def _hash(source: str, name: str, time: int, packed: bytes) -> str:
    """The first 20 hexadecimal digits of the sha256 of what an event says."""
    return hashlib.sha256(_encoder.encode((source, name, time)) + packed).hexdigest()[:20]


def _damaged(path: Path, why: str) -> Corrupt:
    return Corrupt(
        f"{path} is damaged: {why}",
        hint="restore it from a backup, or move it away: what was sealed is in the lake, the rest has to be sent again",
    )


def _as_ours(error: sqlite3.Error, path: Path) -> NoriaError:
    """The database's error as one of ours."""
    text = str(error).lower()
    if "malformed" in text or "not a database" in text or "no such table" in text:
        return _damaged(path, str(error))
    if "locked" in text or "busy" in text:
        return Unavailable(f"{path} stayed locked by another process", hint="send it again; nothing was written")
    if "full" in text or "disk i/o" in text:
        return Unavailable(f"no room on the disk for {path}", hint="free some space and send it again; nothing was written")
    return Unavailable(f"{path} cannot be used: {error}", hint="check the disk and its permissions; nothing was written")
