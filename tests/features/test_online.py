"""Features in process against the batch query, bit for bit, over streams of events that come as events do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import SimulatedClock, from_micros, micros
from noria.features import compute, plan, sql
from noria.features.compute import _numbered, _span, _typed
from noria.features.feeds import Feed
from noria.features.online import Online
from noria.features.sql import table_name
from noria.records import Approved
from noria.settings import Settings
from noria.store import Engine, Home
from noria.tables import TIME, source_table

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


streams = st.lists(an_event(), min_size=12, max_size=60, unique_by=lambda e: e.hash)
questions = st.lists(a_question(), min_size=4, max_size=8)


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
        assert got is None or got == expected, {n: (g, e) for n, g, e in zip(online.names, got, expected, strict=True) if g != e}
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

    @examples(24)
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
            online.take(random.sample(new, len(new) // 2))  # some twice
            taken += new
            answered[0] += agree(online, batch(engine, system, taken, rows), rows)
            answered[1] += len(rows)

    check()
    assert answered[0] > answered[1] / 3  # which examples are drawn depends on what else is loaded


# ------------------------------------------------------------------------------------------------------------ the lake


@pytest.fixture
def made_home(tmp_path: Path) -> Iterator[Callable[[], tuple[Home, SimulatedClock]]]:
    """Homes, as many as a test needs."""
    homes: list[Home] = []

    def make() -> tuple[Home, SimulatedClock]:
        clock = SimulatedClock(T0 + timedelta(days=1))
        homes.append(Home.open(tmp_path / f"home{len(homes)}", Settings(durable=False), clock))
        return homes[-1], clock

    yield make
    for home in homes:
        home.close()


def publish(home: Home, source: str, rows: pl.DataFrame, key: str) -> None:
    with home.hold("test"):
        commit = home.lake.write(source_table(source), rows, key=f"{source}/{key}")
        home.commit(Approved(subject=f"{source}/{key}", by="test"), key=f"approved/{source}/{key}", tables=[commit])


def predicted(home: Home) -> None:
    row = {"group": "a", "k": 1, "size": 1.0, "_time": T0, "_known": T0, "_row": "r"}
    publish(
        home, "asked", pl.DataFrame([row], schema={**SCHEMAS["asked"], "_time": TIME, "_known": TIME, "_row": pl.String}), "0"
    )


def test_online_is_batch_when_it_is_killed_and_restored(made_home: Any) -> None:
    answered = [0, 0]

    @examples(12)
    @given(declarations(), streams, questions, st.randoms(use_true_random=False), st.sampled_from([HOUR, LAST, LAST]))
    def check(system: nr.System, stream: list[Event], rows: list[dict[str, Any]], random: Any, grace: int) -> None:
        home, clock = made_home()
        predicted(home)
        mixed = random.sample(stream, len(stream))
        cuts = sorted(random.choices(range(len(stream) + 1), k=3))
        for number, part in enumerate((mixed[: cuts[0]], mixed[cuts[0] : cuts[1]])):
            if part:
                publish(home, "events", frame(part), str(number))
        clock.move(T0 + timedelta(hours=random.choice([24, 25, 30])))
        online = Online.restore(home, system, mixed[: cuts[2]], grace=grace)  # some are in the lake, some are not
        online.take(mixed)
        online.take(random.sample(mixed, len(mixed)))
        if mixed[cuts[1] :]:
            publish(home, "events", frame(mixed[cuts[1] :]), "rest")
        want = compute(home, system, spine_of(rows)).drop("_id").rows()
        answered[0] += agree(online, want, rows)
        answered[1] += len(rows)
        again = Online.restore(home, system, stream, grace=grace)
        assert agree(again, want, rows) >= sum(ask(online, row) is not None for row in rows)

    check()
    assert answered[0] > answered[1] / 3


def test_what_turns_publish_is_taken_from_the_new_files(made_home: Any) -> None:
    filed = nr.Source("events", "events.parquet", key="group", time="at", owner="o")

    @examples(8)
    @given(streams, questions, st.randoms(use_true_random=False))
    def check(stream: list[Event], rows: list[dict[str, Any]], random: Any) -> None:
        home, _clock = made_home()
        predicted(home)
        window = filed.window("6h", every="10m", by="group").count().mean("x").std("y").min("x").max("x + y").count("word")
        by_all = filed.window("1d", every="1h", by=()).sum("y").count("x")
        newest = filed.last("x", "word", "y > 1", by={"k": "k"}, max_age="1d")
        system = system_of([asked.columns("size"), window, by_all, newest])
        publish(home, "events", frame(stream[:1]), "first")
        online = Online.restore(home, system, grace=LAST)
        for number, event in enumerate(stream[1:6]):
            publish(home, "events", frame([event]), str(number))
            assert online.refresh(home) is False
        if stream[6:]:
            publish(home, "events", frame(stream[6:]), "rest")
        with home.hold("test"):
            home.lake.compact_after = 2
            home.lake.upkeep()
        assert online.refresh(home) is False
        assert online.refresh(home) is False
        want = compute(home, system, spine_of(rows)).drop("_id").rows()
        assert agree(online, want, rows) == len(rows)

    check()


def test_a_changed_table_asks_for_a_new_restore(made_home: Any) -> None:
    home, _ = made_home()
    predicted(home)
    filed = nr.Source("events", "events.parquet", key="group", time="at", owner="o")
    system = system_of([filed.window("1h", every="10m", by="group").mean("x"), filed.last("word", by="group", max_age="1h")])
    online = Online.restore(home, system)
    assert ask(online, question(0))[:1] == (None,)
    publish(home, "events", frame([an(1, 5.0)]), "0")
    assert online.refresh(home) is True
    online = Online.restore(home, system)
    assert ask(online, question(5)) == (5.0, "w")
    assert online.refresh(home) is False


def two_filed(made_home: Any) -> tuple[Home, Online, Callable[[Online], tuple[Any, ...] | None]]:
    """Two sources of files, each with a row that a turn has published since the store was restored."""
    home, _ = made_home()
    predicted(home)
    one, other = (nr.Source(name, "x.parquet", key="group", time="at", owner="o") for name in ("events", "more"))
    system = system_of([s.window("1h", every="10m", by="group").count().named(s.name) for s in (one, other)])
    for name in ("events", "more"):
        publish(home, name, frame([an(-2, 1.0)]), "first")
    online = Online.restore(home, system)
    for name in ("events", "more"):
        publish(home, name, frame([an(-1, 2.0)]), "second")
    return home, online, lambda asked: ask(asked, question(5))


@pytest.mark.parametrize("step", ["_read", "put"])
def test_what_could_not_be_taken_from_new_files_is_not_lost(
    made_home: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """The second source's rows fail to be read, or to be added: the first's have been read by then, or added."""
    home, online, said = two_filed(made_home)
    whole = getattr(Feed, step)

    def half(self: Feed, *given: Any) -> Any:
        if self.name == list(online.plan.sources)[1]:
            raise MemoryError
        return whole(self, *given)

    with monkeypatch.context() as broken:
        broken.setattr(Feed, step, half)
        assert online.refresh(home) is True
    assert "MemoryError" in caplog.text
    assert online.refresh(home) is (step == "put"), "rows that were only read are read again"
    assert said(online) == ((2.0, 2.0) if step == "_read" else None)
    assert said(Online.restore(home, online.system)) == (2.0, 2.0)


def test_news_that_was_read_twice_is_taken_once(made_home: Any) -> None:
    home, online, said = two_filed(made_home)
    first, second = online.news(home), online.news(home)
    assert online.apply(first) is False
    assert online.apply(second) is True
    assert said(online) == (2.0, 2.0)


def test_events_that_could_not_be_taken_may_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    online = fresh(system_of([events.window("1h", every="10m", by="group").count()]), BEGIN + 24 * HOUR)
    some = [an(0, 1.0), an(-1, 2.0)]
    with monkeypatch.context() as broken:
        broken.setattr(Feed, "prepare", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            online.take(some)
    for _ in range(2):
        online.take([*some, *some])
    assert ask(online, question(2)) == (2.0,)


# ------------------------------------------------------------------------------------------------------- by hand


def an(minute: float, x: float | None, *, group: str | None = "a", known: float | None = None, mark: str = "") -> Event:
    time = BEGIN + round((24 * 60 + minute) * MINUTE)
    at = time if known is None else BEGIN + round((24 * 60 + known) * MINUTE)
    row = {"group": group, "k": 1, "x": x, "y": x, "word": "w", "flag": True, "at": time}
    return Event(0, "events", "", time, at, row, mark or f"{minute}/{x}/{group}/{known}")


def question(minute: float, group: str | None = "a") -> dict[str, Any]:
    return {"group": group, "k": 1, "size": 1.0, "_time": T0 + timedelta(days=1, minutes=minute)}


def test_what_is_known_later_counts_from_then_on() -> None:
    system = system_of(
        [events.window("1h", every="10m", by="group").count().min("x"), events.last("x", by="group", max_age="1h")]
    )
    online = fresh(system, BEGIN + 24 * HOUR)
    online.take([an(1, 5.0, known=30), an(0, 7.0)])
    assert ask(online, question(29)) == (1.0, 7.0, 7.0)
    assert ask(online, question(30)) == (2.0, 5.0, 5.0)
    assert ask(online, question(29)) == (1.0, 7.0, 7.0)
    assert ask(online, question(30, "b")) == (0.0, None, None)
    assert ask(online, question(30, None)) == (0.0, None, None)


def test_a_row_on_the_edge_of_a_tile_belongs_to_the_tile_that_ends_there() -> None:
    system = system_of([events.window("20m", every="10m", by="group").count()])
    online = fresh(system, BEGIN + 24 * HOUR, grace=0)
    online.take([an(10, 1.0), an(10 + 1 / MINUTE, 2.0)])
    assert [ask(online, question(minute)) for minute in (10, 29, 30, 39, 40)] == [(1.0,), (2.0,), (1.0,), (1.0,), (0.0,)]


def test_a_question_too_old_is_left_to_the_query() -> None:
    online = fresh(system_of([events.window("20m", every="10m", by="group").count()]), BEGIN + 24 * HOUR, grace=MINUTE)
    assert ask(online, question(35)) == (0.0,)
    assert ask(online, question(30)) == (0.0,)  # its tile is still open
    assert ask(online, question(29)) is None
    assert ask(online, question(40.9)) == (0.0,)
    assert ask(online, question(31)) == (0.0,)  # and so is this one, a minute more
    assert ask(online, question(41)) == (0.0,)
    assert ask(online, question(39)) is None


def test_sums_that_would_not_be_exact_are_left_to_the_query() -> None:
    features = [events.window("20m", every="10m", by="group").sum("x").max("y")]
    online = fresh(system_of(features), BEGIN + 24 * HOUR)
    online.take([an(1, 3e12)])
    assert ask(online, question(0)) == (0.0, None)
    assert ask(online, question(2)) is None
    assert ask(online, question(2, "b")) is None  # the query would refuse it as well
    assert ask(online, question(35)) == (0.0, None)
    squares = fresh(system_of([events.window("20m", every="10m", by="group").std("x")]), BEGIN + 24 * HOUR)
    squares.take([an(1 + n / 1000, 9e11) for n in range(200)])
    assert ask(squares, question(2)) is None
    assert ask(squares, question(2, "b")) == (None,)


def test_memory_is_bounded_by_the_longest_window() -> None:
    features = [
        events.window("6h", every="10m", by="group").count().std("x").min("x"),
        events.last("x", by="group", max_age="2h"),
    ]
    online = fresh(system_of(features), BEGIN, grace=HOUR)
    most: list[tuple[int, int]] = []
    for day in range(12):
        online._clock.move(T0 + timedelta(days=day))  # type: ignore[attr-defined]
        stream = [an((day - 1) * 1440 + n, float(n % 7), group=f"{day}-{n % 9}") for n in range(1440)]
        for start in range(0, 1440, 60):
            online._clock.move(from_micros(stream[start].known + HOUR))  # type: ignore[attr-defined]
            online.take(stream[start : start + 60])
        windows, lookups = online._groups
        most.append((len(windows.runs) + len(lookups.runs), sum(len(run.at) for run in windows.runs.values())))
    assert max(keys for keys, _ in most) <= 4 * 9
    assert max(elements for _, elements in most) < 9 * 2 * (36 + 12 * 7 + 16)
    online._clock.move(T0 + timedelta(days=30))  # type: ignore[attr-defined]
    online.take([])
    online.tidy()
    assert [group.runs for group in online._groups] == [{}, {}]


def test_numbers_are_cast_as_the_engine_casts_them(engine: Engine) -> None:
    from noria.features.tiles import as_double, fixed

    whole = [
        s * (2**e + d) for s in (1, -1) for e in (0, 31, 52, 53, 54, 62, 63, 64, 65, 80, 110, 125) for d in (-3, -1, 0, 1, 3)
    ]
    texts = pl.DataFrame({"n": range(len(whole)), "t": [str(n) for n in whole]})
    found = engine.sql("select cast(cast(t as decimal(38, 0)) as double) as d from t order by n", t=texts)["d"].to_list()
    assert [as_double(n) for n in whole] == found
    values = [0.5e-6, 1.5e-6, 2.5e-6, -0.5e-6, 0.4999999999999999e-6, 123456.7890125, 1e11 + 1e-6, -1e11 / 3, 999999999999.9]
    frame = pl.DataFrame({"n": range(len(values)), "v": values})
    query = "select cast(round(v * 1000000) as decimal(18, 0)) as f from t order by n"
    assert [fixed(value) for value in values] == [int(v) for v in engine.sql(query, t=frame)["f"].to_list()]
    assert math.isclose(fixed(0.1) / 1e6, 0.1)


def test_a_request_is_answered_with_its_own_types() -> None:
    def online_of(kind: str) -> Online:
        asks = nr.Request({"client": kind, "size": "INTEGER"}, key="client")
        features = [
            events.window("1h", every="10m", by={"client": "k"}).count().sum("x"),
            events.last("word", by=(), max_age="1h"),
        ]
        system = nr.System("s", asks, LABEL, features, nr.Objective("p", nr.Value("0"), "log_loss"), [])
        made = fresh(system, BEGIN + 24 * HOUR)
        made.take([an(0, 5.0)])
        return made

    at = BEGIN + 24 * HOUR + MINUTE
    whole = online_of("BIGINT")
    assert whole.features({"client": 1, "size": 2}, at) == (1.0, 5.0, "w")
    assert whole.features({"client": 1.0, "size": 2}, at) == (1.0, 5.0, "w")
    assert whole.features({"client": "1", "size": 2}, at) is None
    assert online_of("DOUBLE").features({"client": 1, "size": 2}, at) == (1.0, 5.0, "w")
    text = online_of("VARCHAR")
    assert "client" in text.unsupported
    assert text.features({"client": "1", "size": 2}, at) is None
    with pytest.raises(KeyError):
        whole.features({"size": 2}, at)


def test_a_clock_that_was_ahead_asks_for_a_new_restore(made_home: Any) -> None:
    home, _ = made_home()
    predicted(home)
    publish(home, "events", frame([an(0, 1.0)]), "0")
    system = system_of([events.window("1h", every="10m", by="group").count()])
    online = Online.restore(home, system)
    assert ask(online, question(1)) == (1.0,)
    assert online.refresh(home) is False
    assert ask(online, question(24 * 60)) == (0.0,)  # asked a day ahead
    assert ask(online, question(1)) is None
    assert online.refresh(home) is True
    assert ask(Online.restore(home, system), question(1)) == (1.0,)


@pytest.mark.parametrize(("grace", "answered"), [(0, 3), (25 * MINUTE, 10)])
def test_the_tile_that_is_open_is_restored_row_by_row(made_home: Any, grace: int, answered: int) -> None:
    home, clock = made_home()
    predicted(home)
    stream = [an(minute, float(minute)) for minute in range(-120, 16)]
    publish(home, "events", frame(stream), "0")
    clock.move(T0 + timedelta(days=1, minutes=16))
    window = events.window("1h", every="30m", by="group").count().sum("x").min("x").max("x").std("x")
    system = system_of([window, events.last("x", by="group", max_age="1h")])
    online = Online.restore(home, system, grace=grace)
    rows = [question(minute) for minute in (-9, 0, 0.5, 1, 7, 14.999, 15, 29, 30, 31)]
    want = compute(home, system, spine_of(rows)).drop("_id").rows()
    assert agree(online, want, rows) == answered
