"""SQL expressions over single rows, in process: translated where that is exact, by the engine otherwise.

Rows are plain mappings: numbers, texts, booleans, and times as microseconds, ISO text or ``datetime``. Values come out as plain: numbers
(decimals as doubles), texts, booleans, and times as microseconds in UTC.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from noria.core import DataFault, from_micros, quoted
from noria.features.binding import bind, columns_of, connect
from noria.features.translate import Closure, Translator, Untranslatable, arithmetic, kind_of
from noria.features.values import Inexact, moment

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    Types = Mapping[str, pl.DataType | type[pl.DataType] | str]


def sql_types(types: Types) -> dict[str, str]:
    """The columns' types in the engine's words, as they lie in the lake.

    >>> import polars as pl
    >>> sql_types({"a": pl.Int64, "b": pl.Datetime("us", "UTC"), "c": "text"})
    {'a': 'BIGINT', 'b': 'TIMESTAMP WITH TIME ZONE', 'c': 'VARCHAR'}
    """
    return dict(_sql_types(tuple(types.items())))


@lru_cache(maxsize=256)
def _sql_types(columns: tuple[tuple[str, pl.DataType | type[pl.DataType] | str], ...]) -> dict[str, str]:
    types = dict(columns)
    asked = [quoted(name) for name in types]
    found = bind(types, asked)
    wrong = next((str(kind) for kind in found.values() if isinstance(kind, Exception)), None)
    if wrong is not None:
        raise DataFault(f"a column's type is not one of the engine's: {wrong}", hint="name it as SQL does, for example DOUBLE")
    return {name: str(found[quoted(name)]) for name in types}


class Rowwise:
    """Expressions over one row, in order: those that can be translated exactly in Python, the rest with one prepared query.

    >>> import polars as pl
    >>> ask = Rowwise([("double", "a * 2"), ("long", "length(regexp_replace(b, 'x+', '')) > 2")], {"a": pl.Int64, "b": pl.String})
    >>> ask({"a": 4, "b": "abxxc"}), ask.many([{"a": 1, "b": None}])
    ((8, True), [(2, None)])
    >>> ask.slow
    ('long',)
    """

    def __init__(self, expressions: Sequence[tuple[str, str]], types: Types) -> None:
        """``types`` are the columns that a row may have (SQL or polars); raises ``DataFault`` when an expression does not fit them."""
        self.names = tuple(name for name, _ in expressions)
        self._texts = [text for _, text in expressions]
        self._types = sql_types(types)
        bound = bind(types, self._texts)
        for name, text in expressions:
            if isinstance(fault := bound[text], Exception):
                raise DataFault(f"{name}: {text} cannot be computed: {str(fault).splitlines()[0]}", hint="mend the SQL")
        self._kinds = {text: str(kind) for text, kind in bound.items()}
        kinds = tuple(self._types.items())
        self._fast: list[Closure | None] = [_compiled(text, kinds) for text in self._texts]
        self.slow = tuple(name for name, fast in zip(self.names, self._fast, strict=True) if fast is None)
        self._rest = [n for n, fast in enumerate(self._fast) if fast is None]
        self._whole = [n for n, fast in enumerate(self._fast) if fast is not None]
        self._engine = _Engine([self._texts[n] for n in self._rest], self._kinds, self._types) if self._rest else None
        self._spare: _Engine | None = None

    def __call__(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of all expressions for one row. Raises ``DataFault`` when the engine refuses one."""
        if self._engine is not None:
            return self.many([row])[0]
        try:
            return tuple([fast(row) for fast in self._fast])  # type: ignore[misc]  # without the engine all are there
        except Inexact:
            return self._all([row])[0]

    def many(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """The values for several rows: one query for all of them, if any is needed."""
        if not rows:
            return []
        values: list[list[Any]] = [[None] * len(self.names) for _ in rows]
        doubtful: list[int] = []
        for place, row in enumerate(rows):
            try:
                for n in self._whole:
                    values[place][n] = self._fast[n](row)  # type: ignore[misc]  # those are there
            except Inexact:
                doubtful.append(place)
        if self._engine is not None:
            for place, answers in enumerate(self._engine.ask(rows)):
                for n, answer in zip(self._rest, answers, strict=True):
                    values[place][n] = answer
        made = [tuple(row) for row in values]
        if doubtful:
            for place, whole in zip(doubtful, self._all([rows[place] for place in doubtful]), strict=True):
                made[place] = whole
        return made

    def _all(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        if self._spare is None:
            self._spare = _Engine(self._texts, self._kinds, self._types)
        return self._spare.ask(rows)

    def close(self) -> None:
        """Closes the engine's connections."""
        for engine in (self._engine, self._spare):
            if engine is not None:
                engine.close()


def compiled(expression: str, types: Types) -> Closure | None:
    """The expression as a Python function of a row, or ``None`` when only the engine answers it exactly.

    Before it is given, the function is compared with the engine on rows made for the occasion. It raises ``Inexact`` for a value that is
    better left to the engine.

    >>> compiled("a / 2 > b", {"a": "BIGINT", "b": "DOUBLE"})({"a": 3, "b": 1.0})
    True
    >>> compiled("regexp_replace(a, 'x', '')", {"a": "VARCHAR"}) is None
    True
    """
    return _compiled(expression, tuple(sql_types(types).items()))


@lru_cache(maxsize=1024)
def _compiled(expression: str, types: tuple[tuple[str, str], ...]) -> Closure | None:
    import sqlglot

    columns = {name.lower() for name in columns_of(expression)}
    read = {name: kind for name, kind in types if name.lower() in columns}
    try:
        tree = sqlglot.parse_one(expression, dialect="duckdb")
        bound = bind(read, [expression, *dict.fromkeys(arithmetic(tree))])
        made = Translator(read, bound).node(tree)
    except (sqlglot.errors.SqlglotError, Untranslatable, RecursionError):
        return None
    kind = bound[expression]
    if not isinstance(kind, str) or made.kind not in (kind_of(kind), "null"):
        return None
    return made.run if _proven(expression, kind, made.run, read) else None


PROBED = 128
_PROBES: dict[str, tuple[Any, ...]] = {
    "whole": (0, 1, -1, 2, 3, 7, -7, 10, 60, 100),
    "number": (0.0, 1.0, -1.0, 0.5, -0.5, 2.5, 1.5, -2.5, 0.1, 1e-9, 1e9, 123.456, -1e18, 3.0, math.inf),
    "text": ("", "a", "A", "ab", "true", "1", "b", "aZ"),
    "truth": (True, False),
    "time": (
        0,
        1_356_998_400_000_000,
        1_356_998_399_999_999,
        1_388_620_805_500_000,
        -1,
        1_669_018_253_836_285,
        -558_536_782_657_440,
    ),
}


def _proven(expression: str, kind: str, run: Closure, types: Mapping[str, str]) -> bool:
    """Whether the function gives what the engine gives, on rows of every sort of value and of the expression's own constants."""
    import duckdb
    import sqlglot
    from sqlglot import exp

    choose = random.Random(expression)
    found = [str(literal.this) for literal in sqlglot.parse_one(expression, dialect="duckdb").find_all(exp.Literal)]
    pools: dict[str, list[Any]] = {}
    for name, sql_type in types.items():
        pools[name] = [None, None, *_PROBES[kind_of(sql_type)]]
        pools[name] += [value for text in found for value in _near(text, kind_of(sql_type))]
    rows = [{name: choose.choice(pool) for name, pool in pools.items()} for _ in range(PROBED)]
    rows.append(dict.fromkeys(pools))
    engine = _Engine([f"TRY(\n{expression}\n)"], {f"TRY(\n{expression}\n)": kind}, types)
    try:
        wanted = [value for (value,) in engine.ask(rows)]
    except (DataFault, duckdb.Error):
        return False
    finally:
        engine.close()
    return all(_same(run, row, want) for row, want in zip(rows, wanted, strict=True))


def _near(text: str, kind: str) -> list[Any]:
    """Values at which a comparison with a constant turns."""
    if kind == "text":
        return [text]
    try:
        value = float(text)
    except ValueError:
        return []
    if kind == "number":
        return [value, -value, math.nextafter(value, math.inf)]
    return [int(value) + step for step in (-1, 0, 1)] if kind == "whole" and abs(value) < 2**31 else []


def _same(run: Closure, row: Mapping[str, Any], want: Any) -> bool:
    try:
        made = run(row)
    except Inexact:
        return True
    return type(made) is type(want) and (made == want or (made != made and want != want))  # noqa: PLR0124  # NaN


class _Engine:
    """A connection of its own, without access to anything, and one statement over the columns that its expressions read."""

    def __init__(self, texts: Sequence[str], kinds: Mapping[str, str], types: Mapping[str, str]) -> None:
        self._connection: duckdb.DuckDBPyConnection = connect()
        self._lock = threading.Lock()
        self._types = types
        self._columns = self._read(texts)
        typed = [f"CAST(? AS {types[name]}) AS {quoted(name)}" for name in self._columns]
        made = [_plain(f"(\n{text}\n)", kinds[text]) for text in texts]
        self._select = f"SELECT {', '.join(made)} FROM "
        self._one = self._connection.extract_statements(f"{self._select}(SELECT {', '.join(typed) or '1'}) AS _rows")[0]

    def _read(self, texts: Sequence[str]) -> list[str]:
        """The columns that the expressions read; all, when that is not certain."""
        named = {name.lower() for text in texts for name in columns_of(text)}
        some = [name for name in self._types if name.lower() in named]
        if len(some) == len(self._types):
            return some
        bound = bind({name: self._types[name] for name in some}, texts)
        return some if not any(isinstance(kind, Exception) for kind in bound.values()) else list(self._types)

    def ask(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        import duckdb

        given = [[_parameter(row.get(name), self._types[name]) for name in self._columns] for row in rows]
        with self._lock:
            try:
                if len(rows) == 1:
                    return list(self._connection.execute(self._one, given[0]).fetchall())
                return self._several(given)
            except duckdb.Error as error:
                told = f"an expression failed on a row: {str(error).splitlines()[0]}"
                raise DataFault(told, hint="use try_cast for what may not convert") from error

    def _several(self, given: list[list[Any]]) -> list[tuple[Any, ...]]:
        import polars as pl

        columns = {f"c{n}": [row[n] for row in given] for n in range(len(self._columns))}
        frame = pl.DataFrame({"_place": range(len(given)), **columns}, strict=False)
        typed = [f"CAST(c{n} AS {self._types[name]}) AS {quoted(name)}" for n, name in enumerate(self._columns)]
        self._connection.register("_given", frame.to_arrow())
        try:
            query = f"{self._select}(SELECT {', '.join([*typed, '_place'])} FROM _given) AS _rows ORDER BY _rows._place"
            return list(self._connection.execute(query).fetchall())
        finally:
            self._connection.unregister("_given")

    def close(self) -> None:
        self._connection.close()


def _plain(value: str, kind: str) -> str:
    """An expression's value as a plain one."""
    if kind.startswith(("DECIMAL", "FLOAT")):
        return f"CAST({value} AS DOUBLE)"
    return f"EPOCH_US({value})" if kind.startswith("TIMESTAMP") else value


def _parameter(value: Any, kind: str) -> Any:
    """A row's value as the engine takes it for a column of this type."""
    if value is None or not kind.startswith(("TIMESTAMP", "DATE")):
        return value
    try:
        found = from_micros(moment(value))
    except ValueError as error:
        raise DataFault(f"a column of times holds what is none: {error}", hint="write for example 2013-01-31T06:00:00Z") from None
    return found if kind.endswith("TIME ZONE") else found.replace(tzinfo=None)
