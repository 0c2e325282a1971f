"""Planted faults: each cause is found where it was planted, and cleared where it was not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from noria import business, diagnosis, monitoring
from noria.core import Check, Estimate, Verdict, Window
from noria.diagnosis.causes import CAUSES
from noria.records import (
    Alerted,
    Blocked,
    Charter,
    Diagnosed,
    Gated,
    Ingested,
    RolloutMoved,
    Verified,
)

BEFORE, SINCE = 32, 24


def faulty(begin: Any, told: Any, world: Any, *, days: int = SINCE, start: Any = None) -> Any:
    """A release that was right for 30 windows, and then the fault."""
    story = begin()
    ordinary = start or told.World()
    story.tell(ordinary, 30)
    story.release(ordinary)
    story.tell(ordinary, BEFORE)
    story.tell(world, days)
    return story


def harm(story: Any, told: Any, days: int = SINCE, name: str = "decay") -> None:
    """A harm alert since the fault, as monitoring would have opened it."""
    since = story.now - days * told.DAY
    alert = f"alert/{name}/planted/{since.isoformat()}"
    record = Alerted(
        alert=alert, name=name, subject="planted", state="open", since=since, harm=True, size=Estimate(-0.1, -0.2, -0.05, days),
        bound=0.0, message="the release does worse", level="outcome",
    )  # fmt: skip
    story.home.commit(record, key=f"{alert}/open")


def only(story: Any) -> Diagnosed:
    made = diagnosis.diagnose(story.home, story.system, story.now)
    assert len(made) == 1
    assert diagnosis.diagnose(story.home, story.system, story.now) == []
    record: Diagnosed = made[0].record
    return record


def verdicts(record: Diagnosed) -> dict[str, Verdict]:
    return {cause.name: cause.verdict for cause in record.causes}


def watched(story: Any) -> None:
    monitoring.watch(story.home, story.system, story.now)


def test_every_cause_is_listed_once_and_weights_are_shares(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(slope=-1.2))
    harm(story, told)
    record = only(story)
    assert len(record.causes) == len(CAUSES) == len({cause.name for cause in record.causes})
    assert 0.75 < sum(cause.weight for cause in record.causes) <= 1.001  # the rest is "none of these"
    found = [cause.weight for cause in record.causes if cause.verdict is Verdict.FAIL]
    assert found == sorted(found, reverse=True)
    assert all(0 <= cause.weight <= 1 and cause.runbook for cause in record.causes)
    assert all(cause.evidence for cause in record.causes)


def test_a_changed_concept(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(slope=-1.2))
    harm(story, told)
    record = only(story)
    assert record.causes[0].name == "sudden concept change"
    assert record.back_to == "development"
    assert not record.blocks_retraining
    found = verdicts(record)
    assert found["covariate shift"] is Verdict.PASS
    assert found["label shift"] is not Verdict.FAIL
    assert found["bad data"] is not Verdict.FAIL
    assert "sudden concept change" in record.account
    assert "Go back to development" in record.account


def test_a_covariate_shift_that_matters(begin: Any, told: Any) -> None:
    """The model is wrong far to the right, where hardly any rows were; now they all are."""

    def score(x: np.ndarray) -> np.ndarray:
        return np.where(x > 1, 0.05, 1 / (1 + np.exp(1.3 - 1.2 * x)))

    ordinary = told.World(score=score, believed_slope=1.2)
    story = faulty(begin, told, ordinary.but(x_mean=1.6), start=ordinary)
    harm(story, told)
    record = only(story)
    assert record.causes[0].name == "covariate shift"
    assert verdicts(record)["bad data"] is not Verdict.FAIL


def test_a_covariate_shift_that_does_not_matter(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(x_mean=-1.5))
    harm(story, told)
    assert verdicts(only(story))["covariate shift"] is Verdict.PASS


def test_a_label_shift(begin: Any, told: Any) -> None:
    """Given its label, a row looks as ever; positives became frequent. Drawn by rejection from the ordinary world."""

    class More(told.Story):  # type: ignore[misc,name-defined]
        def _rows(self, world: Any, random: Any, start: Any, n: int) -> Any:
            wide = super()._rows(world, random, start, 4 * n)
            keep = (wide["_label"] == 1).to_numpy() | (np.arange(len(wide)) % 6 == 0)
            return wide.filter(keep).head(n)

    story = faulty(begin, told, told.World(), days=0)
    story.__class__ = More
    story.tell(told.World(), SINCE)
    harm(story, told)
    record = only(story)
    found = verdicts(record)
    assert found["label shift"] is Verdict.FAIL
    assert record.causes[0].name == "label shift"
    assert found["sudden concept change"] is not Verdict.FAIL


def test_miscalibrated_from_the_start(begin: Any, told: Any) -> None:
    bold = told.World(believed_base=-0.3)
    story = faulty(begin, told, bold, start=bold)
    harm(story, told)
    record = only(story)
    found = verdicts(record)
    assert found["miscalibration"] is Verdict.FAIL
    assert found["covariate shift"] is found["label shift"] is Verdict.PASS
    assert "miscalibration" in [cause.name for cause in record.causes[:2]]


def test_nothing_is_found_where_nothing_is_wrong(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World())
    watched(story)
    harm(story, told)
    record = only(story)
    assert [cause.name for cause in record.causes if cause.verdict is Verdict.FAIL] == []
    assert "None of the causes" in record.account
    assert set(verdicts(record).values()) <= {Verdict.PASS, Verdict.NOT_ENOUGH_DATA}
    cleared = {name for name, verdict in verdicts(record).items() if verdict is Verdict.PASS}
    assert cleared >= {
        "labels missing", "label delay changed", "software fault", "covariate shift", "label shift", "sudden concept change", "miscalibration",
        "metric misaligned", "better baseline", "constant predictor", "bad data", "leak",
    }  # fmt: skip


def test_missing_values_block_training(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(y_missing=0.7))
    watched(story)
    harm(story, told)
    record = only(story)
    assert record.causes[0].name == "bad data"
    assert record.back_to == "data"
    assert record.blocks_retraining


@pytest.mark.parametrize(
    ("change", "name"), [({"label_missing": 0.4}, "labels missing"), ({"delay_hours": 5.0}, "label delay changed")]
)
def test_late_or_missing_labels_block_training(begin: Any, told: Any, change: dict[str, float], name: str) -> None:
    story = faulty(begin, told, told.World(**change))
    harm(story, told)
    record = only(story)
    assert record.causes[0].name == name
    assert record.blocks_retraining
    assert verdicts(record)["sudden concept change"] is not Verdict.FAIL


def test_refused_rows_and_frozen_scores_are_software(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(refused=0.2, score=lambda x: np.full(len(x), 0.25)))
    harm(story, told)
    record = only(story)
    assert record.causes[0].name == "software fault"
    assert record.back_to == "deployment"
    assert record.blocks_retraining


def test_a_rollout_that_failed_parity(begin: Any, told: Any) -> None:
    story = faulty(begin, told, told.World(), days=10)
    checks = (Check("score parity", Verdict.FAIL, estimate=Estimate(12.0, n=900), bound=0.0, detail="12 of 900 scores differ"),)
    record = RolloutMoved(
        rollout=1, stage="withdrawn", share=0.0, step=0, challenger="b", champion=story.bundle, verdict=Verdict.FAIL, checks=checks,
        reason="failed: score parity",
    )  # fmt: skip
    story.home.commit(record, key="rollout/1/9")
    found = only(story)
    assert found.causes[0].name == "software fault"
    assert "12 of 900" in found.account


def gated(story: Any, *checks: Check) -> None:
    story.home.commit(Gated(candidate="c", bundle="none", verdict=Verdict.FAIL, checks=checks), key="gated/planted")


def test_a_constant_predictor(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    gated(story, Check("not a constant predictor", Verdict.FAIL, detail="it always says no; recall 0"))
    record = only(story)
    assert record.causes[0].name == "constant predictor"
    assert record.back_to == "data"


@pytest.mark.parametrize("baseline", ["last", "last_origin"])
def test_the_last_label_is_better(begin: Any, told: Any, baseline: str) -> None:
    story = begin()
    story.tell(told.World(), 5)
    gated(
        story,
        Check("superior to baseline", Verdict.PASS, "prior", Estimate(0.1, 0.05, 0.2, 14), 0.0),
        Check("superior to baseline", Verdict.FAIL, baseline, Estimate(-0.1, -0.2, -0.05, 14), 0.0, "log_loss better by -0.1"),
    )
    record = only(story)
    assert record.causes[0].name == "better baseline"
    assert record.back_to == "scoping"
    assert verdicts(record)["no signal"] is Verdict.PASS


def test_a_leak(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    last = Check("superior to baseline", Verdict.FAIL, "last", Estimate(0.01, -0.1, 0.1, 14), 0.0, "log_loss better by 0.01")
    gated(story, Check("no leak", Verdict.FAIL, "tail", Estimate(0.99, 0.98, 1.0, 30), 0.95, "tail alone tells the label"), last)
    record = only(story)
    assert [cause.name for cause in record.causes[:2]] == ["leak", "better baseline"]
    assert record.back_to == "data"
    assert "tail" in record.account


def test_no_signal_and_out_of_reach(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    charter = Charter(
        declaration="d", decision="partial", reasons=(), checks=(), fitness=0.5, task="binary", framing="", alternatives=(),
        base_rate=Estimate(0.2), labels={}, baselines=(), policies=(), break_even=0.8, reachable=Estimate(0.55, 0.5, 0.6, 20),
    )  # fmt: skip
    story.home.commit(charter, key="charter/d/1")
    gated(story, Check("superior to baseline", Verdict.FAIL, "prior", Estimate(0.0, -0.1, 0.1, 14), 0.0))
    record = only(story)
    assert record.causes[0].name == "no signal"
    assert {one.name for one in record.causes[0].evidence if one.verdict is Verdict.FAIL} == {
        "beats the base rate",
        "break-even is within reach",
    }


def test_the_metric_says_yes_and_the_money_no(begin: Any, told: Any) -> None:
    """The scores stay right; the threshold makes every act a loss."""
    rare = told.World(base=-3, believed_base=-3)
    story = faulty(begin, told, rare.but(act=1.0), days=20, start=rare)
    watched(story)
    business.account(story.home, story.system, story.now)
    harm(story, told, 20, "value")
    record = only(story)
    assert verdicts(record)["metric misaligned"] is Verdict.FAIL
    assert record.causes[0].name == "threshold stale"
    assert record.back_to == "development"
    clean = begin(seed=1)
    clean.tell(told.World(), 10)
    gated(clean, Check("superior to baseline", Verdict.PASS, "prior"), Check("slice not worse", Verdict.FAIL, "kind = a"))
    assert verdicts(only(clean))["metric misaligned"] is not Verdict.FAIL


def test_blocked_data_is_diagnosed_apart_and_once(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    story.home.commit(
        Blocked(source="sensor", reason="no column y", where="sensor.parquet", hint="ask them"), key="blocked/sensor/1"
    )
    gated(story, Check("not a constant predictor", Verdict.FAIL, detail="always no"))
    made = diagnosis.diagnose(story.home, story.system, story.now)
    assert [entry.record.symptoms for entry in made] == [("blocked/sensor/1",), ("gated/planted",)]
    first = made[0].record
    assert first.causes[0].name == "schema changed"
    assert first.causes[0].weight > 0.8
    assert first.blocks_retraining
    assert "no column y" in first.account
    assert diagnosis.diagnose(story.home, story.system, story.now) == []


def test_the_same_failing_verification_is_one_fault(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 2)

    def verified(day: int, *names: str) -> None:
        checks = tuple(Check(name, Verdict.FAIL, "y") for name in names)
        record = Verified(source="sensor", upto=story.now + timedelta(days=day), verdict=Verdict.FAIL, tested=9, checks=checks)
        story.home.commit(record, key=f"verify/sensor/{day}")

    verified(1, "nulls")
    assert only(story).causes[0].name == "bad data"
    verified(2, "nulls")
    assert diagnosis.diagnose(story.home, story.system, story.now) == []
    verified(3, "nulls", "volume")
    assert len(diagnosis.diagnose(story.home, story.system, story.now)) == 1
    for day in range(4, 60):
        verified(day, "nulls" if day % 2 else "volume")
        assert diagnosis.diagnose(story.home, story.system, story.now) == []


def test_a_period_knows_nothing_of_what_came_later(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 12)
    period = Window(story.now - timedelta(days=6), story.now)
    story.clock.move(story.clock.now() + timedelta(days=1))
    failed = (Check("volume", Verdict.FAIL, ""),)
    record = Verified(source="sensor", upto=story.clock.now(), verdict=Verdict.FAIL, tested=9, checks=failed)
    story.home.commit(record, key="verify/sensor/late")
    for window, verdict in ((period, Verdict.PASS), (Window(period.start, story.clock.now()), Verdict.FAIL)):
        found = next(c for c in diagnosis.of_period(story.home, story.system, window).causes if c.name == "bad data")
        checks = {check.name: check.verdict for check in found.evidence}
        assert checks["verification"] is verdict


def test_rows_refused_by_ingest(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 2)
    for day in range(40):
        bad = 30 if day > 30 else 0
        story.clock.move(story.clock.now() + timedelta(days=1))
        record = Ingested(
            source="sensor", upto=story.clock.now(), received=100, accepted=100 - bad, quarantined=bad, reasons={"null key": bad}, files=(), rows="r"
        )  # fmt: skip
        story.home.commit(record, key=f"ingest/sensor/{day}")
    story.close(story.kept[-1].head(0), Window(story.clock.now() - timedelta(days=1), story.clock.now()), 0)
    gated(story, Check("guardrail", Verdict.FAIL, "precision"))
    made = diagnosis.diagnose(story.home, story.system, story.clock.now())
    assert made[0].record.causes[0].name == "bad data"
    assert "null key" in made[0].record.account


def test_what_is_no_symptom(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 2)
    story.home.commit(Gated(candidate="c", bundle="b", verdict=Verdict.NOT_ENOUGH_DATA, checks=()), key="gated/1")
    assert diagnosis.diagnose(story.home, story.system, story.now) == []
