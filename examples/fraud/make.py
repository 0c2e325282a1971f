"""Makes up card payments of the last 40 days and what became of them: simulated data, for trying the service out.

No real payment is in it. What makes a payment bad is known here, because it is written here: large amounts at night, and cards that are
used many times within the hour. ``--until`` gives the moment at which the story ends (by default: now).
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

DAYS, A_DAY, CARDS = 40, 400, 500
KINDS = ["groceries", "travel", "electronics", "games"]


def payments(until: datetime) -> pl.DataFrame:
    """Payments in the order of time, with the truth in ``bad``."""
    rng = np.random.default_rng(11)
    n = DAYS * A_DAY
    seconds = np.sort(rng.integers(1, DAYS * 86_400, n))
    card = rng.integers(0, CARDS, n)
    for start in rng.integers(0, n - 8, n // 60):  # somebody tries a stolen card several times in a row
        card[start : start + 4] = card[start]
    amount = np.round(rng.lognormal(3.5, 1.0, n), 2)
    kind = rng.choice(len(KINDS), n, p=[0.5, 0.2, 0.2, 0.1])
    hour = (until - timedelta(seconds=1)).hour
    hours = (hour - (DAYS * 86_400 - seconds) // 3600) % 24
    often = np.array(
        [np.sum((card[max(0, i - 40) : i] == card[i]) & (seconds[i] - seconds[max(0, i - 40) : i] < 3600)) for i in range(n)]
    )
    logit = -4.4 + 1.1 * (np.log(amount) - 3.5) + 1.2 * (hours < 6) + 1.1 * np.minimum(often, 3) + 0.8 * (kind >= 2)
    times = [until - timedelta(seconds=int(DAYS * 86_400 - s)) for s in seconds]
    return pl.DataFrame(
        {
            "payment": [f"p{number:06d}" for number in range(n)],
            "paid_at": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "card": [f"c{number:04d}" for number in card],
            "amount": amount,
            "kind": [KINDS[place] for place in kind],
            "hour": hours,
            "bad": rng.random(n) < 1 / (1 + np.exp(-logit)),
        }
    )


def main() -> None:
    """Writes the history, and some payments without a time that wait to be scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC), default=None)
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent / "data")
    given = parser.parse_args()
    until = (given.until or datetime.now(UTC)).replace(microsecond=0)
    found = payments(until)
    rng = np.random.default_rng(12)
    told = found.filter(pl.col("bad")).select("payment", "paid_at")
    told = told.with_columns(told_at=pl.col("paid_at") + pl.duration(minutes=pl.Series(rng.integers(10, 350, told.height)))).drop(
        "paid_at"
    )
    told = told.filter(pl.col("told_at") <= until).sort("told_at")  # what is not known yet is not written yet
    given.to.mkdir(parents=True, exist_ok=True)
    found.drop("bad").write_parquet(given.to / "payments.parquet")
    told.write_parquet(given.to / "complaints.parquet")
    found.drop("bad", "paid_at").sample(500, seed=13).write_csv(given.to / "waiting.csv")
    print(
        f"{found.height:,} simulated payments and {told.height:,} complaints until {until:%Y-%m-%d %H:%M} in {os.path.relpath(given.to)}"
    )


if __name__ == "__main__":
    main()
