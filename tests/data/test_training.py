"""Training sets: parts apart in time, nothing twice, nothing unlabelled, and baselines that know only what had closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import data, features, measure
from noria.core import NoriaError, Window
from noria.data.training import _assert_apart, _usable
from noria.records import Snapshot

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
PARTS = nr.Parts(least="4d", validate="3d", test="3d", fresh="2d")


@pytest.fixture(scope="module")
def lived_in(shared_world: Any) -> tuple[Any, Any]:
    """A home in which 20 days have passed, and its system; the tests below only read it."""
    return shared_world, lived(shared_world)


def lived(world: Any, days: int = 20) -> Any:
    """A home after some days of hourly questions about two shops, each scored and closed in its turn."""
    hours = [h + 0.5 for h in range(days * 24)]
    random = np.random.default_rng(7)
    at = pl.Series("at", [START + h * HOUR for h in hours], dtype=TIME)
    n = random.integers(0, 5, len(hours))
    asked = pl.DataFrame(
        {"id": [f"q{k}" for k in range(len(hours))], "shop": ["ab"[k % 2] for k in range(len(hours))], "n": n}
    ).with_columns(at)
    came = pl.DataFrame({"id": asked["id"], "x": (n + random.normal(size=len(hours)) > 2).astype(int)}).with_columns(
        at.dt.offset_by("90m").alias("at")
    )
    came = came.filter(pl.Series(random.random(len(hours)) > 0.1))
    sources = {
        "asked": nr.Source("asked", asked, key="id", time="at", owner="us"),
        "came": nr.Source("came", came, key="id", time="at", owner="us"),
    }
    made = world.declared(
        **sources,
        label=nr.Label(sources["came"], "x > 0", within="6h"),
        features=[sources["asked"].columns("n"), sources["asked"].columns("shop")],
        candidates=[nr.Prior(), nr.Last(), nr.Last(by="shop"), nr.Seasonal("1d", by="shop")],
        parts=PARTS,
    )
    for day in range(1, days + 1):
        now = world.at(START + day * DAY)
        data.ingest(world.home, made, now)
        world.score(made, Window(now - DAY, now))
        data.close(world.home, made, now)
    return made


def test_the_parts_lie_apart_in_time(lived_in: Any) -> None:
    world, made = lived_in
    found = data.training_set(world.home, made, world.clock.now())
    assert found is not None
    entry, frames = found
    record = entry.record
    assert list(frames) == [part.name for part in record.parts] == ["train", "validate", "test", "fresh"]
    newest = measure.closed_until(world.home)
    assert record.parts[-1].window.end == newest == START + 19 * DAY
    gap = timedelta(hours=6)
    assert record.gap == "6h"
    for (one, left), (two, right) in zip(list(frames.items())[:-1], list(frames.items())[1:], strict=True):
        assert left["_time"].max() + gap <= right["_time"].min(), (one, two)
    for part in record.parts:
        frame = frames[part.name]
        assert part.n == frame.height > 0
        assert ((frame["_time"] > part.window.start) & (frame["_time"] <= part.window.end)).all()
        assert frame["_label"].null_count() == 0
        assert (frame["_weight"] == 1).all()
        assert frame["_time"].is_sorted()
    closed = measure.closed(world.home, made)
    assert sum(frame.height for frame in frames.values()) + sum(record.dropped.values()) == closed.height
    assert record.dropped["no label"] == closed["_label"].null_count() > 0
    assert record.dropped["in a gap"] > 0
    assert record.columns == ("n", "shop")
    expected = ["_id", "_time", "id", "at", "n", "shop", "_label", "_weight", "_last", "_last_shop", "_seasonal_1d_shop"]
    assert sorted(frames["test"].columns) == sorted(expected)


def test_the_same_set_is_the_same_record(lived_in: Any) -> None:
    world, made = lived_in
    now = world.clock.now()
    first = data.training_set(world.home, made, now)
    count = world.home.ledger.count()
    second = data.training_set(world.home, made, now)
    assert first is not None
    assert second is not None
    assert first[0].id == second[0].id
    assert world.home.ledger.count() == count
    shot = data.snapshot(world.home)
    assert shot.id in first[0].parents
    assert shot.record.tables == world.home.lake.heads()
    assert world.home.ledger.count(Snapshot) == 1
    earlier = data.training_set(world.home, made, now, until=START + 18 * DAY)
    assert earlier is not None
    assert earlier[0].record.parts[-1].window.end == START + 18 * DAY


def test_too_little_is_not_enough(world: Any) -> None:
    made = lived(world, days=12)
    assert data.training_set(world.home, made, world.clock.now()) is None
    assert data.training_set(world.home, made, START) is None


def test_train_may_be_bounded(lived_in: Any) -> None:
    world, made = lived_in
    bounded = replace(made, parts=nr.Parts(train="5d", least="4d", validate="3d", test="3d", fresh="2d"))
    found = data.training_set(world.home, bounded, world.clock.now())
    assert found is not None
    assert found[0].record.parts[0].window.length == 5 * DAY


def test_features_are_reused_as_served_and_computed_anew_for_another_plan(lived_in: Any) -> None:
    world, made = lived_in
    found = data.training_set(world.home, made, world.clock.now())
    assert found is not None
    asked = made.predict
    other = world.declared(
        asked=asked,
        label=made.label,
        features=[asked.columns("n"), asked.sql("n * n").named("squared")],
        candidates=made.candidates,
        parts=PARTS,
    )
    anew = data.training_set(world.home, other, world.clock.now())
    assert anew is not None
    assert anew[0].record.features != found[0].record.features
    for name, frame in anew[1].items():
        assert frame["squared"].to_list() == (frame["n"] ** 2).to_list()
        assert frame["_id"].to_list() == found[1][name]["_id"].to_list()
        assert frame["_label"].to_list() == found[1][name]["_label"].to_list()
    assert features.plan(other).id == anew[0].record.features


def test_copies_in_two_parts_leave_the_earlier(world: Any) -> None:
    """A question put again days later, with the same content and answer, would tell the test part's label to training."""
    ids = [f"q{k}" for k in range(20 * 24)]
    at = [START + (k + 0.5) * HOUR for k in range(len(ids))]
    copied = range(0, 96, 8)
    for k in copied:
        ids[k + 12 * 24] = ids[k]
    n = list(range(len(ids)))
    for k in copied:
        n[k + 12 * 24] = n[k]
    asked = nr.Source(
        "asked", pl.DataFrame({"id": ids, "n": n}).with_columns(pl.Series("at", at, dtype=TIME)), key="id", time="at", owner="us"
    )
    came = pl.DataFrame({"id": ids, "x": [k % 2 for k in n]}).with_columns(pl.Series("at", [t + HOUR for t in at], dtype=TIME))
    made = world.declared(
        asked=asked,
        label=nr.Label(nr.Source("came", came, key="id", time="at", owner="us"), "x > 0", within="6h"),
        parts=PARTS,
        features=[asked.columns("n")],
    )
    now = world.at(START + 20 * DAY)
    data.ingest(world.home, made, now)
    world.score(made, Window(START, now))
    data.close(world.home, made, now)
    found = data.training_set(world.home, made, now)
    assert found is not None
    entry, frames = found
    keys = {name: set(frame["_id"].str.split("@").list.first()) for name, frame in frames.items()}
    assert entry.record.dropped["duplicate"] > 0
    names = list(keys)
    assert all(not keys[a] & keys[b] for k, a in enumerate(names) for b in names[k + 1 :])


