"""Gets the electricity market of New South Wales, 1996–1998 (Elec2), and writes it as two streams of events.

45,312 half hours in order, 48 a day, with prices and demand there and in Victoria, already scaled to 0…1, and whether the price
went up against its mean of the last 24 hours. The data comes with the Python source package ``scikit-multiflow`` 0.4.1, as columns
without names or dates; the names are those of the original set, and the first half hour is that of 7 May 1996.

``market`` has a row when a half hour begins, ``moves`` a row when it ends: only then is it known whether the price went up.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fetching import archive, member

DATA = Path(__file__).resolve().parent / "data"
SHA256 = "ed4f791107cb7f789f0bb0620c50e743a4d397905146a4d06c62eb98607aa101"
START = datetime(1996, 5, 7, tzinfo=UTC)
NAMES = ("period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer", "up")


def streams() -> dict[str, pl.DataFrame]:
    """``market`` (asked at the beginning of a half hour) and ``moves`` (known at its end)."""
    path = archive("scikit-multiflow==0.4.1", "scikit-multiflow-0.4.1.tar.gz", SHA256, needs=("setuptools<81", "wheel", "numpy"))
    frame = pl.read_csv(member(path, "/elec.csv"))
    half_hour = pl.duration(minutes=30)
    frame = frame.rename(dict(zip(frame.columns, NAMES, strict=True))).with_row_index("number")
    frame = frame.with_columns(
        half_hour=pl.format("h{}", pl.col("number").cast(pl.String).str.zfill(5)),
        market=pl.lit("NSW"),
        begins_at=pl.lit(START).dt.cast_time_unit("us") + pl.col("number").cast(pl.Int64) * half_hour,
        up=pl.col("up").cast(pl.Boolean),
    ).with_columns(ends_at=pl.col("begins_at") + half_hour)
    return {
        "market": frame.select("half_hour", "begins_at", "market", *NAMES[:-1]),
        "moves": frame.select("half_hour", "ends_at", "market", "up"),
    }


def main() -> None:
    if all((DATA / f"{name}.parquet").exists() for name in ("market", "moves")):
        return
    DATA.mkdir(exist_ok=True)
    for name, frame in streams().items():
        part = DATA / f".{name}.part"
        frame.write_parquet(part)
        part.replace(DATA / f"{name}.parquet")
        print(f"{name}.parquet: {frame.height:,} rows")


if __name__ == "__main__":
    main()
