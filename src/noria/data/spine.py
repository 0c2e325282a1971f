"""The rows to be predicted: of a source as they come, or of its entities on a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from noria.core import Window, duration, quoted
from noria.core.window import EPOCH, floor, micros
from noria.data.times import MONTH
from noria.store import Home
from noria.store.rows import delay_of
from noria.system import Every, Request, Source, System
from noria.tables import TIME, source_table

_MICRO = timedelta(microseconds=1)
_OWN = {"_time": TIME, "_known": TIME, "_row": pl.String}


def spine(home: Home, system: System, window: Window) -> pl.DataFrame:
    """The rows that are asked in ``window``: the predicted row's columns, ``_id`` and ``_time``, by time and id.

    A row is asked at its own time, or when it became known if that is later: a row that arrives late is asked once, late. A row that
    restates an earlier one is not asked again. ``Every`` asks at each tick of its period for each entity known then. A ``Request`` has no
    rows: they come by HTTP.
    """
    asked = system.predict
    if isinstance(asked, Request):
        return pl.DataFrame(schema={"_id": pl.String, "_time": TIME})
    if isinstance(asked, Every):
        return _scheduled(home, asked, window)
    return _asked(home, asked, window)


def id_sql(keys: tuple[str, ...], time: str = "_time") -> str:
    """SQL for a prediction's id: ``key@20130101T060000Z``; several keys are joined by ``|``."""
    key = " || '|' || ".join(f"coalesce({quoted(k)}::VARCHAR, '')" for k in keys) or "''"
    fraction = f"case when epoch_us({time}) % 1000000 = 0 then '' else '.' || right('00000' || (epoch_us({time}) % 1000000)::VARCHAR, 6) end"
    return f"{key} || '@' || strftime({time}, '%Y%m%dT%H%M%S') || {fraction} || 'Z'"


def _between(column: str, window: Window) -> str:
    return f"{column} > make_timestamptz({micros(window.start)}) and {column} <= make_timestamptz({micros(window.end)})"


def _asked(home: Home, source: Source, window: Window) -> pl.DataFrame:
    table = source_table(source.name)
    if home.lake.schema(table) is None:
        return pl.DataFrame(schema={"_id": pl.String, "_time": TIME})
    scans = {"known": home.lake.scan(table, _known=(window.start, window.end))}
    if isinstance(delay_of(source), str):  # a row can be known long before its time
        scans["timed"] = home.lake.scan(table, _time=(window.start, window.end))
    rows = " union ".join(f"select * from {name} where {_between('greatest(_time, _known)', window)}" for name in scans)
    identity = ", ".join([*(quoted(k) for k in source.keys), "_time"]) if source.keys else "_row"
    query = (
        f"select *, {id_sql(source.keys)} as _id from ({rows}) "
        f"qualify row_number() over (partition by {identity} order by _known, _row) = 1 order by _time, _id, _row"
    )
    found = home.engine.sql(query, **scans)
    if source.keys:
        found = _first_versions(home, source, found, window)
    return found.select("_id", *(c for c in found.columns if c not in (*_OWN, "_id")), "_time")


def _first_versions(home: Home, source: Source, rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Without the rows that restate one which was asked before the window."""
    old = rows.filter((pl.col("_time") <= window.start) | (pl.col("_known") > pl.col("_time")))
    low, high = old["_time"].min(), old["_time"].max()
    if not isinstance(low, datetime) or not isinstance(high, datetime):
        return rows
    identity = [*source.keys, "_time"]
    same = " and ".join(f"lake.{quoted(c)} = old.{quoted(c)}" for c in identity)
    query = f"select distinct old._row as _row from lake join old on {same} where greatest(lake._time, lake._known) <= make_timestamptz({micros(window.start)})"
    asked = home.engine.sql(
        query, lake=home.lake.scan(source_table(source.name), _time=(low - _MICRO, high)), old=old.select(*identity, "_row")
    )
    return rows.filter(~pl.col("_row").is_in(asked["_row"].to_list()))


def ticks(period: str, window: Window) -> Iterator[datetime]:
    """The moments of a schedule within a window, in order.

    >>> from noria.core import parse_time
    >>> [str(t.date()) for t in ticks("1mo", Window(parse_time("2013-01-01"), parse_time("2013-03-01")))]
    ['2013-02-01', '2013-03-01']
    """
    if period == MONTH:
        year, month = max(window.start.year, 1970), window.start.month
        moment = datetime(year, month, 1, tzinfo=UTC)
        while moment <= window.end:
            if moment in window:
                yield moment
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
            moment = datetime(year, month, 1, tzinfo=UTC)
        return
    step = duration(period)
    moment = floor(max(window.start, EPOCH), step)
    while moment <= window.end:
        if moment in window:
            yield moment
        moment += step


def _scheduled(home: Home, every: Every, window: Window) -> pl.DataFrame:
    source = every.of
    table = source_table(source.name)
    schema = home.lake.schema(table)
    empty = pl.DataFrame(schema={"_id": pl.String, "_time": TIME})
    if schema is None:
        return empty
    first = home.engine.sql("select min(_known) as first from entities", entities=home.lake.scan(table)).item()
    if first is None:
        return empty
    moments = list(ticks(every.period, Window(max(window.start, first - _MICRO), window.end)))
    if not moments:
        return empty
    own = [quoted(c) for c in schema if c not in _OWN]
    keys = ", ".join(f"e.{quoted(k)}" for k in source.keys)
    where = f"where ({every.where})" if every.where else ""
    query = (
        f"with newest as (select {', '.join('e.' + c for c in own)}, a.tick from asked a join entities e on e._known <= a.tick "
        f"qualify row_number() over (partition by a.tick, {keys} order by e._time desc, e._known desc, e._row desc) = 1), "
        f"chosen as (select * from newest {where}) "
        f"select {id_sql(source.keys, 'tick')} as _id, {', '.join(own)}, tick as _time from chosen order by _time, _id"
    )
    asked = pl.DataFrame({"tick": moments}, schema={"tick": TIME})
    return home.engine.sql(query, asked=asked, entities=home.lake.scan(table, _known=(None, window.end)))
