"""Whole rollouts in a small world: what was planted decides what becomes of them."""

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
from noria.core import Conflict, LeaseLost, NoriaError, Refused, Verdict
from noria.deployment.rollout import evidence
from noria.deployment.rollout.evidence import gather
from noria.deployment.rollout.software import parity, refusals, sample_ratio, software
from noria.measure import closed
from noria.records import Released, RolloutMoved, Turned
from noria.stats import proportion
from noria.store import Home

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def day(k: int) -> datetime:
    return START + k * DAY


def begin(world: Any, bundle: str) -> Any:
    return deployment.begin(world.home, world.system, bundle, world.gated(bundle))


def turn_until(world: Any, first: int, last: int, stop: str) -> list[Any]:
    """Turns days ``first`` to ``last`` until something comes into stage ``stop``; returns what moved."""
    moved = []
    for k in range(first, last):
        entry = world.day(day(k))
        if entry is not None:
            moved.append(entry)
            if getattr(entry.record, "stage", "full") == stop:
                break
    return moved


def stages(world: Any) -> list[tuple[str, float]]:
    return [(entry.record.stage, entry.record.share) for entry in world.home.ledger.read(RolloutMoved)]


def flip(world: Any) -> None:
    """From now on the truth is the opposite of what ``x`` says."""
    honest = world.spine

    def opposite(end: datetime) -> pl.DataFrame:
        frame = honest(end)
        world.asked[end] = world.asked[end].with_columns(label=1 - pl.col("label"))
        return frame

    world.spine = opposite


