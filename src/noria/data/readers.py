"""Sources as Parquet: whatever a source's data is, the rest of the room reads Parquet files with known columns.

Parquet is read where it lies. CSV, frames and query results are staged: written once per content to a folder of the home that may be
deleted at any time. A file that has not changed (size and time of change) is not read again.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from noria.core import DataFault, NoriaError, digest, quoted
from noria.data.columns import NAIVE, Run, guess, mistakes, parsed, paths, stored_type, unreadable
from noria.store.content import rows_hash, stored
from noria.store.rows import ZONED, delay_of
from noria.system import Query, Source

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
BAD = "_bad"


class Piece(msgspec.Struct, frozen=True):
    """One file (or frame, or query result) of a source as it was when it was last looked at.

    ``path`` is the Parquet file to read, ``columns`` the stored type of each of its columns; ``low`` and ``high`` bound the time at which its
    rows could be used (``None``: no such row). ``fault`` says why it cannot be used, with ``hint``.
    """

    name: str
    stamp: tuple[int, int]
    sha256: str
    path: str
    columns: dict[str, str]
    rows: int = 0
    low: datetime | None = None
    high: datetime | None = None
    marks_bad: bool = False
    fault: str = ""
    hint: str = ""


def located(source: Source, folder: Path) -> list[tuple[str, Path]]:
    """The files of a source that is a path: (name relative to the declaration, path), by name.

    Raises
    ------
    DataFault
        When a single file is not there. A glob without files is a set that has not begun to grow.
    """
    pattern = str(folder / str(source.data))
    if any(sign in str(source.data) for sign in "*?["):
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
    else:
        found = [Path(pattern)]
        if not found[0].is_file():
            raise DataFault(
                f"source {source.name!r}: there is no file {str(source.data)!r}",
                hint="a path is relative to the declaration's file; put the file there or mend the path",
            )
    return [(_relative(path, folder), path) for path in found]


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return path.name


def is_path(source: Source) -> bool:
    """Whether the source's data is a file or a set of files."""
    return isinstance(source.data, str | Path)


def is_csv(name: str) -> bool:
    return name.lower().endswith(CSV)


def known_sql(source: Source) -> str:
    """SQL for the time at which a row could be used.

    >>> known_sql(Source("w", time="hour", known="1h"))
    '("hour" + to_microseconds(3600000000))'
    """
    time = quoted(source.time)
    match delay_of(source):
        case str(column):
            return quoted(column)
        case timedelta() as delay if delay:
            return f"({time} + to_microseconds({delay // timedelta(microseconds=1)}))"
        case _:
            return time


class Place(NamedTuple):
    """Where reading happens: what runs SQL over files, where relative paths start, and the folder for what has to be written first."""

    run: Run
    folder: Path
    staging: Path


def look(place: Place, source: Source, before: Mapping[str, Piece], frozen: Mapping[str, str]) -> dict[str, Piece]:
    """Every piece of a source as it is now; those that did not change since ``before`` are taken from there.

    ``frozen`` are the frozen types of the source's columns: text is read as these. Without any, types are read off the text.
    """
    if is_path(source):
        return {
            name: _file(place, source, (name, path), before.get(name), frozen) for name, path in located(source, place.folder)
        }
    kind = "query" if isinstance(source.data, Query) else "frame"
    name = f"{kind}:{source.name}"
    try:
        frame = queried(source) if isinstance(source.data, Query) else framed(source.data)
    except DataFault as fault:
        return {name: Piece(name, (0, 0), "", "", {}, fault=fault.message, hint=fault.hint)}
    stamp = (frame.height, _stamp_of(frame))
    known = before.get(name)
    if known is not None and known.stamp == stamp and (known.fault or Path(known.path).is_file()):
        return {name: known}
    try:
        frame = stored(frame.with_columns(pl.col(pl.Null).cast(pl.String)), None)
    except NoriaError as error:
        return {name: Piece(name, stamp, "", "", {}, fault=f"source {source.name!r}: {error.message}", hint=error.hint)}
    content = rows_hash(frame)
    path = place.staging / f"{content[:40]}.parquet"
    _write(path, lambda part: frame.write_parquet(part, row_group_size=65_536))
    return {name: _inspected(place.run, source, Piece(name, stamp, content, str(path), {}))}


def _file(place: Place, source: Source, found: tuple[str, Path], before: Piece | None, frozen: Mapping[str, str]) -> Piece:
    name, path = found
    stamp = _stamp(path)
    csv = is_csv(name)
    same = before is not None and before.stamp == stamp and Path(before.path).is_file()
    if before is not None and same and not (csv and _other_types(before, frozen)):
        return before
    content = sha256_of(path)
    piece = Piece(name, stamp, content, str(path), {})
    try:
        if csv:
            piece = _staged_csv(place, piece, path, frozen)
        piece = _inspected(place.run, source, piece)
    except DataFault as fault:
        return msgspec.structs.replace(piece, path=str(path), fault=fault.message, hint=fault.hint)
    if _stamp(path) != stamp:
        raise DataFault(
            f"source {source.name!r}: {name} changed while it was read", hint="write a file under another name, then rename it"
        )
    return piece


