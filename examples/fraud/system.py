"""Is this card payment one that its owner will complain about within six hours? Asked by HTTP while the customer waits. Simulated data."""

import noria as nr

payments = nr.Source("payments", "data/payments.parquet", key="payment", time="paid_at", owner="payments team")
complaints = nr.Source("complaints", "data/complaints.parquet", key="payment", time="told_at", owner="call centre")
declines = nr.Source("declines", key="card", time="at", owner="payments team")  # no data: it comes by HTTP

system = nr.System(
    name="fraud",
    predict=payments,  # the history is a file; live, whoever asks sends the row
    label=nr.Label(complaints, "true", within="6h", otherwise=False, task="binary"),
    features=[
        payments.columns("amount", "kind", "hour"),
        payments.window("1h", every="5m", by="card").count(),
        declines.window("1h", every="5m", by="card").count(),
    ],
    decide=nr.Decide("act when expected value > 0"),
    objective=nr.Objective(
        problem="A bad payment costs us its refund; asking the customer once more costs a little patience.",
        value=nr.Value("case when act and label then 0 when act then -2 when label then -40 else 0 end", "EUR"),
        metric="log_loss",
    ),
    candidates=[nr.Prior(), nr.Linear(trials=4)],
    parts=nr.Parts(least="10d", validate="5d", test="10d", fresh="5d"),
    rollout=nr.Rollout(shadow="3d", canary=(0.1,), step="1d", unit="card"),
    every="6h",
)