def test_a_model_that_earns_is_promoted_step_by_step(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    begin(w, good)
    turn_until(w, 1, 40, "full")
    assert stages(w) == [("shadow", 0.0), ("canary", 0.2), ("canary", 0.5), ("full", 1.0)]
    release = w.home.ledger.latest(Released)
    assert (release.record.bundle, release.record.number, release.record.previous) == (good, 1, None)
    live = deployment.state(w.home)
    assert (live.champion, live.rollout) == (good, None)
    moves = w.home.ledger.read(RolloutMoved)
    assert moves[1].at - moves[0].at >= 3 * DAY
    assert all(b.at - a.at >= DAY for a, b in pairwise(moves))
    assert all(b.parents == (a.id,) for a, b in pairwise(moves))
    paired = next(check for check in moves[1].record.checks if check.name == "paired value")
    assert paired.estimate.low > 0
    assert abs(paired.estimate.value - 0.25) < 0.1  # acting where x > 1/2 earns E|2x - 1| / 2


def test_the_first_release_has_to_be_worth_more_than_what_was_done_before(world: Any) -> None:
    w = world(decide=nr.Decide(before="z > 0.5"))
    good = w.bundle("x")
    begin(w, good)
    moved = turn_until(w, 1, 40, "full")
    assert stages(w)[-1] == ("full", 1.0)
    early = w.home.lake.read("predictions").filter(pl.col("_release") == "")
    assert early["_act"].to_list() == [float(z > 0.5) for z in early["z"]]
    assert early["_act_propensity"].unique().to_list() == [1.0]
    assert early["_score"].null_count() == early.height
    assert moved


def test_a_model_that_decides_as_the_policy_before_has_nothing_to_gain(world: Any) -> None:
    same = world(decide=nr.Decide(before="x > 0.5"))
    begin(same, same.bundle("x"))
    for k in range(1, 12):
        same.day(day(k))
    assert stages(same)[-1][0] == "withdrawn"


def test_exposure_never_exceeds_the_step(world: Any) -> None:
    w = world(rows_a_day=600)
    begin(w, w.bundle("x"))
    turn_until(w, 1, 40, "full")
    logged = w.home.lake.read("predictions", columns=["_variant", "_variant_propensity", "_unit"])
    for share in (0.2, 0.5):
        step = logged.filter(pl.col("_variant_propensity").is_in([share, 1 - share]))
        seen = float((step["_variant"] == "challenger").mean())  # type: ignore[arg-type]
        assert abs(seen - share) < 4 * np.sqrt(share * (1 - share) / step.height)


def test_a_model_that_costs_is_withdrawn_and_nobody_saw_it(world: Any) -> None:
    w = world()
    good, bad = w.bundle("x"), w.bundle("z")
    deployment.promote(w.home, w.system, good, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, bad)
    turn_until(w, 1, 40, "withdrawn")
    assert stages(w)[-1] == ("withdrawn", 0.0)
    assert w.home.ledger.read(RolloutMoved)[-1].record.verdict is Verdict.FAIL
    assert deployment.state(w.home).champion == good
    assert set(w.home.lake.read("predictions", columns=["_release"])["_release"]) <= {"", good}


def test_the_same_model_again_is_not_inferior_but_not_superior_either(world: Any, tmp_path_factory: Any) -> None:
    ends = {}
    for cost in (1, 2):
        w = world(seed=3, rows_a_day=40, folder=tmp_path_factory.mktemp(f"cost{cost}"))
        deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
        w.clock.move(START + timedelta(minutes=1))
        begin(w, w.bundle("x", cost=cost, salt="-refit"))
        turn_until(w, 1, 40, "withdrawn" if cost == 2 else "full")
        ends[cost] = (stages(w)[-1][0], w.home.ledger.read(RolloutMoved)[-1].record.verdict)
    assert ends == {1: ("full", Verdict.PASS), 2: ("withdrawn", Verdict.NOT_ENOUGH_DATA)}


def test_a_canary_that_turns_bad_is_rolled_back_by_itself(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    begin(w, good)
    turn_until(w, 1, 40, "canary")
    flip(w)
    k = (w.clock.now() - START).days + 1
    turn_until(w, k, k + 40, "rolled back")
    assert stages(w)[-2:] == [("canary", 0.2), ("rolled back", 0.0)]  # it never went further
    assert deployment.state(w.home).champion is None
    w.score(w.clock.now() + DAY)
    newest = w.home.lake.read("predictions", columns=["_variant", "_release"], _time=(w.clock.now() - DAY, None))
    assert newest["_variant"].unique().to_list() == ["champion"]


def test_a_release_that_does_harm_is_taken_back_by_itself(world: Any) -> None:
    w = world(rollout=nr.Rollout(shadow="5d", canary=(0.5,), unit="unit", step="1d"))
    old, new = w.bundle("z"), w.bundle("x")
    deployment.promote(w.home, w.system, old, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, new)
    turn_until(w, 1, 40, "full")
    assert deployment.state(w.home).champion == new
    flip(w)
    k = (w.clock.now() - START).days + 1
    moved = turn_until(w, k, k + 20, "full")
    assert isinstance(moved[-1].record, Released)
    assert moved[-1].record.bundle == old
    assert moved[-1].record.reason.startswith("rollback")
    assert stages(w)[-1] == ("rolled back", 0.0)
    assert deployment.state(w.home).champion == old


def test_after_the_guard_the_champion_before_is_not_asked_any_more(world: Any) -> None:
    w = world()
    old, new = w.bundle("z"), w.bundle("x")
    deployment.promote(w.home, w.system, old, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, new)
    turn_until(w, 1, 40, "full")
    full = w.clock.now()
    k = (full - START).days
    for i in range(1, 6):
        w.day(day(k + i))
    shadow = w.home.lake.read("shadow", columns=["_time", "_release"], _time=(full, None))
    assert shadow["_release"].unique().to_list() == [old]
    assert shadow["_time"].max() <= full + 3 * DAY
    assert deployment.state(w.home).champion == new


def test_where_acting_changes_the_label_the_arms_decide(world: Any) -> None:
    w = world(
        label={"affected_by_action": True}, rows_a_day=300, rollout=nr.Rollout(shadow="2d", canary=(0.5,), unit="unit", step="2d")
    )
    good = w.bundle("x")
    begin(w, good)
    turn_until(w, 1, 50, "full")
    moves = w.home.ledger.read(RolloutMoved)
    assert [entry.record.stage for entry in moves] == ["shadow", "canary", "full"]
    assert {check.name for check in moves[1].record.checks} == {"refused rows", "score parity"}
    arms = next(check for check in moves[2].record.checks if check.name == "value between the arms")
    assert arms.estimate.low > 0
    assert abs(arms.estimate.value - 0.25) < 0.12


def test_a_bundle_that_cannot_answer_never_leaves_the_shadow(world: Any) -> None:
    w = world()
    begin(w, w.home.artifacts.put(b"no bundle"))
    moved = turn_until(w, 1, 5, "withdrawn")
    assert "refused rows" in moved[-1].record.reason


def test_nothing_moves_twice_in_a_turn_or_without_news(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    begin(w, good)
    moved = turn_until(w, 1, 40, "canary")
    assert deployment.advance(w.home, w.system, w.clock.now()) is None
    assert moved[-1].at == w.clock.now()
    w.home.commit(Turned(did=("deployment",)), key="turn")
    w.clock.move(w.clock.now() + 30 * DAY)
    assert deployment.advance(w.home, w.system, w.clock.now()) is None  # nothing was scored or closed since the turn


def test_after_a_restart_the_rollout_is_where_it_was(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    begin(w, good)
    turn_until(w, 1, 40, "canary")
    before = deployment.state(w.home)
    again = Home.open(w.home.path, w.home.settings, w.clock, write=False)
    try:
        assert deployment.state(again) == before
    finally:
        again.close()


def test_two_rollouts_at_once_are_refused_and_the_same_one_is_found(world: Any) -> None:
    w = world()
    good, other = w.bundle("x"), w.bundle("z")
    first = begin(w, good)
    assert begin(w, good) == first
    with pytest.raises(Conflict, match="under way"):
        begin(w, other)
    with pytest.raises(Refused, match="not rolled out"):
        deployment.begin(w.home, w.system, other, w.gated(other, Verdict.NOT_ENOUGH_DATA))


def test_the_champion_has_nothing_to_show(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    deployment.promote(w.home, w.system, good, by="ada")
    assert begin(w, good).record.stage == "withdrawn"
    assert deployment.state(w.home).rollout is None


def test_by_hand(world: Any) -> None:
    w = world()
    a, b, c = w.bundle("x"), w.bundle("z"), w.bundle("x", salt="c")
    assert deployment.promote(w.home, w.system, a, by="ada", note="a trial").record.reason == "promoted by hand: a trial"
    with pytest.raises(Conflict, match="champion already"):
        deployment.promote(w.home, w.system, a, by="ada")
    w.clock.move(day(1))
    begin(w, b)
    w.clock.move(day(2))
    entry = deployment.promote(w.home, w.system, b, by="bob")
    assert (entry.record.number, entry.record.previous, entry.record.by) == (2, a, "bob")
    assert stages(w)[-1] == ("full", 1.0)
    w.clock.move(day(3))
    begin(w, c)
    w.clock.move(day(4))
    assert deployment.rollback(w.home, w.system, by="ada").record.stage == "rolled back"
    assert deployment.state(w.home).champion == b
    w.clock.move(day(5))
    assert deployment.rollback(w.home, w.system, by="ada").record.bundle == a
    w.clock.move(day(6))
    assert deployment.rollback(w.home, w.system, by="ada").record.bundle == ""
    with pytest.raises(Conflict, match="no release"):
        deployment.rollback(w.home, w.system, by="ada")
    with pytest.raises(Refused, match="name"):
        deployment.promote(w.home, w.system, a, by=" ")
    with pytest.raises(NoriaError):
        deployment.promote(w.home, w.system, w.home.artifacts.put(b"no bundle"), by="ada")


def test_of_two_racing_releases_one_wins(world: Any) -> None:
    w = world()
    a, b = w.bundle("x"), w.bundle("z")
    other = Home.open(w.home.path, w.home.settings, w.clock)
    try:
        with pytest.raises(LeaseLost):
            deployment.promote(other, w.system, b, by="bob")
        with pytest.raises(LeaseLost), other.hold("bob"):
            deployment.promote(other, w.system, b, by="bob")
    finally:
        other.close()
    deployment.promote(w.home, w.system, a, by="ada")
    with pytest.raises(Conflict):  # whoever looked before the other wrote
        w.home.commit(Released(number=1, bundle=b, previous=None, reason="", by="bob"), key="release/0001")
    assert [entry.record.bundle for entry in w.home.ledger.read(Released)] == [a]


def test_the_sample_ratio_counts_units_and_sees_a_skew(world: Any) -> None:
    w = world()

    def logged(mine: int, share: float = 0.2, minute: int = 0) -> pl.DataFrame:
        own = [True] * mine + [False] * (1000 - mine)
        return pl.DataFrame(
            {
                "_time": pl.Series([START + timedelta(minutes=minute)] * 1000, dtype=pl.Datetime("us", "UTC")),
                "_unit": [f"u{i}" for i in range(1000)],
                "_variant": ["challenger" if one else "champion" for one in own],
                "_variant_propensity": [share if one else 1 - share for one in own],
            }
        )

    honest = logged(200)
    assert sample_ratio(w.system, honest).verdict is Verdict.PASS
    assert sample_ratio(w.system, pl.concat([honest, honest.head(200)])).estimate == sample_ratio(w.system, honest).estimate
    assert sample_ratio(w.system, logged(300)).verdict is Verdict.FAIL
    assert sample_ratio(w.system, pl.concat([honest, logged(500, 0.5, 1)])).verdict is Verdict.PASS
    assert (
        sample_ratio(w.system, pl.concat([honest, logged(620, 0.5, 1)])).verdict is Verdict.FAIL
    )  # the later step draws 420 of 800
    assert sample_ratio(w.system, pl.concat([honest, logged(110, 0.1, 1)])).verdict is Verdict.PASS  # a bandit's share may shrink
    strayed = logged(500, 0.5, 1).with_columns(_unit=pl.Series([f"u{999 - i}" for i in range(1000)]))
    assert "could not be in" in sample_ratio(w.system, pl.concat([honest, strayed])).detail
    assert sample_ratio(w.system, honest.clear()).verdict is Verdict.NOT_ENOUGH_DATA


def rolling(world: Any) -> Any:
    """A rollout of ``x`` against ``z``."""
    w = world()
    deployment.promote(w.home, w.system, w.bundle("z"), by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, w.bundle("x"))
    return deployment.state(w.home).rollout


def answers(release: str, refused: int, n: int = 400, said: str | None = None, ids: str = "a") -> pl.DataFrame:
    """``n`` rows that ``release`` should have answered, of which it refused the first ``refused``."""
    told = pl.Series([said] * refused + [None] * (n - refused), dtype=pl.String)
    score = pl.Series([None] * refused + [0.5] * (n - refused), dtype=pl.Float64)
    return pl.DataFrame({"_id": [f"{ids}{i}" for i in range(n)], "_release": release, "_score": score, "_fallback": told})


def asked(rollout: Any, logged: pl.DataFrame, shadow: pl.DataFrame, error: float = 0.05) -> Verdict:
    return refusals(rollout, logged, shadow.drop("_fallback"), error=error).verdict


def test_refused_rows_fail_only_beyond_what_the_champion_refuses_too(world: Any) -> None:
    rollout = rolling(world)
    mine, other = rollout.challenger, rollout.champion
    assert asked(rollout, answers(other, 0), answers(mine, 40)) is Verdict.FAIL
    assert asked(rollout, answers(other, 40), answers(mine, 40)) is Verdict.PASS
    assert asked(rollout, answers(other, 20, 4000), answers(mine, 60, 4000)) is Verdict.PASS  # within what 20 of 4000 leave open
    assert asked(rollout, answers(other, 80, 4000), answers(mine, 400, 4000)) is Verdict.FAIL  # both above 1 %, and clearly apart
    assert asked(rollout, answers(other, 0), answers(mine, 2)) is Verdict.PASS
    assert asked(rollout, answers(other, 0), answers("other", 2)) is Verdict.NOT_ENOUGH_DATA


def test_a_row_that_the_fallback_answered_was_refused(world: Any) -> None:
    rollout = rolling(world)
    nobody = answers("other", 0)
    made = answers(rollout.challenger, 40, said="timeout: nothing")
    assert asked(rollout, made, nobody) is Verdict.FAIL
    scored = made.with_columns(_score=pl.lit(0.5))
    assert asked(rollout, scored, nobody) is Verdict.FAIL  # whatever the row says of a score
    kept = refusals(rollout, answers(rollout.challenger, 40, said="sticky: nothing"), nobody, error=0.05)
    assert (kept.verdict, kept.estimate.n) == (Verdict.PASS, 360)  # nobody was asked for them


def test_a_row_is_counted_once_though_it_stands_in_both_tables(world: Any) -> None:
    """A person decides what the model was not sure of: such rows are logged, and shadowed by the same release."""
    rollout = rolling(world)
    logged, twice = answers(rollout.challenger, 9), answers(rollout.challenger, 9, 9)
    found = refusals(rollout, logged, twice, error=0.05)
    assert (found.estimate.value, found.estimate.n) == (pytest.approx(9 / 400), 400)


def test_a_first_release_that_refuses_less_than_the_bound_is_hardly_ever_withdrawn(world: Any) -> None:
    """3,000 rows at 0.8 %, looked at after each batch of 100: an interval for one look would withdraw one in twelve."""
    w = world()
    begin(w, w.bundle("x"))
    rollout = deployment.state(w.home).rollout
    random, error, runs, wrong, once = np.random.default_rng(9), 0.02, 50, 0, 0
    for _ in range(runs):
        refused = random.uniform(size=3000) < 0.008
        rows = answers(rollout.challenger, 0, 3000).with_columns(
            _score=pl.when(pl.Series(refused)).then(None).otherwise(pl.lit(0.5))
        )
        looks = range(100, 3001, 100)
        wrong += any(asked(rollout, rows.head(n), rows.clear(), error) is Verdict.FAIL for n in looks)
        once += any(proportion(int(refused[:n].sum()), n).above(0.01) for n in looks)
    assert wrong / runs <= error
    assert once / runs > 0.05


def test_refusals_are_those_of_the_whole_stage(world: Any) -> None:
    """What lies further back than the last days still counts."""
    w = world()
    begin(w, w.bundle("x"))
    for k in range(1, 7):
        w.score(day(k))
    rollout = deployment.state(w.home).rollout
    found = software(w.home, w.system, rollout, deployment.Bundles(w.home))[0]
    assert (found.name, found.estimate.n) == ("refused rows", 6 * w.rows_a_day)


def test_score_parity_sees_a_score_that_was_logged_wrong(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    begin(w, good)
    w.score(day(1))
    w.score(day(2))
    rollout = deployment.state(w.home).rollout
    logged = w.home.lake.read("predictions", _time=(day(1), None))
    shadow = w.home.lake.read("shadow", _time=(day(1), None))
    bundles = deployment.Bundles(w.home)
    assert parity(w.system, rollout, logged, shadow, bundles).verdict is Verdict.PASS
    wrong = shadow.with_columns(
        _score=pl.when(pl.int_range(pl.len()) == 3).then(pl.col("_score") + 1e-6).otherwise(pl.col("_score"))
    )
    found = parity(w.system, rollout, logged, wrong, bundles)
    assert (found.verdict, found.estimate.value) == (Verdict.FAIL, 1.0)
    assert parity(w.system, rollout, logged.clear(), shadow, bundles).verdict is Verdict.NOT_ENOUGH_DATA


def test_score_parity_leaves_out_what_the_fallback_answered(world: Any) -> None:
    """A fault that has passed is gone when the row is computed again; the refusals count it."""
    w = world()
    good = w.bundle("x")
    begin(w, good)
    w.score(day(1))
    shadowing = deployment.state(w.home).rollout
    rollout = replace(shadowing, stage="canary")
    bundles = deployment.Bundles(w.home)
    shadow = w.home.lake.read("shadow", _time=(START, None))
    failed = pl.int_range(pl.len()) == 7
    rows = w.home.lake.read("predictions", _time=(START, None)).with_columns(
        _release=pl.lit(good),
        _score=pl.when(failed).then(None).otherwise(pl.col("x")),
        _fallback=pl.when(failed).then(pl.lit("error: nothing")).otherwise(None),
    )
    found = parity(w.system, rollout, rows, shadow, bundles)
    assert (found.verdict, found.estimate.n) == (Verdict.PASS, rows.height - 1)
    wrong = rows.with_columns(_score=pl.when(failed.shift(1).fill_null(value=False)).then(0.0).otherwise(pl.col("_score")))
    assert parity(w.system, rollout, wrong, shadow, bundles).verdict is Verdict.FAIL
    silent = shadow.with_columns(_score=pl.when(failed).then(None).otherwise(pl.col("_score")))
    found = parity(w.system, shadowing, rows, silent, bundles)
    assert (found.verdict, found.estimate.n) == (Verdict.PASS, rows.height - 1)


def test_what_the_fallback_did_counts_for_the_release_that_should_have_answered(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the paired difference its act is the release's; in the arms and their sample ratio the row stays."""
    w = world(rollout=nr.Rollout(shadow="3d", canary=(0.4,), unit="unit", step="9d"))
    deployment.promote(w.home, w.system, w.bundle("z"), by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, w.bundle("x"))
    moved = turn_until(w, 1, 40, "canary")
    k = (moved[-1].at - START).days
    w.day(day(k + 1))
    rollout, bundles = deployment.state(w.home).rollout, deployment.Bundles(w.home)
    before = gather(w.home, w.system, rollout, day(k + 1), bundles)

    def failing(*args: Any, **kwargs: Any) -> pl.DataFrame:
        mine = pl.col("_release") == rollout.challenger
        return closed(*args, **kwargs).with_columns(
            _score=pl.when(mine).then(None).otherwise(pl.col("_score")),
            _act=pl.when(mine).then(1.0).otherwise(pl.col("_act")),
            _fallback=pl.when(mine).then(pl.lit("error: rule")).otherwise(None),
        )

    monkeypatch.setattr(evidence, "closed", failing)
    after = gather(w.home, w.system, rollout, day(k + 1), bundles)
    truth = pl.concat([w.asked[day(i)] for i in range(1, k + 2)]).filter(pl.col("_time") > rollout.began)
    logged = w.home.lake.read("predictions", columns=["_id", "_variant"], _time=(rollout.began, None))
    truth = truth.join(logged, on="_id", maintain_order="left")
    worth, mine = np.where(truth["label"].to_numpy() > 0, 1.0, -1.0), (truth["_variant"] == "challenger").to_numpy()
    act = np.where(mine, 1.0, truth["x"].to_numpy() > 0.5)
    assert after.paired.value == pytest.approx((worth * (act - (truth["z"].to_numpy() > 0.5))).mean())
    assert after.units == before.units > 0
    assert after.arms.value != before.arms.value
    ratios = [[c for c in seen.software if c.name == "sample ratio at closing"] for seen in (before, after)]
    assert ratios[0] == ratios[1]


def test_the_paired_difference_is_the_plain_mean_in_both_directions(world: Any) -> None:
    w = world(decide=nr.Decide(explore=0.3), rollout=nr.Rollout(shadow="3d", canary=(0.4,), unit="unit", step="9d"))
    old, new = w.bundle("z"), w.bundle("x")
    deployment.promote(w.home, w.system, old, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    begin(w, new)
    moved = turn_until(w, 1, 40, "canary")
    k = (moved[-1].at - START).days
    for i in range(1, 3):
        w.day(day(k + i))
    rollout = deployment.state(w.home).rollout
    seen = gather(w.home, w.system, rollout, day(k + 2), deployment.Bundles(w.home))
    truth = pl.concat([w.asked[day(i)] for i in range(1, k + 3)]).filter(pl.col("_time") > rollout.began)
    worth = np.where(truth["label"].to_numpy() > 0, 1.0, -1.0)
    plain = worth * ((truth["x"].to_numpy() > 0.5).astype(float) - (truth["z"].to_numpy() > 0.5).astype(float))
    assert seen.paired.value == pytest.approx(plain.mean())
    gain = (worth * (truth["z"].to_numpy() > 0.5)).mean()
    assert seen.margin == pytest.approx(0.1 * max(gain, 0.0))
    canary = w.home.lake.read("predictions", columns=["_unit", "_variant"], _time=(rollout.moved, None))
    assert seen.units == canary.filter(pl.col("_variant") == "challenger")["_unit"].n_unique()
