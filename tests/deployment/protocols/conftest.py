"""The protocols are tested over ``served``: whatever stands behind that fixture has to speak them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
collect_ignore_glob = ["with_*.py"]


def _load() -> ModuleType:
    name = "protocols_harness"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("harness.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return _load()


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """A service whose rows have columns of every kind: where it listens, its token, and what it answers with."""
    found = _load()
    with found.Running(found.Fake(found.MIXED), found.Limits(rows=100)) as running:
        yield running


@pytest.fixture(scope="module")
def numbers() -> Iterator[Any]:
    """A service whose rows are numbers, with three classes and acts that are words."""
    found = _load()
    with found.Running(found.Fake(found.NUMBERS), found.Limits(rows=100)) as running:
        yield running


@pytest.fixture(scope="session")
def clients() -> Path:
    """The environment of the clients that others wrote; ``make clients`` makes it."""
    folder = Path(os.environ.get("NORIA_CLIENTS", ROOT / ".venv-clients")) / "bin"
    if not (folder / "python").exists():
        pytest.skip("no clients: `make clients` makes their environment")
    return folder
