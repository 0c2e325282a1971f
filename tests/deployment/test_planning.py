"""How long a decision takes, from what is closed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import deployment
from noria.deployment.rollout import arms
from noria.deployment.rollout.planning import planned
from noria.stats import blocks_needed

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAILY = {"gate": nr.Gate(block="1d", margin=0.1)}


def lived(w: Any, days: int) -> pl.DataFrame:
    """Some days without any release; returns their truth."""
    for k in range(1, days + 1):
        w.score(START + k * DAY)
        w.close(START + k * DAY)
    return pl.concat([w.asked[START + k * DAY] for k in range(1, days + 1)])


def test_what_is_missing_is_said(world: Any) -> None:
    w = world(**DAILY)
    assert "no cohort is closed yet" in planned(w.home, w.system)
    lived(w, 4)
    assert "fewer than 10 blocks" in planned(w.home, w.system)
    for k in range(5, 15):
        w.score(START + k * DAY)
        w.close(START + k * DAY)
    none = replace(w.system, gate=nr.Gate(block="1d", margin=0.0))
    assert "gate.margin is 0" in planned(w.home, none)


def test_before_the_first_release_always_acting_stands_in(world: Any) -> None:
    w = world(**DAILY)
    truth = lived(w, 24)
    (found,) = planned(w.home, w.system)
    value = 2 * truth["label"].to_numpy() - 1  # of acting; not acting is worth 0
    day = np.repeat(np.arange(24), w.rows_a_day)
    means = np.bincount(day, value) / np.bincount(day)
    assert found.how == "shadow, on the same rows, at worst"
    assert found.spread == pytest.approx(means.std(ddof=1))
    assert found.a_day == w.rows_a_day
    assert found.effect == pytest.approx(0.1 * (np.maximum(value, 0).mean() - max(value.mean(), 0)))
    assert found.days >= blocks_needed(found.spread, found.effect, error=0.05, prior=arms.PRIOR)
    assert f"about {found.days} days" in str(found)


def test_with_a_champion_the_margin_is_what_counts(world: Any) -> None:
    w = world(**DAILY)
    deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
    w.clock.move(START + timedelta(minutes=1))
    truth = lived(w, 24)
    (found,) = planned(w.home, w.system)
    gain = np.where(truth["x"] > 0.5, 2 * truth["label"] - 1, 0.0).mean()
    assert found.effect == pytest.approx(0.1 * gain, rel=0.02)  # but for the first minute's row
    assert "what the champion gains" in str(found)


def test_where_acting_changes_the_label_each_share_has_its_days(world: Any) -> None:
    w = world(label={"affected_by_action": True}, **DAILY)
    truth = lived(w, 24)
    some, more = planned(w.home, w.system)
    assert (some.how, more.how) == ("arms at 20%", "arms at 50%")
    assert more.days < some.days
    value = 2 * truth["label"].to_numpy() - 1
    day = np.repeat(np.arange(24), w.rows_a_day)
    own = value - (np.bincount(day, value) / np.bincount(day))[day]
    assert more.spread == pytest.approx(own.std() * np.sqrt(4 / w.rows_a_day))
    blue = replace(w.system, rollout=replace(w.system.rollout, style="blue-green"))
    assert planned(w.home, blue) == []
