"""Labels given outright, by HTTP or by a person: for one prediction by its id, or for an entity by its key.

A given label wins over what the label source says and over silence; of several for one prediction the newest known counts. The act of the newest
that has one is the act a person took. A label may come before its prediction: it is held, and joined when the prediction is there. One whose
prediction has not come by the time its cohort would have closed is put aside, and still joined should the prediction ever come.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from noria.core import DataFault, canonical, duration, micros
from noria.core.window import EPOCH
from noria.data.accept import MICRO, Taken, in_lake, on_time, put_aside
from noria.data.arrivals import as_json, put_aside_before, raw
from noria.data.times import next_edge, reach
from noria.measure import Given, given
from noria.records import Ingested
from noria.store import LABELS_SOURCE, Event, EventLog, Home
from noria.store.engine import Scan
from noria.store.rows import EARLIEST, FAR, IMPOSSIBLE, NO_KEY, NOT_READABLE
from noria.system import Source, System
from noria.tables import LABELS, PREDICTIONS, QUARANTINE, TIME

SOURCE = LABELS_SOURCE
UNKNOWN = "label for an unknown prediction"
EARLY = timedelta(days=1)
"""How long before its prediction is asked a label may be known, and still be found."""
NOTHING = [
    "given_label as (select null::varchar as _id, null::double as _label, null::varchar as _class, null::timestamptz as _known where false)",
    "given_act as (select null::varchar as _id, null::double as _act where false)",
]
_KEY = "regexp_replace({}, '@[^@]*$', '')"
_NEWEST = "qualify row_number() over (partition by _id order by _known desc, _own desc, _time desc, _row desc) = 1"


def taken(home: Home, system: System, log: EventLog, now: datetime, horizon: datetime | None) -> tuple[Taken, list[int]]:
    """The labels that came by ``now``, and the events that are in the lake once they are committed; as ``arrivals.taken``."""
    some = Taken(Source(SOURCE), horizon, now, {})
    events = log.unsealed(SOURCE, micros(now), beyond=micros(now + FAR))
    if not events:
        return some, []
    read = [_read(system, event, now) for event in events]
    frame = _frame(events, read)
    there = set(in_lake(home, LABELS.name, frame)) | put_aside_before(home, SOURCE, events, now)
    frame = frame.filter(~pl.col("_row").is_in(list(there)))
    if frame.is_empty() or home.ledger.find(some.key) is not None:
        return some, [event.seq for event in events if event.hash in there]
    some.files = (raw(SOURCE, frame["_row"].to_list()),)
    good = frame.filter(pl.col("_reason").is_null()).unique("_row", keep="first", maintain_order=True)
    some.accepted = on_time(some, good).select(*LABELS.columns).sort(*LABELS.order)
    some.refused = put_aside(SOURCE, now, frame.filter(pl.col("_reason").is_not_null()))
    return some, [event.seq for event in events]


def _read(system: System, event: Event, now: datetime) -> tuple[Given | None, str, str]:
    """What an event gives; or why it is refused, and in a sentence."""
    if not micros(EARLIEST) <= event.time <= micros(now + FAR) or event.known > micros(now + FAR):
        return None, IMPOSSIBLE, "the time is out of reach"
    if event.row.get("id") is None and event.row.get("key") is None:
        return None, NO_KEY, "one of id and key is needed"
    try:
        return given(system, event.row), "", ""
    except DataFault as fault:
        return None, NOT_READABLE, fault.message


def _frame(events: list[Event], read: list[tuple[Given | None, str, str]]) -> pl.DataFrame:
    said = [one for one, _, _ in read]
    return pl.DataFrame(
        {
            "_row": [event.hash for event in events],
            "_id": [one.id if one else None for one in said],
            "_key": [one.key if one else None for one in said],
            "_time": pl.Series([event.time for event in events], dtype=pl.Int64).cast(TIME),
            "_known": pl.Series([event.known for event in events], dtype=pl.Int64).cast(TIME),
            "_label": [one.label if one else None for one in said],
            "_class": [one.name if one else None for one in said],
            "_act": [one.act if one else None for one in said],
            "_by": [one.by if one else None for one in said],
            "_reason": [reason or None for _, reason, _ in read],
            "_json": [as_json(event, why) for event, (_, _, why) in zip(events, read, strict=True)],
        },
        schema_overrides={**LABELS.columns, "_reason": pl.String},
    )


# ------------------------------------------------------------------------------------------------------------- closing


def held(home: Home, start: datetime, now: datetime) -> Scan:
    """The labels that may be for predictions asked after ``start``, as a table; without files when there are none."""
    return home.lake.scan(LABELS.name, _known=(start - EARLY, now))


def given_sql(system: System, now: datetime) -> list[str]:
    """Queries over ``labels`` for the predictions ``picked``: ``given_label`` and ``given_act`` have the newest of each ``_id``."""
    horizon, length = duration(system.label.horizon) // MICRO, reach(system) // MICRO
    said = "labels._label, labels._class, labels._act, labels._known, labels._time, labels._row"
    known = f"labels._known <= make_timestamptz({micros(now)})"
    after = f"epoch_us(labels._time) > epoch_us(picked._time) + {horizon} and epoch_us(labels._time) <= epoch_us(picked._time) + {length}"
    value = "_class" if system.task == "multiclass" else "_label"
    return [
        f"given as (select picked._id, 1 as _own, {said} from picked join labels on labels._id = picked._id where {known} union all "
        f"select picked._id, 0 as _own, {said} from picked join labels on labels._key = {_KEY.format('picked._id')} and {after} "
        f"where {known})",
        f"given_label as (select _id, _label, _class, _known from given where {value} is not null {_NEWEST})",
        f"given_act as (select _id, _act from given where _act is not null {_NEWEST})",
    ]


def touched(home: Home, system: System, seen: datetime, now: datetime, done: datetime) -> set[datetime]:
    """The ends of closed cohorts (up to ``done``) with predictions that labels known in (``seen``, ``now``] are for."""
    scan = home.lake.scan(LABELS.name, _known=(seen, now))
    if not scan.files:
        return set()
    known = f"_known > make_timestamptz({micros(seen)}) and _known <= make_timestamptz({micros(now)})"
    rows = asked_at(home.engine.sql(f"select _id, _key, _time, epoch_us(_time) as _at from l where {known}", l=scan))
    found: set[datetime] = set()
    mine, keyed = rows.filter(pl.col("_id").is_not_null()), rows.filter(pl.col("_id").is_null())
    if not mine.is_empty():
        low, high = _span(mine["_asked"])
        span = home.lake.scan(PREDICTIONS.name, _time=(low, done if high is None else min(high, done)))
        found |= _cohorts(home, system, "p._id = l._id", done, p=span, l=mine)
    if not keyed.is_empty():
        horizon, length = duration(system.label.horizon), reach(system)
        first, last = keyed["_time"].min(), keyed["_time"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        same = (
            f"{_KEY.format('p._id')} = l._key and l._at > epoch_us(p._time) + {horizon // MICRO} "
            f"and l._at <= epoch_us(p._time) + {length // MICRO}"
        )
        span = home.lake.scan(PREDICTIONS.name, _time=(first - length - MICRO, min(last - horizon, done)))
        found |= _cohorts(home, system, same, done, p=span, l=keyed)
    return found


def _span(asked: pl.Series) -> tuple[datetime | None, datetime | None]:
    """Bounds of the times in ids, for a scan; without any when an id has none."""
    low, high = asked.min(), asked.max()
    if asked.null_count() or not isinstance(low, datetime) or not isinstance(high, datetime):
        return None, None
    return low - MICRO, high


def _cohorts(home: Home, system: System, same: str, done: datetime, **tables: Scan | pl.DataFrame) -> set[datetime]:
    step = duration(system.every) // MICRO
    query = (
        f"select distinct (epoch_us(p._time) + {step - 1}) // {step} * {step} as cohort from p join l on {same} "
        f"where p._time <= make_timestamptz({micros(done)})"
    )
    return {EPOCH + timedelta(microseconds=int(end)) for end in home.engine.sql(query, **tables)["cohort"].to_list()}


def asked_at(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with ``_id``, and when each was asked by the time that stands in its id: ``_asked``, null where none does."""
    parts = pl.col("_id").str.extract_groups(r"@(\d{8}T\d{6})(?:\.(\d{6}))?Z$")
    seconds = parts.struct.field("1").str.to_datetime("%Y%m%dT%H%M%S", strict=False, time_unit="us", time_zone="UTC")
    rest = parts.struct.field("2").cast(pl.Int64).fill_null(0)
    return rows.with_columns((seconds + pl.duration(microseconds=rest)).cast(TIME).alias("_asked"))


