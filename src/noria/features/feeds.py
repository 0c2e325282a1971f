"""One source as ``Online`` follows it: what is read of the lake, and what a row means to each group of features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from noria.core import DataFault, from_micros, micros, quoted
from noria.features.groups import ONE, Key, Keys, Lookups, Unmatched, Windows, common, kind_of
from noria.features.plan import FeatureColumn, Plan, lookback
from noria.features.rowwise import Rowwise, sql_types
from noria.features.sql import _clean, _Source, _Windows, table_name
from noria.features.tiles import Item, item_of
from noria.features.values import moment
from noria.store import Scan, manifest
from noria.system import System
from noria.tables import SOURCE, TIME, source_table

if TYPE_CHECKING:
    from noria.features.online import Event
    from noria.store import Home

END = datetime(9999, 1, 1, tzinfo=UTC)
END_MICROS = micros(END)
_GENERATIONS = 4


class Prepared(NamedTuple):
    """A row and what it adds to each group that has its key; ``fault``: its values cannot be used."""

    known: int
    adds: Sequence[tuple[Windows | Lookups, Key, Any]]
    fault: bool = False


class Fresh(NamedTuple):
    """The rows that a source's table has got since its version ``since``, and its version with them."""

    since: int
    version: int
    rows: Sequence[Prepared]


