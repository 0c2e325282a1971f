"""Changes of the world: whom the predictions are about, and how the outcome depends on what is known when asking.

Rows are resampled within their day, with their outcomes, so that what is not meant to change stays: for a shift of inputs the outcome given
the row, for a shift of labels the row given the outcome. A change of concept gives a row the outcome of the row at the other end of the
day's order of one driver (the hour of the day, the price): its effect turns round while the day's inputs and outcomes stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loopbench.faults import Stage, fault, pick
from loopbench.histories import DAY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FREE = 50_000  # no half hour of the market has such a number
MODEL = ("development",)


def _resampled(stage: Stage, weight: Callable[[pl.DataFrame], Floats]) -> None:
    """As many rows of each day as there were, drawn by weight with replacement; a row that is drawn again is another one like it."""
    names = iter(range(FREE, 10**6))

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        parts = []
        for _, day in rows.group_by(pl.col("asked").dt.truncate("1d"), maintain_order=True):
            weights = weight(day)
            chosen = np.sort(stage.random.choice(day.height, day.height, p=weights / weights.sum()))
            again = np.array([k - np.searchsorted(chosen, c) for k, c in enumerate(chosen)])
            parts.append(_alike(stage, day[chosen], again, names))
        return pl.concat(parts)

    stage.rewrite(changed)


def _alike(stage: Stage, rows: pl.DataFrame, again: Ints, names: Iterator[int]) -> pl.DataFrame:
    """The rows, those drawn ``again`` with a name of their own, some minutes apart (numbers a few thousandths), and priced anew."""
    n, other = rows.height, pl.Series(again > 0)
    price = {
        name: pl.Series(float(rows[name].median()) * stage.random.uniform(0.8, 1.2, n).round(4)) for name in ("gain", "cost")
    }  # type: ignore[arg-type]
    new: dict[str, pl.Expr | pl.Series] = dict(price)
    if stage.flights:  # a flight of another year, written as any other
        minutes = pl.Series(stage.random.choice((-1, 1), n) * (2 * again + stage.random.integers(0, 2, n)))
        new |= {"minute_of_day": pl.col("minute_of_day") + minutes, "asked": pl.col("asked") + pl.duration(minutes=minutes)}
        late = pl.col("outcome") + pl.Series(stage.random.integers(-2, 3, n))
        new["outcome"] = pl.when((pl.col("outcome") - 15).abs() > 3).then(late).otherwise("outcome")  # the label stays
        new["id"] = pl.format("{}{}", pl.Series(again) + 2013, pl.col("id").str.slice(4))
    else:
        near = pl.Series(1 + 0.003 * stage.random.standard_normal(n))
        new |= {name: pl.col(name) * near for name in ("nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer")}
        new["asked"] = pl.col("asked") + pl.duration(minutes=pl.Series(stage.random.integers(0, 15, n)))
        new["id"] = pl.Series([f"h{next(names)}" if k else "" for k in again])
    midnight = pl.col("asked").dt.truncate("1d")
    made = rows.with_columns(pl.when(other).then(value).otherwise(pl.col(name)).alias(name) for name, value in new.items())
    within = pl.col("asked").clip(lower_bound=midnight, upper_bound=midnight + pl.duration(hours=24, microseconds=-1))
    return made.with_columns(asked=within)


def label_of(stage: Stage) -> pl.Expr:
    """Whether a row's label is true."""
    return (pl.col("outcome").is_null() | (pl.col("outcome") >= 15)) if stage.flights else pl.col("outcome") > 0.5


@fault(
    "covariate shift",
    "rows of long flights (high demand) are drawn e^k times more often a standard deviation: k 0.4, 0.8, 1.6",
    "traffic",
    steps=MODEL,
)
def covariate(stage: Stage, size: str) -> None:
    column, k = "distance" if stage.flights else "nsw_demand", pick(size, 0.4, 0.8, 1.6)
    centre, spread = (float(f(stage.world.rows[column].to_numpy())) for f in (np.mean, np.std))
    _resampled(stage, lambda day: np.exp(k * np.clip((day[column].to_numpy() - centre) / spread, -3, 3)))