def unknown(
    home: Home, system: System, edge: datetime, now: datetime, *, done: datetime | None, seen: datetime | None
) -> tuple[pl.DataFrame, Ingested] | None:
    """Labels whose prediction was not there when its cohort closed (cohorts up to ``edge``), for the quarantine, with the record of it.

    Looked at are cohorts after ``done``, and labels known after ``seen``; none is put aside twice.
    """
    if home.lake.schema(LABELS.name) is None:
        return None
    every = duration(system.every)
    low = None if done is None or seen is None else min(done - every - EARLY, seen)
    rows = home.lake.read(LABELS.name, _known=(low, now)).filter(pl.col("_id").is_not_null())
    if rows.is_empty():
        return None
    rows = asked_at(rows)
    ends = [next_edge(moment, every) for moment in rows["_asked"].fill_null(rows["_time"]).to_list()]
    rows = rows.with_columns(pl.Series("_end", ends, dtype=TIME)).filter(pl.col("_end") <= edge)
    if done is not None and seen is not None:
        rows = rows.filter((pl.col("_end") > done) | (pl.col("_known") > seen))
    if rows.is_empty():
        return None
    query = "select l.* from l anti join p on p._id = l._id order by l._known, l._row"
    lost = home.engine.sql(query, l=rows, p=home.lake.scan(PREDICTIONS.name, _time=_span(rows["_asked"])))
    first = lost["_known"].min()
    if isinstance(first, datetime) and home.lake.schema(QUARANTINE.name) is not None:
        aside = home.lake.read(QUARANTINE.name, columns=["source", "row"], _upto=(first - MICRO, None))
        known = aside.filter(pl.col("source") == SOURCE)["row"].str.json_path_match("$._row").drop_nulls()
        lost = lost.filter(~pl.col("_row").is_in(known.to_list()))
    if lost.is_empty():
        return None
    shown = [
        canonical({"id": row["_id"], "label": row["_label"], "class": row["_class"], "act": row["_act"], "_row": row["_row"]})
        for row in lost.iter_rows(named=True)
    ]
    rows = pl.DataFrame({"_json": [one.decode() for one in shown]}).with_columns(pl.lit(UNKNOWN).alias("_reason"))
    n = lost.height
    record = Ingested(
        source=SOURCE,
        upto=now,
        received=n,
        accepted=0,
        quarantined=n,
        reasons={UNKNOWN: n},
        files=(raw(SOURCE, lost["_row"].to_list()),),
        rows="",
    )
    return put_aside(SOURCE, now, rows), record
