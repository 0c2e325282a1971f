"""The features of a system as one SQL query: what ``features`` defines, on an engine that exists.

The query reads a table ``spine`` (``_id``, ``_n`` the row's number, ``_t`` the asked time in microseconds, and the predicted row's columns)
and one table per looked-up source, named by ``table_name``. It is DuckDB's dialect and uses only what sqlglot carries to Spark.

Each source is read once: its keys, its times in microseconds, and the values of every expression over its rows.

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
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Literal

from noria.core import duration, micros, quoted
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
    once: bool = False,
) -> str:
    """The query that computes every feature of ``plan`` for every row of ``spine``: ``_id`` and the features, in the spine's order.

    ``asked`` is the earliest and the latest time in the spine: it spares reading, and changes no value. ``present`` names the sources
    that have rows (default: all); the tables of others are not read. ``once`` adds DuckDB's own word (``MATERIALIZED``) for
    reading a source once when several groups use it.
    """
    steps: list[str] = []
    joins: list[str] = []
    values: dict[str, str] = {}
    groups = [columns for columns in _groups(plan) if present is None or columns[0].feature.source in present]
    sources: dict[str, _Source] = {}
    for name in dict.fromkeys(columns[0].feature.source for columns in groups):
        mine = [columns for columns in groups if columns[0].feature.source == name]
        sources[name] = _Source(table_name(plan, name), [column for columns in mine for column in columns], asked)
        steps.append(sources[name].step(once=once and len(mine) > 1))
    for number, columns in enumerate(groups):
        feature = columns[0].feature
        makers = {
            ("window", "tiles"): _tiles,
            ("window", "pairs"): _pairs,
            ("last", "tiles"): _newest,
            ("last", "pairs"): _newest_pairs,
        }
        made, found = makers[feature.op, way](f"_g{number}", sources[feature.source], columns)
        steps += made
        values |= found
        joins.append(f"LEFT JOIN _g{number} ON _g{number}._n = s._n")
    values |= {column.name: _nothing(column) for column in plan.columns if column.name not in values}
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


class _Source:
    """One source as the groups read it: ``_at``, ``_happened``, ``_content``, keys as ``_by_…`` and the expressions' values.

    Of the expression number N, ``_vN`` is the value as it is, ``_dN`` the finite number (or 1 where there is something to count), ``_fN`` that
    number in whole millionths.
    """

    def __init__(self, table: str, columns: list[FeatureColumn], asked: tuple[datetime, datetime] | None) -> None:
        self.name = f"_{table}"
        self.table = table
        self.columns = columns
        self.asked = asked
        self.texts = list(dict.fromkeys(column.feature.expr for column in columns))

    def number(self, text: str) -> int:
        return self.texts.index(text)

    def rows(self, columns: list[FeatureColumn], *, among: str = "") -> str:
        """The rows that can matter to a group, as ``r``."""
        least = "" if self.asked is None else f" WHERE r._at > {micros(self._after(columns))}"
        return f"FROM {quoted(self.name)} AS r {among}{least}"

    def _after(self, columns: list[FeatureColumn]) -> datetime:
        assert self.asked is not None
        return self.asked[0] - max(lookback(column.feature) for column in columns) - MICROSECOND

    def step(self, *, once: bool) -> str:
        """The step that reads the table."""
        keys = dict.fromkeys(column for feature in self.columns for _, column in feature.feature.by)
        read = "".join(f", r.{quoted(column)} AS {quoted(f'_by_{column}')}" for column in keys)
        lookups = any(column.feature.op == "last" for column in self.columns)
        read += ", r._time AS _happened, r._row AS _content" if lookups else ""
        for number, text in enumerate(self.texts):
            read += "".join(self._values(number, text))
        between = ""
        if self.asked is not None:
            moments = (self._after(self.columns), self.asked[1])
            after, until = (f"TIMESTAMPTZ '{moment.isoformat(sep=' ')}'" for moment in moments)
            between = f" WHERE r._known > {after} AND r._known <= {until}"
        known = "DATE_DIFF('microsecond', TIMESTAMP '1970-01-01 00:00:00', CAST(r._known AS TIMESTAMP))"
        hint = "MATERIALIZED " if once else ""
        return f"{quoted(self.name)} AS {hint}(SELECT {known} AS _at{read}\n  FROM {quoted(self.table)} AS r{between})"

    def _values(self, number: int, text: str) -> Iterator[str]:
        mine = [column for column in self.columns if column.feature.expr == text]
        if any(column.feature.op == "last" for column in mine):
            yield f", (\n{text}\n) AS _v{number}"
        windows = [column for column in mine if column.feature.op == "window"]
        if not windows or text == "*":
            return
        if all(column.counts_text for column in windows):
            yield f", CASE WHEN (\n{text}\n) IS NOT NULL THEN 1 END AS _d{number}"
            return
        value = _finite(f"(\n{text}\n)")
        yield f", {value} AS _d{number}"
        if any(column.feature.agg in ("sum", "mean", "std") for column in windows):
            yield f", CAST(ROUND({value} * {SCALE}) AS DECIMAL(18, 0)) AS _f{number}"


def _finite(value: str) -> str:
    """A number as ``DOUBLE``; NaN (the largest number there is, in SQL) and infinities as null."""
    return f"CASE WHEN ABS(CAST({value} AS DOUBLE)) <= {LARGEST} THEN CAST({value} AS DOUBLE) END"


def _clean(value: str, numeric: bool | None) -> str:
    """A value as a feature: finite ``DOUBLE`` or ``VARCHAR`` (as it is while its type is not known)."""
    if numeric is None:
        return value
    if not numeric:
        return f"CAST({value} AS VARCHAR)"
    return _finite(value)


def _nothing(column: FeatureColumn) -> str:
    """The feature over no rows."""
    if column.feature.agg in ("count", "sum"):
        return "CAST(0 AS DOUBLE)"
    return "NULL" if column.numeric is None else f"CAST(NULL AS {'DOUBLE' if column.numeric else 'VARCHAR'})"


class _Keys:
    """The columns of ``by`` under the names ``_k0``, ``_k1``, …, and the pieces of SQL that repeat them."""

    def __init__(self, columns: list[FeatureColumn]) -> None:
        self.by = by = columns[0].feature.by
        self.names = [f"_k{number}" for number in range(len(by))]
        self.select = "".join(f"{name}, " for name in self.names)
        self.of_rows = "".join(
            f"r.{quoted(f'_by_{column}')} AS {name}, " for name, (_, column) in zip(self.names, by, strict=True)
        )
        self.of_spine = "".join(
            f"{quoted(f'_by_{column}')} AS {name}, " for name, (column, _) in zip(self.names, by, strict=True)
        )
        self.given = " AND ".join(f"{quoted(f'_by_{column}')} IS NOT NULL" for column, _ in by) or "TRUE"
        self.match = "".join(f"a.{name} = b.{name} AND " for name in self.names)

    def among(self, group: str) -> str:
        """Leaves only the rows that some predicted row looks for."""
        if not self.names:
            return ""
        pairs = zip(self.names, self.by, strict=True)
        matched = " AND ".join(f"r.{quoted(f'_by_{column}')} = q.{name}" for name, (_, column) in pairs)
        return f"SEMI JOIN (SELECT DISTINCT {', '.join(self.names)} FROM {group}_asked) AS q ON {matched}"

    def partition(self, *more: str) -> str:
        columns = ", ".join([*self.names, *more])
        return f"PARTITION BY {columns} " if columns else ""


# ------------------------------------------------------------------------------------------------------------------- last


def _newest(group: str, source: _Source, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    keys, kept = _Keys(columns), _looked_up(source, columns)
    over = f"{keys.partition()}ORDER BY _at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    numbered = f"ROW_NUMBER() OVER ({keys.partition()}ORDER BY _at, _happened, _content) AS _place"
    steps = [
        f"{group}_asked AS (SELECT {keys.of_spine}_n, _t FROM _asked WHERE {keys.given})",
        f"{group}_read AS (SELECT {keys.of_rows}_at, _happened, _content{kept} {source.rows(columns, among=keys.among(group))})",
        f"{group}_rows AS (SELECT {keys.select}_at, {numbered}{kept} FROM {group}_read)",
        f"{group}_all AS (SELECT {keys.select}_at, _place, CAST(NULL AS BIGINT) AS _n FROM {group}_rows\n"
        f"  UNION ALL SELECT {keys.select}_t, NULL, _n FROM {group}_asked)",
        f"{group}_at AS (SELECT {keys.select}_n, _at AS _t, MAX(_place) OVER ({over}) AS _place FROM {group}_all)",
        f"{group} AS (SELECT a._n, a._t - b._at AS _age{kept}\n"
        f"  FROM (SELECT * FROM {group}_at WHERE _n IS NOT NULL) AS a JOIN {group}_rows AS b ON {keys.match}a._place = b._place)",
    ]
    return steps, _looked_up_values(group, source, columns)


def _newest_pairs(group: str, source: _Source, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    keys, kept = _Keys(columns), _looked_up(source, columns)
    oldest = max(_age(column) for column in columns)
    steps = [
        f"{group} AS (SELECT _n, _age{kept} FROM (SELECT a._n, a._t - b._at AS _age{kept},\n"
        f"    ROW_NUMBER() OVER (PARTITION BY a._n ORDER BY b._at DESC, b._happened DESC, b._content DESC) AS _place\n"
        f"  FROM (SELECT {keys.of_spine}_n, _t FROM _asked WHERE {keys.given}) AS a\n"
        f"  JOIN (SELECT {keys.of_rows}_at, _happened, _content{kept} {source.rows(columns)}) AS b\n"
        f"  ON {keys.match}b._at <= a._t AND b._at >= a._t - {oldest}) AS p WHERE _place = 1)",
    ]
    return steps, _looked_up_values(group, source, columns)


def _looked_up(source: _Source, columns: list[FeatureColumn]) -> str:
    """The names of the values that a group looks up, each after a comma."""
    return "".join(f", _v{source.number(text)}" for text in dict.fromkeys(column.feature.expr for column in columns))


def _looked_up_values(group: str, source: _Source, columns: list[FeatureColumn]) -> dict[str, str]:
    values = {}
    for column in columns:
        value = f"CASE WHEN {group}._age <= {_age(column)} THEN {group}._v{source.number(column.feature.expr)} END"
        values[column.name] = _clean(f"({value})", column.numeric)
    return values


def _age(column: FeatureColumn) -> int:
    return duration(column.feature.max_age or "") // MICROSECOND


# ---------------------------------------------------------------------------------------------------------------- windows


class _State:
    """What is kept per tile for one expression, as (name, what to make of a row, how it merges)."""

    def __init__(self, number: int, columns: list[FeatureColumn]) -> None:
        wanted = {column.feature.agg for column in columns}
        self.number = number
        value, fixed = f"_d{number}", f"_f{number}"
        counted = "1" if columns[0].feature.expr == "*" else f"CASE WHEN {value} IS NOT NULL THEN 1 END"
        self.parts: list[tuple[str, str, str]] = [(f"_c{number}", counted, "SUM")]
        if wanted & {"sum", "mean", "std"}:
            self.parts.append((f"_s{number}", fixed, "SUM"))
        if "std" in wanted:
            self.parts.append((f"_q{number}", f"CAST({fixed} AS DECIMAL(38, 0)) * {fixed}", "SUM"))
        if "min" in wanted:
            self.parts.append((f"_lo{number}", value, "MIN"))
        if "max" in wanted:
            self.parts.append((f"_hi{number}", value, "MAX"))


class _Windows:
    """What a group of windows has in common: keys, the tile's width, the lengths, the states."""

    def __init__(self, source: _Source, columns: list[FeatureColumn]) -> None:
        self.source = source
        self.columns = columns
        self.keys = _Keys(columns)
        self.tile = duration(columns[0].feature.every or "") // MICROSECOND
        self.lengths = list(dict.fromkeys(self._length(column) for column in columns))
        texts = dict.fromkeys(column.feature.expr for column in columns)
        self.states = [_State(source.number(text), [c for c in columns if c.feature.expr == text]) for text in texts]
        self.parts = [part for state in self.states for part in state.parts]
        self.squares = [state for state in self.states if any(name.startswith("_q") for name, _, _ in state.parts)]

    def merged(self, group: str) -> str:
        """The name of the step with the merged state: the group's own, unless ``std`` needs one more."""
        return f"{group}_merged" if self.squares else group

    @staticmethod
    def _length(column: FeatureColumn) -> int:
        return duration(column.feature.window or "") // MICROSECOND

    @property
    def asked(self) -> str:
        """The predicted rows: key, time, and the tile that is open then."""
        keys = self.keys
        return f"SELECT {keys.of_spine}_n, _t, CAST(FLOOR(_t / {self.tile}) AS BIGINT) AS _tile FROM _asked WHERE {keys.given}"

    def rows(self, *, among: str = "") -> str:
        """The rows: key, time, tile, and what each adds to each part of the state."""
        parts = ", ".join(f"{made} AS {name}" for name, made, _ in self.parts)
        tile = f"CAST(FLOOR((_at - 1) / {self.tile}) AS BIGINT) AS _tile"
        return f"SELECT {self.keys.of_rows}_at, {tile}, {parts}\n  {self.source.rows(self.columns, among=among)}"

    def values(self, group: str) -> dict[str, str]:
        """The features from the merged state."""
        return {
            column.name: _value(
                group, column, f"{self.source.number(column.feature.expr)}_{self.lengths.index(self._length(column))}"
            )
            for column in self.columns
        }


