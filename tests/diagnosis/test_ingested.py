"""Faults of files, through real ingest: what is recorded when they come, and what a diagnosis makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria import data, diagnosis
from noria.core import DataFault, SimulatedClock, Verdict
from noria.records import Diagnosed
from noria.settings import Settings
from noria.store import Home

START = datetime(2022, 5, 2, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DAYS, FAULT = 21, 17
Change = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame | bytes | None]


class Shore:
    """A folder that gets a file a day, and a turn's intake after each."""

    def __init__(self, folder: Path, changed: Change | None = None) -> None:
        (folder / "hourly").mkdir(parents=True)
        self.folder, self.changed = folder, changed
        self.clock = SimulatedClock(START)
        self.home = Home.open(folder / "home", Settings(durable=False), self.clock)
        asked = nr.Source("asked", None, key="id", time="at", owner="us")
        hourly = nr.Source("hourly", "hourly/*.csv", key="place", time="hour", owner="them")
        self.system = nr.System(
            name="shore", predict=asked, label=nr.Label(asked, "bad", within="6h"), features=[hourly.last("level", "state", by={"id": "place"}, max_age="4h")],
            objective=nr.Objective(problem="tests", value=nr.Value("0"), metric="log_loss"), candidates=[nr.Prior()], folder=folder,
        )  # fmt: skip

    def day(self, k: int) -> pl.DataFrame:
        random = np.random.default_rng(k)
        hours = [START + k * DAY + (h + 1) * HOUR - timedelta(minutes=1) for h in range(24)]
        places = ("pier", "quay")
        return pl.concat(
            pl.DataFrame({"place": [place] * 24, "hour": [h.isoformat() for h in hours], "level": random.normal(5, 1, 24).round(3), "state": random.choice(["calm", "rough"], 24)})
            for place in places
        )  # fmt: skip

    def run(self, days: int = DAYS) -> list[Diagnosed]:
        """The diagnoses."""
        with self.home.hold("test"):
            for k in range(days):
                frame: pl.DataFrame | bytes | None = self.day(k)
                if self.changed is not None and k >= FAULT:
                    frame = self.changed(self.day(k), self.day(k - 1))
                path = self.folder / "hourly" / f"{k:03d}.csv"
                if isinstance(frame, bytes):
                    path.write_bytes(frame)
                elif frame is not None:
                    frame.write_csv(path)
                self.clock.move(START + (k + 1) * DAY)
                try:
                    data.ingest(self.home, self.system, self.clock.now())
                    data.verify(self.home, self.system, self.clock.now())
                except DataFault:
                    pass
                diagnosis.diagnose(self.home, self.system, self.clock.now())
        return [entry.record for entry in self.home.ledger.read(Diagnosed)]


@pytest.fixture
def shore(tmp_path: Path) -> Iterator[Callable[..., list[Diagnosed]]]:
    made: list[Shore] = []

    def run(changed: Change | None = None) -> list[Diagnosed]:
        made.append(Shore(tmp_path / str(len(made)), changed))
        return made[-1].run()

    yield run
    for one in made:
        one.home.close()


def first(found: list[Diagnosed]) -> str:
    assert found
    assert found[0].causes[0].verdict is Verdict.FAIL, found[0].account
    assert found[0].back_to == "data"
    assert found[0].blocks_retraining
    return found[0].causes[0].name


def test_ordinary_files_are_no_symptom(shore: Any) -> None:
    assert shore() == []


@pytest.mark.parametrize(
    "changed",
    [
        lambda now, before: now.drop("level"),
        lambda now, before: now.rename({"level": "water_level"}),
        lambda now, before: now.with_columns(pl.col("level").cast(pl.String) + " m"),
    ],
    ids=["removed", "renamed", "retyped"],
)
def test_columns_that_changed(shore: Any, changed: Change) -> None:
    found = shore(changed)
    assert first(found) == "schema changed"
    assert "level" in found[0].account


def test_a_file_that_cannot_be_read_is_bad_data(shore: Any) -> None:
    found = shore(lambda now, before: b"\xff\xfe\x00garbage,\x00\x01\n\x00" * 40)
    assert first(found) == "bad data"
    assert {cause.name: cause.verdict for cause in found[0].causes}["schema changed"] is Verdict.PASS


def test_files_that_bring_yesterday_again(shore: Any) -> None:
    assert first(shore(lambda now, before: pl.concat([now, before]))) == "duplicates"


def test_a_unit_that_changed(shore: Any) -> None:
    found = shore(lambda now, before: now.with_columns(pl.col("level") * 100))
    assert first(found) == "unit changed"
    assert "hourly.level" in found[0].account


def test_names_that_changed(shore: Any) -> None:
    assert first(shore(lambda now, before: now.with_columns(pl.col("state").str.to_uppercase()))) == "category renamed"


def test_files_that_do_not_come(shore: Any) -> None:
    assert first(shore(lambda now, before: None)) == "source missing"


def test_half_files(shore: Any) -> None:
    assert first(shore(lambda now, before: now.filter(pl.col("hour").str.slice(11, 2).cast(pl.Int32) < 8))) == "source truncated"


def test_files_that_come_a_day_later(shore: Any) -> None:
    """On the first day nothing came, and no more can be known; once the rows come after their turn, they are late."""
    found = shore(lambda now, before: before if before["hour"][0] >= f"{START + FAULT * DAY:%Y-%m-%d}" else None)
    assert first(found) == "source missing"
    last = {cause.name: cause.verdict for cause in found[-1].causes}
    assert last["source late"] is Verdict.FAIL
    assert last["source missing"] is Verdict.PASS