def test_leaks_of_time_are_refused() -> None:
    moment = pl.Series("_time", [START, START + DAY], dtype=TIME).to_frame()
    _assert_apart({"train": moment, "test": moment.with_columns(pl.col("_time") + 2 * DAY)}, DAY)
    with pytest.raises(NoriaError, match="less than the gap"):
        _assert_apart({"train": moment, "test": moment.with_columns(pl.col("_time") + timedelta(hours=47))}, DAY)


def test_what_was_acted_on_is_left_out_and_counted(world: Any) -> None:
    came = nr.Source("came", key="id", time="at", owner="us")
    made = world.declared(label=nr.Label(came, "x > 0", within="6h", affected_by_action=True))
    closed = pl.DataFrame(
        {"_label": [1.0, None, 0.0, 1.0], "_act": [1.0, 0.0, 0.0, None], "_act_propensity": [0.9, 0.5, 0.25, None]}
    )
    dropped: dict[str, int] = {}
    kept = _usable(made, closed, dropped)
    assert kept["_weight"].to_list() == [4.0, 1.0]
    assert dropped == {"no label": 1, "acted on": 1}


questions = st.lists(
    st.tuples(st.integers(0, 24 * 5), st.sampled_from("ab"), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=20
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions, st.integers(1, 30), st.sampled_from(["1d", "7d"]))
def test_baselines_know_only_labels_that_were_final(
    worlds: Callable[[], Any], asked: list[tuple[int, str, float | None]], within: int, period: str
) -> None:
    """``Last`` and ``Seasonal`` against their definition, row by row."""
    world = worlds()
    came = nr.Source("came", key="id", time="at", owner="us")
    made = world.declared(
        label=nr.Label(came, "x", within=f"{within}h", task="regression"),
        candidates=[nr.Last(), nr.Last(by="shop"), nr.Seasonal(period, by="shop")],
    )
    world.at(START + 9 * DAY)
    rows = pl.DataFrame(
        {
            "_id": [f"q{k:02d}" for k in range(len(asked))],
            "id": [f"k{k}" for k in range(len(asked))],
            "shop": [a[1] for a in asked],
        }
    )
    rows = rows.with_columns(pl.Series("_time", [START + a[0] * HOUR for a in asked], dtype=TIME))
    labels = rows.select("id", x=pl.Series([a[2] for a in asked], dtype=pl.Float64), _time=pl.col("_time") + timedelta(minutes=1))
    world.source("came", labels.with_columns(_known=pl.col("_time")))
    world.at(START + 9 * DAY + HOUR)
    world.predict(rows)
    data.close(world.home, made, world.clock.now())
    spine = rows.sort("_time", "_id")
    found = data.history_features(world.home, made, spine)
    assert found["_id"].to_list() == spine["_id"].to_list()
    assert found.columns == ["_id", "_last", "_last_shop", f"_seasonal_{period}_shop"]
    lags = timedelta(hours=within)
    history = [(START + a[0] * HOUR, f"q{k:02d}", a[1], a[2]) for k, a in enumerate(asked) if a[2] is not None]

    def closes(moment: datetime) -> datetime:
        return moment + lags

    width = DAY if period == "7d" else HOUR
    length = {"1d": DAY, "7d": 7 * DAY}[period]

    def spot(moment: datetime) -> int:
        return int(((moment - datetime(1970, 1, 1, tzinfo=UTC)) - timedelta(microseconds=1)) % length // width)

    for row, asking in zip(found.iter_rows(named=True), spine.iter_rows(named=True), strict=True):
        known = [h for h in history if closes(h[0]) <= asking["_time"]]
        last = max(known, default=None)
        last_shop = max((h for h in known if h[2] == asking["shop"]), default=None)
        same = [h[3] for h in known if h[2] == asking["shop"] and spot(h[0]) == spot(asking["_time"])]
        assert row["_last"] == (last[3] if last else None)
        assert row["_last_shop"] == (last_shop[3] if last_shop else None)
        expected = None if not same else sum(x for x in same if x is not None) / len(same)
        assert row[f"_seasonal_{period}_shop"] == (None if expected is None else pytest.approx(expected))


def test_serving_gets_the_same_history_as_training(lived_in: Any) -> None:
    world, made = lived_in
    found = data.training_set(world.home, made, world.clock.now())
    assert found is not None
    fresh = found[1]["fresh"]
    again = data.history_features(world.home, made, fresh.select("_id", "_time", "shop"))
    assert again["_last_shop"].to_list() == fresh["_last_shop"].to_list()
    assert fresh["_last"].null_count() == 0
