"""A label that somebody gives wins, is joined whenever it comes, and is never lost: at worst it is put aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import data
from noria.core import Window, micros
from noria.data.labels import labelled
from noria.measure import closed
from noria.records import CohortClosed, Ingested, Scored
from noria.store import LABELS_SOURCE, EventLog, NewEvent
from noria.store.events import log_path
from noria.tables import LABELS

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def label(**parts: Any) -> dict[str, Any]:
    came = nr.Source("came", key="id", time="at", owner="us")
    return {"label": nr.Label(came, **({"expression": "x > 0", "within": "6h", "otherwise": False} | parts))}


def named(key: str, hour: float) -> str:
    at = START + hour * HOUR
    fraction = f".{at.microsecond:06d}" if at.microsecond else ""
    return f"{key}@{at:%Y%m%dT%H%M%S}{fraction}Z"


def asked_rows(*asked: tuple[str, float], **more: list[Any]) -> pl.DataFrame:
    at = [START + hour * HOUR for _, hour in asked]
    return pl.DataFrame({"_id": [named(*one) for one in asked], "id": [key for key, _ in asked], **more}).with_columns(
        pl.Series("_time", at, dtype=TIME)
    )


def came_rows(*rows: tuple[float, str, float]) -> pl.DataFrame:
    """(time, key, x); known at once."""
    at = pl.Series("_time", [START + r[0] * HOUR for r in rows], dtype=TIME)
    return pl.DataFrame({"id": [r[1] for r in rows], "x": [r[2] for r in rows]}).with_columns(at, at.alias("_known"))


@pytest.fixture
def log(world: Any) -> Iterator[EventLog]:
    with closing(EventLog(log_path(world.home.path), durable=False)) as made:
        yield made


def give(log: EventLog, hour: float, *, known: float | None = None, **row: Any) -> None:
    number = log.last() + 1
    at, later = START + hour * HOUR, START + (hour if known is None else known) * HOUR
    log.append(LABELS_SOURCE, [NewEvent(f"e{number}", micros(at), micros(later), row)])


def outcomes(world: Any) -> dict[str, tuple[float | None, float | None]]:
    """The label and the decision of the newest revision of each prediction."""
    frame = world.home.lake.read("outcomes").sort("_revision")
    return {row["_id"]: (row["_label"], row["_decided"]) for row in frame.iter_rows(named=True)}


def turn(world: Any, made: nr.System, now: datetime) -> list[CohortClosed]:
    world.at(now)
    data.ingest(world.home, made, now)
    return [entry.record for entry in data.close(world.home, made, now)]


def reasons(world: Any) -> list[dict[str, int]]:
    return [entry.record.reasons for entry in world.home.ledger.read(Ingested, prefix=f"ingest/{LABELS_SOURCE}/")]


def test_a_given_label_wins_over_the_source_and_over_silence(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    world.source("came", came_rows((2, "a", 1.0), (2, "b", 1.0)))
    world.predict(asked_rows(("a", 1), ("b", 1), ("c", 1), ("d", 1)))
    give(log, 3, id=named("a", 1), label=False, by="ada")
    give(log, 4, id=named("c", 1), label=1)
    give(log, 4, id=named("d", 1), act=True)
    [record] = turn(world, made, START + 2 * DAY)
    assert outcomes(world) == {
        named("a", 1): (0.0, None),
        named("b", 1): (1.0, None),
        named("c", 1): (1.0, None),
        named("d", 1): (0.0, 1.0),
    }
    assert (record.n, record.labelled, record.silent) == (4, 4, 1)
    known = dict(world.home.lake.read("outcomes").select("_id", "_known").rows())
    assert [known[named(key, 1)] for key in "abcd"] == [START + 3 * HOUR, START + 2 * HOUR, START + 4 * HOUR, None]
    rows = world.home.lake.read("labels")
    assert rows.schema == LABELS.columns
    assert rows.select("_id", "_label", "_act", "_by").rows()[0] == (named("a", 1), 0.0, None, "ada")
    [entry] = world.home.ledger.read(Ingested, prefix=f"ingest/{LABELS_SOURCE}/")
    assert (entry.record.received, entry.record.accepted) == (3, 3)


def test_a_label_by_key_applies_as_a_row_of_the_source_would(world: Any, log: EventLog) -> None:
    made = world.declared(**label(within="6h", horizon="2h"))
    hours = [1.0, 2.0, 5.0, 9.999, 10.0, 10.5]
    world.predict(asked_rows(*(("a", hour) for hour in hours), ("b", 9)))
    give(log, 12, key="a", label=True)
    turn(world, made, START + 2 * DAY)
    found = outcomes(world)
    assert [found[named("a", hour)][0] for hour in hours] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0], (
        "(4, 10): asked + 2h < 12 ≤ asked + 8h"
    )
    assert found[named("b", 9)][0] == 0.0


def test_a_key_of_several_columns_is_written_as_in_the_id(world: Any, log: EventLog) -> None:
    asked = nr.Source("asked", key=("shop", "till"), time="at", owner="us")
    made = world.declared(asked=asked, **label(by={"id": "id"}))
    world.predict(asked_rows(("north@x|3", 1), ("north@x|4", 1)))
    give(log, 2, key="north@x|3", label=True)
    turn(world, made, START + 2 * DAY)
    assert [one for one, _ in outcomes(world).values()] == [1.0, 0.0]


def test_the_newest_known_counts_and_all_are_kept(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    world.predict(asked_rows(("a", 1), ("b", 1), ("c", 1)))
    give(log, 5, id=named("a", 1), label=True, act=1)
    give(log, 2, known=6, id=named("a", 1), label=False)
    give(log, 3, known=7, key="b", label=True)
    give(log, 4, known=5, id=named("b", 1), label=False, act=False)
    give(log, 2, known=8, id=named("c", 1), act=True)
    give(log, 9, known=8, id=named("c", 1), act=False)
    turn(world, made, START + 2 * DAY)
    assert outcomes(world) == {named("a", 1): (0.0, 1.0), named("b", 1): (1.0, 0.0), named("c", 1): (0.0, 0.0)}
    assert world.home.lake.read("labels").height == 6


def test_a_given_label_counts_as_observed_and_a_persons_act_says_what_can_be_seen(world: Any, log: EventLog) -> None:
    made = world.declared(**label(observed_when="act and shown"))
    world.source("came", came_rows(*((2, key, 1.0) for key in "abcde")))
    rows = asked_rows(*((key, 1) for key in "abcde"), _act=[0.0, 0.0, 1.0, 1.0, None], shown=[True] * 4 + [False])
    world.predict(rows.with_columns(_act_propensity=pl.lit(0.9)))
    give(log, 3, id=named("a", 1), label=False)
    give(log, 3, id=named("b", 1), act=True)
    give(log, 3, id=named("c", 1), act=False)
    give(log, 3, id=named("e", 1), act=True)
    turn(world, made, START + 2 * DAY)
    assert [one for one, _ in outcomes(world).values()] == [0.0, 1.0, None, 1.0, None]
    frame = closed(world.home, made)
    assert frame["_act"].to_list() == [0.0, 1.0, 0.0, 1.0, 1.0], "the act that was taken"
    assert frame["_act_propensity"].to_list() == [0.9, None, None, 0.9, None]
    assert "_decided" not in frame.columns
    assert closed(world.home, made, columns=["_act"]).columns[:3] == ["_id", "_time", "_act"]


def test_classes_and_acts_by_name(world: Any, log: EventLog) -> None:
    came = nr.Source("came", key="id", time="at", owner="us")
    made = world.declared(
        label=nr.Label(came, "x", within="6h", otherwise="none", task="multiclass"),
        decide=nr.Decide("largest expected value", acts=("wait", "call", "visit")),
    )
    world.predict(asked_rows(("a", 1), ("b", 1)))
    give(log, 3, id=named("a", 1), label="big", act="visit")
    turn(world, made, START + 2 * DAY)
    frame = world.home.lake.read("outcomes")
    assert frame.select("_class", "_label", "_decided").rows() == [("big", None, 2.0), ("none", None, None)]


def test_a_label_after_closing_makes_a_revision(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    world.predict(asked_rows(("a", 1), ("b", 1), ("a", 25), ("odd", 25.5)))
    assert [record.revision for record in turn(world, made, START + 3 * DAY)] == [0, 0]
    give(log, 73, id=named("b", 1), label=True)
    [record] = turn(world, made, START + 3 * DAY + 2 * HOUR)
    assert (record.window.end, record.revision, record.mean) == (START + DAY, 1, 0.5)
    assert world.home.lake.read("outcomes").filter(pl.col("_revision") == 0).height == 4, "the old is kept"
    assert turn(world, made, START + 3 * DAY + 3 * HOUR) == []
    give(log, 26, known=76, key="a", label=True)
    [record] = turn(world, made, START + 3 * DAY + 5 * HOUR)
    assert (record.window.end, record.revision) == (START + 2 * DAY, 1)
    give(log, 77.5, id=named("odd", 25.5), act=True)
    [record] = turn(world, made, START + 3 * DAY + 6 * HOUR)
    assert (record.window.end, record.revision) == (START + 2 * DAY, 2)
    assert outcomes(world)[named("odd", 25.5)] == (0.0, 1.0)
    assert [r for r in reasons(world) if r] == []


def test_a_label_that_comes_before_its_prediction_is_held(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    give(log, 1.9, id=named("a", 2), label=True)
    assert turn(world, made, START + 3 * HOUR) == []
    world.predict(asked_rows(("a", 2)))
    [record] = turn(world, made, START + 2 * DAY)
    assert record.mean == 1.0
    assert reasons(world) == [{}]


def test_a_label_for_an_unknown_prediction_is_put_aside_once_and_joined_if_it_comes(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    world.at(START + HOUR)
    world.predict(asked_rows(("a", 1)))
    give(log, 3, id=named("lost", 2), label=True)
    give(log, 3, id="no time in it", act=True)
    give(log, 3, key="nobody", label=True)
    assert turn(world, made, START + 29 * HOUR) == []
    assert reasons(world) == [{}], "its cohort is open"
    turn(world, made, START + 30 * HOUR)
    assert reasons(world) == [{}, {"label for an unknown prediction": 2}]
    aside = world.home.lake.read("quarantine")
    assert aside.select("source", "reason", "_upto").unique().rows() == [
        (LABELS_SOURCE, "label for an unknown prediction", START + 30 * HOUR)
    ]
    assert {json.loads(row)["id"] for row in aside["row"]} == {named("lost", 2), "no time in it"}
    assert turn(world, made, START + 31 * HOUR) == []
    give(log, 32, id=named("lost too", 2), label=True)
    turn(world, made, START + 33 * HOUR)
    assert [r for r in reasons(world) if r] == [{"label for an unknown prediction": count} for count in (2, 1)]
    world.predict(asked_rows(("lost", 2)))
    [record] = turn(world, made, START + 34 * HOUR)
    assert (record.revision, record.n) == (1, 2)
    assert outcomes(world)[named("lost", 2)] == (1.0, None)
    assert sum(len(r) for r in reasons(world)) == 2, "none is put aside twice"


def test_where_nothing_was_ever_asked_labels_are_put_aside_once(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    give(log, 3, id=named("lost", 2), label=True)
    for day in (2, 3, 4):
        assert turn(world, made, START + day * DAY) == []
    assert reasons(world) == [{}, {"label for an unknown prediction": 1}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": True}, "no key"),
        ({"id": "a", "key": "b", "label": True}, "unreadable value"),
        ({"id": "a"}, "unreadable value"),
        ({"id": "a", "label": None, "act": None}, "unreadable value"),
        ({"id": "a", "label": 0.5}, "unreadable value"),
        ({"id": "a", "label": "yes"}, "unreadable value"),
        ({"id": 3, "label": True}, "unreadable value"),
        ({"id": "", "label": True}, "unreadable value"),
        ({"id": "a", "act": 2}, "unreadable value"),
        ({"id": "a", "act": "call"}, "unreadable value"),
        ({"id": "a", "label": True, "by": 3}, "unreadable value"),
        ({"id": "a", "label": True, "lable": True}, "unreadable value"),
    ],
)
def test_what_is_no_label_is_put_aside(world: Any, log: EventLog, row: dict[str, Any], reason: str) -> None:
    give(log, 1, **row)
    give(log, 1, id=named("a", 1), label=True)
    assert turn(world, world.declared(**label()), START + HOUR) == []
    assert reasons(world) == [{reason: 1}]
    assert world.home.lake.read("labels").height == 1
    assert log.unsealed(LABELS_SOURCE, 2**62) == []


def test_a_time_out_of_reach_is_put_aside(world: Any, log: EventLog) -> None:
    made = world.declared(**label())
    give(log, -24 * 365 * 200, known=1, id=named("a", 1), label=True)
    give(log, 24 * 365 * 30, known=1, id=named("a", 1), label=True)
    give(log, 1, known=24 * 365 * 30, id=named("a", 1), label=True)
    turn(world, made, START + HOUR)
    assert reasons(world) == [{"impossible time": 3}]


@pytest.mark.parametrize(
    ("policy", "act", "is_right"),
    [("score", 3.5, True), ("quantile 0.8", 2, True), ("score", True, False), ("score", 2**2000, False)],
)
def test_acts_that_are_numbers(world: Any, policy: str, act: Any, is_right: bool) -> None:
    from noria.core import DataFault
    from noria.measure import given as read

    made = world.declared(**label(expression="x", task="regression", otherwise=0), decide=nr.Decide(policy))
    if is_right:
        assert read(made, {"id": "a", "act": act, "label": 7}).act == float(act)
    else:
        with pytest.raises(DataFault, match="act: it is not a finite number"):
            read(made, {"id": "a", "act": act})


@pytest.mark.parametrize("kill", ["seal", "nothing"])
def test_killed_before_the_seal_labels_come_once(world: Any, log: EventLog, monkeypatch: pytest.MonkeyPatch, kill: str) -> None:
    made = world.declared(**label())
    give(log, 1, id=named("a", 1), label=True)
    give(log, 1, id=named("a", 1), label=3)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    if kill == "seal":
        monkeypatch.setattr(EventLog, "seal", die)
        with pytest.raises(KeyboardInterrupt):
            data.ingest(world.home, made, world.at(START + HOUR))
        monkeypatch.undo()
    else:
        data.ingest(world.home, made, world.at(START + HOUR))
    data.ingest(world.home, made, world.at(START + 2 * HOUR))
    assert reasons(world) == [{"unreadable value": 1}]
    assert world.home.lake.read("labels").height == 1
    assert log.unsealed(LABELS_SOURCE, 2**62) == []


# ------------------------------------------------------------------------------------------------- asked after closing


@pytest.mark.parametrize("kind", ["request", "every", "source"])
def test_what_is_asked_into_a_closed_cohort_gets_its_outcome(world: Any, kind: str) -> None:
    """Asked, and scored, while the turn was closing; sealed by the next: its ``_scored_at`` is before the closing."""
    source = nr.Source("asked", key="id", time="at", owner="us")
    kinds: dict[str, Any] = {
        "request": nr.Request({"id": "VARCHAR", "n": "BIGINT"}, key="id"),
        "every": nr.Every("1d", of=source),
        "source": source,
    }
    made = world.declared(predict=kinds[kind], **label())
    world.at(START + 2 * DAY)
    world.source("came", came_rows((3, "late", 1.0)))
    world.predict(asked_rows(("a", 1), ("b", 25)))
    world.clock.move(START + 3 * DAY)
    assert len(data.close(world.home, made, world.clock.now())) == 2
    now = world.at(START + 3 * DAY + HOUR)
    sealed(world, asked_rows(("late", 2), ("new", 72.5)), scored_at=START + 3 * DAY - timedelta(seconds=1))
    [entry] = data.close(world.home, made, now)
    assert (entry.record.window.end, entry.record.revision, entry.record.n) == (START + DAY, 1, 2)
    assert outcomes(world)[named("late", 2)] == (1.0, None)
    assert data.close(world.home, made, world.at(now + HOUR)) == []


def sealed(world: Any, rows: pl.DataFrame, *, scored_at: datetime) -> None:
    """Requests of the service's log, as deployment seals them."""
    schema = world.home.lake.schema("predictions")
    frame = rows.with_columns(pl.lit(scored_at, dtype=TIME).alias("_scored_at"))
    frame = frame.with_columns(pl.lit(None).cast(kind).alias(c) for c, kind in schema.items() if c not in frame.columns)
    frame = frame.select(list(schema)).sort("_time", "_id")
    commit = world.home.lake.write("predictions", frame, key="requests/1")
    window = Window(frame["_time"].min() - timedelta(microseconds=1), frame["_time"].max())
    record = Scored(window=window, n=frame.height, rows=commit.rows, variants={}, releases={}, acts={})
    world.home.commit(record, key="requests/1", tables=[commit])


