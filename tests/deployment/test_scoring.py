from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import deployment, features, measure
from noria.core import Window
from noria.deployment import routing
from noria.deployment.live import history
from noria.deployment.scoring import logged
from noria.tables import PREDICTIONS, SHADOW

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def day(k: int) -> datetime:
    return START + k * DAY


def rows(world: Any, end: datetime) -> pl.DataFrame:
    return world.home.lake.read("predictions", _time=(end - DAY, end))


def shadows(world: Any, end: datetime) -> pl.DataFrame:
    if world.home.lake.schema("shadow") is None:
        return pl.DataFrame(schema=SHADOW.columns)
    return world.home.lake.read("shadow", _time=(end - DAY, end))


def test_before_the_first_release_rows_are_logged_without_score_or_act(world: Any) -> None:
    w = world()
    entry = w.score(day(2))
    frame = rows(w, day(2))
    assert frame.height == entry.record.n == 120
    assert frame["_score"].null_count() == frame["_act"].null_count() == frame["_act_propensity"].null_count() == 120
    assert frame["_release"].unique().to_list() == [""]
    assert frame["_variant"].unique().to_list() == ["champion"]
    assert entry.record.releases == {"": 120}
    assert entry.record.acts == {"none": 120.0}
    assert entry.record.refused == 0


def test_rows_hold_the_features_as_served_and_the_context(world: Any) -> None:
    w = world()
    w.score(day(2))
    frame, asked = rows(w, day(2)), w.asked[day(2)].sort("_time", "_id")
    assert [name for name in frame.columns if name in PREDICTIONS.columns] == list(PREDICTIONS.columns)
    for name in ("x", "z", "shop", "unit"):
        assert frame[name].to_list() == asked[name].to_list()
    assert frame["_unit"].to_list() == asked["unit"].to_list()
    assert frame["_features"].unique().to_list() == [features.plan(w.system).id]
    assert frame["_scored_at"].unique().to_list() == [day(2)]


def test_in_shadow_against_nothing_only_the_shadow_table_hears_the_challenger(world: Any) -> None:
    w = world()
    good = w.bundle("x")
    w.score(day(2))
    deployment.begin(w.home, w.system, good, w.gated(good))
    w.score(day(3))
    frame, shadow = rows(w, day(3)), shadows(w, day(3))
    assert frame["_score"].null_count() == frame.height
    assert shadow["_id"].to_list() == frame["_id"].to_list()
    assert shadow["_release"].unique().to_list() == [good]
    assert np.allclose(shadow["_score"].to_numpy(), frame["x"].to_numpy())
    assert (shadow["_act"].to_numpy() == (frame["x"].to_numpy() > 0.5)).all()


