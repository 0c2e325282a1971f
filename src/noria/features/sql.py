"""The features of a system as one SQL query: what ``features`` defines, on an engine that exists.

The query reads a table ``spine`` (``_id``, ``_n`` the row's number, ``_t`` the asked time in microseconds, and the predicted row's columns)
and one table per looked-up source, named by ``table_name``. It is DuckDB's dialect and uses only what sqlglot carries to Spark.

There are two ways to the same numbers, bit for bit (sums are exact, so it does not matter how they are made):

``tiles``, for any number of rows. Each window group (same source, ``by`` and ``every``) is three steps, where *slots* are the distinct
(``by``, open tile) of the spine:

- ``tiles``: the rows, aggregated per ``by`` and tile;
- ``closed``: tiles ``UNION ALL`` slots, and over them ``RANGE BETWEEN W/every PRECEDING AND 1 PRECEDING`` per ``by``, once per ``W``;
- ``open``: rows ``UNION ALL`` spine, and over them everything up to the asked time per (``by``, tile).

Each lookup group (same source and ``by``) numbers the rows per ``by`` and takes the greatest number up to the asked time.

``pairs``, for few predicted rows: each is joined with its rows. A third of the planning and a single pass, but the work is the number of
pairs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

from noria.core import duration
from noria.features.binding import quoted
from noria.features.plan import FeatureColumn, Plan, expression, lookback

Way = Literal["tiles", "pairs"]

SCALE = 1_000_000
LARGEST = "1.7976931348623157e308"
MICROSECOND = timedelta(microseconds=1)


def table_name(plan: Plan, source: str) -> str:
    """The name under which the query reads a source: words only, and different for different sources.

    >>> table_name(Plan("", (), {"a.b": timedelta(0), "a_b": timedelta(0)}), "a_b")
    'source_1_a_b'
    """
    return f"source_{sorted(plan.sources).index(source)}_{re.sub('[^a-z0-9]', '_', source.lower())}"


def sql(
    plan: Plan,
    *,
    way: Way = "tiles",
    asked: tuple[datetime, datetime] | None = None,
    present: Collection[str] | None = None,
) -> str:
    """The query that computes every feature of ``plan`` for every row of ``spine``: ``_id`` and the features, in the spine's order.

    ``asked`` is the earliest and the latest time in the spine: it spares reading, and changes no value. ``present`` names the sources
    that have rows (default: all); the tables of others are not read.
    """
    steps: list[str] = []
    joins: list[str] = []
    values: dict[str, str] = {}
    for number, columns in enumerate(_groups(plan)):
        feature = columns[0].feature
        if present is not None and feature.source not in present:
            values |= {column.name: _nothing(column) for column in columns}
            continue
        makers = {
            ("window", "tiles"): _tiles,
            ("window", "pairs"): _pairs,
            ("last", "tiles"): _newest,
            ("last", "pairs"): _newest_pairs,
        }
        made, found = makers[feature.op, way](f"_g{number}", _rows_of(plan, columns, asked), columns)
        steps += made
        values |= found
        joins.append(f"LEFT JOIN _g{number} ON _g{number}._n = s._n")
    for column in plan.columns:
        if column.feature.op in ("column", "expression"):
            values[column.name] = _clean(f"s.{quoted(f'_e_{column.name}')}", column.numeric)
    chosen = "".join(f",\n  {values[column.name]} AS {quoted(column.name)}" for column in plan.columns)
    head = "WITH " + ",\n".join([_asked(plan), *steps])
    return "\n".join([head, f"SELECT s._id{chosen}", "FROM _asked AS s", *joins, "ORDER BY s._n"])


def _groups(plan: Plan) -> list[list[FeatureColumn]]:
    """Features that share a pass: windows by source, by and every; lookups by source and by."""
    groups: dict[tuple[object, ...], list[FeatureColumn]] = {}
    for column in plan.columns:
        feature = column.feature
        if feature.op in ("window", "last"):
            groups.setdefault((feature.op, feature.source, feature.by, feature.every), []).append(column)
    return list(groups.values())


def _asked(plan: Plan) -> str:
    """The spine with the expressions over the predicted row, evaluated where only its columns are in sight."""
    made = [
        f",\n  (\n{expression(column.feature)}\n) AS {quoted(f'_e_{column.name}')}"
        for column in plan.columns
        if column.feature.op in ("column", "expression")
    ]
    keys = dict.fromkeys(name for column in plan.columns for name, _ in column.feature.by)
    kept = [f", {quoted(name)} AS {quoted(f'_by_{name}')}" for name in keys]
    return f"_asked AS (SELECT _n, _t, _id{''.join(kept)}{''.join(made)} FROM spine)"


def _rows_of(plan: Plan, columns: list[FeatureColumn], asked: tuple[datetime, datetime] | None) -> str:
    """The rows of a group's source that can matter to it, as ``r``."""
    table = quoted(table_name(plan, columns[0].feature.source))
    if asked is None:
        return f"FROM {table} AS r"
    after = asked[0] - max(lookback(column.feature) for column in columns) - MICROSECOND
    between = f"_known > TIMESTAMPTZ '{after.isoformat(sep=' ')}' AND _known <= TIMESTAMPTZ '{asked[1].isoformat(sep=' ')}'"
    return f"FROM (SELECT * FROM {table} WHERE {between}) AS r"


