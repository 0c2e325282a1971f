"""One fault is one alert; how bad it is; who is told; and what the budget and the tests promise, counted."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

import noria as nr
from noria import monitoring
from noria.core import Estimate, Verdict, Window
from noria.data.verify import PART as VERIFICATION
from noria.monitoring import budget, facts, rules
from noria.monitoring.change import Point, began, limit, ordinary, sudden
from noria.monitoring.facts import History, persistent
from noria.monitoring.grouping import RANKS, Part, belongs, members, rank
from noria.monitoring.outbox import due
from noria.monitoring.severity import anchor, runbook, severity, worst_slice
from noria.monitoring.windows import key
from noria.records import Alerted, Approved, Monitored, Released, Signal, Turned

ROOT = Path(__file__).resolve().parents[2]
DAY = timedelta(days=1)
START = datetime(2021, 1, 1, tzinfo=UTC)


def points(values: Any) -> list[Point]:
    return [Point(START + k * DAY, START + (k + 1) * DAY, float(v), 100.0) for k, v in enumerate(values)]


# ---------------------------------------------------------------------------------------------------------------- budget


def test_the_parts_are_no_more_than_the_whole() -> None:
    assert 0.9 < sum(budget.SHARES.values()) + VERIFICATION <= 1


@pytest.mark.parametrize("rule", [(1, 1), (2, 2), (2, 3), (5, 7)])
@pytest.mark.parametrize("running", [0.0, 0.4])
def test_how_often_a_rule_begins_is_what_a_long_run_shows(rule: tuple[int, int], running: float) -> None:
    random = np.random.default_rng(3)
    p, n = 0.2, 300_000
    u = random.random(n)
    stay, come = p + (1 - p) * running, p * (1 - running)
    beyond = np.zeros(n, bool)
    for place in range(1, n):
        beyond[place] = u[place] < (stay if beyond[place - 1] else come)
    counts = np.convolve(beyond, np.ones(rule[1]), "valid")[: n - rule[1] + 1]
    begins = float(np.mean((counts[1:] >= rule[0]) & (counts[:-1] < rule[0])))
    assert budget.begins(p, rule, running) == pytest.approx(begins, rel=0.05)
    assert budget.begins(budget.window_error(0.004, rule, running), rule, running) == pytest.approx(0.004, rel=0.01)


# ----------------------------------------------------------------------------------------------------------------- tests


def test_the_limit_of_normal_windows_is_that_of_a_prediction_interval() -> None:
    """Independent normal windows and a long reference: the normal quantile, as for a Shewhart chart."""
    values = np.random.default_rng(1).normal(0, 1, 4000)
    usual = ordinary(points(values))
    assert usual is not None
    for span in (2, 4):
        expected = norm.isf(0.01) / np.sqrt(span)
        assert limit(usual, 0.01, span) == pytest.approx(expected, rel=0.06)
    assert limit(usual, 0.01, 1) > norm.isf(0.01)  # a single window is never taken to be light-tailed
    assert ordinary(points(values[:13])) is None


@pytest.mark.parametrize(("kind", "most"), [("normal", 0.6), ("autocorrelated", 0.8), ("heavy", 2.0)])
def test_the_fast_test_keeps_its_part_and_finds_large_falls_in_two_windows(kind: str, most: float) -> None:
    random, rate, runs, length = np.random.default_rng(7), 0.003, 60, 100
    beginnings, soon = 0, []
    for _ in range(runs):
        noise = random.standard_t(4, length + 2) / np.sqrt(2) if kind == "heavy" else random.normal(0, 1, length + 2)
        if kind == "autocorrelated":
            for k in range(1, len(noise)):
                noise[k] = 0.3 * noise[k - 1] + np.sqrt(0.91) * noise[k]
        everything = points(noise)
        before = False
        for n in range(44, length, 1):
            usual = ordinary(everything[n - 44 : n - 4])
            made = sudden(everything[n - 4 : n], 9.0, usual, rate=rate)
            assert made is not None
            beginnings += made.raised and not before
            before = made.raised
        usual = ordinary(everything[length - 56 : length - 4])
        noise[length:] -= 5
        fallen = points(noise)
        told = [sudden(fallen[:n][-4:], 9.0, usual, rate=rate) for n in (length + 1, length + 2)]
        soon.append(any(made is not None and made.raised for made in told))
    assert beginnings / (runs * (length - 44)) <= most * rate
    assert np.mean(soon) >= (0.8 if kind == "heavy" else 0.93)


def test_a_fall_that_stays_above_what_is_allowed_is_none() -> None:
    random = np.random.default_rng(2)
    usual = ordinary(points(random.normal(1, 0.1, 40)))
    low = points([0.3, 0.3])
    assert sudden(low, 0.2, usual, rate=0.003).raised is False  # type: ignore[union-attr]
    assert sudden(low, 0.4, usual, rate=0.003).raised is True  # type: ignore[union-attr]
    assert sudden(low, 0.4, None, rate=0.003) is None


def test_when_a_change_began() -> None:
    random = np.random.default_rng(4)
    missed = []
    for _ in range(40):
        values = np.concatenate([random.normal(1, 0.3, 30), random.normal(0, 0.3, 12)])
        at = began(points(values), 1.0, 0.0)
        assert at is not None
        missed.append(abs((at - START) / DAY - 30))
    assert np.mean(missed) < 0.5
    assert max(missed) <= 3
    assert began(points(values), 0.0, 1.0) is None


# -------------------------------------------------------------------------------------------------------------- grouping


def part(name: str, subject: str = "x", day: int = 0, source: str = "") -> Part:
    return Part(name, subject, START + day * DAY, source)


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        (part("source late", "weather", 0, "weather"), part("missing values", "weather", 2, "weather"), True),
        (part("missing values", "weather", 0, "weather"), part("drift", "weather", 1, "weather"), True),
        (part("missing values", "weather", 0, "weather"), part("missing values", "schedule", 1, "schedule"), False),
        (part("drift", "weather", 0, "weather"), part("drift", "schedule", 1, "schedule"), True),
        (part("drift", "weather", 0, "weather"), part("drift", "score", 3), True),
        (part("drift", "weather", 0, "weather"), part("decay", "r", 5), True),
        (part("drift", "weather", 0, "weather"), part("decay", "r", 20), False),
        (part("latency", "service"), part("drift", "weather", 1, "weather"), False),
        (part("latency", "service"), part("errors", "service", 1), True),
        (part("labels missing", "label"), part("decay", "r", 1), True),
        (part("labels missing", "label"), part("drift", "weather", 1, "weather"), False),
        (part("worse than baseline", "last label"), part("decay", "r", 40), True),
        (part("drift", "weather", 0, "weather"), part("unseen values", "weather", 40, "weather"), True),
    ],
)
def test_what_is_one_fault(first: Part, second: Part, one: bool) -> None:
    assert belongs(second, [first], DAY) is one


def test_every_alert_has_a_rank_and_a_runbook() -> None:
    """The page has a section for each name that a rule can give, and for no other."""
    names = {watch.name for watch in facts.WATCHES} | set(facts.SHIFTS)
    names |= {
        "labels missing",
        "labels late",
        "metric link",
        "miscalibrated",
        "decay",
        "worse than baseline",
        "guardrail",
        "value",
    }
    assert names == set(RANKS)
    sections = re.findall(r"^### (.+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert set(sections) == names
    assert len({anchor(name) for name in sections}) == len(sections)
    assert rank(part("drift", "weather")) < rank(part("drift", "score")) < rank(part("decay"))


# ----------------------------------------------------------------------------------------------------------------- facts


def test_each_signal_of_the_contract_leads_to_its_alert(told: Any) -> None:
    """Two failed windows in a row raise what is named after them, and five good ones clear it."""
    expected = {
        ("domain", "inputs", "feature"): ("inputs moved together", "inputs"),
        ("regions", "inputs", "feature"): ("unseen regions", "inputs"),
        ("label shift", "label", "prediction"): ("label shift", "label"),
        ("expected", "log_loss", "prediction"): ("expected performance", "log_loss"),
        ("diversity", "acts", "prediction"): ("diversity", "acts"),
        ("fallbacks", "volume", "operation"): ("fallbacks", "traffic"),
        ("latency p99 ms", "service", "operation"): ("latency", "service"),
        ("errors", "service", "operation"): ("errors", "service"),
        ("rows", "sensor", "input"): ("source volume", "sensor"),
        ("freshness hours", "sensor", "input"): ("source late", "sensor"),
        ("duplicates", "sensor", "input"): ("duplicates", "sensor"),
        ("quarantined", "sensor", "input"): ("quarantined", "sensor"),
        ("rows", "volume", "operation"): ("volume", "traffic"),
        ("concept", "loss given x", "outcome"): ("concept change", "label"),
        ("slice", "kind=a", "outcome"): ("slice", "kind"),
    }
    for (name, subject, level), about in expected.items():

        def record(k: int, verdict: Verdict, name: str = name, subject: str = subject, level: str = level) -> Monitored:
            signal = Signal(name, subject, level, 1.1, 1.0, verdict)  # type: ignore[arg-type]
            place = "outcomes" if level == "outcome" else "traffic"
            window = Window(START + k * DAY, START + (k + 1) * DAY)
            return Monitored(window=window, about=place, release="r", n=9, signals=(signal,))

        def said(windows: list[Monitored], level: str = level) -> list[Any]:
            outcome = level == "outcome"
            history = History(told.declaration(), [] if outcome else windows, windows if outcome else [], lambda *_: None)
            return [f for f in persistent(history) if f.raised or f.cleared]

        failing = [record(k, Verdict.PASS) for k in range(5)] + [record(k, Verdict.FAIL) for k in (5, 6)]
        [finding] = [f for f in said(failing) if f.raised]
        assert (finding.name, finding.subject) == about
        assert finding.since == START + 5 * DAY
        assert not [f for f in said(failing[:-1]) if f.raised]
        assert not [f for f in said([record(k, Verdict.NOT_ENOUGH_DATA) for k in range(7)]) if f.raised]
    assert finding.slice == "kind=a"


def test_a_gross_window_is_enough(told: Any) -> None:
    def history(value: float, name: str = "missing") -> History:
        signal = Signal(name, "y", "feature", value, 0.02, Verdict.FAIL)
        window = Window(START, START + DAY)
        return History(
            told.declaration(),
            [Monitored(window=window, about="traffic", release="r", n=9, signals=(signal,))],
            [],
            lambda *_: None,
        )

    assert [f.name for f in facts.drift(history(0.5)) if f.raised] == ["missing values"]
    assert not [f for f in facts.drift(history(0.07)) if f.raised]  # 3.5 bounds, but a tenth of the rows is asked for
    assert [f.name for f in facts.drift(history(0.6, "unseen")) if f.raised] == ["unseen values"]
    assert not [f for f in facts.drift(history(0.3, "unseen")) if f.raised]  # what is only new: half of the rows


def test_labels_that_stay_away_come_late_or_come_by_silence(told: Any) -> None:
    random = np.random.default_rng(6)

    def history(labelled: float, silent: float, delay: float, storm: float = 1.0) -> History:
        made = []
        for k in range(34):
            share, quiet, hours = (labelled, silent, delay) if k >= 32 else (0.97, 0.05, 3.0)
            values = {"labelled": share + random.normal(0, 0.01), "silent": quiet + random.normal(0, 0.005)}
            slow = storm if k >= 32 else 1.0
            values |= {
                f"delay {q} hours": hours * part * np.exp(random.normal(0, 0.05)) for q, part in (("p50", 0.9), ("p90", slow))
            }
            signals = tuple(Signal(name, "label", "outcome", float(value)) for name, value in values.items())
            window = Window(START + k * DAY, START + (k + 1) * DAY)
            made.append(Monitored(window=window, about="outcomes", release="r", n=500, signals=signals))
        return History(told.declaration(), [], made, lambda *_: None)

    def raised(given: History) -> dict[str, Any]:
        return {finding.name: finding for finding in rules.findings(given) if finding.raised}

    assert raised(history(0.97, 0.05, 3.0)) == {}
    missing = raised(history(0.5, 0.05, 3.0))["labels missing"]
    assert missing.since == START + 32 * DAY
    assert missing.size.value == pytest.approx(0.5, abs=0.05)
    assert "is ordinary" in missing.message
    silent = raised(history(0.97, 0.6, 3.0))["labels missing"]
    assert "by silence" in silent.message
    late = raised(history(0.97, 0.05, 9.0))["labels late"]
    assert late.size.value == pytest.approx(8.1, abs=1)
    assert late.bound == pytest.approx(2.7 + 0.9, abs=0.3)  # by 15 % of the six hours that are waited
    assert "half of the labels" in late.message
    assert "nine labels in ten" in late.message
    assert raised(history(0.97, 0.05, 3.0, storm=1.4)) == {}  # the slowest tenth is slower: a storm, not the source


# ------------------------------------------------------------------------------------------------------ severity, signing


def test_severity_goes_by_the_value_at_stake(told: Any) -> None:
    plain, severe = told.declaration(), told.declaration(alerts=nr.Alerts(severe=100.0))
    small, large = Estimate(40.0, 30.0, 50.0, 9), Estimate(400.0, 300.0, 500.0, 9)
    assert severity(plain, "decay", harm=True, lost=small) == "page"
    assert severity(severe, "decay", harm=True, lost=small) == "ticket"
    assert severity(severe, "decay", harm=True, lost=large) == "page"
    assert severity(severe, "decay", harm=True, lost=None) == "page"
    assert severity(plain, "drift", harm=False, lost=None) == "note"
    assert severity(plain, "drift", harm=False, lost=small) == "ticket"
    assert severity(severe, "drift", harm=False, lost=large) == "page"
    assert severity(plain, "source late", harm=False, lost=None) == "ticket"
    assert runbook(plain, "worse than baseline") == "docs/runbooks.md#worse-than-baseline"
    assert runbook(told.declaration(alerts=nr.Alerts(runbooks={"decay": "call Ada"})), "decay") == "call Ada"


def test_the_slice_where_the_loss_grew_is_named(begin: Any, told: Any) -> None:
    system = told.declaration(objective=replace(told.declaration().objective, slices=["kind"]))
    story = begin(system)
    story.tell(told.World(), 14)
    story.release(told.World())
    story.tell(told.World(), 14)
    since = story.now
    story.tell(told.World(), 7)
    assert worst_slice(story.home, system, since, story.now) == ""
    for frame, k in zip(story.kept[-7:], range(7), strict=True):  # labels of kind "a" are turned round
        turned = frame.with_columns(pl.when(pl.col("kind") == "a").then(1 - pl.col("_label")).otherwise("_label").alias("_label"))
        story.close(turned, Window(since + k * DAY, since + (k + 1) * DAY), 1)
    assert worst_slice(story.home, system, since, story.now) == "kind=a"
    combined = replace(system, combine=nr.Combine({"stars": 0.5}))
    assert worst_slice(story.home, combined, since, story.now) == "", "a combined score has no loss"


def turn(story: Any) -> list[Alerted]:
    monitoring.watch(story.home, story.system, story.now)
    made = monitoring.alert(story.home, story.system, story.clock.now())
    story.home.commit(Turned(did=("monitoring",)), key=f"turn/{story.clock.now().isoformat()}")
    return [entry.record for entry in made]


def test_a_fact_that_becomes_harm_is_the_same_alert_and_pages(begin: Any, told: Any) -> None:
    """The inputs move at once, the labels turn three days later: one alert, that the drift of columns joins, turns into a page."""
    story = begin()
    story.tell(told.World(rows=240), 34)
    story.release(told.World())
    turn(story)
    made = []
    for world, days in ((told.World(rows=240, x_mean=-1.2), 3), (told.World(rows=240, x_mean=-1.2, slope=-1.5, base=-0.5), 5)):
        for _ in range(days):
            story.tell(world)
            made += turn(story)
    opened = made[0]
    assert (opened.name, opened.subject) in (("drift", "asked"), ("inputs moved together", "inputs"))
    assert (opened.harm, opened.severity) == (False, "note")
    mine = [a for a in made if a.alert == opened.alert]
    assert (mine[-1].harm, mine[-1].severity, mine[-1].state) == (True, "page", "open")
    assert {"drift", "decay"} <= {name for name, _ in members(mine[-1])}
    assert mine[-1].cost is not None
    assert {a.alert for a in made if a.harm} == {opened.alert}


def test_an_acknowledged_alert_that_grows_to_a_page_is_told_again(begin: Any, told: Any) -> None:
    """Harm that is a ticket, since it costs little, is signed; then all harm is to page."""
    story = begin(told.declaration(alerts=nr.Alerts(severe=1e6)))
    story.tell(told.World(), 34)
    story.release(told.World())
    turn(story)
    story.tell(told.World(slope=-1.5, base=-0.5), 4)
    opened = next(a for a in turn(story) if a.harm)
    assert (opened.state, opened.severity) == ("open", "ticket")
    signed = Approved(subject=opened.alert, by="ada", note="known")
    story.home.commit(signed, key=f"approved/{opened.alert}/0000")
    assert [a.state for a in turn(story) if a.alert == opened.alert] == ["acknowledged"]
    story.system = told.declaration()
    story.tell(told.World(slope=-1.5, base=-0.5), 2)
    [again] = [a for a in turn(story) if a.alert == opened.alert]
    assert (again.state, again.severity) == ("open", "page")
    assert "ada" not in again.message
    entries = story.home.ledger.read(Alerted)
    assert again in [e.record for e in due(entries, entries[0].seq, "note")]


def test_what_is_not_declared_any_more_is_resolved(begin: Any, told: Any) -> None:
    """A guardrail and a source with open alerts leave the declaration: both alerts end with the next window, and a third stays."""
    story = begin()
    story.tell(told.World(), 34)
    story.release(told.World())
    turn(story)
    alerts = {}
    for name, subject in (
        ("guardrail", "precision"),
        ("source late", "sensor"),
        ("drift", "sensor"),
        ("metric link", "log_loss"),
    ):
        opened = Alerted(
            alert=f"alert/{name}/{subject}/x", name=name, subject=subject, state="open", since=story.now, harm=False, size=Estimate(1.0),
            bound=0.0, message="planted", severity="ticket",
        )  # fmt: skip
        story.home.commit(opened, key=f"{opened.alert}/open")
        alerts[name, subject] = opened.alert
    plain = story.system
    story.tell(told.World(), 1)
    assert turn(story) == []
    source = plain.predict
    objective = replace(plain.objective, guardrails=[])
    story.system = told.declaration(features=[source.columns("x", "kind")], objective=objective)
    assert "sensor" not in story.system.sources
    story.tell(told.World(), 1)
    over = {a.alert: a for a in turn(story) if a.state == "resolved"}
    assert over.keys() == {one for about, one in alerts.items() if about[0] != "metric link"}
    assert over[alerts["guardrail", "precision"]].message == "guardrail of precision: not declared any more"
    assert [e.record.alert for e in monitoring.open_alerts(story.home)] == [alerts["metric link", "log_loss"]]


def test_a_mute_ends_by_itself(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 34)
    story.release(told.World())
    turn(story)
    story.tell(told.World(refused=0.2), 2)
    [opened] = turn(story)
    until = story.clock.now() + 2 * DAY
    story.home.commit(Approved(subject=opened.alert, by="ada", note="known", until=until), key=f"approved/{opened.alert}/0000")
    [muted] = turn(story)
    assert (muted.state, muted.muted_until, muted.message) == ("muted", until, opened.message)
    assert turn(story) == []
    story.tell(told.World(refused=0.2), 1)
    assert turn(story) == []
    story.tell(told.World(refused=0.2), 1)
    [back] = turn(story)
    assert (back.state, back.muted_until, back.message) == ("open", None, opened.message)
    assert monitoring.open_alerts(story.home)[0].record.alert == opened.alert


# ------------------------------------------------------------------------------------------------------------ simulation


@pytest.fixture(scope="module")
def simulation() -> Any:
    spec = importlib.util.spec_from_file_location("false_alarms", ROOT / "benchmarks" / "false_alarms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["false_alarms"] = module
    spec.loader.exec_module(module)
    return module


def test_quiet_worlds_stay_within_the_budget(simulation: Any) -> None:
    """The fast form of ``benchmarks/false_alarms.py``: 3 worlds of 28 windows, a budget of two in 28."""
    assert np.mean([simulation.false_alarms(world, 2.0, 1, seed=40, quiet=28) for world in simulation.WORLDS[1:4]]) <= 2.0


def test_a_large_fall_has_an_alert_within_two_windows(simulation: Any) -> None:
    assert np.mean(simulation.delays(simulation.WORLDS[0], 6.0, 3) <= 2) == 1


def test_what_is_not_measured_any_more_is_not_said_to_be_within_bounds(told: Any) -> None:
    def windows(verdict: Verdict) -> list[Monitored]:
        signal = Signal("domain", "inputs", "feature", 0.6, 0.7, verdict)
        spans = [Window(START + k * DAY, START + (k + 1) * DAY) for k in range(8)]
        return [Monitored(window=span, about="traffic", release="r", n=100, signals=(signal,)) for span in spans]

    for verdict, says in ((Verdict.PASS, "back within bounds"), (Verdict.NOT_ENOUGH_DATA, "not measured any more")):
        history = History(told.declaration(), windows(verdict), [], lambda *_: None)
        [said] = [f for f in persistent(history) if f.name == "inputs moved together"]
        assert said.cleared is (verdict is Verdict.PASS)
        assert said.quiet == "r"
        assert says in said.message


def test_windows_without_a_verdict_clear_nothing_but_those_of_a_new_release_do(begin: Any, told: Any) -> None:
    """Drift, then windows that say nothing of it: the alert stays; it ends once another release has answered five such windows."""
    story = begin()
    home, rows = story.home, 9

    def window(verdict: Verdict, release: str) -> list[Alerted]:
        signal = Signal("domain", "inputs", "feature", 0.9, 0.7, verdict)
        span = Window(START + story.day * DAY, START + (story.day + 1) * DAY)
        story.day += 1
        home.commit(Monitored(window=span, about="traffic", release=release, n=rows, signals=(signal,)), key=key("traffic", span))
        story.clock.move(told.START + 4000 * DAY + story.day * DAY)
        made = monitoring.alert(home, story.system, story.clock.now())
        home.commit(Turned(did=("monitoring",)), key=f"turn/{story.clock.now().isoformat()}")
        return [entry.record for entry in made]

    home.commit(Released(number=1, bundle="a", previous=None, reason="promotion"), key="released/1")
    [opened] = [a for _ in range(2) for a in window(Verdict.FAIL, "a")]
    assert opened.name == "inputs moved together"
    assert [a for _ in range(12) for a in window(Verdict.NOT_ENOUGH_DATA, "a")] == []
    home.commit(Released(number=2, bundle="b", previous="a", reason="promotion"), key="released/2")
    assert [a for _ in range(4) for a in window(Verdict.NOT_ENOUGH_DATA, "b")] == []
    [over] = window(Verdict.NOT_ENOUGH_DATA, "b")
    assert (over.alert, over.state) == (opened.alert, "resolved")


@pytest.mark.parametrize(("price", "raised"), [(0.0, None), (0.1, False), (1.5, True)])
def test_decisions_that_no_longer_pay_for_themselves(told: Any, price: float, raised: bool | None) -> None:
    """Half a dollar a prediction beyond doing nothing: without costs nothing is asked, at ten cents all is well, at a dollar fifty it is harm."""
    random = np.random.default_rng(8)
    made = []
    for k in range(30):
        values = [("value", "champion", 0.5 + random.normal(0, 0.05)), ("value", "do nothing", 0.0), ("rows", "champion", 500.0)]
        values += [("labelled", "label", 1.0), ("silent", "label", 0.0)]
        signals = tuple(Signal(name, subject, "outcome", float(value)) for name, subject, value in values)
        window = Window(START + k * DAY, START + (k + 1) * DAY)
        made.append(Monitored(window=window, about="outcomes", release="r", n=500, signals=signals))
    system = told.declaration(costs=nr.Costs(prediction=price))
    found = [
        one for one in rules.findings(History(system, [], made, lambda *_: None)) if (one.name, one.subject) == ("value", "costs")
    ]
    assert [one.raised for one in found] == ([] if raised is None else [raised])
    assert all(one.harm for one in found)


def test_scores_that_reach_other_rows_break_parity(begin: Any, told: Any) -> None:
    """The release says of the logged features what was logged, until the answers are handed round."""
    from noria.model import load
    from noria.monitoring import served

    story = begin()
    story.tell(told.World(), 30)
    story.release(told.World())
    story.tell(told.World(), 1)
    frame = story.home.lake.read("predictions").filter(pl.col("_release") == story.bundle)
    said = load(story.home.artifacts.get(story.bundle), story.bundle).predict(frame)
    parity = vars(served)["_parity"]
    right, wrong = (
        parity(story.home, story.bundle, frame.with_columns(_score=pl.Series(one)))[0] for one in (said, said[::-1].copy())
    )
    assert (right.value, right.verdict) == (0.0, Verdict.PASS)
    assert wrong.value > 0.9
    assert wrong.verdict is Verdict.FAIL
