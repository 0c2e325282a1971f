"""Expressions of a declaration, checked by the engine itself: bound against empty typed tables, never run on data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import polars as pl

from noria.core import quoted

if TYPE_CHECKING:
    import duckdb

    Schema = Mapping[str, pl.DataType | type[pl.DataType] | str]

_NUMBERS = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
    "FLOAT",
    "DOUBLE",
)
_CLOCKS = frozenset({"age", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})


def kind_of_type(name: str) -> Literal["number", "text", "other"]:
    """What a SQL type is as a feature.

    >>> [kind_of_type(t) for t in ("BIGINT", "DECIMAL(10,2)", "BOOLEAN", "VARCHAR", "DATE", "DOUBLE[]")]
    ['number', 'number', 'number', 'text', 'other', 'other']
    """
    if name in _NUMBERS or (name.startswith("DECIMAL(") and name.endswith(")")):
        return "number"
    return "text" if name in ("VARCHAR", "UUID") or (name.startswith("ENUM(") and name.endswith(")")) else "other"


def connect() -> duckdb.DuckDBPyConnection:
    """A small engine in memory: one thread, UTC, no access to anything outside. What is made on it has to be temporary.

    All of a process share one (it costs 50 ms to start); each connection has its own temporary tables.
    """
    connection = _database(os.getpid()).cursor()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@lru_cache(maxsize=1)
def _database(process: int) -> duckdb.DuckDBPyConnection:  # noqa: ARG001  # a forked process must not use its parent's
    import duckdb

    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    connection.execute("SET enable_external_access = false; SET threads = 1")
    return connection


def bind(schema: Schema, expressions: Sequence[str]) -> dict[str, str | Exception]:
    """The SQL type of each expression over a table with these columns, or why it has none.

    An aggregate, a window function or a subquery is no expression over one row, and is refused.

    >>> bind({"a": pl.Int32}, ["a / 2"])
    {'a / 2': 'DOUBLE'}
    """
    import duckdb

    found: dict[str, str | Exception] = {}
    with connect() as connection:
        try:
            _empty_table(connection, schema)
        except duckdb.Error as error:
            return dict.fromkeys(expressions, error)
        for text in expressions:
            try:
                connection.execute(f"SELECT 1 FROM _rows WHERE (\n{text}\n) IS NOT NULL")
                described = connection.execute(f"DESCRIBE SELECT (\n{text}\n) AS _it FROM _rows").fetchall()
                found[text] = "BOOLEAN" if described[0][1] == '"NULL"' else str(described[0][1])
            except duckdb.Error as error:
                found[text] = error
    return found


def _empty_table(connection: duckdb.DuckDBPyConnection, schema: Schema) -> None:
    frame = pl.DataFrame(
        schema={name: kind for name, kind in schema.items() if not isinstance(kind, str)} or {"_nothing": pl.Int8}
    )
    texts = "".join(f", CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in schema.items() if isinstance(kind, str))
    connection.register("_typed", frame.to_arrow())
    connection.execute(f"CREATE TEMP TABLE _rows AS SELECT *{texts} FROM _typed LIMIT 0")


def objection(text: str) -> str | None:
    """Why an expression may not be a feature although it parses: it looks at other rows or at the clock. ``None``: it may.

    >>> objection("delay / 60"), objection("random()")
    (None, 'random gives another value each time it is asked')
    """
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(text, dialect="duckdb")
        tokens = sqlglot.tokenize(text, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        return f"{text} is not SQL: {_first(error)}"
    if tree.find(exp.Query) is not None:
        return "a subquery looks at other rows, and not only at those known at the time"
    if tree.find(exp.Parameter, exp.Placeholder, exp.Star) is not None:
        return "parameters and stars are not expressions over one row"
    pairs = zip(tokens, [*(token.text for token in tokens[1:]), ""], strict=True)
    plain = [(token.text.lower(), after) for token, after in pairs if token.token_type.name not in ("IDENTIFIER", "STRING")]
    names = {word for word, after in plain if after == "(" or word in _CLOCKS}
    if unstable := sorted(names & _unstable()):
        return f"{unstable[0]} gives another value each time it is asked"
    return None


def columns_of(text: str) -> set[str]:
    """The columns an expression reads (empty when it does not parse).

    >>> sorted(columns_of('"from" || upper(carrier)'))
    ['carrier', 'from']
    """
    import sqlglot
    from sqlglot import exp

    try:
        return {column.name for column in sqlglot.parse_one(text, dialect="duckdb").find_all(exp.Column)}
    except sqlglot.errors.SqlglotError:
        return set()


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].replace("\x1b[4m", "").replace("\x1b[0m", "")


@lru_cache(maxsize=1)
def _unstable() -> frozenset[str]:
    """Functions that the engine itself calls volatile or fixed only within one query, and the words that read the clock."""
    with connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
    return frozenset(str(name) for (name,) in rows) | _CLOCKS
