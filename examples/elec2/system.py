"""Will the price of electricity in New South Wales go up in the half hour that begins now?

A market whose rules keep changing: "the same as last time" is hard to beat, and a model that is left alone rots within weeks.
"""

import noria as nr

market = nr.Source("market", "data/market.parquet", key="half_hour", time="begins_at", owner="trading")
moves = nr.Source("moves", "data/moves.parquet", key="half_hour", time="ends_at", owner="trading")

system = nr.System(
    name="elec2",
    predict=market,
    label=nr.Label(moves, "up", within="30m", task="binary"),
    features=[market.columns("period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer")],
    decide=nr.Decide("act when expected value > 0"),
    objective=nr.Objective(
        problem="Buying ahead saves money when the price rises, and wastes it when the price falls.",
        value=nr.Value("case when act and label then 1 when act then -1 else 0 end", "AUD"),
        metric="log_loss",
    ),
    candidates=[nr.Prior(), nr.Last(), nr.Linear(), nr.Boosting(trials=8, seeds=1)],
    rollout=nr.Rollout(shadow="14d", canary=(0.1, 0.5), unit="half_hour"),
    retrain=nr.Retrain(every="28d", on=("decay", "drift"), cooldown="7d"),
    costs=nr.Costs(training=20),
)
