"""Will somebody click on the advertisement in this slot? The same system as before with another aim. (A simulated stream.)"""

import noria as nr

slots = nr.Source("slots", "data/slots.parquet", key="slot", time="asked_at", owner="ad server")
verdicts = nr.Source("verdicts", "data/verdicts.parquet", key="slot", time="at", owner="raters")
clicks = nr.Source("clicks", "data/clicks.parquet", key="slot", time="at", owner="billing")

system = nr.System(
    name="ads",
    predict=slots,
    label=nr.Label(clicks, "clicked", within="6h", otherwise=False),
    outcomes={"seen": nr.Outcome(verdicts, "seen::int", within="6h", otherwise=0)},
    features=[slots.columns("position", "page", "device", "visible", "relevance")],
    decide=nr.Decide("act when expected value > 0", before="visible > 0.6 and relevance > 0.5"),
    objective=nr.Objective(
        problem="Advertisers pay for clicks, and impressions have stopped bringing them: let us aim at the clicks themselves.",
        value=nr.Value("case when act and label then 0.46 when act then -0.04 else 0 end", "EUR"),
        metric="log_loss",
        guardrails=[nr.AtLeast("value_per_prediction", 0.0)],
        slices=["position"],
    ),
    candidates=[nr.Prior(), nr.Linear(trials=2), nr.Boosting(trials=2, seeds=1)],
    parts=nr.Parts(train="14d", least="10d", validate="5d", test="7d", fresh="5d"),
    gate=nr.Gate(block="12h", approval=True),
    rollout=nr.Rollout(shadow="7d", canary=(0.1, 0.5), step="2d", unit="slot"),
    retrain=nr.Retrain(every="120d", on=("decay",), cooldown="5d"),
)
