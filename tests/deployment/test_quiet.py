"""What runs in shadow costs nobody time, whatever it is and however slow; what it says reaches the log all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import deployment
from noria.measure import Decision
from noria.model import Column, Encoder, Model, Spec, pack
from noria.model.design import fit_design
from noria.model.foreign import foreign_from

START = datetime(2024, 1, 1, tzinfo=UTC)
REQUEST = nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR", "at": "TIMESTAMPTZ"}, key="unit")
FEATURES = [nr.Source("asks", key="unit", time="asked_at").columns("x", "z", "shop")]
GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a", "at": "2024-01-01T00:00:00Z"}


def foreign(w: Any) -> str:
    """A bundle of a kind that has no short way."""
    from sklearn.ensemble import ExtraTreesClassifier

    encoder, x = Encoder((Column("x", "number"),)), np.linspace(0, 1, 60)[:, None]
    design = fit_design(encoder, x)
    fitted = ExtraTreesClassifier(5, random_state=1).fit(design.dense(x), x[:, 0] > 0.5)
    decision = msgspec.to_builtins(Decision("expected", 0.0))
    spec = Spec(system=w.system.name, candidate="c", recipe="trees", task="binary", decision=decision)
    return w.home.artifacts.put(pack(spec, Model(encoder, foreign_from(fitted, design, "logit")), pl.DataFrame({"x": x[:, 0]})))


@pytest.fixture
def shadowed(world: Callable[..., Any]) -> Any:
    """A world whose release has a short way, and whose challenger in shadow has none."""
    w = world(predict=REQUEST, features=FEATURES, serve=nr.Serve(timeout="100ms"))
    deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
    w.clock.move(w.clock.now() + timedelta(hours=1))
    challenger = foreign(w)
    deployment.begin(w.home, w.system, challenger, w.gated(challenger))
    w.clock.move(w.clock.now() + timedelta(hours=1))
    return w


def until(ask: Any, rows: int) -> None:
    """Waits until this many rows of the log are on the disk and nothing is left to be asked in shadow."""
    while ask.app.service.quiet._rows or ask.app.service.log.committed < rows:
        ask("GET", "/v2/health/live")


def test_a_challenger_without_a_short_way_leaves_the_short_way_to_the_champion(running: Any, shadowed: Any) -> None:
    w, ask = shadowed, running(shadowed)
    ruling = ask.app.service.state.ruling
    assert ruling is not None
    assert len(ruling.slow) == 1
    one = ask.predict(GOOD).json()
    many = ask("POST", "/v1/predict", json={"rows": [GOOD | {"unit": "v", "x": 0.2}, GOOD | {"unit": "w"}]}).json()["answers"]
    assert [answer["score"] for answer in (one, *many)] == [0.9, 0.2, 0.9]
    until(ask, 3)
    ask.stop()
    deployment.sweep(w.home, w.system)
    said = w.home.lake.read("shadow").sort("_id")
    assert said["_id"].to_list() == sorted(answer["id"] for answer in (one, *many))
    assert said["_release"].unique().to_list() == list(ruling.slow)
    assert said["_score"].null_count() == 0
    logged = w.home.lake.read("predictions").sort("_id")
    again = deployment.Bundles(w.home).get(next(iter(ruling.slow))).predict(logged)
    assert said["_score"].to_list() == again.tolist()


def test_what_is_said_later_than_the_turn_is_sealed_by_the_next(
    running: Any, shadowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, ask, block = shadowed, running(shadowed), threading.Event()
    service = ask.app.service
    bundle = service.bundles.get(next(iter(service.state.ruling.slow)))
    predict = bundle.predict
    monkeypatch.setattr(bundle, "predict", lambda frame: (block.wait(20), predict(frame))[1])
    said = ask.predict(GOOD).json()
    while service.log.committed < 1:
        ask("GET", "/v2/health/live")
    first = deployment.sweep(w.home, w.system)
    assert (first.record.n, w.home.lake.schema("shadow")) == (1, None)
    block.set()
    until(ask, 1)
    ask.stop()
    second = deployment.sweep(w.home, w.system)
    assert second.record.n == 0
    assert w.home.lake.read("shadow")["_id"].to_list() == [said["id"]]
    assert deployment.sweep(w.home, w.system) is None
    assert w.home.lake.read("predictions").height == 1


def test_a_shadow_that_hangs_delays_nobody(running: Any, shadowed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, block = running(shadowed), threading.Event()
    service = ask.app.service
    (slow,) = service.state.ruling.slow
    bundle = service.bundles.get(slow)
    predict = bundle.predict
    monkeypatch.setattr(bundle, "predict", lambda frame: (block.wait(20), predict(frame))[1])
    for number in range(30):
        assert ask.predict(GOOD | {"unit": f"u{number}"}).json()["fallback"] == ""
        many = ask("POST", "/v1/predict", json={"rows": [GOOD | {"unit": f"v{number}"}]}).json()["answers"]
        assert many[0]["fallback"] == ""
    assert ask("GET", "/v2/health/ready").status_code == 200
    block.set()
    until(ask, 60)


def test_too_many_that_wait_for_a_shadow_are_dropped_and_counted(
    running: Any, shadowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.deployment.service.quiet.MOST", 3)
    ask, block = running(shadowed), threading.Event()
    service = ask.app.service
    bundle = service.bundles.get(next(iter(service.state.ruling.slow)))
    predict = bundle.predict
    monkeypatch.setattr(bundle, "predict", lambda frame: (block.wait(20), predict(frame))[1])
    for number in range(10):
        assert ask.predict(GOOD | {"unit": f"u{number}"}).json()["score"] == 0.9
    block.set()
    until(ask, 10)
    assert service.metrics.counts["shadow_dropped"][()] == 7