def test_in_a_canary_each_bundle_is_logged_where_it_answers_and_shadowed_where_not(world: Any) -> None:
    w = world(rollout=nr.Rollout(shadow="3d", canary=(0.3,), unit="unit", step="2d"))
    old, new = w.bundle("x"), w.bundle("x", salt="-again")
    deployment.promote(w.home, w.system, old, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    deployment.begin(w.home, w.system, new, w.gated(new))
    for k in range(1, 40):
        moved = w.day(day(k))
        if moved is not None and moved.record.stage == "canary":
            break
    w.score(day(k + 1))
    frame, shadow = rows(w, day(k + 1)), shadows(w, day(k + 1))
    mine = routing.challenged(w.system.name, 1, frame["_unit"].to_list(), 0.3)
    assert 0 < mine.sum() < len(mine)
    assert frame["_release"].to_list() == np.where(mine, new, old).tolist()
    assert frame["_variant"].to_list() == np.where(mine, "challenger", "champion").tolist()
    assert np.allclose(frame["_variant_propensity"].to_numpy(), np.where(mine, 0.3, 0.7))
    assert shadow["_id"].to_list() == frame["_id"].to_list()
    assert shadow["_release"].to_list() == np.where(mine, old, new).tolist()


def test_a_release_acts_on_what_is_asked_after_it(world: Any) -> None:
    w = world()
    w.score(day(2))
    good = w.bundle("x")
    noon = day(2) + timedelta(hours=1)
    w.clock.move(noon)
    deployment.promote(w.home, w.system, good, by="ada")
    w.score(day(3))
    frame = rows(w, day(3))
    before = (frame["_time"] <= noon).to_numpy()
    assert 0 < before.sum() < len(before)
    assert (frame["_release"].to_numpy() == np.where(before, "", good)).all()
    assert w.home.ledger.latest(type(w.home.ledger.find(f"score/{day(3).isoformat()}").record)).record.releases == {
        "": int(before.sum()),
        good: int((~before).sum()),
    }


def test_scoring_again_gives_the_record_that_is_there(world: Any) -> None:
    w = world()
    first = w.score(day(2))
    again = w.score(day(2))
    assert again == first
    assert rows(w, day(2))["_id"].is_unique().all()
    assert rows(w, day(2)).height == 120


def test_nothing_asked_writes_nothing(world: Any) -> None:
    w = world()
    empty = w.spine(day(2)).clear()
    before = w.home.ledger.count()
    assert deployment.score(w.home, w.system, Window(day(1), day(2)), empty, features.compute(w.home, w.system, empty)) is None
    assert w.home.ledger.count() == before


def test_a_model_that_fails_refuses_its_rows_and_does_not_act(world: Any) -> None:
    w = world()
    broken = w.home.artifacts.put(b"this is no bundle")
    good = w.bundle("x")
    deployment.promote(w.home, w.system, good, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    deployment.begin(w.home, w.system, broken, w.gated(broken))
    entry = w.score(day(2))
    frame, shadow = rows(w, day(2)), shadows(w, day(2))
    assert entry.record.refused == 0  # the shadow's failure leaves the answers alone
    assert frame["_score"].null_count() == 0
    assert shadow["_score"].null_count() == shadow.height == frame.height
    w.home.artifacts.path(good).write_bytes(b"the disk forgot")
    entry = w.score(day(3))
    assert entry.record.refused == 120
    assert rows(w, day(3))["_score"].null_count() == 120
    assert rows(w, day(3))["_act"].unique().to_list() == [0.0]


def test_where_a_person_decides_the_act_is_open(world: Any) -> None:
    w = world(decide=nr.Decide("human"))
    good = w.bundle("x")
    deployment.promote(w.home, w.system, good, by="ada")
    w.score(day(2))
    frame = rows(w, day(2))
    assert frame["_score"].null_count() == 0
    assert frame["_act"].null_count() == frame.height


def test_exploration_and_hold_out_reach_the_log_and_shadow_stays_plain(world: Any) -> None:
    w = world(decide=nr.Decide(explore=0.4, holdout=0.2), rows_a_day=800)
    good, new = w.bundle("x"), w.bundle("x", salt="-again")
    deployment.promote(w.home, w.system, good, by="ada")
    w.clock.move(START + timedelta(minutes=1))
    deployment.begin(w.home, w.system, new, w.gated(new))
    w.score(day(2))
    frame, shadow = rows(w, day(2)), shadows(w, day(2))
    policy = (frame["x"].to_numpy() > 0.5).astype(float)
    taken = routing.acts(w.system.name, w.system.decide, policy, frame["_id"].to_list(), frame["_unit"].to_list())
    assert frame["_act"].to_list() == taken.act.tolist()
    assert frame["_act_propensity"].to_list() == taken.propensity.tolist()
    assert (frame["_act"].to_numpy() != policy).any()
    assert (shadow["_act"].to_numpy() == policy).all()


def test_before_the_first_release_whoever_is_held_out_is_left_alone(world: Any) -> None:
    w = world(decide=nr.Decide(holdout=0.3, before="x > 0.5"), rows_a_day=400)
    w.score(day(2))
    frame = rows(w, day(2))
    held = measure.held_out(w.system.name, frame["_unit"].to_list(), 0.3)
    wanted = (frame["x"].to_numpy() > 0.5).astype(float)
    act, chance = frame["_act"].to_numpy(), frame["_act_propensity"].to_numpy()
    assert 0.1 < held.mean() < 0.5
    assert (act == np.where(held, 0.0, wanted)).all()
    assert chance == pytest.approx(0.7 * (act == wanted) + 0.3 * (act == 0))
    everybody = (act * wanted / chance).sum() / wanted.sum()  # Horvitz and Thompson: unbiased for acting on all
    assert everybody == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("degree", ["human", "shadow", "assist", "partial"])
def test_before_the_first_release_people_decide_what_is_left_to_them(world: Any, degree: Any) -> None:
    w = world(decide=nr.Decide(before="x > 0.5"), serve=nr.Serve(degree, confidence=0.8 if degree == "partial" else 0.0))
    w.score(day(2))
    frame = rows(w, day(2))
    assert frame["_act"].null_count() == frame["_act_propensity"].null_count() == frame.height


def test_late_rows_and_unknown_rows_are_counted(world: Any) -> None:
    w = world()
    spine = w.spine(day(2))
    w.clock.move(day(9))
    entry = deployment.score(w.home, w.system, Window(day(1), day(9)), spine, features.compute(w.home, w.system, spine))
    assert entry is not None
    assert entry.record.late == 120


def test_the_unit_defaults_to_the_key_and_null_units_are_their_own(world: Any) -> None:
    w = world(rollout=nr.Rollout())
    spine = w.spine(day(2))
    made = logged(
        w.system,
        history(w.home),
        spine,
        features.compute(w.home, w.system, spine),
        bundles=deployment.Bundles(w.home),
        now=day(2),
    )
    assert made.predictions["_unit"].to_list() == spine.sort("_time", "_id")["unit"].to_list()
    by_shop = replace(w.system, rollout=nr.Rollout(unit="shop"))
    holes = spine.with_columns(shop=pl.when(pl.col("x") < 0.5).then(pl.col("shop")))
    made = logged(
        by_shop, history(w.home), holes, features.compute(w.home, by_shop, holes), bundles=deployment.Bundles(w.home), now=day(2)
    )
    frame = made.predictions
    assert set(frame.filter(pl.col("x") < 0.5)["_unit"]) == {"a", "b"}
    assert frame.filter(pl.col("x") >= 0.5)["_unit"].is_unique().all()


def test_two_homes_with_one_history_log_the_same_rows(world: Any, tmp_path_factory: Any) -> None:
    found = []
    for folder in ("one", "other"):
        w = world(seed=4, folder=tmp_path_factory.mktemp(folder))
        deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
        found.append(w.score(day(2)))
    assert found[0] == found[1]
