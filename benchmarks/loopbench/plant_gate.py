"""Faults that are there from the first day: what a gate has to refuse. Such a run ends with the first verdict of the gate."""

from __future__ import annotations

import numpy as np
import polars as pl

import noria as nr
from loopbench.faults import Stage, fault, pick

GATE = {"gate": True, "length": 0}


@fault(
    "no signal",
    "70, 90 or 100 % of the outcomes are handed round within their day; clicks as they are (Open Bandit)",
    "labels",
    steps=("scoping",),
    histories=("elec2", "openbandit"),
    **GATE,
)
def no_signal(stage: Stage, size: str) -> None:
    if stage.world.history == "openbandit":
        return  # its clicks are too few to learn from, as they are
    share = pick(size, 0.7, 0.9, 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        parts = []
        for _, day in rows.group_by(pl.col("asked").dt.truncate("1d"), maintain_order=True):
            places = np.arange(day.height)
            some = np.flatnonzero(stage.some(day.height, share))
            places[some] = stage.random.permutation(some)
            parts.append(day.with_columns(outcome=day["outcome"][places]))
        return pl.concat(parts)

    stage.rewrite(changed)


@fault(
    "leak",
    "a column of the asked row says the label, wrongly in 20, 10 or 2 % of the rows",
    "labels",
    steps=("data",),
    histories=("elec2",),
    **GATE,
)
def leak(stage: Stage, size: str) -> None:
    wrong = pick(size, 0.2, 0.1, 0.02)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        told = pl.when(pl.Series(stage.some(rows.height, wrong))).then(1 - pl.col("outcome")).otherwise("outcome")
        return rows.with_columns(transfer=told + 0.01 * pl.col("transfer"))

    stage.rewrite(changed)


@fault(
    "better baseline",
    "the outcome stays the same for 10, 12 or 14 days (30, 20, 10 % apart): the last label knows it best",
    "labels",
    steps=("scoping", "development"),
    histories=("elec2",),
    **GATE,
)
def better_baseline(stage: Stage, size: str) -> None:
    noise, days = pick(size, (0.3, 10), (0.2, 12), (0.1, 14))

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        number = ((pl.col("asked") - stage.start).dt.total_days() // days).to_physical() % 2
        state = rows.select(number.cast(pl.Float64)).to_series().to_numpy()
        turned = stage.some(rows.height, noise)
        return rows.with_columns(outcome=pl.Series(np.where(turned, 1 - state, state)))

    stage.rewrite(changed)
    stage.candidates = (nr.Prior(), nr.Last(), nr.Linear(trials=1))
