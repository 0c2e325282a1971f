"""The real histories, made still, and the systems declared on them.

A *world* is what happened: a table of ``rows`` (one a prediction, with what is known when it is asked, its outcome, and what acting right
gains and acting wrong costs) and the ``weather``. From it the sources' tables are derived, each row with ``_at``, the time at which it
arrives. Days are permuted within their weekday, whole: every row of a day moves by the same time, so the structure within a day is the
real one and what moves over weeks or months is gone. Times of the flights are moved by eight hours first, so that a UTC day is a day of operation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import noria as nr

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DAY = timedelta(days=1)
BEGIN = datetime(2020, 1, 6, tzinfo=UTC)  # a Monday: where every still history is laid
PREFIX = 112
TIME = pl.Datetime("us", "UTC")
AT = "_at"
Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class World:
    """What happened. ``rows`` has ``id``, ``asked``, the columns asked with, ``outcome``, ``gain`` and ``cost``."""

    history: str
    rows: pl.DataFrame
    weather: pl.DataFrame | None = None


def seeded(*words: object) -> np.random.Generator:
    """Random numbers that depend on these words only."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big"))


# ------------------------------------------------------------------------------------------------------------- the days


@cache
def real(history: str) -> World:
    """The history as it was."""
    return {"flights": _flights, "elec2": _elec2, "openbandit": _open_bandit}[history]()


def _flights() -> World:
    folder, back = EXAMPLES / "flights" / "data", pl.duration(hours=8)
    schedule = pl.read_parquet(folder / "schedule.parquet").with_columns(asked=pl.col("asked_at") - back)
    delays = pl.read_parquet(folder / "departed.parquet").select("flight_id", outcome=pl.col("delay").cast(pl.Float64))
    rows = schedule.join(delays, on="flight_id", how="left").rename({"flight_id": "id"}).drop("asked_at")
    rows = rows.with_columns(pl.col("distance").cast(pl.Float64), pl.col("minute_of_day").cast(pl.Float64))
    weather = pl.read_parquet(folder / "weather.parquet").with_columns(pl.col("hour") - back)
    return World("flights", _priced(rows, 60.0, 15.0), weather.unique(["station", "hour"], keep="first", maintain_order=True))


def _elec2() -> World:
    folder = EXAMPLES / "elec2" / "data"
    market, moves = (pl.read_parquet(folder / f"{name}.parquet") for name in ("market", "moves"))
    rows = market.join(moves.select("half_hour", "up"), on="half_hour").drop("market")
    names = pl.col("begins_at").dt.hour().floordiv(6)
    parts = pl.Series(["night", "morning", "afternoon", "evening"])
    rows = rows.with_columns(part=names.map_elements(lambda k: parts[k], return_dtype=pl.String))
    rows = rows.rename({"half_hour": "id", "begins_at": "asked"}).with_columns(outcome=pl.col("up").cast(pl.Float64)).drop("up")
    return World("elec2", _priced(rows, 1.0, 1.0))


def _open_bandit() -> World:
    log = pl.read_parquet(EXAMPLES / "openbandit" / "data" / "log.parquet").sort("at", "campaign", "policy", maintain_order=True)
    names = [pl.col(name).cast(pl.String) for name in ("item", "place")]
    rows = log.with_row_index("number").select(
        "campaign", "policy", *names, id=pl.format("s{}", "number"), asked="at", outcome=pl.col("click").cast(pl.Float64)
    )
    return World("openbandit", _priced(rows, 1.0, 0.01))


def _priced(rows: pl.DataFrame, gain: float, cost: float) -> pl.DataFrame:
    """What acting rightly gains and acting wrongly costs, a little different for each row."""
    rows = rows.sort("asked", "id")
    random = seeded("prices", rows.height)
    size = random.uniform(0.8, 1.2, size=(2, rows.height)).round(4)
    return rows.with_columns(gain=pl.Series(gain * size[0]), cost=pl.Series(cost * size[1]))


def days_of(history: str, first: str, last: str) -> list[datetime]:
    """The starts of the days from ``first`` to before ``last`` that have predictions."""
    asked = real(history).rows["asked"].dt.truncate("1d").unique().sort().to_list()
    low, high = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last))
    return [day for day in asked if low <= day < high]


