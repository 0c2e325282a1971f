"""What is taken in and what is put aside, of rows that came from files and of events alike: duplicates, restatements, late rows, reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from noria.core import quoted
from noria.core.window import micros
from noria.data.columns import text
from noria.data.readers import BAD
from noria.records import Entry, RawFile, SchemaFrozen
from noria.store import Home
from noria.store.rows import (
    DUPLICATE,
    EARLIEST,
    FAR,
    IMPOSSIBLE,
    NO_KEY,
    NO_KNOWN,
    NO_TIME,
    NOT_FINITE,
    NOT_READABLE,
)
from noria.system import Source
from noria.tables import QUARANTINE, SOURCE, TIME, source_table

MICRO = timedelta(microseconds=1)


@dataclass
class Taken:
    """What one source brings in the turn at ``now``; ``cursor`` is up to when it was looked at before (``None``: never).

    ``columns`` are those of the source after the turn, ``frozen`` those before, ``changes`` what is new of them.
    """

    source: Source
    cursor: datetime | None
    now: datetime
    columns: dict[str, str]
    frozen: Entry[SchemaFrozen] | None = None
    changes: tuple[str, ...] = ()
    accepted: pl.DataFrame = field(default_factory=pl.DataFrame)
    refused: pl.DataFrame = field(default_factory=pl.DataFrame)
    files: tuple[RawFile, ...] = ()
    late: int = 0
    restated: int = 0

    @property
    def received(self) -> int:
        return self.accepted.height + self.refused.height

    @property
    def key(self) -> str:
        """Of the record of this batch."""
        return f"ingest/{self.source.name}/{self.now.isoformat()}"


def content_sql(columns: Mapping[str, str]) -> str:
    """SQL for the hash of a row's content: names and values that are not null, each with its length, so that none can pose as another."""
    parts = []
    for column in sorted(columns):
        value = (
            f"epoch_us({quoted(column)})::VARCHAR" if columns[column].startswith("TIMESTAMP") else f"{quoted(column)}::VARCHAR"
        )
        parts.append(f"{text(column + '=')} || length({value}) || ':' || {value}")
    return f"left(md5(concat_ws('|', {', '.join(parts)})), 20)"


def reason_sql(source: Source, columns: Mapping[str, str], now: datetime) -> str:
    """SQL for why a row is refused; null when it is not."""
    latest = f"make_timestamptz({micros(now + FAR)})"
    tests = [(f"{BAD} is not null", NOT_READABLE), ("_time is null", NO_TIME)]
    tests += [(f"{quoted(key)} is null", NO_KEY) for key in source.keys]
    tests += [("_known is null", NO_KNOWN)]
    tests += [(f"not (_time between make_timestamptz({micros(EARLIEST)}) and {latest}) or _known > {latest}", IMPOSSIBLE)]
    floats = [f"not isfinite({quoted(c)})" for c, kind in columns.items() if kind == "DOUBLE"]
    if floats:
        tests.append((" or ".join(f"coalesce({test}, false)" for test in floats), NOT_FINITE))
    return "case " + " ".join(f"when {test} then {text(reason)}" for test, reason in tests) + " end"


def in_lake(home: Home, table: str, rows: pl.DataFrame) -> list[str]:
    """Those of the rows' ``_row`` that a table has."""
    low, high = rows["_time"].min(), rows["_time"].max()
    if home.lake.schema(table) is None or not isinstance(low, datetime) or not isinstance(high, datetime):
        return []
    asked = rows.select("_row").unique(maintain_order=True)
    found = home.engine.sql(
        "select distinct lake._row as _row from lake join asked on lake._row = asked._row",
        lake=home.lake.scan(table, _time=(low - MICRO, high)),
        asked=asked,
    )
    return found["_row"].to_list()