def _tiles(group: str, source: _Source, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    w = _Windows(source, columns)
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
        f"{group}_asked AS ({w.asked})",
        f"{group}_rows AS ({w.rows(among=keys.among(group))})",
        f"{group}_tiles AS (SELECT {slots}, {', '.join(f'{how}({name}) AS {name}' for name, _, how in parts)}\n"
        f"  FROM {group}_rows GROUP BY {slots})",
        f"{group}_slots AS (SELECT {slots}, {names}, 0 AS _slot FROM {group}_tiles\n"
        f"  UNION ALL SELECT DISTINCT {slots}, {nulls}, 1 FROM {group}_asked)",
        f"{group}_closed AS (SELECT {slots}, _slot, {closed} FROM {group}_slots WINDOW {', '.join(frames)})",
        f"{group}_all AS (SELECT {slots}, _at, {names}, CAST(NULL AS BIGINT) AS _n FROM {group}_rows\n"
        f"  UNION ALL SELECT {slots}, _t, {nulls}, _n FROM {group}_asked)",
        f"{group}_open AS (SELECT {slots}, _n, {opened} FROM {group}_all\n"
        f"  WINDOW w AS ({keys.partition('_tile')}ORDER BY _at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))",
        f"{w.merged(group)} AS (SELECT b._n{_merged(parts, len(w.lengths))}\n"
        f"  FROM (SELECT * FROM {group}_open WHERE _n IS NOT NULL) AS b\n"
        f"  JOIN (SELECT * FROM {group}_closed WHERE _slot = 1) AS a ON {keys.match}a._tile = b._tile)",
    ]
    return [*steps, *_centred(group, w)], w.values(group)


