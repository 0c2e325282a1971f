"""Which flights will leave 15 minutes late or more, or not at all? Asked two hours before departure."""

import noria as nr

schedule = nr.Source("schedule", "data/schedule.parquet", key="flight_id", time="asked_at", owner="operations")
departed = nr.Source("departed", "data/departed.parquet", key="flight_id", time="departed_at", owner="operations")
weather = nr.Source("weather", "data/weather.parquet", key="station", time="hour", known="1h", owner="met office")

system = nr.System(
    name="late-flights",
    predict=schedule,  # one prediction a row, as of its time
    label=nr.Label(departed, "delay >= 15", within="8h", otherwise=True),  # silence means cancelled: late
    features=[
        schedule.columns("carrier", "origin", "dest", "distance", "minute_of_day"),
        weather.last("temp", "wind_speed", "precip", "visib", by={"origin": "station"}, max_age="4h"),
        departed.window("2h", every="10m", by="origin").mean("delay").count(),
        departed.window("14d", every="1d", by=("carrier", "dest")).mean("delay").count(),
    ],
    decide=nr.Decide("act when expected value > 0", explore=0.02),
    objective=nr.Objective(
        problem="Missed connections cost us passengers; rebooking early is cheap, rebooking in vain is not.",
        value=nr.Value("case when act and label then 60 when act then -15 when label then -20 else 0 end", "USD"),
        metric="log_loss",
        guardrails=[nr.AtMost("latency_p99_ms", 20), nr.AtLeast("precision", 0.25)],
        slices=["carrier", "origin"],
    ),
    candidates=[nr.Prior(), nr.Last(by="origin"), nr.Linear(), nr.Boosting(trials=20)],
    rollout=nr.Rollout(shadow="14d", canary=(0.05, 0.25), unit="flight_id"),
    retrain=nr.Retrain(every="28d", on=("decay", "drift", "volume"), cooldown="7d"),
)
