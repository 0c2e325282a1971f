"""Faults of the purpose: what an act is worth, what it costs, and what it does to the outcome."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from loopbench.faults import Stage, fault, pick
from loopbench.histories import Tables
from noria.system import Costs, System


@fault(
    "metric misaligned",
    "30, 60 or 100 % of the acts earn the opposite of what they did: a better score brings less",
    "labels",
    steps=("scoping",),
    length=18,
)
def misaligned(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.6, 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(stage.some(rows.height, share))
        return rows.with_columns(pl.when(mask).then(-pl.col(name)).otherwise(name).alias(name) for name in ("gain", "cost"))

    stage.edit("money", changed)


@fault(
    "threshold stale",
    "acting in vain costs 2, 4 or 8 times as much; the policy decides with what it cost before",
    "labels",
    steps=("development", "scoping", "deployment"),
    length=18,
)
def threshold(stage: Stage, size: str) -> None:
    times = pick(size, 2.0, 4.0, 8.0)
    stage.edit("money", lambda rows: rows.with_columns(pl.col("cost") * times))


@fault(
    "cost above value",
    "a prediction costs 1, 5 or 20 times what a decision is worth at most",
    "labels",
    steps=("scoping",),
    length=18,
)
def cost(stage: Stage, size: str) -> None:
    worth = 3.0 if stage.flights else 0.3
    price = worth * pick(size, 1.0, 5.0, 20.0)

    def later(system: System) -> System:
        return replace(system, costs=Costs(prediction=price))

    stage.later = later


def _after_acting(stage: Stage, share: float, *, to: bool) -> None:
    """Labels of what was acted on become ``to`` with a chance."""

    def acted(made: Tables, acts: pl.DataFrame) -> Tables:
        record = made["record"]
        key, name = ("flight_id", "delay") if stage.flights else ("half_hour", "up")
        done = acts.filter(pl.col("act") > 0.5)["id"]
        mask = record[key].is_in(done.implode()) & pl.Series(stage.some(record.height, share))
        new = (45.0 if to else 0.0) if stage.flights else to
        return made | {"record": record.with_columns(pl.when(mask).then(pl.lit(new)).otherwise(name).alias(name))}

    stage.acted = acted


@fault(
    "acting changed the outcome",
    "acting prevents what was predicted, in 30, 60 or 90 % of the cases",
    "labels",
    steps=("scoping", "deployment", "data"),
    length=18,
)
def acting(stage: Stage, size: str) -> None:
    _after_acting(stage, pick(size, 0.3, 0.6, 0.9), to=False)


@fault(
    "feedback loop",
    "what was acted on is recorded as true, in 30, 60 or 90 % of the cases",
    "labels",
    steps=("scoping", "deployment", "data"),
    length=18,
)
def feedback(stage: Stage, size: str) -> None:
    _after_acting(stage, pick(size, 0.3, 0.6, 0.9), to=True)
