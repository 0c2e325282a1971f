"""Taking rows in: everything that could be used since the last turn, once, in the order in which it became known.

A row's ``_known`` is when it could be used: its time and the declared delay (or the declared column). A turn takes the rows that became
known since the last one. When a file changed, or is new, rows that should have been there earlier are found too: they are *late*, and
count as known from now on, because nothing before now can have used them. So history and live traffic run the same code.

A row that is there already, with the same content, is a duplicate; with the same key and time and another content it restates the earlier.
What cannot be used is put aside with its reason: ``received = accepted + quarantined``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from noria.core import DataFault, NoriaError, digest, quoted
from noria.core.window import from_micros, micros
from noria.data import readers
from noria.data.columns import fits, paths, text
from noria.data.readers import BAD, Piece, Place
from noria.data.sql import reader_of
from noria.data.summary import summarised
from noria.records import Blocked, Entry, Ingested, RawFile, SchemaFrozen, Scored
from noria.store import Home
from noria.system import Request, Source, System
from noria.tables import QUARANTINE, SOURCE, TIME, source_table

_MICRO = timedelta(microseconds=1)
EARLIEST = "1900-01-01"
FAR = timedelta(days=3650)
NOT_READABLE, NO_TIME, NO_KEY, NO_KNOWN, IMPOSSIBLE, NOT_FINITE, DUPLICATE = (
    "unreadable value",
    "no time",
    "no key",
    "no known time",
    "impossible time",
    "not a finite number",
    "duplicate",
)


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
class Taken:
    """What one source brings in the turn at ``now``; ``cursor`` is up to when it was looked at before (``None``: never)."""

    source: Source
    cursor: datetime | None
    now: datetime
    shelf: Shelf
    pieces: dict[str, Piece]
    columns: dict[str, str]
    frozen: Entry[SchemaFrozen] | None = None
    changes: tuple[str, ...] = ()
    accepted: pl.DataFrame = field(default_factory=pl.DataFrame)
    refused: pl.DataFrame = field(default_factory=pl.DataFrame)
    files: tuple[RawFile, ...] = ()
    late: int = 0
    restated: int = 0

    @property
    def received(self) -> int:
        return self.accepted.height + self.refused.height


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
    taken = []
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
    made = _written(home, [some for some in taken if some.received], now)
    for some in taken:
        if not some.received and some.shelf.seen != _contents(some.pieces):
            some.shelf.seen, some.shelf.quiet = _contents(some.pieces), {}
            _save(home, some.source, some.shelf)
    return made


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
    scored = None if isinstance(system.predict, Request) else home.ledger.latest(Scored)
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


def _taken(home: Home, source: Source, folder: Path, now: datetime, horizon: datetime | None) -> Taken:
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
    taken = Taken(source, cursor, now, shelf, pieces, columns, frozen_entry, changes)
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


def content_sql(columns: Mapping[str, str]) -> str:
    """SQL for the hash of a row's content: names and values that are not null, each with its length, so that none can pose as another."""
    parts = []
    for column in sorted(columns):
        value = (
            f"epoch_us({quoted(column)})::VARCHAR" if columns[column].startswith("TIMESTAMP") else f"{quoted(column)}::VARCHAR"
        )
        parts.append(f"{text(column + '=')} || length({value}) || ':' || {value}")
    return f"left(md5(concat_ws('|', {', '.join(parts)})), 20)"


def _reason_sql(source: Source, columns: Mapping[str, str], now: datetime) -> str:
    """SQL for why a row is refused; null when it is not."""
    latest = f"make_timestamptz({micros(now + FAR)})"
    tests = [(f"{BAD} is not null", NOT_READABLE), ("_time is null", NO_TIME)]
    tests += [(f"{quoted(key)} is null", NO_KEY) for key in source.keys]
    tests += [("_known is null", NO_KNOWN)]
    tests += [(f"not (_time between timestamptz '{EARLIEST} 00:00:00+00' and {latest}) or _known > {latest}", IMPOSSIBLE)]
    floats = [f"not isfinite({quoted(c)})" for c, kind in columns.items() if kind == "DOUBLE"]
    if floats:
        tests.append((" or ".join(f"coalesce({test}, false)" for test in floats), NOT_FINITE))
    return "case " + " ".join(f"when {test} then {text(reason)}" for test, reason in tests) + " end"


