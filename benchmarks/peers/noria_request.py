"""A system that is asked by HTTP only: 20 numbers of a customer. Its champion is put there by ``noria_home.py``."""

import noria as nr

COLUMNS = [f"x{number:02d}" for number in range(20)]

asks = nr.Source("asks", key="customer", time="asked_at", owner="us")
facts = nr.Source("facts", key="customer", time="at", owner="us")
system = nr.System(
    name="twenty-numbers",
    predict=nr.Request({"customer": "VARCHAR", **dict.fromkeys(COLUMNS, "DOUBLE")}, key="customer"),
    label=nr.Label(facts, "bought", within="7d", otherwise=False),
    features=[asks.columns(*COLUMNS)],
    objective=nr.Objective(
        "Whom to call?", nr.Value("case when act and label then 5 when act then -1 else 0 end", "EUR"), "log_loss"
    ),
    candidates=[nr.Prior(), nr.Linear(), nr.Boosting()],
)
