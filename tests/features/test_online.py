"""Features in process against the batch query, bit for bit, over streams of events that come as events do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import SimulatedClock, from_micros, micros
from noria.features import plan, sql
from noria.features.compute import _numbered, _span, _typed
from noria.features.online import Online
from noria.features.sql import table_name
from noria.store import Engine
from noria.tables import TIME

T0 = datetime(2013, 1, 1, tzinfo=UTC)
BEGIN = micros(T0)
MINUTE = 60_000_000
HOUR = 60 * MINUTE
LAST = 48 * HOUR

asked = nr.Source("asked", key="id", time="at", owner="o")
events = nr.Source("events", key="group", time="at", owner="o")
LABEL = nr.Label(events, "x > 0", within="1h", otherwise=False)
ASKED = {"group": pl.String, "k": pl.Int64, "size": pl.Float64, "_id": pl.String, "_time": TIME}
EVENTS = {
    "group": pl.String,
    "k": pl.Int32,
    "x": pl.Float64,
    "y": pl.Float64,
    "word": pl.String,
    "flag": pl.Boolean,
    "at": TIME,
    "_time": TIME,
    "_known": TIME,
    "_row": pl.String,
}
SCHEMAS = {"asked": {n: t for n, t in ASKED.items() if n[0] != "_"}, "events": EVENTS}


class Event(NamedTuple):
    """As the log of events gives it."""

    seq: int
    source: str
    id: str
    time: int
    known: int
    row: dict[str, Any]
    hash: str


def system_of(features: Sequence[Any]) -> nr.System:
    return nr.System("s", asked, LABEL, list(features), nr.Objective("p", nr.Value("0"), "log_loss"), [])


# ---------------------------------------------------------------------------------------------- declarations and streams

BYS: list[Any] = ["group", "k", ("group", "k"), (), {"size": "x"}, {"k": "y"}]
SPANS = [("20m", "5m"), ("1h", "1h"), ("6h", "10m"), ("1d", "1h"), ("15m", "1m"), ("90m", "90m")]
NUMBERS = ["x", "y", "x + y", "x / 3", "case when k = 1 then y end", "k", "flag", "epoch(_known - _time)"]


@st.composite
def declarations(draw: st.DrawFn) -> nr.System:
    made: list[Any] = [asked.columns("size", "group"), asked.sql("k * 2 + 1").named("doubled")]
    for number in range(draw(st.integers(2, 5))):
        by = draw(st.sampled_from(BYS))
        if draw(st.integers(0, 3)) == 0:
            text = draw(st.sampled_from([*NUMBERS, "word", "upper(word)"]))
            made.append(events.last(text, by=by, max_age=draw(st.sampled_from(["7m", "1h", "1d"]))).named(f"last{number}"))
            continue
        length, every = draw(st.sampled_from(SPANS))
        window = events.window(length, every=every, by=by)
        aggs = draw(st.lists(st.sampled_from(["count", "sum", "mean", "min", "max", "std"]), min_size=1, max_size=4))
        for agg in aggs:
            window = getattr(window, agg)(draw(st.sampled_from(NUMBERS)))
        window = window.count().count("word")
        made.append(window.named(*(f"f{number}_{n}" for n in range(len(aggs) + 2))))
    return system_of(made)


moments = st.builds(
    lambda step, shift: BEGIN + LAST // 2 + step * 5 * MINUTE + shift,
    st.integers(-60, 60),
    st.sampled_from([0, 0, 0, -1, 1, 90_000_123]),
)
numbers = st.one_of(
    st.sampled_from([None, 0.0, 1.0, 0.1, -2.5, 1e9 + 0.25, 5e-7, 123456.7890125, 2.0, math.nan]),
    st.floats(-1e5, 1e5),
)


@st.composite
def an_event(draw: st.DrawFn) -> Event:
    known = draw(moments)
    time = known - draw(st.integers(0, 3)) * MINUTE
    row = {
        "group": draw(st.sampled_from(["a", "b", "b", "1", None])),
        "k": draw(st.sampled_from([1, 2, None])),
        "x": draw(numbers),
        "y": draw(numbers),
        "word": draw(st.sampled_from([None, "one", "two", "it's"])),
        "flag": draw(st.sampled_from([None, True, False])),
        "at": from_micros(time).isoformat() if draw(st.booleans()) else time,
    }
    return Event(0, "events", "", time, known, row, draw(st.text("0123456789abcdef", min_size=8, max_size=8)))


@st.composite
def a_question(draw: st.DrawFn) -> dict[str, Any]:
    key = {"group": draw(st.sampled_from(["a", "b", "1", None])), "k": draw(st.sampled_from([1, 2, None]))}
    return key | {"size": draw(st.sampled_from([1.0, 0.1, None])), "_time": from_micros(draw(moments))}


streams = st.lists(an_event(), max_size=60, unique_by=lambda e: e.hash)
questions = st.lists(a_question(), min_size=1, max_size=6)


def examples(number: int) -> settings:
    calm = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    """An example costs tens of milliseconds, so a failure is told as it was found."""
    return settings(
        max_examples=number, deadline=None, suppress_health_check=calm, derandomize=True, database=None, phases=[Phase.generate]
    )


def frame(some: Sequence[Event]) -> pl.DataFrame:
    rows = [
        {**e.row, "at": from_micros(e.time), "_time": from_micros(e.time), "_known": from_micros(e.known), "_row": e.hash}
        for e in some
    ]
    return pl.DataFrame(rows, schema=EVENTS).sort("_known", "_time", "_row")


def spine_of(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([row | {"_id": f"q{number}"} for number, row in enumerate(rows)], schema=ASKED)


def batch(engine: Engine, system: nr.System, some: Sequence[Event], rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The batch query over the rows in memory, in any number of tiles."""
    resolved, spine = plan(system, SCHEMAS), spine_of(rows)
    query = sql(resolved, way="tiles", asked=_span(spine))
    tables = {table_name(resolved, name): frame(some) for name in resolved.sources}
    return _typed(resolved, engine.sql(query, spine=_numbered(resolved, spine, {}), **tables)).drop("_id").rows()


