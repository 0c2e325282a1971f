"""The rules: how often they are wrong, how soon they are right, and that one fault is one alert."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from noria import monitoring
from noria.core import Estimate
from noria.monitoring.grouping import members
from noria.monitoring.rules import CURRENT, MEMORY, RECALL, Point, below
from noria.records import Alerted, Approved, Turned

DAY = timedelta(days=1)
ORDINARY = 33


def points(told: Any, values: np.ndarray, first: int = 0) -> list[Point]:
    start = told.START + first * DAY
    return [Point(start + k * DAY, start + (k + 1) * DAY, float(v), 100.0) for k, v in enumerate(values)]


def walk(told: Any, values: np.ndarray, bound: float) -> list[int]:
    """The windows at which an alert opens, when the rule is asked after every window and alerts resolve as they do."""
    opened, standing, after = [], False, 0
    everything = points(told, values)
    for n in range(1, len(values) + 1):
        made = below(everything[max(after, n - RECALL) : n], bound, DAY)
        assert made is not None
        if not standing and made.raised:
            opened.append(n)
            standing = True
        elif standing and made.cleared:
            standing, after = False, n
    return opened


def series(random: np.random.Generator, n: int, r: float, kind: str) -> np.ndarray:
    noise = random.standard_t(4, n) if kind == "heavy" else random.normal(0, 1, n)
    out = np.empty(n)
    level = 0.0
    for k in range(n):
        level = r * level + noise[k]
        out[k] = level
    return out


@pytest.mark.parametrize(("r", "kind", "most"), [(0.0, "normal", 0.25), (0.3, "normal", 0.5), (0.3, "heavy", 0.5)])
def test_false_alarms_are_rare(told: Any, r: float, kind: str, most: float) -> None:
    """Nothing is wrong (the mean is exactly at the bound, the worst case): alarms per 100 windows, windows autocorrelated."""
    random = np.random.default_rng(11)
    runs, length = 12, 250
    alarms = sum(len(walk(told, series(random, length, r, kind), 0.0)) for _ in range(runs))
    rate = 100 * alarms / (runs * length)
    print(f"false alarms per 100 clean windows, {kind}, r={r}: {rate:.2f}")
    assert rate <= most


def test_where_memory_ends_no_sequence_begins(told: Any) -> None:
    """Once windows are forgotten the answer is that of the sequences of the grid alone, however the oldest window lies to it."""
    from noria import stats
    from noria.core.window import EPOCH
    from noria.monitoring.change import ERROR, EVERY

    random = np.random.default_rng(5)
    fewer = 0
    for k in range(60):
        values = np.concatenate([np.zeros(2), np.full(4, -2.5), random.normal(-0.3, 1, MEMORY - 4)])
        told_points = points(told, values, first=k)
        kept = told_points[-MEMORY:]
        raised = []
        for grid_only in (True, False):
            starts = [n for n, p in enumerate(kept) if (n == 0 and not grid_only) or ((p.end - EPOCH) // DAY) % EVERY == 0]
            sequences = [stats.mean_sequence(np.array([p.value for p in kept[n:]]), error=ERROR) for n in starts]
            recent = np.mean([p.value for p in kept[-CURRENT:]])
            raised.append(bool(recent < 0 and any(one.below(0.0) for one in sequences)))
        made = below(told_points, 0.0, DAY)
        assert made is not None
        assert made.raised == raised[0]
        fewer += raised[0] != raised[1]
    assert fewer > 0


def test_a_planted_fault_is_found_within_three_weeks(told: Any) -> None:
    random = np.random.default_rng(2)
    waited = []
    for _ in range(12):
        values = random.normal(0.5, 1, 200)
        values[100:] -= 2.0
        opened = [n for n in walk(told, values, 0.0) if n > 100]
        waited.append(opened[0] - 100 if opened else 999)
    assert np.median(waited) <= 21
    assert max(waited) <= 42


def test_a_fault_that_ended_is_not_raised(told: Any) -> None:
    values = np.concatenate([np.full(30, -1.0) + np.sin(np.arange(30)) / 9, np.full(CURRENT, 1.0)])
    made = below(points(told, values), 0.0, DAY)
    assert made is not None
    assert not made.raised
    assert below([], 0.0, DAY) is None


def turn(story: Any) -> list[Alerted]:
    """One turn of monitoring, as the loop does it."""
    monitoring.watch(story.home, story.system, story.now)
    made = monitoring.alert(story.home, story.system, story.now)
    story.home.commit(Turned(did=("monitoring",)), key=f"turn/{story.clock.now().isoformat()}")
    return [entry.record for entry in made]


def turns(story: Any, world: Any, days: int) -> list[Alerted]:
    made = []
    for _ in range(days):
        story.tell(world, 1)
        made += turn(story)
    return made


def start(begin: Any, told: Any, world: Any, system: Any = None, days: int = ORDINARY) -> Any:
    story = begin(system)
    story.tell(world, days)
    story.release(world)
    turn(story)
    return story


def test_a_quiet_year_quarter_raises_nothing_and_a_weekly_cycle_neither(begin: Any, told: Any) -> None:
    """Weekends have fewer and other rows: ordinary windows know them."""
    weekly = told.World(weekend=0.4)
    story = start(begin, told, weekly)
    assert turns(story, weekly, 35) == []


def test_drift_without_harm_opens_a_fact_and_never_marks_harm(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    made = turns(story, told.World(x_mean=-1.2), 14)
    assert {(a.name, a.subject) for a in made if a.state == "open"} >= {("drift", "asked")}
    assert not any(a.harm for a in made)
    assert len({a.alert for a in made if a.name == "drift" and a.subject == "asked"}) == 1
    opened = next(a for a in made if a.name == "drift" and a.subject == "asked")
    assert opened.since == told.START + ORDINARY * DAY
    assert "x" in opened.message
    assert f"since {opened.since:%Y-%m-%d}" in opened.message
    back = turns(story, told.World(), 8)
    assert [(a.name, a.subject, a.state) for a in back if a.subject == "asked"] == [("drift", "asked", "resolved")]
    assert not [e for e in monitoring.open_alerts(story.home) if e.record.subject == "asked"]


def test_a_changed_concept_is_one_harm_alert_that_says_what_and_since_when(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    made = turns(story, told.World(slope=-1.2), 24)
    harm = [a for a in made if a.harm and a.state == "open"]
    names = [a.name for a in harm]
    assert "worse than baseline" in names or "decay" in names
    assert len({a.alert for a in harm}) == 1
    worst = harm[0]
    assert abs((worst.since - (told.START + ORDINARY * DAY)) / DAY) <= 8
    assert worst.size.known
    recovered = turns(story, told.World(), 16)
    assert {a.alert for a in recovered if a.state == "resolved"} >= {worst.alert}


def test_sticky_labels_raise_the_alert_that_names_the_last_label(begin: Any, told: Any) -> None:
    """The next label mostly repeats the last: a model that does not know it is beaten, and the alert says by what."""
    story = start(begin, told, told.World())
    made = turns(story, told.World(sticky=0.95, delay_hours=0.01), 28)
    harm = {name for a in made if a.harm and a.state == "open" for name in members(a)}
    assert ("worse than baseline", "last label") in harm
    assert ("worse than baseline", "base rate") not in harm


def test_a_broken_guardrail_and_lost_money(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    made = turns(story, told.World(base=-4.0, act=1.0), 17)
    [alert] = {a.alert for a in made if a.harm and a.state == "open"}
    last = [a for a in made if a.alert == alert][-1]
    assert {("guardrail", "precision"), ("value", "do nothing")} <= set(members(last))
    assert last.severity == "page"
    assert last.cost is not None
    assert last.cost.low is not None
    assert last.cost.low > 0


def test_refused_rows_are_harm_and_volume_a_fact(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    made = turns(story, told.World(refused=0.2), 3)
    assert [(a.name, a.harm, a.state) for a in made if a.level == "operation"] == [("refused", True, "open")]
    made = turns(story, told.World(rows=20), 3)
    assert ("volume", False, "open") in [(a.name, a.harm, a.state) for a in made]


def test_a_score_that_is_stuck_is_harm_within_two_windows(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    made = turns(story, told.World(score=lambda x: np.where(x > 0.5, 0.5, 0.25)), 2)
    stuck = [a for a in made if ("stuck score", "score") in members(a)]
    assert [(a.harm, a.state) for a in stuck] == [(True, "open")]


def test_an_alert_is_acknowledged_once_and_stays_open(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    turns(story, told.World(refused=0.2), 2)
    said = monitoring.open_alerts(story.home)[0].record
    alert = said.alert
    story.home.commit(Approved(subject=alert, by="ada", note="known"), key=f"approved/{alert}/1")
    made = turn(story)
    assert [(a.state, a.message) for a in made] == [("acknowledged", said.message)]
    assert turn(story) == []
    assert [e.record.state for e in monitoring.open_alerts(story.home)] == ["acknowledged"]
    resolved = turns(story, told.World(), 3)
    assert [a.state for a in resolved] == ["resolved"]
    assert monitoring.open_alerts(story.home) == []


def test_before_any_release_nothing_alarms(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 20)
    assert turn(story) == []
    assert turns(story, told.World(rows=10, x_mean=5), 5) == []


def test_a_replaced_release_takes_its_decay_with_it(begin: Any, told: Any) -> None:
    story = start(begin, told, told.World())
    since = story.now
    alert = f"alert/decay/{story.bundle[:12]}/{since.isoformat()}"
    opened = Alerted(
        alert=alert, name="decay", subject=story.bundle[:12], state="open", since=since, harm=True, size=Estimate(-1.0), bound=0.0,
        message="m", level="outcome",
    )  # fmt: skip
    story.home.commit(opened, key=f"{alert}/open")
    assert [a.alert for a in turns(story, told.World(), 1)] == []
    story.release(told.World())
    made = turns(story, told.World(), 1)
    assert [(a.alert, a.state) for a in made] == [(alert, "resolved")]


def test_windows_are_not_judged_twice(begin: Any, told: Any) -> None:
    """A turn that was killed after half of its alerts ends in the same alerts."""
    whole = start(begin, told, told.World())
    whole.tell(told.World(refused=0.2, x_mean=3), 7)
    expected = [(a.alert, a.state) for a in turn(whole)]
    assert len(expected) >= 2
    halved = begin(seed=99)
    halved.seed = 0
    halved.tell(told.World(), ORDINARY)
    halved.release(told.World())
    turn(halved)
    halved.tell(told.World(refused=0.2, x_mean=3), 7)
    monitoring.watch(halved.home, halved.system, halved.now)
    committed = halved.home.commit
    done = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return committed(*args, **kwargs)

    halved.home.commit = once
    with pytest.raises(KeyboardInterrupt):
        monitoring.alert(halved.home, halved.system, halved.now)
    halved.home.commit = committed
    turn(halved)
    assert [(e.record.alert, e.record.state) for e in halved.home.ledger.read(Alerted)] == expected
