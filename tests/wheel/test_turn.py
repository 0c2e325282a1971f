"""One turn: what is due is done, what is not is left, and faults stop it where they are found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import planted
import polars as pl
import pytest

from noria.cli.common import load_system
from noria.core import LeaseLost, SimulatedClock, parse_time
from noria.loop import Turn, turn
from noria.records import Blocked, Diagnosed, Ingested, Scored
from noria.settings import Settings
from noria.store import Home
from noria.system import System

DAY = timedelta(days=1)
START = parse_time("2021-03-01")


class World:
    """A home, a clock, and a declaration whose data may be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        planted.write(folder / "data")
        shutil.copy(planted.__file__, folder / "planted.py")
        self.clock = SimulatedClock(START)
        self.home = Home.open(folder / "home", Settings(home=folder / "home", durable=False), self.clock)

    @property
    def system(self) -> System:
        return load_system(self.folder / "planted.py")

    def days(self, count: int) -> list[Turn]:
        made = []
        with self.home.hold("test"):
            for _ in range(count):
                self.clock.move(self.clock.now() + DAY)
                made.append(turn(self.home, self.system))
        return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.home.close()


def predictions(home: Home) -> pl.DataFrame:
    return home.lake.read("predictions").drop("_scored_at")


def test_a_turn_with_nothing_to_do_writes_nothing(world: World) -> None:
    assert world.days(3)[-1].did
    count, heads = world.home.ledger.count(), world.home.lake.heads()
    with world.home.hold("test"):
        again = turn(world.home, world.system)
    assert again.did == ()
    assert (world.home.ledger.count(), world.home.lake.heads()) == (count, heads)


def test_every_row_is_asked_once_whatever_the_rhythm_of_the_turns(world: World, tmp_path: Path) -> None:
    world.days(6)
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    with other.home.hold("test"):
        for hours in (5, 30, 31, 100, 144):
            other.clock.move(START + timedelta(hours=hours))
            turn(other.home, other.system)
    assert predictions(other.home).equals(predictions(world.home))
    other.home.close()


@pytest.mark.parametrize("spoil", ["truncated", "column missing", "column retyped", "not there"])
def test_a_fault_in_the_data_stops_the_turn_and_loses_nothing(world: World, spoil: str, tmp_path: Path) -> None:
    world.days(3)
    file = tmp_path / "data" / "orders.parquet"
    good, frame = file.read_bytes(), pl.read_parquet(file)
    if spoil == "truncated":
        file.write_bytes(good[: len(good) // 2])
    elif spoil == "column missing":
        frame.drop("size").write_parquet(file)
    elif spoil == "column retyped":
        frame.with_columns(pl.col("size").cast(pl.String) + " kg").write_parquet(file)
    else:
        file.unlink()
    before = predictions(world.home)
    [stopped] = world.days(1)
    assert stopped.stopped == "data"
    assert "orders" in stopped.reason
    assert stopped.hint
    blocked = world.home.ledger.latest(Blocked)
    assert blocked is not None
    assert blocked.record.source == "orders"
    diagnosed = world.home.ledger.latest(Diagnosed)
    assert diagnosed is not None
    assert (diagnosed.record.back_to, diagnosed.record.blocks_retraining) == ("data", True)
    assert predictions(world.home).equals(before)
    count = world.home.ledger.count(Blocked)
    world.days(1)
    assert world.home.ledger.count(Blocked) == count  # the same fault is said once
    file.write_bytes(good)
    [mended] = world.days(1)
    assert not mended.stopped

    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.days(6)
    assert predictions(other.home).equals(predictions(world.home))
    other.home.close()


def test_two_workers_cannot_both_turn(world: World) -> None:
    world.days(1)
    second = Home.open(world.home.path, world.home.settings, world.clock)
    with world.home.hold("first"), pytest.raises(LeaseLost, match="first"), second.hold("second"):
        pytest.fail("the second worker holds the home too")
    second.close()
    world.days(1)


def test_history_that_was_there_before_the_first_turn_is_taken_in_as_it_was(world: World, tmp_path: Path) -> None:
    """A system that starts late logs the same rows and features as one that was there all along."""
    world.days(5)
    (tmp_path / "late").mkdir()
    late = World(tmp_path / "late")
    late.clock.move(START + 4 * DAY)
    late.days(1)
    assert predictions(late.home).equals(predictions(world.home))
    assert late.home.ledger.count(Scored) == 1
    assert late.home.ledger.count(Ingested) == 3
    late.home.close()
