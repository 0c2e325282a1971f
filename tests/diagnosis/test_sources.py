"""Faults of what a source brings: each is found by its discriminating test where it was planted, and its look-alike is not taken for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import river as rivers

from noria.core import Verdict

HOUR = timedelta(hours=1)


def speaks(case: Any, name: str) -> str:
    """The details of the checks that speak for a cause."""
    made = rivers.look(case, name)
    assert made.verdict is Verdict.FAIL, [(one.name, one.detail) for one in made.evidence]
    assert made.step in ("data", "deployment")
    assert made.blocks
    assert made.act
    return " ".join(one.detail for one in made.evidence if one.verdict is Verdict.FAIL)


def test_an_ordinary_river_has_no_fault(river: Any) -> None:
    case = river().case()
    assert rivers.found(case) == {}
    cleared = {
        "source missing", "source late", "source truncated", "schema changed", "unit changed", "category renamed", "duplicates", "join broken",
        "stale features", "training-serving skew", "time zone shifted", "labels missing", "label delay changed",
    }  # fmt: skip
    for name in sorted(cleared):
        assert rivers.look(case, name).verdict is Verdict.PASS, name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_false_alarm_in_other_ordinary_rivers(river: Any, seed: int) -> None:
    assert rivers.found(river(seed=seed).case()) == {}


def test_a_silent_source(river: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.clear()}).case()
    assert "brought nothing for 6 days" in speaks(case, "source missing")
    assert rivers.found(case) == {"source missing": 1.0}  # the empty lookups are its consequence


def test_rows_that_are_known_later_than_they_were(river: Any) -> None:
    def later(rows: pl.DataFrame, day: int, random: Any) -> pl.DataFrame:
        return rows.with_columns((pl.col("hour") + timedelta(hours=9, minutes=20)).alias("_known"))

    case = river(faults={"weather": later}).case()
    assert "within 9.33 h of their time, within 1 h before" in speaks(case, "source late")
    assert rivers.found(case) == {"source late": 0.9}


def test_rows_that_come_after_the_turn(river: Any) -> None:
    def marked(day: int, rows: pl.DataFrame) -> dict[str, Any]:
        return {"late": rows.height // 2} if day >= 44 else {}

    case = river(ingested={"weather": marked}).case()
    assert "50.0% of the rows of weather come after a turn" in speaks(case, "source late")
    assert set(rivers.found(case)) == {"source late"}


def test_a_source_that_was_always_late_is_a_leak_of_its_declaration(river: Any) -> None:
    """Not a sudden lateness: what was declared of when rows are known never held, and the history was learnt as if it did."""
    marked = lambda day, rows: {"late": int(0.8 * rows.height)} if day > 0 else {}  # noqa: E731
    case = river(ingested={"weather": marked}).case()
    assert "ever since" in " ".join(one.detail for one in rivers.look(case, "leak").evidence)
    assert set(rivers.found(case)) == {"leak"}


def test_a_file_that_is_cut_off(river: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.filter(pl.col("hour").dt.hour() < 9)}).case()
    assert "the hours that brought 62% of its rows brought none" in speaks(case, "source truncated")
    assert max(rivers.found(case), key=rivers.found(case).__getitem__) == "source truncated"


def test_a_part_of_a_source_that_is_gone(river: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.filter(pl.col("station") == "north")}).case()
    assert "station south, station west are gone" in speaks(case, "source truncated")


def test_less_traffic_is_no_truncation(river: Any) -> None:
    fewer = lambda rows, day, random: rows.filter(pl.Series(random.random(rows.height) < 0.35))  # noqa: E731
    case = river(faults={"orders": fewer, "results": fewer}).case()
    assert rivers.look(case, "source truncated").verdict is Verdict.PASS
    assert "source missing" not in rivers.found(case)


# --------------------------------------------------------------------------------------------------------- units, names


@pytest.mark.parametrize(
    ("title", "change"),
    [
        ("Fahrenheit to Celsius", lambda x: (x - 32) / 1.8),
        ("Fahrenheit to Kelvin", lambda x: (x - 32) / 1.8 + 273.15),
        ("tens", lambda x: x * 10),
    ],
)
def test_another_unit(river: Any, title: str, change: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(change(pl.col("temp")))}).case()
    assert f"undoing {title}" in speaks(case, "unit changed")
    found = rivers.found(case)
    assert max(found, key=found.__getitem__) == "unit changed"


def test_a_unit_on_a_single_day(river: Any) -> None:
    """The day after: one day of the other unit is enough, and a windy day is none."""
    windy = river(onset=49, faults={"weather": lambda rows, day, random: rows.with_columns(pl.col("wind") + 8)}).case()
    assert rivers.look(windy, "unit changed").verdict is Verdict.PASS
    case = river(onset=49, faults={"weather": lambda rows, day, random: rows.with_columns(pl.col("wind") * 3.6)}).case()
    assert "weather.wind" in speaks(case, "unit changed")


@pytest.mark.parametrize(
    "change",
    [
        lambda x, day: x + 25,
        lambda x, day: x + 4 * (day - 43),
        lambda x, day: (x - 60) * 1.4 + 60,
    ],
    ids=["sudden warmth", "slow warmth", "wider swings"],
)
def test_another_world_is_no_other_unit(river: Any, change: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(change(pl.col("temp"), day))}).case()
    assert rivers.look(case, "unit changed").verdict is Verdict.PASS


def test_the_unit_of_a_request_is_seen_in_the_logged_features(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(x_mean=5.0), 40)

    class Scaled(told.Story):  # type: ignore[misc,name-defined]
        def _rows(self, *given: Any) -> Any:
            return super()._rows(*given).with_columns(pl.col("x") * 100)

    story.__class__ = Scaled
    story.tell(told.World(x_mean=5.0), 6)
    case = rivers.Case(story.home, story.system, story.now, ())
    assert "predictions.x" in speaks(case, "unit changed")


def test_other_names_for_the_same_things(river: Any) -> None:
    renamed = {"beta": "B-2", "alpha": "Alpha Inc"}
    case = river(faults={"orders": lambda rows, day, random: rows.with_columns(pl.col("carrier").replace(renamed))}).case()
    said = speaks(case, "category renamed")
    assert "'alpha' → 'Alpha Inc'" in said
    assert "'beta' → 'B-2'" in said
    assert rivers.found(case) == {"category renamed": 0.95}


def test_names_in_other_letters_for_a_part_of_the_rows(river: Any) -> None:
    def shouted(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < 0.5)
        return rows.with_columns(
            pl.when(some).then(pl.col("carrier").str.to_uppercase() + " ").otherwise("carrier").alias("carrier")
        )

    case = river(faults={"orders": shouted}).case()
    assert "'delta' → 'DELTA '" in speaks(case, "category renamed")


@pytest.mark.parametrize("what", ["comes", "goes", "both, in other numbers"])
def test_kinds_that_come_and_go_are_no_renaming(river: Any, what: str) -> None:
    def other(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        if what == "goes":
            return rows.filter(pl.col("carrier") != "beta")
        kept = rows if what == "comes" else rows.with_columns(pl.col("carrier").replace({"delta": "alpha"}))
        some = pl.Series(random.random(rows.height) < 0.3)
        return kept.with_columns(pl.when(some).then(pl.lit("omega")).otherwise("carrier").alias("carrier"))

    case = river(faults={"orders": other}).case()
    assert rivers.look(case, "category renamed").verdict is Verdict.PASS


# ------------------------------------------------------------------------------------------------------ twice, another hour


def test_rows_that_come_twice(river: Any) -> None:
    def twice(day: int, rows: pl.DataFrame) -> dict[str, Any]:
        more = {"received": 2 * rows.height, "quarantined": rows.height, "reasons": {"duplicate": rows.height}}
        return more if day >= 44 else {}

    case = river(ingested={"orders": twice}).case()
    assert "50.0% of the rows of orders come a second time" in speaks(case, "duplicates")
    assert set(rivers.found(case)) == {"duplicates"}  # what was refused for it is no residue


def test_rows_that_come_twice_under_a_new_key(river: Any) -> None:
    again = lambda rows, day, random: pl.concat([rows, rows.head(40).with_columns(pl.col("order") + "b")])  # noqa: E731
    case = river(faults={"orders": again}).case()
    assert "are another row but for the key" in speaks(case, "duplicates")


def test_more_traffic_is_no_duplication(river: Any) -> None:
    def more(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        return pl.concat(
            [rows, rows.with_columns(pl.col("order") + "b", pl.col("size") * 1.01, pl.col("at") + timedelta(seconds=1))]
        )

    assert rivers.look(river(faults={"orders": more}).case(), "duplicates").verdict is Verdict.PASS


@pytest.mark.parametrize(("source", "column", "by"), [("weather", "hour", 5), ("orders", "at", -7)])
def test_another_time_zone(river: Any, source: str, column: str, by: int) -> None:
    """The weather comes every hour of the day: there only the afternoon's warmth gives the zone away."""
    case = river(faults={source: lambda rows, day, random: rows.with_columns(pl.col(column) + by * HOUR)}).case()
    assert f"turned by {by:+d} hours" in speaks(case, "time zone shifted")
    found = rivers.found(case)
    assert max(found, key=found.__getitem__) == "time zone shifted"