def drawn(days: Sequence[datetime], length: int, start: datetime, random: np.random.Generator) -> list[datetime]:
    """One of ``days`` for each of the days from ``start`` on, of the same weekday, none twice."""
    pools = {weekday: [day for day in days if day.weekday() == weekday] for weekday in range(7)}
    for pool in pools.values():
        random.shuffle(pool)
    return [pools[(start + k * DAY).weekday()].pop() for k in range(length)]


def laid(history: str, days: Sequence[datetime], start: datetime) -> World:
    """The world in which the first of ``days`` is ``start``, the second the day after, and so on; every day moves whole."""
    world = real(history)
    table = pl.DataFrame({"_day": days, "_to": [start + k * DAY for k in range(len(days))]}, schema={"_day": TIME, "_to": TIME})
    weather = None if world.weather is None else _moved(world.weather, table, "hour").sort("hour", "station")
    return World(history, _moved(world.rows, table, "asked").sort("asked", "id"), weather)


def _moved(frame: pl.DataFrame, table: pl.DataFrame, time: str) -> pl.DataFrame:
    there = frame.with_columns(_day=pl.col(time).dt.truncate("1d")).join(table, on="_day", how="inner")
    return there.with_columns((pl.col(time) - pl.col("_day") + pl.col("_to")).alias(time)).drop("_day", "_to")


# ---------------------------------------------------------------------------------------------------------- the sources


def tables(world: World) -> Tables:
    """The sources' tables, each row with ``_at``; ``record`` (the label's) and ``money`` arrive a day after they happened."""
    return {"flights": _flight_tables, "elec2": _market_tables, "openbandit": _shop_tables}[world.history](world)


def _flight_tables(world: World) -> Tables:
    rows = world.rows.with_columns(
        at=pl.col("asked") + pl.duration(hours=2) + pl.duration(minutes=pl.col("outcome").fill_null(0))
    )
    left = rows.drop_nulls("outcome")
    schedule = rows.select(
        "carrier", "origin", "dest", "distance", "minute_of_day", "weekday", flight_id="id", asked_at="asked", _at="asked"
    )
    departed = left.select("carrier", "origin", "dest", flight_id="id", departed_at="at", delay="outcome", _at="at")
    record = left.select(flight_id="id", departed_at="at", delay="outcome", _at=pl.col("at") + DAY)
    money = rows.select("gain", "cost", flight_id="id", booked_at=pl.col("asked") + pl.duration(minutes=30))
    assert world.weather is not None
    weather = world.weather.drop("time_hour", strict=False).with_columns(_at=pl.col("hour") + pl.duration(hours=1))
    made = {"schedule": schedule, "departed": departed, "record": record, "weather": weather}
    return made | {"money": money.with_columns(_at=pl.col("booked_at") + DAY)}


def _market_tables(world: World) -> Tables:
    rows = world.rows.with_columns(ends_at=pl.col("asked") + pl.duration(minutes=30))
    names = ["period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer", "part"]
    market = rows.select(*names, half_hour="id", begins_at="asked", _at="asked")
    known = rows.drop_nulls("outcome")
    record = known.select("ends_at", half_hour="id", up=pl.col("outcome") > 0.5, _at=pl.col("ends_at") + DAY)
    return {
        "market": market,
        "record": record,
        "money": rows.select("ends_at", "gain", "cost", half_hour="id", _at=pl.col("ends_at") + DAY),
    }


def _shop_tables(world: World) -> Tables:
    shown = world.rows.select("campaign", "item", "place", show="id", asked_at="asked", _at="asked")
    clicked_at = pl.col("asked") + pl.duration(minutes=5)
    return {
        "shown": shown,
        "clicked": world.rows.filter(pl.col("outcome") > 0).select(show="id", clicked_at=clicked_at, _at=clicked_at),
    }


# ----------------------------------------------------------------------------------------------------------- the systems

PARTS = nr.Parts(least="42d", validate="14d", test="21d", fresh="7d")
STILL = nr.Retrain(every=None, on=(), recalibrate=False)
GATE = nr.Gate(approval=True)
BUDGET = nr.Alerts(false_alarms=1, per="100d")


def declared(history: str, folder: Path, **changed: Any) -> nr.System:
    """The system on a history, its sources below ``folder``; ``changed`` replaces parts of the declaration."""
    return {"flights": _late_flights, "elec2": _prices, "openbandit": _clicks}[history](folder, changed)


