"""The retraining policy, trigger by trigger, and what holds it back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import noria as nr
from noria import monitoring
from noria.core import Check, Estimate, Verdict, Window
from noria.records import (
    Alerted,
    Approved,
    Blocked,
    Cause,
    Diagnosed,
    Entry,
    Gated,
    Ingested,
    Part,
    Retraining,
    RolloutMoved,
    TrainingSet,
    Verified,
)

DAY = timedelta(days=1)
NEVER = nr.Retrain(every=None, on=("decay", "drift", "volume"), cooldown="7d")


def ask(story: Any, blocked_by: Any = None) -> Any:
    return monitoring.retraining(story.home, story.system, story.clock.now(), blocked_by)


def verdict(story: Any, asked: Entry[Retraining], verdict: Verdict = Verdict.PASS) -> None:
    """The gate has spoken on an order."""
    key = f"gated/{asked.key.removeprefix('retraining/go/')}"
    story.home.commit(Gated(candidate="c", bundle="b", verdict=verdict, checks=()), key=key)


def trained(begin: Any, told: Any, retrain: Any) -> Any:
    """A story whose first training has been ordered and gated."""
    story = begin(told.declaration(retrain=retrain))
    story.tell(told.World(rows=30), 44)
    first = ask(story)
    assert first is not None
    verdict(story, first)
    return story


def opened(story: Any, name: str, *, harm: bool) -> str:
    since = story.clock.now()
    alert = f"alert/{name}/planted/{since.isoformat()}"
    record = Alerted(
        alert=alert, name=name, subject="planted", state="open", since=since, harm=harm, size=Estimate(1.0), bound=0.0, message="m"
    )  # fmt: skip
    story.home.commit(record, key=f"{alert}/open")
    return alert


def later(story: Any, days: float) -> None:
    story.clock.move(story.clock.now() + days * DAY)


def test_the_first_training_waits_for_its_parts_and_tunes(begin: Any, told: Any) -> None:
    story = begin()
    assert ask(story) is None
    story.tell(told.World(rows=20), 42)
    assert ask(story) is None
    story.tell(told.World(rows=20), 2)
    made = ask(story)
    assert (made.record.decision, made.record.tune, made.record.triggers) == ("go", True, ("first training",))
    assert made.key == f"retraining/go/{story.clock.now().isoformat()}"
    assert ask(story) is None  # one at a time: the gate has not spoken


def test_the_schedule(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 9.9)
    assert ask(story) is None
    later(story, 0.1)
    made = ask(story)
    assert made.record.triggers == ("schedule: 10d since the last training",)
    assert not made.record.tune


def test_decay_trains_with_a_search_and_drift_without(begin: Any, told: Any) -> None:
    story = trained(begin, told, NEVER)
    later(story, 8)
    drift = opened(story, "drift", harm=False)
    made = ask(story)
    assert made.record.triggers == (f"drift: {drift}",)
    assert not made.record.tune
    verdict(story, made)
    later(story, 8)
    assert ask(story) is None  # one cause, one trigger
    decay = opened(story, "decay", harm=True)
    made = ask(story)
    assert made.record.triggers == (f"decay: {decay}",)
    assert made.record.tune
    verdict(story, made)
    later(story, 20)
    assert ask(story) is None
    later(story, 9)
    again = ask(story)  # it is still open after four weeks
    assert again.record.triggers == (f"decay: {decay}",)
    assert not again.record.tune


@pytest.mark.parametrize("name", ["volume", "late scoring", "miscalibrated"])
def test_other_alerts_do_not_train(begin: Any, told: Any, name: str) -> None:
    story = trained(begin, told, NEVER)
    later(story, 8)
    opened(story, name, harm=False)
    assert ask(story) is None


def test_what_is_not_listed_does_not_train(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every=None, on=("volume",)))
    later(story, 8)
    opened(story, "decay", harm=True)
    opened(story, "drift", harm=False)
    assert ask(story) is None


def test_volume(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every=None, on=("volume",), growth=0.5))
    parts = (Part("train", Window(told.START, story.now), 400, "r"),)
    story.home.commit(TrainingSet(features="f", columns=(), parts=parts, gap="6h", dropped={}), key="training/1")
    later(story, 8)
    story.day = 52
    story.tell(told.World(rows=30), 6)
    assert ask(story) is None
    story.tell(told.World(rows=30), 1)
    assert ask(story).record.triggers == ("volume: 210 labels closed since the last training, which had 400",)


def test_the_cool_down_is_said_once(begin: Any, told: Any) -> None:
    story = trained(begin, told, NEVER)
    later(story, 2)
    opened(story, "decay", harm=True)
    made = ask(story)
    assert made.record.decision == "blocked"
    assert "cool-down of 7d" in made.record.reason
    later(story, 1)
    assert ask(story) is None
    later(story, 4)
    assert ask(story).record.decision == "go"


def test_the_budget(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=(), budget=2))
    later(story, 10)
    verdict(story, ask(story))
    later(story, 10)
    made = ask(story)
    assert "budget of 2 trainings" in made.record.reason
    later(story, 30)
    assert ask(story) is None
    later(story, 330)
    assert ask(story).record.decision == "go"


def test_a_rollout_under_way_keeps_the_policy_silent(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 20)

    def moved(stage: Any, step: int) -> None:
        record = RolloutMoved(
            rollout=1, stage=stage, share=0.0, step=step, challenger="b", champion=None, verdict=Verdict.PASS, checks=(), reason=""
        )  # fmt: skip
        story.home.commit(record, key=f"rollout/1/{step}")

    moved("shadow", 0)
    assert ask(story) is None
    moved("withdrawn", 1)
    assert ask(story).record.decision == "go"


def diagnosed(story: Any, *symptoms: str) -> Entry[Diagnosed]:
    cause = Cause("bad data", Verdict.FAIL, 1.0, "data", "mend it", (Check("unusable data", Verdict.FAIL),))
    record = Diagnosed(
        symptoms=symptoms, window=Window(story.now - DAY, story.now), causes=(cause,), back_to="data", account="a", blocks_retraining=True
    )  # fmt: skip
    made: Entry[Diagnosed] = story.home.commit(record, key=f"diagnosis/{len(symptoms)}")
    return made


def test_a_data_fault_blocks_until_the_source_is_taken_in_again(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    story.home.commit(Blocked(source="sensor", reason="r", where="w", hint="h"), key="blocked/sensor/1")
    stop = diagnosed(story, "blocked/sensor/1")
    made = ask(story, stop)
    assert made.record.decision == "blocked"
    assert "bad data" in made.record.reason
    assert made.parents == (stop.id,)
    later(story, 1)
    assert ask(story, stop) is None
    now = story.clock.now()
    taken = Ingested(source="sensor", upto=now, received=1, accepted=1, quarantined=0, reasons={}, files=(), rows="r")
    story.home.commit(taken, key="ingest/sensor/1")
    assert ask(story, stop).record.decision == "go"


def test_a_diagnosis_can_be_lifted_by_a_person_and_goes_stale(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    alert = opened(story, "decay", harm=True)
    stop = diagnosed(story, f"{alert}/open")
    assert monitoring.stands(story.home, stop, story.clock.now())
    assert not monitoring.stands(story.home, stop, story.clock.now() + 29 * DAY)
    story.home.commit(Approved(subject=stop.key, by="ada"), key=f"approved/{stop.key}/1")
    assert not monitoring.stands(story.home, stop, story.clock.now())
    assert ask(story, stop).record.decision == "go"


def test_a_verification_that_fails_today_holds_back_today(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    now = story.clock.now()
    record = Verified(source="sensor", upto=now, verdict=Verdict.FAIL, tested=3, checks=(Check("nulls", Verdict.FAIL, "y"),))
    later(story, 1e-4)  # a live clock goes on while a turn runs
    story.home.commit(record, key="verify/sensor/1")
    made = monitoring.retraining(story.home, story.system, now, None)
    assert made.record.decision == "blocked"
    assert made.record.reason == "verification of sensor fails: nulls"
    later(story, 1)
    assert ask(story).record.decision == "go"
