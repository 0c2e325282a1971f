"""The manifest: which files make up each table. It lies in the ledger's database and is published with the records.

One row is one commit of one table: the files it added and took away, the columns when they changed, the hash of the rows and the
chained head. A table's version counts its rows from 0. Everything else about a table, its Delta log included, follows from
these rows and can be made again from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from noria.core import Conflict, canonical, digest
from noria.store.content import Schema, type_name, type_of
from noria.store.schema import commits

_ORIGINS = 2


class FileInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Parquet file of a table.

    ``columns`` is how many of the table's columns it has (the first so many: columns are only ever added at the end); ``span`` has the
    least and greatest microsecond of each time column; ``level`` counts how often its rows were joined with others.
    """

    path: str
    size: int
    sha256: str
    rows: int
    columns: int
    span: dict[str, tuple[int, int]] = {}
    level: int = 0


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit did to the files. ``columns`` has all columns as (name, type), when it changed them."""

    added: tuple[FileInfo, ...] = ()
    removed: tuple[str, ...] = ()
    columns: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of the manifest. ``kind`` is ``append``, ``compact`` or ``lost``; only the second leaves the head as it was."""

    table: str
    version: int
    key: str
    kind: str
    at: int
    rows: str
    head: str
    change: Change
    epoch: int


@dataclass
class TableState:
    """What the manifest says about one table after its ``newest`` row.

    ``origins`` are the files that the last joined ones were made of: they stay on the disk for a while, for readers that still have
    them and for repair.
    """

    version: int = -1
    head: str = ""
    schema: Schema = field(default_factory=dict)
    files: dict[str, FileInfo] = field(default_factory=dict)
    origins: dict[str, tuple[FileInfo, ...]] = field(default_factory=dict)
    newest: Row | None = None

    def apply(self, row: Row) -> None:
        """Takes in the next row of this table."""
        self.version, self.head, self.newest = row.version, row.head, row
        if row.change.columns:
            self.schema = {name: type_of(kind) for name, kind in row.change.columns}
        gone = [self.files.pop(path) for path in row.change.removed]
        for info in row.change.added:
            self.files[info.path] = info
        if row.kind == "compact":
            self.origins |= {info.path: tuple(gone) for info in row.change.added}
            self.origins = dict(list(self.origins.items())[-_ORIGINS:])


class Manifest:
    """All tables' states in memory, brought up to date by the rows that are new."""

    def __init__(self) -> None:
        self.tables: dict[str, TableState] = {}
        self._seen = 0

    def refresh(self, connection: Connection) -> None:
        """Takes in the rows that came since the last look: one query on the primary key."""
        query = sa.select(commits).where(commits.c.n > self._seen).order_by(commits.c.n)
        for found in connection.execute(query):
            self._take(found.n, _row(found))

    def _take(self, n: int, row: Row) -> None:
        self.tables.setdefault(row.table, TableState()).apply(row)
        self._seen = n

    def state(self, table: str) -> TableState | None:
        """The state of a table, ``None`` when nothing was ever published to it."""
        return self.tables.get(table)

    def taken(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Takes in rows that this process has just published."""
        for n, row in rows:
            if n > self._seen:
                self._take(n, row)


def insert(connection: Connection, row: Row) -> int:
    """Inserts a row; gives its number. Two writers of one version cannot both succeed."""
    values = {
        "lake_table": row.table,
        "version": row.version,
        "key": row.key,
        "kind": row.kind,
        "at": row.at,
        "rows": row.rows,
        "head": row.head,
        "payload": canonical(row.change).decode(),
        "epoch": row.epoch,
    }
    done = connection.execute(commits.insert().values(**values)).inserted_primary_key
    assert done is not None
    return int(done[0])


def published(connection: Connection, table: str, key: str) -> str | None:
    """The rows' hash of the commit that has this key, if there is one."""
    query = sa.select(commits.c.rows).where((commits.c.lake_table == table) & (commits.c.key == key))
    rows = connection.execute(query).scalar_one_or_none()
    return None if rows is None else str(rows)


def history(connection: Connection, table: str, after: int = -1) -> list[Row]:
    """All rows of a table above a version, in order."""
    query = sa.select(commits).where((commits.c.lake_table == table) & (commits.c.version > after))
    return [_row(found) for found in connection.execute(query.order_by(commits.c.version))]


def next_head(head: str, key: str, rows: str) -> str:
    """The chained hash of everything ever committed to a table."""
    return digest([head, key, rows])


def columns_of(schema: Schema) -> tuple[tuple[str, Any], ...]:
    """A schema as it lies in the manifest."""
    return tuple((name, type_name(kind)) for name, kind in schema.items())


def merged(table: str, known: Schema, new: Schema) -> Schema:
    """``known`` with the columns of ``new`` that it lacks at its end; raises ``Conflict`` for a column with another type."""
    for name, kind in new.items():
        if name in known and known[name] != kind:
            raise Conflict(
                f"{table}: the column {name!r} was {known[name]} and now comes as {kind}", hint="write it under a new name"
            )
    return known | {name: kind for name, kind in new.items() if name not in known}


def spans(frame: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """The least and greatest microsecond of each column of times with a zone (and without nulls: a null is in no span)."""
    found: dict[str, tuple[int, int]] = {}
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Datetime) and kind.time_zone and frame.height and not frame[name].null_count():
            physical = frame[name].to_physical()
            found[name] = (int(physical.min()), int(physical.max()))  # type: ignore[arg-type]  # integers, without nulls
    return found


def _row(found: sa.Row[Any]) -> Row:
    change = msgspec.json.decode(found.payload, type=Change)
    return Row(found.lake_table, found.version, found.key, found.kind, found.at, found.rows, found.head, change, found.epoch)
