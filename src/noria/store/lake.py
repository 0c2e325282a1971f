"""The lake: tables of rows as Parquet files, published by the ledger, readable by anybody as Delta Lake.

The order of a commit is what makes it safe: (1) the Parquet file is written and flushed, under a name nobody refers to;
(2) the manifest row is inserted in the ledger's transaction together with the record, which the lease fences; (3) the Delta log
follows the manifest. Killed before (2), nothing happened but a file without a name; killed after it, (3) is made up at the
next commit. Readers of Noria use the manifest only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from sqlalchemy.engine import Connection

from noria import tables as declared
from noria.core import Conflict, Corrupt, LeaseLost, NoriaError, Unavailable, check_name, digest_bytes, micros, quoted
from noria.store import delta, lease, manifest
from noria.store.content import Schema, rows_hash, stored
from noria.store.engine import Engine, Scan
from noria.store.files import make_folder, sha256_of, write_file
from noria.store.lease import Lease
from noria.store.ledger import Ledger
from noria.store.manifest import Change, FileInfo, Manifest, Row, TableState

Bounds = tuple[datetime | None, datetime | None]
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class Commit:
    """Rows written to a table and not yet published. ``rows`` is the hash of their content, ``count`` their number."""

    table: str
    key: str
    rows: str
    count: int
    schema: Schema
    file: FileInfo | None
    published: bool = False


@dataclass(frozen=True)
class Fault:
    """Something on the disk that is not what was written. ``repairable`` says whether the rest suffices to make it again."""

    table: str
    path: Path
    what: str
    repairable: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Lake:
    """The tables of one home."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        engine: Engine,
        held: Callable[[], Lease | None],
        *,
        durable: bool = True,
        compact_after: int = 64,
    ) -> None:
        """``held`` gives the lease that this process holds, if it does."""
        self.folder = folder
        self.durable = durable
        self.compact_after = compact_after
        self.ledger = ledger
        self.engine = engine
        self._lease = held
        self._manifest = Manifest()
        self._fresh_for = -1
        self._pending: dict[str, Schema] = {}
        self._trusted: dict[Path, tuple[int, int]] = {}
        self._written = 0
        self._logged: dict[str, int] = {}
        self.untidy: set[str] = set()

    # ---------------------------------------------------------------------------------------------------------- reading

    def tables(self) -> list[str]:
        """The names of all published tables."""
        return sorted(self.current().tables)

    def heads(self) -> dict[str, str]:
        """For each table the chained hash of everything published to it: equal heads, equal content."""
        return {name: state.head for name, state in sorted(self.current().tables.items())}

    def schema(self, table: str) -> dict[str, pl.DataType] | None:
        """A table's columns and their types, ``None`` when nothing was ever published to it."""
        state = self.current().state(table)
        return None if state is None else dict(state.schema)

    def scan(self, table: str, **between: Bounds) -> Scan:
        """The published files that may hold rows with ``a < column <= b`` for each column given, verified.

        Files are left out by the least and greatest of their times; the query still has to filter. A table without any commit
        has the columns of ``tables.py``. Raises ``Corrupt`` when a file is not what was written.
        """
        state = self.current().state(table)
        if state is None:
            return Scan((), fixed_columns(table))
        chosen = [info for info in state.files.values() if _may_hold(info, between)]
        folder = self.folder / table
        for info in chosen:
            self.verify(folder / info.path, info)
        return Scan(tuple(folder / info.path for info in chosen), dict(state.schema), tuple(info.columns for info in chosen))

    def read(self, table: str, *, columns: Sequence[str] | None = None, **between: Bounds) -> pl.DataFrame:
        """The rows with ``a < column <= b`` for each column given (``None`` is unbounded), in the table's order."""
        scan = self.scan(table, **between)
        names = list(scan.schema) if columns is None else list(columns)
        missing = [name for name in [*names, *between] if name not in scan.schema]
        if missing:
            raise NoriaError(f"the table {table!r} has no column {missing[0]!r}", hint=f"it has {', '.join(scan.schema)}")
        if not names:
            return pl.DataFrame()
        chosen = ", ".join(quoted(name) for name in names)
        order = ", ".join(quoted(name) for name in order_of(table) if name in scan.schema)
        query = f"select {chosen} from t{_where(between)}" + (f" order by {order}" if order else "")
        found = self.engine.sql(query, t=scan)
        return found.cast({name: scan.schema[name] for name in names if found.schema[name] != scan.schema[name]})

    def current(self) -> Manifest:
        """The manifest as of now."""
        held = self._lease()
        epoch = -1 if held is None else held.epoch
        if epoch == -1 or epoch != self._fresh_for:  # under our lease nobody else publishes
            with self.ledger.reading() as connection:
                self._manifest.refresh(connection)
            self._fresh_for = epoch
        return self._manifest

    def verify(self, path: Path, info: FileInfo) -> None:
        """Raises ``Corrupt`` when a file is not what the manifest says. Its bytes are hashed once in a process, or when it changed."""
        fault = self.fault(path, info)
        if fault:
            raise Corrupt(f"{path}: {fault}", hint="run `noria repair`: it says what can be made again and what is lost")

    def fault(self, path: Path, info: FileInfo, *, deep: bool = True, again: bool = False) -> str:
        """What is wrong with a file, or nothing. Without ``deep`` only its size is looked at; ``again`` trusts no earlier look."""
        try:
            status = path.stat()
        except OSError as error:
            return f"the file is not there ({error.strerror}); it has {info.rows} rows"
        if status.st_size != info.size:
            return f"the file has {status.st_size} bytes instead of {info.size}; it has {info.rows} rows"
        seen = (status.st_size, status.st_mtime_ns)
        if deep and (again or self._trusted.get(path) != seen):
            if sha256_of(path) != info.sha256:
                return f"the file's bytes changed (its sha256 differs); it has {info.rows} rows"
            self._trusted[path] = seen
        return ""

    # ---------------------------------------------------------------------------------------------------------- writing

    def write(self, table: str, frame: pl.DataFrame, *, key: str) -> Commit:
        """Writes rows durably; nobody sees them before ``Home.commit(…, tables=[commit])``.

        New columns are added to the table (earlier rows read null there). The same key with the same rows is published once.
        Raises ``Conflict`` for a column that changed its type or a key that has other rows, ``LeaseLost`` without the lease,
        ``Unavailable`` when the disk is full.
        """
        check_name(table, "table")
        self.held()
        state = self.current().state(table)
        known = self._pending.get(table) or (state.schema if state else {})
        frame = stored(frame, known)
        rows = rows_hash(frame)
        if self._has(table, key, rows):
            return Commit(table, key, rows, frame.height, known, None, published=True)
        schema = manifest.merged(table, known, dict(frame.schema))
        if not frame.height and state is not None and schema == known:
            return Commit(table, key, rows, 0, schema, None, published=True)
        info = self.store_file(table, _aligned(frame, schema)) if frame.height else None
        self._pending[table] = schema
        return Commit(table, key, rows, frame.height, schema, info)

    def held(self) -> Lease:
        """The lease that this process holds; raises ``LeaseLost`` when it holds none."""
        held = self._lease()
        if held is None:
            raise LeaseLost("this worker holds no lease on the home", hint="write inside `with home.hold(...)`")
        return held

    def _has(self, table: str, key: str, rows: str) -> bool:
        with self.ledger.reading() as connection:
            there = manifest.published(connection, table, key)
        if there is not None and there != rows:
            raise Conflict(f"the table {table!r} has other rows under the key {key!r}", hint="a key names one batch of rows")
        return there is not None

    def store_file(self, table: str, frame: pl.DataFrame, *, level: int = 0) -> FileInfo:
        """Writes a frame as a Parquet file nobody refers to yet."""
        data = parquet(frame)
        sha256 = digest_bytes(data)
        self._written += 1
        name = f"{self.held().epoch:06d}-{self._written:06d}-{sha256[:16]}.parquet"
        folder = self.folder / table
        make_folder(folder, self.durable)
        write_file(folder / name, data, durable=self.durable)
        status = (folder / name).stat()
        self._trusted[folder / name] = (status.st_size, status.st_mtime_ns)
        return FileInfo(name, len(data), sha256, frame.height, frame.width, manifest.spans(frame), level)

    def publish(self, connection: Connection, pending: Iterable[Commit], at: int, epoch: int) -> list[tuple[int, Row]]:
        """Inserts the manifest rows of pending commits in the ledger's running transaction."""
        states: dict[str, TableState] = {}
        done = []
        for commit in pending:
            if commit.published:
                continue
            there = manifest.published(connection, commit.table, commit.key)
            if there is not None:
                if there != commit.rows:
                    raise Conflict(f"the table {commit.table!r} has other rows under the key {commit.key!r}")
                continue
            row = self._append_row(states.get(commit.table) or self._state(commit.table), commit, at, epoch)
            states.setdefault(commit.table, TableState()).version = row.version
            states[commit.table].head, states[commit.table].schema = row.head, commit.schema
            done.append((manifest.insert(connection, row), row))
        return done

    def _state(self, table: str) -> TableState:
        return self.current().state(table) or TableState()

    def _append_row(self, state: TableState, commit: Commit, at: int, epoch: int) -> Row:
        if list(state.schema.items()) != list(commit.schema.items())[: len(state.schema)]:
            raise Conflict(f"the columns of {commit.table!r} changed since these rows were written", hint="write them again")
        columns = () if state.schema == commit.schema else manifest.columns_of(commit.schema)
        change = Change((commit.file,) if commit.file else (), (), columns)
        head = manifest.next_head(state.head, commit.key, commit.rows)
        return Row(commit.table, state.version + 1, commit.key, "append", at, commit.rows, head, change, epoch)

    def published(self, rows: list[tuple[int, Row]]) -> None:
        """Takes in what was published, and lets the Delta logs follow (when the disk is full, they follow later)."""
        self._manifest.taken(rows)
        for table in dict.fromkeys(row.table for _, row in rows):
            self._pending.pop(table, None)
            with suppress(Unavailable):
                self.follow(table, [row for _, row in rows if row.table == table])

    def abandon(self) -> None:
        """Forgets what was written and not published; the files go at the next upkeep."""
        self.untidy |= self._pending.keys()
        self._pending.clear()

    def follow(self, table: str, rows: Sequence[Row] = ()) -> None:
        """Makes up the entries that a table's Delta log lacks at its end. ``rows`` are the newest rows, when they are at hand."""
        last = self._logged.get(table)
        state = self._state(table)
        if last is None:
            last = state.version - len(rows)
            while last >= 0 and not delta.log_path(self.folder / table, last).exists():
                last -= 1
        if not rows or rows[0].version > last + 1:
            with self.ledger.reading() as connection:
                rows = manifest.history(connection, table, last)
        for row in rows:
            self.write_log(row)

    def write_log(self, row: Row) -> None:
        """Writes the Delta log entry of a manifest row."""
        path = delta.log_path(self.folder / row.table, row.version)
        make_folder(path.parent, self.durable)
        write_file(path, delta.entry(row), durable=self.durable)
        self._logged[row.table] = max(row.version, self._logged.get(row.table, -1))

    def publish_now(self, row: Row) -> None:
        """Publishes a row that belongs to no record (joined files, an accepted loss), under the lease."""
        held = self.held()
        with self.ledger.transaction() as connection:
            lease.renew(connection, held)
            n = manifest.insert(connection, row)
        self.published([(n, row)])

    # ----------------------------------------------------------------------------------------------------------- upkeep

    def upkeep(self) -> None:
        """Joins small files of tables that have many, and removes files that nothing refers to. Changes no head."""
        from noria.store import upkeep

        upkeep.upkeep(self)

    def check(self, *, deep: bool = True) -> list[Fault]:
        """Compares the disk with the manifest; without ``deep`` only sizes and the newest log entries (cheap, at every start)."""
        from noria.store import upkeep

        return upkeep.check(self, deep=deep)

    def repair(self, *, accept_loss: bool = False) -> list[str]:
        """Makes again what can be made again, and says for each fault what was done.

        A file of rows that nothing else holds is lost: that is said, and changes nothing unless ``accept_loss`` publishes the
        table without it (which changes its head).
        """
        from noria.store import upkeep

        return upkeep.repair(self, accept_loss=accept_loss)


