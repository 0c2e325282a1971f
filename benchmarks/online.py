"""Features of one row in process, beside a query and beside look-ups of numbers that somebody computed before. One run, medians.

Run: ``python benchmarks/online.py``. Twenty windowed features of one entity (five groups of four aggregates, windows of one hour to thirty
days over thousands of the entity's rows) and a newest value. Every way is checked to give the same numbers before it is timed; the two
look-ups have them precomputed for one moment, which is what they cannot do as time goes on.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import noria as nr
from noria.core import SimulatedClock, from_micros, micros
from noria.features import compute
from noria.features.online import Online
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home
from noria.tables import TIME, source_table

END = datetime(2014, 1, 1, tzinfo=UTC)
ROWS, ENTITIES = 100_000, 20
DAY = 86_400_000_000


class Event(NamedTuple):
    source: str
    time: int
    known: int
    row: dict[str, Any]
    hash: str


asked = nr.Source("asked", key="account", time="at", owner="o")
paid = nr.Source("paid", key="account", time="at", owner="o")
WINDOWS = [("1h", "5m"), ("6h", "10m"), ("1d", "30m"), ("7d", "1h"), ("30d", "2h")]
features: list[Any] = [
    paid.window(w, every=e, by="account").count().mean("amount").std("amount").max("amount") for w, e in WINDOWS
]
newest = [paid.last("amount", by="account", max_age="30d")]


def system(some: list[Any]) -> nr.System:
    label = nr.Label(paid, "amount > 90", within="1d", otherwise=False)
    return nr.System("s", asked, label, some, nr.Objective("p", nr.Value("0"), "log_loss"), [])


def filled(folder: Path) -> Home:
    """A home with thirty-one days of payments and one predicted row."""
    home = Home.open(folder, Settings(durable=False), SimulatedClock(END))
    r = np.random.default_rng(1)
    at = np.sort(r.integers(0, 31 * DAY, ROWS)) + micros(END - timedelta(days=31))
    rows = pl.DataFrame(
        {
            "account": [f"a{n}" for n in r.integers(0, ENTITIES, ROWS)],
            "amount": np.round(r.lognormal(3, 1, ROWS), 2),
            "_time": pl.Series(at).cast(TIME),
            "_known": pl.Series(at).cast(TIME),
            "_row": [f"{n:020x}" for n in range(ROWS)],
        }
    )
    for table, frame in (("paid", rows), ("asked", rows.select("account", "_time", "_known", "_row")[:1])):
        with home.hold("benchmark"):
            commit = home.lake.write(source_table(table), frame, key=table)
            home.commit(Approved(subject=table, by="benchmark"), key=table, tables=[commit])
    return home


def median(way: Callable[[], Any], times: int) -> float:
    """The median of single calls, in microseconds."""
    spent = []
    for _ in range(times):
        start = time.perf_counter_ns()
        way()
        spent.append(time.perf_counter_ns() - start)
    return statistics.median(spent) / 1000


def spine(moment: datetime) -> pl.DataFrame:
    return pl.DataFrame({"account": ["a7"], "_id": ["q"], "_time": [moment]}, schema_overrides={"_time": TIME})


def precomputed(values: tuple[Any, ...], folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The same numbers in a dictionary and in a table of SQLite, by key."""
    kept = {f"a{n}": values for n in range(ENTITIES)}
    connection = sqlite3.connect(folder / "kept.db")
    columns = ", ".join(f"f{n} REAL" for n in range(len(values)))
    connection.execute(f"CREATE TABLE kept (account TEXT PRIMARY KEY, {columns}) WITHOUT ROWID")
    marks = ", ".join("?" * (len(values) + 1))
    connection.executemany(f"INSERT INTO kept VALUES ({marks})", [(key, *some) for key, some in kept.items()])
    connection.commit()
    return lambda: kept["a7"], lambda: connection.execute("SELECT * FROM kept WHERE account = ?", ("a7",)).fetchone()


def taken(windows: nr.System, schemas: Any, rows: int) -> float:
    """Microseconds an event, taken one by one as they become known."""
    clock = SimulatedClock(END - timedelta(days=31))
    online = Online(windows, schemas, clock)
    first, step = micros(END) - 31 * DAY, 31 * DAY // ROWS
    spent = []
    for n in range(rows):
        at = first + n * step
        event = Event("paid", at, at, {"account": f"a{n % ENTITIES}", "amount": n % 97 + 0.25}, f"{n:020x}")
        clock.move(from_micros(at))
        start = time.perf_counter_ns()
        online.take((event,))
        spent.append(time.perf_counter_ns() - start)
    return statistics.median(spent) / 1000


def held(home: Home, windows: nr.System, **more: Any) -> float:
    """Megabytes of a restored state."""
    tracemalloc.start()
    online = Online.restore(home, windows, **more)
    found = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    assert online.names
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, filled(Path(folder) / "home") as home:
        windows, lookups = system(features), system(newest)
        begun = time.perf_counter()
        online = Online.restore(home, windows)
        restored = time.perf_counter() - begun
        last = Online.restore(home, lookups)
        row, at = {"account": "a7"}, micros(END)
        want = compute(home, windows, spine(END)).drop("_id").row(0)
        assert online.features(row, at) == want
        assert last.features(row, at) == compute(home, lookups, spine(END)).drop("_id").row(0)
        kept, table = precomputed(want, Path(folder))
        assert kept() == want == table()[1:]
        ours = median(lambda: online.features(row, at), 5000)
        ways = {
            "20 windowed features, in process": ours,
            "1 newest value, in process": median(lambda: last.features(row, at), 5000),
            "precomputed, in a dict": median(kept, 5000),
            "precomputed, SQLite by primary key": median(table, 5000),
            "the query (compute) for one row": median(lambda: compute(home, windows, spine(END)), 15),
        }
        print(f"{'way':40}{'median µs':>12}{'ratio':>10}")
        for name, spent in ways.items():
            print(f"{name:40}{spent:>12,.2f}{spent / ours:>10,.3f}")
        print(f"restored from {ROWS:,} rows of {ENTITIES} entities in {restored:.2f} s")
        print(
            f"memory: {held(home, windows):.1f} MB in tiles; {held(home, windows, grace=31 * DAY):.1f} MB were every row kept by itself"
        )
        schemas = {"asked": {"account": pl.String}, "paid": {"account": pl.String, "amount": pl.Float64}}
        print(f"an event taken: {taken(windows, schemas, 20_000):.1f} µs")


if __name__ == "__main__":
    sys.exit(main())
