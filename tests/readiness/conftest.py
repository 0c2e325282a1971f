"""The stories of ``tests/monitoring``, here too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("noria_tests_stories", Path(__file__).parents[1] / "monitoring" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_stories = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stories)
begin, told = _stories.begin, _stories.told
