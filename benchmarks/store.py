"""What the store costs, beside what the disk and a bare SQLite transaction cost in the same run.

Run: ``python benchmarks/store.py [FOLDER]``. Medians in milliseconds; a ratio says how often the bare operation fits into ours.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from noria.core import SimulatedClock, stopwatch
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home

T0 = datetime(2013, 1, 1, tzinfo=UTC)
ROWS, COLUMNS, TURNS = 920, 40, 120


def timed(work: Callable[[int], object], times: int) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for number in range(times):
        begin = stopwatch()
        work(number)
        found.append((stopwatch() - begin) * 1000)
    return found


def bare_fsync(folder: Path) -> float:
    """One kilobyte into a new file, flushed."""

    def work(number: int) -> None:
        handle = os.open(folder / f"bare-{number}", os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"x" * 1000)
        os.fsync(handle)
        os.close(handle)

    return statistics.median(timed(work, 50))


def bare_sqlite(folder: Path) -> float:
    """One row in a durable transaction of its own."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for statement in ("pragma journal_mode=wal", "pragma synchronous=full", "create table t (a text)"):
        connection.execute(statement)

    def work(number: int) -> None:
        connection.execute("begin immediate")
        connection.execute("insert into t values (?)", (f"a row {number}",))
        connection.execute("commit")

    found = statistics.median(timed(work, 100))
    connection.close()
    return found


def a_day(number: int) -> pl.DataFrame:
    """Predictions of one day, as wide as a real system's."""
    random = np.random.default_rng(number)
    columns: dict[str, object] = {
        "_id": [f"{number:03d}-{row:05d}" for row in range(ROWS)],
        "_time": [T0 + timedelta(days=number, seconds=86400 * row / ROWS) for row in range(ROWS)],
    }
    columns |= {f"x{column}": random.standard_normal(ROWS) for column in range(COLUMNS)}
    return pl.DataFrame(columns)


def main(folder: Path) -> None:
    """Prints one line for each operation."""
    fsync, sqlite = bare_fsync(folder), bare_sqlite(folder)
    clock = SimulatedClock(T0)
    frames = [a_day(number) for number in range(TURNS)]
    with Home.open(folder / "home", Settings(), clock) as home, home.hold("benchmark"):
        points = sum(timed(lambda number: home.measurements.add("seconds", number, step="data"), 20_000)) / 20_000
        record = timed(lambda number: home.commit(Approved(subject=str(number), by="b"), key=f"record/{number}"), 100)

        def table(number: int) -> None:
            commit = home.lake.write("predictions", frames[number], key=f"day/{number}")
            home.commit(Approved(subject="t", by="b", note=commit.rows), key=f"table/{number}", tables=[commit])

        def look(_: int) -> None:
            window = (T0 + timedelta(days=TURNS - 20), T0 + timedelta(days=TURNS - 5))
            query = "select count(*) as n, avg(x1) as m from p where x2 > 0"
            home.engine.sql(query, p=home.lake.scan("predictions", _time=window))

        tables = timed(table, TURNS)
        looks = timed(look, 50)
        upkeep = timed(lambda _: home.lake.upkeep(), 2)
        finds = timed(lambda number: home.ledger.find(f"record/{number}"), 100)
    opened = timed(lambda _: Home.open(folder / "home", Settings(), clock, write=False).close(), 5)
    lines = [
        ("bare fsync of 1 kB", fsync, ""),
        ("bare SQLite transaction", sqlite, ""),
        ("metric point, amortised", points, ratio(points, sqlite, "SQLite transactions")),
        ("record commit", statistics.median(record), ratio(statistics.median(record), sqlite, "SQLite transactions")),
        (
            f"table commit, {ROWS} rows x {COLUMNS + 2}",
            statistics.median(tables),
            ratio(statistics.median(tables), fsync, "fsyncs"),
        ),
        ("  the first 20 of them", statistics.median(tables[:20]), ""),
        ("  the last 20 of them", statistics.median(tables[-20:]), ""),
        ("query over 16 files", statistics.median(looks), ""),
        (f"joining {TURNS} files (the first upkeep)", upkeep[0], ""),
        ("upkeep with nothing to do", upkeep[1], ""),
        ("finding a record by its key", statistics.median(finds), ""),
        ("opening a home", statistics.median(opened), ""),
    ]
    for name, millis, note in lines:
        print(f"{name:42} {millis:9.3f} ms  {note}")


def ratio(ours: float, bare: float, unit: str) -> str:
    """Ours in units of the bare operation."""
    return f"{ours / bare:.2f} {unit}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
