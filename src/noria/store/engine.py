"""The SQL engine of one machine: DuckDB over files of the lake and frames in memory, larger than memory when it must be."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from noria.core import NoriaError, Refused, Unavailable, quoted

_WITH = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*with\s+(recursive\s+)?", re.IGNORECASE | re.DOTALL)
_SQL_NAMES: dict[Any, str] = {
    pl.String: "varchar",
    pl.Int64: "bigint",
    pl.Int32: "integer",
    pl.Int16: "smallint",
    pl.Int8: "tinyint",
    pl.Float64: "double",
    pl.Float32: "float",
    pl.Boolean: "boolean",
    pl.Binary: "blob",
    pl.Date: "date",
}


@dataclass(frozen=True)
class Scan:
    """Files of a table that may hold what is wanted, and the table's columns.

    ``widths`` says for each file how many of the columns (the first so many) it has; empty: all have all.
    """

    files: tuple[Path, ...]
    schema: dict[str, pl.DataType]
    widths: tuple[int, ...] = ()


class Engine:
    """Runs queries in DuckDB's dialect.

    Times are in UTC. Only the home's own folder can be read, nothing can be installed, and the settings are locked, so that a
    declaration's SQL cannot reach anything else.

    >>> engine = Engine()
    >>> engine.sql("select sum(x)::bigint as s from t", t=pl.DataFrame({"x": [1, 2]})).item()
    3
    """

    def __init__(self, folder: Path | None = None, *, threads: int = 2, memory: str = "1GB") -> None:
        """``folder`` is the home: its lake may be read, its ``spill`` folder takes what does not fit into ``memory``."""
        options: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": memory,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        try:
            self._connection = duckdb.connect(config=options)
        except duckdb.Error as error:
            raise Unavailable(f"the SQL engine did not start: {error}", hint="check NORIA_THREADS and NORIA_MEMORY") from error
        run = self._connection.execute
        run("set TimeZone='UTC'")
        run("set parquet_metadata_cache=true")
        allowed = []
        if folder is not None:
            spill = folder / "spill"
            run(f"set temp_directory={_text(str(spill))}")
            allowed = [str(folder / "lake"), str(spill)]
        run(f"set allowed_directories={_list(allowed)}")
        run("set enable_external_access=false")
        run("set lock_configuration=true")
        self._lock = threading.RLock()
        self._frames = 0

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def sql(self, query: str, **tables: Scan | pl.DataFrame) -> pl.DataFrame:
        """Runs one ``select``; the names of ``tables`` are the tables in it.

        Raises ``NoriaError`` with the engine's own words and the query when it cannot be run, ``Unavailable`` when memory and
        disk do not suffice, ``Refused`` when it reaches for files or settings.
        """
        with self._lock:
            names: list[str] = []
            parts: list[str] = []
            try:
                for name, table in tables.items():
                    parts.append(f"{quoted(name)} as not materialized ({self._relation(table, names)})")
                return self._run(_joined(query, parts))
            except duckdb.Error as error:
                raise _as_ours(error, query) from error
            finally:
                for frame in names:
                    self._connection.unregister(frame)

    def _relation(self, table: Scan | pl.DataFrame, names: list[str]) -> str:
        if isinstance(table, Scan):
            return scan_sql(table)
        self._frames += 1
        names.append(f"_frame_{self._frames}")
        self._connection.register(names[-1], table.to_arrow(compat_level=pl.CompatLevel.oldest()))
        return f"select * from {names[-1]}"

    def _run(self, query: str) -> pl.DataFrame:
        relation = self._connection.sql(query)
        if relation is None:
            raise NoriaError(f"this is not a question: {query.strip()}", hint="write one `select`")
        wide = [name for name, kind in zip(relation.columns, relation.types, strict=True) if str(kind) in ("HUGEINT", "UHUGEINT")]
        try:
            frame = pl.from_arrow(relation.to_arrow_table())
        except pl.exceptions.PolarsError as error:
            raise NoriaError(
                f"a column of the answer has a type that frames cannot hold: {error}", hint="cast it in the query"
            ) from error
        assert isinstance(frame, pl.DataFrame)
        for name in wide:  # a sum of whole numbers is a HUGEINT
            narrow = frame[name].cast(pl.Int64, strict=False)
            if narrow.null_count() == frame[name].null_count():
                frame = frame.with_columns(narrow)
        return frame


def scan_sql(scan: Scan) -> str:
    """A scan as a query: the files, with nulls for the columns that they lack; typed and empty without files."""
    if not scan.files:
        columns = ", ".join(f"null::{sql_type(kind)} as {quoted(name)}" for name, kind in scan.schema.items())
        return f"select {columns or 'null as nothing'} where false"
    files = _list([str(path) for path in scan.files])
    widths = set(scan.widths) or {len(scan.schema)}
    lacking = list(scan.schema.items())[max(widths) :]
    more = "".join(f", null::{sql_type(kind)} as {quoted(name)}" for name, kind in lacking)
    union = ", union_by_name=true" if len(widths) > 1 else ""
    return f"select *{more} from read_parquet({files}{union})"


def sql_type(kind: pl.DataType) -> str:
    """A column's type in DuckDB's words.

    >>> sql_type(pl.List(pl.Float64))
    'double[]'
    """
    if isinstance(kind, pl.Datetime):
        return "timestamptz" if kind.time_zone else "timestamp"
    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, pl.List):
        return f"{sql_type(kind.inner)}[]"  # type: ignore[arg-type]  # an instance, as the lake's types are
    if isinstance(kind, pl.Struct):
        return f"struct({', '.join(f'{quoted(f.name)} {sql_type(f.dtype)}' for f in kind.fields)})"  # type: ignore[arg-type]
    return _SQL_NAMES[kind if isinstance(kind, type) else type(kind)]


def _joined(query: str, parts: list[str]) -> str:
    if not parts:
        return query
    begins = _WITH.match(query)
    if begins is None:
        return f"with {', '.join(parts)} {query}"
    return f"with {begins[1] or ''}{', '.join(parts)}, {query[begins.end() :]}"


def _as_ours(error: duckdb.Error, query: str) -> NoriaError:
    shown = f"{error}\nin the query:\n{query.strip()}"
    if isinstance(error, duckdb.PermissionException):
        return Refused(f"the query reaches outside the lake: {shown}", hint="name the tables it needs instead of files")
    if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
        return Unavailable(f"the SQL engine ran out of room: {shown}", hint="raise NORIA_MEMORY or free space on the disk")
    return NoriaError(f"the query cannot be run: {shown}", hint="mend the SQL")


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(texts: list[str]) -> str:
    return "[" + ", ".join(_text(text) for text in texts) + "]"
