"""Killed at any instruction and run again, the wheel ends in the same ledger and the same tables."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import planted
import pytest

from noria.core import SimulatedClock, parse_time
from noria.settings import Settings
from noria.store import Home

START, END = "2021-03-01", "2021-03-21"


@pytest.fixture(scope="module")
def spawn() -> Callable[..., int]:
    """Runs a function in a fresh process and returns its exit code (negative: the signal that ended it)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["noria.replay", "noria.cli.common"])

    def run(function: Callable[..., None], *args: Any, patience: float | None = None) -> int:
        child = context.Process(target=function, args=args)
        child.start()
        child.join(patience)
        if child.is_alive():
            child.kill()
            child.join()
        assert child.exitcode is not None
        return child.exitcode

    return run


def contents(path: Path) -> tuple[list[Any], dict[str, str]]:
    """All that a home holds, logically: every entry but for its place, and every table's head."""
    with Home.open(path, Settings(home=path), SimulatedClock(parse_time(END))) as home:
        entries = [(e.key, e.id, e.at, e.parents, e.record) for e in home.ledger.read()]
        return sorted(entries, key=lambda entry: entry[0]), home.lake.heads()


@pytest.fixture(scope="module")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    planted.write(folder / "data")
    return Path(shutil.copy(planted.__file__, folder / "planted.py"))


@pytest.fixture(scope="module")
def undisturbed(declaration: Path, spawn: Callable[..., int]) -> Path:
    home = declaration.parent / "home"
    assert spawn(killed.turn_the_wheel, home, declaration, START, END) == 0
    return home


def test_the_twenty_days_go_round_the_wheel(undisturbed: Path) -> None:
    kinds = {entry[4].__struct_config__.tag for entry in contents(undisturbed)[0]}
    assert {
        "charter",
        "ingested",
        "cohort_closed",
        "gated",
        "rollout_moved",
        "released",
        "scored",
        "monitored",
        "valued",
    } <= kinds


def test_two_runs_give_the_same_records(undisturbed: Path, declaration: Path, tmp_path: Path, spawn: Callable[..., int]) -> None:
    assert spawn(killed.turn_the_wheel, tmp_path / "again", declaration, START, END) == 0
    assert contents(tmp_path / "again") == contents(undisturbed)


@pytest.mark.timeout(900)
def test_killed_at_every_kind_of_effect_boundary(
    undisturbed: Path, declaration: Path, tmp_path: Path, spawn: Callable[..., int]
) -> None:
    seen, home = tmp_path / "seen", tmp_path / "home"
    deaths = 0
    while (code := spawn(killed.die_at_the_first_new_boundary, home, declaration, START, END, seen)) != 0:
        assert code == -9, f"the child ended with {code} after {deaths} deaths"
        deaths += 1
        assert deaths < 2000
    boundaries = seen.read_text().splitlines()
    assert deaths == len(boundaries)
    assert deaths > 150
    assert contents(home) == contents(undisturbed)


@pytest.mark.timeout(600)
def test_killed_at_random_moments(undisturbed: Path, declaration: Path, tmp_path: Path, spawn: Callable[..., int]) -> None:
    draw = random.Random(20210301)
    deaths = 0
    while deaths < 20 and spawn(
        killed.turn_the_wheel, tmp_path / "home", declaration, START, END, patience=draw.uniform(0.3, 2.0)
    ):
        deaths += 1
    assert spawn(killed.turn_the_wheel, tmp_path / "home", declaration, START, END) == 0
    assert deaths >= 3
    assert contents(tmp_path / "home") == contents(undisturbed)
