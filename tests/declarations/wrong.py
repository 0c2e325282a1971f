"""A declaration with a mistake in nearly every line: what `noria check` has to find, all at once."""

import polars as pl

import noria as nr

shops_frame = pl.DataFrame({"shop": ["a"], "opened": ["2024-01-01T00:00:00Z"], "size": [3], "town": ["here"]}).with_columns(
    pl.col("opened").str.to_datetime(time_zone="UTC")
)
sales_frame = pl.DataFrame({"shop_number": [1], "at": ["2024-01-01T00:00:00Z"], "units": [3.0], "kind": ["x"]}).with_columns(
    pl.col("at").str.to_datetime(time_zone="UTC")
)

shops = nr.Source("shops", shops_frame, key="shop", time="opened")
sales = nr.Source("sales", sales_frame, key="shop_number", time="at", owner="finance")
visits = nr.Source("visits", "not/there.parquet", key="shop", time="at", owner="door")

system = nr.System(
    name="wrong",
    predict=shops,
    label=nr.Label(sales, "unit > 3", within="eight hours", otherwise="no", by={"shop": "shop_number"}, task="binary"),
    features=[
        shops.columns("size", "colour"),
        sales.window("7d", every="2d", by={"shop": "shop_number"}).mean("units"),
        sales.last("units", by={"town": "place"}, max_age="1y"),
        visits.last("count", by="shop", max_age="1d"),
        shops.sql("random()").named("_luck"),
    ],
    decide=nr.Decide("act if it pays", explore=1.5),
    objective=nr.Objective(
        problem=" ",
        value=nr.Value("case when act then profit else 0 end"),
        metric="logloss",
        guardrails=[nr.AtMost("latency", 20)],
        slices=["country"],
    ),
    candidates=[nr.Linear()],
    parts=nr.Parts(test="two weeks"),
    gate=nr.Gate(confidence=95),
    rollout=nr.Rollout(canary=(0.5, 0.1), unit="user", style="bandits", switchback="5h", covariate="loyalty"),
    serve=nr.Serve("partly", confidence=80, fallback="luck", timeout="at once"),
    retrain=nr.Retrain(on=("decay", "boredom"), state="warm"),
    alerts=nr.Alerts(false_alarms=0, per="month", severe=-5, runbooks={"decay": " "}),
    costs=nr.Costs(training=-1),
    every="daily",
)
