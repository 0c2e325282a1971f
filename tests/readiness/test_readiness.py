"""The ML Test Score follows the evidence: it rises with it, falls without it, and the weakest section is what counts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from noria import monitoring
from noria.core import Check, Estimate, NotFound, SettingsError, Verdict, Window
from noria.readiness import SECTIONS, TESTS, score, state
from noria.records import Alerted, Cause, Diagnosed, Drilled, Monitored, RolloutMoved, Signal

DAY = timedelta(days=1)


@pytest.fixture
def story(begin: Any) -> Any:
    return begin()


def points(story: Any) -> dict[str, float]:
    made = score(story.home, story.system, story.clock.now())
    return {answer.id: answer.points for answer in made.answers}


def test_there_are_seven_tests_in_each_of_four_sections() -> None:
    assert Counter(test.section for test in TESTS) == dict.fromkeys(SECTIONS, 7)
    assert len({test.id for test in TESTS}) == 28


def test_nothing_shows_nothing(story: Any) -> None:
    made = score(story.home, story.system, story.clock.now())
    assert made.total == 0
    assert all(answer.points == 0 and answer.how == "missing" and answer.todo for answer in made.answers)
    assert made.next.startswith("data.")


def test_evidence_gives_points_and_names_its_records(story: Any, told: Any) -> None:
    world = told.World()
    story.tell(world, 40)
    passed = tuple(
        Check(name, Verdict.PASS) for name in ("superior to baseline", "slice not worse", "no leak", "columns are served")
    )
    story.release(world, passed)
    story.tell(world, 3)
    monitoring.watch(story.home, story.system, story.now)
    made = {answer.id: answer for answer in score(story.home, story.system, story.clock.now()).answers}
    for name in (
        "model.simpler",
        "model.slices",
        "data.code",
        "infrastructure.validated",
        "monitoring.stable",
        "monitoring.invariants",
    ):
        assert (made[name].points, made[name].how) == (1.0, "evidence"), made[name]
        assert all(story.home.ledger.find(key) is not None for key in made[name].records)
    assert made["infrastructure.canaried"].points == 0
    story.tell(world, 60)
    assert points(story)["monitoring.invariants"] == 0  # what was watched long ago shows nothing of today


def test_a_failed_check_takes_the_point_away(story: Any, told: Any) -> None:
    world = told.World()
    story.tell(world, 40)
    story.release(world, (Check("superior to baseline", Verdict.NOT_ENOUGH_DATA, "prior"),))
    answer = next(a for a in score(story.home, story.system, story.clock.now()).answers if a.id == "model.simpler")
    assert (answer.points, answer.says) == (0.0, "superior to baseline prior: not enough data")


def test_a_canary_and_a_drill_count(story: Any, told: Any) -> None:
    world = told.World()
    story.tell(world, 40)
    story.release(world)
    assert (points(story)["infrastructure.canaried"], points(story)["infrastructure.rollback"]) == (0.0, 0.0)
    for step, stage in enumerate(("shadow", "canary", "full")):
        moved = RolloutMoved(
            rollout=1, stage=stage, share=step / 2, step=step, challenger=story.bundle, champion=None, verdict=Verdict.PASS, checks=(), reason="r",
        )  # fmt: skip
        story.home.commit(moved, key=f"rollout/1/{step}")
    drilled = Drilled(release=1, back_to="", verdict=Verdict.PASS, checks=())
    story.home.commit(drilled, key="drilled/1")
    assert (points(story)["infrastructure.canaried"], points(story)["infrastructure.rollback"]) == (1.0, 1.0)
    story.clock.move(story.clock.now() + timedelta(days=181))
    assert points(story)["infrastructure.rollback"] == 0.0


def test_a_statement_is_half_a_point_until_it_lapses(story: Any) -> None:
    until = story.clock.now() + 30 * DAY
    state(story.home, "data.privacy", by="ada", note="reviewed, see the wiki", until=until)
    answer = next(a for a in score(story.home, story.system, story.clock.now()).answers if a.id == "data.privacy")
    assert (answer.points, answer.how, answer.until) == (0.5, "statement", until)
    later = next(a for a in score(story.home, story.system, until).answers if a.id == "data.privacy")
    assert (later.points, later.how) == (0.0, "lapsed")


def test_the_weakest_section_counts(story: Any) -> None:
    until = story.clock.now() + 30 * DAY
    for test in TESTS:
        if test.id != "model.tuned":
            state(story.home, test.id, by="ada", note="by hand", until=until)
    made = score(story.home, story.system, story.clock.now())
    assert made.sections == {"data": 3.5, "model": 3.0, "infrastructure": 3.5, "monitoring": 3.5}
    assert made.total == 3.0
    assert made.next.startswith("model.tuned")


def test_wrong_statements_are_refused(story: Any) -> None:
    until = story.clock.now() + DAY
    with pytest.raises(NotFound, match=r"no test 'data\.nothing'"):
        state(story.home, "data.nothing", by="ada", note="n", until=until)
    with pytest.raises(SettingsError, match="needs a note"):
        state(story.home, "data.privacy", by="ada", note=" ", until=until)
    with pytest.raises(SettingsError, match="has passed"):
        state(story.home, "data.privacy", by="ada", note="n", until=story.clock.now())
    state(story.home, "data.privacy", by="ada", note="n", until=story.clock.now() + 365 * DAY)
    with pytest.raises(SettingsError, match="366 days away; a statement counts for 365 days at most"):
        state(story.home, "data.privacy", by="ada", note="n", until=story.clock.now() + 366 * DAY)


def test_skew_that_was_found_is_no_evidence_of_parity(story: Any, told: Any) -> None:
    world = told.World()
    story.tell(world, 40)
    story.release(world)
    assert points(story)["monitoring.skew"] == 0.0
    passed = (Check("score parity", Verdict.PASS),)
    for number, bundle in enumerate(("another", story.bundle)):
        moved = RolloutMoved(
            rollout=number, stage="full", share=1.0, step=1, challenger=bundle, champion=None, verdict=Verdict.PASS, checks=passed, reason="r",
        )  # fmt: skip
        story.home.commit(moved, key=f"rollout/{number}/1")
        assert points(story)["monitoring.skew"] == float(number)
    story.clock.move(story.clock.now() + DAY)
    cause = Cause(name="training-serving skew", verdict=Verdict.FAIL, weight=0.9, step="deployment", act="a", evidence=())
    found = Diagnosed(
        symptoms=("s",), window=Window(story.now - DAY, story.now), causes=(cause,), back_to="deployment", account="a"
    )
    story.home.commit(found, key="diagnosis/planted")
    assert points(story)["monitoring.skew"] == 0.0


def planted(story: Any, name: str, level: str, state_: Any) -> None:
    record = Alerted(
        alert=f"alert/{name}", name=name, subject="s", state=state_, since=story.now - DAY, harm=True, size=Estimate(1.0), bound=0.5,
        message="m", level=level,
    )  # fmt: skip
    story.home.commit(record, key=f"alert/{name}/{state_}")


def seen(story: Any, about: Any, signal: Signal, number: int) -> None:
    story.clock.move(story.clock.now() + DAY)
    window = Window(story.clock.now() - DAY, story.clock.now())
    record = Monitored(window=window, about=about, release=story.bundle, n=9, signals=(signal,))
    story.home.commit(record, key=f"monitored/{about}/{number}")


def test_quality_is_shown_while_no_harm_is_open(story: Any, told: Any) -> None:
    story.tell(told.World(), 3)
    story.release(told.World())
    seen(story, "outcomes", Signal("lead", "champion", "outcome", 0.1, None, Verdict.NOT_MEASURED), 1)
    assert points(story)["monitoring.quality"] == 0.0  # there was no standard to hold it against
    seen(story, "outcomes", Signal("lead", "champion", "outcome", 0.1, 0.05, Verdict.NOT_MEASURED), 2)
    assert points(story)["monitoring.quality"] == 1.0
    planted(story, "decay", "outcome", "open")
    assert points(story)["monitoring.quality"] == 0.0
    planted(story, "decay", "outcome", "resolved")
    assert points(story)["monitoring.quality"] == 1.0


def test_a_slow_service_shows_no_performance(story: Any, told: Any) -> None:
    story.tell(told.World(), 3)
    for number, (value, verdict) in enumerate(((80.0, Verdict.FAIL), (8.0, Verdict.PASS))):
        seen(story, "traffic", Signal("latency p99 ms", "service", "operation", value, 50.0, verdict), number)
        assert points(story)["monitoring.performance"] == float(verdict is Verdict.PASS)
    planted(story, "latency", "operation", "open")
    assert points(story)["monitoring.performance"] == 0.0
