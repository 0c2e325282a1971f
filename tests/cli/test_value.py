"""``noria value``: the table is whole, however narrow the terminal is."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from noria.business import Worth
from noria.business.breakdown import Part
from noria.cli import common, value
from noria.core import Estimate

SIZE = Estimate(-7.17, -13.8, -0.526, 40)
POLICIES = ("do nothing", "always act", "best fixed", "perfect")
MADE = Worth(
    system="flights",
    currency="USD",
    metric="log_loss",
    window=None,
    whole=None,
    parts=(Part("version", "", 36_432, 40, -170_020.0, SIZE, versus=dict.fromkeys(POLICIES, SIZE)),),
    experiments=(),
    hold_out=None,
    net=None,
    link=None,
    advice="",
)
FIRST = ["before the first release", "36,432", "−170,020", "-7.17 [-13.8, -0.526]"]


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, *, terminal: bool) -> str:
    def made() -> Any:
        return Console(highlight=False, width=width, force_terminal=terminal, color_system=None)

    monkeypatch.setattr(common, "console", made)
    monkeypatch.setattr(value, "console", made)
    common.show(None, lambda: value._shown(MADE), as_json=False)
    return capsys.readouterr().out


@pytest.mark.parametrize(("width", "kept"), [(30, 0), (60, 0), (80, 0), (100, 1), (125, 2), (160, 4)])
def test_comparisons_that_do_not_fit_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, kept: int
) -> None:
    text = printed(monkeypatch, capsys, width, terminal=True)
    row = next(line for line in text.splitlines() if "before the first release" in line)
    assert all(cell in row for cell in FIRST)
    assert "…" not in text
    head = next(line for line in text.splitlines() if "per prediction" in line)
    assert [policy for policy in POLICIES if policy in head] == list(POLICIES[:kept])
    said = " ".join(text.split())
    assert ("left out for want of room: " + ", ".join(f"− {policy}" for policy in POLICIES[kept:]) in said) == (kept < 4)


def test_in_a_pipe_the_table_is_as_wide_as_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(monkeypatch, capsys, 40, terminal=False)
    head = next(line for line in text.splitlines() if "per prediction" in line)
    assert all(policy in head for policy in POLICIES)
    assert "left out" not in text


def test_a_split_that_shows_nothing_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    common.show(None, lambda: value._shown(MADE, ("carrier", "version")), as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "nothing to show by carrier: no value of it has 200 closed predictions" in text
    assert "nothing to show by version" not in text
    assert "no release answered any of these predictions" in text
