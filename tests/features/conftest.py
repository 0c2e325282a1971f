"""What the features' tests share: a home with source tables in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from noria.core import SimulatedClock
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home
from noria.tables import source_table


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    clock = SimulatedClock(datetime(2014, 1, 1, tzinfo=UTC))
    with Home.open(tmp_path / "home", Settings(durable=False), clock) as home:
        yield home


@pytest.fixture
def fill(home: Home) -> Callable[[str, pl.DataFrame], None]:
    """Appends rows to a source's table, as one published commit."""
    written: list[str] = []

    def append(source: str, rows: pl.DataFrame) -> None:
        key = f"{source}/{len(written)}"
        written.append(key)
        with home.hold("test"):
            commit = home.lake.write(source_table(source), rows, key=key)
            home.commit(Approved(subject=key, by="test"), key=f"approved/{key}", tables=[commit])

    return append
