"""What a window's record holds, against numbers computed another way."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, log_loss, precision_score

import noria as nr
from noria import monitoring
from noria.core import Verdict, Window
from noria.monitoring.lastlabel import calibrated, last_labels
from noria.monitoring.reference import bounds, rarely
from noria.monitoring.windows import found, recent, value_of
from noria.records import Monitored
from noria.stats import block_mean


def test_before_a_release_windows_hold_volume_and_labels_only(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 3)
    made = monitoring.watch(story.home, story.system, story.now)
    assert [(e.record.about, e.record.release) for e in made] == [("traffic", None)] * 3 + [("outcomes", None)] * 3
    assert {s.level for e in made for s in e.record.signals} == {"operation", "outcome"}
    assert monitoring.watch(story.home, story.system, story.now) == []
    assert monitoring.alert(story.home, story.system, story.now) == []


def test_outcomes_agree_with_sklearn_and_with_brute_force(begin: Any, told: Any) -> None:
    story = begin()
    world = told.World(sticky=0.3)
    story.tell(world, 20)
    story.release(world)
    story.tell(world, 5)
    monitoring.watch(story.home, story.system, story.now)
    records = recent(story.home, "outcomes", 30)
    assert len(records) == 25
    everything = story.frame().sort("_time", "_id")
    for record, frame in zip(records[20:], story.kept[20:], strict=True):
        label, score = frame["_label"].to_numpy(), frame["_score"].to_numpy()
        assert record.release == story.bundle
        assert value_of(record, "log_loss", "champion") == pytest.approx(log_loss(label, score))
        assert value_of(record, "accuracy", "champion") == pytest.approx(accuracy_score(label, score >= 0.5))
        assert value_of(record, "guardrail", "precision") == pytest.approx(precision_score(label, frame["_act"].to_numpy()))
        assert value_of(record, "offset", "score") == pytest.approx(label.mean() - score.mean())
        earlier = everything.filter(pl.col("_time") <= record.window.start)
        rate = earlier["_label"].mean()
        assert value_of(record, "log_loss", "base rate") == pytest.approx(log_loss(label, np.full(len(label), rate)))
        last = brute_last(everything, frame)
        assert value_of(record, "accuracy", "last label") == pytest.approx(float((last == label).mean()))
        act = frame["_act"].to_numpy()
        worth = np.where((act == 1) & (label == 1), 4.0, np.where(act == 1, -1.0, 0.0)).mean()
        assert value_of(record, "value", "champion") == pytest.approx(worth)


def test_the_standard_is_what_the_release_did_at_its_gate(begin: Any, told: Any) -> None:
    """Its lead over the moving base rate on the test part's days, from the rows; less the margin."""
    story = begin()
    world = told.World(rows=80)
    story.tell(world, 50)
    story.release(world)
    story.tell(world, 1)
    monitoring.watch(story.home, story.system, story.now)
    signal = found(recent(story.home, "outcomes", 1)[0].signals, "lead", "champion")
    leads = []
    for day in range(36, 50):
        frame, past = story.kept[day], pl.concat(story.kept[day - 28 : day])
        label = frame["_label"].to_numpy()
        score = 1 / (1 + np.exp(1.3 - 1.2 * frame["x"].to_numpy()))
        leads.append(log_loss(label, np.full(len(label), past["_label"].mean())) - log_loss(label, score))
    expected = block_mean(np.array(leads), np.arange(14))
    assert signal is not None
    assert signal.bound == pytest.approx(expected.low - 0.1 * expected.value, rel=1e-6)


def brute_last(everything: pl.DataFrame, frame: pl.DataFrame) -> np.ndarray:
    rows = everything.select("_time", "_known", "_id", "_label").rows()
    answers = []
    for asked in frame["_time"].to_list():
        final = [(max(k, t + timedelta(hours=6)), t, i, y) for t, k, i, y in rows if y is not None]
        known = [one for one in final if one[0] <= asked]
        answers.append(max(known)[3] if known else np.nan)
    return np.array(answers)


def test_the_last_label_goes_by_group_and_counts_once_its_time_is_up() -> None:
    done = nr.Source("done", None, key="id", time="at")
    label = nr.Label(done, "bad", within="2h", otherwise=False)
    at = [told_time(h) for h in (0, 1, 2, 3, 4)]
    frame = pl.DataFrame(
        {
            "_id": list("abcde"),
            "_time": at,
            "_known": [told_time(0.5), None, told_time(2.5), told_time(3.5), told_time(4.5)],
            "_label": [1.0, 0.0, 1.0, None, 0.0],
            "g": ["u", "v", "u", "v", "u"],
        },
        schema_overrides={"_time": pl.Datetime("us", "UTC"), "_known": pl.Datetime("us", "UTC")},
    )
    assert last_labels(frame, label).to_list() == [None, None, 1.0, 0.0, 1.0]
    assert last_labels(frame, label, ["g"]).to_list() == [None, None, 1.0, 0.0, 1.0]


