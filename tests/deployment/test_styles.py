"""Rollouts of every style in the small world, and what their evidence holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import deployment
from noria.core import Estimate, Verdict, Window
from noria.deployment import routing
from noria.deployment.rollout import arms
from noria.deployment.rollout.evidence import gather
from noria.deployment.rollout.randomised import closing, compare, covariate
from noria.deployment.rollout.software import sample_ratio
from noria.measure import closed
from noria.records import Released, RolloutMoved

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def day(k: int) -> datetime:
    return START + k * DAY


def begin(w: Any, bundle: str) -> Any:
    return deployment.begin(w.home, w.system, bundle, w.gated(bundle))


def until(w: Any, stop: str, last: int = 60) -> Any:
    """Turns day after day until something comes into stage ``stop``; returns the moves."""
    for k in range((w.clock.now() - START).days + 1, last):
        entry = w.day(day(k))
        if entry is not None and stop in (getattr(entry.record, "stage", "full"), entry.record.reason[:8]):
            break
    return w.home.ledger.read(RolloutMoved)


def seen(w: Any) -> Any:
    live = deployment.state(w.home)
    return gather(w.home, w.system, live.rollout or live.guarded, w.clock.now(), deployment.Bundles(w.home))


def released(w: Any, bundle: str) -> str:
    """Makes a bundle the champion before anything else happens."""
    deployment.promote(w.home, w.system, bundle, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    return bundle


AFFECTED = {"affected_by_action": True}


# ---------------------------------------------------------------------------------------------------------------- styles


def test_blue_green_is_full_at_once_and_the_champion_before_stays_ready(world: Any) -> None:
    w = world(rollout=nr.Rollout(shadow="3d", style="blue-green", patience="20d"))
    old, new = released(w, w.bundle("z")), w.bundle("x")
    begin(w, new)
    moves = until(w, "full")
    assert [move.record.stage for move in moves] == ["shadow", "full"]
    live = deployment.state(w.home)
    assert (live.champion, live.previous) == (new, old)
    k = (w.clock.now() - START).days
    w.day(day(k + 1))
    quiet = w.home.lake.read("shadow", columns=["_release"], _time=(day(k), None))
    assert quiet["_release"].unique().to_list() == [old]  # it is asked along, so that going back needs no warming up
    back = deployment.rollback(w.home, w.system, by="ada", note="a drill")
    assert back.record.bundle == old
    w.score(day(k + 2))
    newest = w.home.lake.read("predictions", columns=["_release"], _time=(day(k + 1), None))
    assert newest["_release"].unique().to_list() == [old]


def test_a_bandit_moves_its_share_by_the_evidence_and_ends_full(world: Any) -> None:
    rules = nr.Rollout(shadow="2d", canary=(0.1, 0.6), unit="unit", step="1d", style="bandit", patience="60d")
    w = world(label=AFFECTED, rows_a_day=150, rollout=rules)
    begin(w, w.bundle("x"))
    moves = until(w, "full")
    shares = [move.record.share for move in moves]
    assert moves[-1].record.stage == "full"
    assert shares[:2] == [0.0, 0.1]
    assert max(shares[1:-1]) == 0.6
    assert all(0.1 <= share <= 0.6 for share in shares[1:-1])
    arms_check = next(check for check in moves[-1].record.checks if check.name == "value between the arms")
    assert arms_check.estimate.low > 0
    logged = w.home.lake.read("predictions", columns=["_time", "_unit", "_variant", "_variant_propensity"])
    for move, after in pairwise(moves[1:]):
        rows = logged.filter((pl.col("_time") > move.at) & (pl.col("_time") <= after.at))
        mine = (rows["_variant"] == "challenger").to_numpy()
        said = rows["_variant_propensity"].to_numpy()
        assert np.allclose(np.where(mine, said, 1 - said), move.record.share)  # propensities follow the share of their own time
    assert sample_ratio(w.system, logged.filter(pl.col("_time") > moves[1].at)).verdict is Verdict.PASS


def test_a_bandit_with_a_worse_challenger_shrinks_and_is_rolled_back(world: Any) -> None:
    rules = nr.Rollout(shadow="2d", canary=(0.1, 0.6), unit="unit", step="1d", style="bandit", patience="60d")
    w = world(label=AFFECTED, rows_a_day=150, rollout=rules)
    good = released(w, w.bundle("x"))
    begin(w, w.bundle("z"))
    moves = until(w, "rolled back")
    assert moves[-1].record.stage == "rolled back"
    assert max(move.record.share for move in moves) < 0.4
    assert deployment.state(w.home).champion == good


def test_a_bandit_can_be_stopped_by_hand_at_any_share(world: Any) -> None:
    rules = nr.Rollout(shadow="1d", canary=(0.1, 0.6), unit="unit", step="1d", style="bandit", patience="60d")
    w = world(label=AFFECTED, rows_a_day=80, rollout=rules)
    begin(w, w.bundle("x"))
    k = 0
    while w.home.ledger.count(RolloutMoved) < 3:  # shadow, the first share, another share
        k += 1
        w.day(day(k))
    live = deployment.state(w.home)
    assert live.rollout is not None
    assert live.rollout.share > 0
    assert live.rollout.entered < live.rollout.moved
    w.clock.move(w.clock.now() + timedelta(minutes=5))
    assert deployment.rollback(w.home, w.system, by="ada").record.stage == "rolled back"
    assert deployment.state(w.home).rollout is None
    w.score(w.clock.now() + DAY)
    newest = w.home.lake.read("predictions", columns=["_variant"], _time=(w.clock.now() - DAY, None))
    assert newest["_variant"].unique().to_list() == ["champion"]


def test_switchback_gives_whole_stretches_to_one_variant_and_compares_them(world: Any) -> None:
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="2d", switchback="2h", patience="40d")
    w = world(label=AFFECTED, rows_a_day=240, rollout=rules)
    begin(w, w.bundle("x"))
    moves = until(w, "full")
    assert [move.record.stage for move in moves] == ["shadow", "canary", "full"]
    logged = w.home.lake.read("predictions", columns=["_time", "_unit", "_variant", "_variant_propensity"])
    canary = logged.filter((pl.col("_time") > moves[1].at) & (pl.col("_time") <= moves[2].at))
    canary = canary.with_columns(stretch=pl.Series(routing.stretches(canary["_time"], "2h")))
    assert canary.group_by("stretch").agg(pl.col("_variant").n_unique())["_variant"].max() == 1
    assert set(canary["_variant_propensity"].to_list()) == {0.5}
    checks = {check.name: check for check in moves[2].record.checks}
    assert checks["sample ratio"].estimate.n == canary["stretch"].n_unique()  # the stretch is the unit
    assert checks["value between the arms"].estimate.low > 0
    assert checks["value between the arms"].estimate.n == canary.filter(pl.col("_variant") == "challenger")["stretch"].n_unique()


def test_stretches_fall_to_the_challenger_as_often_as_declared() -> None:
    times = pl.Series([START + timedelta(hours=h, minutes=30) for h in range(6000)], dtype=pl.Datetime("us", "UTC"))
    for share in (0.1, 0.5):
        mine = routing.switched("s", 1, times, "1h", share)
        assert abs(mine.mean() - share) < 4 * np.sqrt(share * (1 - share) / 6000)
        assert abs(np.corrcoef(mine[1:], mine[:-1])[0, 1]) < 4 / np.sqrt(6000)
    five, quarter = (routing.switched("s", 1, times, "1h", share) for share in (0.05, 0.25))
    assert (five <= quarter).all()
    assert not routing.switched("s", 1, times, "1h", 0.0).any()
    assert routing.switched("s", 1, times, "1h", 1.0).all()


# -------------------------------------------------------------------------------------------------------------- evidence


def test_a_guardrail_that_is_clearly_broken_ends_what_would_be_promoted(world: Any) -> None:
    rails = [nr.AtLeast("precision", 0.97)]
    objective = nr.Objective(
        "Whom to call?", nr.Value("case when act and label then 1 when act then -1 else 0 end"), "log_loss", rails
    )
    w = world(objective=objective)
    begin(w, w.bundle("x"))
    moves = until(w, "rolled back")
    assert (moves[-1].record.stage, moves[-1].record.reason) == ("rolled back", "failed: guardrail")  # clear by the canary
    check = next(check for check in moves[-1].record.checks if check.name == "guardrail")
    assert check.subject == "precision"
    assert check.estimate.value == pytest.approx(0.75, abs=0.05)  # acting where x > 1/2
    assert check.estimate.high < 0.97


@pytest.mark.parametrize("label", [{}, AFFECTED])
def test_a_guardrail_that_holds_is_seen_and_lets_pass(world: Any, label: dict[str, Any]) -> None:
    rails = [nr.AtLeast("precision", 0.4), nr.AtMost("bundle_mb", 5), nr.AtMost("log_loss", 0.9)]
    objective = nr.Objective(
        "Whom to call?", nr.Value("case when act and label then 1 when act then -1 else 0 end"), "log_loss", rails
    )
    w = world(
        label=dict(label),
        objective=objective,
        decide=nr.Decide(explore=0.3),
        rows_a_day=200,
        rollout=nr.Rollout(shadow="3d", canary=(0.5,), unit="unit", step="1d", patience="30d"),
    )
    released(w, w.bundle("z"))
    begin(w, w.bundle("x"))
    moves = until(w, "full")
    assert moves[-1].record.stage == "full"
    found = {check.subject: check for check in moves[-1].record.checks if check.name == "guardrail"}
    assert set(found) == {"precision", "log_loss"}  # the bundle's size is the gate's
    assert found["precision"].estimate.value == pytest.approx(0.75, abs=0.07)
    assert found["log_loss"].verdict is Verdict.PASS
    assert found["log_loss"].estimate.value == pytest.approx(0.5, abs=0.06)  # E[-x log x - (1-x) log(1-x)]
    metric = next(check for check in moves[-1].record.checks if check.name == "metric")
    assert metric.verdict is Verdict.NOT_MEASURED
    assert metric.estimate.low > 0  # the challenger's log loss is better


def hide(w: Any, how: Any) -> None:
    """From now on labels are changed by ``how`` before their cohort closes."""
    honest = w.close

    def close(end: datetime) -> None:
        w.asked[end] = how(w, end, w.asked[end])
        honest(end)

    w.close = close


def only_shown(w: Any, end: datetime, truth: pl.DataFrame) -> pl.DataFrame:
    """The label is seen where the row was acted on."""
    logged = w.home.lake.read("predictions", columns=["_id", "_act"], _time=(end - DAY, end))
    return truth.join(logged, on="_id", how="left", maintain_order="left").with_columns(
        label=pl.when(pl.col("_act") > 0).then(pl.col("label"))
    )


def test_a_row_that_was_not_shown_has_the_value_of_its_act(world: Any) -> None:
    """Per shown row an eager model looks worse than one that shows only what is sure; per asked row it earns more."""
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="1d", patience="9d")
    w = world(label={"observed_when": "act"}, rows_a_day=400, rollout=rules)
    released(w, w.bundle("z"))
    hide(w, only_shown)
    begin(w, w.bundle("x"))
    until(w, "canary")
    start = w.clock.now()
    k = (start - START).days
    for i in range(1, 5):
        w.day(day(k + i))
    live = deployment.state(w.home)
    rollout = live.rollout or live.guarded
    rows = closed(w.home, w.system, Window(start, w.clock.now()))
    found = compare(w.home, w.system, replace(rollout, stage="canary"), rows, error=0.05, cautious=False)
    gain = pl.when(pl.col("_act") > 0).then(2 * pl.col("_label") - 1).otherwise(0.0)
    rows = rows.filter(pl.col("_variant_propensity") < 1).with_columns(gain=gain)
    assert rows["_label"].null_count() > 0.3 * rows.height
    asked = rows.group_by("_variant").agg(pl.col("gain").mean(), n=pl.len()).sort("_variant")
    difference = asked["gain"][1 - 1] - asked["gain"][1]
    assert found.difference.value == pytest.approx(difference, abs=0.05)  # within days and adjusted, so not to the digit
    assert found.n == rows.height
    assert {check.name: check.verdict for check in found.checks} == {"sample ratio at closing": Verdict.PASS}


def test_a_value_that_needs_a_label_nobody_can_see_compares_nothing(world: Any) -> None:
    value = nr.Value("case when label then 5 else 0 end - case when act then 1 else 0 end")
    objective = nr.Objective("Whom to call?", value, "log_loss")
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="1d", patience="9d")
    w = world(label={"observed_when": "act"}, objective=objective, rollout=rules)
    hide(w, only_shown)
    begin(w, w.bundle("x"))
    until(w, "withdrawn")
    last = w.home.ledger.read(RolloutMoved)[-1].record
    assert (last.stage, last.verdict) == ("withdrawn", Verdict.NOT_ENOUGH_DATA)
    assert any(check.name == "rows that were not shown" for check in last.checks)


def canary(w: Any, days: int = 3) -> tuple[Any, pl.DataFrame]:
    """A rollout some days into its canary, and the closed rows of it."""
    begin(w, w.bundle("x"))
    until(w, "canary")
    start = w.clock.now()
    for i in range(1, days + 1):
        w.score(start + i * DAY)
        w.close(start + i * DAY)
    return deployment.state(w.home).rollout, closed(w.home, w.system, Window(start, w.clock.now()))


def test_outcomes_that_one_arm_loses_are_seen_at_closing_and_not_at_assignment(world: Any) -> None:
    w = world(rows_a_day=600, label=AFFECTED, rollout=nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="9d"))
    rollout, rows = canary(w)
    mine = (rows["_variant"] == "challenger").to_numpy()
    units, strata = rows["_unit"].to_numpy().astype(str), np.zeros(rows.height, int)
    nothing = np.zeros(rows.height, bool)
    assert sample_ratio(w.system, rows).verdict is Verdict.PASS

    def at_closing(value: np.ndarray, system: Any = w.system, unseen: np.ndarray = nothing) -> dict[str, Verdict]:
        made = closing(system, rows, value, unseen, mine, units, strata)
        return {check.name: check.verdict for check in made}

    random = np.random.default_rng(3)
    everywhere = np.where(random.uniform(size=rows.height) < 0.2, np.nan, 1.0)
    assert at_closing(everywhere) == {"sample ratio at closing": Verdict.PASS, "lost outcomes": Verdict.PASS}
    one_arm = np.where(mine & (random.uniform(size=rows.height) < 0.3), np.nan, 1.0)
    assert at_closing(one_arm) == {"sample ratio at closing": Verdict.FAIL, "lost outcomes": Verdict.FAIL}
    idle = np.where(mine, 1.0, np.nan)  # doing nothing has no amount: no outcome is lost where nobody acted
    assert at_closing(idle, unseen=~mine) == {"sample ratio at closing": Verdict.PASS}
    censored = replace(w.system, label=replace(w.system.label, censored_when="out"))
    assert set(at_closing(one_arm, censored).values()) == {Verdict.NOT_ENOUGH_DATA}
    assert rollout.stage == "canary"


def test_values_outside_the_bounds_are_clipped_and_counted(world: Any) -> None:
    value = nr.Value("case when act then (2 * label::INT - 1) * x * 100 else 0 end", low=-10, high=30)
    w = world(objective=nr.Objective("Whom to call?", value, "log_loss"))
    begin(w, w.bundle("x"))
    for k in range(1, 5):
        w.score(day(k))
        w.close(day(k))
    found = seen(w)
    assert "values are within [-10, 30]" in found.said
    counted = int(found.said.split(", ")[-1].split(" of ")[0])
    truth = pl.concat([w.asked[day(k)] for k in range(1, 5)]).filter(pl.col("_time") > START)
    raw = np.where(truth["x"] > 0.5, (2 * truth["label"] - 1) * truth["x"] * 100, 0.0)
    assert counted > 0
    assert abs(counted - ((raw < -10) | (raw > 30)).sum()) <= 1
    assert found.paired.value == pytest.approx(np.clip(raw, -10, 30).mean(), abs=0.5)
    unbounded = replace(w.system, objective=nr.Objective("", replace(value, low=None, high=None), "log_loss"))
    w.system = unbounded
    assert seen(w).said.startswith("no bound on the value")


@pytest.mark.parametrize("declared", [None, "z + 0 * x"])
def test_the_covariate_is_known_for_both_arms_before_anybody_acts(world: Any, declared: str | None) -> None:
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="9d", covariate=declared)
    w = world(rows_a_day=200, label=AFFECTED, rollout=rules)
    released(w, w.bundle("z"))
    rollout, rows = canary(w)
    assert set(rows["_release"]) == {rollout.champion, rollout.challenger}
    assert covariate(w.home, w.system, rollout, rows) == pytest.approx(rows["z"].to_numpy())  # the champion's score is z
    first = replace(rollout, champion=None)
    if declared is None:
        assert covariate(w.home, w.system, first, rows) == pytest.approx(rows["x"].to_numpy())  # and the challenger's is x


def test_a_covariate_that_tells_the_value_shortens_the_interval(world: Any) -> None:
    value = nr.Value("case when act and label then 10 when act then 9 else 0 end + 50 * z")
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="unit", step="9d", covariate="z")
    objective = nr.Objective("Whom to call?", value, "log_loss")
    w = world(rows_a_day=200, label=AFFECTED, rollout=rules, objective=objective)
    rollout, rows = canary(w)
    less = compare(w.home, w.system, rollout, rows, error=0.05, cautious=False)
    w.system = replace(w.system, rollout=replace(rules, covariate="0 * z"))
    plain = compare(w.home, w.system, rollout, rows, error=0.05, cautious=False)
    assert less.removed > 0.8
    assert plain.removed == 0.0
    assert less.difference.high - less.difference.low < 0.5 * (plain.difference.high - plain.difference.low)


def test_units_may_be_clusters(world: Any) -> None:
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="shop", step="9d")
    w = world(rows_a_day=200, label=AFFECTED, rollout=rules)
    _, rows = canary(w)
    assert rows.group_by("shop").agg(pl.col("_variant").n_unique())["_variant"].to_list() == [1, 1]
    assert set(rows["_unit"]) == {"a", "b"}
    found = arms.between(
        np.ones(rows.height), (rows["shop"] == "a").to_numpy(), rows["_unit"].to_numpy().astype(str), np.zeros(rows.height, int),
        error=0.05, looks=1,
    )  # fmt: skip
    assert found == Estimate(0.0, n=1)  # two shops are two observations: no interval


def test_a_rollout_that_needs_arms_and_has_too_few_units_is_never_promoted(world: Any) -> None:
    rules = nr.Rollout(shadow="1d", canary=(0.5,), unit="shop", step="1d", patience="6d")
    w = world(rows_a_day=200, label=AFFECTED, rollout=rules)
    begin(w, w.bundle("x"))
    moves = until(w, "withdrawn")
    assert (moves[-1].record.stage, moves[-1].record.verdict) == ("withdrawn", Verdict.NOT_ENOUGH_DATA)
    assert w.home.ledger.latest(Released) is None
