"""A system whose 20 features are windows over a customer's events, looked up when it is asked."""

import noria as nr

WINDOWS = (("1h", "5m"), ("1d", "1h"), ("7d", "6h"), ("30d", "1d"))


def system_of(data: str | None) -> nr.System:
    """The system; its events come from the file ``data``, or by HTTP."""
    events = nr.Source("events", data, key="event", time="at", owner="us")
    facts = nr.Source("facts", key="customer", time="at", owner="us")
    features = [
        events.window(length, every=every, by="customer").count().sum("amount").mean("amount").min("amount").max("amount")
        for length, every in WINDOWS
    ]
    return nr.System(
        name="twenty-windows",
        predict=nr.Request({"customer": "VARCHAR"}, key="customer"),
        label=nr.Label(facts, "bought", within="7d", otherwise=False),
        features=features,
        objective=nr.Objective(
            "Whom to call?", nr.Value("case when act and label then 5 when act then -1 else 0 end", "EUR"), "log_loss"
        ),
        candidates=[nr.Prior(), nr.Linear(), nr.Boosting()],
    )


system = system_of(None)
