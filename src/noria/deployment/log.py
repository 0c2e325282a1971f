"""The service's own log of predictions: durable before the reply, sealed into the lake by the next turn, once.

One SQLite file (WAL, synchronous=FULL) per process and hour, so writers never meet. A row holds the very rows of ``predictions`` and
``shadow`` as Arrow, which batch scoring would have written.
"""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from noria.core import Unavailable, Window, digest, micros
from noria.deployment.live import state
from noria.deployment.scoring import Logged, counted
from noria.records import Entry, Scored
from noria.system import Request, System
from noria.tables import PREDICTIONS, SHADOW

if TYPE_CHECKING:
    from noria.store import Home

_SETTLED = timedelta(hours=2)


class PredictionLog:
    """Appends predictions of this process. Not for use from two threads at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._open: tuple[str, sqlite3.Connection] | None = None

    def append(self, made: Logged, now: datetime) -> None:
        """Writes the rows and waits for the disk; raises ``Unavailable`` when it cannot, and then nothing was written."""
        try:
            connection = self._connection(now)
            with connection:
                rows = (made.predictions["_id"][0], micros(now), _packed(made.predictions), _packed(made.shadow))
                connection.execute("insert into predictions (id, at, row, shadow) values (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise Unavailable(f"the log of predictions cannot be written: {error}", hint="free disk space in the home") from error

    def _connection(self, now: datetime) -> sqlite3.Connection:
        name = f"predictions-{os.getpid()}-{now:%Y%m%dT%H}.db"
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = (name, _connect(self._folder / name))
        return self._open[1]

    def close(self) -> None:
        """Closes the file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def sweep(home: Home, system: System) -> Entry[Scored] | None:
    """Seals what was asked over HTTP into ``predictions`` and ``shadow``: each id once, whenever it is called or killed.

    Only for a system that is asked by request; the rows of any other come to the lake through their source and are scored from
    there, and its log stays a log. Files that nobody writes to any more are removed once everything in them is sealed.
    """
    folder = home.path / "service"
    if not isinstance(system.predict, Request) or not folder.is_dir():
        return None
    files = sorted(folder.glob("predictions-*.db"))
    found = [row for file in files for row in _rows(file)]
    entry = _seal(home, system, found) if found else None
    for file in files:
        if _hour(file) + _SETTLED <= home.clock.now():
            for path in (file, *(file.with_name(file.name + tail) for tail in ("-wal", "-shm"))):
                path.unlink(missing_ok=True)
    return entry


def _seal(home: Home, system: System, found: list[tuple[bytes, bytes]]) -> Entry[Scored] | None:
    rows = pl.concat([pl.read_ipc(io.BytesIO(row)) for row, _ in found], how="diagonal_relaxed")
    rows = rows.sort("_scored_at", maintain_order=True).unique("_id", keep="first", maintain_order=True)
    first, last = rows["_time"].min(), rows["_time"].max()
    if home.lake.schema("predictions") is not None and isinstance(first, datetime):
        there = home.lake.read("predictions", columns=["_id"], _time=(first - timedelta(microseconds=1), last))  # type: ignore[arg-type]
        rows = rows.filter(~pl.col("_id").is_in(there["_id"].implode()))
    if rows.is_empty():
        return None
    shadow = pl.concat([pl.read_ipc(io.BytesIO(shadow)) for _, shadow in found], how="vertical")
    shadow = shadow.filter(pl.col("_id").is_in(rows["_id"].implode())).unique(
        ["_id", "_release"], keep="first", maintain_order=True
    )
    rows, shadow = rows.sort(PREDICTIONS.order), shadow.sort(SHADOW.order)
    key = f"score/requests/{digest(rows['_id'].to_list())[:16]}"
    commits = [home.lake.write("predictions", rows, key=key)]
    if not shadow.is_empty():
        commits.append(home.lake.write("shadow", shadow, key=key))
    window = Window(rows["_time"].min() - timedelta(microseconds=1), rows["_time"].max())  # type: ignore[operator, arg-type]  # times
    refused = rows.filter((pl.col("_release") != "") & pl.col("_score").is_null()).height
    record = counted(system, window, rows, commits[0].rows, refused=refused)
    return home.commit(record, key=key, parents=state(home).parents, tables=commits)


def _rows(file: Path) -> Iterator[tuple[bytes, bytes]]:
    connection = _connect(file)
    try:
        yield from connection.execute("select row, shadow from predictions order by seq")
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute(
        "create table if not exists predictions (seq integer primary key, id text not null, at integer not null, "
        "row blob not null, shadow blob not null)"
    )
    connection.commit()
    path.chmod(0o600)
    return connection


def _hour(file: Path) -> datetime:
    return datetime.strptime(file.stem.rsplit("-", 1)[1] + "+0000", "%Y%m%dT%H%z")


def _packed(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()
