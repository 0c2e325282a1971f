"""The metric link: a planted one is found, a broken one is said and alerts, none is none, and little data is not enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from noria import business, monitoring
from noria.business import link as links
from noria.business.account import unvalued, valued
from noria.business.link import Day, Evaluation, Evidence, Pair, estimated, state
from noria.core import Check, Estimate, Verdict, Window
from noria.records import Alerted, Linked, Monitored, RolloutMoved, Signal, Turned

DAY = timedelta(days=1)
START = datetime(2013, 1, 1, tzinfo=UTC)


def series(random: np.random.Generator, n: int, r: float) -> np.ndarray:
    made, shocks = np.zeros(n + 20), random.normal(size=n + 20)
    for t in range(1, n + 20):
        made[t] = r * made[t - 1] + shocks[t]
    return made[20:] * np.sqrt(1 - r * r)


def world(seed: int, n: int, link: float, *, easy: float = 1.0, flip: int | None = None, drop: int | None = None) -> list[Day]:
    """Days whose label mean swings with the year and moves metric and value alike (``easy``); beyond that they share ``link``."""
    random = np.random.default_rng([seed, 7])
    t = np.arange(n)
    mean = 0.2 + 0.05 * np.sin(2 * np.pi * t / 365) + 0.02 * series(random, n, 0.3)
    skill, other = series(random, n, 0.3), series(random, n, 0.3)
    lately = np.zeros(n) if drop is None else np.where(t >= drop, 2.0, 0.0)
    metric = -0.4 - 1.5 * easy * (mean - 0.2) + 0.02 * (skill + lately)
    share = np.where(t >= (n if flip is None else flip), -link, link)
    value = 1 + 5 * easy * (mean - 0.2) + 0.2 * (share * skill + np.sqrt(1 - link**2) * other - lately)
    rows = np.log(900 + 30 * random.normal(size=n))
    turn = 2 * np.pi * (t % 7) / 7
    columns = (rows, np.sin(turn), np.cos(turn), mean, mean**2, mean + 0.01 * series(random, n, 0.3))
    return [
        Day(
            Window(START + i * DAY, START + (i + 1) * DAY),
            f"r{i // 120}",
            float(metric[i]),
            float(value[i]),
            tuple(float(c[i]) for c in columns),
        )
        for i in range(n)
    ]


def test_a_planted_link_is_found_at_its_size() -> None:
    found = [estimated(Evidence(world(seed, 182, 0.6)), "log_loss") for seed in range(20)]
    assert all(one.verdict is Verdict.PASS and one.account.startswith("linked") for one in found)
    slopes = [one.slope.value or 0.0 for one in found]
    assert np.mean(slopes) == pytest.approx(0.6, abs=0.06)


def test_easy_days_do_not_fake_a_link() -> None:
    """Base rate drives metric and value together; without the controls that alone would look like a perfect link."""
    days = world(3, 182, 0.0, easy=4.0)
    naive = np.corrcoef([d.metric for d in days], [d.value for d in days])[0, 1]
    assert abs(naive) > 0.8
    found = estimated(Evidence(days), "log_loss")
    assert abs(found.slope.value or 0.0) < 0.25
    assert found.account.startswith("no link")
    assert found.verdict is Verdict.FAIL


def test_a_link_that_turns_over_is_broken() -> None:
    days = world(1, 320, 0.8, flip=200)
    before = estimated(Evidence(days[18:200]), "log_loss")
    after = estimated(Evidence(days[138:320]), "log_loss")
    assert before.account.startswith("linked")
    assert after.account.startswith("broken")
    assert after.verdict is Verdict.FAIL
    assert after.by["windows lately"].below(0.0)


def test_metric_up_and_business_down_is_broken_though_the_days_go_together() -> None:
    """Within each time a good day is good by both; yet since the drop the metric is better and the money is less."""
    found = estimated(Evidence(world(2, 120, 0.7, drop=92)), "log_loss")
    assert found.by["metric lately"].above(0.0)
    assert found.by["value lately"].below(0.0)
    assert found.account.startswith("broken: in the last 28 windows the metric rose and the value fell")


def test_a_clear_rollout_against_the_value_breaks_the_link() -> None:
    pair = Pair(Estimate(0.02, 0.01, 0.03, 30), Estimate(-0.3, -0.5, -0.1, 30), rollout=4)
    found = estimated(Evidence(world(5, 120, 0.7), (), (pair,)), "log_loss")
    assert found.verdict is Verdict.FAIL
    assert "in rollout 4 the challenger was better by the metric and worse by value" in found.account
    unclear = Pair(Estimate(0.02, -0.01, 0.05, 30), Estimate(-0.3, -0.5, -0.1, 30), rollout=4)
    assert estimated(Evidence(world(5, 120, 0.7), (), (unclear,)), "log_loss").verdict is Verdict.PASS


def test_versions_are_compared_on_the_same_days() -> None:
    """Candidates of which the better by the metric is the better by value, on days that differ far more than the candidates do."""
    random = np.random.default_rng(0)
    blocks, skills = np.arange(30.0), (0.0, 1.0, 2.0)
    easy, strange = random.normal(size=30), random.normal(size=30)

    def part(sign: float) -> Evidence:
        made = [
            Evaluation(
                "t/test",
                blocks,
                easy + 0.1 * s + 0.02 * random.normal(size=30),
                strange + sign * 0.3 * s + 0.05 * random.normal(size=30),
            )
            for s in skills
        ]
        return Evidence((), tuple(made))

    good, bad = estimated(part(1.0), "log_loss"), estimated(part(-1.0), "log_loss")
    assert good.by["versions"].above(0.0)
    assert good.verdict is Verdict.PASS
    assert (
        bad.account == "broken: versions better by the metric were worse by value" + bad.account[bad.account.index(". By kind") :]
    )


def test_little_data_is_not_enough() -> None:
    found = estimated(Evidence(world(1, 21, 0.9)), "log_loss")
    assert found.verdict is Verdict.NOT_ENOUGH_DATA
    assert estimated(Evidence(), "log_loss").verdict is Verdict.NOT_ENOUGH_DATA


def test_false_alarms_over_a_year_of_weekly_looks() -> None:
    """Where there is a link no look of a year calls it broken; where there is none, two in a row seldom do."""
    broken = {0.0: 0, 0.6: 0}
    runs = 8
    for link in broken:
        for seed in range(runs):
            days = world(100 + seed, 365, link)
            said = [
                estimated(Evidence(days[max(0, k - links.HORIZON) : k]), "log_loss").account.startswith("broken")
                for k in range(28, 366, 7)
            ]
            broken[link] += any(a and b for a, b in pairwise(said))
    assert broken[0.6] == 0
    assert broken[0.0] <= 2


# ------------------------------------------------------------------------------------------------------------- in a home


def monitored(day: Day) -> Monitored:
    """A window's record with what the link reads."""
    rows, _, _, mean, _, score = day.controls
    said = {
        ("log_loss", "champion"): -day.metric,
        ("value", "champion"): day.value + 0.5,
        ("value", "do nothing"): 0.5,
        ("rows", "champion"): float(np.exp(rows)),
        ("mean", "label"): mean,
        ("offset", "score"): mean - score,
    }
    signals = tuple(Signal(name, subject, "outcome", value) for (name, subject), value in said.items())
    return Monitored(window=day.window, about="outcomes", release=day.release, n=900, signals=signals)


