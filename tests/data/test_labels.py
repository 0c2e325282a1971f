"""A label is what a person would read off the rows that were known; nothing is closed before its time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import data
from noria.core import Window
from noria.records import CohortClosed

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def asked_rows(hours: list[float], keys: list[str], **more: list[Any]) -> pl.DataFrame:
    at = [START + h * HOUR for h in hours]
    return pl.DataFrame({"_id": [f"{k}@{n}" for n, k in enumerate(keys)], "id": keys, **more}).with_columns(
        pl.Series("_time", at, dtype=TIME)
    )


def came_rows(rows: list[tuple[float, float, str, float | None]]) -> pl.DataFrame:
    """(time, known, key, x) with times in hours."""
    return pl.DataFrame(
        {
            "id": [r[2] for r in rows],
            "x": pl.Series([r[3] for r in rows], dtype=pl.Float64),
            "_time": pl.Series([START + r[0] * HOUR for r in rows], dtype=TIME),
            "_known": pl.Series([START + r[1] * HOUR for r in rows], dtype=TIME),
        }
    )


def label(**parts: Any) -> dict[str, Any]:
    came = nr.Source("came", key="id", time="at", owner="us")
    return {"label": nr.Label(came, **({"expression": "x > 0", "within": "6h"} | parts))}


def outcomes(world: Any) -> pl.DataFrame:
    frame: pl.DataFrame = world.home.lake.read("outcomes")
    return frame


def test_a_cohort_closes_when_the_last_label_can_have_come(world: Any) -> None:
    made = world.declared(**label(within="6h", horizon="2h", lateness="1h", otherwise=False))
    world.at(START + DAY)
    world.source("came", came_rows([(5, 5, "a", 1.0)]))
    world.predict(asked_rows([1, 24, 25], ["a", "b", "c"]))
    assert data.close(world.home, made, world.at(START + 33 * HOUR - timedelta(seconds=1))) == []
    [entry] = data.close(world.home, made, world.at(START + 33 * HOUR))
    record = entry.record
    assert entry.key == f"cohort/{(START + DAY).isoformat()}/0"
    assert record.window == Window(START, START + DAY)
    assert (record.n, record.labelled, record.silent, record.mean) == (2, 2, 1, 0.5)
    assert record.delay == {"p50": 4.0, "p90": 4.0, "p99": 4.0}
    assert outcomes(world).select("_id", "_label", "_known").rows() == [("a@0", 1.0, START + 5 * HOUR), ("b@1", 0.0, None)]
    assert data.close(world.home, made, world.at(START + 34 * HOUR)) == []
    [second] = data.close(world.home, made, world.at(START + 57 * HOUR))
    assert second.record.window == Window(START + DAY, START + 2 * DAY)


def test_delays_have_their_quantiles(world: Any) -> None:
    made = world.declared(**label(within="12h"))
    world.at(START + 2 * DAY)
    delays = [1.0, 2.0, 3.0, 4.0, 10.0]
    world.source("came", came_rows([(d, d + 1, f"k{n}", 1.0) for n, d in enumerate(delays)]))
    world.predict(asked_rows([0.5] * 6, [f"k{n}" for n in range(6)]))
    [entry] = data.close(world.home, made, world.at(START + 3 * DAY))
    known = [d + 1 - 0.5 for d in delays]
    expected = {
        name: round(float(pl.Series(known).quantile(q, "linear") or 0), 6)
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    assert entry.record.delay == expected
    assert entry.record.labelled == 5, "without otherwise, silence is a missing label"


def test_late_rows_revise_only_the_cohorts_whose_labels_they_change(world: Any) -> None:
    path = world.folder / "came.parquet"
    columns = {"id": ["a", "b", "c"], "x": [0.0, 0.0, 0.0]}
    first = pl.DataFrame(columns).with_columns(pl.Series("at", [START + h * HOUR for h in (2, 26, 50)], dtype=TIME))
    first.write_parquet(path)
    came = nr.Source("came", str(path), key="id", time="at", owner="us")
    made = world.declared(label=nr.Label(came, "x > 0", within="6h", otherwise=False))
    world.at(START + 4 * DAY)
    data.ingest(world.home, made, world.clock.now())
    world.predict(asked_rows([1, 25, 49, 50], ["a", "b", "c", "d"]))
    assert [e.record.revision for e in data.close(world.home, made, world.clock.now())] == [0, 0, 0]
    late = pl.DataFrame({"id": ["b", "d", "c"], "x": [3.0, 1.0, -1.0]}).with_columns(
        pl.Series("at", [START + 26 * HOUR, START + 51 * HOUR, START + 50 * HOUR], dtype=TIME)
    )
    pl.concat([first, late]).write_parquet(path)
    world.at(START + 4 * DAY + HOUR)
    data.ingest(world.home, made, world.clock.now())
    entries = data.close(world.home, made, world.clock.now())
    assert [(e.record.window.end, e.record.revision) for e in entries] == [(START + 2 * DAY, 1), (START + 3 * DAY, 1)]
    assert outcomes(world).filter(pl.col("_revision") == 1).select("_id", "_label").rows() == [
        ("b@1", 1.0),
        ("c@2", 0.0),
        ("d@3", 1.0),
    ]
    assert outcomes(world).filter(pl.col("_revision") == 0).height == 4, "the old revision is kept"
    assert data.close(world.home, made, world.at(START + 4 * DAY + 2 * HOUR)) == []
    nothing_new = pl.DataFrame({"id": ["a"], "x": [-5.0]}).with_columns(pl.Series("at", [START + 3 * HOUR], dtype=TIME))
    pl.concat([first, late, nothing_new]).write_parquet(path)
    world.at(START + 4 * DAY + 3 * HOUR)
    data.ingest(world.home, made, world.clock.now())
    assert data.close(world.home, made, world.clock.now()) == []


def test_a_row_that_becomes_known_while_a_turn_runs_revises_too(world: Any) -> None:
    """On a live clock the record of a cohort is some seconds younger than the batch that it rests on."""
    path, now = world.folder / "came.parquet", START + 4 * DAY
    rows = pl.DataFrame({"id": ["a", "b"], "x": [3.0, 3.0]}).with_columns(
        pl.Series("at", [START + 2 * HOUR, START + 26 * HOUR], dtype=TIME),
        pl.Series("seen", [START + 3 * HOUR, now + timedelta(seconds=3)], dtype=TIME),
    )
    rows.write_parquet(path)
    came = nr.Source("came", str(path), key="id", time="at", known="seen", owner="us")
    made = world.declared(label=nr.Label(came, "x > 0", within="6h", otherwise=False))
    world.at(now)
    world.predict(asked_rows([1, 25], ["a", "b"]))
    data.ingest(world.home, made, now)
    world.at(now + timedelta(seconds=5))
    assert len(data.close(world.home, made, now)) == 2
    later = world.at(now + HOUR)
    data.ingest(world.home, made, later)
    assert [(e.record.window.end, e.record.revision) for e in data.close(world.home, made, later)] == [(START + 2 * DAY, 1)]


def test_a_prediction_that_came_after_closing_gets_its_label(world: Any) -> None:
    """Its cohort is revised; one that had no prediction at all is closed then."""
    path = world.folder / "asked.parquet"
    early = pl.DataFrame({"id": ["a"], "n": [1]}).with_columns(pl.Series("at", [START + HOUR], dtype=TIME))
    early.write_parquet(path)
    asked = nr.Source("asked", str(path), key="id", time="at", owner="us")
    made = world.declared(asked=asked)
    first = world.at(START + 3 * DAY)
    data.ingest(world.home, made, first)
    world.score(made, Window(START, first))
    assert len(data.close(world.home, made, first)) == 1
    more = pl.DataFrame({"id": ["late", "c"], "n": [1, 2]}).with_columns(
        pl.Series("at", [START + 2 * HOUR, START + 80 * HOUR], dtype=TIME)
    )
    pl.concat([early, more]).write_parquet(path)
    second = world.at(START + 4 * DAY)
    data.ingest(world.home, made, second)
    spine = world.score(made, Window(first, second))
    assert spine["id"].to_list() == ["late", "c"]
    [entry] = data.close(world.home, made, second)
    assert (entry.record.window.end, entry.record.revision, entry.record.n) == (START + DAY, 1, 2)


def test_what_cannot_be_seen_is_missing_and_never_negative(world: Any) -> None:
    made = world.declared(**label(otherwise=False, observed_when="act or shown"))
    world.at(START + 3 * DAY)
    world.source("came", came_rows([(2, 2, "a", 1.0), (2, 2, "b", 1.0)]))
    world.predict(
        asked_rows([1] * 6, list("abcdef"), _act=[1.0, 0.0, 1.0, 0.0, None, None], shown=[False, False, False, True, True, False])
    )
    [entry] = data.close(world.home, made, world.clock.now())
    assert dict(outcomes(world).select("id" if "id" in outcomes(world).columns else "_id", "_label").rows()) == {
        "a@0": 1.0,
        "b@1": None,
        "c@2": 0.0,
        "d@3": 0.0,
        "e@4": 0.0,
        "f@5": None,
    }
    assert (entry.record.n, entry.record.labelled, entry.record.silent) == (6, 4, 3)


def test_censored_labels_are_missing(world: Any) -> None:
    made = world.declared(**label(expression="x", censored_when="x >= 9", task="regression"))
    world.at(START + 3 * DAY)
    world.source("came", came_rows([(2, 2, "a", 9.0), (2, 2, "b", 3.5)]))
    world.predict(asked_rows([1, 1], ["a", "b"]))
    [entry] = data.close(world.home, made, world.clock.now())
    assert outcomes(world)["_label"].to_list() == [None, 3.5]
    assert (entry.record.labelled, entry.record.mean) == (1, 3.5)


def test_classes_and_outcomes(world: Any) -> None:
    came = nr.Source("came", key="id", time="at", owner="us")
    made = world.declared(
        label=nr.Label(came, "case when x > 1 then 'big' else 'small' end", within="6h", otherwise="none", task="multiclass"),
        outcomes={
            "price": nr.Outcome(came, "x * 2", within="3h", otherwise=0),
            "word": nr.Outcome(came, "id || '!'", within="6h"),
        },
        candidates=[nr.Last()],
    )
    world.at(START + 3 * DAY)
    world.source("came", came_rows([(2, 2, "a", 9.0), (5, 5, "b", 1.0)]))
    world.predict(asked_rows([1, 1, 1], ["a", "b", "c"]))
    data.close(world.home, made, world.clock.now())
    frame = outcomes(world)
    assert frame.select("_class", "price", "word").rows() == [("big", 18.0, "a!"), ("small", 0.0, "b!"), ("none", 0.0, None)]
    assert frame["_label"].null_count() == 3
    assert frame.schema["price"] == pl.Float64


def test_a_label_source_that_never_had_a_row_is_silence(world: Any) -> None:
    made = world.declared(**label(otherwise=True, censored_when="y = 'no'"))
    world.at(START + 3 * DAY)
    world.predict(asked_rows([1, 2], ["a", "b"]))
    [entry] = data.close(world.home, made, world.clock.now())
    assert (entry.record.silent, entry.record.mean) == (2, 1.0)


Asked = tuple[int, str]
Came = tuple[int, int, str, float | None]


class Shape(NamedTuple):
    """How a label is declared, and when its cohort closes; in hours."""

    how: Literal["first", "any", "sum", "count"]
    horizon: int
    within: int
    closing: int


shapes = st.builds(
    Shape, st.sampled_from(["first", "any", "sum", "count"]), st.integers(0, 5), st.integers(1, 20), st.integers(24, 90)
)
asked_strategy = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), min_size=1, max_size=8)
came_strategy = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.integers(0, 30),
        st.sampled_from("ab"),
        st.one_of(st.none(), st.sampled_from([-1.0, 0.25, 2.0])),
    ),
    max_size=14,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked_strategy, came_strategy, shapes, st.booleans())
def test_labels_equal_their_definition(
    worlds: Callable[[], Any], asked: list[Asked], came: list[Came], shape: Shape, silence: bool
) -> None:
    """Brute force over all pairs of rows, with what was known when the cohort closed, restatements included."""
    from noria.data.labels import labelled

    world = worlds()
    how, horizon, within, closing = shape
    task = "regression" if how in ("sum", "count") else "binary"
    otherwise: Any = None if not silence else (0.0 if task == "regression" else True)
    expression = "x > 0" if task == "binary" else "x"
    made = world.declared(
        **label(expression=expression, how=how, within=f"{within}h", horizon=f"{horizon}h", otherwise=otherwise, task=task)
    )
    rows = [(t, t + delay, key, x) for t, delay, key, x in came]
    now = world.at(START + max(closing, 60) * HOUR)
    if rows:
        world.source("came", came_rows(rows))
    predictions = asked_rows([a for a, _ in asked], [k for _, k in asked])
    world.clock.move(now + timedelta(seconds=1))
    world.predict(predictions)
    at = START + closing * HOUR
    found = labelled(world.home, made, Window(START - DAY, START + 3 * DAY), at)
    assert found.height == len(asked)
    numbered = list(enumerate(rows))
    for row in found.iter_rows(named=True):
        hour, key = asked[int(row["_id"].split("@")[1])]
        expected = definition(numbered, hour, key, shape, otherwise)
        assert (row["_label"], row["_known"], row["_silent"]) == expected, (row, rows)


def definition(
    rows: list[tuple[int, Came]], asked: int, key: str, shape: Shape, otherwise: Any
) -> tuple[float | None, datetime | None, bool]:
    how, horizon, within, closing = shape
    known = [(n, r) for n, r in rows if r[1] <= closing]
    newest: dict[tuple[str, int], tuple[int, str, int, float | None]] = {}
    order = {n: place for place, (n, _) in enumerate(sorted(rows, key=lambda some: (some[1][1], some[1][0])))}
    for n, (time, at, k, x) in known:
        if (k, time) not in newest or (at, order[n]) > (newest[k, time][0], newest[k, time][2]):
            newest[k, time] = (at, "", order[n], x)
    hits = sorted(
        (time, at, place, x)
        for (k, time), (at, _, place, x) in newest.items()
        if k == key and asked + horizon < time <= asked + horizon + within
    )
    if not hits:
        return (None if otherwise is None else float(otherwise), None, otherwise is not None)
    values = [x for *_, x in hits]
    latest = START + max(at for _, at, *_ in hits) * HOUR
    match how:
        case "first":
            x = values[0]
            return (None if x is None else float(x > 0), START + hits[0][1] * HOUR, False)
        case "any":
            truths = [x > 0 for x in values if x is not None]
            positive = [at for _, at, _, x in hits if x is not None and x > 0]
            when = START + min(positive) * HOUR if positive else latest
            return (float(any(truths)) if truths else None, when, False)
        case "sum":
            numbers = [x for x in values if x is not None]
            return (math.fsum(numbers) if numbers else None, latest, False)
        case _:
            return (float(sum(x is not None for x in values)), latest, False)


@pytest.mark.parametrize("every", ["1h", "1d"])
def test_every_prediction_is_in_exactly_one_cohort(world: Any, every: str) -> None:
    made = world.declared(**label(otherwise=False), every=every)
    world.at(START + 3 * DAY)
    hours = [0.0001, 1, 1.5, 2, 23.99, 24, 24.01, 48]
    world.predict(asked_rows(hours, [f"k{n}" for n in range(len(hours))]))
    entries = data.close(world.home, made, world.clock.now())
    assert sum(e.record.n for e in entries) == len(hours)
    frame = outcomes(world)
    assert (frame["_time"] <= frame["_cohort"]).all()
    assert (frame["_cohort"] - frame["_time"]).max() < (HOUR if every == "1h" else DAY)
    assert [e.record.window.end for e in entries] == sorted(e.record.window.end for e in entries)
    assert world.home.ledger.count(CohortClosed) == len(entries)
