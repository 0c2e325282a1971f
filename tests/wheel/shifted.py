"""A system of which only the calibration breaks (``LEVEL``), or of which what it learned does (``CONCEPT``): thirty-four days of orders."""

from pathlib import Path

import numpy as np
import polars as pl

import noria as nr

DAYS, A_DAY, FAULT = 34, 360, 16
LEVEL, CONCEPT = "level", "concept"


def write(folder: Path, fault: str) -> None:
    """Writes the tables: from day ``FAULT`` on far more fail (``LEVEL``), or large orders are the safe ones (``CONCEPT``)."""
    draw = np.random.default_rng(11)
    n = DAYS * A_DAY
    start = np.datetime64("2021-03-01", "us")
    asked = start + np.sort(draw.integers(1, DAYS * 86_400, n)).astype("timedelta64[s]")
    size, weight = draw.normal(size=(2, n))
    late = (asked - start).astype("timedelta64[h]").astype(int) >= FAULT * 24
    turned = np.where(late & (fault == CONCEPT), -1.0, 1.0)
    level = np.where(late & (fault == LEVEL), 0.4, -1.2)
    failed = draw.random(n) < 1 / (1 + np.exp(-(1.4 * turned * size + 0.6 * weight + level)))
    known = asked + draw.integers(600, 4 * 3600, n).astype("timedelta64[s]")
    order = [f"o{i:06d}" for i in range(n)]
    folder.mkdir(parents=True, exist_ok=True)
    zone = pl.Datetime("us", "UTC")
    tables = {
        "orders": pl.DataFrame({"order": order, "asked_at": asked, "size": size, "weight": weight}),
        "results": pl.DataFrame({"order": order, "at": known, "failed": failed}).sort("at"),
    }
    for name, time in (("orders", "asked_at"), ("results", "at")):
        frame = tables[name].with_columns(pl.col(time).dt.replace_time_zone("UTC").cast(zone))
        frame.write_parquet(folder / f"{name}.parquet")


orders = nr.Source("orders", "data/orders.parquet", key="order", time="asked_at", owner="sales")
results = nr.Source("results", "data/results.parquet", key="order", time="at", owner="depots")

system = nr.System(
    name="shifted-orders",
    predict=orders,
    label=nr.Label(results, "failed", within="5h", otherwise=False),
    features=[orders.columns("size", "weight")],
    objective=nr.Objective(
        problem="Failed orders cost us a second delivery.",
        value=nr.Value("case when act and label then 6 when act then -6 when label then -10 else 0 end", "EUR"),
        metric="log_loss",
    ),
    candidates=[nr.Prior(), nr.Linear(trials=1)],
    parts=nr.Parts(least="2d", validate="2d", test="3d", fresh="2d"),
    gate=nr.Gate(block="6h", blocks=8),
    rollout=nr.Rollout(shadow="1d", canary=(0.5,), step="1d", unit="order", patience="5d"),
    retrain=nr.Retrain(every=None, on=("decay",), cooldown="2d"),
    every="6h",
)
