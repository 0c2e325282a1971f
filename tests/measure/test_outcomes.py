"""Closed predictions: only closed cohorts, the newest revision, what could be seen, shadow scores."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from noria.core import Window
from noria.measure import blocks_of, closed, closed_until, usable

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def asked(day, n=4, **more):
    times = [START + day * DAY + timedelta(hours=h + 1) for h in range(n)]
    rows = {"_id": [f"{day}-{i}" for i in range(n)], "_time": times, "x": [float(i) for i in range(n)]}
    return pl.DataFrame(rows).with_columns(pl.col("_time").dt.cast_time_unit("us"), **more)


def labels(rows, values, known=True):
    moments = pl.col("_time") + pl.duration(minutes=5) if known else pl.lit(None, pl.Datetime("us", "UTC"))
    return rows.select("_id", "_time").with_columns(_label=pl.Series(values, dtype=pl.Float64), _known=moments, price=pl.lit(2.5))


def test_nothing_is_closed_in_a_new_home(written, declare):
    home, system = written.home, declare(outcomes=["price"])
    assert closed_until(home) is None
    empty = closed(home, system)
    assert empty.height == 0
    assert {"_id", "_time", "_label", "_class", "_known", "price"} <= set(empty.columns)
    assert "_shadow_act" in closed(home, system, columns=["x"], shadow_of="b").columns
    assert usable(system, empty).height == 0


def test_only_closed_cohorts_and_their_newest_revision(written, declare):
    home, system = written.home, declare(outcomes=["price"])
    for day in range(3):
        written.predictions(asked(day))
    written.outcomes(labels(asked(0), [1, 0, 0, None]), 0)
    written.outcomes(labels(asked(1), [0, 0, 0, 0]), 1)
    found = closed(home, system)
    assert found["_id"].to_list() == [f"{d}-{i}" for d in (0, 1) for i in range(4)]
    assert found["_label"].to_list() == [1, 0, 0, None, 0, 0, 0, 0]
    assert found["price"].to_list() == [2.5] * 8
    assert closed_until(home) == START + 2 * DAY
    written.outcomes(labels(asked(0), [1, 1, 0, None]), 0, revision=1)
    written.outcomes(labels(asked(0), [1, 1, 1, None]), 0, revision=2)
    assert closed(home, system)["_label"].to_list() == [1, 1, 1, None, 0, 0, 0, 0]
    assert closed_until(home) == START + 2 * DAY
    assert usable(system, found)["_id"].to_list() == [f"{d}-{i}" for d in (0, 1) for i in range(4) if (d, i) != (0, 3)]


def test_a_window_is_half_open_and_columns_can_be_chosen(written, declare):
    for day in range(3):
        rows = asked(day)
        written.predictions(rows)
        written.outcomes(labels(rows, [1, 0, 1, 0]), day)
    window = Window(START + DAY + timedelta(hours=1), START + DAY + timedelta(hours=3))
    found = closed(written.home, declare(), window, columns=["x"])
    assert found["_id"].to_list() == ["1-1", "1-2"]
    assert found.columns[:3] == ["_id", "_time", "x"]
    assert "_act" not in found.columns


def test_shadow_scores_come_by_release(written, declare):
    rows = asked(0)
    written.predictions(rows)
    for release, shift in (("b", 0.1), ("it's", 0.5)):
        shadow = rows.select(
            "_id", "_time", (pl.col("x") + shift).alias("_score"), pl.lit(1.0).alias("_act"), pl.lit(release).alias("_release")
        )
        written.shadow(shadow.head(3))
    written.outcomes(labels(rows, [1, 0, 1, 0]), 0)
    assert closed(written.home, declare(), shadow_of="b")["_shadow_score"].to_list() == pytest.approx([0.1, 1.1, 2.1])
    assert closed(written.home, declare(), shadow_of="it's")["_shadow_score"].to_list() == pytest.approx([0.5, 1.5, 2.5])
    assert closed(written.home, declare(), shadow_of="none").height == 0


def test_the_untreated_part_stands_for_all(declare):
    """Acting cures: among the untreated, weighted, the mean is that without acting, whatever the policy."""
    random = np.random.default_rng(0)
    n = 40_000
    risk = random.random(n)
    untreated = (random.random(n) < risk).astype(float)
    chance = np.where(risk > 0.5, 0.8, 0.1)  # acts mostly where the risk is high
    act = (random.random(n) < chance).astype(float)
    label = np.where(act == 1, 0.0, untreated)
    frame = pl.DataFrame({"_label": label, "_act": act, "_act_propensity": np.where(act == 1, chance, 1 - chance)})
    kept = usable(declare(affected_by_action=True), frame)
    weighed = (kept["_label"] * kept["_weight"]).sum() / kept["_weight"].sum()
    assert weighed == pytest.approx(untreated.mean(), abs=0.02)
    assert abs(kept["_label"].mean() - untreated.mean()) > 0.1
    assert set(usable(declare(), frame)["_weight"]) == {1.0}


def test_blocks_are_cohorts():
    times = pl.Series([START, START + timedelta(microseconds=1), START + DAY, START + DAY + timedelta(seconds=1)])
    first = blocks_of(times, "1d")
    assert (first - first[0]).tolist() == [0, 1, 1, 2]
    assert len(set(blocks_of(times, "1w").tolist())) == 1


def test_what_is_closed_does_not_go_back_when_old_cohorts_are_closed_late(written):
    written.predictions(asked(99))
    written.outcomes(labels(asked(99), [0, 0, 0, 0]), 99)
    for day in range(65):
        written.outcomes(labels(asked(day, 1), [1]), day)
    assert closed_until(written.home) == START + 100 * DAY


def test_the_act_is_the_persons_where_one_decided(written, declare):
    """Then no chance had a part in it; elsewhere the log says what was done, and how likely it was."""
    rows = asked(0).with_columns(_act=pl.Series([1.0, 0.0, 1.0, None]), _act_propensity=pl.lit(0.8))
    written.predictions(rows)
    written.outcomes(labels(rows, [1, 0, 1, 0]).with_columns(_decided=pl.Series([0.0, None, 1.0, 1.0])), 0)
    found = closed(written.home, declare())
    assert found["_act"].to_list() == [0.0, 0.0, 1.0, 1.0]
    assert found["_act_propensity"].to_list() == [None, 0.8, None, None]
    kept = usable(declare(affected_by_action=True), found)
    assert kept.select("_id", "_weight").rows() == [(found["_id"][0], 1.0), (found["_id"][1], 1 / 0.8)]