def _other_types(piece: Piece, frozen: Mapping[str, str]) -> bool:
    return any(frozen.get(column, kind) != kind for column, kind in piece.columns.items())


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return (state.st_size, state.st_mtime_ns)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, write: Any) -> None:
    """Writes beside ``path`` and renames: a killed writer leaves no half file under the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------- parquet


def columns_of(run: Run, files: list[str]) -> dict[str, str]:
    """The stored type of each column of Parquet files."""
    described = run(f"select column_name, column_type from (describe select * from read_parquet({paths(files)}))")
    return {name: stored_type(kind) for name, kind in described.iter_rows()}


def _inspected(run: Run, source: Source, piece: Piece) -> Piece:
    """The piece with its columns, rows and bounds. Every page is decoded once, so that a damaged file is found now and not in mid-year."""
    try:
        columns = columns_of(run, [piece.path])
        kept = {name: kind for name, kind in columns.items() if name != BAD}
        piece = msgspec.structs.replace(piece, columns=kept, marks_bad=BAD in columns)
        fault = unusable(source, kept)
        counts = ", ".join(f"bit_xor(hash({quoted(name)}))" for name in columns)  # a count would not look at the values
        bounds = (
            "null as low, null as high"
            if fault
            else f"epoch_us(min({known_sql(source)})) as low, epoch_us(max({known_sql(source)})) as high"
        )
        row = run(f"select count(*), {bounds}, {counts} from read_parquet({paths([piece.path])})").row(0)
    except NoriaError as error:
        raise damaged(source, [piece], error.message) from None
    if fault:
        return msgspec.structs.replace(piece, rows=row[0], fault=fault[0], hint=fault[1])
    return msgspec.structs.replace(piece, rows=row[0], low=_moment(row[1]), high=_moment(row[2]))


def _moment(value: int | None) -> datetime | None:
    """A time from microseconds; ``None`` when there is none or it is outside of what a calendar has."""
    if value is None:
        return None
    low, high = -62_135_596_800_000_000, 253_402_300_799_000_000
    return datetime.fromtimestamp(min(max(value, low), high) // 1_000_000, UTC).replace(microsecond=value % 1_000_000)


def damaged(source: Source, pieces: Iterable[Piece], why: str) -> DataFault:
    """The fault of files that cannot be read. Files are called by their names, not by where they lie on this machine."""
    pieces = list(pieces)
    lines = why.strip().splitlines() or ["no reason is known"]
    for piece in pieces:
        lines[0] = lines[0].replace(piece.path, piece.name)
    return DataFault(
        f"source {source.name!r}: {', '.join(piece.name for piece in pieces)} cannot be read: {lines[0]}",
        hint="the file is damaged or was not fully written: put it there again",
    )


def unusable(source: Source, columns: dict[str, str]) -> tuple[str, str] | None:
    """Why a source with these columns cannot be ingested, with a hint; ``None`` when it can."""
    delay = delay_of(source)
    times = [source.time, *([delay] if isinstance(delay, str) else [])]
    for column in (*source.keys, *times):
        if column not in columns:
            have = ", ".join(sorted(columns)) or "none"
            return f"source {source.name!r}: there is no column {column!r}", f"it has: {have}"
    for column in times:
        if columns[column] in NAIVE:
            hint = "write times in UTC with a zone, for example 2013-01-31T06:00:00Z; a time without one means another moment elsewhere"
            return f"source {source.name!r}: the times in column {column!r} have no time zone", hint
        if columns[column] != ZONED:
            return (
                f"source {source.name!r}: column {column!r} is {columns[column]}, not a time",
                "times look like 2013-01-31T06:00:00Z",
            )
    for column in columns:
        if column.startswith("_"):
            return (
                f"source {source.name!r}: the column name {column!r} is reserved",
                "rename it: names beginning with '_' are Noria's own",
            )
    return None


# ----------------------------------------------------------------------------------------------------------------- csv


def _staged_csv(place: Place, piece: Piece, path: Path, frozen: Mapping[str, str]) -> Piece:
    """The piece with its text turned into typed Parquet; ``_bad`` holds what could not be read in a row."""
    run, staging = place.run, place.staging
    raw = staging / f"{piece.sha256[:40]}.text.parquet"
    _write(raw, lambda part: csv_as_text(path, part, piece.name))
    table = f"read_parquet({paths([raw])})"
    try:
        names = list(columns_of(run, [str(raw)]))
        if clash := [name for name in names if name.startswith("_")]:
            raise DataFault(
                f"{piece.name}: the column name {clash[0]!r} is reserved",
                hint="rename it: names beginning with '_' are Noria's own",
            )
        types = guess(run, table, [name for name in names if name not in frozen])
        types = {name: frozen.get(name) or types[name] for name in names}
        for column, (n, wrong) in unreadable(run, table, {c: k for c, k in types.items() if c in frozen}).items():
            if wrong * 2 > n:
                raise DataFault(
                    f"{piece.name}: column {column!r} was {frozen[column]}, and {wrong} of its {n} values are not",
                    hint="the column changed its meaning: mend it at its origin, or give it another name",
                )
        typed = staging / f"{digest([piece.sha256, types])[:40]}.parquet"
        chosen = ", ".join(f"{parsed(c, kind)} as {quoted(c)}" for c, kind in types.items())
        bad = mistakes({c: k for c, k in types.items() if c in frozen})
        query = f"select {chosen}, {bad} as {BAD} from {table}"
        _write(typed, lambda part: run(f"copy ({query}) to '{str(part).replace(chr(39), chr(39) * 2)}' (format parquet)"))
    finally:
        raw.unlink(missing_ok=True)
    return msgspec.structs.replace(piece, path=str(typed))


def csv_as_text(path: Path, to: Path, name: str) -> None:
    """Copies a CSV to Parquet with every column as text, in pieces (a file may be larger than memory). A row of another length is a fault."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    comma = "\t" if ".tsv" in name.lower() else ","
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            first = stream.read(1 << 20)
        header = first.split(b"\n", 1)[0]
        columns = pc.read_csv(pa.BufferReader(header + b"\n"), parse_options=pc.ParseOptions(delimiter=comma)).column_names
        if len(set(columns)) < len(columns):
            raise DataFault(f"{name}: two columns have one name", hint="give each column a name of its own")
        options = pc.ConvertOptions(
            column_types={column: pa.string() for column in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = pc.open_csv(
                stream, parse_options=pc.ParseOptions(delimiter=comma, newlines_in_values=True), convert_options=options
            )
            with pq.ParquetWriter(to, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        hint = f"rows are separated by line ends, values by {'a tab' if comma != ',' else 'a comma'}; quote values that contain one; write UTF-8"
        raise DataFault(f"{name} cannot be read as CSV: {first_line}", hint=hint) from None


# -------------------------------------------------------------------------------------------------- frames and queries


def framed(data: Any) -> pl.DataFrame:
    """A polars frame from a polars (also lazy), pandas or Arrow frame."""
    if isinstance(data, pl.DataFrame):
        frame = data
    elif isinstance(data, pl.LazyFrame):
        frame = data.collect()
    elif hasattr(data, "__arrow_c_stream__") or hasattr(data, "__dataframe__") or type(data).__module__.startswith("pandas"):
        made = pl.from_pandas(data) if type(data).__module__.startswith("pandas") else pl.from_arrow(data)
        frame = made if isinstance(made, pl.DataFrame) else made.to_frame()
    else:
        raise DataFault(
            f"a source's data is a {type(data).__name__}", hint="give a path, a polars, pandas or Arrow frame, or Query(url, sql)"
        )
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def queried(source: Source) -> pl.DataFrame:
    """The rows of a ``Query``, through SQLAlchemy. Texts in its time columns are read as times when they carry a zone."""
    import sqlalchemy as sa

    query: Query = source.data
    try:
        engine = sa.create_engine(query.url)
        try:
            with engine.connect() as connection:
                answer = connection.execute(sa.text(query.sql))
                names = list(answer.keys())
                rows = [tuple(row) for row in answer]
        finally:
            engine.dispose()
    except Exception as error:  # drivers bring their own trees; the message may hold the address, so it is left out
        raise DataFault(
            f"source {source.name!r}: the database did not answer the query ({type(error).__name__})",
            hint="run the query by hand with the same address; see that the driver is installed",
        ) from None
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    frame = frame.with_columns(pl.col(pl.Decimal).cast(pl.Float64))
    delay = delay_of(source)
    texts = [c for c in (source.time, delay) if isinstance(c, str) and frame.schema.get(c) == pl.String]
    for column in texts:
        zoned = frame[column].str.contains(r"(Z|[+-]\d{2}(:?\d{2})?)$")
        if frame.height and zoned.drop_nulls().all():
            frame = frame.with_columns(pl.col(column).str.to_datetime(time_unit="us", time_zone="UTC", strict=False))
    return frame


def _stamp_of(frame: pl.DataFrame) -> int:
    """A cheap number that changes with a frame's content; it never leaves this machine."""
    names = digest([[name, str(kind)] for name, kind in frame.schema.items()])
    rows = frame.hash_rows().to_numpy().tobytes() if frame.width else b""
    return int.from_bytes(hashlib.sha256(names.encode() + rows).digest()[:7], "big")