def in_quarantine(home: Home, source: str, rows: pl.Series) -> list[str]:
    """Those of the rows (as JSON) that were put aside before."""
    asked = rows.drop_nulls().unique(maintain_order=True).to_frame("row")
    if asked.is_empty() or home.lake.schema(QUARANTINE.name) is None:
        return []
    found = home.engine.sql(
        f"select distinct aside.row as row from aside join asked on aside.row = asked.row where aside.source = {text(source)}",
        aside=home.lake.scan(QUARANTINE.name),
        asked=asked,
    )
    return found["row"].to_list()


def split(home: Home, taken: Taken, rows: pl.DataFrame, said: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Fills ``taken`` with the accepted and the refused of ``rows``; ``_known`` of late ones becomes ``now``.

    ``rows`` have the columns of the source, ``_time``, ``_known``, ``_row`` (the hash by which two rows are the same), ``_piece`` (the order
    among equals), ``_reason`` and ``_json``; ``said`` gives rows that turn out to be duplicates their ``_json``.
    """
    source, now = taken.source, taken.now
    good = rows.filter(pl.col("_reason").is_null()).sort("_known", "_time", "_row", "_piece")
    earlier = _versions(home, taken, good)
    repeated = ~good["_row"].is_first_distinct() | good["_row"].is_in(earlier["_row"].to_list())
    doubles = good.filter(repeated)
    good = good.filter(~repeated)
    if source.keys and not good.is_empty():
        identity = [*source.keys, "_time"]
        again = good.select(identity).is_duplicated() & ~pl.Series(
            good.select(pl.struct(identity).is_first_distinct()).to_series()
        )
        taken.restated = (
            int(again.sum())
            + good.filter(~again).join(earlier.select(identity).unique(), on=identity, how="semi", nulls_equal=True).height
        )
    taken.accepted = on_time(taken, good).select([*taken.columns, "_time", "_known", "_row"]).sort(*SOURCE.order)
    broken = rows.filter(pl.col("_reason").is_not_null()).select("_reason", "_json")
    if not doubles.is_empty():
        broken = pl.concat([broken, said(doubles).select(pl.lit(DUPLICATE).alias("_reason"), "_json")])
    taken.refused = put_aside(source.name, now, broken)


def on_time(taken: Taken, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with ``_known`` of those that came after a turn which should have seen them set to ``now``; ``taken`` counts them."""
    if taken.cursor is None:
        return rows
    late = pl.col("_known") <= taken.cursor
    taken.late = rows.filter(late).height
    return rows.with_columns(pl.when(late).then(pl.lit(taken.now).cast(TIME)).otherwise(pl.col("_known")).alias("_known"))


def put_aside(source: str, now: datetime, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of the quarantine from ``_reason`` and ``_json``."""
    return rows.select(
        pl.lit(source).alias("source"),
        pl.lit(now).cast(TIME).alias("_upto"),
        pl.col("_reason").alias("reason"),
        pl.col("_json").alias("row"),
    ).sort(*QUARANTINE.order)


def as_texts(columns: Mapping[str, str]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Gives rows their ``_json`` from their columns as texts."""
    texts = [pl.col(c).cast(pl.String) for c in sorted(columns)]
    return lambda rows: rows.with_columns(pl.struct(texts).struct.json_encode().alias("_json"))


def _versions(home: Home, taken: Taken, rows: pl.DataFrame) -> pl.DataFrame:
    """What the lake holds under the keys and times of these rows: keys, ``_time``, ``_row``."""
    source = taken.source
    identity = [*source.keys, "_time"]
    empty = rows.select(*identity, "_row").clear()
    table = source_table(source.name)
    low, high = rows["_time"].min(), rows["_time"].max()
    if rows.is_empty() or home.lake.schema(table) is None or not isinstance(low, datetime) or not isinstance(high, datetime):
        return empty
    scan = home.lake.scan(table, _time=(low - MICRO, high))
    if not scan.files:
        return empty
    same = " and ".join(f"lake.{quoted(c)} = asked.{quoted(c)}" for c in identity)
    chosen = ", ".join(quoted(c) for c in identity)
    query = f"select distinct {chosen}, _row from lake semi join asked on {same}"
    return home.engine.sql(query, lake=scan, asked=rows.select(identity).unique(maintain_order=True)).cast(empty.schema)