def _clean(value: str, numeric: bool | None) -> str:
    """A value as a feature: finite ``DOUBLE`` or ``VARCHAR`` (as it is while its type is not known)."""
    if numeric is None:
        return value
    if not numeric:
        return f"CAST({value} AS VARCHAR)"
    return f"CASE WHEN ABS(CAST({value} AS DOUBLE)) <= {LARGEST} THEN CAST({value} AS DOUBLE) END"


def _nothing(column: FeatureColumn) -> str:
    """The feature over no rows."""
    if column.feature.agg in ("count", "sum"):
        return "CAST(0 AS DOUBLE)"
    return "NULL" if column.numeric is None else f"CAST(NULL AS {'DOUBLE' if column.numeric else 'VARCHAR'})"


def _micros(column: str) -> str:
    return f"DATE_DIFF('microsecond', TIMESTAMP '1970-01-01 00:00:00', CAST({column} AS TIMESTAMP))"


class _Keys:
    """The columns of ``by`` under the names ``_k0``, ``_k1``, …, and the pieces of SQL that repeat them."""

    def __init__(self, columns: list[FeatureColumn]) -> None:
        self.by = by = columns[0].feature.by
        self.names = [f"_k{number}" for number in range(len(by))]
        self.select = "".join(f"{name}, " for name in self.names)
        self.of_rows = "".join(f"r.{quoted(column)} AS {name}, " for name, (_, column) in zip(self.names, by, strict=True))
        self.of_spine = "".join(
            f"{quoted(f'_by_{column}')} AS {name}, " for name, (column, _) in zip(self.names, by, strict=True)
        )
        self.given = " AND ".join(f"{quoted(f'_by_{column}')} IS NOT NULL" for column, _ in by) or "TRUE"
        self.match = "".join(f"a.{name} = b.{name} AND " for name in self.names)

    def among(self, group: str) -> str:
        """Leaves only the rows that some predicted row looks for."""
        if not self.names:
            return ""
        matched = " AND ".join(f"r.{quoted(column)} = q.{name}" for name, (_, column) in zip(self.names, self.by, strict=True))
        return f"SEMI JOIN (SELECT DISTINCT {', '.join(self.names)} FROM {group}_asked) AS q ON {matched}"

    def partition(self, *more: str) -> str:
        columns = ", ".join([*self.names, *more])
        return f"PARTITION BY {columns} " if columns else ""


# ------------------------------------------------------------------------------------------------------------------- last


