"""Point-in-time features of the New York flights, beside the ways one would write them by hand. One run, medians in milliseconds.

Run: ``python benchmarks/features.py`` (needs ``examples/flights/data``, see ``examples/flights/fetch.py``). Every way is checked to give the
same numbers before it is timed. On a machine that does other work, read the column of CPU time.

- ``naive``: a DuckDB range join: every asked row with every row of its key and window.
- ``asof``: DuckDB's ASOF join and polars' ``join_asof``, for the newest weather alone (they have no windows).
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from noria.core import SimulatedClock
from noria.features import compute
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home
from noria.system import System
from noria.tables import source_table

FLIGHTS = Path(__file__).resolve().parent.parent / "examples" / "flights"
MIDDLE = datetime(2013, 7, 1, tzinfo=UTC)
NAIVE = """
WITH asked AS (SELECT *, time_bucket(INTERVAL 10 MINUTE, _time) - INTERVAL 2 HOUR AS near, date_trunc('day', _time) - INTERVAL 14 DAY AS far FROM spine),
by_origin AS (SELECT a._id, avg(d.delay) AS delay, count(*) AS n FROM asked a JOIN departed d
  ON d.origin = a.origin AND d._known > a.near AND d._known <= a._time GROUP BY a._id),
by_route AS (SELECT a._id, avg(d.delay) AS delay, count(*) AS n FROM asked a JOIN departed d
  ON d.carrier = a.carrier AND d.dest = a.dest AND d._known > a.far AND d._known <= a._time GROUP BY a._id),
sky AS (SELECT a._id, max_by(w.temp, w._known) AS temp FROM asked a JOIN weather w
  ON w.station = a.origin AND w._known >= a._time - INTERVAL 4 HOUR AND w._known <= a._time GROUP BY a._id)
SELECT a._id, sky.temp, o.delay AS o_delay, coalesce(o.n, 0) AS o_n, r.delay AS r_delay, coalesce(r.n, 0) AS r_n
FROM asked a LEFT JOIN sky USING (_id) LEFT JOIN by_origin o USING (_id) LEFT JOIN by_route r USING (_id) ORDER BY a._time, a._id
"""
ASOF = """
SELECT s._id, CASE WHEN s._time - w._known <= INTERVAL 4 HOUR THEN w.temp END AS temp
FROM spine s ASOF LEFT JOIN weather w ON s.origin = w.station AND s._time >= w._known ORDER BY s._time, s._id
"""
OURS = ["weather_temp", "departed_mean_delay_by_origin_2h", "departed_count_by_origin_2h"]
OURS += ["departed_mean_delay_by_carrier_dest_14d", "departed_count_by_carrier_dest_14d"]


def system() -> System:
    spec = importlib.util.spec_from_file_location("flights_system", FLIGHTS / "system.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: System = module.system
    return found


def sources() -> dict[str, pl.DataFrame]:
    """The three streams as the lake keeps them."""
    told = {
        "schedule": ("asked_at", "flight_id", 0),
        "departed": ("departed_at", "flight_id", 0),
        "weather": ("hour", "station", 1),
    }
    frames = {}
    for name, (at, key, hours) in told.items():
        frame = pl.read_parquet(FLIGHTS / "data" / f"{name}.parquet")
        known = pl.col(at) + timedelta(hours=hours)
        frames[name] = frame.with_columns(_time=at, _known=known, _row=pl.format("{}@{}", key, at)).sort(
            "_known", "_time", "_row"
        )
    return frames


def filled(folder: Path, frames: dict[str, pl.DataFrame], every: str) -> Home:
    """A home in which each stream came in one commit per ``every``."""
    home = Home.open(folder, Settings(durable=False), SimulatedClock(datetime(2014, 1, 2, tzinfo=UTC)))
    with home.hold("benchmark"):
        for name, frame in frames.items():
            for since in frame["_known"].dt.truncate(every).unique().sort():
                part = frame.filter(pl.col("_known").dt.truncate(every) == since)
                commit = home.lake.write(source_table(name), part, key=f"{name}/{since}")
                home.commit(Approved(subject=f"{name}/{since}", by="benchmark"), key=f"{name}/{since}", tables=[commit])
    return home


def timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Medians of wall and CPU milliseconds; the first call does not count."""
    work()
    wall, cpu = [], []
    for _ in range(times):
        begin, begun = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - begin) * 1000)
        cpu.append((time.process_time() - begun) * 1000)
    return statistics.median(wall), statistics.median(cpu)


