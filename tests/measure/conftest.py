"""A small system to declare variants of, an engine, and a home whose tables are written by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import noria as nr
from noria.core import SimulatedClock, Window
from noria.records import CohortClosed, Scored
from noria.settings import Settings
from noria.store import Engine, Home
from noria.tables import OUTCOMES, PREDICTIONS

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

asked = nr.Source("asked", None, key="id", time="at", owner="us")
done = nr.Source("done", None, key="id", time="at", owner="us")
BASE = nr.System(
    name="test",
    predict=asked,
    label=nr.Label(done, "done", within="1h", task="binary"),
    features=[asked.columns("x")],
    objective=nr.Objective(
        "Waste costs us.", nr.Value("case when act and label then 3 when act then -1 else 0 end", "EUR"), "log_loss"
    ),
    candidates=[nr.Prior()],
)


@pytest.fixture
def declare():
    """``declare(value="…", policy="…", task="…", …)``: a variant of the small system."""

    def make(value=None, policy=None, task="binary", acts=(False, True), outcomes=None, **label):
        objective = BASE.objective if value is None else replace(BASE.objective, value=nr.Value(value, "EUR"))
        metric = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}[task]
        return replace(
            BASE,
            label=replace(BASE.label, task=task, **label),
            objective=replace(objective, metric=metric),
            decide=nr.Decide(policy or "act when expected value > 0", acts=acts),
            outcomes={name: nr.Outcome(done, name, "1h") for name in outcomes or ()},
        )

    return make


@pytest.fixture(scope="session")
def engine():
    made = Engine()
    yield made
    made.close()


class Written:
    """A home with predictions, shadow rows and outcomes as the other steps would have written them."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._n = 0

    def _write(self, table, rows, columns, record=None, key=None):
        self._n += 1
        lacking = [pl.lit(None).cast(kind).alias(name) for name, kind in columns.items() if name not in rows.columns]
        frame = rows.with_columns(lacking)
        rest = [name for name in rows.columns if name not in columns]
        frame = frame.select(*(pl.col(name).cast(kind) for name, kind in columns.items()), *rest)
        commit = self.home.lake.write(table, frame, key=f"write/{self._n}")
        blank = Scored(window=Window(START, START + DAY), n=self._n, rows=commit.rows, variants={}, acts={})
        self.home.commit(record or blank, key=key or f"write/{self._n}", tables=[commit])

    def predictions(self, rows):
        self._write("predictions", rows.sort("_time", "_id"), PREDICTIONS.columns)

    def shadow(self, rows):
        from noria.tables import SHADOW

        self._write("shadow", rows.sort("_time", "_id"), SHADOW.columns)

    def outcomes(self, rows, day, revision=0):
        end = START + (day + 1) * DAY
        rows = rows.with_columns(_cohort=pl.lit(end), _revision=pl.lit(revision)).sort("_time", "_id")
        record = CohortClosed(
            window=Window(end - DAY, end),
            revision=revision,
            n=rows.height,
            labelled=rows.height,
            silent=0,
            mean=None,
            delay={},
            rows="",
        )
        self._write("outcomes", rows, OUTCOMES.columns, record, f"cohort/{end.isoformat()}/{revision}")


@pytest.fixture
def written(tmp_path):
    home = Home.open(tmp_path / "home", Settings(durable=False), SimulatedClock(START + 100 * DAY))
    with home, home.hold("test"):
        yield Written(home)
