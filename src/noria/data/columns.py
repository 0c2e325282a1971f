"""Columns of a source as SQL types: what is stored, what may widen into what, and what a text column of a CSV really holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from noria.core import quoted
from noria.store.rows import ZONED

Run = Callable[[str], pl.DataFrame]
NAIVE = ("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE")
NUMBERS = ("BIGINT", "DOUBLE")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_SAME = dict.fromkeys(_WHOLE, "BIGINT") | {
    "UBIGINT": "DOUBLE",
    "HUGEINT": "DOUBLE",
    "UHUGEINT": "DOUBLE",
    "FLOAT": "DOUBLE",
    "REAL": "DOUBLE",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMPTZ": ZONED,
    "TIME": "VARCHAR",
    "UUID": "VARCHAR",
    '"NULL"': "NULL",
}
NOTHING = ("NA", "N/A", "NULL", "null", "NaN", "nan", "None")
INTEGER = r"[+-]?(0|[1-9]\d{0,17})"
NUMBER = r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?([iI]nf|[iI]nfinity)|1[eE]999"
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?"
MOMENT = _CLOCK + r"\s?(Z|[+-]\d{2}(:?\d{2})?)"
LOCAL = _CLOCK
DAY = r"\d{4}-\d{2}-\d{2}"


def text(value: str) -> str:
    """A text as a SQL literal.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def paths(files: Sequence[object]) -> str:
    """Paths as a SQL list for ``read_parquet``."""
    return "[" + ", ".join(text(str(file)) for file in files) + "]"


def stored_type(kind: str) -> str:
    """The type a column is kept as: whole numbers as BIGINT, others as DOUBLE; the rest as it is.

    >>> stored_type("INTEGER"), stored_type("FLOAT"), stored_type("VARCHAR")
    ('BIGINT', 'DOUBLE', 'VARCHAR')
    """
    if kind.startswith("ENUM"):
        return "VARCHAR"
    return _SAME.get(kind, kind)


def fits(kind: str, frozen: str) -> bool:
    """Whether every value of ``kind`` is a value of ``frozen``.

    >>> fits("BIGINT", "DOUBLE"), fits("DOUBLE", "BIGINT")
    (True, False)
    """
    return (
        kind in (frozen, "NULL")
        or (kind == "BIGINT" and frozen == "DOUBLE")
        or (kind.startswith("DECIMAL") and frozen == "DOUBLE")
    )


def _value(column: str) -> str:
    nothing = ", ".join(text(word) for word in NOTHING)
    trimmed = f"trim({quoted(column)})"
    return f"case when {trimmed} in ({nothing}) then null else {trimmed} end"


def parsed(column: str, kind: str) -> str:
    """SQL that reads a text column as ``kind``; null where the text is not one.

    >>> parsed("n", "VARCHAR")
    '"n"'
    """
    value = _value(column)
    match kind:
        case "BIGINT":
            return f"case when regexp_full_match({value}, {text(INTEGER)}) then try_cast({value} as BIGINT) end"
        case "DOUBLE":
            return f"case when regexp_full_match({value}, {text(NUMBER)}) then try_cast({value} as DOUBLE) end"
        case "BOOLEAN":
            return f"case lower({value}) when 'true' then true when 'false' then false end"
        case "TIMESTAMP WITH TIME ZONE":
            return f"case when regexp_full_match({value}, {text(MOMENT)}) then try_cast({value} as TIMESTAMPTZ) end"
        case "TIMESTAMP":
            return f"case when regexp_full_match({value}, {text(LOCAL)}) then try_cast({value} as TIMESTAMP) end"
        case "DATE":
            return f"case when regexp_full_match({value}, {text(DAY)}) then try_cast({value} as DATE) end"
        case "VARCHAR":
            return quoted(column)
        case _:
            return f"try_cast({value} as {kind})"


_GUESSES = ("BOOLEAN", "BIGINT", "DOUBLE", ZONED, "TIMESTAMP", "DATE")


def guess(run: Run, table: str, columns: Sequence[str]) -> dict[str, str]:
    """The types that every value of the text columns of ``table`` (SQL) has; text where none fits all.

    Whole numbers with leading zeros stay text (postal codes), and a word such as ``NA`` is "no value" only among numbers and times.
    """
    counts = []
    for place, column in enumerate(columns):
        counts.append(f"count({_value(column)}) as n{place}")
        counts += [f"count({parsed(column, kind)}) as c{place}_{i}" for i, kind in enumerate(_GUESSES)]
    if not counts:
        return {}
    row = run(f"select {', '.join(counts)} from {table}").row(0, named=True)
    found = {}
    for place, column in enumerate(columns):
        n = row[f"n{place}"]
        fitting = [kind for i, kind in enumerate(_GUESSES) if n and row[f"c{place}_{i}"] == n]
        found[column] = fitting[0] if fitting else "VARCHAR"
    return found


def unreadable(run: Run, table: str, types: dict[str, str]) -> dict[str, tuple[int, int]]:
    """For each text column read as its type: how many values there are and how many cannot be read."""
    asked = [c for c, kind in types.items() if kind != "VARCHAR"]
    if not asked:
        return {}
    counts = [
        f"count({_value(c)}) as n{i}, count(*) filter (({_value(c)}) is not null and ({parsed(c, types[c])}) is null) as b{i}"
        for i, c in enumerate(asked)
    ]
    row = run(f"select {', '.join(counts)} from {table}").row(0, named=True)
    return {c: (row[f"n{i}"], row[f"b{i}"]) for i, c in enumerate(asked)}


def mistakes(types: dict[str, str]) -> str:
    """SQL for the texts that cannot be read in a row, as ``column=text; …``, or null when all can."""
    asked = [c for c, kind in types.items() if kind != "VARCHAR"]
    if not asked:
        return "cast(null as VARCHAR)"
    parts = [
        f"case when ({_value(c)}) is not null and ({parsed(c, types[c])}) is null then {text(c + '=')} || left({_value(c)}, 80) end"
        for c in asked
    ]
    return f"nullif(concat_ws('; ', {', '.join(parts)}), '')"
