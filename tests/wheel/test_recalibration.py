"""The cheaper act, round the wheel: what only needs calibrating is calibrated, gated and rolled out; what does not is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killed
import polars as pl
import pytest
import shifted
from test_killed import contents, spawn

from noria.core import SimulatedClock, Verdict, parse_time
from noria.model import load
from noria.monitoring.grouping import members
from noria.records import Alerted, Gated, Released, Retraining, Trained, Tuned
from noria.settings import Settings
from noria.store import Home

__all__ = ["spawn"]
START, BEFORE, ORDER, END = "2021-03-01", "2021-03-22", "2021-03-23", "2021-03-31"


def declared(folder: Path, fault: str) -> Path:
    shifted.write(folder / "data", fault)
    return Path(shutil.copy(shifted.__file__, folder / "shifted.py"))


def opened(path: Path) -> Home:
    return Home.open(path, Settings(home=path), SimulatedClock(parse_time(END)), write=False)


@pytest.fixture(scope="module")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return declared(tmp_path_factory.mktemp("level"), shifted.LEVEL)


@pytest.fixture(scope="module")
def lived(declaration: Path) -> Path:
    """The history, turned in this process; a copy of the home as it was the day before the order lies beside it."""
    home = declaration.parent / "home"
    killed.turn_the_wheel(home, declaration, START, BEFORE)
    shutil.copytree(home, declaration.parent / "before")
    killed.turn_the_wheel(home, declaration, START, END)
    return home


@pytest.fixture(scope="module")
def home(lived: Path) -> Iterator[Home]:
    with opened(lived) as found:
        yield found


def order(home: Home) -> Any:
    return next(e for e in home.ledger.read(Retraining) if e.record.decision == "recalibrate")


def test_the_order_is_to_calibrate(home: Home) -> None:
    decisions = [e.record.decision for e in home.ledger.read(Retraining) if e.record.decision != "blocked"]
    assert decisions == ["go", "recalibrate"]
    fault = home.ledger.get(order(home).parents[0]).record
    assert isinstance(fault, Alerted)
    assert ("miscalibrated", "score") in members(fault)


def test_the_same_model_passes_the_gate_and_is_released(home: Home) -> None:
    gated = next(e for e in home.ledger.read(Gated) if e.key.startswith("gated/recalibrate/"))
    assert gated.record.verdict is Verdict.PASS
    released = home.ledger.read(Released)
    assert [e.record.bundle for e in released][-1] == gated.record.bundle
    made = home.ledger.read(Trained)[-1].record
    assert made.bundle == gated.record.bundle
    assert made.settings["recalibrated"] == gated.record.against == released[0].record.bundle
    old, new = (load(home.artifacts.get(sha)) for sha in (gated.record.against, made.bundle))
    assert new.model.predictor == old.model.predictor
    assert new.spec.calibration.kind != old.spec.calibration.kind
    assert made.trained_until == next(e.record.trained_until for e in home.ledger.read(Trained) if e.record.bundle == old.sha256)
    names = {check.name: check.verdict for check in gated.record.checks}
    assert names["superior to champion"] is Verdict.PASS


def test_nothing_was_tuned_for_it(home: Home) -> None:
    assert all(entry.at < order(home).at for entry in home.ledger.read(Tuned))
    later = [e.record for e in home.ledger.read(Trained) if e.at >= order(home).at]
    assert [record.recipe for record in later if "recalibrated" not in record.settings] == ["prior"]


def test_its_scores_are_right_again(home: Home) -> None:
    """By hand, from the tables: what was answered by each release after the fault."""
    asked = home.lake.read("predictions", columns=["_id", "_time", "_score", "_release"])
    rows = asked.join(home.lake.read("outcomes", columns=["_id", "_label"]), on="_id").drop_nulls()
    rows = rows.filter(pl.col("_time") > parse_time("2021-03-17"))
    old, new = (e.record.bundle for e in home.ledger.read(Released))
    offsets = {
        name: float((part["_label"] - part["_score"]).mean())  # type: ignore[arg-type]
        for name, part in ((old, rows.filter(pl.col("_release") == old)), (new, rows.filter(pl.col("_release") == new)))
    }
    assert offsets[old] > 0.2
    assert rows.filter(pl.col("_release") == new).height > 500
    assert abs(offsets[new]) < 0.06


def test_a_planted_concept_change_is_trained(tmp_path: Path) -> None:
    declaration = declared(tmp_path, shifted.CONCEPT)
    killed.turn_the_wheel(tmp_path / "home", declaration, START, "2021-03-23")
    with opened(tmp_path / "home") as home:
        orders = [e.record for e in home.ledger.read(Retraining) if e.record.decision != "blocked"]
        assert len(orders) > 1
        assert {record.decision for record in orders} == {"go"}
        assert "decay" in orders[1].triggers[0]


@pytest.mark.timeout(600)
def test_killed_at_every_boundary_of_a_recalibration(
    lived: Path, declaration: Path, tmp_path: Path, spawn: Callable[..., int]
) -> None:
    """On copies of the home as it was on the day before the order, from the order on."""
    undisturbed, home, seen = tmp_path / "undisturbed", tmp_path / "home", tmp_path / "seen"
    for copy in (undisturbed, home):
        shutil.copytree(lived.parent / "before", copy)
    assert spawn(killed.turn_the_wheel, undisturbed, declaration, START, ORDER) == 0
    deaths = 0
    child = killed.die_at_the_first_new_boundary
    while (code := spawn(child, home, declaration, START, ORDER, seen, "retraining/recalibrate")) != 0:
        assert code == -9, f"the child ended with {code} after {deaths} deaths"
        deaths += 1
        assert deaths < 100
    boundaries = seen.read_text()
    assert deaths == len(boundaries.splitlines()) >= 8
    assert "gated/recalibrate/" in boundaries
    assert "/recalibrated" in boundaries
    assert contents(home) == contents(undisturbed)
