"""The ledger: immutable typed records with parents, logical time and an idempotency key. State is read from them.

Reading is here and free to everybody; writing goes through ``Home.commit``, which adds the lease and the tables' publication in the
same transaction. All look-ups use indexes on (kind, key) and (kind, seq): they cost the same in a ledger of ten years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, TypeVar, overload

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from noria.core import Conflict, NotFound, Unavailable, canonical, from_micros, micros
from noria.records import KINDS, Entry, Record, entry_id, kind_of
from noria.store import dialect, schema
from noria.store.schema import edges, entries

R = TypeVar("R", bound=Record)
_ANY_KIND: Any = reduce(or_, KINDS)
_KNOWN = frozenset(kind_of(kind) for kind in KINDS)
_columns = (entries.c.seq, entries.c.id, entries.c.key, entries.c.at, entries.c.parents, entries.c.payload)
_last_character = chr(0x10FFFF)
_REMEMBERED = 64

Item = tuple[Record, str, Sequence[str]]


class Ledger:
    """The records of one home.

    >>> import tempfile
    >>> from pathlib import Path
    >>> ledger = Ledger("sqlite:///" + tempfile.mkdtemp() + "/ledger.db", wait_seconds=5, durable=False)
    >>> ledger.count()
    0
    """

    def __init__(self, url: str, *, wait_seconds: int, durable: bool = True, create: bool = True, write: bool = True) -> None:
        """Opens the ledger at ``url`` (SQLAlchemy's form); raises ``NotFound`` when there is none and ``create`` is false."""
        self.url = url
        self._engine = dialect.connect(url, wait_seconds=wait_seconds, durable=durable, write=write)
        self._decoder = msgspec.json.Decoder(_ANY_KIND)
        self._memory: dict[Any, dict[tuple[Any, ...], list[Entry[Any]]]] | None = None
        with dialect.mapped(url):
            try:
                schema.prepare(self._engine, create=create, write=write)
            except BaseException:
                self._engine.dispose()
                raise

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    # ---------------------------------------------------------------------------------------------------------- reading

    def get(self, id: str) -> Entry[Record]:
        """The entry with this id; raises ``NotFound``."""
        found = self._entries(entries.c.id == id)
        if not found:
            raise NotFound(f"there is no record {id!r} in this ledger", hint="ids are 64 hexadecimal digits; see `noria story`")
        return found[0]

    def find(self, key: str) -> Entry[Record] | None:
        """The entry with this key, if that effect has happened."""
        found = self._entries(entries.c.key == key)
        return found[0] if found else None

    def latest(self, kind: type[R], *, prefix: str = "") -> Entry[R] | None:
        """The newest entry of a kind whose key begins with ``prefix``."""
        if not prefix:
            found = self.read(kind, newest=1)
            return found[0] if found else None
        newest = sa.select(sa.func.max(entries.c.seq)).where(*_chosen(kind, prefix)).scalar_subquery()
        found = self._kept((kind, "latest", prefix), lambda: self._entries(entries.c.seq == newest))
        return found[0] if found else None

    def furthest(self, kind: type[R], prefix: str) -> Entry[R] | None:
        """The entry of a kind with the greatest key that begins with ``prefix``: of keys that go on with a time, the latest time."""
        greatest = sa.select(sa.func.max(entries.c.key)).where(*_chosen(kind, prefix)).scalar_subquery()
        found = self._kept((kind, "furthest", prefix), lambda: self._entries(entries.c.key == greatest))
        return found[0] if found else None

    def heads(self, kind: type[R], prefix: str, count: int, *, below: str = "") -> list[Entry[R]]:
        """Of keys ``prefix`` + name + "/" + number: each name's entry with the greatest number, of the last ``count`` names, in order of name.

        With ``below`` only of names less than it. Unlike ``read(newest=…)``, what was written late about something old comes where it belongs.
        """

        def found() -> list[Entry[Any]]:
            where = _chosen(kind, prefix)
            if below:
                where.append(entries.c.key < prefix + below)
            best: dict[str, int] = {}
            query = sa.select(entries.c.key).where(*where).order_by(entries.c.key.desc())
            with dialect.mapped(self.url), self._engine.connect() as connection, connection.execute(query) as rows:
                for (key,) in rows:
                    name, _, number = key[len(prefix) :].rpartition("/")
                    if name not in best and len(best) == count:
                        break
                    best[name] = max(best.get(name, 0), int(number))
            kept = {f"{prefix}{name}/{number}": name for name, number in best.items()}
            return sorted(self._entries(entries.c.key.in_(kept)), key=lambda entry: kept[entry.key])

        return list(self._kept((kind, "heads", prefix, count, below), found))

    @overload
    def read(
        self,
        kind: type[R],
        *,
        prefix: str = "",
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        newest: int | None = None,
    ) -> list[Entry[R]]: ...

    @overload
    def read(
        self,
        kind: None = None,
        *,
        prefix: str = "",
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        newest: int | None = None,
    ) -> list[Entry[Record]]: ...

    def read(
        self,
        kind: type[Record] | None = None,
        *,
        prefix: str = "",
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        newest: int | None = None,
    ) -> Any:
        """Entries in the order they were written.

        ``prefix`` of the key, ``after`` a seq, ``since < at <= until`` in logical time; ``newest`` keeps the last so many.
        """

        def found() -> list[Entry[Any]]:
            where = _chosen(kind, prefix)
            if after:
                where.append(entries.c.seq > after)
            if since is not None:
                where.append(entries.c.at > micros(since))
            if until is not None:
                where.append(entries.c.at <= micros(until))
            return self._entries(*where, newest=newest)

        return list(self._kept((kind, prefix, after, since, until, newest), found))

    def count(self, kind: type[Record] | None = None, *, prefix: str = "") -> int:
        """How many entries there are (of a kind, with a prefix of the key)."""
        with dialect.mapped(self.url), self._engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(entries).where(*_chosen(kind, prefix))
            return int(connection.execute(query).scalar_one())

    def alone(self, *, held: bool) -> None:
        """Says whether this process is the only one that appends (it holds the lease): then answers are kept until it does."""
        self._memory = {} if held else None

    def _kept(self, question: tuple[Any, ...], answer: Callable[[], list[Entry[Any]]]) -> list[Entry[Any]]:
        """The answer to a question about a kind of record: remembered, while nobody else appends, until one of the kind is appended."""
        if self._memory is None:
            return answer()
        known = self._memory.setdefault(question[0], {})
        if question not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[question] = answer()
        return known[question]

    def forget(self, kinds: Iterable[type[Record]]) -> None:
        """Gives up remembered answers about these kinds: some were appended."""
        if self._memory is not None:
            for kind in (*kinds, None):
                self._memory.pop(kind, None)

    def children(self, id: str) -> list[Entry[Record]]:
        """The entries that were made from this one, in order."""
        return self._entries(entries.c.id.in_(sa.select(edges.c.child).where(edges.c.parent == id)))

    def parents(self, id: str) -> list[Entry[Record]]:
        """The entries that this one was made from, in order."""
        return self._entries(entries.c.id.in_(sa.select(edges.c.parent).where(edges.c.child == id)))

    def _entries(self, *where: sa.ColumnElement[bool], newest: int | None = None) -> list[Entry[Any]]:
        query = sa.select(*_columns).where(*where)
        if newest is None:
            query = query.order_by(entries.c.seq)
        else:
            query = query.order_by(entries.c.seq.desc()).limit(newest)
        with dialect.mapped(self.url), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        found = [self._decode(row) for row in rows]
        return found if newest is None else found[::-1]

    def _decode(self, row: Any) -> Entry[Any]:
        try:
            record = self._decoder.decode(row.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(row.key, row.payload, error) from error
        return Entry(row.id, row.key, from_micros(row.at), tuple(msgspec.json.decode(row.parents)), record, row.seq)

    # ---------------------------------------------------------------------------------------------------------- writing

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One durable transaction that no other writer interleaves; everything or nothing."""
        with (
            dialect.mapped(self.url),
            self._engine.connect().execution_options(**dialect.WRITES) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with dialect.mapped(self.url), self._engine.connect() as connection:
            yield connection

    def append(self, connection: Connection, items: Sequence[Item], at: datetime, epoch: int) -> tuple[list[Entry[Any]], int]:
        """Appends records in a running transaction; gives their entries and how many are new.

        A key that is there already with the same content gives the entry that is there; with another content it raises
        ``Conflict``. A parent that is not in the ledger raises ``NotFound``.
        """
        found: list[Entry[Any]] = []
        new = 0
        for record, key, parents in items:
            there = connection.execute(sa.select(*_columns).where(entries.c.key == key)).one_or_none()
            if there is not None:
                found.append(self._same(there, record, key, parents))
                continue
            made_from = tuple(parents)
            found.append(_insert(connection, Entry(entry_id(record, key, at, made_from), key, at, made_from, record), epoch))
            new += 1
        return found, new

    def _same(self, row: Any, record: Record, key: str, parents: Sequence[str]) -> Entry[Any]:
        entry = self._decode(row)
        if entry.record != record or sorted(entry.parents) != sorted(parents):
            raise Conflict(
                f"the ledger has another {entry.kind} under the key {key!r}, written at {entry.at.isoformat()} ({_difference(entry, record, parents)})",
                hint="a key names one effect; the same effect must have the same content",
            )
        return entry


def _insert(connection: Connection, entry: Entry[Any], epoch: int) -> Entry[Any]:
    row = {"id": entry.id, "key": entry.key, "kind": entry.kind, "at": micros(entry.at), "epoch": epoch}
    row |= {"parents": canonical(entry.parents).decode(), "payload": canonical(entry.record).decode()}
    done = connection.execute(entries.insert().values(**row)).inserted_primary_key
    if entry.parents:
        known = set(connection.execute(sa.select(entries.c.id).where(entries.c.id.in_(entry.parents))).scalars())
        missing = [parent for parent in entry.parents if parent not in known]
        if missing:
            raise NotFound(f"the {entry.kind} {entry.key!r} names a parent {missing[0]!r} that is not in the ledger")
        connection.execute(edges.insert(), [{"parent": parent, "child": entry.id} for parent in dict.fromkeys(entry.parents)])
    assert done is not None
    return msgspec.structs.replace(entry, seq=int(done[0]))


def _chosen(kind: type[Record] | None, prefix: str) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = []
    if kind is not None:
        where.append(entries.c.kind == kind_of(kind))
    if prefix:
        where += [entries.c.key >= prefix, entries.c.key < prefix + _last_character]
    return where


def _difference(entry: Entry[Any], record: Record, parents: Sequence[str]) -> str:
    if type(entry.record) is not type(record):
        return f"this one is a {kind_of(record)}"
    fields = [name for name in record.__struct_fields__ if getattr(entry.record, name) != getattr(record, name)]
    if sorted(entry.parents) != sorted(parents):
        fields.append("parents")
    return f"differing: {', '.join(fields)}"


def _unreadable(key: str, payload: str, error: Exception) -> Unavailable:
    try:
        kind = str(msgspec.json.decode(payload)["kind"])
    except (msgspec.DecodeError, KeyError, TypeError):
        kind = ""
    if kind and kind not in _KNOWN:
        return Unavailable(
            f"the record {key!r} is of the kind {kind!r}, which this version of Noria does not know",
            hint="it was written by a newer Noria: update, and run again",
        )
    return Unavailable(
        f"the record {key!r} cannot be read as {kind or 'a record'}: {error}",
        hint="it was written by another version of Noria; this one lacks a default for what changed",
    )
