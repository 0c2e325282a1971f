"""Which ads will be clicked? Many candidates in one request; what was not shown has no label."""

import noria as nr

impressions = nr.Source("impressions", key=("request_id", "ad_id"), time="shown_at", owner="ad server")
clicks = nr.Source("clicks", key=("request_id", "ad_id"), time="clicked_at", owner="ad server")
auctions = nr.Source("auctions", key=("request_id", "ad_id"), time="settled_at", owner="billing")

request = nr.Request(
    {
        "request_id": "VARCHAR",
        "ad_id": "VARCHAR",
        "user_id": "VARCHAR",
        "campaign": "VARCHAR",
        "slot": "VARCHAR",
        "bid": "DOUBLE",
    },
    key=("request_id", "ad_id"),
    group="request_id",
)

system = nr.System(
    name="clicks",
    predict=request,
    label=nr.Label(
        clicks,
        "true",
        within="30m",
        by=("request_id", "ad_id"),
        how="any",
        otherwise=False,
        lateness="5m",
        observed_when="act",
    ),
    outcomes={"price": nr.Outcome(auctions, "price", within="30m", by=("request_id", "ad_id"), otherwise=0.0)},
    features=[
        clicks.window("1d", every="1h", by="ad_id").count().named("ad_clicks_1d"),
        impressions.window("1d", every="1h", by="ad_id").count().named("ad_shown_1d"),
        clicks.window("7d", every="1d", by="user_id").count().named("user_clicks_7d"),
        impressions.last("position", by={"ad_id": "ad_id"}, max_age="1d").named("last_position"),
    ],
    decide=nr.Decide("act when expected value > 0", explore=0.05),
    objective=nr.Objective(
        problem="An ad that nobody clicks takes the place of one that pays.",
        value=nr.Value("case when act and label then price when act then -0.002 else 0 end", "USD", low=-0.01, high=20),
        metric="log_loss",
        guardrails=[nr.AtMost("latency_p99_ms", 10)],
        slices=["campaign", "slot"],
    ),
    candidates=[nr.Prior(), nr.Last(by="ad_id"), nr.Linear(), nr.Boosting(trials=10)],
    rollout=nr.Rollout(shadow="7d", canary=(0.01, 0.1, 0.5), unit="user_id"),
    every="1h",
)
