"""Rows that came over HTTP: from the service's log of events into the source's table, by the rules for rows of files.

An event is taken in by the first turn after it was known, and marked as sealed once the record of the batch is in the ledger. A turn that is
killed between the two finds the events again, and what became of them in the lake. Unlike rows of files, events are told apart by their ids: two
that say the same are two, as they are for whoever was asked in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from noria.core import canonical, digest, from_micros, micros
from noria.data.accept import MICRO, Taken, in_lake, put_aside, split
from noria.records import RawFile, SchemaFrozen
from noria.store import Event, EventLog, Home
from noria.store.events import log_path
from noria.store.rows import FAR, IMPOSSIBLE, MOST_COLUMNS, NOT_READABLE, ZONED, Fitted, delay_of, fitted, guessed, refit
from noria.system import Source
from noria.tables import QUARANTINE, SOURCE, TIME, source_table

KEPT = timedelta(days=3)
"""How long a sealed event stays in the log: as long an id that comes again with another content is known as a conflict. Given labels stay for good."""

_FRAMES: dict[str, Any] = {
    "VARCHAR": pl.String(),
    "BOOLEAN": pl.Boolean(),
    "BIGINT": pl.Int64(),
    "DOUBLE": pl.Float64(),
    "DATE": pl.Date(),
    "TIMESTAMP": pl.Datetime("us"),
    ZONED: TIME,
}


@contextmanager
def waiting(home: Home) -> Iterator[EventLog | None]:
    """The service's log, open; ``None`` while the service has never written one."""
    path = log_path(home.path)
    if not path.exists():
        yield None
        return
    with closing(EventLog(path, durable=home.settings.durable)) as log:
        yield log


def settle(log: EventLog, seqs: list[int], now: datetime) -> None:
    """Marks what is in the lake, and lets go of what has been there for long."""
    if seqs:
        log.seal(seqs)
        log.prune(micros(now - KEPT))


def taken(home: Home, source: Source, log: EventLog, now: datetime, horizon: datetime | None) -> tuple[Taken, list[int]]:
    """What came for a source by ``now``, and the events that are in the lake once it is committed.

    ``horizon`` is up to when sources were looked at: what was known by then and comes now is late, and counts as known from now on.
    """
    last = home.ledger.latest(SchemaFrozen, prefix=f"schema/{source.name}/")
    some = Taken(source, horizon, now, dict(last.record.columns) if last else {}, last)
    events = log.unsealed(source.name, micros(now), beyond=micros(now + FAR))
    if not events:
        return some, []
    frame = _frame(home, some, events, _widened(some, [_fitted(some, event) for event in events]))
    there = set(in_lake(home, source_table(source.name), frame)) | put_aside_before(home, source.name, events, now)
    frame = frame.filter(~pl.col("_row").is_in(list(there)))
    if frame.is_empty() or home.ledger.find(some.key) is not None:  # a turn that was killed and begun again at the same time
        return some, [event.seq for event in events if event.hash in there]
    some.files = (raw(source.name, frame["_row"].to_list()),)
    if not some.columns:  # no row was ever accepted
        some.accepted, some.refused = pl.DataFrame(schema=SOURCE.columns), put_aside(source.name, now, frame)
        return some, [event.seq for event in events]
    split(home, some, frame, lambda doubles: doubles)
    return some, [event.seq for event in events]


def _fitted(some: Taken, event: Event) -> Fitted:
    if event.known > micros(some.now + FAR):
        return Fitted({}, IMPOSSIBLE, some.source.time, "the time at which it is known is out of reach")
    return fitted(some.source, some.columns, event.row, micros(some.now))


def raw(source: str, hashes: Sequence[str]) -> RawFile:
    """What stands for the file, where rows came as events: the events' own hashes."""
    return RawFile(name=f"events:{source}", sha256=digest(list(hashes)))


