"""Features that share their rows, in process: windows (same source, ``by`` and ``every``) and lookups (same source and ``by``)."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from operator import itemgetter
from typing import Any

from noria.core import duration
from noria.features.plan import FeatureColumn
from noria.features.sql import MICROSECOND, SCALE
from noria.features.tiles import Item, Run, as_double, item_of, spread
from noria.features.values import moment

Key = Any
NEVER = -(2**62)
_EXACT = 2**53
_NOTHING: Item = (0, 0, 0, math.inf, math.inf)
ONE: Item = (1, 0, 0, math.inf, math.inf)


class Unmatched(Exception):
    """A value whose comparison with the source's column is better left to the engine."""


def kind_of(sql_type: str | None) -> str:
    """How values of a SQL type are compared: ``whole``, ``number``, ``text``, ``truth``, ``time``, ``any`` (not known) or nothing."""
    if sql_type is None:
        return "any"
    kinds = {"VARCHAR": "text", "BOOLEAN": "truth", "DOUBLE": "number", "DATE": "date"}
    whole = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
    return kinds.get(sql_type) or ("whole" if sql_type in whole else "time" if sql_type.startswith("TIMESTAMP") else "")


def common(one: str, other: str) -> str:
    """The kind in which two kinds are compared; empty when that is left to the engine.

    >>> common("whole", "number"), common("text", "whole"), common("any", "text")
    ('number', '', 'text')
    """
    if other in (one, "any"):
        return one
    if one == "any":
        return other
    return "number" if {one, other} == {"whole", "number"} else ""


def canonical(value: Any, kind: str) -> Any:
    """A value that is not null, as it is compared under ``kind``; raises ``Unmatched`` when it is not of that kind."""
    if kind == "any" or (kind == "text" and isinstance(value, str)) or (kind == "truth" and isinstance(value, bool)):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind == "number":
            return "nan" if value != value else float(value)  # noqa: PLR0124  # for SQL all NaN are equal
        if kind == "whole" and value == math.floor(value):
            return int(value)
    if kind == "time":
        try:
            return moment(value)
        except ValueError as error:
            raise Unmatched(str(error)) from None
    if kind == "date" and isinstance(value, str | date):
        day = date.fromisoformat(value) if isinstance(value, str) else value
        return day.date() if isinstance(day, datetime) else day
    raise Unmatched(f"{type(value).__name__} is not comparable as {kind}")


class Keys:
    """How predicted rows and a source's rows become keys: alike when SQL calls them equal, ``None`` when a part is null."""

    def __init__(self, by: Sequence[tuple[str, str]], kinds: Sequence[str]) -> None:
        self.asked = [(name, kind) for (name, _), kind in zip(by, kinds, strict=True)]
        self.looked = [(name, kind) for (_, name), kind in zip(by, kinds, strict=True)]

    def of_asked(self, row: Mapping[str, Any]) -> Key:
        """The key of a predicted row. Raises ``KeyError`` when a column is not there."""
        return _key(row.__getitem__, self.asked)

    def of_row(self, row: Mapping[str, Any]) -> Key:
        """The key of a source's row."""
        return _key(row.get, self.looked)

    def of_values(self, values: Sequence[Any]) -> Key:
        """The key of values in the order of ``by``."""
        return _key(lambda name: values[name], [(n, kind) for n, (_, kind) in enumerate(self.looked)])


def _key(get: Callable[[Any], Any], names: Sequence[tuple[Any, str]]) -> Key:
    if len(names) == 1:
        name, kind = names[0]
        value = get(name)
        if value is None or (kind == "text" and type(value) is str):
            return value
        return canonical(value, kind)
    made = []
    for name, kind in names:
        value = get(name)
        if value is None:
            return None
        made.append(value if kind == "text" and type(value) is str else canonical(value, kind))
    return tuple(made)


