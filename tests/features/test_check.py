"""Every mistake in the features is found, at once, with its place."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import DeclarationError
from noria.features import check_features, plan

asked = nr.Source("asked", key="id", time="at", owner="o")
events = nr.Source("events", key="id", time="at", owner="o")
SCHEMAS: dict[str, dict[str, Any]] = {
    "asked": {"id": pl.Int64, "k": pl.String, "n": pl.Int32, "born": pl.Datetime("us", "UTC"), "secret": pl.String},
    "events": {"id": pl.Int64, "k": pl.String, "x": pl.Float64, "when": pl.Datetime("us", "UTC"), "tags": pl.List(pl.String)},
}


def system(*features: Any, **more: Any) -> nr.System:
    objective = nr.Objective("p", nr.Value("0"), "log_loss", sensitive=("secret",))
    parts: dict[str, Any] = {"predict": asked, "label": nr.Label(events, "x > 0", within="1h", otherwise=False)}
    return nr.System(name="s", features=features, objective=objective, candidates=[], **(parts | more))


def test_a_sound_declaration_has_no_problem() -> None:
    sound = system(
        asked.columns("k", "n"),
        asked.sql("hour(born) + n").named("when"),
        asked.sql("hour(_time)").named("hour"),
        events.last("x", "k", by="k", max_age="1h"),
        events.window("2h", every="30m", by=("k",)).count().mean("x").count("tags").count("k").std("x > 1"),
        events.window("2h", every="30m", by=()).max('extract(hour from "when")'),
    )
    assert check_features(None, sound, SCHEMAS) == []
    assert check_features(None, sound) == []


@pytest.mark.parametrize(
    ("feature", "place", "message"),
    [
        (asked.columns("k").named("_k"), "features[0] '_k'", "begin with _ belong to Noria"),
        (asked.columns("k").named(" "), "features[0] ' '", "empty"),
        (asked.columns("k", "n").named("a", "A"), "features[1] 'A'", "that of features[0]"),
        (asked.sql("n + 1").named("ID"), "features[0] 'ID'", "a column of the predicted row"),
        (asked.columns("nope"), "features[0] 'nope'", '"nope" not found'),
        (asked.columns("born"), "features[0] 'born'", "TIMESTAMP WITH TIME ZONE"),
        (asked.columns("secret"), "features[0] 'secret'", "declared sensitive"),
        (asked.sql("upper(secret)").named("s"), "features[0] 's'", "declared sensitive"),
        (asked.sql("n +").named("s"), "features[0] 's'", "not SQL"),
        (asked.sql("n) or (true").named("s"), "features[0] 's'", "not SQL"),
        (asked.sql("random() * n").named("s"), "features[0] 's'", "random gives another value"),
        (asked.sql("born > current_date").named("s"), "features[0] 's'", "current_date gives another value"),
        (asked.sql("epoch(now() - born)").named("s"), "features[0] 's'", "now gives another value"),
        (asked.sql("(select max(x) from events)").named("s"), "features[0] 's'", "looks at other rows"),
        (asked.sql("sum(n)").named("s"), "features[0] 's'", "aggregates"),
        (asked.sql("row_number() over ()").named("s"), "features[0] 's'", "window functions"),
        (events.columns("x"), "features[0] 'x'", "not what is predicted"),
        (events.last("x", by="n", max_age="1h"), "features[0] 'events_x'", "no column 'n'"),
        (events.last("x", by={"n": "k"}, max_age="1h"), "features[0] 'events_x'", "can never be equal"),
        (events.last("x", by="k", max_age="soon"), "features[0] 'events_x'", "not a duration"),
        (events.last("x", by="k", max_age="0s"), "features[0] 'events_x'", "longer than nothing"),
        (events.last("tags", by="k", max_age="1h").named("t"), "features[0] 't'", "VARCHAR[]"),
        (events.window("2h", every="45m", by="k").count(), "features[0] 'events_count_by_k_2h'", "whole number"),
        (events.window("2h", every="30m", by="k").mean("k"), "features[0] 'events_mean_k_by_k_2h'", "needs a number"),
        (events.window("2h", every="30m", by="k").mean("*"), "features[0] 'events_mean_by_k_2h'", "needs an expression"),
        (events.window("2h", every="30m", by="k"), "features[0] window over 'events'", "no aggregate"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_place(feature: Any, place: str, message: str) -> None:
    problems = check_features(None, system(feature), SCHEMAS)
    assert [problem.place for problem in problems] == [place]
    assert message in problems[0].message
    assert problems[0].hint


def test_all_mistakes_come_at_once() -> None:
    wrong = system(asked.columns("nope", "born"), events.window("1h", every="7m", by="zip").mean("y"))
    problems = check_features(None, wrong, SCHEMAS)
    assert len({problem.place for problem in problems}) == 3
    assert len(problems) == 5
    with pytest.raises(DeclarationError) as raised:
        plan(wrong, SCHEMAS)
    assert len(raised.value.problems) == 3


def test_a_request_has_its_own_types() -> None:
    request = nr.Request({"k": "VARCHAR", "price": "DECIMAL(8,2)"}, key="k")
    rows = nr.Source("asked", key="k", time="at")
    asked_by_http = system(rows.columns("price", "k"), predict=request)
    assert check_features(None, asked_by_http, SCHEMAS) == []
    assert [column.numeric for column in plan(asked_by_http).columns] == [True, False]
