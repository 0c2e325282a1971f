"""Guardrails on the business: they are measured before a model is there, and fire before anybody asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from noria_tests_small_world import DAY, START, World

import noria as nr
from noria import business, data, deployment, monitoring
from noria.core import Verdict, Window
from noria.measure import Decision
from noria.model import Column, Encoder, Model, Passthrough, Spec, pack
from noria.monitoring.windows import value_of
from noria.records import Alerted, CohortClosed, Monitored, Released, RolloutMoved, Valued

CLICKED, VALUE = "outcome.clicked", "value_per_prediction"
RAILS = (nr.AtLeast(CLICKED, 0.1), nr.AtLeast(VALUE, -0.3))


def declared(rails: Any = RAILS, **changes: Any) -> dict[str, Any]:
    """An objective that pays for clicks, while the label only says whether something was looked at."""
    facts = nr.Source("facts", key="unit", time="at", owner="us")
    value = nr.Value("case when act then clicked - 0.2 else 0 end", "EUR", low=-0.2, high=0.8)
    return {
        "outcomes": {"clicked": nr.Outcome(facts, "clicked", within="1h", otherwise=0.0)},
        "objective": nr.Objective("What to show?", value, "log_loss", guardrails=rails),
    } | changes


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def make(**changes: Any) -> World:
            world = World.open(tmp_path, rows_a_day=150, **changes)
            stack.enter_context(world.home)
            stack.enter_context(world.home.hold("test"))
            world.seed_sources()
            return world

        yield make


def close(world: World, end: datetime, clicks: float) -> None:
    """Closes a day whose rows were clicked with that chance where the label is true."""
    random = np.random.default_rng([17, (end - START).days])
    asked = world.asked[end]
    clicked = (random.random(asked.height) < clicks) & (asked["label"].to_numpy() == 1)
    truth = asked.select(
        "_id",
        "_time",
        pl.lit(end, pl.Datetime("us", "UTC")).alias("_cohort"),
        pl.lit(0, pl.Int32).alias("_revision"),
        pl.col("label").alias("_label"),
        pl.lit(None, pl.String).alias("_class"),
        pl.col("_time").alias("_known"),
        pl.lit(None, pl.Float64).alias("_decided"),
        pl.Series("clicked", clicked.astype(float)),
    )
    n = truth.height
    record = CohortClosed(
        window=Window(end - DAY, end),
        revision=0,
        n=n,
        labelled=n,
        silent=0,
        mean=float(asked["label"].mean()),
        delay={},
        rows="",  # type: ignore[arg-type]
    )
    key = f"cohort/{end.isoformat()}/0"
    world.home.commit(record, key=key, tables=[world.home.lake.write("outcomes", truth.sort("_time", "_id"), key=key)])


def tell(world: World, first: int, last: int, clicks: float) -> None:
    for day in range(first, last):
        end = START + (day + 1) * DAY
        world.score(end)
        close(world, end, clicks)
        monitoring.watch(world.home, world.system, end)
        monitoring.alert(world.home, world.system, end)
        business.account(world.home, world.system, end)


def bundle(world: World) -> str:
    """A model that reads the truth, and believes that what is true is clicked at 45 %."""
    decision = msgspec.to_builtins(Decision("expected", 0.0, outcomes={"clicked": {"true": 0.45, "false": 0.0}}))
    spec = Spec(system=world.system.name, candidate="x", recipe="linear", task="binary", decision=decision)
    model = Model(Encoder((Column("x", "number"),)), Passthrough(0.5, 0.0, 1.0))
    return world.home.artifacts.put(pack(spec, model, pl.DataFrame({"x": [0.0, 0.25, 1.0]})))


def release(world: World) -> None:
    world.home.commit(Released(number=1, bundle=bundle(world), previous=None, reason="by hand"), key="released/1")


def opened(world: World, name: str) -> list[Alerted]:
    return [e.record for e in world.home.ledger.read(Alerted) if e.record.name == name and e.record.state == "open"]


def test_business_is_measured_before_there_is_a_model(small: Any) -> None:
    world = small(**declared())
    tell(world, 0, 3, 0.4)
    assert not world.home.ledger.read(Released)
    books = [entry.record for entry in world.home.ledger.read(Valued)]
    assert [(book.total, book.n) for book in books[1:]] == [(0.0, 150)] * 3  # the first is the empty day before
    assert {standing.name for standing in books[-1].policies} >= {"do nothing", "always act"}
    _, first, *_ = [e.record for e in world.home.ledger.read(Monitored, prefix="monitored/outcomes/")]
    assert first.release is None
    clicked = world.home.lake.read("outcomes", columns=["clicked", "_time"])
    of_day = clicked.filter(pl.col("_time") <= START + DAY)["clicked"].mean()
    assert value_of(first, "guardrail", CLICKED) == pytest.approx(of_day)
    assert value_of(first, "guardrail", VALUE) == 0.0
    assert value_of(first, "guardrail rows", CLICKED) == 150


def test_clicks_and_revenue_down_fire_although_the_metric_is_as_good_as_ever(small: Any) -> None:
    world = small(**declared())
    release(world)
    tell(world, 0, 16, 0.45)
    assert not opened(world, "guardrail")
    tell(world, 16, 34, 0.1)
    watched = world.home.ledger.read(Monitored, prefix="monitored/outcomes/")[1:]
    metric = np.array([value_of(entry.record, "log_loss", "champion") for entry in watched], float)
    assert metric[16:].mean() == pytest.approx(metric[:16].mean(), abs=0.03)
    fired = opened(world, "guardrail")
    assert CLICKED in [alert.subject for alert in fired]
    assert all(alert.harm for alert in fired)
    assert "it has to be at least 0.1" in next(alert.message for alert in fired if alert.subject == CLICKED)


def test_a_challenger_that_breaks_a_business_guardrail_is_not_launched(small: Any) -> None:
    """It is the better one by the metric and worth no less, and what it brings about is not clicked."""
    world = small(
        **declared(
            [nr.AtLeast(CLICKED, 0.1)],
            rollout=nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="1d", patience="9d"),
            gate=nr.Gate(block="6h", margin=5.0),
        )
    )
    challenger = bundle(world)
    deployment.begin(world.home, world.system, challenger, world.gated(challenger))
    for day in range(12):
        end = START + (day + 1) * DAY
        world.score(end)
        close(world, end, 0.02)
        deployment.advance(world.home, world.system, end)
    last = world.home.ledger.read(RolloutMoved)[-1].record
    rail = [check for check in last.checks if check.name == "guardrail"]
    assert last.stage in ("rolled back", "withdrawn")
    assert rail
    assert rail[0].subject == CLICKED
    assert rail[0].verdict is not Verdict.PASS


def test_what_is_no_outcome_is_named(small: Any, tmp_path: Path) -> None:
    world = small(**declared((nr.AtLeast("outcome.cliked", 0.1), nr.AtLeast("valu_per_prediction", 0))))
    problems = {problem.place: problem for problem in data.check(world.system, tmp_path)}
    assert "outcome.clicked" in problems["objective.guardrails[0]"].hint
    assert "value_per_prediction" in problems["objective.guardrails[1]"].hint
