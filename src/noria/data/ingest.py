"""Taking rows in: everything that could be used since the last turn, once, in the order in which it became known.

A row's ``_known`` is when it could be used: its time and the declared delay (or the declared column). A turn takes the rows that became
known since the last one. When a file changed, or is new, rows that should have been there earlier are found too: they are *late*, and
count as known from now on, because nothing before now can have used them. So history and live traffic run the same code.

A row that is there already, with the same content, is a duplicate; with the same key and time and another content it restates the earlier.
What cannot be used is put aside with its reason: ``received = accepted + quarantined``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from noria.core import DataFault, NoriaError, digest, quoted
from noria.core.window import from_micros, micros
from noria.data import arrivals, given, readers
from noria.data.accept import Taken, as_texts, content_sql, in_lake, in_quarantine, reason_sql, split
from noria.data.columns import fits, paths, text
from noria.data.readers import BAD, Piece, Place
from noria.data.sql import reader_of
from noria.data.summary import summarised
from noria.records import Blocked, Entry, Ingested, RawFile, SchemaFrozen, Scored
from noria.store import EventLog, Home
from noria.store.rows import FAR
from noria.system import Request, Source, System
from noria.tables import LABELS, QUARANTINE, source_table


class Shelf(msgspec.Struct):
    """What is known of a source's files, beside the ledger: it saves reading, and may be lost.

    ``seen`` are the contents taken in so far (name → sha256); ``pending`` those that count as seen once the record ``key`` is in the ledger.
    ``quiet`` says until when a seen file has nothing new: then it is not even opened.
    """

    pieces: dict[str, Piece] = {}
    seen: dict[str, str] = {}
    key: str = ""
    pending: dict[str, str] = {}
    quiet: dict[str, datetime] = {}


@dataclass
class FromFiles(Taken):
    """What the files of a source bring."""

    shelf: Shelf = field(default_factory=Shelf)
    pieces: dict[str, Piece] = field(default_factory=dict)


def ingest(home: Home, system: System, now: datetime) -> list[Entry[Ingested]]:
    """Takes in what became known up to ``now``: one record a source that brought something, all in one transaction.

    Parameters
    ----------
    now:
        Rows that become known later stay where they are.

    Raises
    ------
    DataFault
        When a source cannot be used: a file that cannot be read, a missing or retyped column. Nothing of any source is taken in; a
        ``Blocked`` record says what it was, once for each content.
    """
    taken: list[FromFiles] = []
    fault: DataFault | None = None
    horizon = _looked_until(home, system)
    for source in system.sources.values():
        if source.data is None:
            continue
        try:
            taken.append(_taken(home, source, system.folder, now, horizon))
        except _Unusable as unusable:
            fault = fault or _block(home, source, unusable)
    if fault is not None:
        raise fault
    with arrivals.waiting(home) as log:
        came = [] if log is None else _came(home, system, log, now, horizon)
        made = _written(home, [some for some in (*taken, *(some for some, _ in came)) if some.received], now)
        if log is not None:
            arrivals.settle(log, [seq for _, seqs in came for seq in seqs], now)
    for some in taken:
        if not some.received and some.shelf.seen != _contents(some.pieces):
            some.shelf.seen, some.shelf.quiet = _contents(some.pieces), {}
            _save(home, some.source, some.shelf)
    return made


def _came(home: Home, system: System, log: EventLog, now: datetime, horizon: datetime | None) -> list[tuple[Taken, list[int]]]:
    """What came over HTTP, each with the events that are in the lake once it is committed."""
    sources = [source for source in system.sources.values() if source.data is None]
    return [
        *(arrivals.taken(home, source, log, now, horizon) for source in sources),
        given.taken(home, system, log, now, horizon),
    ]


class _Unusable(Exception):
    def __init__(self, reason: str, where: str, hint: str, content: str) -> None:
        super().__init__(reason)
        self.reason, self.where, self.hint, self.content = reason, where, hint, content


def _block(home: Home, source: Source, unusable: _Unusable) -> DataFault:
    key = f"blocked/{source.name}/{digest([unusable.reason, unusable.where, unusable.content])[:16]}"
    if home.ledger.find(key) is None:
        home.commit(Blocked(source=source.name, reason=unusable.reason, where=unusable.where, hint=unusable.hint), key=key)
    return DataFault(unusable.reason, hint=unusable.hint)


def _looked_until(home: Home, system: System) -> datetime | None:
    """Up to when the sources were certainly looked at: the newest batch of any of them, or the newest scoring of their rows.

    Requests say nothing of it: they are sealed up to the last of them, which may have been asked after the turn had looked.
    """
    ingested = home.ledger.latest(Ingested)
    scored = None if isinstance(system.predict, Request) else home.ledger.latest(Scored, prefix="score/")
    times = [entry.record.upto for entry in (ingested,) if entry] + [entry.record.window.end for entry in (scored,) if entry]
    return max(times, default=None)


# --------------------------------------------------------------------------------------------------------- what is there


def _shelf_path(home: Home, source: Source) -> Path:
    return home.path / "staging" / f"{source.name}.json"


def _shelf(home: Home, source: Source) -> Shelf:
    try:
        shelf = msgspec.json.decode(_shelf_path(home, source).read_bytes(), type=Shelf)
    except (OSError, msgspec.DecodeError):
        return Shelf()
    if shelf.key and home.ledger.find(shelf.key) is not None:
        shelf.seen, shelf.key, shelf.pending = shelf.pending, "", {}
    return shelf


def _save(home: Home, source: Source, shelf: Shelf) -> None:
    path = _shelf_path(home, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(shelf))
    part.replace(path)


def _tidy(staging: Path, pieces: Mapping[str, Piece]) -> None:
    """Removes what was staged for contents that are gone."""
    used = {piece.path for piece in pieces.values()}
    for path in staging.glob("*.parquet"):
        if str(path) not in used:
            path.unlink(missing_ok=True)


def _contents(pieces: Mapping[str, Piece]) -> dict[str, str]:
    return {name: piece.sha256 for name, piece in pieces.items()}


def _taken(home: Home, source: Source, folder: Path, now: datetime, horizon: datetime | None) -> FromFiles:
    shelf = _shelf(home, source)
    frozen_entry = home.ledger.latest(SchemaFrozen, prefix=f"schema/{source.name}/")
    frozen = frozen_entry.record.columns if frozen_entry else {}
    staging = home.path / "staging" / source.name
    before = dict(shelf.pieces)
    try:
        pieces = readers.look(Place(reader_of(home), folder, staging), source, shelf.pieces, frozen)
    except DataFault as fault:
        raise _Unusable(fault.message, str(source.data) if readers.is_path(source) else "query", fault.hint, "") from None
    if pieces != before:
        shelf.pieces = pieces
        _save(home, source, shelf)
        _tidy(staging, pieces)
    columns, changes = _schema(source, pieces, shelf.seen, frozen)
    first = home.ledger.latest(Ingested, prefix=f"ingest/{source.name}/") is None
    cursor = None if first else horizon
    taken = FromFiles(source, cursor, now, columns, frozen_entry, changes, shelf=shelf, pieces=pieces)
    due = {name: piece for name, piece in pieces.items() if _is_due(piece, shelf, cursor, now)}
    if due:
        _sort_out(home, taken, due)
        if not taken.received and all(shelf.seen.get(name) == piece.sha256 for name, piece in due.items()):
            shelf.quiet |= {name: _next(home, source, piece, now) for name, piece in due.items()}
            _save(home, source, shelf)
    return taken


def _next(home: Home, source: Source, piece: Piece, now: datetime) -> datetime:
    """When the next row of a file becomes known."""
    known = readers.known_sql(source)
    after = f"{known} > make_timestamptz({micros(now)})"
    found = reader_of(home)(f"select epoch_us(min({known})) from read_parquet({paths([piece.path])}) where {after}").item()
    return now + FAR if found is None else min(from_micros(found), now + FAR)


def _is_due(piece: Piece, shelf: Shelf, cursor: datetime | None, now: datetime) -> bool:
    """Whether a file can hold rows for this turn."""
    if not piece.rows:
        return False
    if shelf.seen.get(piece.name) != piece.sha256 or cursor is None:
        return True
    if piece.name in shelf.quiet and now < shelf.quiet[piece.name]:
        return False
    return piece.high is not None and piece.low is not None and piece.high > cursor and piece.low <= now


def _schema(
    source: Source, pieces: Mapping[str, Piece], seen: Mapping[str, str], frozen: dict[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The columns after this turn and what changed; raises for what cannot be used."""
    columns = dict(frozen)
    changes: list[str] = []
    for name, piece in sorted(pieces.items()):
        if piece.fault:
            raise _Unusable(piece.fault, name, piece.hint, piece.sha256)
        if seen.get(name) == piece.sha256 and frozen:
            continue
        if not piece.columns and not piece.rows:
            continue
        for column, kind in columns.items():
            if column not in piece.columns:
                have = ", ".join(sorted(piece.columns))
                raise _Unusable(
                    f"source {source.name!r}: {name} has no column {column!r} any more", name, f"it has: {have}", piece.sha256
                )
            if not fits(piece.columns[column], kind):
                raise _Unusable(
                    f"source {source.name!r}: {name} has column {column!r} as {piece.columns[column]}; it was {kind}",
                    name,
                    "a changed type is a changed meaning: mend it at its origin, or give the column another name",
                    piece.sha256,
                )
        for column, kind in piece.columns.items():
            if column not in columns and kind != "NULL":
                columns[column] = kind
                if frozen:
                    changes.append(f"column {column!r} ({kind}) appeared")
    return columns, tuple(changes)


