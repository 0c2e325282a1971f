from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from noria.settings import Settings


def _load(file: str = "world") -> ModuleType:
    """The module beside this file, under a name of its own (tests are imported by path)."""
    name = f"deployment_{file}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{file}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a world whose home is open and held; closes it afterwards."""
    with ExitStack() as stack:

        def make(folder: Path = tmp_path, **given: Any) -> Any:
            made = _load().World.open(folder, **given)
            stack.callback(made.home.close)
            stack.enter_context(made.home.hold("test"))
            made.seed_sources()
            return made

        yield make


@pytest.fixture
def running() -> Iterator[Callable[..., Any]]:
    """Starts the service on a world, on a real port; stops it afterwards."""
    with ExitStack() as stack:

        def start(world: Any, **settings: Any) -> Any:
            given = {"durable": False} | settings
            world.home.settings = Settings(**given)
            made = _load("running").Running(world.home, world.system, world.home.settings).start()
            stack.callback(made.stop)
            return made

        yield start


@pytest.fixture(scope="session")
def wire() -> ModuleType:
    """Clients that do not behave."""
    return _load("wire")
