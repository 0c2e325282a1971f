"""The thirteen steps, told as a user hears them: every planted trap is seen, in order, and what was planted is what is said."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.cli.app import run
from noria.story import world

pytestmark = pytest.mark.timeout(900)


def command(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(list(words))
    return code, out.getvalue()


@pytest.fixture(scope="module")
def story(tmp_path_factory: Any) -> tuple[int, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("told") / "story"
    code, text = command("story", "--home", str(folder), "--json")
    return code, json.loads(text), folder


def test_every_trap_is_seen(story: Any) -> None:
    code, said, _ = story
    assert said["missed"] == []
    assert code == 0
    assert said["simulated"] is True


def test_the_steps_are_told_in_order(story: Any) -> None:
    _, said, _ = story
    assert [chapter["steps"] for chapter in said["chapters"]] == ["1", "2–4", "5–6", "7–8", "9–10", "11", "12", "13"]
    days = [chapter["day"] for chapter in said["chapters"]]
    assert days == sorted(days)


def test_every_trap_has_a_record_in_the_ledger(story: Any) -> None:
    _, said, folder = story
    for trap in (trap for chapter in said["chapters"] for trap in chapter["traps"]):
        code, _ = command("trace", trap["record"], "--file", str(folder / "clicks.py"), "--home", str(folder / "home"))
        assert code == 0, trap


def test_the_home_can_be_looked_at(story: Any) -> None:
    _, _, folder = story
    for verb in ("status", "diagnose", "labels", "readiness", "gate"):
        code, text = command(verb, str(folder / "clicks.py"), "--home", str(folder / "home"))
        assert (code, bool(text)) == (0, True), verb


def test_a_folder_that_holds_something_is_refused(story: Any, capsys: Any) -> None:
    _, _, folder = story
    code, _ = command("story", "--home", str(folder))
    assert code == 1
    assert "is not empty" in capsys.readouterr().err


def test_the_stream_is_as_planned() -> None:
    made = world.streams(days=world.NATURAL + 5)
    days = ((made.slots["asked_at"] - world.START).dt.total_seconds() // 86_400).to_numpy()
    pilot, natural = days < world.PILOT, (days >= world.PILOT) & (days < world.NATURAL)
    said, truth = made.verdicts["seen"].to_numpy(), made.truth["truth"].to_numpy()
    hers = (made.verdicts["rater"] == "c").to_numpy() & pilot
    assert abs(np.mean(said[hers] != truth[hers]) - world.WRONG) < 0.02
    assert abs(np.mean(said[pilot] != truth[pilot]) - 0.08) < 0.01
    assert np.array_equal(said[~hers], truth[~hers])
    assert abs(np.mean(truth[natural]) - world.RARE) < 1e-4
    assert world.streams(days=3).slots.equals(world.streams(days=3).slots)