# ------------------------------------------------------------------------------------------------------- accept or refuse


def _piece_sql(source: Source, piece: Piece, place: int, columns: Mapping[str, str], where: str) -> str:
    """One file's rows with the columns of the schema, when they became known, their hash, and what is wrong with them."""
    chosen = [
        f"cast({quoted(c)} as {kind}) as {quoted(c)}" if c in piece.columns else f"cast(null as {kind}) as {quoted(c)}"
        for c, kind in columns.items()
    ]
    bad = quoted(BAD) if piece.marks_bad else "cast(null as VARCHAR)"
    declared = readers.known_sql(source)
    return (
        f"select {', '.join(chosen)}, {quoted(source.time)} as _time, {declared} as _known, {place} as _piece, {bad} as {BAD} "
        f"from read_parquet({paths([piece.path])}) where {where}"
    )


def _sort_out(home: Home, taken: FromFiles, due: Mapping[str, Piece]) -> None:
    """Fills ``taken`` with what the files hold for this turn."""
    source, columns, cursor, now = taken.source, taken.columns, taken.cursor, taken.now
    declared = readers.known_sql(source)
    upto = f"{declared} <= make_timestamptz({micros(now)})"
    fresh = upto if cursor is None else f"{declared} > make_timestamptz({micros(cursor)}) and {upto}"
    broken = f"{quoted(source.time)} is null or {declared} is null or {declared} > make_timestamptz({micros(now + FAR)})"
    names = sorted(due)
    queries = []
    for place, name in enumerate(names):
        same = taken.shelf.seen.get(name) == due[name].sha256
        where = fresh if same and cursor is not None else f"({upto} or {broken})"
        queries.append(_piece_sql(source, due[name], place, columns, where))
    as_json = "to_json({" + ", ".join(f"{text(c)}: {quoted(c)}::VARCHAR" for c in (*sorted(columns), BAD)) + "})"
    query = (
        f"with rows as ({' union all '.join(queries)}), judged as (select *, {reason_sql(source, columns, now)} as _reason from rows) "
        f"select *, {content_sql(columns)} as _row, case when _reason is not null then {as_json}::VARCHAR end as _json from judged"
    )
    try:
        rows = reader_of(home)(query)
    except NoriaError as error:
        fault = readers.damaged(source, due.values(), error.message)
        raise _Unusable(fault.message, ", ".join(names), fault.hint, digest(_contents(due))) from None
    if cursor is not None:
        rows = _not_seen(home, taken, rows, names, cursor)
    came = rows["_piece"].unique().sort().to_list()
    taken.files = tuple(RawFile(name=names[place], sha256=taken.pieces[names[place]].sha256) for place in came)
    split(home, taken, rows, as_texts(columns))


