"""Made-up problems with a known answer, as ``measure.closed`` would give them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.store import Engine

START = datetime(2024, 1, 1, tzinfo=UTC)

asked = nr.Source("asked", None, key="id", time="at", owner="us")
done = nr.Source("done", None, key="id", time="at", owner="them")
BASE = nr.System(
    name="test",
    predict=asked,
    label=nr.Label(done, "minutes >= 15", within="1h", task="binary"),
    features=[asked.columns("x", "z", "kind")],
    objective=nr.Objective(
        "Waste costs us.", nr.Value("case when act and label then 3 when act then -1 else 0 end", "EUR"), "log_loss"
    ),
    candidates=[nr.Prior(), nr.Last(by="kind")],
)


@pytest.fixture(scope="session")
def engine():
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def declare():
    """``declare(objective={…}, label={…}, …)``: the small system with parts of it changed."""

    def make(objective=None, label=None, **changed):
        made = replace(BASE, **changed)
        made = replace(made, objective=replace(made.objective, **(objective or {})))
        return replace(made, label=replace(made.label, **(label or {})))

    return make


@pytest.fixture
def rows():
    """``rows(label)``: ``label(random, frame) -> array`` over days of rows with the features x, z (normal) and kind (a to e)."""

    def make(label, days=40, a_day=60, seed=0, **columns):
        random = np.random.default_rng(seed)
        n = days * a_day
        times = [START + timedelta(days=i // a_day, minutes=1 + 20 * (i % a_day)) for i in range(n)]
        frame = pl.DataFrame(
            {
                "_id": [f"{i:06d}" for i in range(n)],
                "_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                "_known": pl.Series([t + timedelta(minutes=30) for t in times], dtype=pl.Datetime("us", "UTC")),
                "_act": pl.Series([None] * n, dtype=pl.Float64),
                "_act_propensity": pl.Series([None] * n, dtype=pl.Float64),
                "x": random.standard_normal(n),
                "z": random.standard_normal(n),
                "kind": random.choice(list("abcde"), n),
            }
        ).with_columns(**{name: pl.Series(make_column(random, n)) for name, make_column in columns.items()})
        found = np.asarray(label(random, frame))
        if found.dtype.kind in "UO":
            return frame.with_columns(_label=pl.lit(None, pl.Float64), _class=pl.Series(found.tolist(), dtype=pl.String))
        return frame.with_columns(_label=pl.Series(found.astype(float)), _class=pl.lit(None, pl.String))

    return make
