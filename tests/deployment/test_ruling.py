"""The short way says what the long way says, bit for bit, under any state of releases and any declaration it can take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import deployment
from noria.core import Verdict
from noria.deployment import log, seal
from noria.deployment.live import history, state
from noria.deployment.rollout.moves import Move
from noria.deployment.rollout.moves import _write as write_move
from noria.deployment.scoring import logged
from noria.deployment.service import rows as service_rows
from noria.deployment.service.service import Service
from noria.settings import Settings

START = datetime(2024, 1, 1, tzinfo=UTC)
UNITS = nr.Rollout(shadow="3d", canary=(0.2, 0.5), unit="unit", step="1d", patience="9d")
STATES = ("nothing", "release", "shadow", "canary", "second canary", "guarded", "against nothing")
REQUEST = nr.Request(
    {"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR", "vip": "BOOLEAN", "n": "BIGINT"}, key="unit"
)


def bring(world: Any, wanted: str) -> None:
    """Takes a world into a state of releases."""
    home, system = world.home, world.system
    first, second = world.bundle("x"), world.bundle("z")
    if wanted == "nothing":
        return
    if wanted != "against nothing":
        deployment.promote(home, system, first, by="ada")
        world.clock.move(world.clock.now() + timedelta(hours=1))
    if wanted == "release":
        return
    deployment.begin(home, system, second, world.gated(second))
    for stage, share, step in {"canary": [("canary", 0.3, 0)], "second canary": [("canary", 0.3, 0), ("canary", 0.6, 1)]}.get(
        wanted, []
    ):
        world.clock.move(world.clock.now() + timedelta(hours=1))
        live = state(home)
        write_move(home, live, live.rollout, Move(stage, share, step, Verdict.PASS, (), "as the test says"))
    if wanted == "guarded":
        world.clock.move(world.clock.now() + timedelta(hours=1))
        live = state(home)
        write_move(home, live, live.rollout, Move("full", 1.0, 0, Verdict.PASS, (), "as the test says"))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "unit": st.text(max_size=8),
            "x": st.floats(allow_nan=False, allow_infinity=False),
            "z": st.floats(0, 1),
            "shop": st.sampled_from(["a", "b", "é", ""]),
            "vip": st.booleans(),
            "n": st.integers(-(2**63), 2**63 - 1),
        }
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row["unit"],
)


@pytest.mark.parametrize("wanted", STATES)
@pytest.mark.parametrize(
    ("decide", "serve", "rollout"),
    [
        (nr.Decide(), nr.Serve(), UNITS),
        (nr.Decide(), nr.Serve(), nr.Rollout(shadow="3d", canary=(0.3, 0.6), switchback="1h", step="1d")),
        (nr.Decide(explore=0.3, holdout=0.2), nr.Serve(), UNITS),
        (nr.Decide("human"), nr.Serve(), UNITS),
        (nr.Decide("act when score > 0.4", explore=0.1), nr.Serve("partial", confidence=0.8), UNITS),
        (nr.Decide(), nr.Serve("assist"), UNITS),
        (nr.Decide(), nr.Serve("shadow"), UNITS),
    ],
    ids=["plain", "switched", "drawn", "by hand", "partial", "assist", "shadow"],
)
def test_the_short_way_is_the_long_way(
    world: Callable[..., Any], wanted: str, decide: nr.Decide, serve: nr.Serve, rollout: nr.Rollout
) -> None:
    asks = nr.Source("asks", key="unit", time="asked_at", owner="us")
    w = world(predict=REQUEST, features=[asks.columns("x", "z", "shop", "vip", "n")], decide=decide, serve=serve, rollout=rollout)
    bring(w, wanted)
    w.clock.move(w.clock.now() + timedelta(minutes=5))
    w.home.settings = Settings(durable=False)
    service = Service(w.home, w.system)
    try:

        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
        @given(rows=ROWS)
        def same(rows: list[dict[str, Any]]) -> None:
            assert service.state.ruling is not None
            now = w.clock.now()
            short = [service._short(service.state, row, now) for row in rows]
            group = log.Group(1, service.log._layouts[service.state.layout], [log._unpack(log._pack(row)) for row in short], None)
            mine = seal._framed(group)
            spine = service_rows.spine_of_rows(w.system, service_rows.row_schema(w.home, w.system), frozenset(), rows, now)
            values = service.state.lookup.frame(spine)
            theirs = logged(w.system, history(w.home), spine, values, bundles=service.bundles, now=now)
            order = ("_time", "_id")
            left, right = mine.predictions.sort(order), theirs.predictions.sort(order)
            assert left.columns == right.columns
            apart = {n: (left[n].to_list(), right[n].to_list()) for n in left.columns if not left[n].equals(right[n])}
            assert apart == {}
            assert mine.shadow.sort("_id", "_release").equals(theirs.shadow.sort("_id", "_release"))
            assert mine.unknown == theirs.unknown

        same()
    finally:
        service.close()


def test_a_state_with_an_estimator_of_another_kind_takes_the_long_way(world: Callable[..., Any]) -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    from noria.model import Column, Encoder, Model, Spec, pack
    from noria.model.design import fit_design
    from noria.model.foreign import foreign_from

    w = world()
    encoder = Encoder((Column("x", "number"),))
    x = np.linspace(0, 1, 60)[:, None]
    design = fit_design(encoder, x)
    fitted = ExtraTreesClassifier(5, random_state=1).fit(design.dense(x), x[:, 0] > 0.5)
    spec = Spec(
        system=w.system.name, candidate="c", recipe="trees", task="binary", decision={"kind": "expected", "threshold": 0.0}
    )
    sha = w.home.artifacts.put(pack(spec, Model(encoder, foreign_from(fitted, design, "logit")), pl.DataFrame({"x": x[:, 0]})))
    deployment.promote(w.home, w.system, sha, by="ada")
    w.home.settings = Settings(durable=False)
    service = Service(w.home, w.system)
    try:
        assert service.state.ruling is None
        assert service.one(b'{"row": {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}}') is None
    finally:
        service.close()
