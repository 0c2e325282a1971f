"""How much will each store sell tomorrow? The act is the amount to deliver; an empty shelf hides what would have been sold."""

from datetime import UTC, datetime, timedelta

import polars as pl

import noria as nr

FIRST = datetime(2024, 1, 1, 18, tzinfo=UTC)
STORES = ("north", "south", "east", "west")

orders_frame = pl.DataFrame(
    {
        "store": [store for _ in range(60) for store in STORES],
        "day": [(FIRST + timedelta(days=day)).date().isoformat() for day in range(60) for _ in STORES],
        "asked_at": [FIRST + timedelta(days=day) for day in range(60) for _ in STORES],
        "weekday": [(FIRST + timedelta(days=day)).isoweekday() for day in range(60) for _ in STORES],
        "promotion": [day % 9 == place for day in range(60) for place in range(4)],
        "margin": [1.5 + 0.1 * place for _ in range(60) for place in range(4)],
    }
)
sales_frame = pl.DataFrame(
    {
        "shop": [store for _ in range(60) for store in STORES],
        "closed_at": [FIRST + timedelta(days=day, hours=3) for day in range(60) for _ in STORES],
        "booked_at": [FIRST + timedelta(days=day, hours=5) for day in range(60) for _ in STORES],
        "units": [20.0 + 5 * place + (day % 7) for day in range(60) for place in range(4)],
        "left_over": [(day * 7 + place) % 6 for day in range(60) for place in range(4)],
    }
)

orders = nr.Source("orders", orders_frame, key=("store", "day"), time="asked_at", owner="supply")
sales = nr.Source(
    "sales", sales_frame, key="shop", time="closed_at", known="booked_at", owner="finance", note="restated after stock-taking"
)

system = nr.System(
    name="demand",
    predict=orders,
    label=nr.Label(
        sales,
        "units",
        within="12h",
        horizon="20h",
        by={"store": "shop"},
        lateness="1d",
        censored_when="left_over = 0",
        task="regression",
    ),
    features=[
        orders.columns("store", "weekday", "promotion"),
        sales.last("units", by={"store": "shop"}, max_age="3d").named("yesterday"),
        sales.window("7d", every="1d", by={"store": "shop"}).mean("units").std("units").named("week_mean", "week_std"),
        orders.sql("weekday >= 6").named("weekend"),
    ],
    decide=nr.Decide("quantile 0.8"),
    objective=nr.Objective(
        problem="What is not delivered is not sold; what is not sold is thrown away.",
        value=nr.Value("margin * least(act, label) - 0.7 * greatest(act - label, 0)", "USD", low=-500, high=500),
        metric="pinball",
        slices=["store"],
    ),
    candidates=[nr.Prior(), nr.Seasonal("1w", by="store"), nr.Last(by="store"), nr.Linear(), nr.Boosting(trials=5, seeds=1)],
    rollout=nr.Rollout(unit="store"),
)
