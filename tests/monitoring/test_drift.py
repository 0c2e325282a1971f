"""Stored profiles add up without rows, seven windows together see what one cannot, and drift is ranked by what it does to the loss."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from noria import measure, monitoring
from noria.core import Verdict, Window
from noria.development.reference import loss_profile
from noria.monitoring import profiles
from noria.monitoring.impact import impacts, shrunk
from noria.monitoring.ordinary import ordinary
from noria.monitoring.reference import distances, profile_of
from noria.monitoring.windows import found, recent
from noria.stats import row_loss
from noria.web import facts

QUIET, SLOW = 12, 10


def test_a_slow_drift_is_seen_by_seven_windows_together_and_profiles_add_up(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 56)
    story.release(told.World())
    story.tell(told.World(), QUIET)
    story.tell(told.World(x_mean=0.4), SLOW)
    monitoring.watch(story.home, story.system, story.now)
    records = recent(story.home, "traffic", QUIET + SLOW)
    failing = [{(s.name, s.subject) for s in record.signals if s.verdict is Verdict.FAIL} for record in records]
    assert not any(name == "sliding" for some in failing[:QUIET] for name, _ in some)
    assert all(("sliding", "x") in some for some in failing[-3:])
    assert sum(("js", "x") in some for some in failing[QUIET:]) < 5
    assert any(finding.name == "drift" for finding in (e.record for e in monitoring.alert(story.home, story.system, story.now)))
    assert {name for some in failing for name, column in some if column == "y"} <= {"missing", "js"}
    the_detail_and_the_impact(records[-1])
    stored_profiles_add_up(story, told, records)


def the_detail_and_the_impact(last: Any) -> None:
    """Three columns of detail at most, unjudged; the drifted column matters, the others hardly."""
    detail = [s for s in last.signals if s.name in ("psi", "ks", "wasserstein", "chi2")]
    assert {s.verdict for s in detail} == {Verdict.NOT_MEASURED}
    assert 1 <= len({s.subject for s in detail}) <= 3
    assert found(detail, "chi2", "x") is None
    impact = {s.subject: s.impact for s in last.signals if s.name == "js"}
    assert impact["x"] is not None
    assert impact["x"] > 0.03
    assert impact["y"] < impact["x"] / 3


def stored_profiles_add_up(story: Any, told: Any, records: list[Any]) -> None:
    reference = profile_of(story.home, story.bundle)
    assert reference is not None
    week = Window(story.now - 7 * told.DAY, story.now)
    made = profiles.window_profile(story.home, week)
    rows = pl.concat(story.kept[-7:])
    expected = measure.against(measure.Profile(0, {k: c for k, c in reference.columns.items() if k != "score"}), rows)
    assert made is not None
    assert {name: column for name, column in made.columns.items() if name != "score"} == expected.columns
    assert made.columns["score"].n == rows.height
    assert profiles.moved(story.home, week)["x"] == measure.distance(reference, expected)["x"]
    value = found(records[-1].signals, "sliding", "x")
    assert value is not None
    assert value.value == pytest.approx(profiles.moved(story.home, week)["x"]["js"])
    whole = profiles.since_release(story.home, story.now)
    all_rows = measure.against(reference, pl.concat(story.kept[-QUIET - SLOW :]))
    assert whole["kind"] == measure.distance(reference, all_rows)["kind"]
    shown = facts.moved(story.home)
    assert set(list(shown)[:2]) == {"x", "score"}, "they have moved most"
    assert shown["x"] == pytest.approx(whole["x"]["js"], rel=1e-3)
    early = Window(told.START, told.START + 20 * told.DAY)
    assert profiles.window_profile(story.home, early) is None
    assert profiles.moved(story.home, early) == {}


def test_ordinary_windows_counted_at_once_are_those_counted_one_by_one(told: Any) -> None:
    random = np.random.default_rng(3)
    n = 4000
    offsets = np.sort(random.integers(1, 12 * 86_400, n))
    frame = pl.DataFrame(
        {
            "_time": pl.Series([told.START + timedelta(seconds=int(s)) for s in offsets], dtype=pl.Datetime("us", "UTC")),
            "x": np.where(random.random(n) < 0.1, np.nan, random.normal(0, 1, n)),
            "kind": random.choice(["a", "b", "c"], n),
        }
    ).filter(~((pl.col("_time") > told.START + 4 * told.DAY) & (pl.col("_time") <= told.START + 5 * told.DAY)))
    reference = measure.profile(frame.filter(pl.col("x").abs() < 2, pl.col("kind") != "c"), ["x", "kind"])
    seen = ordinary(reference, frame, Window(told.START, told.START + 12 * told.DAY), told.DAY)
    days = [
        day
        for k in range(12)
        if (
            day := frame.filter(pl.col("_time") > told.START + k * told.DAY, pl.col("_time") <= told.START + (k + 1) * told.DAY)
        ).height
    ]
    assert len(days) == len(seen.alone) == len(seen.kinds) == 11
    for day, made in zip(days, seen.alone, strict=True):
        assert made == pytest.approx(distances(reference, measure.against(reference, day)))
    for k, made in enumerate(seen.sliding):
        together = distances(reference, measure.against(reference, pl.concat(days[k : k + 7])))
        assert made["sliding", "x"] == pytest.approx(together["js", "x"])
    assert seen.kinds[:5] == ["Tuesday", "Wednesday", "Thursday", "Friday", "Sunday"]


def test_of_two_columns_that_moved_alike_the_one_that_matters_comes_first() -> None:
    """The loss depends on ``big`` only; ``idle`` moves as far; what the labels say afterwards agrees with the estimate."""
    random = np.random.default_rng(11)

    def rows(n: int, shift: float) -> tuple[pl.DataFrame, np.ndarray]:
        big, idle = random.normal(shift, 1, n), random.normal(shift, 1, n)
        truth = 1 / (1 + np.exp(2 - 1.5 * big))
        label = (random.random(n) < truth).astype(float)
        loss = row_loss("log_loss", label, truth)
        assert loss is not None
        return pl.DataFrame({"big": big, "idle": idle, "kind": random.choice(["a", "b"], n)}), loss

    then, loss = rows(6000, 0.0)
    now, later = rows(20_000, 0.5)
    profile = measure.profile(then, ["big", "idle", "kind"])
    known = loss_profile(profile, then, loss)
    made = impacts(known, measure.against(profile, now))
    assert made["idle"] < 0.02
    assert made["kind"] < 0.02
    assert made["big"] == pytest.approx(abs(later.mean() / loss.mean() - 1), rel=0.2)
    assert max(impacts(known, measure.against(profile, then)).values()) == pytest.approx(0, abs=1e-9)
    assert impacts({}, measure.against(profile, now)) == {}


def test_bins_that_differ_by_chance_only_are_drawn_to_the_mean() -> None:
    random = np.random.default_rng(12)
    kept = 0
    for _ in range(200):
        n = np.full(20, 200.0)
        means = 0.5 + random.normal(0, np.sqrt(0.2 / 200), 20)
        kept += bool(np.ptp(shrunk(n, means, float(means.mean()), 0.2)) > 0)
    assert kept <= 16
    far = shrunk(np.array([100.0, 100.0, 0.0]), np.array([0.2, 0.8, 0.0]), 0.5, 0.1)
    assert far[0] == pytest.approx(0.2, abs=0.02)
    assert far[2] == 0.5
