"""A planted system, simulated: orders that go wrong for reasons that are known, hurried so that twenty days go round the wheel.

Each order fails with a chance that depends on its size, its depot and how busy the depot was; the result is known some hours later.
"""

from pathlib import Path

import numpy as np
import polars as pl

import noria as nr

DAYS, A_DAY = 24, 240


def write(folder: Path) -> None:
    """Writes the planted tables, the same every time."""
    draw = np.random.default_rng(7)
    n = DAYS * A_DAY
    start = np.datetime64("2021-03-01", "us")
    asked = start + np.sort(draw.integers(1, DAYS * 86_400, n)).astype("timedelta64[s]")
    depot = draw.choice(["north", "south", "west"], n, p=[0.5, 0.3, 0.2])
    size = draw.gamma(2.0, 1.0, n)
    hour = (asked - start).astype("timedelta64[h]").astype(int)
    busy = draw.normal(size=(DAYS * 24 + 1, 3))
    load = busy[hour, np.searchsorted(["north", "south", "west"], depot)]
    failed = draw.random(n) < 1 / (1 + np.exp(-(0.9 * (size - 2.0) + 0.8 * (depot == "west") + 0.5 * load - 1.0)))
    known = asked + (draw.integers(600, 4 * 3600, n)).astype("timedelta64[s]")
    zone = pl.Datetime("us", "UTC")
    order = [f"o{i:06d}" for i in range(n)]
    asks = pl.DataFrame({"order": order, "asked_at": asked, "depot": depot, "size": size})
    results = pl.DataFrame({"order": order, "at": known, "failed": failed, "depot": depot})
    hours = start + np.arange(DAYS * 24 + 1).astype("timedelta64[h]")
    loads = pl.concat(
        pl.DataFrame({"depot": name, "hour": hours, "load": busy[:, k]}) for k, name in enumerate(["north", "south", "west"])
    )
    folder.mkdir(exist_ok=True)
    for name, frame, time in (("orders", asks, "asked_at"), ("results", results, "at"), ("loads", loads, "hour")):
        frame.with_columns(pl.col(time).dt.replace_time_zone("UTC").cast(zone)).sort(time).write_parquet(
            folder / f"{name}.parquet"
        )


orders = nr.Source("orders", "data/orders.parquet", key="order", time="asked_at", owner="sales")
results = nr.Source("results", "data/results.parquet", key="order", time="at", owner="depots")
loads = nr.Source("loads", "data/loads.parquet", key="depot", time="hour", known="1h", owner="depots")

system = nr.System(
    name="planted-orders",
    predict=orders,
    label=nr.Label(results, "failed", within="5h", otherwise=False),
    features=[
        orders.columns("depot", "size"),
        loads.last("load", by="depot", max_age="4h"),
        results.window("12h", every="1h", by="depot").mean("failed::int").count(),
    ],
    decide=nr.Decide("act when expected value > 0", explore=0.05),
    objective=nr.Objective(
        problem="Failed orders cost us a second delivery.",
        value=nr.Value("case when act and label then 10 when act then -6 when label then -10 else 0 end", "EUR"),
        metric="log_loss",
        guardrails=[nr.AtLeast("precision", 0.2), nr.AtMost("latency_p99_ms", 50)],
        slices=["depot"],
    ),
    candidates=[nr.Prior(), nr.Last(by="depot"), nr.Linear(trials=2)],
    parts=nr.Parts(least="2d", validate="2d", test="3d", fresh="3d"),
    gate=nr.Gate(block="6h", blocks=8),
    rollout=nr.Rollout(shadow="2d", canary=(0.3,), step="1d", unit="order", patience="5d"),
    retrain=nr.Retrain(every="4d", cooldown="2d"),
    every="6h",
)