def test_summer_time_is_no_other_zone(river: Any) -> None:
    hour_on = {name: (lambda rows, day, random, c=column: rows.with_columns(pl.col(c) - HOUR)) for name, column in (("orders", "at"), ("weather", "hour"), ("results", "at"))}  # fmt: skip
    assert "time zone shifted" not in rivers.found(river(faults=hour_on).case())


def test_more_traffic_at_night_is_no_other_zone(river: Any) -> None:
    def nightly(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < 0.5)
        return rows.with_columns(
            pl.when(some).then(pl.col("at").dt.truncate("1d") + timedelta(hours=3)).otherwise("at").alias("at")
        )

    assert rivers.look(river(faults={"orders": nightly}).case(), "time zone shifted").verdict is not Verdict.FAIL


# ------------------------------------------------------------------------------------------------------------- columns


def test_a_column_that_is_there_by_name_only(river: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(temp=pl.lit(None, pl.Float64))}).case()
    assert "temp of weather is empty in 100%" in speaks(case, "schema changed")
    assert rivers.found(case) == {"schema changed": 0.93}


def test_holes_in_a_column_are_bad_data_and_no_schema(river: Any) -> None:
    def holes(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < 0.5)
        return rows.with_columns(temp=pl.when(some).then(None).otherwise("temp"))

    assert rivers.found(river(faults={"weather": holes}).case()) == {"bad data": 0.7}


def test_a_fault_of_what_nothing_reads_holds_no_training_back(river: Any) -> None:
    """``size``, ``wind`` and ``carrier`` lie in the sources, and no feature, label or value reads them."""
    declared = rivers.declaration()
    orders, weather = declared.sources["orders"], declared.sources["weather"]
    temp = weather.last("temp", by="station", max_age="4h").named("temp")
    idle = replace(declared, features=[orders.sql("length(station)").named("letters"), temp])
    faults = {
        "orders": lambda rows, day, random: rows.with_columns(pl.col("size") * 1000, pl.col("carrier").str.to_uppercase()),
        "weather": lambda rows, day, random: rows.with_columns(wind=pl.lit(None, dtype=pl.Float64)),
    }
    names = ("unit changed", "category renamed", "schema changed")
    quiet = river(system=idle, faults=faults).case()
    for made in (rivers.look(quiet, name) for name in names):
        assert (made.verdict, made.strength, made.blocks) == (Verdict.FAIL, 0.3, False), made
    loud = river(faults=faults).case()
    for made in (rivers.look(loud, name) for name in names):
        assert made.strength > 0.9, made
        assert made.blocks, made
