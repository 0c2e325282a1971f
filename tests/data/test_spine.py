"""The rows to be predicted: each once, at its own time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

import noria as nr
from noria import data
from noria.core import Window
from noria.data.spine import ticks

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def frame(hours: list[float], **columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(columns).with_columns(pl.Series("at", [START + h * HOUR for h in hours], dtype=TIME))


def test_rows_are_asked_in_the_window_of_their_time(world: Any) -> None:
    asked = nr.Source(
        "asked", frame([1, 24, 25, 49], id=["b", "a", "c", "d"], part=[1, 2, 3, 4], n=[1, 2, 3, 4]), key=("id", "part"), time="at"
    )
    made = world.declared(asked=asked, label=nr.Label(asked, "n > 0", within="1h"))
    now = world.at(START + 2 * DAY)
    assert data.spine(world.home, made, Window(START, now)).height == 0
    data.ingest(world.home, made, now)
    first, second = (data.spine(world.home, made, Window(START + k * DAY, START + (k + 1) * DAY)) for k in (0, 1))
    assert first["_id"].to_list() == ["b|1@20240101T010000Z", "a|2@20240102T000000Z"]
    assert second["_id"].to_list() == ["c|3@20240102T010000Z"]
    assert set(first.columns) == {"_id", "id", "part", "n", "at", "_time"}
    whole = data.spine(world.home, made, Window(START, now))
    assert whole.equals(pl.concat([first, second]))


def test_moments_below_a_second_have_their_own_ids(world: Any) -> None:
    asked = nr.Source("asked", frame([1, 1 + 1e-6 / 3.6], id=["a", "a"], n=[1, 2]), key="id", time="at")
    made = world.declared(asked=asked)
    data.ingest(world.home, made, world.at(START + DAY))
    found = data.spine(world.home, made, Window(START, START + DAY))["_id"].to_list()
    assert found == ["a@20240101T010000Z", "a@20240101T010000.001000Z"]


def test_late_and_restated_rows_are_asked_once(world: Any) -> None:
    path = world.folder / "asked.parquet"
    early = frame([1, 2], id=["a", "b"], n=[1, 1])
    early.write_parquet(path)
    made = world.declared(asked=nr.Source("asked", str(path), key="id", time="at", owner="us"))
    first = world.at(START + DAY)
    data.ingest(world.home, made, first)
    pl.concat([early, frame([2, 3, 30], id=["b", "late", "c"], n=[9, 1, 1])]).write_parquet(path)
    second = world.at(START + 2 * DAY)
    data.ingest(world.home, made, second)
    assert data.spine(world.home, made, Window(START, first))["id"].to_list() == ["a", "b"]
    again = data.spine(world.home, made, Window(first, second))
    assert again.select("id", "_time").rows() == [("late", START + 3 * HOUR), ("c", START + 30 * HOUR)]
    both = data.spine(world.home, made, Window(START, second))
    assert both.select("id", "n").rows() == [("a", 1), ("b", 1), ("late", 1), ("c", 1)]


def test_rows_known_long_before_they_are_asked(world: Any) -> None:
    rows = frame([10, 30, 30], id=["a", "b", "c"]).with_columns(
        pl.Series("booked", [START + h * HOUR for h in (1, 2, 29)], dtype=TIME), n=1
    )
    made = world.declared(asked=nr.Source("asked", rows, key="id", time="at", known="booked", owner="us"))
    for day in (1, 2):
        data.ingest(world.home, made, world.at(START + day * DAY))
    assert data.spine(world.home, made, Window(START, START + DAY))["id"].to_list() == ["a"]
    assert data.spine(world.home, made, Window(START + DAY, START + 2 * DAY))["id"].to_list() == ["b", "c"]


def test_entities_on_a_schedule(world: Any) -> None:
    people = frame(
        [0, 0, 24 * 20, 24 * 40, 24 * 45],
        who=["a", "b", "c", "b", "a"],
        active=[True, True, True, False, True],
        n=[1, 2, 3, 4, 5],
    )
    of = nr.Source("people", people, key="who", time="at", known="1h", owner="us")
    made = world.declared(predict=nr.Every("1mo", of=of, where="active"), features=[of.columns("n")])
    now = world.at(datetime(2024, 4, 1, tzinfo=UTC))
    data.ingest(world.home, made, now)
    found = data.spine(world.home, made, Window(datetime(1970, 1, 1, tzinfo=UTC), now))
    assert found.select("_id", "n").rows() == [
        ("a@20240201T000000Z", 1),
        ("b@20240201T000000Z", 2),
        ("c@20240201T000000Z", 3),
        ("a@20240301T000000Z", 5),
        ("c@20240301T000000Z", 3),
        ("a@20240401T000000Z", 5),
        ("c@20240401T000000Z", 3),
    ]
    assert data.spine(world.home, made, Window(now, now + 20 * DAY)).is_empty()
    assert set(found.columns) == {"_id", "who", "active", "n", "at", "_time"}


def test_schedules() -> None:
    assert list(ticks("6h", Window(START, START + DAY))) == [START + k * 6 * HOUR for k in (1, 2, 3, 4)]
    months = list(ticks("1mo", Window(datetime(2023, 11, 30, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))))
    assert months == [datetime(2023, 12, 1, tzinfo=UTC), START, datetime(2024, 2, 1, tzinfo=UTC)]


def test_a_request_has_no_rows(world: Any) -> None:
    made = world.declared(predict=nr.Request({"id": "VARCHAR"}, key="id"))
    found = data.spine(world.home, made, Window(START, START + DAY))
    assert found.is_empty()
    assert found.columns == ["_id", "_time"]
