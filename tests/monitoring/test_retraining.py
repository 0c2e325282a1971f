"""The retraining policy, trigger by trigger, and what holds it back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

import noria as nr
from noria import loop, monitoring
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
    Monitored,
    Part,
    Released,
    Retraining,
    RolloutMoved,
    Signal,
    TrainingSet,
    Verified,
)

DAY = timedelta(days=1)
NEVER = nr.Retrain(every=None, on=("decay", "drift", "volume"), cooldown="7d")
HARM = nr.Retrain(every=None, on=("decay", "drift"), cooldown="7d")


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


def opened(story: Any, name: str, *, harm: bool, subject: str = "planted", since: datetime | None = None) -> str:
    since = since or story.clock.now()
    alert = f"alert/{name}/{subject}/{since.isoformat()}"
    record = Alerted(
        alert=alert, name=name, subject=subject, state="open", since=since, harm=harm, size=Estimate(1.0), bound=0.0, message="m"
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


def test_an_order_that_could_not_be_met_is_no_training(begin: Any, told: Any) -> None:
    """Not for the first training, the schedule, the cool-down and the budget."""
    story = begin(told.declaration(retrain=nr.Retrain(every="10d", on=(), cooldown="7d", budget=2)))

    def withdrawn() -> Any:
        now = story.clock.now()
        order = Retraining(decision="go", triggers=("by hand",), reason="asked")
        order = story.home.commit(order, key=f"retraining/go/{now.isoformat()}")
        monitoring.unmet(story.home, order, "too little is closed")
        return order

    withdrawn()
    story.tell(told.World(rows=30), 44)
    first = ask(story)
    assert first.record.triggers == ("first training",)
    verdict(story, first)
    later(story, 9)
    withdrawn()
    later(story, 1)
    withdrawn()
    assert ask(story) is None  # it was given at this very moment
    later(story, 0.1)
    made = ask(story)
    assert (made.record.decision, made.record.triggers) == ("go", ("schedule: 10d since the last training",))


def test_decay_trains_with_a_search(begin: Any, told: Any) -> None:
    story = trained(begin, told, NEVER)
    later(story, 8)
    decay = opened(story, "decay", harm=True)
    made = ask(story)
    assert made.record.triggers == (f"decay: {decay}",)
    assert made.record.tune
    verdict(story, made)
    later(story, 20)
    assert ask(story) is None  # one cause, one trigger
    later(story, 9)
    again = ask(story)  # it is still open after four weeks
    assert again.record.triggers == (f"decay: {decay}",)
    assert not again.record.tune


def test_a_harmless_shift_does_not_train_and_is_said_once(begin: Any, told: Any) -> None:
    story = trained(begin, told, NEVER)
    later(story, 8)
    drift = opened(story, "drift", harm=False)
    made = ask(story)
    assert made.record.decision == "blocked"
    assert made.record.triggers == (f"drift: {drift}",)
    assert "harmless" in made.record.reason
    later(story, 20)
    assert ask(story) is None
    decay = opened(story, "decay", harm=True)  # now performance suffers with it
    made = ask(story)
    assert made.record.triggers == (f"drift: {drift}", f"decay: {decay}")
    verdict(story, made)
    later(story, 29)
    assert ask(story).record.triggers == (f"decay: {decay}",)  # a drift trains once, for as long as it is open


@pytest.mark.parametrize(
    ("about", "signal", "trains"),
    [
        ("traffic", Signal("js", "x", "feature", 0.5, 0.2, Verdict.FAIL, impact=0.3), True),
        ("traffic", Signal("js", "x", "feature", 0.5, 0.2, Verdict.FAIL, impact=0.02), False),
        ("traffic", Signal("js", "y", "feature", 0.5, 0.2, Verdict.FAIL, impact=0.3), False),  # of another source
        ("traffic", Signal("expected", "log_loss", "prediction", 0.7, 0.6, Verdict.FAIL), True),
        ("traffic", Signal("expected", "log_loss", "prediction", None, 0.6, Verdict.NOT_ENOUGH_DATA, note="withdrawn"), False),
        ("outcomes", Signal("lead", "champion", "outcome", 0.01, 0.05, Verdict.NOT_MEASURED), True),
        ("outcomes", Signal("lead", "champion", "outcome", 0.09, 0.05, Verdict.NOT_MEASURED), False),
    ],
)
def test_a_drift_trains_when_performance_suffers(begin: Any, told: Any, about: Any, signal: Signal, trains: bool) -> None:
    story = trained(begin, told, NEVER)
    rows = Signal("rows", "champion", "outcome", 30.0)
    for _ in range(7):
        later(story, 1)
        window = Window(story.clock.now() - DAY, story.clock.now())
        seen = Monitored(window=window, about=about, release="b", n=30, signals=(signal, rows))
        story.home.commit(seen, key=f"monitored/{about}/{window.end.isoformat()}/0")
    drift = opened(story, "drift", harm=False, subject="asked")
    made = ask(story)
    assert (made.record.decision, made.record.triggers) == ("go" if trains else "blocked", (f"drift: {drift}",))
    assert not made.record.tune


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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_skew_holds_back_whichever_cause_comes_first(begin: Any, told: Any, rank: int) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    alert = opened(story, "decay", harm=True)
    causes = [Cause("concept", Verdict.FAIL, 0.6, "monitoring", "train"), Cause("skew", Verdict.FAIL, 0.4, "data", "mend it")]
    record = Diagnosed(
        symptoms=(f"{alert}/open",), window=Window(story.now - DAY, story.now), causes=tuple(causes[:: 1 - 2 * rank]),
        back_to="data", account="a", blocks_retraining=False,
    )  # fmt: skip
    story.home.commit(record, key="diagnosis/1")
    made = ask(story)
    assert made.record.decision == "blocked"
    assert "the diagnosis found skew" in made.record.reason
    story.home.commit(Approved(subject="diagnosis/1", by="ada"), key="approved/diagnosis/1/1")
    assert ask(story).record.decision == "go"


def test_a_skew_that_was_cleared_holds_nothing_back(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    alert = opened(story, "decay", harm=True)
    record = Diagnosed(
        symptoms=(f"{alert}/open",), window=Window(story.now - DAY, story.now), causes=(Cause("skew", Verdict.PASS, 0.0, "data", "-"),),
        back_to="development", account="a", blocks_retraining=False,
    )  # fmt: skip
    story.home.commit(record, key="diagnosis/1")
    assert ask(story).record.decision == "go"


def test_a_later_diagnosis_does_not_lift_an_earlier_one(begin: Any, told: Any) -> None:
    story = trained(begin, told, nr.Retrain(every="10d", on=()))
    later(story, 11)
    first = opened(story, "refused", harm=True)
    stop = diagnosed(story, f"{first}/open")
    second = opened(story, "decay", harm=True)
    other = Diagnosed(
        symptoms=(f"{second}/open",), window=Window(story.now - DAY, story.now), causes=(), back_to="development", account="a"
    )  # fmt: skip
    story.home.commit(other, key="diagnosis/later")
    found = loop.blocking(story.home)
    assert found is not None
    assert found.id == stop.id
    later(story, 29)
    assert loop.blocking(story.home) is None


# --------------------------------------------------------------------------------------------------------- the cheaper act


def live(begin: Any, told: Any, world: Any, days: int, *, retrain: Any = HARM, seed: int = 0) -> Any:
    """A release whose scores were right for 30 days, then ``days`` of ``world``; the alert that it is miscalibrated is open since."""
    story = begin(told.declaration(retrain=retrain), seed)
    story.tell(told.World(), 44)
    first = ask(story)
    verdict(story, first)
    story.release(told.World())
    story.tell(told.World(), 10)
    since = story.now
    story.tell(world, days)
    with_windows(story)
    opened(story, "miscalibrated", harm=False, subject="score", since=since)
    return story


def with_windows(story: Any) -> None:
    monitoring.watch(story.home, story.system, story.clock.now())


def test_a_planted_miscalibration_is_calibrated_not_trained(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.3), 28)
    decay = opened(story, "decay", harm=True, subject=story.bundle[:12])
    made = ask(story)
    assert made.record.decision == "recalibrate"
    assert made.key.startswith("retraining/recalibrate/")
    assert made.record.triggers[1] == f"decay: {decay}"
    assert "the ranking has held" in made.record.reason
    assert ask(story) is None  # one at a time
    key = monitoring.gate_key(made)
    assert key.startswith("gated/recalibrate/")
    story.home.commit(Gated(candidate="c", bundle="b", verdict=Verdict.FAIL, checks=()), key=key)
    assert ask(story).record.decision == "go"  # it did not help: the dearer act


def test_a_planted_concept_change_is_trained_not_calibrated(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.3, slope=0.2), 28)
    assert ask(story) is None
    decay = opened(story, "decay", harm=True, subject=story.bundle[:12])
    made = ask(story)
    assert (made.record.decision, made.record.triggers) == ("go", (f"decay: {decay}",))


def test_recalibration_waits_for_as_many_windows_as_it_needs(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.1), 12)
    opened(story, "decay", harm=True, subject=story.bundle[:12])
    made = ask(story)
    assert made.record.decision == "blocked"
    assert made.record.reason.startswith("wait: the ranking has held")
    story.tell(told.World(base=-0.1), 1)
    assert ask(story) is None  # said once
    story.tell(told.World(base=-0.1), 12)
    with_windows(story)
    assert ask(story).record.decision == "recalibrate"


def test_recalibration_can_be_switched_off(begin: Any, told: Any) -> None:
    off = nr.Retrain(every=None, on=("decay",), cooldown="7d", recalibrate=False)
    story = live(begin, told, told.World(base=-0.3), 28, retrain=off)
    assert ask(story) is None
    opened(story, "decay", harm=True, subject=story.bundle[:12])
    assert ask(story).record.decision == "go"


def test_a_schedule_that_is_due_trains_anyway(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.3), 28, retrain=nr.Retrain(every="28d", on=()))
    assert ask(story).record.decision == "go"


def test_recalibration_is_held_back_by_a_fault_and_spends_no_budget(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.3), 28, retrain=nr.Retrain(every=None, on=("decay",), budget=1))
    opened(story, "decay", harm=True, subject=story.bundle[:12])
    first = opened(story, "refused", harm=True)
    made = ask(story, diagnosed(story, f"{first}/open"))
    assert made.record.decision == "blocked"
    assert "bad data" in made.record.reason
    assert ask(story).record.decision == "recalibrate"


@pytest.mark.parametrize("name", ["decay", "worse than baseline", "drift", "unseen regions"])
def test_what_was_found_of_the_release_before_does_not_train_again(begin: Any, told: Any, name: str) -> None:
    story = trained(begin, told, HARM)
    later(story, 8)
    opened(story, name, harm=name not in ("drift", "unseen regions"), subject="old")
    opened(story, "value", harm=True, subject="old")
    later(story, 1)
    story.home.commit(Released(number=1, bundle="new", previous="old", reason="promotion"), key="released/1")
    assert ask(story) is None
    later(story, 15)
    made = ask(story)  # its own windows would have ended them by now
    kinds = {text.partition(": alert/")[2].partition("/")[0] for text in made.record.triggers}
    assert kinds == {name, "value"} - {"decay"}


def test_a_recalibration_that_cannot_be_done_is_given_up_and_said_once(begin: Any, told: Any) -> None:
    story = live(begin, told, told.World(base=-0.3), 5)
    alert = next(entry for entry in story.home.ledger.read(Alerted) if entry.record.name == "miscalibrated")
    texts = (f"miscalibrated: {alert.record.alert}",)
    record = Retraining(decision="recalibrate", triggers=texts, reason="planted")
    order = story.home.commit(record, key=f"retraining/recalibrate/{story.clock.now().isoformat()}", parents=[alert.id])
    assert loop.pending(story.home) == order
    for _ in range(2):
        assert loop.train(story.home, story.system, order) is None
        assert loop.pending(story.home) is None
        later(story, 1)
    said = story.home.ledger.read(Retraining, prefix="retraining/blocked/unmet/")
    assert [(one.parents, one.record.triggers) for one in said] == [((order.id,), texts)]
    assert "too little closed" in said[0].record.reason
    later(story, 6)
    decay = opened(story, "decay", harm=True, subject=story.bundle[:12])
    made = ask(story)  # it keeps nothing else back
    assert (made.record.decision, made.record.triggers) == ("go", (f"decay: {decay}",))