# ------------------------------------------------------------------------------------------------------------ property

Gift = tuple[bool, int, int, int, bool | None, bool | None]  # by id?, which, time, known, label, act
asked_strategy = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), min_size=1, max_size=5, unique=True)
gifts_strategy = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(0, 4),
        st.integers(0, 30),
        st.integers(0, 30),
        st.sampled_from([None, True, False]),
        st.sampled_from([None, True, False]),
    ).filter(lambda gift: gift[4] is not None or gift[5] is not None),
    max_size=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked_strategy, gifts_strategy, st.tuples(st.integers(0, 40), st.integers(0, 4), st.integers(1, 12)))
def test_given_labels_equal_their_definition(
    worlds: Callable[[], Any], asked: list[tuple[str, int]], gifts: list[Gift], shape: tuple[int, int, int]
) -> None:
    """Brute force over all pairs; and however the labels came in turns, what closed in the end is the same."""
    closing_hour, horizon, within = shape
    made_label = label(within=f"{within}h", horizon=f"{horizon}h")
    world = worlds()
    made = world.declared(**made_label)
    world.predict(asked_rows(*asked))
    with closing(EventLog(log_path(world.home.path), durable=False)) as log:
        for n, (own, which, time, known, said, act) in enumerate(gifts):
            target = {"id": named(*asked[which % len(asked)])} if own else {"key": "ab"[which % 2]}
            row = target | {"label": said, "act": act}
            at, later = START + time * HOUR, START + known * HOUR + timedelta(seconds=n)
            log.append(LABELS_SOURCE, [NewEvent(str(n), micros(at), micros(later), row)])
    data.ingest(world.home, made, world.at(START + 40 * HOUR))
    now = START + closing_hour * HOUR
    found = {
        row["_id"]: row for row in labelled(world.home, made, Window(START - DAY, START + 3 * DAY), now).iter_rows(named=True)
    }
    for key, hour in asked:
        applying = [
            (START + known * HOUR + timedelta(seconds=n), said, act)
            for n, (own, which, time, known, said, act) in enumerate(gifts)
            if START + known * HOUR + timedelta(seconds=n) <= now
            and (
                asked[which % len(asked)] == (key, hour)
                if own
                else "ab"[which % 2] == key and hour + horizon < time <= hour + horizon + within
            )
        ]
        labels = [(when, said) for when, said, _ in applying if said is not None]
        acts = [(when, act) for when, _, act in applying if act is not None]
        row = found[named(key, hour)]
        assert (row["_label"], row["_known"]) == ((float(max(labels)[1]), max(labels)[0]) if labels else (0.0, None))
        assert row["_decided"] == (float(max(acts)[1]) if acts else None)
        assert row["_silent"] == (not labels)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gifts_strategy, st.lists(st.integers(20, 90), min_size=1, max_size=4, unique=True))
def test_labels_in_many_turns_are_labels_in_one(worlds: Callable[[], Any], gifts: list[Gift], stops: list[int]) -> None:
    """Whatever closed in between, the newest revision in the end says the same."""
    asked = [("a", 1), ("b", 2), ("a", 15)]
    found = []
    for turns in ([], sorted(stops)):
        world = worlds()
        made = world.declared(**label(within="5h"))
        world.predict(asked_rows(*asked))
        with closing(EventLog(log_path(world.home.path), durable=False)) as log:
            waiting = [
                (3.0 * known + n / 100, own, which, time, said, act)
                for n, (own, which, time, known, said, act) in enumerate(gifts)
            ]
            for hour in (*turns, 100):
                for known, own, which, time, said, act in sorted(waiting):
                    if known <= hour:
                        target = {"id": named(*asked[which % 3])} if own else {"key": "ab"[which % 2]}
                        give(log, time, known=known, **target, label=said, act=act)
                waiting = [one for one in waiting if one[0] > hour]
                turn(world, made, START + hour * HOUR)
        found.append(outcomes(world))
    assert found[0] == found[1]
