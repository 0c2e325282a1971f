"""Faults of the sources: what arrives is late, gone, cut, or means something else."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from loopbench.faults import Stage, fault, pick
from loopbench.histories import AT, DAY

STATIONS = ("JFK", "LGA", "EWR")
WEATHER = ("temp", "wind_speed", "precip", "visib")
DATA = ("data",)


def _asked(stage: Stage) -> str:
    return "schedule" if stage.flights else "market"


@fault("source late", "a source arrives 6, 24 or 72 hours late", "traffic", steps=DATA)
def late(stage: Stage, size: str) -> None:
    by = timedelta(hours=pick(size, 6, 24, 72))
    stage.edit("weather" if stage.flights else "market", lambda rows: rows.with_columns(pl.col(AT) + by))


@fault("source missing", "a source is silent for 1 day, 3 days, or for good", "traffic", steps=DATA)
def missing(stage: Stage, size: str) -> None:
    until = stage.start + pick(size, 1, 3, 999) * DAY
    stage.edit("weather" if stage.flights else "market", lambda rows: rows.filter(pl.col(AT) > until))


@fault("source truncated", "the last 20, 50 or 80 % of each day's rows do not come", "traffic", steps=DATA)
def truncated(stage: Stage, size: str) -> None:
    kept = pick(size, 0.8, 0.5, 0.2)
    day = pl.col(AT).dt.truncate("1d")
    stage.edit(_asked(stage), lambda rows: rows.sort(AT).filter(pl.int_range(pl.len()).over(day) < kept * pl.len().over(day)))


@fault("schema changed", "a column nobody uses is gone, one is text, one that is used is gone", "traffic", steps=DATA)
def schema(stage: Stage, size: str) -> None:
    if stage.flights:
        table, column = pick(size, ("schedule", "weekday"), ("schedule", "distance"), ("weather", "temp"))
    else:
        table, column = pick(size, ("record", "ends_at"), ("market", "transfer"), ("market", "nsw_price"))
    if (stage.flights and size == "medium") or (not stage.flights and size == "small"):
        stage.reshape(table, lambda rows: rows.with_columns(pl.col(column).cast(pl.String) + " "))
    else:
        stage.reshape(table, lambda rows: rows.drop(column))


@fault(
    "unit changed",
    "a measure comes in another unit at one, two or all stations (25, 60, 100 % of the half hours)",
    "traffic",
    steps=DATA,
)
def unit(stage: Stage, size: str) -> None:
    if stage.flights:
        here = pl.col("station").is_in(STATIONS[: pick(size, 1, 2, 3)])
        celsius = (pl.col("temp") - 32) * 5 / 9
        stage.edit("weather", lambda rows: rows.with_columns(temp=pl.when(here).then(celsius).otherwise("temp")))
        return
    share = pick(size, 0.25, 0.6, 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(stage.some(rows.height, share))
        return rows.with_columns(nsw_demand=pl.when(mask).then(pl.col("nsw_demand") * 1000).otherwise("nsw_demand"))

    stage.edit("market", changed)


@fault(
    "category renamed",
    "categories get other names: 8, 17 or 100 % of the flights (one, two, all parts of the day)",
    "traffic",
    steps=DATA,
)
def renamed(stage: Stage, size: str) -> None:
    column = "carrier" if stage.flights else "part"
    names = pick(size, ["MQ"], ["UA"], None) if stage.flights else pick(size, ["night"], ["night", "evening"], None)
    chosen = pl.lit(True) if names is None else pl.col(column).is_in(names)
    new = pl.when(chosen).then(pl.col(column).str.to_lowercase() + "_v2").otherwise(pl.col(column))
    for table in ("schedule", "departed") if stage.flights else ("market",):
        stage.edit(table, lambda rows: rows.with_columns(new.alias(column)))


@fault("duplicates", "10, 30 or 100 % of a source's rows come twice, minutes apart", "traffic", steps=DATA)
def duplicates(stage: Stage, size: str) -> None:
    table, time = ("departed", "departed_at") if stage.flights else ("market", "begins_at")
    share, apart = pick(size, 0.1, 0.3, 1.0), pl.duration(minutes=5)

    def doubled(rows: pl.DataFrame) -> pl.DataFrame:
        again = rows.filter(pl.Series(stage.some(rows.height, share))).with_columns(pl.col(time) + apart, pl.col(AT) + apart)
        return pl.concat([rows, again])

    stage.edit(table, doubled)


@fault("time zone shifted", "a source's times are 1, 4 or 12 hours off", "traffic", steps=DATA)
def zone(stage: Stage, size: str) -> None:
    hours = pl.duration(hours=pick(size, 1, 4, 12))
    if stage.flights:
        stage.edit("weather", lambda rows: rows.with_columns(pl.col("hour") - hours))
    else:
        stage.edit("record", lambda rows: rows.with_columns(pl.col("ends_at") - hours))


@fault(
    "join broken",
    "a key is written otherwise in one source: one, two, all stations (25, 60, 100 % of the keys)",
    "traffic",
    steps=DATA,
)
def join(stage: Stage, size: str) -> None:
    if stage.flights:
        here = pl.col("station").is_in(STATIONS[: pick(size, 1, 2, 3)])
        new = pl.when(here).then("K" + pl.col("station")).otherwise("station")
        stage.edit("weather", lambda rows: rows.with_columns(station=new))
        return
    share = pick(size, 0.25, 0.6, 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(stage.some(rows.height, share))
        return rows.with_columns(half_hour=pl.when(mask).then("NSW/" + pl.col("half_hour")).otherwise("half_hour"))

    stage.edit("record", changed)


@fault(
    "stale source",
    "values stay as they were at one, two, all stations (two, one, five columns)",
    "traffic",
    "stale features",
    steps=DATA,
)
def stale(stage: Stage, size: str) -> None:
    if not stage.flights:
        columns = pick(
            size, ["vic_price", "vic_demand"], ["nsw_demand"], ["nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer"]
        )
        stage.edit("market", lambda rows: rows.sort(AT).with_columns(pl.col(*columns).first()))
        return
    here = pl.col("station").is_in(STATIONS[: pick(size, 1, 2, 3)])
    frozen = [pl.when(here).then(pl.col(c).first().over("station")).otherwise(c).alias(c) for c in WEATHER]
    stage.edit("weather", lambda rows: rows.sort(AT).with_columns(frozen))
