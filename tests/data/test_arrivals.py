"""Events by HTTP come in by the rules for rows of files, once, whoever is killed in between."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import data, features
from noria.core import DataFault, Window, micros
from noria.data import arrivals
from noria.features.online import Online
from noria.records import Ingested, SchemaFrozen, Scored, Verified
from noria.store import EventLog, NewEvent
from noria.store.events import log_path
from noria.store.rows import fitted, guessed, known_of, refit, time_of

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def system(world: Any, **source: Any) -> nr.System:
    made: nr.System = world.declared(came=nr.Source("came", **({"key": "id", "time": "at", "owner": "us"} | source)))
    object.__setattr__(made, "folder", world.folder)
    return made


@pytest.fixture
def log(world: Any) -> Iterator[EventLog]:
    """The log as the service has it open while turns go by."""
    with closing(EventLog(log_path(world.home.path), durable=False)) as made:
        yield made


def event(name: str, hour: float, *, arrived: float | None = None, **row: Any) -> NewEvent:
    at = START + hour * HOUR
    known = micros(at if arrived is None else START + arrived * HOUR)
    return NewEvent(name, micros(at), known, {"id": name, "at": at.isoformat()} | row)


def lake(world: Any, name: str = "source.came") -> pl.DataFrame:
    frame: pl.DataFrame = world.home.lake.read(name)
    return frame


def aside(world: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(row["reason"], json.loads(row["row"])) for row in lake(world, "quarantine").iter_rows(named=True)]


def ingested(world: Any, name: str = "came") -> list[Ingested]:
    return [entry.record for entry in world.home.ledger.read(Ingested, prefix=f"ingest/{name}/")]


def test_events_reach_the_lake_when_they_are_known_and_once(world: Any, log: EventLog) -> None:
    made = system(world)
    log.append("came", [event("a", 1, x=1), event("b", 2, arrived=5, x=2), event("c", 3, arrived=30, x=3)])
    [entry] = data.ingest(world.home, made, world.at(START + DAY))
    record = entry.record
    assert (record.received, record.accepted, record.late, record.upto) == (2, 2, 0, START + DAY)
    assert entry.key == f"ingest/came/{(START + DAY).isoformat()}"
    assert [file.name for file in record.files] == ["events:came"]
    assert (record.first, record.last) == (START + HOUR, START + 2 * HOUR)
    assert lake(world).select("id", "x", "_time", "_known").rows() == [
        ("a", 1, START + HOUR, START + HOUR),
        ("b", 2, START + 2 * HOUR, START + 5 * HOUR),
    ]
    assert lake(world)["_row"].to_list() == [e.hash for e in log.since(0)[:2]]
    assert log.unsealed("came", micros(START + DAY)) == []
    assert data.ingest(world.home, made, world.at(START + DAY + HOUR)) == []
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.accepted == 1
    [schema] = world.home.ledger.read(SchemaFrozen)
    assert schema.record.columns == {"id": "VARCHAR", "at": "TIMESTAMP WITH TIME ZONE", "x": "BIGINT"}
    assert entry.parents == (schema.id,)


def test_without_a_log_there_is_nothing_and_none_is_made(world: Any) -> None:
    assert data.ingest(world.home, system(world), world.at(START + DAY)) == []
    assert not log_path(world.home.path).exists()


def test_every_reason_is_counted_and_nothing_is_lost(world: Any, log: EventLog) -> None:
    made = system(world)
    log.append("came", [event("a", 1, x=1.5, word="w", yes=True)])
    data.ingest(world.home, made, world.at(START + 2 * HOUR))
    rows: list[dict[str, Any]] = [
        {"id": None},
        {"at": None},
        {"at": "yesterday"},
        {"at": "1850-01-01T00:00:00Z"},
        {"at": "2024-01-01T03:00:00"},
        {"x": "many"},
        {"x": math.inf},
        {"x": math.nan},
        {"word": 3},
        {"yes": 1},
        {"new": [1, 2]},
        {"_x": 1},
        {"X": 1.0},
        {"x": 2, "word": None},
    ]
    log.append("came", [event(f"e{n}", 3, **row) for n, row in enumerate(rows)])
    log.append("came", [event("far", 24 * 365 * 60, x=1.0)._replace(known=micros(START + 4 * HOUR))])
    log.append("came", [event("known far", 3, arrived=24 * 365 * 60, x=1.0)])
    [entry] = data.ingest(world.home, made, world.at(START + DAY))
    record = entry.record
    assert record.reasons == {
        "no key": 1,
        "no time": 1,
        "impossible time": 3,
        "not a finite number": 2,
        "unreadable value": 8,
    }
    assert (record.received, record.accepted, record.quarantined) == (16, 1, 15)
    assert lake(world)["id"].to_list() == ["a", "e13"]
    told = {row["_event"]: row for _, row in aside(world)}
    assert told["e5"]["x"] == "many"
    assert told["e5"]["_bad"] == "x: a number is needed"
    assert told["e6"]["x"] == "inf"
    assert log.unsealed("came", 2**62) == []
    assert data.ingest(world.home, made, world.at(START + 2 * DAY)) == []


def test_refused_rows_freeze_nothing(world: Any, log: EventLog) -> None:
    made = system(world)
    log.append("came", [event("a", 1, at=None, x="one"), event("b", 1, id=None, x="one")])
    [entry] = data.ingest(world.home, made, world.at(START + DAY))
    assert entry.record.reasons == {"no key": 1, "no time": 1}
    assert world.home.ledger.read(SchemaFrozen) == []
    log.append("came", [event("c", 25, x=1)])
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.accepted == 1
    assert world.home.ledger.read(SchemaFrozen)[0].record.columns["x"] == "BIGINT"


def test_the_first_rows_freeze_the_columns_by_what_most_of_them_say(world: Any, log: EventLog) -> None:
    made = system(world)
    log.append(
        "came",
        [
            event("a", 1, n=1, f=1, word="x", day="2024-01-31", seen="2024-01-31T06:00:00+01:00", yes=True, nothing=None),
            event("b", 2, n=2.0, f=2.5, word="2024-01-31", day="2024-02-01", seen="2024-01-31T06:00:00Z", yes=False),
            event("c", 3, n=3, f=3, word="y", day=None, seen=None, yes=None),
            event("odd", 4, n="three", f=4),
            event("broken", 5, n=1, f=1, at=None, mine=1),
        ],
    )
    [entry] = data.ingest(world.home, made, world.at(START + DAY))
    assert entry.record.reasons == {"unreadable value": 1, "no time": 1}
    [schema] = world.home.ledger.read(SchemaFrozen)
    assert schema.record.columns == {
        "id": "VARCHAR",
        "at": "TIMESTAMP WITH TIME ZONE",
        "n": "DOUBLE",
        "f": "DOUBLE",
        "word": "VARCHAR",
        "day": "DATE",
        "seen": "TIMESTAMP WITH TIME ZONE",
        "yes": "BOOLEAN",
    }, "a column of nulls, or of a refused row, is none"
    frame = lake(world)
    assert frame["day"].to_list()[0].isoformat() == "2024-01-31"
    assert frame["seen"].to_list() == [START + 30 * DAY + 5 * HOUR, START + 30 * DAY + 6 * HOUR, None]
    log.append("came", [event("d", 25, n=7, extra="new"), event("e", 26, Extra=1), event("f", 27, extra=3)])
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.accepted == 1
    versions = [e.record for e in world.home.ledger.read(SchemaFrozen)]
    assert [(v.version, v.changes) for v in versions] == [(1, ()), (2, ("column 'extra' (VARCHAR) appeared",))]
    assert lake(world)["extra"].to_list() == [None, None, None, "new"]


def test_the_same_content_under_two_ids_is_two_events(world: Any, log: EventLog) -> None:
    made = system(world)
    a = event("a", 1, x=1)
    assert log.append("came", [a, a._replace(id="again"), a]).accepted == 2
    [first] = data.ingest(world.home, made, world.at(START + DAY))
    assert (first.record.received, first.record.reasons) == (2, {})
    assert log.append("came", [a._replace(id="once more"), a._replace(id="other", row=a.row | {"x": 7}), a]).accepted == 2
    [second] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert (second.record.received, second.record.reasons, second.record.restated) == (2, {}, 2)
    assert second.record.late == 2, "they were known before the turn that should have seen them"
    assert sorted(lake(world)["x"].to_list()) == [1, 1, 1, 7]
    assert aside(world) == []


def test_an_event_that_was_pruned_and_comes_again_is_known_to_the_lake(world: Any, log: EventLog) -> None:
    made = system(world)
    log.append("came", [event("a", 1, x=1), event("bad", 1, id=None)])
    data.ingest(world.home, made, world.at(START + DAY))
    later = event("b", 24 * 9, x=2)
    log.append("came", [later])
    data.ingest(world.home, made, world.at(START + 10 * DAY))
    assert [e.id for e in log.since(0)] == ["b"], "what is long sealed is let go"
    assert log.append("came", [event("a", 1, arrived=24 * 11, x=1)]).accepted == 1
    assert data.ingest(world.home, made, world.at(START + 12 * DAY)) == []
    assert log.unsealed("came", 2**62) == []
    assert lake(world)["id"].to_list() == ["a", "b"]


class Killed(BaseException):
    """As far as a program can be killed from inside."""


EVENTS = [
    ("a", 1, {"x": 1}),
    ("b", 2, {"x": "odd"}),
    ("c", 3, {"x": 3}),
    ("d", 4, {"at": None}),
    ("e", 4, {"x": 3, "id": "c", "at": (START + 3 * HOUR).isoformat()}),  # the same content as c
]


@pytest.mark.parametrize("same_time", [True, False])
def test_killed_between_the_commit_and_the_seal(
    worlds: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, same_time: bool
) -> None:
    """The batch is seen once: accepted, put aside and counted as if nothing had happened."""
    found = []
    for kill in (False, True):
        world = worlds()
        made = system(world)
        with closing(EventLog(log_path(world.home.path), durable=False)) as log:
            log.append("came", [event(name, hour, **row) for name, hour, row in EVENTS])
            first = START + DAY
            if kill:
                monkeypatch.setattr(EventLog, "seal", _die)
                with pytest.raises(Killed):
                    data.ingest(world.home, made, world.at(first))
                monkeypatch.undo()
                assert len(log.unsealed("came", 2**62)) == len(EVENTS)
                if same_time:
                    assert data.ingest(world.home, made, first) == []
                    assert log.unsealed("came", 2**62) == []
            else:
                data.ingest(world.home, made, world.at(first))
            log.append("came", [event("f", 30, x=9)])
            data.ingest(world.home, made, world.at(START + 2 * DAY))
            assert log.unsealed("came", 2**62) == []
        found.append(
            (lake(world).rows(), aside(world), [(r.received, r.reasons) for r in ingested(world)], world.home.lake.heads())
        )
    assert found[0] == found[1]


def _die(*_: Any) -> None:
    raise Killed


def test_a_fault_elsewhere_takes_nothing_in_and_loses_nothing(world: Any, log: EventLog) -> None:
    asked = nr.Source("asked", str(world.folder / "asked.parquet"), key="id", time="at", owner="us")
    made = world.declared(asked=asked, came=nr.Source("came", key="id", time="at", owner="us"))
    log.append("came", [event("a", 1, x=1)])
    with pytest.raises(DataFault, match="there is no file"):
        data.ingest(world.home, made, world.at(START + DAY))
    assert world.home.lake.tables() == []
    pl.DataFrame({"id": ["a"], "n": [1]}).with_columns(pl.Series("at", [START], dtype=TIME)).write_parquet(asked.data)
    assert len(data.ingest(world.home, made, world.at(START + DAY + HOUR))) == 2
    assert lake(world)["_known"].to_list() == [START + HOUR], "nobody had looked in between"


def test_an_event_that_a_turn_should_have_seen_counts_from_now_on(world: Any, log: EventLog) -> None:
    """It was stamped before the turn and written down after: the batch that it missed rested on its not being there."""
    made = system(world)
    log.append("came", [event("a", 1, x=1)])
    data.ingest(world.home, made, world.at(START + DAY))
    log.append("came", [event("b", 2, arrived=23.999, x=1)])
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.late == 1
    assert lake(world)["_known"].to_list() == [START + HOUR, START + 2 * DAY]


def test_a_sealed_request_moves_no_cursor(world: Any, log: EventLog) -> None:
    """Not even where rows come from a source: requests are sealed up to the last, asked after the turn had looked."""
    made = system(world)
    log.append("came", [event("a", 1, x=1)])
    data.ingest(world.home, made, world.at(START + DAY))
    later = world.at(START + DAY + timedelta(seconds=9))
    world.home.commit(Scored(window=Window(START, later), n=0, rows="", variants={}, acts={}), key="requests/1")
    log.append("came", [event("b", 24.002, x=1)])
    [entry] = data.ingest(world.home, made, world.at(START + DAY + HOUR))
    assert (entry.record.accepted, entry.record.late) == (1, 0)
    assert lake(world)["_known"].to_list() == [START + HOUR, START + 24.002 * HOUR]


def test_a_source_by_http_is_verified_as_any_other(world: Any, log: EventLog) -> None:
    made = system(world)
    for day in range(20):
        n = 40 if day < 19 else 2
        log.append("came", [event(f"{day}-{k}", 24 * day + k / 2 + 0.5, x=float(k)) for k in range(n)])
        now = world.at(START + (day + 1) * DAY)
        data.ingest(world.home, made, now)
        data.verify(world.home, made, now)
    [entry] = world.home.ledger.read(Verified)
    assert entry.record.source == "came"
    assert [check.name for check in entry.record.checks] == ["freshness", "hours"], "the last rows of the day did not come"


rows = st.lists(
    st.tuples(
        st.integers(0, 71),
        st.sampled_from(["a", "b", None]),
        st.sampled_from([0.0, 1.5, math.nan]),
        st.sampled_from([None, 1, 2**40]),
        st.sampled_from([None, "x", "2024-01-01"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=20,
    unique=True,  # of events the id says which are the same, of rows in files the content
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sampled_from([None, "2h", "booked"]))
def test_events_by_http_are_the_same_rows_by_file(
    worlds: Callable[[], Any], found: list[tuple[int, str | None, float, int | None, str | None, int]], known: str | None
) -> None:
    """Turn by turn, with what arrived too late for its turn in a file that grew."""
    frame = pl.DataFrame(
        {
            "id": pl.Series([r[1] for r in found], dtype=pl.String),
            "at": pl.Series([START + r[0] * HOUR for r in found], dtype=TIME),
            "x": pl.Series([r[2] for r in found], dtype=pl.Float64),
            "n": pl.Series([r[3] for r in found], dtype=pl.Int64),
            "word": pl.Series([r[4] for r in found], dtype=pl.String),
            "booked": pl.Series([START + (r[0] + r[5]) * HOUR for r in found], dtype=TIME),
        }
    )
    head = pl.DataFrame({"id": ["z"], "x": [0.5], "n": [1], "word": ["w"]}).with_columns(
        pl.lit(START - HOUR, dtype=TIME).alias("at"), pl.lit(START - HOUR, dtype=TIME).alias("booked")
    )
    frame = pl.concat([head.select(frame.columns), frame])  # it says every column's type
    tables = []
    for by_http in (False, True):
        world = worlds()
        made = system(world, known=known, data=None if by_http else frame)
        if by_http:
            source = made.sources["came"]
            with closing(EventLog(log_path(world.home.path), durable=False)) as log:
                for n, row in enumerate(frame.iter_rows(named=True)):
                    plain = {c: v.isoformat() if isinstance(v, datetime) else v for c, v in row.items()}
                    time = time_of(source, plain)
                    assert time is not None
                    log.append("came", [NewEvent(str(n), time, known_of(source, plain, time, 0), plain)])
        for hour in (24, 30, 80):
            data.ingest(world.home, made, world.at(START + hour * HOUR))
        put_aside = lake(world, "quarantine")["reason"].sort().to_list() if "quarantine" in world.home.lake.tables() else []
        accepted = lake(world).drop("_row").sort("_known", "_time", "id", "x", "n", "word", nulls_last=True)
        counts = [(r.upto, r.received, r.reasons, r.restated, r.late) for r in ingested(world)]
        schema = world.home.ledger.latest(SchemaFrozen).record.columns
        tables.append((accepted.select(sorted(accepted.columns)).rows(), put_aside, counts, schema))
    assert tables[0] == tables[1]


some_events = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 1), st.sampled_from("kl"), st.integers(1, 2)), min_size=1, max_size=12
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_events)
@example([("a", 0, "k", 1), ("b", 0, "k", 1), ("a", 0, "k", 2)])
def test_what_is_counted_online_is_what_is_in_the_lake(worlds: Callable[[], Any], found: list[tuple[str, int, str, int]]) -> None:
    """Ids, times, keys and contents in every combination: the same features before the turn, after it, and by the query."""
    world = worlds()
    came = nr.Source("came", key="key", time="at", owner="us")
    window = came.window("4h", every="1h", by={"key": "key"}).count().sum("x")
    asked = nr.Request({"key": "VARCHAR"}, key="key")
    made = world.declared(predict=asked, came=came, features=[window, came.last("x", by={"key": "key"}, max_age="9h")])
    with closing(EventLog(log_path(world.home.path), durable=False)) as log:
        for name, hour, key, x in found:
            at = START + hour * HOUR
            log.append("came", [NewEvent(name, micros(at), micros(at), {"key": key, "at": at.isoformat(), "x": x})])
        now = world.at(START + 4 * HOUR + HOUR / 2)
        before = Online.restore(world.home, made, log.unsealed("came", 2**62))
        data.ingest(world.home, made, now)
    assert "quarantine" not in world.home.lake.tables()
    spine = pl.DataFrame({"key": ["k", "l"], "_id": ["1", "2"]}).with_columns(pl.lit(now, dtype=TIME).alias("_time"))
    want = features.compute(world.home, made, spine).drop("_id").rows()
    for online in (before, Online.restore(world.home, made)):
        assert [online.features({"key": key}, micros(now)) for key in "kl"] == want


# ------------------------------------------------------------------------------------------------------------ one row


def test_known_is_the_later_of_arrival_and_declared() -> None:
    plain, delayed, told = (
        nr.Source("s", time="at"),
        nr.Source("s", time="at", known="1h"),
        nr.Source("s", time="at", known="seen"),
    )
    hour = 3_600_000_000
    assert [known_of(plain, {}, 5, arrival) for arrival in (3, 9)] == [5, 9]
    assert [known_of(delayed, {}, 0, arrival) for arrival in (5, 2 * hour)] == [hour, 2 * hour]
    row = {"seen": "1970-01-01T03:00:00+01:00"}
    assert [known_of(told, row, 0, arrival) for arrival in (5, 3 * hour)] == [2 * hour, 3 * hour]
    assert known_of(told, {"seen": 7 * hour}, 0, 0) == 7 * hour
    assert known_of(told, {"seen": "some day"}, 0, 4) == 4, "the row is refused anyway"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"n": 2**63}, "n"),
        ({"x": "1"}, "x"),
        ({"x": True}, "x"),
        ({"word": 1}, "word"),
        ({"yes": "TRUE!"}, "yes"),
        ({"day": "2024-13-01"}, "day"),
        ({"day": 3}, "day"),
        ({"seen": "2024-01-01T00:00:00"}, "seen"),
        ({"seen": "0001-01-01T00:00:00+05:00"}, None),
        ({"seen": 2**63}, "seen"),
        ({"list": [1]}, "list"),
        ({"new": {"a": 1}}, "new"),
        ({"new": 2**63}, "new"),
        ({"": 1}, ""),
        ({"_id": 1}, "_id"),
        ({"a\nb": 1}, "a\nb"),
        ({"N": 1}, "N"),
        ({f"c{k}": 1 for k in range(1001)}, "at"),
    ],
)
def test_what_does_not_fit_names_its_column_and_not_its_value(row: dict[str, Any], column: str | None) -> None:
    source = nr.Source("s", key="id", time="at")
    columns = {
        "id": "VARCHAR",
        "n": "BIGINT",
        "x": "DOUBLE",
        "word": "VARCHAR",
        "yes": "BOOLEAN",
        "day": "DATE",
        "seen": "TIMESTAMP WITH TIME ZONE",
        "list": "BIGINT[]",
    }
    sound = {"id": "a", "at": "2024-01-01T00:00:00Z", "n": 1, "x": 2, "word": "w", "yes": True, "day": "2024-01-01", "fresh": 1}
    assert fitted(source, columns, sound, micros(START)).reason == ""
    found = fitted(source, columns, sound | row, micros(START))
    assert (found.reason, found.column if found.reason else None) == ("unreadable value" if column is not None else "", column)
    assert all(str(value) not in found.why for value in row.values() if isinstance(value, str | float))


def test_types_of_new_columns() -> None:
    assert guessed([None]) is None
    assert guessed(["2024-01-01", "2024-02-31"]) == "VARCHAR", "there is no such day"
    assert guessed(["2024-01-01T00:00:00"]) == "VARCHAR", "without a zone it is no moment"
    assert guessed([1, "a", "b"]) == "VARCHAR"
    assert guessed([True, 1, 1]) == "BIGINT"
    assert refit(1, "VARCHAR") == (None, "a text is needed")


def test_opening_the_log_of_a_home_needs_the_file(world: Any) -> None:
    with arrivals.waiting(world.home) as log:
        assert log is None
