"""What comes in as JSON means the same by either way of reading it, and events are told apart by what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import NoriaError, SimulatedClock, micros
from noria.data.arrivals import settle
from noria.deployment.service.incoming import Incoming
from noria.deployment.service.reader import reader
from noria.deployment.service.rows import FieldError, checked
from noria.measure import given as read_given
from noria.settings import Settings
from noria.store import LABELS_SOURCE, EventLog, Home
from noria.store.events import log_path

KINDS: dict[str, pl.DataType] = {
    "text": pl.String(),
    "whole": pl.Int64(),
    "number": pl.Float64(),
    "truth": pl.Boolean(),
    "moment": pl.Datetime("us", "UTC"),
    "day": pl.Date(),
}
WRITTEN = [
    *("2024-01-31T06:00:00Z", "2024-01-31T06:00:00.123456+02:00", "2024-01-31T06:00:00", "2024-01-31", "20240131", "2024-02-30"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0000-01-01", "٢٠٢٤-٠١-٣١", "", "x"),
]
NOW = datetime(2024, 6, 1, tzinfo=UTC)
VALUES = (
    st.sampled_from(
        [*WRITTEN, None, [], {}, True, False, 0, 1, 1.0, 1.5, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1e308, 10**400]
    )
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.sampled_from([UTC, None])).map(datetime.isoformat)
    | st.dates().map(date.isoformat)
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(KINDS)), VALUES)
def test_the_short_way_takes_nothing_that_the_long_way_does_not(name: str, value: Any) -> None:
    """And where it takes something, it means the same."""
    short = reader({name: KINDS[name]}, frozenset({name}))(json.dumps({"row": {name: value}}).encode())
    try:
        long = checked(name, value, KINDS[name])
    except FieldError:
        assert short is None
    else:
        assert short is None or short[name] == long


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"])
def test_a_time_that_has_no_year_in_utc_is_refused(value: str) -> None:
    with pytest.raises(FieldError, match=r"^row.moment: it is out of reach$"):
        checked("moment", value, KINDS["moment"])
    assert reader({"moment": KINDS["moment"]}, frozenset())(json.dumps({"row": {"moment": value}}).encode()) is None


def test_a_day_is_written_as_a_day() -> None:
    assert checked("day", "2024-01-31", KINDS["day"]) == date(2024, 1, 31)
    for wrong in ("2024-01-31T00:00:00Z", "20240131", "2024-02-30"):
        with pytest.raises(FieldError, match="it is not a day"):
            checked("day", wrong, KINDS["day"])


def declared(**parts: Any) -> nr.System:
    """A system with events of ``people``, whose key is called ``id``, and labels of ``spent``, which are numbers."""
    people = nr.Source("people", key="id", time="at", owner="us")
    spent = nr.Source("spent", key="id", time="at", owner="us")
    given: dict[str, Any] = {
        "label": nr.Label(spent, "amount", within="1d", task="regression"),
        "features": [people.columns("age")],
        "objective": nr.Objective("How much?", nr.Value("-abs(act - label)"), "mae"),
        "candidates": [nr.Prior()],
        "decide": nr.Decide("score"),
    }
    return nr.System(name="spending", predict=people, **(given | parts))


@pytest.fixture
def home(tmp_path: Any) -> Iterator[Home]:
    with closing(Home.open(tmp_path / "home", Settings(durable=False), SimulatedClock(NOW))) as made:
        yield made


@pytest.fixture
def incoming(home: Home) -> Iterator[Incoming]:
    """What takes events of ``people`` and labels of ``spent``."""
    with closing(Incoming(home, declared())) as made:
        yield made


def test_where_id_is_a_column_events_are_told_apart_by_all_they_say(incoming: Any) -> None:
    first = {"id": 5, "at": "2024-05-01T00:00:00Z", "age": 41}
    second = first | {"at": "2024-05-02T00:00:00Z", "age": 42}
    name, appended = incoming.events("people", [first, second, first])
    assert (name, *appended) == ("people", 2, 1, ())
    (feed,) = [feed for feed in incoming.feeds() if feed.name == "people"]
    assert (feed.needed, feed.times, feed.own_id) == (("id", "at"), ("at",), True)


def test_nothing_of_a_batch_is_taken_when_one_does_not_fit(incoming: Any) -> None:
    good = {"id": 5, "at": "2024-05-01T00:00:00Z", "age": 41}
    for wrong in (
        {"at": "2024-05-01T00:00:00Z"},
        good | {"age": 2**63},
        good | {"_x": 1},
        good | {"at": "1800-01-01T00:00:00Z"},
        3,
    ):
        with pytest.raises(FieldError, match=r"^events\[1\]"):
            incoming.events("people", [good, wrong])
    assert incoming.events("people", [good])[1].accepted == 1


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"act": 10**400}, "act: it is not a finite number"),
        ({"act": True}, "act: it is not a finite number"),
        ({"label": 10**400}, "label: it is not a finite number"),
        ({"label": "1"}, "label: it is not a finite number"),
        ({"key": {"id": 5}}, "id: one of id and key is needed"),
        ({"label": None}, "label: it is null"),
        ({"lable": 1}, "lable: there is no such field"),
        ({"by": ""}, "by: "),
        ({"outcome_id": 5}, "outcome_id: "),
        ({"outcome_id": "x" * 513}, "outcome_id: "),
        ({"at": "0001-01-01T00:00:00+23:59"}, "at: it is out of reach"),
        ({"at": "1800-01-01T00:00:00Z"}, "at: it lies too far back"),
        ({"at": "2024-06-01T00:00:01Z"}, "at: it lies in the future"),
        ({"at": 0}, "at: it is not a time"),
    ],
)
def test_a_wrong_outcome_is_named(incoming: Any, change: dict[str, Any], place: str) -> None:
    good = {"id": "5@20240501T000000Z", "label": 2.5, "act": 3}
    with pytest.raises(NoriaError) as raised:
        incoming.outcomes([good | change])
    assert str(raised.value).startswith(f"outcomes[0].{place}")
    assert incoming.outcomes([good])[1].accepted == 1


def test_a_number_of_more_than_64_bits_is_the_number_it_stands_for(incoming: Any) -> None:
    assert incoming.outcomes([{"key": "5", "label": 10**30}])[1].accepted == 1
    assert incoming.outcomes([{"key": "5", "label": 1e30}])[1].duplicates == 1


def test_two_outcomes_with_long_names_are_two(incoming: Any) -> None:
    name = "x" * 511
    one, other = ({"id": "a", "label": 1.0, "outcome_id": name + end} for end in "ab")
    assert incoming.outcomes([one, other])[1].accepted == 2


def move(home: Home, by: timedelta) -> None:
    clock: Any = home.clock
    clock.move(clock.now() + by)


def test_a_label_by_key_is_new_in_every_cohort(home: Home, incoming: Incoming) -> None:
    """``every`` is a day; the clock begins on the edge of one."""
    said = {"key": "5", "label": 1.0}
    assert incoming.outcomes([said])[1].accepted == 1
    move(home, timedelta(hours=1))
    assert tuple(incoming.outcomes([said, said])[1]) == (1, 1, ()), "the first was in the cohort that ended then"
    move(home, timedelta(hours=23))
    assert incoming.outcomes([said])[1].duplicates == 1
    assert incoming.outcomes([said | {"label": 2.0}])[1].conflicts == (f"5@..{micros(NOW + timedelta(days=1))}/label",)
    move(home, timedelta(microseconds=1))
    assert incoming.outcomes([said | {"label": 2.0}])[1].accepted == 1
    some = [said | {"at": f"2024-05-01T0{hour}:00:00Z", "label": hour} for hour in (1, 2, 2)]
    assert tuple(incoming.outcomes(some)[1]) == (2, 1, ())
    assert tuple(incoming.outcomes([said | {"outcome_id": name, "label": 7} for name in "ab"])[1]) == (2, 0, ())


def test_a_decision_stands_however_late_another_comes(home: Home, incoming: Incoming) -> None:
    first = {"id": "5@20240501T000000Z", "act": 3.0, "by": "ada"}
    assert incoming.review(first)[1].accepted == 1
    assert incoming.outcomes([{"id": first["id"], "label": 2.5}])[1].accepted == 1
    assert incoming.events("people", [{"id": 5, "at": "2024-05-01T00:00:00Z", "age": 41}])[1].accepted == 1
    move(home, timedelta(days=30))
    with closing(EventLog(log_path(home.path), durable=False)) as log:
        settle(log, [event.seq for event in log.since(0)], home.clock.now())
        assert {event.source for event in log.since(0)} == {LABELS_SOURCE}
        assert log.unsealed(LABELS_SOURCE, 2**62) == []
    assert incoming.review(first)[1].duplicates == 1
    assert incoming.review(first | {"act": 4.0})[1].conflicts == (f"{first['id']}/review",)
    assert len(incoming.outcomes([{"id": first["id"], "label": 7.5}])[1].conflicts) == 1


NAMED = ("wait", "call", "visit")
CLASSES = {
    "label": nr.Label(nr.Source("spent", key="id", time="at", owner="us"), "amount", within="1d", task="multiclass"),
    "objective": nr.Objective("Which?", nr.Value("0"), "log_loss"),
}


@pytest.mark.parametrize(
    ("parts", "some", "read"),
    [
        ({}, {"label": 3, "act": 2}, (3.0, None, 2.0)),
        ({}, {"label": 3.0, "act": 2.0}, (3.0, None, 2.0)),
        (
            CLASSES | {"decide": nr.Decide("largest expected value", acts=NAMED)},
            {"label": "big", "act": "visit"},
            (None, "big", 2.0),
        ),
        (
            CLASSES | {"decide": nr.Decide("largest expected value", acts=(True, False))},
            {"label": "big", "act": True},
            (None, "big", 0.0),
        ),
        (
            CLASSES | {"decide": nr.Decide("largest expected value", acts=(True, False))},
            {"label": "big", "act": 0},
            (None, "big", 1.0),
        ),
    ],
)
def test_what_the_door_takes_the_turn_reads_as_it_was_meant(
    home: Home, parts: dict[str, Any], some: dict[str, Any], read: tuple[Any, ...]
) -> None:
    system = declared(**parts)
    with closing(Incoming(home, system)) as incoming, closing(EventLog(log_path(home.path), durable=False)) as log:
        incoming.outcomes([{"id": "a"} | some])
        (event,) = log.since(0)
        found = read_given(system, event.row)
        assert (found.label, found.name, found.act) == read
        assert incoming.outcomes([{"id": "a"} | some])[1].duplicates == 1