def number(value: Any) -> float | None:
    """A number or boolean as a finite double; ``None`` for what is none."""
    if value is None:
        return None
    made = float(value)
    return made if math.isfinite(made) else None


class _Group:
    """What windows and lookups have in common: keys that come and go."""

    def __init__(self, columns: Sequence[tuple[int, FeatureColumn]], keys: Keys) -> None:
        self.keys = keys
        self.columns = [column for _, column in columns]
        self.by = columns[0][1].feature.by
        self.runs: dict[Key, Any] = {}
        self.floor = self.edge = NEVER
        self._turn: Iterator[Key] = iter(())

    def sweep(self, number: int) -> None:
        """Tidies some keys, each in its turn; keys without anything left go."""
        for _ in range(number):
            key = next(self._turn, self)
            if key is self:
                self._turn = iter(list(self.runs))
                continue
            if key in self.runs and self.tidy(key):
                del self.runs[key]

    def tidy(self, key: Key) -> bool:
        """Lets old state of a key go; whether nothing is left."""
        raise NotImplementedError


class Windows(_Group):
    """Windows with the same source, ``by`` and ``every``. ``texts`` are their expressions, one state of a run for each."""

    def __init__(self, columns: Sequence[tuple[int, FeatureColumn]], keys: Keys) -> None:
        super().__init__(columns, keys)
        features = [(slot, column.feature) for slot, column in columns]
        self.tile = duration(features[0][1].every or "") // MICROSECOND
        self.texts = list(dict.fromkeys(feature.expr for _, feature in features))
        self.counted = [all(c.counts_text for c in self.columns if c.feature.expr == text) for text in self.texts]
        aggs = [{str(feature.agg) for _, feature in features if feature.expr == text} for text in self.texts]
        self.wanted = [(bool(a & {"sum", "mean", "std"}), "std" in a, "min" in a, "max" in a) for a in aggs]
        spans = {slot: duration(feature.window or "") // MICROSECOND for slot, feature in features}
        self.longest = max(spans.values())
        self.nothing = [(slot, 0.0 if feature.agg in ("count", "sum") else None) for slot, feature in features]
        self._reads = [
            (
                length,
                [
                    (n, [(str(f.agg), slot) for slot, f in features if spans[slot] == length and f.expr == text])
                    for n, text in enumerate(self.texts)
                    if any(spans[slot] == length and f.expr == text for slot, f in features)
                ],
            )
            for length in dict.fromkeys(spans.values())
        ]

    def move(self, moment: int) -> int:
        """Keeps what questions since ``moment`` can reach; returns when that changes next."""
        self.floor = moment // self.tile * self.tile
        self.edge = self.floor - self.longest
        return self.floor + self.tile

    def items(self, values: Mapping[str, Any]) -> list[Item]:
        """What a row adds to each state; ``OverflowError`` beyond the range of exact sums."""
        made = []
        for text, counted, (sums, squares, _, _) in zip(self.texts, self.counted, self.wanted, strict=True):
            if text == "*":
                made.append(ONE)
            elif counted:
                made.append(_NOTHING if values[text] is None else ONE)
            else:
                made.append(item_of(number(values[text]), sums, squares))
        return made

    def add(self, key: Key, at: int, items: Sequence[Item]) -> None:
        """Takes a row that became known at ``at``; one too old to matter is left out."""
        end = -(-at // self.tile) * self.tile
        if end <= self.edge:
            return
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = Run(self.wanted)
        run.add(end if end <= self.floor else at, items)
        if len(run.at) > 2 * run.tidied + 16:
            run.tidy(self.tile, self.floor, self.edge)

    def tidy(self, key: Key) -> bool:
        """Lets old elements go and merges closed tiles, when there are enough of them to be worth it."""
        run = self.runs[key]
        if run.at[-1] <= self.edge:
            return True
        old = bisect_right(run.at, self.edge)
        if old > 16 + len(run.at) // 4 or len(run.at) > run.tidied + 16 + len(run.at) // 4:
            run.tidy(self.tile, self.floor, self.edge)
        return False

    def read(self, key: Key, at: int, into: list[Any]) -> None:
        """Writes the features of a key at ``at`` into their places. ``OverflowError`` when sums are not exact."""
        run = self.runs.get(key) if key is not None else None
        if run is None:
            for slot, nothing in self.nothing:
                into[slot] = nothing
            return
        known = run.at
        end = len(known)
        if known[-1] > at:
            end = bisect_right(known, at)
        opened = at - at % self.tile
        for length, states in self._reads:
            edge = opened - length
            first = bisect_right(known, edge, 0, end)
            for place, wanted in states:
                state = run.states[place]
                count = state.counts[end] - state.counts[first]
                total = 0 if state.sums is None else state.sums[end] - state.sums[first]
                for agg, slot in wanted:
                    if agg == "count":
                        into[slot] = float(count)
                    elif agg == "sum":
                        into[slot] = (total if -_EXACT < total < _EXACT else as_double(total)) / SCALE
                    elif not count:
                        into[slot] = None
                    elif agg == "mean":
                        into[slot] = (total if -_EXACT < total < _EXACT else as_double(total)) / (float(count) * SCALE)
                    elif agg == "std":
                        into[slot] = spread(count, total, state.squares[end] - state.squares[first])
                    elif agg == "min":
                        into[slot] = state.lows.between(edge, first, end)
                    else:
                        into[slot] = -state.highs.between(edge, first, end)


class Lookups(_Group):
    """The newest rows of a source by key: (known, time, hash, values in the order of ``texts``)."""

    def __init__(self, columns: Sequence[tuple[int, FeatureColumn]], keys: Keys) -> None:
        super().__init__(columns, keys)
        self.texts = list(dict.fromkeys(column.feature.expr for _, column in columns))
        self.numeric = [next(c.numeric for c in self.columns if c.feature.expr == text) for text in self.texts]
        ages = [duration(column.feature.max_age or "") // MICROSECOND for _, column in columns]
        self.oldest = max(ages)
        places = [self.texts.index(column.feature.expr) for _, column in columns]
        self._reads = [(slot, place, age) for (slot, _), place, age in zip(columns, places, ages, strict=True)]

    def move(self, moment: int) -> int:
        """Keeps what questions since ``moment`` can reach; returns when to ask again."""
        self.floor, self.edge = moment, moment - self.oldest
        return moment + 60_000_000

    def values(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """A row's values as features."""
        made = []
        for text, numeric in zip(self.texts, self.numeric, strict=True):
            value = values[text]
            is_number = not isinstance(value, str) if numeric is None else numeric
            made.append(number(value) if is_number else None if value is None else str(value))
        return tuple(made)

    def add(self, key: Key, row: tuple[int, int, str, tuple[Any, ...]]) -> None:
        """Takes a row; one too old to matter is left out."""
        if row[0] < self.edge:
            return
        rows = self.runs.setdefault(key, [])
        if rows and row[:3] < rows[-1][:3]:
            insort(rows, row, key=itemgetter(0, 1, 2))
        else:
            rows.append(row)
        if len(rows) > 4:
            self.tidy(key)

    def tidy(self, key: Key) -> bool:
        """Leaves the newest row known by the floor, and those after it."""
        rows = self.runs[key]
        last = len(rows) - 1
        while last > 0 and rows[last][0] > self.floor:
            last -= 1
        del rows[:last]
        return bool(rows[-1][0] < self.edge)

    def read(self, key: Key, at: int, into: list[Any]) -> None:
        """Writes the features of a key at ``at`` into their places."""
        rows = self.runs.get(key, ()) if key is not None else ()
        for row in reversed(rows):
            if row[0] <= at:
                age, values = at - row[0], row[3]
                for slot, place, oldest in self._reads:
                    into[slot] = values[place] if age <= oldest else None
                return
        for slot, _, _ in self._reads:
            into[slot] = None