def _sort_out(home: Home, taken: Taken, due: Mapping[str, Piece]) -> None:
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
        f"with rows as ({' union all '.join(queries)}), judged as (select *, {_reason_sql(source, columns, now)} as _reason from rows) "
        f"select *, {content_sql(columns)} as _row, case when _reason is not null then {as_json}::VARCHAR end as _json from judged"
    )
    try:
        rows = reader_of(home)(query)
    except NoriaError as error:
        fault = readers.damaged(source, due.values(), error.message)
        raise _Unusable(fault.message, ", ".join(names), fault.hint, digest(_contents(due))) from None
    if cursor is not None:
        rows = _not_seen(home, taken, rows, names, cursor)
    _split(home, taken, rows, names)


def _not_seen(home: Home, taken: Taken, rows: pl.DataFrame, names: list[str], cursor: datetime) -> pl.DataFrame:
    """The rows without those that a file which only grew had already brought."""
    grown = [place for place, name in enumerate(names) if name in taken.shelf.seen or not taken.shelf.seen]
    old = pl.col("_piece").is_in(grown) & (
        (pl.col("_known") <= cursor) | pl.col("_known").is_null() | pl.col("_reason").is_not_null()
    )
    suspects = rows.filter(old)
    if suspects.is_empty():
        return rows
    there = _in_lake(home, taken.source, suspects)
    put_aside = _in_quarantine(home, taken.source, suspects)
    repeated = old & (pl.col("_row").is_in(there) | pl.col("_json").is_in(put_aside).fill_null(False))
    return rows.filter(~repeated)


def _in_lake(home: Home, source: Source, rows: pl.DataFrame) -> list[str]:
    table = source_table(source.name)
    low, high = rows["_time"].min(), rows["_time"].max()
    if home.lake.schema(table) is None or not isinstance(low, datetime) or not isinstance(high, datetime):
        return []
    asked = rows.select("_row").unique(maintain_order=True)
    found = home.engine.sql(
        "select distinct lake._row as _row from lake join asked on lake._row = asked._row",
        lake=home.lake.scan(table, _time=(low - _MICRO, high)),
        asked=asked,
    )
    return found["_row"].to_list()


def _in_quarantine(home: Home, source: Source, rows: pl.DataFrame) -> list[str]:
    asked = rows.filter(pl.col("_json").is_not_null()).select(pl.col("_json").alias("row")).unique(maintain_order=True)
    if asked.is_empty() or home.lake.schema(QUARANTINE.name) is None:
        return []
    found = home.engine.sql(
        f"select distinct aside.row as row from aside join asked on aside.row = asked.row where aside.source = {text(source.name)}",
        aside=home.lake.scan(QUARANTINE.name),
        asked=asked,
    )
    return found["row"].to_list()


