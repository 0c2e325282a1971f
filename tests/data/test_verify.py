"""Verification: planted faults are named, ordinary days (weekends, growth, noise) are silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import data
from noria.core import Verdict
from noria.data.summary import merged, summarised
from noria.data.verify import checked
from noria.records import Ingested, Verified

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
COLUMNS = {"kind": "VARCHAR", "x": "DOUBLE", "id": "VARCHAR"}
SOURCE = nr.Source("came", None, key="id", time="at", owner="us")


def batch(day: int, seed: int = 0) -> pl.DataFrame:
    """An ordinary day: twice as busy on weekdays, growing 1 % a week, noisy."""
    random = np.random.default_rng([seed, day])
    n = int(random.poisson((100 if day % 7 in (5, 6) else 200) * 1.01 ** (day / 7)))
    hours = np.sort(random.uniform(0, 24, n))
    x = random.normal(10 + 3 * np.sin(day / 20), 2, n)
    return pl.DataFrame(
        {
            "id": [f"{day}-{k}" for k in range(n)],
            "kind": random.choice(["a", "b", "c", "rare"], n, p=[0.5, 0.3, 0.19, 0.01]),
            "x": pl.Series(x).set(pl.Series(random.random(n) < 0.03), None),
            "_known": pl.Series([START + day * DAY + h * HOUR for h in hours], dtype=TIME),
        }
    )


def record(day: int, rows: pl.DataFrame, quarantined: int = 0, late: int = 0) -> Ingested:
    return Ingested(
        source="came",
        upto=START + (day + 1) * DAY,
        received=rows.height + quarantined,
        accepted=rows.height,
        quarantined=quarantined,
        reasons={"no key": quarantined} if quarantined else {},
        files=(),
        rows="",
        late=late,
        days=summarised(rows, COLUMNS),
    )


def verdicts(batches: list[Ingested], day: int) -> dict[tuple[str, str], Verdict]:
    return {(check.name, check.subject): check.verdict for check in checked(SOURCE, batches, START + (day + 1) * DAY)}


@pytest.mark.parametrize("seed", range(4))
def test_ordinary_days_are_silent(seed: int) -> None:
    batches: list[Ingested] = []
    for day in range(120):
        batches.append(record(day, batch(day, seed)))
        found = checked(SOURCE, batches[-60:], START + (day + 1) * DAY)
        assert [check for check in found if check.verdict is Verdict.FAIL] == []


def test_too_few_days_say_nothing() -> None:
    batches = [record(day, batch(day)) for day in range(10)]
    found = verdicts(batches, 9)
    assert found[("volume", "")] is Verdict.NOT_ENOUGH_DATA
    assert found[("freshness", "")] is Verdict.NOT_ENOUGH_DATA
    assert ("missing values", "x") not in found


Plant = Callable[[pl.DataFrame], pl.DataFrame]
FAULTS: dict[str, tuple[Plant, tuple[str, str]]] = {
    "half is missing": (
        lambda rows: rows.with_columns(pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("x"))),
        ("missing values", "x"),
    ),
    "another unit": (lambda rows: rows.with_columns(pl.col("x") * 25.4), ("range", "x")),
    "a default value": (lambda rows: rows.with_columns(pl.lit(-99.0).alias("x")), ("range", "x")),
    "other names": (lambda rows: rows.with_columns(pl.col("kind").str.to_uppercase()), ("new categories", "kind")),
    "one is gone": (lambda rows: rows.filter(pl.col("kind") != "b"), ("lost categories", "kind")),
    "hardly anything": (lambda rows: rows.head(20), ("volume", "")),
    "everything four times": (lambda rows: pl.concat([rows] * 4), ("volume", "")),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_planted_faults_are_named(name: str) -> None:
    plant, expected = FAULTS[name]
    batches = [record(day, batch(day)) for day in range(40)]
    batches.append(record(40, plant(batch(40))))
    failing = {key for key, verdict in verdicts(batches, 40).items() if verdict is Verdict.FAIL}
    assert expected in failing
    [check] = [c for c in checked(SOURCE, batches, START + 41 * DAY) if (c.name, c.subject) == expected]
    assert check.detail
    assert check.bound is not None
    assert check.estimate is not None


def test_what_is_put_aside_or_late_or_does_not_come() -> None:
    batches = [record(day, batch(day), quarantined=2) for day in range(40)]
    many = [*batches, record(40, batch(40), quarantined=60)]
    assert verdicts(many, 40)[("rows put aside", "")] is Verdict.FAIL
    late = [*batches, record(40, batch(40), late=60)]
    assert verdicts(late, 40)[("late rows", "")] is Verdict.FAIL
    few = [record(0, batch(0), quarantined=100)]
    assert verdicts(few, 0)[("rows put aside", "")] is Verdict.FAIL, "more than a fifth needs no reference"
    silent = verdicts(batches, 40)
    assert silent[("volume", "")] is Verdict.FAIL
    assert silent[("freshness", "")] is Verdict.FAIL


def test_a_number_that_was_missing_for_weeks_and_then_comes() -> None:
    def day(k: int) -> pl.DataFrame:
        random = np.random.default_rng(k)
        steps = pl.Series(random.integers(0, 30, 200) / 2) if k >= 28 else pl.Series([None] * 200, dtype=pl.Float64)
        return batch(k).head(100).with_columns(x=steps.head(min(100, batch(k).height)))

    assert verdicts([record(k, day(k)) for k in range(46)], 45)["missing values", "x"] is Verdict.PASS


def test_batches_of_a_day_add_up() -> None:
    rows = batch(3)
    [whole] = merged(summarised(rows, COLUMNS))
    cut = rows.height // 3
    [parts] = merged([*summarised(rows.head(cut), COLUMNS), *summarised(rows.slice(cut), COLUMNS)])
    assert parts.n == whole.n == rows.height
    assert parts.newest == whole.newest == rows["_known"].max()
    assert parts.columns["kind"].values == whole.columns["kind"].values == dict(rows["kind"].value_counts().rows())
    assert (parts.columns["x"].low, parts.columns["x"].nulls) == (whole.columns["x"].low, rows["x"].null_count())
    assert parts.columns["x"].mean == pytest.approx(rows["x"].mean(), rel=1e-6)
    assert whole.columns["id"].values is None or len(whole.columns["id"].values) <= 200


def test_a_column_that_one_batch_of_a_day_lacks_keeps_what_is_known_of_it() -> None:
    rows = batch(3)
    [whole] = merged(summarised(rows, COLUMNS))
    without = {name: kind for name, kind in COLUMNS.items() if name != "x"}
    [parts] = merged([*summarised(rows, COLUMNS), *summarised(rows.head(10), without)])
    assert parts.columns["x"].nulls == whole.columns["x"].nulls + 10
    assert parts.columns["x"].quantiles == whole.columns["x"].quantiles != ()
    assert parts.columns["x"].moved == whole.columns["x"].moved


def test_a_failure_and_its_end_are_recorded_once(world: Any) -> None:
    days = [batch(day) for day in range(34)]
    days[30] = days[30].head(10)
    frame = pl.concat(days).rename({"_known": "at"})
    made = world.declared(came=nr.Source("came", frame, key="id", time="at", owner="us"))
    for day in range(1, 35):
        now = world.at(START + day * DAY)
        data.ingest(world.home, made, now)
        data.verify(world.home, made, now)
        assert data.verify(world.home, made, now) == []
    found = [(e.key, e.record.verdict) for e in world.home.ledger.read(Verified)]
    assert found == [
        (f"verify/came/{(START + 31 * DAY).isoformat()}", Verdict.FAIL),
        (f"verify/came/{(START + 32 * DAY).isoformat()}", Verdict.PASS),
    ]
    failed = world.home.ledger.read(Verified)[0]
    assert [check.name for check in failed.record.checks] == ["freshness", "volume", "hours"]
    assert [parent.key for parent in world.home.ledger.parents(failed.id)] == [f"ingest/came/{(START + 31 * DAY).isoformat()}"]


def test_a_source_that_falls_silent_is_noticed_without_a_batch(world: Any) -> None:
    frame = pl.concat([batch(day) for day in range(20)]).rename({"_known": "at"})
    made = world.declared(came=nr.Source("came", frame, key="id", time="at", owner="us"))
    for day in range(1, 23):
        now = world.at(START + day * DAY)
        data.ingest(world.home, made, now)
        data.verify(world.home, made, now)
    found = world.home.ledger.read(Verified)
    assert [e.record.upto for e in found] == [START + 21 * DAY, START + 22 * DAY]
    assert {check.name for e in found for check in e.record.checks} == {"volume", "freshness"}
