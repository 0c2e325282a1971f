"""The stories of ``tests/monitoring`` and the small world of ``tests/deployment``, here too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[1]


def _loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_stories = _loaded("noria_tests_stories", TESTS / "monitoring" / "conftest.py")
begin, told = _stories.begin, _stories.told
_loaded("noria_tests_small_world", TESTS / "deployment" / "world.py")