def _pairs(group: str, source: _Source, columns: list[FeatureColumn]) -> tuple[list[str], dict[str, str]]:
    w = _Windows(source, columns)
    longest = max(w.lengths)
    merged = ""
    for number, length in enumerate(w.lengths):
        inside = f"b._tile >= a._tile - {length // w.tile}"
        for name, _, how in w.parts:
            part = f"b.{name}" if length == longest else f"CASE WHEN {inside} THEN b.{name} END"
            whole = f"CAST(COALESCE(SUM({part}), 0) AS DECIMAL(38, 0))" if how == "SUM" else f"{how}({part})"
            merged += f", {whole} AS {name}_{number}"
    steps = [
        f"{w.merged(group)} AS (SELECT a._n{merged}\n  FROM ({w.asked}) AS a JOIN ({w.rows()}) AS b\n"
        f"  ON {w.keys.match}b._at <= a._t AND b._tile >= a._tile - {longest // w.tile} GROUP BY a._n)",
    ]
    return [*steps, *_centred(group, w)], w.values(group)


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


def _centred(group: str, w: _Windows) -> list[str]:
    """For ``std`` one more step: a whole number near each mean, around which squares can be taken without loss."""
    if not w.squares:
        return []
    centres = "".join(
        f", CAST(ROUND(CAST(_s{state.number}_{at} AS DOUBLE) / NULLIF(CAST(_c{state.number}_{at} AS DOUBLE), 0)) AS DECIMAL(38, 0))"
        f" AS _m{state.number}_{at}"
        for state in w.squares
        for at in range(len(w.lengths))
    )
    return [f"{group} AS (SELECT *{centres} FROM {w.merged(group)})"]


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
