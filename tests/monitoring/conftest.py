"""The fixture ``story``: an empty home to be told, held and closed by the test. ``tests/business`` and ``tests/diagnosis`` take it from here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

_PATH = Path(__file__).with_name("story.py")


def _module() -> Any:
    name = "noria_tests_story"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _PATH)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def told() -> Any:
    """The module ``story``."""
    return _module()


@pytest.fixture
def begin(told: Any, tmp_path: Path) -> Iterator[Any]:
    """``begin(system=None, seed=0)``: a story whose home is held until the test ends."""
    with ExitStack() as stack:

        def start(system: Any = None, seed: int = 0) -> Any:
            story = told.begin(tmp_path, system, seed)
            stack.enter_context(story.home)
            stack.enter_context(story.home.hold("test"))
            return story

        yield start
