"""Faults of the joints: keys that no longer meet, features that stand still, features served otherwise than computed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import river as rivers

from noria import features
from noria.core import Verdict


def test_keys_that_no_longer_meet(river: Any) -> None:
    prefixed = (pl.lit("K") + pl.col("station")).alias("station")
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(prefixed)}).case()
    made = rivers.look(case, "join broken")
    assert {one.name for one in made.evidence if one.verdict is Verdict.FAIL} == {
        "lookups find their rows",
        "keys meet",
        "keys are written as before",
    }
    found = rivers.found(case)
    assert max(found, key=found.__getitem__) == "join broken"
    assert "category renamed" not in found


def test_a_few_keys_that_no_longer_meet(river: Any) -> None:
    lower = pl.col("station").replace({"south": "SOUTH"})
    case = river(faults={"orders": lambda rows, day, random: rows.with_columns(lower)}).case()
    made = rivers.look(case, "join broken")
    assert made.verdict is Verdict.FAIL
    assert "station = weather.station" in made.act


@pytest.mark.parametrize("what", ["silent", "old", "empty"])
def test_lookups_that_find_nothing_for_another_reason(river: Any, what: str) -> None:
    faults = {
        "silent": lambda rows, day, random: rows.clear(),
        "old": lambda rows, day, random: rows.with_columns((pl.col("hour") + timedelta(hours=9, minutes=20)).alias("_known")),
        "empty": lambda rows, day, random: rows.with_columns(temp=pl.lit(None, pl.Float64), wind=pl.lit(None, pl.Float64)),
    }
    case = river(faults={"weather": faults[what]}).case()
    assert rivers.look(case, "join broken").verdict is Verdict.PASS


def test_a_sensor_that_stands_still(river: Any) -> None:
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(temp=pl.lit(61.0))}).case()
    made = rivers.look(case, "stale features")
    assert [one.subject for one in made.evidence] == ["weather.temp"]
    assert rivers.found(case) == {"stale features": 0.96}


def test_a_sensor_that_moves_less_stands_not_still(river: Any) -> None:
    def calmer(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        return rows.with_columns((pl.col("temp") / 10).round() * 10)

    assert rivers.look(river(faults={"weather": calmer}).case(), "stale features").verdict is Verdict.PASS


def test_features_served_as_of_an_earlier_time(river: Any) -> None:
    """A cache of six hours: every value was right once."""
    flown = river()
    frame = flown.home.lake.read("predictions")
    spine = flown.home.lake.read("source.orders").with_columns(
        _id=pl.col("order") + "@" + pl.col("_time").dt.strftime("%Y%m%dT%H%M%SZ")
    )
    old = features.compute(
        flown.home, flown.system, spine.with_columns(pl.col("_time") - timedelta(hours=6)).drop("_known", "_row")
    )
    cached = frame.drop("temp", "wind").join(old.select("_id", "temp", "wind"), on="_id", maintain_order="left")

    def serve(rows: pl.DataFrame, day: int, random: Any) -> pl.DataFrame:
        return (
            rows.drop("temp", "wind")
            .join(cached.select("_id", "temp", "wind"), on="_id", maintain_order="left")
            .select(rows.columns)
        )

    case = river(served=serve).case()
    made = rivers.look(case, "stale features")
    assert made.verdict is Verdict.FAIL
    assert "are those of 6h earlier" in " ".join(one.detail for one in made.evidence)
    assert rivers.look(case, "training-serving skew").verdict is Verdict.PASS


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_features_served_otherwise_than_computed(river: Any, share: float) -> None:
    def rounded(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < share)
        return rows.with_columns(pl.when(some).then(pl.col("size").round(1)).otherwise("size").alias("size"))

    case = river(served=rounded).case()
    made = rivers.look(case, "training-serving skew")
    assert made.verdict is Verdict.FAIL
    assert made.step == "deployment"
    check = made.evidence[0]
    assert check.subject == "size"
    assert check.estimate is not None
    assert check.estimate.above(0.0)
    assert check.estimate.value == pytest.approx(share * 6 / 7, abs=0.1)  # of the newest week, six days were served so
    assert set(rivers.found(case)) == {"training-serving skew"}


def test_skew_is_exact_and_counts_missing_values(river: Any) -> None:
    """Against the mismatches counted by hand; a last bit does not count, a value in place of a missing one does."""

    def touched(rows: pl.DataFrame, day: int, random: Any) -> pl.DataFrame:
        place = pl.int_range(pl.len())
        return rows.with_columns(
            pl.col("size") * (1 + 1e-13), temp=pl.when(place % 4 == 0).then(None).otherwise("temp"), carrier=pl.when(place % 2 == 0).then(pl.lit("x")).otherwise("carrier")
        )  # fmt: skip

    flown = river(served=touched)
    start = rivers.START + flown.onset * rivers.DAY
    made = {one.feature: one for one in features.skew(flown.home, flown.system, start, flown.now, most=10_000)}
    n = 6 * flown.a_day
    assert {name: one.differing for name, one in made.items()} == {
        "carrier": n // 2,
        "temp": n // 4,
        "size": 0,
        "wind": 0,
        "seen": 0,
    }
    assert all(one.share.n == n for one in made.values())
    first = features.skew(flown.home, flown.system, start, flown.now, most=50)
    assert first == features.skew(flown.home, flown.system, start, flown.now, most=50)
    assert features.skew(flown.home, flown.system, start - 9 * rivers.DAY, start, most=500)[0].differing == 0


def test_skew_says_when_nothing_can_be_compared(river: Any) -> None:
    flown = river(plan="another plan")
    assert features.skew(flown.home, flown.system, rivers.START, flown.now) is None
    assert rivers.look(flown.case(), "training-serving skew").verdict is Verdict.NOT_ENOUGH_DATA


def test_a_sensor_that_stands_still_at_one_station(river: Any) -> None:
    frozen = pl.when(pl.col("station") == "south").then(61.0).otherwise("temp").alias("temp")
    case = river(faults={"weather": lambda rows, day, random: rows.with_columns(frozen)}).case()
    made = rivers.look(case, "stale features")
    assert made.verdict is Verdict.FAIL
    assert [one.subject for one in made.evidence] == ["weather.temp"]
    assert "33% of the rows" in made.evidence[0].detail


def test_a_part_of_the_rows_in_another_unit(river: Any) -> None:
    def grams(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < 0.6)
        return rows.with_columns(size=pl.when(some).then(pl.col("size") * 1000 + 5000).otherwise("size"))

    made = rivers.look(river(faults={"orders": grams}).case(), "unit changed")
    assert made.verdict is Verdict.PASS  # five thousand added: no conversion does that

    def thousands(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        some = pl.Series(random.random(rows.height) < 0.6)
        return rows.with_columns(size=pl.when(some).then(pl.col("size") * 1000).otherwise("size"))

    made = rivers.look(river(faults={"orders": thousands}).case(), "unit changed")
    assert made.verdict is Verdict.FAIL
    assert made.evidence[0].bound == 1000.0


@pytest.mark.parametrize(("hours", "found"), [(-4, True), (4, False)])
def test_times_of_labels_against_the_times_of_asking(river: Any, hours: int, found: bool) -> None:
    """Labels that are told before the question are in another zone; those told later are late, whatever hours it makes up."""
    case = river(faults={"results": lambda rows, day, random: rows.with_columns(pl.col("at") + timedelta(hours=hours))}).case()
    made = rivers.look(case, "time zone shifted")
    assert (made.verdict is Verdict.FAIL) is found
    if found:
        assert made.evidence[0].estimate is not None
        assert made.evidence[0].estimate.value == -4


def test_rows_computed_again_are_watched(river: Any) -> None:
    """The monitor of skew: nothing on ordinary days, all rows once a feature is served otherwise."""
    from noria.core import Window
    from noria.monitoring.served import served

    flown = river(served=lambda rows, day, random: rows.with_columns(pl.col("size") * 1.01))
    for day, value, verdict in ((flown.onset - 1, 0.0, Verdict.PASS), (flown.onset, 1.0, Verdict.FAIL)):
        window = Window(rivers.START + day * rivers.DAY, rivers.START + (day + 1) * rivers.DAY)
        signals = served(flown.home, flown.system, window, "no release")
        assert [(one.name, one.value, one.verdict) for one in signals] == [("skew", value, verdict)]
