"""Will somebody see the advertisement in this slot? Asked when a page with the slot is opened. (A simulated stream.)"""

import noria as nr

slots = nr.Source("slots", "data/slots.parquet", key="slot", time="asked_at", owner="ad server")
verdicts = nr.Source("verdicts", "data/verdicts.parquet", key="slot", time="at", owner="raters")
clicks = nr.Source("clicks", "data/clicks.parquet", key="slot", time="at", owner="billing")

system = nr.System(
    name="ads",
    predict=slots,
    label=nr.Label(verdicts, "seen", within="6h", task="binary"),
    outcomes={"clicked": nr.Outcome(clicks, "clicked::int", within="6h", otherwise=0)},
    features=[slots.columns("position", "page", "device", "visible", "relevance")],
    decide=nr.Decide("act when score > 0.5", before="visible > 0.6 and relevance > 0.5"),
    objective=nr.Objective(
        problem="Advertisers pay for clicks. An advertisement that nobody sees is not clicked: let us sell more impressions.",
        value=nr.Value("case when act then 0.5 * clicked - 0.04 else 0 end", "EUR", low=-0.04, high=0.46),
        metric="log_loss",
        guardrails=[nr.AtLeast("precision", 0.86), nr.AtLeast("value_per_prediction", 0.01)],
        slices=["position"],
    ),
    candidates=[nr.Prior(), nr.Linear(trials=2), nr.Boosting(trials=2, seeds=1)],
    parts=nr.Parts(train="14d", least="10d", validate="5d", test="7d", fresh="5d"),
    gate=nr.Gate(block="12h", approval=True),
    rollout=nr.Rollout(shadow="7d", canary=(0.1, 0.5), step="2d", unit="slot"),
    retrain=nr.Retrain(every="120d", on=("decay",), cooldown="5d"),
)
