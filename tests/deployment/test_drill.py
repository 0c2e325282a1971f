"""A rehearsed rollback on systems that are asked by request: that it notices what would go wrong, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from noria import deployment
from noria.cli.common import load_system
from noria.core import NotEnoughData, Unavailable, Verdict
from noria.deployment.drill import drill
from noria.deployment.load import sample
from noria.records import Drilled, Released
from noria.settings import Settings
from noria.store import Home
from noria.store.copying import copy_home

DECLARATION = """
import noria as nr

facts = nr.Source("facts", key="unit", time="at", owner="us")
asks = nr.Source("asks", key="unit", time="asked_at", owner="us")
system = nr.System(
    name="small-world",
    predict=nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR", "n": "BIGINT", "on": "DATE"}, key="unit"),
    label=nr.Label(facts, "came", within="1h", otherwise=False),
    features=[asks.columns("x", "z", "shop")],
    objective=nr.Objective("Whom to call?", nr.Value("case when act and label then 1 when act then -1 else 0 end", "EUR"), "log_loss"),
    candidates=[nr.Prior(), nr.Linear()],
)
"""


@pytest.fixture
def asked(world: Callable[..., Any], tmp_path: Path) -> Any:
    """A world that is asked by request, with two releases, and what loads its declaration."""
    (tmp_path / "system.py").write_text(DECLARATION)
    w = world()
    w.system = load_system(tmp_path / "system.py")
    for column in ("z", "x"):
        deployment.promote(w.home, w.system, w.bundle(column), by="ada")
    return w, partial(load_system, tmp_path / "system.py")


def test_it_goes_to_the_release_before_and_comes_again(asked: Any) -> None:
    w, load = asked
    releases = w.home.ledger.count(Released)
    entry, rehearsal = drill(w.home, w.system, load, by="ada")
    assert entry.record.verdict is Verdict.PASS, entry.record.checks
    back, forth = rehearsal.phases
    assert (back.was, back.to) == (forth.to, forth.was) == (w.bundle("x"), w.bundle("z"))
    assert entry.record.back_to == w.bundle("z")
    assert (entry.record.release, entry.key) == (2, "drilled/0000")
    assert 0 < back.first <= 30
    assert back.last < back.first + 1
    assert w.home.ledger.count(Released) == releases
    assert not list(w.home.path.parent.glob(".home-drill-*"))


def test_a_release_before_that_cannot_answer_fails_the_drill(asked: Any) -> None:
    w, load = asked
    bundle = w.bundle("z")
    (file,) = [path for path in (w.home.path / "artifacts").rglob("*") if path.is_file() and bundle in str(path).replace("/", "")]
    file.unlink()
    entry, rehearsal = drill(w.home, w.system, load, by="ada", patience=3.0)
    assert entry.record.verdict is Verdict.FAIL
    assert [check.name for check in entry.record.checks if check.verdict is Verdict.FAIL]
    assert rehearsal.requests


def test_nothing_to_go_back_from(world: Callable[..., Any]) -> None:
    w = world()
    with pytest.raises(NotEnoughData, match="nothing is released"):
        drill(w.home, w.system, partial(load_system, Path("nowhere.py")), by="ada")
    assert w.home.ledger.count(Drilled) == 0


def test_a_service_that_does_not_start_is_said_and_leaves_nothing(asked: Any, tmp_path: Path) -> None:
    w, _ = asked
    with pytest.raises(Unavailable, match="did not start"):
        drill(w.home, w.system, partial(load_system, tmp_path / "nowhere.py"), by="ada", start=8.0)
    assert not list(w.home.path.parent.glob(".home-drill-*"))
    assert w.home.ledger.count(Drilled) == 0


def test_rows_are_made_up_by_type_where_none_were_asked(asked: Any) -> None:
    w, _ = asked
    rows = sample(w.home, w.system)
    assert len({row["unit"] for row in rows}) == len(rows) == 64
    assert {name: type(value) for name, value in rows[0].items()} == {
        "unit": str,
        "x": float,
        "z": float,
        "shop": str,
        "n": int,
        "on": str,
    }


def test_rows_are_those_asked_last(world: Callable[..., Any]) -> None:
    w = world()
    known = w.home.lake.read("source.asks")
    rows = sample(w.home, w.system)
    assert {row["unit"] for row in rows} == set(known.sort("_known")["unit"].tail(64).to_list())
    assert all(row["x"] in known["x"].to_list() for row in rows)


def test_a_copy_is_the_home_and_the_home_is_not_the_copy(asked: Any, tmp_path: Path) -> None:
    w, _ = asked
    folder = tmp_path / "copy"
    folder.mkdir(mode=0o700)
    copy_home(w.home, folder)
    with Home.open(folder, Settings(durable=False), w.clock, create=False) as copy, copy.hold("other"):
        assert [entry.id for entry in copy.ledger.read()] == [entry.id for entry in w.home.ledger.read()]
        assert copy.lake.read("source.asks").equals(w.home.lake.read("source.asks"))
        deployment.rollback(copy, w.system, by="bob")
        assert deployment.state(copy).champion == w.bundle("z")
    assert deployment.state(w.home).champion == w.bundle("x")
    w.home.settings = Settings(ledger="postgresql://nowhere/noria")
    with pytest.raises(Unavailable, match="not in the home"):
        copy_home(w.home, folder)