def ask(online: Online, row: dict[str, Any]) -> tuple[Any, ...] | None:
    return online.features({name: value for name, value in row.items() if name[0] != "_"}, micros(row["_time"]))


def agree(online: Online, want: Sequence[tuple[Any, ...]], rows: Sequence[dict[str, Any]]) -> int:
    """Asserts that whatever is answered is what the query says, and gives how many were answered."""
    answered = 0
    for row, expected in zip(rows, want, strict=True):
        got = ask(online, row)
        answered += got is not None
        assert got is None or got == expected, dict(zip(online.names, zip(got, expected, strict=True), strict=True))
    return answered


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(threads=1)
    yield engine
    engine.close()


def fresh(system: nr.System, at: int, *, grace: int = LAST) -> Online:
    return Online(system, SCHEMAS, SimulatedClock(from_micros(at)), grace=grace)


def test_online_is_batch_event_by_event(engine: Engine) -> None:
    answered = [0, 0]

    @examples(60)
    @given(declarations(), streams, st.lists(questions, min_size=1, max_size=3), st.randoms(use_true_random=False))
    def check(system: nr.System, stream: list[Event], phases: list[list[dict[str, Any]]], random: Any) -> None:
        grace = random.choice([0, HOUR, LAST])
        clock = SimulatedClock(T0 + timedelta(hours=19))
        online = Online(system, SCHEMAS, clock, grace=grace)
        taken: list[Event] = []
        for number, rows in enumerate(phases):
            clock.move(T0 + timedelta(hours=19 + 4 * number))
            new = stream[number :: len(phases)]
            for event in random.sample(new, len(new)):
                online.take([event])
            online.take(random.sample(stream[: len(taken)], 0) + random.sample(new, len(new) // 2))  # twice
            taken += new
            answered[0] += agree(online, batch(engine, system, taken, rows), rows)
            answered[1] += len(rows)

    check()
    assert answered[0] > answered[1] / 2