def told_time(hour: float) -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def test_a_calibrated_last_label_is_the_observed_share() -> None:
    assert calibrated(np.array([1.0, 0.0, np.nan]), {"11": 29, "10": 9, "01": 0, "00": 8})[:2].tolist() == pytest.approx(
        [0.75, 0.1]
    )
    assert np.isnan(calibrated(np.array([np.nan]), {}))[0]


def test_a_moved_column_fails_and_the_others_do_not(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 40)
    story.release(told.World())
    story.tell(told.World(), 20)
    story.tell(told.World(x_mean=1.5), 1)
    story.tell(told.World(y_missing=0.6), 1)
    story.tell(told.World(kinds=("a", "b", "new")), 1)
    monitoring.watch(story.home, story.system, story.now)
    failing = [{(s.name, s.subject) for s in r.signals if s.verdict is Verdict.FAIL} for r in recent(story.home, "traffic", 23)]
    assert sum(bool(some) for some in failing[:20]) <= 1
    moved, missing, unseen = failing[20:]
    assert {("js", "x"), ("largest", "x")} <= moved
    assert not {subject for _, subject in moved} & {"y", "kind"}
    assert {("missing", "y"), ("largest", "y")} <= missing
    assert ("unseen", "kind") in unseen


def test_few_reference_windows_are_not_enough_data(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 20)
    story.release(told.World())
    story.tell(told.World(x_mean=3), 1)
    monitoring.watch(story.home, story.system, story.now)
    last = recent(story.home, "traffic", 1)[0]
    signal = found(last.signals, "js", "x")
    assert signal is not None
    assert signal.value is not None
    assert signal.value > 0.5
    assert signal.verdict is Verdict.NOT_ENOUGH_DATA


def test_a_season_never_seen_gives_no_verdict(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 40)
    story.release(told.World())
    story.tell(told.World(rows=20, x_mean=2), 52)
    monitoring.watch(story.home, story.system, story.now)
    verdicts = {r.window.end: found(r.signals, "js", "x").verdict for r in recent(story.home, "traffic", 52)}  # type: ignore[union-attr]
    ends = sorted(verdicts)
    assert {verdicts[e] for e in ends[:44]} == {Verdict.FAIL}
    assert {verdicts[e] for e in ends[46:]} == {Verdict.NOT_ENOUGH_DATA}


def test_old_windows_that_are_revised_are_judged_as_before_and_stay_old(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 20)
    story.release(told.World())
    story.tell(told.World(), 50)
    monitoring.watch(story.home, story.system, story.now)
    before = recent(story.home, "outcomes", 10)
    everything = {r.window.start: r for r in recent(story.home, "outcomes", 70)}
    frames = list(story.kept)
    days = [told.START + k * told.DAY for k in range(22, 38)]
    for day, frame in zip(days, frames[22:38], strict=True):
        story.close(frame, Window(day, day + told.DAY), 1)
    made = monitoring.watch(story.home, story.system, story.now)
    assert [e.record.window.start for e in made] == days
    assert [e.record.signals for e in made] == [everything[day].signals for day in days]
    assert recent(story.home, "outcomes", 10) == before


def test_a_revised_cohort_makes_a_new_version_and_keeps_the_old(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 3)
    monitoring.watch(story.home, story.system, story.now)
    start = told.START + 2 * told.DAY
    story.close(story.kept[-1].with_columns(_label=pl.lit(1.0)), Window(start, start + told.DAY), 1)
    made = monitoring.watch(story.home, story.system, story.now)
    assert [e.record.revision for e in made] == [1]
    kept = [e for e in story.home.ledger.read(Monitored, prefix="monitored/outcomes/") if e.record.window.start == start]
    assert [value_of(e.record, "mean", "label") == 1.0 for e in kept] == [False, True]


def test_bounds_hold_on_ordinary_windows() -> None:
    """About one ordinary window in a hundred is beyond its bound in any of ten columns: the columns share one threshold."""
    random = np.random.default_rng(3)

    def windows(n: int) -> list[dict[tuple[str, str], float]]:
        return [{("js", f"c{k}"): float(v) for k, v in enumerate(random.gamma(9, 0.02, 10))} for _ in range(n)]

    beyond = []
    for _ in range(20):
        limit = bounds(windows(56))
        beyond += [any(value > limit[name] for name, value in window.items()) for window in windows(200)]
    assert 0.003 < np.mean(beyond) < 0.04
    assert bounds(windows(29)) == {}
    assert rarely(np.arange(100.0)) >= 97


def test_a_window_costs_the_same_late_as_early(begin: Any, told: Any) -> None:
    """900 rows and 3 columns a day: the cost of a turn's watching and judging does not grow with the history."""
    story = begin()
    story.tell(told.World(rows=900), 34)
    story.release(told.World())
    spent = []
    for _ in range(24):
        story.tell(told.World(rows=900), 1)
        begun = time.process_time()
        monitoring.watch(story.home, story.system, story.now)
        monitoring.alert(story.home, story.system, story.now)
        spent.append(time.process_time() - begun)
    early, late = np.median(spent[1:9]), np.median(spent[-8:])
    print(f"watch and alert: {1000 * early:.0f} ms early, {1000 * late:.0f} ms late")
    assert late < 3 * early + 0.05