def order_of(table: str) -> tuple[str, ...]:
    """How rows lie in a table, as ``tables.py`` declares it."""
    found = _declared(table)
    return found.order if found else ()


def fixed_columns(table: str) -> Schema:
    """The columns that ``tables.py`` declares for a table."""
    found = _declared(table)
    return {name: kind if isinstance(kind, pl.DataType) else kind() for name, kind in found.columns.items()} if found else {}


def parquet(frame: pl.DataFrame) -> bytes:
    """A frame as Parquet that every engine reads alike: plain strings, no types of Arrow's own in the footer."""
    import pyarrow.parquet

    sink = io.BytesIO()
    data = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    times = [name for name, kind in frame.schema.items() if kind == pl.Datetime]
    pyarrow.parquet.write_table(
        data,
        sink,
        store_schema=False,
        compression="zstd",
        row_group_size=_GROUP_ROWS,
        use_dictionary=texts,
        write_statistics=times,
    )
    return sink.getvalue()


def _declared(table: str) -> declared.Table | None:
    if table.startswith(declared.source_table("")):
        return declared.SOURCE
    return next((found for found in declared.TABLES if found.name == table), None)


def _aligned(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    return frame.select(
        pl.col(name) if name in frame.columns else pl.lit(None, kind).alias(name) for name, kind in schema.items()
    )


def _may_hold(info: FileInfo, between: dict[str, Bounds]) -> bool:
    for name, (low, high) in between.items():
        span = info.span.get(name)
        if span is None:
            continue
        if (low is not None and span[1] <= micros(low)) or (high is not None and span[0] > micros(high)):
            return False
    return True


def _where(between: dict[str, Bounds]) -> str:
    tests = []
    for name, (low, high) in between.items():
        if low is not None:
            tests.append(f"{quoted(name)} > timestamptz '{low.isoformat()}'")
        if high is not None:
            tests.append(f"{quoted(name)} <= timestamptz '{high.isoformat()}'")
    return f" where {' and '.join(tests)}" if tests else ""
