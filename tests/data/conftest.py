"""A real home in a temporary folder, with a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria import features
from noria.core import SimulatedClock, Window, floor
from noria.records import Scored
from noria.settings import Settings
from noria.store import Home
from noria.system import System
from noria.tables import PREDICTIONS, TIME

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class World:
    """A home that holds its lease, and what the other rooms would write into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SimulatedClock(START)
        self.home = Home.open(folder / "home", Settings(durable=False), self.clock)
        self._held = self.home.hold("test")
        self._held.__enter__()

    def close(self) -> None:
        self._held.__exit__(None, None, None)
        self.home.close()

    def at(self, moment: datetime) -> datetime:
        self.clock.move(moment)
        return moment

    def source(self, name: str, rows: pl.DataFrame) -> None:
        """Rows straight into a source's table, with ``_time`` and ``_known``."""
        numbered = rows.with_columns(_row=pl.Series([f"{k:06d}" for k in range(rows.height)], dtype=pl.String))
        commit = self.home.lake.write(
            f"source.{name}", numbered.sort("_known", "_time", "_row"), key=f"test/{name}/{self.clock.now()}"
        )
        self._publish(f"test/{name}/{self.clock.now().isoformat()}", commit)

    def predict(self, rows: pl.DataFrame, *, features_id: str = "") -> None:
        """Rows into the prediction log; what is not given is null."""
        lacking = [pl.lit(None).cast(kind).alias(c) for c, kind in PREDICTIONS.columns.items() if c not in rows.columns]
        given = rows.with_columns(lacking).with_columns(
            pl.lit(features_id).alias("_features"),
            pl.lit("").alias("_release"),
            pl.lit(self.clock.now()).cast(TIME).alias("_scored_at"),
        )
        rest = [c for c in rows.columns if c not in PREDICTIONS.columns]
        frame = given.select(*(pl.col(c).cast(kind) for c, kind in PREDICTIONS.columns.items()), *rest).sort("_time", "_id")
        now = self.clock.now()
        commit = self.home.lake.write("predictions", frame, key=f"score/{now.isoformat()}")
        record = Scored(
            window=Window(floor(now - DAY, DAY), now), n=frame.height, rows=commit.rows, variants={}, releases={}, acts={}
        )
        self.home.commit(record, key=f"score/{now.isoformat()}", tables=[commit])

    def score(self, system: System, window: Window) -> pl.DataFrame:
        """What the deployment room does before the first release: logs the rows asked with their features."""
        from noria import data

        spine = data.spine(self.home, system, window)
        if not spine.is_empty():
            made = features.compute(self.home, system, spine)
            rows = spine.with_columns(made[c] for c in made.columns if c != "_id")
            self.predict(rows, features_id=features.plan(system).id)
        return spine

    @staticmethod
    def declared(**parts: Any) -> System:
        return declared(**parts)

    def _publish(self, key: str, commit: Any) -> None:
        record = Scored(window=Window(START, START), n=0, rows=commit.rows, variants={}, releases={}, acts={})
        self.home.commit(record, key=key, tables=[commit])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for a whole file of tests that only look at it."""
    made = World(tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], World]]:
    """Any number of worlds: for properties that need a fresh one for each example."""
    made: list[World] = []

    def new() -> World:
        made.append(World(tmp_path_factory.mktemp("world")))
        return made[-1]

    yield new
    for some in made:
        some.close()


def declared(**parts: Any) -> System:
    """A small valid system; ``parts`` replace what a test is about."""
    asked = parts.pop("asked", None) or nr.Source("asked", key="id", time="at", owner="us")
    came = parts.pop("came", None) or nr.Source("came", key="id", time="at", owner="us")
    given: Mapping[str, Any] = {
        "name": "small",
        "predict": asked,
        "label": nr.Label(came, "x > 0", within="6h", otherwise=False),
        "features": [asked.columns("n")],
        "objective": nr.Objective("It costs money.", nr.Value("case when act then 1 else 0 end"), "log_loss"),
        "candidates": [nr.Prior()],
    }
    return System(**{**given, **parts})  # type: ignore[arg-type]


@pytest.fixture
def declare() -> Callable[..., System]:
    """``declared``, for tests that need no home."""
    return declared
