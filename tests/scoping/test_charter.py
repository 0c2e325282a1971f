"""When a charter is due, and that it is written once: in a real home."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import DeclarationError, SimulatedClock, Window
from noria.records import Charter, CohortClosed, Scored
from noria.scoping import charter, due
from noria.settings import Settings
from noria.store import Home
from noria.tables import OUTCOMES, PREDICTIONS

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Life:
    """A home into which days of asked and answered rows are put."""

    def __init__(self, folder):
        self.clock = SimulatedClock(START)
        self.home = Home.open(folder / "home", Settings(durable=False), self.clock)

    def live(self, frame, first, last):
        """Days ``first..last`` of ``frame`` pass: everything is predicted, everything closes."""
        for day in range(first, last):
            window = Window(START + day * DAY, START + (day + 1) * DAY)
            self.clock.move(window.end + timedelta(hours=1))
            rows = frame.filter((pl.col("_time") > window.start) & (pl.col("_time") <= window.end))
            asked = self._put("predictions", PREDICTIONS.columns, rows.drop("_label", "_class", "_known"))
            scored = Scored(window=window, n=rows.height, rows=asked.rows, variants={}, acts={})
            self.home.commit(scored, key=f"score/{day}", tables=[asked])
            labels = rows.select("_id", "_time", "_label", "_class", "_known", _cohort=pl.lit(window.end), _revision=pl.lit(0))
            answered = self._put("outcomes", OUTCOMES.columns, labels)
            n, mean = rows.height, rows["_label"].mean()
            closed = CohortClosed(window=window, revision=0, n=n, labelled=n, silent=0, mean=mean, delay={}, rows=answered.rows)
            self.home.commit(closed, key=f"cohort/{window.end.isoformat()}/0", tables=[answered])

    def _put(self, table, columns, rows):
        lacking = [pl.lit(None).cast(kind).alias(name) for name, kind in columns.items() if name not in rows.columns]
        rest = [name for name in rows.columns if name not in columns]
        frame = rows.with_columns(lacking).select(*(pl.col(name).cast(kind) for name, kind in columns.items()), *rest)
        return self.home.lake.write(table, frame.sort("_time", "_id"), key=f"{table}/{self.clock.now().isoformat()}")


@pytest.fixture
def life(tmp_path):
    made = Life(tmp_path)
    with made.home, made.home.hold("test"):
        yield made


def test_a_charter_is_written_once_when_there_is_enough(life, declare, rows):
    def learnable(random, frame):
        return random.random(frame.height) < 1 / (1 + np.exp(-2 * frame["x"].to_numpy() - 2 * frame["z"].to_numpy()))

    system, frame = declare(), rows(learnable, days=24)
    assert charter(life.home, system, life.clock.now()) is None
    life.live(frame, 0, 19)
    assert not due(life.home, system, life.clock.now())
    assert charter(life.home, system, life.clock.now()) is None
    life.live(frame, 19, 21)
    assert due(life.home, system, life.clock.now())
    written = charter(life.home, system, life.clock.now())
    assert written.record.decision == "go", written.record.reasons
    assert written.record.declaration == system.id
    assert written.record.labels["cohorts"] == 21
    assert written.key == f"charter/{system.id}/21"
    life.live(frame, 21, 24)
    assert not due(life.home, system, life.clock.now())
    assert charter(life.home, system, life.clock.now()) is None
    other = declare(name="other")
    assert due(life.home, other, life.clock.now())  # another declaration wants its own


def test_a_no_go_is_looked_at_again_when_the_data_has_doubled(life, declare, rows):
    def a_die_that_gets_loaded(random, frame):
        loaded = np.arange(frame.height) >= 21 * 60
        chance = np.where(loaded, 1 / (1 + np.exp(-3 * frame["x"].to_numpy() - 3 * frame["z"].to_numpy())), 0.5)
        return random.random(frame.height) < chance

    system, frame = declare(), rows(a_die_that_gets_loaded, days=84)
    life.live(frame, 0, 21)
    assert charter(life.home, system, life.clock.now()).record.decision == "no-go"
    assert not due(life.home, system, life.clock.now())
    life.live(frame, 21, 41)
    assert not due(life.home, system, life.clock.now())
    life.live(frame, 41, 84)
    assert charter(life.home, system, life.clock.now()).record.decision != "no-go"
    assert next(entry.record.decision for entry in life.home.ledger.read(Charter)) == "no-go"


def test_too_few_of_one_side_are_waited_for(life, declare, rows):
    life.live(rows(lambda random, frame: np.arange(frame.height) % 30 == 0, days=22), 0, 22)
    assert not due(life.home, declare(), life.clock.now())


def test_an_unfounded_charter_is_refused_before_any_data(life, declare):
    with pytest.raises(DeclarationError, match="baseline"):
        charter(life.home, declare(candidates=[nr.Linear()]), life.clock.now())