class Feed:
    """A source, its groups, and its rows' expressions. ``types`` are the columns' SQL types, ``None`` while nothing is known of them."""

    def __init__(
        self,
        plan: Plan,
        system: System,
        name: str,
        asked: Mapping[str, str] | None,
        schema: Mapping[str, pl.DataType | type[pl.DataType]] | None,
        *,
        learned: bool = False,
        seen: dict[int, set[int]] | None = None,
    ) -> None:
        self.name = name
        self.source = system.sources[name]
        self.fed_by_events = self.source.data is None
        self.unsupported = ""
        self.types: dict[str, str] | None = None
        self.learned = learned or schema is None
        self.version = -1
        self._asked = asked
        self._columns = [(n, c) for n, c in enumerate(plan.columns) if c.feature.source == name and _looks(c)]
        self._table = table_name(plan, name)
        self.seen: dict[int, set[int]] = {} if seen is None else seen
        self._stored: Any = None
        self._span = max(plan.sources[name].total_seconds() * 1e6 / _GENERATIONS, 1.0)
        self.groups: list[Windows | Lookups] = []
        self._rowwise: Rowwise | None = None
        some: dict[tuple[Any, ...], list[tuple[int, FeatureColumn]]] = {}
        for n, column in self._columns:
            some.setdefault((column.feature.op, column.feature.by, column.feature.every), []).append((n, column))
        for (op, by, _), columns in some.items():
            keys = Keys(by, ["any"] * len(by))
            self.groups.append(Windows(columns, keys) if op == "window" else Lookups(columns, keys))
        if schema is not None:
            self.know(sql_types(schema))

    def know(self, types: dict[str, str]) -> None:
        """Takes in the columns' types. Raises ``DataFault`` when an expression does not fit them."""
        self.types = dict(types)
        for group in self.groups:
            kinds = []
            for asked, looked in group.by:
                one = kind_of((self._asked or {}).get(asked))
                kinds.append(common(one, kind_of(types.get(looked))))
                if not kinds[-1]:
                    self.unsupported = f"{asked} and {self.name}.{looked} are compared by the engine alone"
            group.keys = Keys(group.by, kinds)
        texts = dict.fromkeys(text for group in self.groups for text in group.texts if text != "*")
        if self.fed_by_events and not self.unsupported:
            everything = {**types, **{name: kind for name, kind in sql_types(SOURCE.columns).items() if name not in types}}
            self._rowwise = Rowwise([(text, text) for text in texts], everything)

    def changed(self, schema: Mapping[str, pl.DataType | type[pl.DataType]] | None) -> bool:
        """Whether the columns of the lake are others than those this was built on."""
        if schema is None:
            return False
        if self.learned:
            return True
        found = sql_types(schema)
        return any(found.get(name) != kind for name, kind in (self.types or {}).items())

    # ------------------------------------------------------------------------------------------------------------ events

    def is_new(self, content: str, known: int) -> bool:
        """Whether a row was not taken yet, that is ``mark``ed."""
        mark = hash(content)
        if mark in self.seen.get(int(known // self._span), ()):
            return False
        if self._stored is None:
            return True
        place = int(self._stored.searchsorted(mark))
        return not (place < len(self._stored) and self._stored[place] == mark)

    def mark(self, events: Iterable[Event]) -> None:
        """From now on these were taken."""
        for event in events:
            self.seen.setdefault(int(event.known // self._span), set()).add(hash(event.hash))

    def forget(self, oldest: int) -> None:
        """Forgets the marks of rows that are too old to be taken again."""
        for generation in [g for g in self.seen if (g + 1) * self._span < oldest]:
            del self.seen[generation]

    def prepare(self, events: Sequence[Event]) -> list[Prepared]:
        """What each event adds."""
        assert self._rowwise is not None
        rows = []
        for event in events:
            row = {self.source.time: event.time, **event.row}
            rows.append({**row, "_time": event.time, "_known": event.known, "_row": event.hash})
        try:
            found: list[Any] = self._rowwise.many(rows)
        except DataFault:
            found = [self._alone(row) for row in rows]
        return [self._prepared(event, row, values) for event, row, values in zip(events, rows, found, strict=True)]

    def _alone(self, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        assert self._rowwise is not None
        try:
            return self._rowwise(row)
        except DataFault:
            return None

    def _prepared(self, event: Event, row: Mapping[str, Any], found: tuple[Any, ...] | None) -> Prepared:
        if found is None or self._rowwise is None:
            return Prepared(event.known, (), fault=True)
        values = dict(zip(self._rowwise.names, found, strict=True))
        adds: list[tuple[Windows | Lookups, Key, Any]] = []
        try:
            for group in self.groups:
                key = group.keys.of_row(row)
                if key is None:
                    continue
                if isinstance(group, Windows):
                    adds.append((group, key, group.items(values)))
                else:
                    adds.append((group, key, (event.known, event.time, event.hash, group.values(values))))
        except (OverflowError, Unmatched):
            return Prepared(event.known, (), fault=True)
        return Prepared(event.known, adds)

    def put(self, row: Prepared) -> None:
        """Adds a row that is known by now."""
        for group, key, payload in row.adds:
            if isinstance(group, Windows):
                group.add(key, row.known, payload)
            else:
                group.add(key, payload)
            group.sweep(2)

    # ---------------------------------------------------------------------------------------------------------- the lake

    def load(self, home: Home, oldest: int) -> None:
        """Takes the rows of the lake that became known after ``oldest``."""
        scan = self._scan(home, oldest)
        if self.unsupported or not scan.files:
            return
        for group in self.groups:
            reach = max(lookback(column.feature) for column in group.columns)
            source = _Source(self._table, group.columns, (from_micros(group.edge) + reach, END))
            if isinstance(group, Windows):
                self._load_windows(home, scan, group, source)
            else:
                self._load_lookups(home, scan, group, source)
        if self.fed_by_events:
            self._load_marks(home, scan, oldest)

    def _scan(self, home: Home, oldest: int) -> Scan:
        """The files that matter, and the version they belong to."""
        table = source_table(self.name)
        while True:
            before = home.lake.current().state(table)
            version = -1 if before is None else before.version
            scan = home.lake.scan(table, _known=(from_micros(oldest), None))
            after = home.lake.current().state(table)
            if (-1 if after is None else after.version) == version:
                self.version = version
                return scan

    def _head(self, source: _Source) -> str:
        return f"WITH {source.step(once=False)}"

    def _load_windows(self, home: Home, scan: Scan, group: Windows, source: _Source) -> None:
        w = _Windows(source, group.columns)
        names = [f"_k{n}" for n in range(len(group.by))]
        end = f"(_tile + 1) * {group.tile}"
        parts = ", ".join(f"{how}({name}) AS {name}" for name, _, how in w.parts)
        slots = ", ".join([*names, "_p"])
        given = "".join(f" AND {name} IS NOT NULL" for name in names)
        query = (
            f"{self._head(source)}, _all AS ({w.rows()}),\n"
            f"_placed AS (SELECT *, CASE WHEN {end} <= {group.floor} THEN {end} ELSE _at END AS _p FROM _all"
            f" WHERE _at > {group.edge}{given})\n"
            f"SELECT {slots}, {parts} FROM _placed GROUP BY {slots} ORDER BY {slots}"
        )
        found = home.engine.sql(query, **{self._table: scan})
        keys = _keys(group, found, names)
        items = [_items(found, number, group.wanted[place]) for place, number in enumerate(s.number for s in w.states)]
        for n, (key, at) in enumerate(zip(keys, found["_p"].to_list(), strict=True)):
            group.add(key, at, [some[n] for some in items])

    def _load_lookups(self, home: Home, scan: Scan, group: Lookups, source: _Source) -> None:
        names = [f"_k{n}" for n in range(len(group.by))]
        keys = "".join(f"{quoted(f'_by_{looked}')} AS {name}, " for name, (_, looked) in zip(names, group.by, strict=True))
        given = "".join(f" AND {quoted(f'_by_{looked}')} IS NOT NULL" for _, looked in group.by)
        values = _cleaned(group, source)
        over = ", ".join([*(quoted(f"_by_{looked}") for _, looked in group.by), f"_at <= {group.floor}"])
        place = f"ROW_NUMBER() OVER (PARTITION BY {over} ORDER BY _at DESC, _happened DESC, _content DESC) AS _place"
        query = (
            f"{self._head(source)}, _all AS (SELECT {keys}_at, EPOCH_US(_happened) AS _when, _content{values}, {place}\n"
            f"  FROM {quoted(source.name)} WHERE _at >= {group.edge}{given})\n"
            f"SELECT * FROM _all WHERE _at > {group.floor} OR _place = 1 ORDER BY _at, _when, _content"
        )
        found = home.engine.sql(query, **{self._table: scan})
        made = [found[f"_w{place}"].to_list() for place in range(len(group.texts))]
        columns = [found[name].to_list() for name in ("_at", "_when", "_content")]
        for key, at, happened, content, values in zip(_keys(group, found, names), *columns, zip(*made, strict=True), strict=True):
            group.add(key, (at, happened, content, values))

    def _load_marks(self, home: Home, scan: Scan, oldest: int) -> None:
        import numpy as np

        query = f"SELECT _row FROM {quoted(self._table)} WHERE EPOCH_US(_known) > {oldest}"
        marks = np.fromiter((hash(row) for row in home.engine.sql(query, **{self._table: scan})["_row"].to_list()), np.int64)
        marks.sort()
        self._stored = marks

    def news(self, home: Home, oldest: int) -> Fresh | None:
        """The rows published since ``version``, which stays as it is; ``None`` when the table did more than grow.

        Raises ``NoriaError`` for files that are gone.
        """
        table, since = source_table(self.name), self.version
        state = home.lake.current().state(table)
        if state is None or state.version == since:
            return Fresh(since, since, [])
        with home.ledger.reading() as connection:
            commits = manifest.history(connection, table, since)
        if any(commit.kind not in ("append", "compact") for commit in commits):
            return None
        added = [info for commit in commits if commit.kind == "append" for info in commit.change.added]
        folder = home.lake.folder / table
        for info in added:
            home.lake.verify(folder / info.path, info)
        some = [info for info in added if info.span.get("_known", (0, END_MICROS))[1] > oldest]
        scan = Scan(tuple(folder / info.path for info in some), dict(state.schema), tuple(info.columns for info in some))
        return Fresh(since, commits[-1].version, self._read(home, scan, oldest) if some else [])

    def _read(self, home: Home, scan: Scan, oldest: int) -> list[Prepared]:
        """Single rows of the lake as what they add: the query's own values, not those of single rows."""
        source = _Source(self._table, [column for _, column in self._columns], None)
        keys = dict.fromkeys(looked for group in self.groups for _, looked in group.by)
        read = [f"_by_{name}" for name in keys]
        lookups = [group for group in self.groups if isinstance(group, Lookups)]
        more = ", EPOCH_US(_happened) AS _when" if lookups else ""
        cleaned = "".join(_cleaned(group, source, f"_g{n}") for n, group in enumerate(lookups))
        query = f"{self._head(source)}\nSELECT *{more}{cleaned} FROM {quoted(source.name)} WHERE _at > {oldest}"
        made = []
        for row in home.engine.sql(query, **{self._table: scan}).to_dicts():
            of_row = {name: row[column] for name, column in zip(keys, read, strict=True)}
            adds: list[tuple[Windows | Lookups, Key, Any]] = []
            for group in self.groups:
                key = group.keys.of_row(of_row)
                if key is None:
                    continue
                if isinstance(group, Windows):
                    adds.append((group, key, self._items_of(row, group, source)))
                else:
                    place = lookups.index(group)
                    values = tuple(row[f"_g{place}_v{n}"] for n in range(len(group.texts)))
                    adds.append((group, key, (row["_at"], row["_when"], row["_content"], values)))
            made.append(Prepared(row["_at"], adds))
        return made

    def _items_of(self, row: Mapping[str, Any], group: Windows, source: _Source) -> list[Item]:
        return [
            ONE if text == "*" else item_of(row[f"_d{source.number(text)}"], sums, squares)
            for text, (sums, squares, _, _) in zip(group.texts, group.wanted, strict=True)
        ]


def _looks(column: FeatureColumn) -> bool:
    return column.feature.op in ("last", "window")


def _keys(group: Windows | Lookups, found: pl.DataFrame, names: Sequence[str]) -> list[Key]:
    """The keys of rows that a query gave (none of them null)."""
    columns = [found[name].to_list() for name in names]
    return [group.keys.of_values(values) for values in zip(*columns, strict=True)] if names else [()] * found.height


def _items(found: pl.DataFrame, number: int, wanted: tuple[bool, bool, bool, bool]) -> list[Item]:
    """One state of merged rows, as the query gave it."""
    sums, squares, low, high = wanted
    counts = [int(count or 0) for count in found[f"_c{number}"].to_list()]
    nothing: list[Any] = [None] * len(counts)
    totals = _whole(found[f"_s{number}"]) if sums else [0] * len(counts)
    of_squares = _whole(found[f"_q{number}"]) if squares else [0] * len(counts)
    lows = found[f"_lo{number}"].to_list() if low else nothing
    highs = found[f"_hi{number}"].to_list() if high else nothing
    return [
        (count, total, square, math.inf if least is None else least, math.inf if most is None else -most)
        for count, total, square, least, most in zip(counts, totals, of_squares, lows, highs, strict=True)
    ]


def _whole(column: pl.Series) -> list[int]:
    narrow = column.cast(pl.Int64, strict=False)
    found = narrow.to_list() if narrow.null_count() == column.null_count() else column.to_list()
    return [int(value or 0) for value in found]


def _cleaned(group: Lookups, source: _Source, prefix: str = "") -> str:
    """The values that a group looks up, as features, each after a comma."""
    pairs = zip(group.texts, group.numeric, strict=True)
    name = f"{prefix}_v" if prefix else "_w"
    return "".join(f", {_clean(f'_v{source.number(text)}', numeric)} AS {name}{n}" for n, (text, numeric) in enumerate(pairs))


def inferred(rows: Iterable[Mapping[str, Any]], time: str) -> dict[str, pl.DataType]:
    """The types of plain rows: what every value of a column is; a text when there is only null.

    >>> inferred([{"a": 1, "b": "x", "c": None}, {"a": 0.5, "b": None, "c": True}], "at")
    {'a': Float64, 'b': String, 'c': Boolean, 'at': Datetime(time_unit='us', time_zone='UTC')}
    """
    kinds: dict[str, set[pl.DataType]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).update([] if value is None else [_kind(value)])
    return {**{name: _one(some) for name, some in kinds.items()}, time: TIME}


def _kind(value: Any) -> pl.DataType:
    if isinstance(value, bool):
        return pl.Boolean()
    if isinstance(value, int | float):
        return pl.Int64() if isinstance(value, int) else pl.Float64()
    try:
        return TIME if "T" in value and moment(value) is not None else pl.String()
    except (TypeError, ValueError):
        return pl.String()


def _one(kinds: set[pl.DataType]) -> pl.DataType:
    if kinds == {pl.Int64(), pl.Float64()}:
        return pl.Float64()
    return next(iter(kinds)) if len(kinds) == 1 else pl.String()
