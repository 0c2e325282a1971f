"""The stories of ``tests/monitoring``, here too."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("noria_tests_stories", Path(__file__).parents[1] / "monitoring" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_stories = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stories)
begin, told = _stories.begin, _stories.told


sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def river(tmp_path: Path) -> Iterator[Any]:
    """``river(**changes)``: a home with sources, filled and held until the test ends (see ``river.py``)."""
    import river as rivers

    with ExitStack() as stack:

        def flow(**changes: Any) -> Any:
            made = rivers.begin(tmp_path / f"river{len(list(tmp_path.iterdir()))}", **changes)
            stack.enter_context(made.home)
            stack.enter_context(made.home.hold("test"))
            return made.flow()

        yield flow
