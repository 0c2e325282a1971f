"""Faults of the software that scores: planted by changing what Noria's functions return within the run's process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from loopbench.faults import Compute, Stage, fault, pick
from noria.system import System

OWN = ("column", "expression")
SERVING = ("deployment",)


@fault(
    "training-serving skew",
    "features are made otherwise at scoring: one a little, one much, several",
    "traffic",
    steps=("deployment", "data"),
)
def skew(stage: Stage, size: str) -> None:
    celsius, hours = (pl.col("weather_temp") - 32) * 5 / 9, pl.col("minute_of_day") - 300
    if stage.flights:
        lost = pl.lit(0.0).alias("departed_mean_delay_by_origin_2h")
        changes = pick(size, [pl.col("distance") * 1.609], [hours], [hours, celsius, lost])
    else:
        price, demand = pl.col("nsw_price") * 0.5, pl.col("nsw_demand") * 1.5
        changes = pick(size, [pl.col("vic_demand") * 1.2], [demand], [price, demand])

    def served(compute: Compute, home: Any, system: System, spine: pl.DataFrame) -> pl.DataFrame:
        made = compute(home, system, spine)
        there = spine["_time"] > stage.start
        return made.with_columns(
            pl.when(there).then(change).otherwise(pl.col(change.meta.output_name())).alias(change.meta.output_name())
            for change in changes
        )

    stage.features = served


@fault(
    "stale cache",
    "features at scoring are those of 6, 24 or 72 hours before",
    "traffic",
    "stale features",
    "training-serving skew",
    steps=("deployment", "data"),
)
def cache(stage: Stage, size: str) -> None:
    hours = pick(size, 6, 24, 72)

    def served(compute: Compute, home: Any, system: System, spine: pl.DataFrame) -> pl.DataFrame:
        made = compute(home, system, spine)
        there = spine["_time"] > stage.start
        if stage.flights:
            old = compute(home, system, spine.with_columns(pl.col("_time") - pl.duration(hours=hours)))
            names = [feature.name for feature in system.flat_features if feature.op not in OWN]
        else:
            columns = [name for name in spine.columns if name in made.columns and name != "_id"]
            last = home.lake.read("predictions", columns=["_time", *columns]).sort("_time").tail(2 * hours).select(columns)
            old = pl.concat([last, made.select(columns)])[: made.height]
            names = columns
        return made.with_columns(pl.when(there).then(old[name]).otherwise(made[name]).alias(name) for name in names)

    stage.features = served


def _late(stage: Stage, frame: pl.DataFrame, share: float) -> Any:
    return (frame["_time"] > stage.start).to_numpy() & stage.some(frame.height, share)


@fault(
    "constant predictor",
    "30, 70 or 100 % of the rows get one and the same score",
    "traffic",
    "constant predictor",
    "software fault",
    steps=SERVING,
)
def constant(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.7, 1.0)

    def answered(said: Any, frame: pl.DataFrame) -> Any:
        mask = _late(stage, frame, share)
        return replace(said, score=np.where(mask, 0.25, said.score), act=np.where(mask, 0.0, said.act))

    stage.answers = answered


@fault(
    "rows mixed up",
    "30, 60 or 100 % of the rows get the answer of another row",
    "labels",
    "software fault",
    "training-serving skew",
    steps=SERVING,
    length=18,
)
def mixed(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.6, 1.0)

    def answered(said: Any, frame: pl.DataFrame) -> Any:
        mask = np.flatnonzero(_late(stage, frame, share))
        other = stage.random.permutation(mask)
        score, act = said.score.copy(), said.act.copy()
        score[mask], act[mask] = said.score[other], said.act[other]
        return replace(said, score=score, act=act)

    stage.answers = answered


@fault("refused rows", "2, 10 or 40 % of the rows cannot be scored", "traffic", "software fault", steps=SERVING)
def refused(stage: Stage, size: str) -> None:
    share = pick(size, 0.02, 0.1, 0.4)

    def answered(said: Any, frame: pl.DataFrame) -> Any:
        mask = _late(stage, frame, share)
        score, act = np.where(mask, np.nan, said.score), np.where(mask, 0.0, said.act)
        return replace(said, score=score, act=act, refused=said.refused | mask)

    stage.answers = answered


@fault(
    "fallback storm",
    "the fallback answers 5, 20 or 60 % of the rows, since the model is too slow (time-outs)",
    "traffic",
    "fallback storm",
    "latency",
    "software fault",
    steps=SERVING,
)
def fallback(stage: Stage, size: str) -> None:
    share = pick(size, 0.05, 0.2, 0.6)

    def logged(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(_late(stage, rows, share))
        return rows.with_columns(
            _score=pl.when(mask).then(None).otherwise("_score"),
            _act=pl.when(mask).then(0.0).otherwise("_act"),
            _act_propensity=pl.when(mask).then(1.0).otherwise("_act_propensity"),
            _fallback=pl.when(mask).then(pl.lit("timeout")).otherwise("_fallback"),
        )

    stage.logged = logged
