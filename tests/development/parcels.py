"""A small world with a known truth: late parcels, forty days of training and four parts, in a real home."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import noria as nr
from noria.core import SimulatedClock, Window, digest
from noria.records import Entry, Part, TrainingSet
from noria.settings import Settings
from noria.store import Home
from noria.system import Objective, System

START = datetime(2020, 1, 1, tzinfo=UTC)
DAYS = {"train": 40, "validate": 14, "test": 14, "fresh": 12}
GAP = 1


def system(**more: Any) -> System:
    parcels = nr.Source("parcels", None, key="parcel", time="asked", owner="post")
    arrived = nr.Source("arrived", None, key="parcel", time="at", owner="post")
    objective = {
        "problem": "late parcels cost refunds",
        "value": nr.Value("case when act and label then 3 when act then -1 when label then -1 else 0 end", "EUR"),
        "metric": "log_loss",
        "slices": ["depot"],
    } | more.pop("objective", {})
    return System(
        **{
            "name": "parcels",
            "predict": parcels,
            "label": nr.Label(arrived, "late", within="1d"),
            "features": [parcels.columns("depot", "load", "noise")],
            "objective": Objective(**objective),
            "candidates": [nr.Prior(), nr.Last(), nr.Linear(trials=2), nr.Boosting(trials=2, seeds=1)],
        }
        | more
    )


def rows(days: int, first: int, *, per_day: int = 60, seed: int = 0, signal: float = 1.5, level: float = -1.2) -> pl.DataFrame:
    """Rows whose label's log-odds are ``signal`` · load + ``level``, plus 1.5 at depot B, with a random level for each day."""
    rng = np.random.default_rng([seed, first])
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    load = rng.normal(size=n)
    depot = rng.choice(["A", "B", "C"], n)
    odds = signal * load + 1.5 * (depot == "B") + level + rng.normal(0, 0.2, days)[day]
    label = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    seconds = np.tile(np.linspace(60, 86000, per_day), days)
    asked = [START + timedelta(days=first + int(d), seconds=float(s)) for d, s in zip(day, seconds, strict=True)]
    return pl.DataFrame(
        {
            "_id": [f"p{first}-{i}" for i in range(n)],
            "_time": pl.Series(asked, dtype=pl.Datetime("us", "UTC")),
            "depot": depot,
            "load": load,
            "noise": rng.normal(size=n),
            "_label": label,
            "_last": np.concatenate([[np.nan], label[:-1]]),
        }
    ).with_columns(pl.col("_last").fill_nan(None))


def frames(**how: Any) -> dict[str, pl.DataFrame]:
    made, first = {}, 0
    for part, days in DAYS.items():
        made[part] = rows(days, first, **how)
        first += days + GAP
    return made


@contextmanager
def home(path: Path, now: datetime = START + timedelta(days=85), *, threads: int = 2) -> Iterator[Home]:
    with Home.open(path, Settings(durable=False, threads=threads), SimulatedClock(now)) as opened, opened.hold("test"):
        yield opened


def training_set(
    opened: Home, made: dict[str, pl.DataFrame], columns: tuple[str, ...] = ("depot", "load", "noise")
) -> Entry[TrainingSet]:
    parts, first = [], 0
    for part, days in DAYS.items():
        window = Window(START + timedelta(days=first), START + timedelta(days=first + days))
        text = made[part].write_csv()
        parts.append(Part(part, window, made[part].height, digest(text)))  # type: ignore[arg-type]
        first += days + GAP
    record = TrainingSet(features="plan", columns=columns, parts=tuple(parts), gap="1d", dropped={})
    return opened.commit(record, key=f"training/{digest([p.rows for p in parts])[:12]}")
