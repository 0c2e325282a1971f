"""How a model ages, and how often to train it, where both are known by construction."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import parcels
import polars as pl
import pytest

import noria as nr
from noria.core import Estimate, Verdict
from noria.development import Freshness, best_interval, freshness
from noria.development.freshness import Age

DAYS, A_DAY, TRAIN = 190, 80, 20
VALUE = "case when act and label then 1 when act then -1 else 0 end"


def turning(days, degrees_a_day, seed=0):
    """Rows whose label depends on a direction that turns by so much a day; ``_truth`` is the chance of the label."""
    rng = np.random.default_rng(seed)
    n = days * A_DAY
    day = np.repeat(np.arange(days), A_DAY)
    x, y = rng.normal(size=(2, n))
    angle = np.deg2rad(degrees_a_day) * day
    truth = 1 / (1 + np.exp(-2.5 * (x * np.cos(angle) + y * np.sin(angle))))
    seconds = np.tile(np.linspace(60, 86000, A_DAY), days)
    asked = [parcels.START + timedelta(days=int(d), seconds=float(s)) for d, s in zip(day, seconds, strict=True)]
    return pl.DataFrame(
        {
            "_id": [f"p{i}" for i in range(n)],
            "_time": pl.Series(asked, dtype=pl.Datetime("us", "UTC")),
            "x": x,
            "y": y,
            "_label": (rng.random(n) < truth).astype(float),
            "_truth": truth,
        }
    )


def declared():
    asked = nr.Source("parcels", None, key="parcel", time="asked", owner="post")
    return parcels.system(
        features=[asked.columns("x", "y")],
        objective={"value": nr.Value(VALUE, "EUR"), "slices": []},
        candidates=[nr.Prior(), nr.Linear()],
    )


def measured(home, frame, step=5):
    return freshness(
        home,
        declared(),
        frame,
        ("x", "y"),
        recipe="linear",
        train=timedelta(days=TRAIN),
        step=timedelta(days=step),
    )


def by_hand(frame, every, training):
    """A day's net costs of training every so many days, by doing it: scikit-learn, and the true chances instead of labels."""
    from sklearn.linear_model import LogisticRegression

    day = ((frame["_time"].dt.timestamp("us") - int(parcels.START.timestamp() * 1e6)) // 86_400_000_000).to_numpy()
    x, label, truth = frame.select("x", "y").to_numpy(), frame["_label"].to_numpy(), frame["_truth"].to_numpy()
    lost, first = 0.0, TRAIN
    for begun in range(first, int(day.max()) + 1 - every, every):
        known = (day < begun) & (day >= begun - TRAIN)
        model = LogisticRegression().fit(x[known], label[known])
        asked = (day >= begun) & (day < begun + every)
        act = model.predict_proba(x[asked])[:, 1] > 0.5
        best = truth[asked] > 0.5
        gain = 2 * truth[asked] - 1
        lost += float((gain * best).sum() - (gain * act).sum()) / every
    periods = len(range(first, int(day.max()) + 1 - every, every))
    return lost / periods + training / every


@pytest.mark.parametrize("training", [20.0, 150.0])
def test_a_planted_decay_gives_the_right_interval(tmp_path, training):
    frame = turning(DAYS, 1.2)
    with parcels.home(tmp_path / "home") as home:
        found = measured(home, frame.drop("_truth"))
    assert found is not None
    best = best_interval(found, training)
    assert best is not None
    grid = [5, 10, 15, 20, 25, 30, 40, 50, 60]
    costs = [by_hand(frame, every, training) for every in grid]
    right = grid[int(np.argmin(costs))]
    assert right / 2 <= best.days <= right * 2
    assert best.low <= best.days <= best.high
    assert best.verdict is Verdict.PASS


def test_older_models_are_worse_where_the_world_turns(tmp_path):
    with parcels.home(tmp_path / "home") as home:
        found = measured(home, turning(DAYS, 1.2).drop("_truth"))
    assert found is not None
    assert (found.ages[0].loss.value, found.ages[0].value.value) == (0.0, 0.0)
    assert found.ages[4].loss.above(0.0)
    assert found.ages[4].value.above(0.0)
    values = [age.value.value for age in found.ages[:8]]
    assert values == sorted(values)
    assert found.per_day == pytest.approx(A_DAY, rel=0.02)
    # by hand: the angle between a model of 20 days more and the freshest costs what the two lines disagree about
    assert 0.03 < found.ages[4].value.value < 0.3


def test_nothing_ages_in_a_world_that_stands_still(tmp_path):
    with parcels.home(tmp_path / "home") as home:
        found = measured(home, turning(DAYS, 0.0).drop("_truth"))
    assert found is not None
    known = [age for age in found.ages[1:12] if age.loss.known]
    assert len(known) > 8
    assert sum(age.loss.above(0.0) for age in known) <= 2
    assert max(abs(age.value.value) for age in known) < 0.02
    best = best_interval(found, 20.0)
    assert best is not None
    assert best.days > 40
    assert best.verdict is Verdict.NOT_ENOUGH_DATA


def test_too_short_a_history_says_nothing(tmp_path):
    with parcels.home(tmp_path / "home") as home:
        assert measured(home, turning(25, 1.0).drop("_truth")) is None
        assert measured(home, pl.DataFrame()) is None


def aged(slope, steps=12, half=0.0):
    """A value lost that rises by ``slope`` a prediction and step."""
    zero = Estimate(0.0, 0.0, 0.0, 50)
    ages = [
        Age(7.0 * k, 7.0 * k + 7, zero, Estimate(slope * k, (slope - half) * k, (slope + half) * k, 50), 1000)
        for k in range(steps)
    ]
    return Freshness("linear", "log_loss", 56.0, 7.0, steps, 100.0, tuple(ages))


def test_the_interval_is_that_of_the_square_root():
    """With a loss of b a day that rises with age, C a training: T = sqrt(2 C / b) (the economic order quantity, Harris 1913)."""
    for training in (50.0, 200.0, 400.0):
        best = best_interval(aged(0.01), training)
        assert best is not None
        expected = np.sqrt(2 * training / (100.0 * 0.01 / 7.0))
        assert best.days == pytest.approx(expected, abs=7.0)


def test_a_lag_does_not_change_when_it_rises_evenly_but_uses_what_was_measured():
    plain, old = best_interval(aged(0.01), 100.0), best_interval(aged(0.01), 100.0, lag=timedelta(days=21))
    assert plain is not None
    assert old is not None
    assert plain.days == old.days
    assert next(iter(old.costs.values())) > next(iter(plain.costs.values()))


def test_the_intervals_of_the_ages_carry_over():
    best = best_interval(aged(0.01, half=0.006), 100.0)
    assert best is not None
    assert best.low < best.days < best.high
    assert best_interval(aged(0.0), 100.0).open_ended
    assert best_interval(aged(0.01), 0.0) is None
