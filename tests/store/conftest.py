"""What the store's tests share: a clock, homes in temporary folders, frames and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from noria.core import SimulatedClock
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home

T0 = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(T0)


@pytest.fixture
def open_home(tmp_path: Path, clock: SimulatedClock) -> Iterator[Callable[..., Home]]:
    """Opens homes (by default the same one again and again) and closes them at the end."""
    opened: list[Home] = []

    def open_one(name: str | Path = "home", *, create: bool = True, write: bool = True, **settings: object) -> Home:
        values = Settings(**({"durable": False, "database_wait_seconds": 0} | settings))
        opened.append(Home.open(tmp_path / name, values, clock, create=create, write=write))
        return opened[-1]

    yield open_one
    for home in opened:
        home.close()


@pytest.fixture
def home(open_home: Callable[..., Home]) -> Home:
    return open_home()


def day(number: int, rows: int = 20, **more: object) -> pl.DataFrame:
    """Predictions of one day: ``rows`` of them, an hour apart at most."""
    times = [T0 + timedelta(days=number, minutes=60 * row / rows) for row in range(rows)]
    columns = {
        "_id": [f"{number:03d}-{row:04d}" for row in range(rows)],
        "_time": times,
        "x": [number + row / 8 for row in range(rows)],
    }
    frame = pl.DataFrame(columns, schema_overrides={"_time": pl.Datetime("us", "UTC")})
    return frame.with_columns(**{name: pl.lit(value) for name, value in more.items()})


def put(home: Home, number: int) -> None:
    """The predictions of one day with the record of them, as a turn would write them."""
    commit = home.lake.write("predictions", day(number), key=f"d{number}")
    home.commit(Approved(subject=str(number), by="test"), key=f"day/{number}", tables=[commit])
