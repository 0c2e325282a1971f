"""The features of what is asked now: columns and expressions of the row, and what the online store knows of its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from weakref import finalize

import polars as pl

from noria import features as feature_room
from noria.core import DataFault, micros
from noria.deployment.service.rows import FieldError
from noria.deployment.service.ruling import Ways
from noria.features.online import Online
from noria.features.rowwise import compiled, sql_types
from noria.store.events import EventLog
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

_FAR = 2**62


class Lookup:
    """The online store of one worker, kept up with the log of events before each look. Made in any thread, asked in one.

    ``names`` are the features in order, ``kinds`` their (name, type) as the log writes them; ``stale`` says that a source has got columns since that
    change the features' types: then another has to be made.
    """

    def __init__(self, home: Home, system: System, schema: Mapping[str, pl.DataType]) -> None:
        resolved = feature_room.plan(system, {**feature_room.schemas(home, system), **_own(system, schema)})
        self.names = tuple(column.name for column in resolved.columns)
        kinds = {True: str(pl.Float64()), False: str(pl.String()), None: str(pl.Null())}
        self.kinds = tuple((column.name, kinds[column.numeric]) for column in resolved.columns)
        numeric = {column.name: bool(column.numeric) for column in resolved.columns}
        types = sql_types(dict(schema)) | {name: "DOUBLE" if numeric[name] else "VARCHAR" for name in self.names}
        self.ways = Ways(compiled, types)
        self.stale = False
        self._home = home
        self._events: EventLog | None = None
        self._seq, self._behind = 0, False
        path = home.path / "service" / "events.db"
        by_http = [name for name, source in system.sources.items() if source.data is None]
        if by_http:
            self._events = EventLog(path, durable=home.settings.durable)
            finalize(self, self._events.close)  # nobody can be asking then; a connection that is merely dropped stays open
            self._seq = self._events.last()  # before looking: what comes meanwhile is found twice, and taken once
            waiting = [event for name in by_http for event in self._events.unsealed(name, _FAR)]
        else:
            waiting = []
        self.store = Online.restore(home, system, waiting)
        self._follows = self._events is not None and self.store.follows
        self._plain = self._picked(schema)

    def values(self, row: Mapping[str, Any], at: int) -> tuple[Any, ...] | None:
        """The features of a row asked at ``at`` (µs), in order; ``None`` when they have to be computed from the lake.

        Raises ``FieldError`` when an expression fails on the row.
        """
        if self._plain is not None:
            return self._plain(row)
        if self._follows and self._events is not None and (self._behind or self._events.changed()):
            self.tail()
        try:
            return self.store.features(row, at)
        except DataFault as error:
            raise unfit() from error

    def _picked(self, schema: Mapping[str, pl.DataType]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]] | None:
        """Where every feature is a column of the row: no more than picking them."""
        plain = self.store.plain
        if plain is None:
            return None
        if len(plain) > 1 and all(schema[name].is_float() == numeric for name, numeric in plain):
            return itemgetter(*(name for name, _ in plain))
        return lambda row: tuple(float(row[name]) if numeric else row[name] for name, numeric in plain)

    def tail(self) -> None:
        """Takes in the events that any worker has accepted since the last time. When that fails, the next look begins with the same."""
        assert self._events is not None
        self._behind = True
        while found := self._events.since(self._seq):
            self.store.take(found)
            self._seq = found[-1].seq
        self._behind = False

    def keys(self) -> int:
        """How many keys the store holds."""
        return self.store.size()

    def frame(self, spine: pl.DataFrame) -> pl.DataFrame | None:
        """The features of a spine whose rows are asked now: ``_id`` and one column a feature; ``None`` as in ``values``."""
        plain = self.store.plain
        if plain is not None:
            picked = [pl.col(name).cast(pl.Float64 if numeric else pl.String).alias(name) for name, numeric in plain]
            return spine.select("_id", *(one.alias(name) for one, name in zip(picked, self.names, strict=True)))
        columns = [name for name in spine.columns if not name.startswith("_")]
        made = []
        for row, moment in zip(spine.select(columns).iter_rows(named=True), spine["_time"].to_list(), strict=True):
            given = {name: value for name, value in row.items() if value is not None}
            values = self.values(given, micros(moment))
            if values is None:
                return None
            made.append(values)
        return self.framed(spine["_id"], made)

    def framed(self, ids: pl.Series, made: Sequence[Sequence[Any]]) -> pl.DataFrame:
        """Features that were looked up, as a frame."""
        kinds: dict[str, Any] = {
            name: {"Float64": pl.Float64, "String": pl.String}.get(kind, pl.Null) for name, kind in self.kinds
        }
        turned = list(zip(*made, strict=True)) or [() for _ in kinds]
        found = [pl.Series(name, column, dtype=kinds[name]) for name, column in zip(self.names, turned, strict=True)]
        return pl.DataFrame([ids, *found])


def unfit() -> FieldError:
    """What is said of a row on which an expression of a feature fails (a text that is no number, a number that no type holds)."""
    return FieldError(
        "row: a feature cannot be computed from it", hint="look at its values, and at the expressions of the features"
    )


def _own(system: System, schema: Mapping[str, pl.DataType]) -> dict[str, Mapping[str, pl.DataType]]:
    """The predicted row's columns where they are those of a source."""
    from noria.system import Every, Request

    if isinstance(system.predict, Request):
        return {}
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    return {source.name: schema}
