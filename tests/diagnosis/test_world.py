"""Planted faults of the world, the model and the purpose, each found as what it is: early, with two or five days of evidence, and late."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import diagnosis, monitoring
from noria.core import Check, Estimate, Verdict, Window
from noria.diagnosis import ranking
from noria.diagnosis import tested as outcome
from noria.diagnosis.case import Case
from noria.diagnosis.causes import acting, concept, model, purpose, shift
from noria.records import Alerted, Diagnosed, Entry, Linked, Monitored, Signal, Turned, Valued

PAST = 62
WORLD = (
    shift.covariate_shift, shift.traffic_mix, shift.label_shift, concept.sudden, concept.gradual, concept.recurring, model.miscalibration,
    model.slice_failure, acting.acting_changed_the_outcome, purpose.threshold_stale,
)  # fmt: skip


def flipped(frame: pl.DataFrame, where: Any, share: float, random: np.random.Generator) -> pl.DataFrame:
    """The labels of some rows turned round."""
    label = frame["_label"].to_numpy().copy()
    hit = np.asarray(where) & (random.random(len(frame)) < share)
    label[hit] = 1 - label[hit]
    return frame.with_columns(pl.Series("_label", label))


def altered(told: Any, change: Any) -> Any:
    """A story whose rows are changed by ``change(frame, random, day)``."""

    class Altered(told.Story):  # type: ignore[misc,name-defined]
        def _rows(self, world: Any, random: Any, start: Any, n: int) -> pl.DataFrame:
            made: pl.DataFrame = change(super()._rows(world, random, start, n), random, (start - told.START).days)
            return made

    return Altered


def slice_fault(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
    return flipped(frame, (frame["kind"] == "b").to_numpy(), 0.5, random)


def acting_fault(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
    return flipped(frame, ((frame["_act"] == 1) & (frame["_label"] == 1)).to_numpy(), 0.7, random)


def creeping(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
    """Day by day more rows follow a concept turned round."""
    turned = (random.random(len(frame)) < 1 / (1 + np.exp(1.3 + 1.2 * frame["x"].to_numpy()))).astype(float)
    use = random.random(len(frame)) < 0.9 * min(1.0, (day - PAST) / 24)
    return frame.with_columns(pl.Series("_label", np.where(use, turned, frame["_label"].to_numpy())))


def coming_and_going(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
    """Three days of every six the concept is turned round."""
    if (day - PAST) % 6 >= 3:
        return frame
    turned = (random.random(len(frame)) < 1 / (1 + np.exp(1.3 + 1.2 * frame["x"].to_numpy()))).astype(float)
    return frame.with_columns(pl.Series("_label", turned))


def more_positives(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
    """Half of the negatives are not asked about."""
    return frame.filter((pl.col("_label") == 1) | pl.Series(random.random(len(frame)) < 0.2))


def mixed(share: float) -> Any:
    """Rows of kind c have other labels, and make up ``share`` of the rows."""

    def change(frame: pl.DataFrame, random: Any, day: int) -> pl.DataFrame:
        drawn, kind = random.random(len(frame)), frame["kind"].to_numpy()
        keep = np.where(kind == "c", drawn < share, drawn < (1 - share) / 2)
        kept = frame.filter(pl.Series(keep))
        return flipped(kept, (kept["kind"] == "c").to_numpy(), 0.35, random)

    return change


def odd(x: np.ndarray) -> np.ndarray:
    return np.where(x > 1, 0.05, 1 / (1 + np.exp(1.3 - 1.2 * x)))


def bold(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-0.3 - 1.2 * x)))


def planted(
    begin: Any, told: Any, days: int, *, world: Any = None, fault: Any = None, before: Any = None, start: Any = None
) -> Any:
    """A release that was right for a month, and ``days`` of a fault."""
    story = begin()
    ordinary = start or told.World()
    plain = told.Story if before is None else altered(told, before)
    story.__class__ = plain
    story.tell(ordinary, 30)
    story.release(ordinary)
    story.tell(ordinary, PAST - 30)
    story.__class__ = plain if fault is None else altered(told, fault)
    story.tell(world or ordinary, days)
    return story


def alert(story: Any, told: Any, days: int, *, harm: bool = True, name: str = "decay") -> Entry[Alerted]:
    since = story.now - days * told.DAY
    made: Entry[Alerted] = story.home.commit(
        Alerted(
            alert=f"alert/{name}/p/{days}", name=name, subject="p", state="open", since=since, harm=harm, size=Estimate(-0.1, -0.2, -0.05, days),
            bound=0.0, message="the release does worse" if harm else "x is far from its reference", level="outcome" if harm else "feature",
        ),
        key=f"alert/{name}/p/{days}/open",
    )  # fmt: skip
    return made


def first(story: Any, told: Any, days: int) -> str:
    case = Case(story.home, story.system, story.now, (alert(story, told, days),))
    found = [made for cause in WORLD if (made := cause(case)).verdict is Verdict.FAIL]
    chances = ranking.probabilities([cause(case) for cause in WORLD])
    return max(found, key=lambda one: chances[one.name]).name if found else ""


@pytest.mark.parametrize(
    ("days", "expected", "given"),
    [
        (2, "sudden concept change", {"world": {"slope": -1.2}}),
        (24, "sudden concept change", {"world": {"base": -0.3}}),
        (24, "gradual concept change", {"fault": creeping}),
        (18, "recurring concept change", {"fault": coming_and_going}),
        (2, "label shift", {"fault": more_positives, "world": {"rows": 300}}),
        (2, "traffic mix", {"before": mixed(0.33), "fault": mixed(0.75), "world": {"rows": 900}, "start": {"rows": 900}}),
        (2, "miscalibration", {"world": {"score": bold}}),
        (5, "slice failure", {"fault": slice_fault}),
        (5, "acting changed the outcome", {"fault": acting_fault}),
        (5, "threshold stale", {"world": {"threshold": 0.9}}),
        (2, "covariate shift", {"world": {"x_mean": 1.6, "score": odd}, "start": {"score": odd}}),
        (5, "", {}),
    ],
)
def test_each_fault_is_told_from_the_others(begin: Any, told: Any, days: int, expected: str, given: dict[str, Any]) -> None:
    made = {k: told.World(**v) if k in ("world", "start") else v for k, v in given.items()}
    assert first(planted(begin, told, days, **made), told, days) == expected


@pytest.mark.parametrize(("name", "explained"), [("inputs moved together", True), ("concept change", False)])
def test_moved_inputs_that_lose_nothing_explain_an_alert_of_inputs_and_none_of_the_label(
    begin: Any, told: Any, name: str, explained: bool
) -> None:
    story = planted(begin, told, 5, world=told.World(x_mean=1.6))
    made = shift.covariate_shift(Case(story.home, story.system, story.now, (alert(story, told, 5, harm=False, name=name),)))
    assert (made.strength == shift.FACT) is explained
    assert (made.verdict is Verdict.FAIL) is explained


def test_an_alert_about_a_slice_is_evidence_from_the_first_day(begin: Any, told: Any) -> None:
    """The alert has tested 14 windows, the diagnosis may have one."""
    story = planted(begin, told, 1, fault=slice_fault)
    said = Alerted(
        alert="alert/slice/kind", name="slice", subject="kind", state="open", since=story.now - told.DAY, harm=False, size=Estimate(0.2, 0.1, 0.3, 14),
        bound=0.01, message="the excess loss on kind=b is 0.2", level="outcome", slice="kind=b",
    )  # fmt: skip
    entry = story.home.commit(said, key="alert/slice/kind/open")
    made = model.slice_failure(Case(story.home, story.system, story.now, (entry,)))
    assert made.verdict is Verdict.FAIL
    assert made.strength == model.ALERTED
    assert made.evidence[0].subject == "kind=b"
    assert "kind=b" in made.act


def test_an_earlier_time_fits_again(begin: Any, told: Any) -> None:
    """A concept of two months ago comes back after a time of another one, to which the release belongs."""
    story = begin()
    turned, ordinary = told.World(slope=-1.2), told.World()
    story.tell(turned, 40)
    story.tell(ordinary, 30)
    story.release(ordinary)
    story.tell(ordinary, 30)
    story.tell(turned, 12)
    assert first(story, told, 12) == "recurring concept change"


def test_costs_eat_what_the_decisions_bring(begin: Any, told: Any) -> None:
    story = begin(told.declaration(costs=nr.Costs(prediction=0.2, day=5.0)))
    story.tell(told.World(), 30)
    story.release(told.World())
    story.tell(told.World(), 20)
    for day in range(20):
        window = Window(story.now - (20 - day) * told.DAY, story.now - (19 - day) * told.DAY)
        gain = 10.0 + day % 3
        sums = {story.bundle: {"n": 120.0, "value": gain, "do nothing": 0.0}}
        record = Valued(
            window=window, n=120, currency="USD", total=gain, per_prediction=Estimate(gain / 120, n=1), releases=(), policies=(), sums=sums
        )  # fmt: skip
        story.home.commit(record, key=f"valued/{day}")
    case = Case(story.home, story.system, story.now, ())
    made = purpose.cost_above_value(case)
    assert made.verdict is Verdict.FAIL
    assert made.strength > 0.8
    assert made.evidence[0].estimate.below(-10)  # type: ignore[union-attr]  # it has one
    free = begin(seed=1)
    free.tell(told.World(), 12)
    assert purpose.cost_above_value(Case(free.home, free.system, free.now, ())).verdict is Verdict.PASS


def test_a_broken_link_is_a_misaligned_metric(begin: Any, told: Any) -> None:
    story = planted(begin, told, 12)
    record = Linked(
        window=Window(story.now - 20 * told.DAY, story.now), metric="log_loss", slope=Estimate(-0.4, -0.7, -0.1, 30), pairs=30, verdict=Verdict.FAIL,
        account="a better log loss brought less money",
    )  # fmt: skip
    story.home.commit(record, key="linked/1")
    made = purpose.misaligned(Case(story.home, story.system, story.now, (alert(story, told, 12),)))
    assert made.verdict is Verdict.FAIL
    assert any("brought less money" in one.detail for one in made.evidence)


def test_a_loop_that_narrows(begin: Any, told: Any) -> None:
    story = begin(told.declaration(label=_seen_when_acting(told)))
    story.tell(told.World(), 30)
    story.release(told.World())
    story.tell(told.World(), 30)
    for day in range(30):
        start = story.now - (30 - day) * told.DAY
        value = 0.9 + 0.01 * (day % 3) - (0.4 if day >= 20 else 0.0)
        signal = Signal("diversity", "kind", "prediction", value)
        record = Monitored(window=Window(start, start + told.DAY), about="traffic", release=story.bundle, n=1, signals=(signal,))
        story.home.commit(record, key=f"monitored/traffic/{day}")
    narrowing = Case(story.home, story.system, story.now, (alert(story, told, 10, harm=False, name="diversity"),))
    made = acting.feedback_loop(narrowing)
    assert made.verdict is Verdict.FAIL
    assert made.step == "scoping"
    before = Case(story.home, story.system, story.now, (), about=Window(story.now - 15 * told.DAY, story.now - 11 * told.DAY))
    assert acting.feedback_loop(before).verdict is not Verdict.FAIL
    whole = planted(lambda: begin(seed=3), told, 10)
    free = Case(whole.home, whole.system, whole.now, (alert(whole, told, 10),))
    assert acting.feedback_loop(free).verdict is Verdict.PASS


def _seen_when_acting(told: Any) -> Any:
    label = told.declaration().label
    return nr.Label(label.source, "bad", within="6h", otherwise=False, task="binary", observed_when="act")


# ------------------------------------------------------------------------------------------------- one diagnosis a fault


def test_a_fact_is_diagnosed_as_a_fact(begin: Any, told: Any) -> None:
    story = planted(begin, told, 6, world=told.World(x_mean=-1.5))
    alert(story, told, 6, harm=False, name="drift")
    record = diagnosis.diagnose(story.home, story.system, story.now)[0].record
    assert "fact, not harm" in record.account
    assert record.back_to == "monitoring"
    assert not record.blocks_retraining


def test_a_later_alert_of_the_same_fault_updates_its_diagnosis(begin: Any, told: Any) -> None:
    story = planted(begin, told, 3, world=told.World(slope=-1.2))
    one = alert(story, told, 3, harm=False, name="miscalibrated")
    early = diagnosis.diagnose(story.home, story.system, story.now)[0]
    story.tell(told.World(slope=-1.2), 2)
    other = alert(story, told, 5)
    late = diagnosis.diagnose(story.home, story.system, story.now)[0]
    assert late.record.symptoms == (one.key, other.key)
    assert early.id in late.parents
    assert [e.id for e in diagnosis.open_faults(story.home, story.now)] == [late.id]
    assert late.record.causes[0].name == "sudden concept change"


def test_an_open_fault_is_looked_at_again_and_said_again_only_when_it_is_another(begin: Any, told: Any) -> None:
    story = planted(begin, told, 1)
    alert(story, told, 1)
    early: Diagnosed = diagnosis.diagnose(story.home, story.system, story.now)[0].record
    assert early.causes[0].verdict is not Verdict.FAIL
    story.home.commit(Turned(did=("wheel",)), key="turn/1")
    looked = []
    for day in range(1, 9):
        story.tell(told.World(slope=-1.2))
        record = Monitored(
            window=Window(story.now - told.DAY, story.now), about="outcomes", release=story.bundle, n=1, signals=()
        )
        story.home.commit(record, key=f"monitored/outcomes/{day}")
        made = diagnosis.diagnose(story.home, story.system, story.now + timedelta(hours=7))
        looked.append(bool(made))
        if made:
            assert made[0].record.causes[0].name == "sudden concept change"
            assert made[0].key.endswith("/3")
        story.home.commit(Turned(did=("monitoring",)), key=f"turn/{day + 1}")
    assert looked == [False, False, True, False, False, False, False, False]


def test_the_account_of_a_quiet_period(begin: Any, told: Any) -> None:
    story = planted(begin, told, 14)
    made = diagnosis.of_period(story.home, story.system, Window(story.now - 14 * told.DAY, story.now))
    assert made.symptoms == ()
    assert "Nothing was wrong" in made.account
    assert story.home.ledger.count(Diagnosed) == 0


def test_the_account_of_a_time_before_any_record_says_that_it_cannot_say(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 3)
    made = diagnosis.of_period(story.home, story.system, Window(told.START - 60 * told.DAY, told.START - 30 * told.DAY))
    assert "Nothing was wrong" not in made.account
    assert made.account.startswith("Whether anything was wrong cannot be said: ")
    assert f"There are closed labels from {told.START:%Y-%m-%d} to " in made.account


# ------------------------------------------------------------------------------------------------------------ the ranking


def found_as(
    name: str, strength: float, *, step: Any = "development", blocks: bool = False, found: bool = True
) -> outcome.Tested:
    return outcome.Tested(name, step, "", (Check("a test", Verdict.FAIL if found else Verdict.PASS),), strength, blocks)


def test_an_upstream_fault_explains_what_follows_from_it() -> None:
    shifted = found_as("covariate shift", 0.8)
    alone = ranking.probabilities([shifted], ranking.Parameters())
    upstream = ranking.probabilities([shifted, found_as("unit changed", 0.9, step="data", blocks=True)], ranking.Parameters())
    assert alone["covariate shift"] > 0.6
    assert upstream["unit changed"] > 0.8
    assert upstream["covariate shift"] < 0.2
    cleared = ranking.probabilities(
        [shifted, found_as("unit changed", 0.0, step="data", blocks=True, found=False)], ranking.Parameters()
    )
    assert cleared["covariate shift"] == pytest.approx(alone["covariate shift"], abs=0.02)


def test_fitted_numbers_replace_the_defaults() -> None:
    some = [found_as("leak", 0.9), found_as("no signal", 0.9)]
    given = ranking.Parameters(bias={"leak": 3.0}, scale={"leak": 2.0}, pair={"no signal": {"leak": -5.0}})
    made = ranking.probabilities(some, given)
    scores = {
        ranking.NONE: 0.0,
        "leak": 3.0 + 2.0 * np.log(9),
        "no signal": ranking.SCALE * np.log(9) - 5.0 * 0.9,
    }
    total = sum(np.exp(score) for score in scores.values())
    assert made == pytest.approx({name: np.exp(score) / total for name, score in scores.items()})
    assert sum(made.values()) == pytest.approx(1.0)


def test_features_are_flat_numbers() -> None:
    one = outcome.Tested("leak", "data", "", (outcome.check("auc", True, size=Estimate(0.9, 0.8, 1.0, 9)),), 0.7)
    assert ranking.features([one]) == pytest.approx({"leak:strength": 0.7, "leak:verdict": 1.0, "leak:auc": 9.0})


def test_every_cause_of_the_world_has_its_section() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text()
    named = [
        *WORLD,
        acting.feedback_loop,
        purpose.misaligned,
        purpose.no_signal,
        purpose.better_baseline,
        purpose.cost_above_value,
    ]
    nothing: Any = _Nothing()
    for cause in named:
        name = cause(nothing).name
        assert f"### {name.capitalize()}\n" in page
        assert f"| {name} |" in page


class _Nothing:
    """A case without any evidence: enough to ask a cause for its name."""

    def __init__(self) -> None:
        from types import SimpleNamespace

        value = SimpleNamespace(sql="case when act then 1 else 0 end")
        objective = SimpleNamespace(metric="log_loss", slices=(), sensitive=(), value=value)
        label = SimpleNamespace(affected_by_action=False, observed_when=None)
        costs = SimpleNamespace(prediction=0.0, label=0.0, training=0.0, day=0.0)
        decide = SimpleNamespace(policy="human", acts=(False, True))
        more = {"sources": {}, "outcomes": {}, "predict": None, "flat_features": (), "task": "binary"}
        self.system = SimpleNamespace(objective=objective, label=label, costs=costs, decide=decide, combine=None, **more)
        self.home = SimpleNamespace(ledger=SimpleNamespace(latest=lambda *_, **__: None, read=lambda *_, **__: []))
        self.recent = self.before = self.compared = self.closed_until = self.until = None
        self.cohorts: list[Any] = []
        self.outcomes: list[Any] = []
        self.traffic: list[Any] = []
        self.harmed: list[Any] = []
        self.alerts: list[Any] = []
        self.notes: dict[str, Any] = {"streams": {}}
        self.checks: list[Any] = []
        self.window = None

    def failed(self, *_: str) -> list[Any]:
        return []

    def of(self, _: Any) -> list[Any]:
        return []


def test_a_diagnosis_stands_as_long_as_looks_confirm_it(begin: Any, told: Any) -> None:
    """An alert that stays open for weeks: the fault holds training back all the time, and its diagnosis is renewed only before it lapses."""
    story = planted(begin, told, 12, world=told.World(y_missing=0.7))
    alert(story, told, 12)
    monitoring.watch(story.home, story.system, story.now)
    first = diagnosis.diagnose(story.home, story.system, story.clock.now())[0]
    assert first.record.blocks_retraining
    written = []
    for week in range(1, 7):
        story.tell(told.World(y_missing=0.7, rows=20), 7)
        monitoring.watch(story.home, story.system, story.now)
        written += [
            (week, entry.record.causes[0].name) for entry in diagnosis.diagnose(story.home, story.system, story.clock.now())
        ]
        standing = diagnosis.open_faults(story.home, story.clock.now())
        assert [one.record.symptoms for one in standing] == [first.record.symptoms], week
        assert monitoring.stands(story.home, standing[0], story.clock.now())
        story.home.commit(Turned(did=("wheel",)), key=f"turn/week/{week}")
    assert {name for _, name in written} == {first.record.causes[0].name}
    assert [week for week, _ in written] == [2, 4, 6]
    assert monitoring.stands(story.home, first, first.at + timedelta(days=28))
    assert not monitoring.stands(story.home, first, first.at + timedelta(days=29))
