"""Features of one row in process: the numbers of ``compute``, bit for bit, from state that is kept instead of a query.

State is restored from the lake by one aggregation per group of features, and then follows the events. What no question can reach any more
falls away, so memory is bounded by the longest window and the number of keys in it.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import polars as pl

from noria.core import NoriaError, micros, quoted
from noria.features.compute import schemas as lake_schemas
from noria.features.feeds import Feed, Fresh, Prepared, inferred
from noria.features.groups import NEVER, Unmatched, number
from noria.features.plan import FeatureColumn, Plan, plan, predicted_schema
from noria.features.rowwise import Rowwise, sql_types
from noria.features.sql import MICROSECOND
from noria.system import System

if TYPE_CHECKING:
    from noria.core import Clock
    from noria.features.plan import Schemas
    from noria.store import Home

    class Event(Protocol):
        """A row that came by itself: when it happened and became known (microseconds), and the hash of its content."""

        @property
        def source(self) -> str: ...
        @property
        def time(self) -> int: ...
        @property
        def known(self) -> int: ...
        @property
        def row(self) -> Mapping[str, Any]: ...
        @property
        def hash(self) -> str: ...


GRACE = 600_000_000
News: TypeAlias = "dict[str, Fresh] | None"
"""New rows by source; ``None``: they do not suffice."""
_logger = logging.getLogger("noria.features")


class Online:
    """The features of a system, one row at a time. One thread at a time may use it.

    ``names`` are the features in the order of their declaration. ``unsupported`` says why features are never given here (empty: they are).
    """

    def __init__(self, system: System, schemas: Schemas, clock: Clock, *, grace: int = GRACE) -> None:
        """Without any rows; see ``restore``. A question may be asked ``grace`` microseconds after the fact and is still answered."""
        self.system = system
        self.plan: Plan = plan(system, schemas)
        self.names = self.plan.names
        self.unsupported = ""
        self._schemas = {name: dict(columns) for name, columns in schemas.items()}
        self._clock = clock
        self._grace = grace
        self._now = NEVER
        self._next = NEVER
        self._exact = NEVER
        self._tidied = NEVER
        self._pending: list[tuple[int, int, Feed, Prepared]] = []
        self._number = 0
        self._faults: list[tuple[int, int]] = []
        self._stale = ""
        predicted = predicted_schema(system, schemas)
        self._asked = None if predicted is None else sql_types(predicted)
        self._feeds = {name: Feed(self.plan, system, name, self._asked, schemas.get(name)) for name in self.plan.sources}
        self._groups = [group for feed in self._feeds.values() for group in feed.groups]
        self._direct()
        self._advance(micros(clock.now()))

    @classmethod
    def restore(cls, home: Home, system: System, events: Sequence[Event] = (), *, grace: int = GRACE) -> Self:
        """The state as of now: the rows of the lake that questions can still reach, and ``events`` that are not there yet.

        Raises ``DeclarationError`` when the features do not fit the sources.
        """
        online = cls(system, lake_schemas(home, system), home.clock, grace=grace)
        for feed in online._feeds.values():
            try:
                feed.load(home, online._oldest(feed))
            except NoriaError as error:
                online._stale = f"{feed.name}: {error}"
        online.take(events)
        return online

    # ------------------------------------------------------------------------------------------------------------ asking

    def features(self, row: Mapping[str, Any], at: int) -> tuple[float | str | None, ...] | None:
        """The features of a predicted row as they could be known at ``at`` (microseconds), in the order of ``names``.

        ``None`` when only the query gives them exactly: ``at`` is too old, a value left the range of exact sums, or ``unsupported``. Raises
        ``KeyError`` when the row lacks a column of ``by``.
        """
        if at > self._now:
            self._advance(at)
        if at < self._exact or self._stale or self.unsupported or (self._faults and self._faulty(at)):
            return None
        made: list[Any] = [None] * len(self.names)
        try:
            for group in self._groups:
                group.read(group.keys.of_asked(row), at, made)
            for slot, name, numeric in self._columns:
                value = row[name]
                made[slot] = number(value) if numeric else value
            if self._rowwise is not None:
                for (slot, numeric), value in zip(self._slots, self._rowwise({**row, "_time": at}), strict=True):
                    made[slot] = number(value) if numeric else None if value is None else str(value)
        except (Unmatched, OverflowError):
            return None
        return tuple(made)

    def _direct(self) -> None:
        """What is read off the predicted row itself."""
        self._columns: list[tuple[int, str, bool]] = []
        self._slots: list[tuple[int, bool]] = []
        self._rowwise: Rowwise | None = None
        expressions: list[tuple[str, str]] = []
        for slot, column in enumerate(self.plan.columns):
            if column.feature.op in ("column", "expression") and (column.numeric is None or self._asked is None):
                self.unsupported = "the columns of the predicted row are not known yet"
                return
            if _is_plain(column, self._asked or {}):
                self._columns.append((slot, column.feature.expr[1:-1], bool(column.numeric)))
            elif column.feature.op in ("column", "expression"):
                text = column.feature.expr
                expressions.append((column.name, text if column.feature.op == "expression" else _requoted(text)))
                self._slots.append((slot, bool(column.numeric)))
        self.unsupported = next((feed.unsupported for feed in self._feeds.values() if feed.unsupported), "")
        if expressions and self._asked is not None:
            self._rowwise = Rowwise(expressions, self._asked)

    def _faulty(self, at: int) -> bool:
        self._faults = [(low, high) for low, high in self._faults if high >= self._exact]
        return any(low <= at <= high for low, high in self._faults)

    # --------------------------------------------------------------------------------------------------------- following

    def take(self, events: Iterable[Event]) -> None:
        """Takes events of sources without data, each once whatever order they come in.

        One that becomes known in the future counts from then on. Where this raises, the same events may be given again.
        """
        self._advance(max(self._now, micros(self._clock.now())))
        by_feed: dict[str, dict[str, Event]] = {}
        for event in events:
            feed = self._feeds.get(event.source)
            if (
                feed is not None
                and feed.fed_by_events
                and event.known > self._oldest(feed)
                and feed.is_new(event.hash, event.known)
            ):
                by_feed.setdefault(event.source, {}).setdefault(event.hash, event)
        for name, found in by_feed.items():
            feed, some = self._feeds[name], list(found.values())
            if feed.types is None:
                feed = self._learn(feed, inferred([event.row for event in some], feed.source.time))
            rows = [] if feed.unsupported else feed.prepare(some)
            feed.mark(some)
            self._put(feed, rows)

    def _learn(self, feed: Feed, schema: dict[str, pl.DataType]) -> Feed:
        """Starts a source anew whose columns nobody knew, with the types of its first rows."""
        try:
            resolved = plan(self.system, {**self._schemas, feed.name: schema})
            made = Feed(resolved, self.system, feed.name, self._asked, schema, learned=True, seen=feed.seen)
        except NoriaError as error:
            feed.unsupported = str(error)
            made = feed
        self._feeds[feed.name] = made
        self._groups = [group for some in self._feeds.values() for group in some.groups]
        self.unsupported = self.unsupported or made.unsupported
        self._next = NEVER
        self._advance(self._now)
        return made

    def _put(self, feed: Feed, rows: Iterable[Prepared]) -> None:
        """Adds rows; should that fail in the middle, nothing is answered here until all is restored anew."""
        stale, self._stale = self._stale, f"{feed.name}: rows were taken in part"
        for row in rows:
            if row.fault:
                self._faults.append((row.known, row.known + self.plan.sources[feed.name] // MICROSECOND))
            elif row.known > self._now:
                self._number += 1
                heapq.heappush(self._pending, (row.known, self._number, feed, row))
            else:
                feed.put(row)
        self._stale = stale

    def refresh(self, home: Home) -> bool:
        """Takes the rows that turns have published since, of sources that have data; only the new ones are read.

        ``True`` when that is not enough, because columns changed their meaning, rows were lost, or the clock went back: then restore anew.
        """
        return self.apply(self.news(home))

    def news(self, home: Home) -> News:
        """What ``refresh`` would take, read in whatever thread; ``apply`` takes it in the thread that asks.

        Whatever goes wrong here ends in a store that is restored anew: nothing counts as read before it is taken.
        """
        try:
            return self._read(home)
        except NoriaError:
            return None
        except Exception as error:
            _logger.error("what turns have published could not be read: %s", type(error).__name__, exc_info=error)
            return None

    def _read(self, home: Home) -> News:
        found = lake_schemas(home, self.system)
        if self._stale or any(feed.changed(found.get(name)) for name, feed in self._feeds.items()):
            return None
        if found != self._schemas:
            self._schemas = {name: dict(columns) for name, columns in found.items()}
            if plan(self.system, found).columns != self.plan.columns or self._asked_types(found) != self._asked:
                return None
        made: dict[str, Fresh] = {}
        for name, feed in self._feeds.items():
            if feed.fed_by_events:
                continue
            fresh = feed.news(home, self._oldest(feed))
            if fresh is None:
                return None
            made[name] = fresh
        return made

    def apply(self, news: News) -> bool:
        """Takes what ``news`` has read; ``True`` when the store has to be restored anew."""
        now = micros(self._clock.now())
        if news is None or self._now > now + self._grace:  # the clock was ahead and went back: what fell away is read again
            return True
        if any(self._feeds[name].version != fresh.since for name, fresh in news.items()):
            return True  # read twice, and taken in between
        self._advance(now)
        try:
            for name, fresh in news.items():
                self._put(self._feeds[name], fresh.rows)
                self._feeds[name].version = fresh.version
        except Exception as error:
            _logger.error("what turns have published could not be taken: %s", type(error).__name__, exc_info=error)
            return True
        if any(fresh.rows for fresh in news.values()) or self._now > self._tidied + GRACE:
            self.tidy()
        return False

    @property
    def plain(self) -> tuple[tuple[str, bool], ...] | None:
        """Where every feature is a column of the predicted row: the columns in order, and whether each is a number; else ``None``."""
        if self._groups or self._rowwise is not None or self.unsupported:
            return None
        return tuple((name, numeric) for _, name, numeric in self._columns)

    @property
    def follows(self) -> bool:
        """Whether events change what is said here."""
        return any(feed.fed_by_events for feed in self._feeds.values())

    def size(self) -> int:
        """How many keys are kept, over all groups."""
        return sum(len(group.runs) for group in self._groups)

    def _asked_types(self, schemas: Schemas) -> dict[str, str] | None:
        predicted = predicted_schema(self.system, schemas)
        return None if predicted is None else sql_types(predicted)

    def tidy(self) -> None:
        """Lets everything go that no question can reach."""
        self._tidied = self._now
        for group in self._groups:
            for key in [key for key in group.runs if group.tidy(key)]:
                del group.runs[key]
        for feed in self._feeds.values():
            feed.forget(self._oldest(feed))

    def _oldest(self, feed: Feed) -> int:
        """Rows known at or before this matter no more."""
        return min((group.edge for group in feed.groups), default=self._now) - 1

    def _advance(self, now: int) -> None:
        """Lets time go on: rows become known, and tiles close."""
        self._now = max(now, self._now)
        while self._pending and self._pending[0][0] <= self._now:
            _, _, feed, row = heapq.heappop(self._pending)
            feed.put(row)
        if self._now >= self._next:
            moment = self._now - self._grace
            upcoming = [group.move(moment) for group in self._groups]
            self._next = min(upcoming, default=moment + 60_000_000) + self._grace
            self._exact = max((group.floor for group in self._groups), default=NEVER)


def _is_plain(column: FeatureColumn, asked: Mapping[str, str]) -> bool:
    """Whether the feature is the predicted row's own value, as Python has it."""
    if column.feature.op != "column":
        return False
    kind = asked.get(column.feature.expr[1:-1], "")
    return kind == "VARCHAR" or kind in ("DOUBLE", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def _requoted(text: str) -> str:
    return quoted(text[1:-1])
