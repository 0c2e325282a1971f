"""A declaration is data: complete, hashable, stable."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import canonical


def declared(**changes: Any) -> nr.System:
    schedule = nr.Source("schedule", "schedule.parquet", key="flight_id", time="asked_at", owner="operations")
    departed = nr.Source("departed", "departed.parquet", key="flight_id", time="departed_at", owner="operations")
    weather = nr.Source("weather", "weather.parquet", key="station", time="hour", known="1h", owner="met office")
    parts: dict[str, Any] = {
        "name": "late-flights",
        "predict": schedule,
        "label": nr.Label(departed, "delay >= 15", within="8h", otherwise=True),
        "features": [
            schedule.columns("carrier", "origin"),
            schedule.sql("minute_of_day / 60").named("hour"),
            weather.last("temp", by={"origin": "station"}, max_age="4h"),
            departed.window("2h", every="10m", by="origin").mean("delay").count(),
        ],
        "objective": nr.Objective("Missed connections cost us.", nr.Value("case when act then 1 else 0 end", "USD"), "log_loss"),
        "candidates": [nr.Prior(), nr.Linear(), LogisticRegression(C=0.5)],
    }
    return nr.System(**(parts | changes))


def test_every_source_is_found_wherever_it_is_named() -> None:
    assert list(declared().sources) == ["schedule", "departed", "weather"]


def test_features_have_names_that_say_what_they_are() -> None:
    names = [feature.name for feature in declared().flat_features]
    assert names == [
        "carrier",
        "origin",
        "hour",
        "weather_temp",
        "departed_mean_delay_by_origin_2h",
        "departed_count_by_origin_2h",
    ]


def test_the_declaration_is_plain_data_and_its_id_is_that_of_its_content() -> None:
    first, second = declared(), declared()
    assert msgspec.json.decode(canonical(first.spec())) == msgspec.to_builtins(first.spec())
    assert first.id == second.id
    assert "0x" not in canonical(first.spec()).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"gate": nr.Gate(margin=0.2)},
        {"candidates": [nr.Prior(), nr.Linear(), LogisticRegression(C=0.6)]},
        {"rollout": nr.Rollout(canary=(0.1,))},
        {"decide": nr.Decide(explore=0.01)},
    ],
)
def test_any_change_is_another_declaration(changes: dict[str, Any]) -> None:
    assert declared(**changes).id != declared().id


def test_every_part_of_a_system_is_in_its_data() -> None:
    spec = declared().spec()
    assert {field.name for field in dataclasses.fields(nr.System)} - set(spec) == {"folder"}


def test_where_the_data_lies_on_this_machine_is_not_part_of_it() -> None:
    import polars as pl

    frame = pl.DataFrame({"a": [1]})
    one = nr.Source("s", frame, key="a", time="t", owner="o")
    other = nr.Source("s", pl.DataFrame({"a": [2]}), key="a", time="t", owner="o")
    assert declared(predict=one).id == declared(predict=other).id


def test_the_public_names_are_pinned_and_all_exist() -> None:
    assert all(getattr(nr, name) is not None for name in nr.__all__)
    assert nr.__all__ == sorted(nr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Sourc'"):
        nr.Sourc  # noqa: B018


def test_importing_noria_imports_nothing_heavy() -> None:
    heavy = [
        "numpy",
        "polars",
        "duckdb",
        "sklearn",
        "scipy",
        "sqlalchemy",
        "deltalake",
        "treelite",
        "optuna",
        "altair",
        "uvloop",
        "alembic",
    ]
    code = f"import sys, noria; print([m for m in {heavy!r} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