def _newest(group: str, rows: str, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    keys = _Keys(columns)
    texts, read, kept = _looked_up(columns)
    over = f"{keys.partition()}ORDER BY _at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    numbered = f"ROW_NUMBER() OVER ({keys.partition()}ORDER BY _at, _happened, _content) AS _place"
    steps = [
        f"{group}_asked AS (SELECT {keys.of_spine}_n, _t FROM _asked WHERE {keys.given})",
        f"{group}_read AS (SELECT {keys.of_rows}{_micros('r._known')} AS _at, r._time AS _happened, r._row AS _content{read}\n"
        f"  {rows} {keys.among(group)})",
        f"{group}_rows AS (SELECT {keys.select}_at, {numbered}{kept} FROM {group}_read)",
        f"{group}_all AS (SELECT {keys.select}_at, _place, CAST(NULL AS BIGINT) AS _n FROM {group}_rows\n"
        f"  UNION ALL SELECT {keys.select}_t, NULL, _n FROM {group}_asked)",
        f"{group}_at AS (SELECT {keys.select}_n, _at AS _t, MAX(_place) OVER ({over}) AS _place FROM {group}_all)",
        f"{group} AS (SELECT a._n, a._t - b._at AS _age{kept}\n"
        f"  FROM (SELECT * FROM {group}_at WHERE _n IS NOT NULL) AS a JOIN {group}_rows AS b ON {keys.match}a._place = b._place)",
    ]
    return steps, _looked_up_values(group, columns, texts)


def _newest_pairs(group: str, rows: str, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    keys = _Keys(columns)
    texts, read, kept = _looked_up(columns)
    oldest = max(_age(column) for column in columns)
    steps = [
        f"{group}_asked AS (SELECT {keys.of_spine}_n, _t FROM _asked WHERE {keys.given})",
        f"{group}_rows AS (SELECT {keys.of_rows}{_micros('r._known')} AS _at, r._time AS _happened, r._row AS _content{read}\n  {rows})",
        f"{group} AS (SELECT _n, _age{kept} FROM (SELECT a._n, a._t - b._at AS _age{kept},\n"
        f"    ROW_NUMBER() OVER (PARTITION BY a._n ORDER BY b._at DESC, b._happened DESC, b._content DESC) AS _place\n"
        f"  FROM {group}_asked AS a JOIN {group}_rows AS b ON {keys.match}b._at <= a._t AND b._at >= a._t - {oldest}) AS p WHERE _place = 1)",
    ]
    return steps, _looked_up_values(group, columns, texts)


def _looked_up(columns: list[FeatureColumn]) -> tuple[list[str], str, str]:
    """The distinct expressions, their SQL over a source's row, and the names of their values."""
    texts = list(dict.fromkeys(column.feature.expr for column in columns))
    read = "".join(f", (\n{text}\n) AS _v{number}" for number, text in enumerate(texts))
    return texts, read, "".join(f", _v{number}" for number in range(len(texts)))


def _looked_up_values(group: str, columns: list[FeatureColumn], texts: list[str]) -> dict[str, str]:
    values = {}
    for column in columns:
        value = f"CASE WHEN {group}._age <= {_age(column)} THEN {group}._v{texts.index(column.feature.expr)} END"
        values[column.name] = _clean(f"({value})", column.numeric)
    return values


def _age(column: FeatureColumn) -> int:
    return duration(column.feature.max_age or "") // MICROSECOND


# ---------------------------------------------------------------------------------------------------------------- windows


class _State:
    """What is kept per tile for one expression, as (name, what to make of a row, how it merges)."""

    def __init__(self, number: int, columns: list[FeatureColumn]) -> None:
        wanted = {column.feature.agg for column in columns}
        self.text = columns[0].feature.expr
        self.countable = all(column.counts_text for column in columns)
        self.number = number
        value, fixed = f"_d{number}", f"_f{number}"
        self.parts: list[tuple[str, str, str]] = [(f"_c{number}", f"CASE WHEN {value} IS NOT NULL THEN 1 END", "SUM")]
        if self.text == "*":
            self.parts = [(f"_c{number}", "1", "SUM")]
        if wanted & {"sum", "mean", "std"}:
            self.parts.append((f"_s{number}", fixed, "SUM"))
        if "std" in wanted:
            self.parts.append((f"_q{number}", f"CAST({fixed} AS DECIMAL(38, 0)) * {fixed}", "SUM"))
        if "min" in wanted:
            self.parts.append((f"_lo{number}", value, "MIN"))
        if "max" in wanted:
            self.parts.append((f"_hi{number}", value, "MAX"))

    @property
    def read(self) -> str:
        """The expression over a source's row: a finite number, or 1 where there is something to count."""
        if self.text == "*":
            return ""
        if self.countable:
            return f", CASE WHEN (\n{self.text}\n) IS NOT NULL THEN 1 END AS _d{self.number}"
        value = f"CAST((\n{self.text}\n) AS DOUBLE)"
        return f", CASE WHEN ABS({value}) <= {LARGEST} THEN {value} END AS _d{self.number}"

    @property
    def fixed(self) -> str:
        """The number as a whole number of millionths."""
        if not any(name.startswith("_s") for name, _, _ in self.parts):
            return ""
        return f", CAST(ROUND(_d{self.number} * {SCALE}) AS DECIMAL(18, 0)) AS _f{self.number}"


class _Windows:
    """What a group of windows has in common: keys, the tile's width, the lengths, the states."""

    def __init__(self, columns: list[FeatureColumn]) -> None:
        self.columns = columns
        self.keys = _Keys(columns)
        self.tile = duration(columns[0].feature.every or "") // MICROSECOND
        self.lengths = list(dict.fromkeys(self._length(column) for column in columns))
        self.texts = list(dict.fromkeys(column.feature.expr for column in columns))
        self.states = [_State(number, [c for c in columns if c.feature.expr == text]) for number, text in enumerate(self.texts)]
        self.parts = [part for state in self.states for part in state.parts]

    @staticmethod
    def _length(column: FeatureColumn) -> int:
        return duration(column.feature.window or "") // MICROSECOND

    def rows(self, group: str, rows: str) -> list[str]:
        """The steps up to ``rows``: key, tile, time, and what each row adds to each part of the state."""
        keys, states = self.keys, self.states
        parts = ", ".join(f"{made} AS {name}" for name, made, _ in self.parts)
        return [
            f"{group}_read AS (SELECT {keys.of_rows}{_micros('r._known')} AS _at{''.join(s.read for s in states)}\n  {rows})",
            f"{group}_fixed AS (SELECT *{''.join(s.fixed for s in states)} FROM {group}_read)",
            f"{group}_rows AS (SELECT {keys.select}_at, CAST(FLOOR((_at - 1) / {self.tile}) AS BIGINT) AS _tile, {parts} FROM {group}_fixed)",
        ]

    def values(self, group: str) -> dict[str, str]:
        """The features from the merged state."""
        return {
            column.name: _value(
                group, column, f"{self.texts.index(column.feature.expr)}_{self.lengths.index(self._length(column))}"
            )
            for column in self.columns
        }


def _tiles(group: str, rows: str, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    w = _Windows(columns)
    keys, parts = w.keys, w.parts
    names = ", ".join(name for name, _, _ in parts)
    nulls = ", ".join("NULL" for _ in parts)
    slots = ", ".join([*keys.names, "_tile"])
    frames = [
        f"w{number} AS ({keys.partition()}ORDER BY _tile RANGE BETWEEN {length // w.tile} PRECEDING AND 1 PRECEDING)"
        for number, length in enumerate(w.lengths)
    ]
    closed = ", ".join(
        f"{how}({name}) OVER w{number} AS {name}_{number}" for number in range(len(w.lengths)) for name, _, how in parts
    )
    opened = ", ".join(f"{how}({name}) OVER w AS {name}" for name, _, how in parts)
    steps = [
        f"{group}_asked AS (SELECT {keys.of_spine}_n, _t, CAST(FLOOR(_t / {w.tile}) AS BIGINT) AS _tile FROM _asked WHERE {keys.given})",
        *w.rows(group, f"{rows} {keys.among(group)}"),
        f"{group}_tiles AS (SELECT {slots}, {', '.join(f'{how}({name}) AS {name}' for name, _, how in parts)}\n"
        f"  FROM {group}_rows GROUP BY {slots})",
        f"{group}_slots AS (SELECT {slots}, {names}, 0 AS _slot FROM {group}_tiles\n"
        f"  UNION ALL SELECT DISTINCT {slots}, {nulls}, 1 FROM {group}_asked)",
        f"{group}_closed AS (SELECT {slots}, _slot, {closed} FROM {group}_slots WINDOW {', '.join(frames)})",
        f"{group}_all AS (SELECT {slots}, _at, {names}, CAST(NULL AS BIGINT) AS _n FROM {group}_rows\n"
        f"  UNION ALL SELECT {slots}, _t, {nulls}, _n FROM {group}_asked)",
        f"{group}_open AS (SELECT {slots}, _n, {opened} FROM {group}_all\n"
        f"  WINDOW w AS ({keys.partition('_tile')}ORDER BY _at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))",
        f"{group}_merged AS (SELECT b._n{_merged(parts, len(w.lengths))}\n"
        f"  FROM (SELECT * FROM {group}_open WHERE _n IS NOT NULL) AS b\n"
        f"  JOIN (SELECT * FROM {group}_closed WHERE _slot = 1) AS a ON {keys.match}a._tile = b._tile)",
        f"{group} AS (SELECT *{_centres(w.states, len(w.lengths))} FROM {group}_merged)",
    ]
    return steps, w.values(group)


def _pairs(group: str, rows: str, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    w = _Windows(columns)
    longest = max(w.lengths)
    merged = ""
    for number, length in enumerate(w.lengths):
        inside = f"b._tile >= a._tile - {length // w.tile}"
        for name, _, how in w.parts:
            part = f"b.{name}" if length == longest else f"CASE WHEN {inside} THEN b.{name} END"
            whole = f"CAST(COALESCE(SUM({part}), 0) AS DECIMAL(38, 0))" if how == "SUM" else f"{how}({part})"
            merged += f", {whole} AS {name}_{number}"
    steps = [
        f"{group}_asked AS (SELECT {w.keys.of_spine}_n, _t, CAST(FLOOR(_t / {w.tile}) AS BIGINT) AS _tile FROM _asked WHERE {w.keys.given})",
        *w.rows(group, rows),
        f"{group}_merged AS (SELECT a._n{merged}\n  FROM {group}_asked AS a JOIN {group}_rows AS b\n"
        f"  ON {w.keys.match}b._at <= a._t AND b._tile >= a._tile - {longest // w.tile} GROUP BY a._n)",
        f"{group} AS (SELECT *{_centres(w.states, len(w.lengths))} FROM {group}_merged)",
    ]
    return steps, w.values(group)


def _merged(parts: list[tuple[str, str, str]], lengths: int) -> str:
    """Closed tiles and the open one together; what neither has stays null (counts and sums: 0)."""
    merged = []
    for number in range(lengths):
        for name, _, how in parts:
            closed, opened = f"a.{name}_{number}", f"b.{name}"
            if how == "SUM":
                text = f"CAST(COALESCE({closed}, 0) + COALESCE({opened}, 0) AS DECIMAL(38, 0))"
            else:
                text = f"{'LEAST' if how == 'MIN' else 'GREATEST'}(COALESCE({closed}, {opened}), COALESCE({opened}, {closed}))"
            merged.append(f", {text} AS {name}_{number}")
    return "".join(merged)


def _centres(states: list[_State], lengths: int) -> str:
    """For ``std``: a whole number near the mean, around which squares can be taken without loss."""
    return "".join(
        f", CAST(ROUND(CAST(_s{state.number}_{at} AS DOUBLE) / NULLIF(CAST(_c{state.number}_{at} AS DOUBLE), 0)) AS DECIMAL(38, 0))"
        f" AS _m{state.number}_{at}"
        for state in states
        for at in range(lengths)
        if any(name.startswith("_q") for name, _, _ in state.parts)
    )


def _value(group: str, column: FeatureColumn, at: str) -> str:
    """One aggregate from the merged state."""
    agg = column.feature.agg
    count, total = f"CAST({group}._c{at} AS DOUBLE)", f"CAST({group}._s{at} AS DOUBLE)"
    if agg == "count":
        return f"COALESCE({count}, 0)"
    if agg == "sum":
        return f"COALESCE({total} / {SCALE}, 0)"
    if agg == "mean":
        return f"{total} / NULLIF({count} * {SCALE}, 0)"
    if agg in ("min", "max"):
        return f"{group}._{'lo' if agg == 'min' else 'hi'}{at}"
    # sum (x - m)^2 = q + m (n m - 2 s), exactly; the mean lies (s - n m) / n beside m
    n, s, q, m = (f"{group}._{letter}{at}" for letter in "csqm")
    around = f"CAST({q} + {m} * ({n} * {m} - 2 * {s}) AS DOUBLE) / NULLIF({count}, 0)"
    beside = f"CAST({s} - {n} * {m} AS DOUBLE) / NULLIF({count}, 0)"
    return f"CASE WHEN {count} > 0 THEN SQRT(GREATEST({around} - ({beside}) * ({beside}), 0)) / {SCALE} END"