def same(ours: pl.DataFrame, other: pl.DataFrame) -> None:
    """Raises unless both have the same values (to 1e-9, as averages of floats are rounded)."""
    for name, theirs in zip(OURS, other.columns[1:], strict=False):
        left, right = ours[name], other[theirs].cast(pl.Float64)
        assert (left.is_null() == right.is_null()).all(), name
        assert ((left - right).abs().max() or 0.0) < 1e-9, name


def main() -> None:
    declared, frames = system(), sources()
    spine = frames["schedule"].drop("_known", "_row").with_columns(_id="flight_id").sort("_time", "_id")
    rows: list[tuple[str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        span = pl.col("_known").is_between(MIDDLE - timedelta(days=20), MIDDLE + timedelta(days=2))
        with filled(Path(folder) / "days", {n: f.filter(span) for n, f in frames.items()}, "1d") as home:
            lately = spine.filter(pl.col("_time") > MIDDLE)
            for many, times in ((1, 60), (100, 30), (1000, 30)):
                some = lately.head(many)
                scans = {
                    n: home.lake.scan(source_table(n), _known=(MIDDLE - timedelta(days=15), None))
                    for n in ("departed", "weather")
                }
                naive = home.engine.sql(NAIVE, spine=some, **scans)
                same(compute(home, declared, some), naive)
                rows.append(("noria, daily files", many, *timed(lambda some=some: compute(home, declared, some), times)))
                rows.append(
                    (
                        "naive, daily files",
                        many,
                        *timed(lambda some=some, scans=scans: home.engine.sql(NAIVE, spine=some, **scans), times),
                    )
                )
        with filled(Path(folder) / "year", frames, "1mo") as home:
            month = spine.filter(pl.col("_time").is_between(MIDDLE, MIDDLE + timedelta(days=30)))
            scans = {n: home.lake.scan(source_table(n), _known=(None, None)) for n in ("departed", "weather")}
            same(compute(home, declared, month), home.engine.sql(NAIVE, spine=month, **scans))
            rows.append(("noria, a month", month.height, *timed(lambda: compute(home, declared, month), 3)))
            rows.append(("naive, a month", month.height, *timed(lambda: home.engine.sql(NAIVE, spine=month, **scans), 1)))
            rows.append(("noria, the year", spine.height, *timed(lambda: compute(home, declared, spine), 3)))
            sky = System("sky", declared.predict, declared.label, [declared.features[1]], declared.objective, [])
            same(compute(home, sky, spine), home.engine.sql(ASOF, spine=spine, **scans))
            weather = frames["weather"].rename({"station": "origin"}).sort("_known").drop("_time")

            def polars_asof() -> pl.DataFrame:
                return spine.join_asof(
                    weather, left_on="_time", right_on="_known", by="origin", tolerance="4h", check_sortedness=False
                )

            rows.append(("noria, the year's weather", spine.height, *timed(lambda: compute(home, sky, spine), 3)))
            rows.append(("asof, DuckDB", spine.height, *timed(lambda: home.engine.sql(ASOF, spine=spine, **scans), 3)))
            rows.append(("asof, polars", spine.height, *timed(polars_asof, 3)))
    print(f"{'way':<28}{'asked rows':>12}{'wall ms':>12}{'CPU ms':>12}")
    for way, many, wall, cpu in rows:
        print(f"{way:<28}{many:>12,}{wall:>12,.1f}{cpu:>12,.1f}")


if __name__ == "__main__":
    main()
