"""Measurements: physical numbers (seconds, bytes) beside the ledger. They are never part of a record and never decide one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import sqlalchemy as sa

from noria.core import canonical, stopwatch
from noria.store import dialect

_BATCH = 512
_metadata = sa.MetaData()
_points = sa.Table(
    "points",
    _metadata,
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Float(53), nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Index("points_name", "name"),
)


class Measurements:
    """Points with tags, gathered in memory and written in batches; the newest batch may be lost when the process is killed.

    >>> import tempfile
    >>> measurements = Measurements(Path(tempfile.mkdtemp()) / "measurements.db")
    >>> measurements.add("turn_seconds", 0.5, step="data")
    >>> measurements.read("turn_seconds")["value"].to_list()
    [0.5]
    >>> measurements.close()
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self._url = f"sqlite:///{path}"
        self._write = write
        self._waiting: list[dict[str, object]] = []
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._path = path

    def add(self, name: str, value: float, **tags: str) -> None:
        """Adds a point, in the units that its name says."""
        self._waiting.append({"name": name, "value": float(value), "tags": canonical(tags).decode()})
        if len(self._waiting) >= _BATCH:
            self.flush()

    @contextmanager
    def span(self, name: str, **tags: str) -> Iterator[None]:
        """Measures the seconds that a block takes."""
        begin = stopwatch()
        try:
            yield
        finally:
            self.add(name, stopwatch() - begin, **tags)

    def read(self, name: str) -> pl.DataFrame:
        """The points of a name in order: columns ``value`` and ``tags`` (JSON)."""
        self.flush()
        schema = {"value": pl.Float64(), "tags": pl.String()}
        if not self._path.exists():
            return pl.DataFrame(schema=schema)
        query = sa.select(_points.c.value, _points.c.tags).where(_points.c.name == name).order_by(_points.c.n)
        with dialect.mapped(self._url), self._opened().connect() as connection:
            return pl.DataFrame(connection.execute(query).all(), schema=schema, orient="row")

    def flush(self) -> None:
        """Writes what is waiting. Raises ``Unavailable`` when it cannot; the points keep waiting then."""
        with self._lock:
            if not self._waiting or not self._write:
                self._waiting.clear()
                return
            batch = self._waiting[:]
            with (
                dialect.mapped(self._url),
                self._opened().connect().execution_options(**dialect.WRITES) as connection,
                connection.begin(),
            ):
                connection.execute(_points.insert(), batch)
            del self._waiting[: len(batch)]

    def close(self) -> None:
        """Writes what is waiting and closes the file."""
        try:
            self.flush()
        finally:
            if self._engine is not None:
                self._engine.dispose()

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            self._engine = dialect.connect(self._url, wait_seconds=5, durable=False, write=self._write)
            if self._write:
                _metadata.create_all(self._engine)
        return self._engine