def _split(home: Home, taken: Taken, rows: pl.DataFrame, names: list[str]) -> None:
    """Accepted and refused rows, with ``_known`` of late ones set to ``now``."""
    source, cursor, now = taken.source, taken.cursor, taken.now
    came = rows["_piece"].unique().sort().to_list()
    taken.files = tuple(RawFile(name=names[place], sha256=taken.pieces[names[place]].sha256) for place in came)
    good = rows.filter(pl.col("_reason").is_null()).sort("_known", "_time", "_row", "_piece")
    earlier = _versions(home, source, good)
    repeated = ~good["_row"].is_first_distinct() | good["_row"].is_in(earlier["_row"].to_list())
    doubles = good.filter(repeated)
    good = good.filter(~repeated)
    if source.keys and not good.is_empty():
        identity = [*source.keys, "_time"]
        again = good.select(identity).is_duplicated() & ~pl.Series(
            good.select(pl.struct(identity).is_first_distinct()).to_series()
        )
        taken.restated = (
            int(again.sum())
            + good.filter(~again).join(earlier.select(identity).unique(), on=identity, how="semi", nulls_equal=True).height
        )
    if cursor is not None:
        late = pl.col("_known") <= cursor
        taken.late = good.filter(late).height
        good = good.with_columns(pl.when(late).then(pl.lit(now).cast(TIME)).otherwise(pl.col("_known")).alias("_known"))
    taken.accepted = good.select([*taken.columns, "_time", "_known", "_row"]).sort(*SOURCE.order)
    broken = rows.filter(pl.col("_reason").is_not_null()).select("_reason", "_json")
    if not doubles.is_empty():
        texts = [pl.col(c).cast(pl.String) for c in sorted(taken.columns)]
        doubles = doubles.select(pl.lit(DUPLICATE).alias("_reason"), pl.struct(texts).struct.json_encode().alias("_json"))
        broken = pl.concat([broken, doubles])
    taken.refused = broken.select(
        pl.lit(source.name).alias("source"),
        pl.lit(now).cast(TIME).alias("_upto"),
        pl.col("_reason").alias("reason"),
        pl.col("_json").alias("row"),
    ).sort(*QUARANTINE.order)


def _versions(home: Home, source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """What the lake holds under the keys and times of these rows: keys, ``_time``, ``_row``."""
    identity = [*source.keys, "_time"]
    empty = rows.select(*identity, "_row").clear()
    table = source_table(source.name)
    low, high = rows["_time"].min(), rows["_time"].max()
    if rows.is_empty() or home.lake.schema(table) is None or not isinstance(low, datetime) or not isinstance(high, datetime):
        return empty
    scan = home.lake.scan(table, _time=(low - _MICRO, high))
    if not scan.files:
        return empty
    same = " and ".join(f"lake.{quoted(c)} = asked.{quoted(c)}" for c in identity)
    chosen = ", ".join(f"lake.{quoted(c)}" for c in (*identity, "_row"))
    query = f"select distinct {chosen} from lake join asked on {same}"
    return home.engine.sql(query, lake=scan, asked=rows.select(identity).unique(maintain_order=True)).cast(empty.schema)


# -------------------------------------------------------------------------------------------------------------- writing


def _written(home: Home, taken: list[Taken], now: datetime) -> list[Entry[Ingested]]:
    """Commits what came: schemas first, then all batches with their tables in one transaction."""
    if not taken:
        return []
    schemas = {some.source.name: _frozen(home, some) for some in taken}
    commits = {}
    for some in taken:
        if not some.accepted.is_empty():
            table = source_table(some.source.name)
            commits[some.source.name] = home.lake.write(table, some.accepted, key=f"ingest/{some.source.name}/{now.isoformat()}")
    aside = pl.concat([some.refused for some in taken])
    tables = list(commits.values())
    if not aside.is_empty():
        tables.append(home.lake.write(QUARANTINE.name, aside.sort(*QUARANTINE.order), key=f"quarantine/{now.isoformat()}"))
    items = []
    for some in taken:
        commit = commits.get(some.source.name)
        items.append(
            (
                _record(some, now, commit.rows if commit else ""),
                f"ingest/{some.source.name}/{now.isoformat()}",
                [schemas[some.source.name]],
            )
        )
        if some.shelf.seen != _contents(some.pieces) or some.shelf.quiet:
            some.shelf.quiet = {}
            some.shelf.key, some.shelf.pending = items[-1][1], _contents(some.pieces)
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
        days=summarised(taken.accepted, taken.columns),
    )