def run(story: Any, days: list[Day]) -> None:
    """Day by day: the window is watched, the link is estimated when it is due, and the alerts are judged the day after."""
    fresh = False
    for day in days:
        story.clock.move(day.window.end)
        story.home.commit(monitored(day), key=f"monitored/outcomes/{day.window.end.isoformat()}/0")
        if fresh:
            monitoring.alert(story.home, story.system, day.window.end)
        fresh = business.linked(story.home, story.system) is not None


def test_the_link_is_estimated_once_a_week_and_its_break_alerts(begin: Any) -> None:
    story = begin()
    run(story, world(1, 230, 0.8, flip=110))
    made = story.home.ledger.read(Linked)
    ends = [entry.record.window.end for entry in made]
    assert all(b - a == 7 * DAY for a, b in pairwise(ends))
    assert state(made[10].record) == "linked"
    assert state(made[-1].record) == "broken"
    alerts = [entry for entry in story.home.ledger.read(Alerted) if entry.record.name == "metric link"]
    assert [entry.record.state for entry in alerts] == ["open"]
    assert alerts[0].record.harm
    assert "broken" in alerts[0].record.message
    first = next(entry.record.window.end for entry in made if state(entry.record) == "broken")
    assert first < alerts[0].at <= first + 15 * DAY


