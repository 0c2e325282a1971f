"""Elec2: a market where "the same as the last label" is hard to beat. A champion that loses to it is not left alone (real data)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

import noria as nr
from noria.cli.common import load_system
from noria.core import parse_time
from noria.records import Alerted, Charter, Diagnosed, Released
from noria.replay import replay
from noria.settings import Settings
from noria.store import Home

DECLARATION = Path(__file__).parents[2] / "examples" / "elec2" / "system.py"
START, END = parse_time("1996-05-07"), parse_time("1996-10-16")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The market with a declaration that forgot the baseline, as people do."""
    folder = tmp_path_factory.mktemp("elec2")
    careless = replace(load_system(DECLARATION), candidates=[nr.Prior(), nr.Linear(trials=4)])
    settings = Settings(home=folder, durable=False)
    home = replay(folder / "home", careless, START, END, timedelta(days=1), settings=settings)
    yield home  # type: ignore[misc]
    home.close()


def test_the_charter_says_that_a_rule_comes_first(lived: Home) -> None:
    first = lived.ledger.read(Charter)[0].record
    assert first.decision == "partial"
    assert any("rule first: last" in reason for reason in first.reasons)


def test_a_champion_that_is_worse_than_the_last_label_raises_an_alert_that_says_so(lived: Home) -> None:
    released = lived.ledger.read(Released)
    assert released, "nothing went live: there is nothing to look at"
    alerts = [e for e in lived.ledger.read(Alerted) if (e.record.name, e.record.subject) == ("worse than baseline", "last label")]
    assert alerts
    opened = alerts[0]
    assert opened.record.harm
    assert "same as the last label" in opened.record.message
    assert opened.at - released[0].at <= timedelta(days=21)
    diagnosis = next(e.record for e in lived.ledger.read(Diagnosed) if opened.key in e.record.symptoms)
    assert (diagnosis.causes[0].name, diagnosis.back_to) == ("better baseline", "scoping")


def test_the_alert_is_right(lived: Home) -> None:
    """By hand, from the tables: over the days behind the alert the last label was right more often than the champion."""
    opened = next(e for e in lived.ledger.read(Alerted) if e.record.subject == "last label")
    asked = lived.lake.read("predictions", columns=["_id", "_time", "_score"], _time=(opened.record.since, opened.at))
    known = lived.lake.read("outcomes", columns=["_id", "_label"])
    rows = asked.join(known, on="_id").sort("_time").with_columns(_last=pl.col("_label").shift(1)).drop_nulls()
    champion = ((rows["_score"] > 0.5).cast(pl.Float64) == rows["_label"]).mean()
    last = (rows["_last"] == rows["_label"]).mean()
    assert isinstance(champion, float)
    assert isinstance(last, float)
    assert last > champion + 0.1
