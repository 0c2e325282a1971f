"""Every cause that has a section to point to points to one that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import river as rivers

from noria.diagnosis import streams
from noria.diagnosis.causes import CAUSES

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
MODULES = ("source", "schema", "units", "categories", "duplicates", "clocks", "joins", "skewed", "labels", "labelnoise", "leaks", "constant", "service", "software", "data")  # fmt: skip


def slugs() -> set[str]:
    return {
        re.sub("[^a-z0-9]+", "-", line.lstrip("# ").strip().lower())
        for line in PAGE.read_text().splitlines()
        if line.startswith("#")
    }


@pytest.mark.parametrize("cause", [c for c in CAUSES if c.__module__.rsplit(".", 1)[1] in MODULES], ids=lambda c: c.__name__)
def test_its_section_is_there(begin: Any, cause: Any) -> None:
    story = begin()
    made = streams.tested(
        rivers.Case(story.home, story.system, story.now, ()), cause
    )  # an empty home has something to say as well
    assert made.runbook.startswith("docs/diagnosis.md#")
    assert made.runbook.split("#")[1] in slugs()
    assert made.evidence
    assert made.verdict.value != "fail"