def _not_seen(home: Home, taken: FromFiles, rows: pl.DataFrame, names: list[str], cursor: datetime) -> pl.DataFrame:
    """The rows without those that a file which only grew had already brought."""
    grown = [place for place, name in enumerate(names) if name in taken.shelf.seen or not taken.shelf.seen]
    old = pl.col("_piece").is_in(grown) & (
        (pl.col("_known") <= cursor) | pl.col("_known").is_null() | pl.col("_reason").is_not_null()
    )
    suspects = rows.filter(old)
    if suspects.is_empty():
        return rows
    there = in_lake(home, source_table(taken.source.name), suspects)
    put_aside = in_quarantine(home, taken.source.name, suspects["_json"])
    repeated = old & (pl.col("_row").is_in(there) | pl.col("_json").is_in(put_aside).fill_null(False))
    return rows.filter(~repeated)


# -------------------------------------------------------------------------------------------------------------- writing


def _written(home: Home, taken: Sequence[Taken], now: datetime) -> list[Entry[Ingested]]:
    """Commits what came: schemas first, then all batches with their tables in one transaction."""
    if not taken:
        return []
    schemas = {some.source.name: _frozen(home, some) for some in taken if some.columns}
    commits = {}
    for some in taken:
        if not some.accepted.is_empty():
            table = LABELS.name if some.source.name == given.SOURCE else source_table(some.source.name)
            commits[some.source.name] = home.lake.write(table, some.accepted, key=some.key)
    aside = pl.concat([some.refused for some in taken])
    tables = list(commits.values())
    if not aside.is_empty():
        tables.append(home.lake.write(QUARANTINE.name, aside.sort(*QUARANTINE.order), key=f"quarantine/{now.isoformat()}"))
    items = []
    for some in taken:
        commit = commits.get(some.source.name)
        parents = [schemas[some.source.name]] if some.source.name in schemas else []
        items.append((_record(some, now, commit.rows if commit else ""), some.key, parents))
        if isinstance(some, FromFiles) and (some.shelf.seen != _contents(some.pieces) or some.shelf.quiet):
            some.shelf.quiet = {}
            some.shelf.key, some.shelf.pending = some.key, _contents(some.pieces)
            _save(home, some.source, some.shelf)
    return home.commit_all(items, tables=tables)  # type: ignore[return-value]  # all of these are Ingested


def _frozen(home: Home, taken: Taken) -> str:
    """The id of the source's schema record; a new version when columns appeared."""
    name, last = taken.source.name, taken.frozen
    if last is not None and last.record.columns == taken.columns:
        return last.id
    version = last.record.version + 1 if last else 1
    record = SchemaFrozen(source=name, version=version, columns=taken.columns, changes=taken.changes)
    return home.commit(record, key=f"schema/{name}/{version:04d}", parents=[last.id] if last else []).id


def _record(taken: Taken, now: datetime, rows: str) -> Ingested:
    reasons = dict(sorted(taken.refused["reason"].value_counts().iter_rows()))
    first, last = taken.accepted["_time"].min(), taken.accepted["_time"].max()
    return Ingested(
        source=taken.source.name,
        upto=now,
        received=taken.received,
        accepted=taken.accepted.height,
        quarantined=taken.refused.height,
        reasons=reasons,
        files=taken.files,
        rows=rows,
        first=first if isinstance(first, datetime) else None,
        last=last if isinstance(last, datetime) else None,
        late=taken.late,
        restated=taken.restated,
        days=summarised(taken.accepted, taken.columns, keys=taken.source.keys, time=taken.source.time),
    )
