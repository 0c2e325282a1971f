"""What answers when the model fails or is late, and that the log says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import noria as nr
from noria import deployment
from noria.core import Verdict
from noria.deployment import routing
from noria.deployment.rollout.moves import Move
from noria.deployment.rollout.moves import _write as write_move
from noria.deployment.service.fallback import Sticky
from noria.records import Scored

START = datetime(2024, 1, 1, tzinfo=UTC)
GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}
REQUEST = nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR"}, key="unit")
FEATURES = [nr.Source("asks", key="unit", time="asked_at").columns("x", "z", "shop")]
RULE = nr.Rule("case when z > 0.5 then 1.0 else 0.0 end", "by z")


@pytest.fixture
def broken(world: Callable[..., Any]) -> Callable[[nr.Serve], Any]:
    """A world with two releases, ``z`` and then ``x``, asked by request only."""

    def make(serve: nr.Serve) -> Any:
        w = world(predict=REQUEST, features=FEATURES, serve=serve)
        for column in ("z", "x"):
            deployment.promote(w.home, w.system, w.bundle(column), by="ada")
            w.clock.move(w.clock.now() + timedelta(hours=1))
        return w

    return make


def fail(*_: Any) -> Any:
    raise RuntimeError("the model broke")


def sealed(w: Any, ask: Any) -> list[dict[str, Any]]:
    ask.stop()
    deployment.sweep(w.home, w.system)
    return w.home.lake.read("predictions").sort("_time", "_id").to_dicts()


@pytest.mark.parametrize(
    ("fallback", "name", "acts"),
    [("nothing", "nothing", [False, False]), ("previous", "previous", [False, True]), (RULE, "by_z", [False, True])],
)
def test_a_model_that_fails_is_answered_for(running: Any, broken: Any, fallback: Any, name: str, acts: list[bool]) -> None:
    w = broken(nr.Serve(fallback=fallback, sticky="0s"))
    ask = running(w)
    champion = ask.app.service.state.champion
    ask.app.service.state.ruling.voices[champion]._score = fail
    said = [ask.predict(GOOD | {"unit": unit, "z": z}).json() for unit, z in (("a", 0.1), ("b", 0.9))]
    assert [answer["act"] for answer in said] == acts
    assert {(answer["score"], answer["fallback"], answer["release"]) for answer in said} == {(None, f"error: {name}", champion)}
    rows = sealed(w, ask)
    assert [row["_fallback"] for row in rows] == [f"error: {name}"] * 2
    assert [(row["_score"], row["_act"], row["_act_propensity"]) for row in rows] == [(None, float(act), 1.0) for act in acts]
    record = w.home.ledger.latest(Scored).record
    assert (record.n, record.fallbacks, record.refused) == (2, 2, 2)


@pytest.mark.parametrize(
    ("fallback", "name", "act"), [("nothing", "nothing", False), ("previous", "previous", True), (RULE, "by_z", True)]
)
def test_a_release_that_cannot_be_loaded_is_answered_for_by_the_long_way(
    running: Any, broken: Any, fallback: Any, name: str, act: bool
) -> None:
    w = broken(nr.Serve(fallback=fallback))
    w.home.artifacts.path(deployment.state(w.home).champion).write_bytes(b"the disk forgot")
    ask = running(w)
    assert ask.app.service.state.ruling is None
    said = ask("POST", "/v1/predict", json={"rows": [GOOD | {"unit": "a", "z": 0.9}, GOOD | {"unit": "b", "z": 0.9}]}).json()
    assert [(one["act"], one["fallback"], one["score"]) for one in said["answers"]] == [(act, f"error: {name}", None)] * 2
    assert {row["_fallback"] for row in sealed(w, ask)} == {f"error: {name}"}


def test_what_is_late_is_answered_by_the_fallback_and_nobody_waits_longer(running: Any, broken: Any) -> None:
    w = broken(nr.Serve(fallback="previous", timeout="50ms"))
    ask = running(w)
    service, block = ask.app.service, threading.Event()
    scored = service._scored

    def slow(*given: Any) -> Any:
        block.wait(20)
        return scored(*given)

    service._scored = slow
    said = ask("POST", "/v1/predict", json={"rows": [GOOD | {"unit": "a", "z": 0.9}]}).json()["answers"][0]
    assert (said["act"], said["fallback"], said["score"]) == (True, "timeout: previous", None)
    block.set()
    (row,) = sealed(w, ask)
    assert (row["_id"], row["_fallback"], row["_act"], row["x"]) == (said["id"], "timeout: previous", 1.0, 0.9)


def test_whoever_got_the_fallback_keeps_it_for_a_while(running: Any, broken: Any) -> None:
    w = broken(nr.Serve(fallback="nothing", sticky="1m"))
    ask = running(w)
    voice = ask.app.service.state.ruling.voices[ask.app.service.state.champion]
    right = voice._score
    voice._score = fail
    assert ask.predict(GOOD).json()["fallback"] == "error: nothing"
    voice._score = right
    w.clock.move(w.clock.now() + timedelta(seconds=30))
    assert ask.predict(GOOD).json()["fallback"] == "sticky: nothing"
    assert ask.predict(GOOD | {"unit": "somebody else"}).json()["fallback"] == ""
    w.clock.move(w.clock.now() + timedelta(seconds=31))
    again = ask.predict(GOOD).json()
    assert (again["fallback"], again["score"], again["act"]) == ("", 0.9, True)


def test_a_fallback_that_fails_itself_does_nothing(running: Any, broken: Any) -> None:
    w = broken(nr.Serve(fallback="previous"))
    ask = running(w)
    service = ask.app.service
    service.state.ruling.voices[service.state.champion]._score = fail
    service.state.fallback._default = ("previous", fail)
    said = ask.predict(GOOD | {"z": 0.9}).json()
    assert (said["act"], said["fallback"]) == (False, "error: nothing")


def test_where_people_decide_a_failure_waits_for_them(running: Any, broken: Any) -> None:
    w = broken(nr.Serve("partial", confidence=0.8, fallback="previous"))
    ask = running(w)
    sure = ask.predict(GOOD | {"unit": "sure", "x": 0.95}).json()
    assert (sure["act"], sure["review"]) == (True, False)
    unsure = ask.predict(GOOD | {"unit": "unsure", "x": 0.6}).json()
    assert (unsure["act"], unsure["review"], unsure["score"]) == (None, True, 0.6)
    service = ask.app.service
    service.state.ruling.voices[service.state.champion]._score = fail
    failed = ask.predict(GOOD | {"unit": "failed"}).json()
    assert (failed["act"], failed["review"]) == (None, True)
    waiting = ask("GET", "/v1/reviews").json()["reviews"]
    while len(waiting) < 2:  # the log's thread has a moment's delay
        waiting = ask("GET", "/v1/reviews").json()["reviews"]
    assert {one["id"] for one in waiting} == {unsure["id"], failed["id"]}
    counts = ask("POST", "/v1/reviews", json={"id": unsure["id"], "act": True, "by": "ada", "label": True}).json()
    assert counts["accepted"] == 1
    assert {one["id"] for one in ask("GET", "/v1/reviews").json()["reviews"]} == {failed["id"]}


@pytest.mark.parametrize("why", ["error", "timeout", "sticky"])
def test_the_fallback_answers_for_the_variant_that_should_have_and_never_acts_on_the_hold_out(
    running: Any, world: Any, why: str
) -> None:
    serve = nr.Serve(fallback=nr.Rule("1.0", "always"), timeout="50ms", sticky="1m")
    w = world(predict=REQUEST, features=FEATURES, serve=serve, decide=nr.Decide(holdout=0.3))
    champion, challenger = w.bundle("x"), w.bundle("z")
    deployment.promote(w.home, w.system, champion, by="ada")
    w.clock.move(w.clock.now() + timedelta(hours=1))
    deployment.begin(w.home, w.system, challenger, w.gated(challenger))
    w.clock.move(w.clock.now() + timedelta(hours=1))
    live = deployment.state(w.home)
    write_move(w.home, live, live.rollout, Move("canary", 0.5, 0, Verdict.PASS, (), "as the test says"))
    w.clock.move(w.clock.now() + timedelta(hours=1))
    ask = running(w)
    service, block = ask.app.service, threading.Event()
    units = [f"u{number}" for number in range(60)]
    rows = [GOOD | {"unit": unit, "z": 0.9} for unit in units]
    if why == "timeout":
        scored = service._scored
        service._scored = lambda *given: (block.wait(20), scored(*given))[1]
        said = ask("POST", "/v1/predict", json={"rows": rows}).json()["answers"]
        block.set()
    else:
        if why == "sticky":
            for unit in units:
                service.sticky.hold(unit, 2**62)
        for voice in service.state.ruling.voices.values():
            voice._score = fail
        said = [ask.predict(row).json() for row in rows]
    mine = routing.challenged(w.system.name, 1, units, 0.5).tolist()
    held = routing.held_out(w.system.name, units, 0.3).tolist()
    assert any(m and h for m, h in zip(mine, held, strict=True))
    for answer, challenged, out in zip(said, mine, held, strict=True):
        assert answer["fallback"] == f"{why}: always"
        assert (answer["variant"], answer["variant_propensity"]) == ("challenger" if challenged else "champion", 0.5)
        assert answer["release"] == (challenger if challenged else champion)
        assert (answer["act"], answer["act_propensity"]) == ((False, 0.3) if out else (True, 0.7))
    logged = {row["_id"]: row for row in sealed(w, ask)}
    for answer in said:
        row = logged[answer["id"]]
        assert (row["_variant"], row["_release"], row["_fallback"]) == (answer["variant"], answer["release"], answer["fallback"])
        assert (row["_act"], row["_act_propensity"]) == (float(answer["act"]), pytest.approx(answer["act_propensity"]))


def test_another_release_holds_nobody_to_what_the_last_could_not_do(running: Any, broken: Any) -> None:
    w = broken(nr.Serve(fallback="nothing", sticky="1m"))
    ask = running(w)
    service = ask.app.service
    service.state.ruling.voices[service.state.champion]._score = fail
    assert ask.predict(GOOD).json()["fallback"] == "error: nothing"
    deployment.rollback(w.home, w.system, by="ada")
    while ask("GET", "/v1/status").json()["release"] == 2:
        pass
    assert ask.predict(GOOD).json()["fallback"] == ""


def test_sticky_forgets() -> None:
    sticky = Sticky(1.0)
    sticky.hold("a", 0)
    assert sticky.holds("a", 999_999)
    assert not sticky.holds("b", 0)
    assert not sticky.holds("a", 1_000_000)
    assert not sticky.holds("a", 0)  # it is gone
    never = Sticky(0.0)
    never.hold("a", 0)
    assert not never.holds("a", 0)
