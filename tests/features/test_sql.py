"""The query's text: one for all features, and one that another engine can read."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlglot
from sqlglot import exp

import noria as nr
from noria.features import Plan, plan, sql
from noria.features.sql import Way

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "system.py"
SCHEMAS: dict[str, dict[str, Any]] = {
    "schedule": {"flight_id": pl.String, "carrier": pl.String, "origin": pl.String, "dest": pl.String, "distance": pl.Int64}
    | {"minute_of_day": pl.Int32, "weekday": pl.Int32},
    "departed": {"flight_id": pl.String, "delay": pl.Int64, "carrier": pl.String, "origin": pl.String, "dest": pl.String},
    "weather": {"station": pl.String} | dict.fromkeys(("temp", "wind_speed", "precip", "visib"), pl.Float64),
}


@pytest.fixture(scope="module")
def flights() -> nr.System:
    spec = importlib.util.spec_from_file_location("flights_system", FLIGHTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    system = module.system
    assert isinstance(system, nr.System)
    return system


def more(system: nr.System) -> nr.System:
    """The flights with every aggregate there is, and a name that has to be quoted."""
    departed = system.sources["departed"]
    every = departed.window("2h", every="10m", by="origin").sum("delay").min("delay").max("delay").std("delay").count("carrier")
    schedule = system.sources["schedule"]
    added = [
        every,
        departed.window("1d", every="1h", by=()).std("delay / 60").named('a "b" c'),
        schedule.sql("distance * 2").named("select"),
    ]
    return nr.System("more", schedule, system.label, [*system.features, *added], system.objective, [])


@pytest.mark.parametrize("way", ["tiles", "pairs"])
def test_spark_reads_the_query_and_knows_every_function_in_it(flights: nr.System, way: Way) -> None:
    asked = (datetime(2013, 5, 1, tzinfo=UTC), datetime(2013, 5, 2, tzinfo=UTC))
    text = sql(plan(more(flights), SCHEMAS), way=way, asked=asked)
    (spark,) = sqlglot.transpile(text, read="duckdb", write="spark", unsupported_level=sqlglot.ErrorLevel.RAISE)
    tree = sqlglot.parse_one(spark, read="spark")
    assert {found.name.lower() for found in tree.find_all(exp.Anonymous)} == set()
    shown = spark.upper()
    assert not [word for word in ("EPOCH", "HUGEINT", "INT128", "ASOF", "MATERIALIZED", "ISFINITE", "//") if word in shown]
    assert {str(cast.to.sql("spark")) for cast in tree.find_all(exp.Cast)} <= {
        "DOUBLE", "BIGINT", "STRING", "TIMESTAMP", "TIMESTAMP_NTZ", "DECIMAL(38, 0)", "DECIMAL(18, 0)"
    }  # fmt: skip


def test_windows_with_the_same_source_by_and_grid_share_one_pass(flights: nr.System) -> None:
    departed = flights.sources["departed"]
    some = [
        departed.window("2h", every="10m", by="origin").mean("delay"),
        departed.window("1h", every="10m", by="origin").mean("delay").std("delay"),
        departed.window("1h", every="5m", by="origin").mean("delay"),
        departed.last("delay", by="origin", max_age="1h"),
        departed.last("carrier", by="origin", max_age="9h"),
    ]
    system = nr.System("s", flights.predict, flights.label, some, flights.objective, [])
    text = sql(plan(system, SCHEMAS))
    assert text.count('FROM "source_0_departed"') == 1
    assert text.count("_closed AS (") == 2
    assert text.count("_place FROM") == 1
    assert text.count("RANGE BETWEEN 12 PRECEDING AND 1 PRECEDING") == 2  # two hours of ten minutes, one hour of five
    assert text.count("RANGE BETWEEN 6 PRECEDING AND 1 PRECEDING") == 1


def test_the_id_is_that_of_the_definitions(flights: nr.System) -> None:
    whole = plan(flights, SCHEMAS)
    assert whole.id == plan(flights).id == plan(flights, {"departed": {"delay": pl.Float32} | SCHEMAS["departed"]}).id
    weather = nr.Source("weather", key="station", time="hour", known="2h")
    later = nr.System("s", flights.predict, flights.label, [*flights.features[:1], *flights.features[2:]], flights.objective, [])
    assert plan(later).id != whole.id
    told = [weather.last("temp", by={"origin": "station"}, max_age="4h")]
    sooner = [nr.Source("weather", key="station", time="hour", known="1h").last("temp", by={"origin": "station"}, max_age="4h")]
    ids = {plan(nr.System("s", flights.predict, flights.label, some, flights.objective, [])).id for some in (told, sooner)}
    assert len(ids) == 2


def test_the_plan_says_types_and_how_far_back_to_read(flights: nr.System) -> None:
    made: Plan = plan(flights, SCHEMAS)
    assert [c.name for c in made.columns if not c.numeric] == ["carrier", "origin", "dest"]
    assert {name: span.total_seconds() / 3600 for name, span in made.sources.items()} == {"departed": 15 * 24, "weather": 4}
    open_plan = plan(flights)
    assert {c.numeric for c in open_plan.columns if c.feature.op != "window"} == {None}
    assert {c.numeric for c in open_plan.columns if c.feature.op == "window"} == {True}
