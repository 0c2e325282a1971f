"""``noria estimate`` on a home that explored, and on one that did not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noria.cli.common import load_system
from noria.core import SystemClock
from noria.measure import closed
from noria.records import Trained
from noria.settings import Settings
from noria.store import Home


@pytest.fixture
def home(explored: Path) -> Iterator[Home]:
    with Home.open(explored.parent / ".noria" / "visits", Settings(), SystemClock(), create=False, write=False) as store:
        yield store


def test_another_threshold(noria: Any, explored: Path, home: Home) -> None:
    """The paired value by hand from the logged scores and labels; the propensities agree with it within their intervals."""
    found = noria("estimate", explored, "--policy", "act when score > 0.4", "--json").json["found"]
    rows = closed(home, load_system(explored))
    rows = rows.filter(rows["_act"].is_not_null())
    worth = ((rows["_score"] > 0.4) * (10 * rows["_label"] - 2)).mean()
    assert found["n"] == rows.height > 1000
    assert found["paired"]["value"] == pytest.approx(worth)
    for name in ("ips", "snips", "dr"):
        one = found["log"][name]
        assert one["low"] < worth < one["high"], name
    assert {check["verdict"] for check in found["log"]["checks"]} == {"pass"}
    assert found["log"]["largest"] == pytest.approx(10)


def test_the_declared_policy_without_its_exploration_makes_more(noria: Any, explored: Path) -> None:
    done = noria("estimate", explored)
    assert done.code == 0
    assert done.out.startswith("act when expected value > 0, without exploration:")
    assert all(word in done.out for word in ("paired", "exact", "IPS", "SNIPS", "DR", "effective of", "support", "mean weight"))
    found = noria("estimate", explored, "--json").json["found"]
    assert found["differs"] == pytest.approx(0.1, abs=0.03)
    assert found["paired_gain"]["low"] > 0
    assert found["log"]["gain"]["low"] > 0


def test_the_bundle_that_answered_scores_as_it_was_logged(noria: Any, explored: Path, home: Home) -> None:
    answered = closed(home, load_system(explored), columns=["_release"])["_release"].unique().to_list()
    released = next(name for name in answered if name)
    mine = noria("estimate", explored, "--bundle", released[:12], "--json").json
    assert mine["bundle"] == released
    assert mine["found"] == noria("estimate", explored, "--json").json["found"]
    other = next(e.record.bundle for e in home.ledger.read(Trained) if e.record.bundle != released)
    asked = noria("estimate", explored, "--bundle", other[:12], "--json")
    assert asked.code == 0, asked.err
    assert asked.json["found"]["n"] == mine["found"]["n"]
    assert asked.json["found"]["paired"] != mine["found"]["paired"]


def test_a_span_and_a_clip(noria: Any, explored: Path) -> None:
    part = noria(
        "estimate",
        explored,
        "--policy",
        "act when score > 0.4",
        "--from",
        "2020-01-16",
        "--to",
        "2020-01-18",
        "--clip",
        3,
        "--json",
    ).json
    assert part["window"] == {"start": "2020-01-16T00:00:00Z", "end": "2020-01-18T00:00:00Z"}
    assert part["found"]["n"] == pytest.approx(600, abs=100)
    assert part["found"]["log"]["clipped"] > 0


def test_without_exploration_it_is_said_that_the_log_does_not_tell(noria: Any, turned: Path) -> None:
    done = noria("estimate", turned, "--policy", "act when score > 0.4")
    assert done.code == 0
    assert "what the propensities say is not to be used: not enough data" in done.out
    found = noria("estimate", turned, "--policy", "act when score > 0.4", "--json").json["found"]
    assert found["log"]["ips"]["value"] is None
    assert "had no chance in the log" in found["log"]["checks"][0]["detail"]
    assert found["paired"]["value"] is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "act when it rains"], "is not known"),
        (["--policy", "act when score > best"], "does not say how to act on a score"),
        (["--policy", "human"], "does not say how to act on a score"),
        (["--clip", "0"], "weights cannot be clipped at 0"),
        (["--bundle", "feedfeed"], "no trained bundle begins with"),
        (["--from", "2030-01-01"], "no closed prediction of a release"),
    ],
)
def test_what_cannot_be_answered(noria: Any, turned: Path, options: list[str], said: str) -> None:
    done = noria("estimate", turned, *options)
    assert done.code == 1
    assert said in done.err


def test_nothing_is_closed_yet(noria: Any, shop: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    Home.open(home, Settings(), SystemClock()).close()
    done = noria("estimate", shop / "system.py", "--home", home)
    assert done.code == 1
    assert "no label is closed yet" in done.err