def test_a_mended_link_resolves_the_alert(begin: Any) -> None:
    story = begin()
    days = world(1, 400, 0.8, flip=90)
    mended = world(4, 400, 0.8)
    run(story, [*days[:200], *mended[200:]])
    states = [entry.record.state for entry in story.home.ledger.read(Alerted) if entry.record.name == "metric link"]
    assert states == ["open", "resolved"]


def test_a_link_that_holds_never_alerts(begin: Any) -> None:
    story = begin()
    run(story, world(9, 150, 0.7))
    assert state(story.home.ledger.read(Linked)[-1].record) == "linked"
    assert not [entry for entry in story.home.ledger.read(Alerted) if entry.record.name == "metric link"]


def test_rollouts_enter_by_their_last_word(begin: Any) -> None:
    story = begin()
    run(story, world(5, 60, 0.7))
    for stage, size in (("shadow", -0.1), ("withdrawn", -0.3)):
        checks = (
            Check("metric", Verdict.NOT_MEASURED, "log_loss", Estimate(0.02, 0.01, 0.03, 30), 0.0),
            Check("paired value", Verdict.FAIL, "", Estimate(size, size - 0.05, size + 0.05, 30), 0.0),
        )
        record = RolloutMoved(
            rollout=3,
            stage=stage,
            share=0.0,
            step=0,
            challenger="c",
            champion="d",
            verdict=Verdict.FAIL,
            checks=checks,
            reason="tests",
        )
        story.home.commit(record, key=f"rollout/3/{stage}")
    found = links.evidence(story.home, story.system).pairs
    assert [(pair.rollout, pair.value.value) for pair in found] == [(3, -0.3)]


def test_real_rows_of_one_world_are_linked(begin: Any, told: Any) -> None:
    """Through the real records: a model that ranks, whose lucky days are lucky by both."""
    story = begin()
    story.tell(told.World(), 15)
    story.release(told.World())
    story.tell(told.World(), 45)
    monitoring.watch(story.home, story.system, story.now)
    business.account(story.home, story.system, story.now)
    (made,) = story.home.ledger.read(Linked)
    assert made.record.by["windows"].above(0.0)
    assert made.record.verdict is Verdict.PASS
    assert business.account(story.home, story.system, story.now) == []
    assert story.home.ledger.count(Linked) == 1


def test_a_turn_that_was_killed_after_the_last_of_its_books_still_estimates_the_link(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(rows=40), 15)
    story.release(told.World())
    story.tell(told.World(rows=40), 10)
    monitoring.watch(story.home, story.system, story.now)
    for cohort in unvalued(story.home):
        record = valued(story.home, story.system, cohort.record)
        story.home.commit(record, key=f"valued/{record.window.end.isoformat()}/{record.revision}", parents=[cohort.id])
    assert business.account(story.home, story.system, story.now) == []
    assert story.home.ledger.count(Linked) == 1
    story.home.commit(Turned(did=("monitoring",)), key="turn/1")
    business.account(story.home, story.system, story.now)
    assert story.home.ledger.count(Linked) == 1
