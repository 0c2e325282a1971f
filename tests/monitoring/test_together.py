"""Monitors of a window of traffic beyond single columns: quiet worlds are quiet, planted changes are found, and estimates withdraw themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace as replaced

import noria as nr
from noria import monitoring
from noria.core import Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.causes.model import miscalibration
from noria.monitoring.diversity import diversity
from noria.monitoring.expected import _against
from noria.monitoring.inputs import inputs_of
from noria.monitoring.labelled import _mixture
from noria.monitoring.labelshift import label_shift
from noria.monitoring.recalibration import explained
from noria.monitoring.sample import NAME, sample_of
from noria.monitoring.windows import found, recent, value_of
from noria.records import Alerted, Signal
from noria.stats import nearest

ERROR = 0.0045
DAY = timedelta(days=1)


def signals(story: Any, about: str, count: int, name: str, subject: str) -> list[Signal]:
    made = [found(record.signals, name, subject) for record in recent(story.home, about, count)]
    assert None not in made
    return made  # type: ignore[return-value]  # none is None


def fails(some: list[Signal]) -> int:
    return sum(signal.verdict is Verdict.FAIL for signal in some)


@pytest.fixture
def released(begin: Any, told: Any) -> Any:
    def make(world: Any, days: int = 44) -> Any:
        story = begin()
        story.tell(world, days)
        story.release(world)
        return story

    return make


def test_a_changed_correlation_is_found_though_no_column_moves(released: Any, told: Any) -> None:
    world = told.World()
    story = released(world)
    story.tell(world, 10)
    story.tell(world.but(tied=0.8), 5)
    monitoring.watch(story.home, story.system, story.now)
    domain = signals(story, "traffic", 15, "domain", "inputs")
    assert fails(domain[:10]) == 0
    assert fails(domain[10:]) >= 4
    columns = [s for r in recent(story.home, "traffic", 5) for s in r.signals if s.name == "js" and s.level == "feature"]
    assert fails(columns) <= 1
    expected = signals(story, "traffic", 1, "expected", "log_loss")[0]
    assert (expected.value, expected.verdict) == (None, Verdict.NOT_ENOUGH_DATA)
    assert "classifier" in expected.note


def test_combinations_never_seen_are_found_though_no_column_moves(released: Any, told: Any) -> None:
    world = told.World(tied=0.98)
    story = released(world)
    story.tell(world, 10)
    story.tell(world.but(tied=0.0), 3)
    monitoring.watch(story.home, story.system, story.now)
    regions = signals(story, "traffic", 13, "regions", "inputs")
    assert fails(regions[:10]) == 0
    assert fails(regions[10:]) == 3
    assert regions[-1].value > 0.2
    edge = signals(story, "outcomes", 1, "outliers", "edge cases")[0]
    handled = signals(story, "outcomes", 1, "outliers", "handled")[0]
    assert handled.value > 5 * edge.value, "the model does not read y: outliers in y are no edge cases"


def test_quiet_windows_say_what_closed_outcomes_then_show(released: Any, told: Any) -> None:
    world = told.World(rows=250, noise=0.2)
    story = released(world)
    story.tell(world, 20)
    monitoring.watch(story.home, story.system, story.now)
    for metric, subject in (("log_loss", "log_loss"), ("accuracy", "accuracy")):
        said = signals(story, "traffic", 20, "expected", subject)
        came = [value_of(record, metric, "champion") for record in recent(story.home, "outcomes", 20)]
        assert sum(s.low <= c <= s.high for s, c in zip(said, came, strict=True)) >= 18
        assert fails(said) == 0
    precision = signals(story, "traffic", 20, "expected", "precision")
    came = [value_of(record, "guardrail", "precision") for record in recent(story.home, "outcomes", 20)]
    assert sum(s.low <= c <= s.high for s, c in zip(precision, came, strict=True)) >= 18
    assert fails(signals(story, "traffic", 20, "label shift", "label")) == 0
    assert fails(signals(story, "traffic", 20, "domain", "inputs")) == 0
    assert len({s.subject for r in recent(story.home, "traffic", 20) for s in r.signals if s.name == NAME}) == 1


def test_an_estimate_withdraws_itself_when_closed_cohorts_speak_of_another_concept(released: Any, told: Any) -> None:
    world = told.World()
    story = released(world)
    story.tell(world, 3)
    monitoring.watch(story.home, story.system, story.now)
    assert signals(story, "traffic", 1, "expected", "log_loss")[0].value is not None
    for _ in range(6):
        story.tell(world.but(slope=-1.2), 1)
        monitoring.watch(story.home, story.system, story.now)
    last = signals(story, "traffic", 1, "expected", "log_loss")[0]
    assert last.value is None
    assert "same x" in last.note or "calibrated" in last.note
    assert fails(signals(story, "outcomes", 3, "concept", "loss given x")) == 3


def test_few_reference_windows_are_not_enough_data(released: Any, told: Any) -> None:
    story = released(told.World(), 20)
    story.tell(told.World(x_mean=5), 1)
    monitoring.watch(story.home, story.system, story.now)
    signal = signals(story, "traffic", 1, "domain", "inputs")[0]
    assert signal.value > 0.9
    assert (signal.bound, signal.verdict) == (None, Verdict.NOT_ENOUGH_DATA)
    estimate = signals(story, "traffic", 1, "expected", "log_loss")[0]
    assert (estimate.value, estimate.verdict) == (None, Verdict.NOT_ENOUGH_DATA)
    assert "fewer than 30 windows" in estimate.note


@pytest.mark.parametrize(
    ("which", "note", "says"),
    [
        (("label shift", "label"), "", "labels' share has shifted"),
        (("domain", "inputs"), "the reference has no window from this time of the year", "time of the year"),
    ],
)
def test_an_estimate_withdraws_itself_when_nothing_speaks_for_it(
    released: Any, told: Any, which: tuple[str, str], note: str, says: str
) -> None:
    """A quiet window keeps its estimate, and loses it with one verdict less."""
    story = released(told.World())
    story.tell(told.World(), 1)
    monitoring.watch(story.home, story.system, story.now)
    [record] = recent(story.home, "traffic", 1)
    sample, _ = sample_of(story.home, story.system, record.release, [record])  # type: ignore[misc]
    verdict = Verdict.NOT_ENOUGH_DATA if note else Verdict.FAIL
    other = [replaced(s, verdict=verdict, note=note) if (s.name, s.subject) == which else s for s in record.signals]
    assert other != list(record.signals)
    against = partial(_against, story.home, story.system, sample, release=record.release)
    assert against(record.signals) == ""
    assert says in against(other)


def test_inputs_keep_missing_new_and_far_values_apart() -> None:
    random = np.random.default_rng(0)
    seen = pl.DataFrame({"x": random.normal(0, 1, 500), "c": random.choice(["a", "b"], 500)})
    inputs = inputs_of(seen, ["x", "c"])
    there = inputs.points(seen)
    odd = pl.DataFrame({"x": [0.0, None, 30.0, 0.0], "c": ["a", "a", "a", "new"]})
    far = nearest(inputs.points(odd), there)
    assert far[0] < 0.05
    assert (far[1:] > 0.4).all()
    assert inputs.points(odd.drop("c")).shape == there[:4].shape
    assert inputs.points(odd.with_columns(x=pl.lit("text"))).shape == there[:4].shape


def mixture_of(random: np.random.Generator, share: float, n: int, days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = (random.random(n * days) < share).astype(float)
    z = random.normal(1.5 * label, 1)
    return label, 1 / (1 + np.exp(-(1.5 * z - 1.97))), np.repeat(np.arange(days), n)


def test_label_shift_finds_a_changed_base_rate_and_withdraws_from_anything_else() -> None:
    random = np.random.default_rng(5)
    mixture = _mixture(*mixture_of(random, 0.3, 200, 30), ERROR)
    assert mixture is not None
    quiet = [label_shift(mixture, mixture_of(random, 0.3, 200, 1)[1], ERROR, seen=True) for _ in range(100)]
    assert fails(quiet) <= 2
    assert sum(s.value is None for s in quiet) <= 3
    shifted = label_shift(mixture, mixture_of(random, 0.6, 200, 1)[1], ERROR, seen=True)
    assert shifted.verdict is Verdict.FAIL
    assert shifted.low < 0.6 < shifted.high
    other = label_shift(mixture, np.full(200, 0.45), ERROR, seen=True)
    assert other.value is None
    assert "mixture" in other.note
    useless = _mixture(mixture_of(random, 0.3, 200, 30)[0], random.random(6000), np.repeat(np.arange(30), 200), ERROR)
    assert "condition number" in label_shift(useless, random.random(200), ERROR, seen=True).note
    assert label_shift(mixture, np.full(20, 0.4), ERROR, seen=True).verdict is Verdict.NOT_ENOUGH_DATA


def test_a_loop_that_narrows_what_it_acts_on_is_found(told: Any) -> None:
    random = np.random.default_rng(6)
    system = told.declaration()
    past: list[Any] = []
    verdicts = []
    for day in range(90):
        narrow = max(0, day - 45) / 40
        kind = random.choice(list("abcdef"), 300)
        chance = np.where(kind == "a", 0.4, 0.4 * (1 - min(narrow, 0.95)))
        act = (random.random(300) < chance).astype(float)
        frame = pl.DataFrame({"kind": kind, "_act": act, "_score": random.random(300), "_act_propensity": np.ones(300)})
        made = diversity(system, frame, past[-42:], ERROR)
        verdicts.append(found(made, "diversity", "kind").verdict)  # type: ignore[union-attr]
        past.append(SimpleNamespace(signals=made))
    assert set(verdicts[:30]) == {Verdict.NOT_ENOUGH_DATA}
    assert set(verdicts[30:46]) == {Verdict.PASS}
    assert set(verdicts[-10:]) == {Verdict.FAIL}


def test_exploration_that_stopped_is_found(told: Any) -> None:
    import noria as nr

    system = told.declaration(decide=nr.Decide(explore=0.1))
    random = np.random.default_rng(7)

    def day(explored: float) -> Signal | None:
        chance = np.where(random.random(600) < explored / 2, 0.05, 0.95)
        frame = pl.DataFrame({"_act": np.ones(600), "_score": random.random(600), "_act_propensity": chance})
        return found(diversity(system, frame, [], ERROR), "exploration", "acts")

    assert day(0.1).verdict is Verdict.PASS  # type: ignore[union-attr]
    assert day(0.0).verdict is Verdict.FAIL  # type: ignore[union-attr]


def test_a_combined_score_is_no_probability_and_nothing_takes_it_for_one(begin: Any, told: Any) -> None:
    """The same world twice: what reads scores as chances speaks of the plain one, and is silent where the score combines several objectives."""
    told_of: dict[bool, set[str]] = {}
    for combines in (False, True):
        rated = nr.Source("rated", None, key="id", time="at", owner="us")
        plain = told.declaration()
        more = {"outcomes": {"stars": nr.Outcome(rated, "stars", within="6h")}, "combine": nr.Combine({"stars": 0.5})}
        system = told.declaration(objective=replace(plain.objective, metric="auc"), **(more if combines else {}))
        story = begin(system, seed=int(combines))
        story.tell(told.World(rows=60), 44)
        story.release(told.World())
        story.tell(told.World(rows=60, base=-2.3), 8)
        monitoring.watch(story.home, story.system, story.now)
        windows = [*recent(story.home, "traffic", 1), *recent(story.home, "outcomes", 1)]
        told_of[combines] = {signal.name for window in windows for signal in window.signals}
        alert = Alerted(
            alert="alert/miscalibrated", name="miscalibrated", subject="score", state="open", since=told.START + 44 * DAY, harm=True,
            size=Estimate(0.1), bound=0.0, message="planted",
        )  # fmt: skip
        entry = story.home.commit(alert, key="alert/miscalibrated/open")
        said = explained(story.home, story.system, alert, []).reason
        assert ("combines several objectives" in said) is combines
        cause = miscalibration(Case(story.home, story.system, story.now, (entry,)))
        assert ("combines several objectives" in cause.evidence[0].detail) is combines
        assert cause.verdict is (Verdict.NOT_ENOUGH_DATA if combines else Verdict.FAIL)
    chances = {"calibration", "label shift", "expected", "concept", "residual", "slice"}
    assert chances <= told_of[False]
    assert not chances & told_of[True]
    assert {"domain", "diversity"} <= told_of[True]
