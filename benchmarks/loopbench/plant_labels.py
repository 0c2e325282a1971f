"""Faults of the labels alone: the world and the predictions stay as they are."""

from __future__ import annotations

import polars as pl

from loopbench.faults import Stage, fault, pick
from loopbench.histories import AT

LATE_FLIGHT, ON_TIME = 45.0, 0.0


@fault("label noise", "5, 15 or 30 % of the labels are turned", "labels", steps=("data",), length=14)
def noise(stage: Stage, size: str) -> None:
    share = pick(size, 0.05, 0.15, 0.3)
    turned = (
        pl.when(pl.col("delay") >= 15).then(ON_TIME).otherwise(LATE_FLIGHT).alias("delay")
        if stage.flights
        else (~pl.col("up")).alias("up")
    )

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        name = "delay" if stage.flights else "up"
        return rows.with_columns(pl.when(pl.Series(stage.some(rows.height, share))).then(turned).otherwise(name).alias(name))

    stage.edit("record", changed)


@fault(
    "label delay changed", "labels come later: 2, 4, 5.5 hours of 8 (30, 60, 84 minutes of two hours)", "labels", steps=("data",)
)
def delay(stage: Stage, size: str) -> None:
    time = "departed_at" if stage.flights else "ends_at"
    by = pl.duration(minutes=pick(size, 120, 240, 330) if stage.flights else pick(size, 30, 60, 84))
    stage.edit("record", lambda rows: rows.with_columns(pl.col(time) + by, pl.col(AT) + by))


@fault("labels missing", "15, 40 or 80 % of the labels never come", "labels", steps=("data",), length=14)
def missing(stage: Stage, size: str) -> None:
    share = pick(size, 0.15, 0.4, 0.8)
    stage.edit("record", lambda rows: rows.filter(~pl.Series(stage.some(rows.height, share))))


@fault(
    "label definition changed",
    "the label counts from 5, 15, 30 minutes later (30, 60, 100 % of the labels compare with the last half hour)",
    "labels",
    steps=("data", "scoping"),
    length=14,
)
def definition(stage: Stage, size: str) -> None:
    if stage.flights:
        stage.edit("record", lambda rows: rows.with_columns(pl.col("delay") - pick(size, 5, 15, 30)))
        return
    prices = stage.world.rows.sort("asked").select(half_hour="id", _up=pl.col("nsw_price").diff().fill_null(0) > 0)
    share = pick(size, 0.3, 0.6, 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        there = rows.join(prices, on="half_hour", how="left", maintain_order="left")
        return there.with_columns(up=pl.when(pl.Series(stage.some(rows.height, share))).then("_up").otherwise("up"))

    stage.edit("record", changed)
