"""The examples' data is what the declarations say: times in UTC, departures from schedule and delay, cancelled flights left out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from noria.cli.common import load_system
from noria.data import check

ROOT = Path(__file__).resolve().parents[2]


def fetcher(example: str) -> ModuleType:
    path = ROOT / "examples" / example / "fetch.py"
    spec = importlib.util.spec_from_file_location(f"{example}_fetch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def table(example: str, name: str) -> pl.DataFrame:
    path = ROOT / "examples" / example / "data" / f"{name}.parquet"
    if not path.exists():
        pytest.fail(f"{path.name} is not there: run `make data`")
    return pl.read_parquet(path)


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return fetcher("flights").raw()[0]


def test_every_flight_is_asked_about_once() -> None:
    schedule = table("flights", "schedule")
    assert schedule.height == schedule["flight_id"].n_unique() == 336_776
    assert schedule.null_count().sum_horizontal().item() == 0
    assert "tailnum" not in schedule.columns
    assert schedule["asked_at"].is_sorted()


def test_a_departure_has_the_clock_time_that_was_published(raw: pl.DataFrame) -> None:
    """The oracle is the published local clock time of departure, which fetching does not use."""
    flights = fetcher("flights").timed(raw).drop_nulls("dep_time")
    local = pl.col("departed_at").dt.convert_time_zone("America/New_York")
    clock = local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute()
    assert flights.filter(clock != pl.col("dep_time") % 2400).is_empty()
    after_midnight = flights.filter((pl.col("dep_time") % 2400 < 400) & (pl.col("sched_dep_time") > 2000))
    assert after_midnight.height > 500
    assert after_midnight.filter(pl.col("departed_at") < pl.col("asked_at")).is_empty()


def test_asking_is_two_hours_before_the_local_schedule(raw: pl.DataFrame) -> None:
    flights = fetcher("flights").timed(raw)
    local = (pl.col("asked_at") + pl.duration(hours=2)).dt.convert_time_zone("America/New_York")
    minute = local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute()
    assert flights.filter(minute != pl.col("minute_of_day")).is_empty()


def test_cancelled_flights_never_depart() -> None:
    schedule, departed = table("flights", "schedule"), table("flights", "departed")
    cancelled = schedule.join(departed, on="flight_id", how="anti")
    assert cancelled.height == 8_255
    assert departed.join(schedule, on="flight_id", how="anti").is_empty()
    assert departed["delay"].null_count() == 0


def test_the_leak_is_there_to_be_named() -> None:
    """A tail number is missing only for cancelled flights, so that a column about it knows the future."""
    departed = table("flights", "departed")
    leaky = fetcher("flights").leaky_schedule().with_columns(gone=pl.col("flight_id").is_in(departed["flight_id"].implode()))
    without = leaky.filter(~pl.col("tail_known"))
    assert without.height == 2_512
    assert not without["gone"].any()


def test_weather_is_hourly_at_three_airports() -> None:
    weather = table("flights", "weather")
    assert weather.select(pl.struct("station", "hour").n_unique()).item() == weather.height == 26_115
    assert set(weather["station"]) == {"EWR", "JFK", "LGA"}
    assert str(weather.schema["hour"]) == "Datetime(time_unit='us', time_zone='UTC')"


def test_electricity_has_48_half_hours_a_day() -> None:
    market, moves = table("elec2", "market"), table("elec2", "moves")
    assert market.height == moves.height == 45_312
    assert market["begins_at"].diff().drop_nulls().unique().to_list() == [market["begins_at"][1] - market["begins_at"][0]]
    assert market.group_by(pl.col("begins_at").dt.date()).len()["len"].unique().to_list() == [48]
    place = ((market["begins_at"].dt.hour().cast(pl.Int32) * 60 + market["begins_at"].dt.minute()) / 30 / 47).round(6)
    assert (place - market["period"]).abs().max() < 1e-5
    assert moves["up"].mean() == pytest.approx(19_237 / 45_312)
    assert (moves["up"] == moves["up"].shift(1)).mean() == pytest.approx(0.853, abs=0.001)


@pytest.mark.parametrize("example", ["flights", "elec2"])
def test_declarations_fit_the_data(example: str) -> None:
    system = load_system(ROOT / "examples" / example / "system.py")
    assert check(system, system.folder) == []
    assert fetcher(example).main() is None, "what is there is kept"