def put_aside_before(home: Home, source: str, events: Sequence[Event], now: datetime) -> set[str]:
    """The hashes of those events that a turn has put aside already."""
    if home.lake.schema(QUARANTINE.name) is None:
        return set()
    first = min(event.known for event in events)  # an event is put aside by a turn that comes after it was known
    odd = any(event.known > micros(now) for event in events)
    rows = home.lake.read(QUARANTINE.name, columns=["source", "row"], _upto=(None if odd else from_micros(first) - MICRO, None))
    hashes = rows.filter(pl.col("source") == source)["row"].str.json_path_match("$._row")
    return set(hashes.drop_nulls())


def as_json(event: Event, bad: str = "") -> str:
    """An event for the quarantine: its row, with its id and hash, and what is wrong with it."""
    row = {name: value if _writable(value) else str(value) for name, value in event.row.items()}
    return canonical(row | {"_event": event.id, "_row": event.hash} | ({"_bad": bad} if bad else {})).decode()


def _writable(value: Any) -> bool:
    return not isinstance(value, float) or msgspec.json.encode(value) != b"null"  # JSON has no way to write these


# ------------------------------------------------------------------------------------------------------------- columns


def _widened(taken: Taken, rows: list[Fitted]) -> list[Fitted]:
    """The rows under the columns that they bring: ``taken`` gets these, each with the type that most of its values have."""
    delay = delay_of(taken.source)
    times = {taken.source.time: ZONED} | ({delay: ZONED} if isinstance(delay, str) else {})
    new: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.values.items() if not row.reason else ():
            if name not in taken.columns and value is not None:
                new.setdefault(name, []).append(value)
    lower = {name.lower() for name in taken.columns}
    found: dict[str, str] = {}
    for name, values in new.items():
        kind = times.get(name) or guessed(values)
        if kind is not None and name.lower() not in lower and len(lower) < MOST_COLUMNS:
            lower.add(name.lower())
            found[name] = kind
    if taken.frozen is not None:
        taken.changes = tuple(f"column {name!r} ({kind}) appeared" for name, kind in found.items())
    taken.columns |= found
    return [_refitted(row, found, new, times) if not row.reason and new else row for row in rows]


def _refitted(row: Fitted, found: dict[str, str], new: dict[str, list[Any]], read: dict[str, str]) -> Fitted:
    values = dict(row.values)
    for name in [name for name in values if name in new and name not in read]:
        values[name], why = refit(values[name], found[name]) if name in found else (None, "there is no place for this column")
        if why and row.values[name] is not None:
            return Fitted({}, NOT_READABLE, name, why)
    return row._replace(values=values)


def _frame(home: Home, taken: Taken, events: Sequence[Event], rows: Sequence[Fitted]) -> pl.DataFrame:
    """The events with the source's columns and what ``split`` wants to know of them."""
    kinds = home.lake.schema(source_table(taken.source.name)) or {}
    columns = []
    for name, kind in taken.columns.items():
        values = [None if row.reason else row.values.get(name) for row in rows]
        dtype = kinds.get(name) or _FRAMES.get(kind, pl.String())
        made = pl.Series(
            name, values, dtype=pl.Int64 if isinstance(dtype, pl.Datetime) else None if dtype.is_decimal() else dtype
        )
        columns.append(made.cast(dtype))
    time = taken.source.time
    own = {
        "_time": pl.Series([None if row.reason else row.values[time] for row in rows], dtype=pl.Int64).cast(TIME),
        "_known": pl.Series([event.known for event in events], dtype=pl.Int64).cast(TIME),
        "_row": pl.Series([event.hash for event in events], dtype=pl.String),
        "_piece": pl.Series([event.seq for event in events], dtype=pl.Int64),
        "_reason": pl.Series([row.reason or None for row in rows], dtype=pl.String),
        "_json": pl.Series(
            [as_json(event, f"{row.column}: {row.why}" if row.reason else "") for event, row in zip(events, rows, strict=True)]
        ),
    }
    return pl.DataFrame([*columns, *(series.alias(name) for name, series in own.items())])
