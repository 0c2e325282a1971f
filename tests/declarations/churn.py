"""Which customers will leave within eight weeks? Asked on the first of every month; a call changes what happens."""

from datetime import UTC, datetime, timedelta

import polars as pl

import noria as nr

FIRST = datetime(2024, 1, 1, tzinfo=UTC)

people = pl.DataFrame(
    {
        "customer": [f"c{number:03d}" for number in range(40)],
        "changed_at": [FIRST + timedelta(hours=7 * number) for number in range(40)],
        "plan": [("basic", "plus", "family")[number % 3] for number in range(40)],
        "age": [18 + number for number in range(40)],
        "active": [number % 11 != 0 for number in range(40)],
    }
)
happenings = pl.DataFrame(
    {
        "customer_id": [f"c{number % 40:03d}" for number in range(400)],
        "at": [FIRST + timedelta(hours=9 * number) for number in range(400)],
        "what": [("visit", "purchase", "complaint", "cancelled")[number % 4 if number % 29 else 3] for number in range(400)],
        "amount": [float(number % 17) for number in range(400)],
    }
)

customers = nr.Source("customers", people, key="customer", time="changed_at", owner="crm", regulation="GDPR")
events = nr.Source("events", happenings, key=("customer_id", "what"), time="at", known="1h", owner="shop")

system = nr.System(
    name="churn",
    predict=nr.Every("1mo", of=customers, where="active"),
    label=nr.Label(
        events,
        "what = 'cancelled'",
        within="56d",
        by={"customer": "customer_id"},
        how="any",
        otherwise=False,
        lateness="1d",
        affected_by_action=True,
    ),
    features=[
        customers.columns("plan"),
        customers.sql("date_diff('day', changed_at, _time)").named("days_since_change"),
        events.window("28d", every="1d", by={"customer": "customer_id"}).count().sum("amount").named("events_28d", "spent_28d"),
        events.window("28d", every="1d", by={"customer": "customer_id"}).sum("(what = 'complaint')::INT").named("complaints_28d"),
    ],
    decide=nr.Decide("act when expected value > 0", explore=0.05, holdout=0.1),
    objective=nr.Objective(
        problem="A customer who leaves costs a year of margin; a call costs ten dollars.",
        value=nr.Value("case when label then -240 else 0 end - case when act then 10 else 0 end", "USD"),
        metric="log_loss",
        guardrails=[nr.AtLeast("recall", 0.2)],
        slices=["plan"],
        sensitive=["age"],
        fitness=nr.Fitness(cheap_errors=True),
    ),
    candidates=[
        nr.Prior(),
        nr.Rule("case when complaints_28d > 0 then 0.6 else 0.1 end", "complained"),
        nr.Linear(),
        nr.Boosting(),
    ],
    parts=nr.Parts(least="180d", validate="60d", test="60d", fresh="31d"),
    gate=nr.Gate(approval=True),
    rollout=nr.Rollout(shadow="28d", canary=(0.2, 0.5), unit="customer", patience="365d"),
    retrain=nr.Retrain(every="12w", on=("decay", "volume"), cooldown="28d"),
)
