"""The protocols are tested over the real service on a real port: ``served`` and ``numbers``. ``harness`` has a stand-in for the handlers alone."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from noria.deployment.service.contract import Limits

ROOT = Path(__file__).resolve().parents[3]
collect_ignore_glob = ["with_*.py"]


def _load(name: str, folder: Path = Path(__file__).parent) -> ModuleType:
    """A module beside the tests, under a name of its own (tests are imported by path)."""
    known = f"{folder.name}_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return _load("harness")


@contextmanager
def _serving(path: Path, open_home: str) -> Iterator[Any]:
    homes, running = _load("homes"), _load("running", Path(__file__).parents[1])
    home = getattr(homes, open_home)(path / "home")
    try:
        made = running.Running(home.store, home.system, home.store.settings)
        made.app.limits = Limits(rows=100)  # too many are made by hundreds of tests
        made.start()
        try:
            yield homes.Served(made, home)
        finally:
            made.stop()
    finally:
        home.store.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The service where rows have columns of every kind and people decide what the model is unsure of."""
    with _serving(tmp_path_factory.mktemp("flights"), "open_flights") as found:
        yield found


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The service where rows are numbers, with three classes and acts that are words."""
    with _serving(tmp_path_factory.mktemp("demand"), "open_demand") as found:
        yield found


@pytest.fixture(scope="session")
def clients() -> Path:
    """The environment of the clients that others wrote; ``make clients`` makes it."""
    folder = Path(os.environ.get("NORIA_CLIENTS", ROOT / ".venv-clients")) / "bin"
    if not (folder / "python").exists():
        pytest.skip("no clients: `make clients` makes their environment")
    return folder