def _source(name: str, key: str, time: str, known: str | None = None) -> nr.Source:
    return nr.Source(name, f"data/{name}/*.parquet", key=key, time=time, known=known, owner=f"{name} desk")


def _late_flights(folder: Path, changed: dict[str, Any]) -> nr.System:
    schedule = _source("schedule", "flight_id", "asked_at")
    departed = _source("departed", "flight_id", "departed_at")
    weather = _source("weather", "station", "hour", "1h")
    record = _source("record", "flight_id", "departed_at", "1d")
    money = _source("money", "flight_id", "booked_at", "1d")
    given: dict[str, Any] = {
        "name": "late-flights",
        "predict": schedule,
        "label": nr.Label(record, "delay >= 15", within="8h", lateness="1d", otherwise=True),
        "features": [
            schedule.columns("carrier", "origin", "dest", "distance", "minute_of_day"),
            weather.last("temp", "wind_speed", "precip", "visib", by={"origin": "station"}, max_age="4h"),
            departed.window("2h", every="10m", by="origin").mean("delay").count(),
            departed.window("14d", every="1d", by=("carrier", "dest")).mean("delay").count(),
        ],
        "decide": nr.Decide("act when expected value > 0", explore=0.02),
        "outcomes": {"gain": nr.Outcome(money, "gain", within="8h"), "cost": nr.Outcome(money, "cost", within="8h")},
        "objective": nr.Objective(
            problem="Missed connections cost us passengers; rebooking early is cheap, rebooking in vain is not.",
            value=nr.Value(
                "case when act and label then gain when act then -cost when label then -20 else 0 end", "USD", -200, 200
            ),
            metric="log_loss",
            guardrails=[nr.AtLeast("precision", 0.2)],
            slices=["carrier", "origin"],
        ),
        "candidates": [nr.Prior(), nr.Last(by="origin"), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)],
        "rollout": nr.Rollout(unit="flight_id"),
    }
    return nr.System(**(given | {"parts": PARTS, "gate": GATE, "retrain": STILL, "alerts": BUDGET, "folder": folder} | changed))


def _prices(folder: Path, changed: dict[str, Any]) -> nr.System:
    market = _source("market", "half_hour", "begins_at")
    record = _source("record", "half_hour", "ends_at", "1d")
    money = _source("money", "half_hour", "ends_at", "1d")
    given: dict[str, Any] = {
        "name": "prices",
        "predict": market,
        "label": nr.Label(record, "up", within="2h", lateness="1d", task="binary"),
        "features": [market.columns("period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer", "part")],
        "decide": nr.Decide("act when expected value > 0", explore=0.02),
        "outcomes": {"gain": nr.Outcome(money, "gain", within="2h"), "cost": nr.Outcome(money, "cost", within="2h")},
        "objective": nr.Objective(
            problem="Buying ahead saves money when the price rises, and wastes it when the price falls.",
            value=nr.Value("case when act and label then gain when act then -cost else 0 end", "AUD", -10, 10),
            metric="log_loss",
            slices=["part"],
        ),
        "candidates": [nr.Prior(), nr.Last(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)],
        "rollout": nr.Rollout(unit="half_hour"),
    }
    return nr.System(**(given | {"parts": PARTS, "gate": GATE, "retrain": STILL, "alerts": BUDGET, "folder": folder} | changed))


def _clicks(folder: Path, changed: dict[str, Any]) -> nr.System:
    shown = _source("shown", "show", "asked_at")
    clicked = _source("clicked", "show", "clicked_at")
    given: dict[str, Any] = {
        "name": "clicks",
        "predict": shown,
        "label": nr.Label(clicked, "true", within="30m", otherwise=False),
        "features": [shown.columns("campaign", "item", "place")],
        "objective": nr.Objective(
            problem="A place in the list is worth something only when it is clicked.",
            value=nr.Value("case when act and label then 1 when act then -0.01 else 0 end", "JPY"),
            metric="log_loss",
        ),
        "candidates": [nr.Prior(), nr.Linear(trials=1), nr.Boosting(trials=1, seeds=1)],
        "rollout": nr.Rollout(unit="show"),
        "every": "3h",
        "parts": nr.Parts(least="36h", validate="24h", test="48h", fresh="12h"),
        "gate": nr.Gate(approval=True, block="3h"),
    }
    return nr.System(**(given | {"retrain": STILL, "folder": folder} | changed))