@fault("label shift", "rows with a true label are drawn 1.5, 2.5 or 5 times more often", "traffic", steps=MODEL)
def label_shift(stage: Stage, size: str) -> None:
    odds = pick(size, 1.5, 2.5, 5.0)
    _resampled(stage, lambda day: np.where(day.select(label_of(stage)).to_series().to_numpy(), odds, 1.0))


@fault(
    "traffic mix",
    "rows of one airport (one part of the day) are drawn 2, 4 or 10 times more often",
    "traffic",
    "traffic mix",
    "covariate shift",
    steps=MODEL,
)
def mix(stage: Stage, size: str) -> None:
    column, value, odds = ("origin", "LGA", pick(size, 2, 4, 10)) if stage.flights else ("part", "evening", pick(size, 2, 4, 10))
    _resampled(stage, lambda day: np.where((day[column] == value).to_numpy(), float(odds), 1.0))


def _turned(stage: Stage, share: Callable[[pl.DataFrame], Floats]) -> None:
    """Gives a share of the rows the outcome of the row at the other end of the day's order of the driver."""
    driver = "minute_of_day" if stage.flights else "nsw_price"

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        parts = []
        for _, day in rows.group_by(pl.col("asked").dt.truncate("1d"), maintain_order=True):
            order = np.argsort(day[driver].to_numpy() + 1e-6 * stage.random.random(day.height), kind="stable")
            other = np.empty(day.height, int)
            other[order] = order[::-1]
            mask = stage.random.random(day.height) < share(day)
            outcome = day["outcome"]
            parts.append(
                day.with_columns(outcome=pl.select(pl.when(pl.Series(mask)).then(outcome[other]).otherwise(outcome)).to_series())
            )
        return pl.concat(parts)

    stage.rewrite(changed)


def _day_number(stage: Stage, day: pl.DataFrame) -> int:
    first = day["asked"].min()
    return int((first - stage.start) // DAY)  # type: ignore[operator]  # a time


@fault(
    "sudden concept change", "30, 60 or 100 % of the outcomes follow the turned effect at once", "labels", steps=MODEL, length=18
)
def sudden(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.6, 1.0)
    _turned(stage, lambda day: np.full(day.height, share))


@fault("gradual concept change", "the share grows over fourteen days to 30, 60 or 100 %", "labels", steps=MODEL, length=21)
def gradual(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.6, 1.0)
    _turned(stage, lambda day: np.full(day.height, share * min(1.0, (_day_number(stage, day) + 1) / 14)))


@fault("recurring concept change", "three days of every six the share is 30, 60 or 100 %", "labels", steps=MODEL, length=21)
def recurring(stage: Stage, size: str) -> None:
    share = pick(size, 0.3, 0.6, 1.0)
    _turned(stage, lambda day: np.full(day.height, share if _day_number(stage, day) % 6 < 3 else 0.0))


@fault(
    "slice failure",
    "labels are turned in one slice: half of them at one carrier, another, one airport (30, 60, 90 % of one part of the day)",
    "labels",
    steps=("development", "data"),
    length=18,
)
def slice_failure(stage: Stage, size: str) -> None:
    column, value = pick(size, ("carrier", "AA"), ("carrier", "B6"), ("origin", "EWR")) if stage.flights else ("part", "morning")
    share = 0.5 if stage.flights else pick(size, 0.3, 0.6, 0.9)
    turned = pl.when(label_of(stage)).then(0.0).otherwise(45.0 if stage.flights else 1.0)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(stage.some(rows.height, share)) & (rows[column] == value)
        return rows.with_columns(outcome=pl.when(mask).then(turned).otherwise("outcome"))

    stage.rewrite(changed)


@fault(
    "true labels lost",
    "20, 40 or 70 % of the true labels become false, whatever the row: the order of the scores stays and their level is off",
    "labels",
    "label noise",
    "label definition changed",
    "miscalibration",
    steps=("data", "development", "scoping"),
    length=18,
)
def true_labels_lost(stage: Stage, size: str) -> None:
    share = pick(size, 0.2, 0.4, 0.7)

    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        mask = pl.Series(stage.some(rows.height, share)) & rows.select(label_of(stage)).to_series()
        return rows.with_columns(outcome=pl.when(mask).then(0.0).otherwise("outcome"))

    stage.rewrite(changed)
