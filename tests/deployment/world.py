"""A small world with a planted truth: rows with an observable chance ``x`` of a true label, and models that read it more or less well."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

import noria as nr
from noria import deployment, features
from noria.core import SimulatedClock, Verdict, Window
from noria.measure import Decision
from noria.model import Column, Encoder, Model, Passthrough, Spec, pack
from noria.records import CohortClosed, Entry, Gated
from noria.settings import Settings
from noria.store import Home
from noria.tables import OUTCOMES

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VALUE = "case when act and label then 1 when act then -1 else 0 end"


def system_of(**changes: Any) -> nr.System:
    """The world's declaration; ``changes`` replace parts of it."""
    asks = nr.Source("asks", key="unit", time="asked_at", owner="us")
    facts = nr.Source("facts", key="unit", time="at", owner="us")
    parts: dict[str, Any] = {
        "name": "small-world",
        "predict": asks,
        "label": nr.Label(facts, "came", within="1h", otherwise=False, **changes.pop("label", {})),
        "features": [asks.columns("x", "z", "shop")],
        "objective": nr.Objective("Whom to call?", nr.Value(VALUE, "EUR"), "log_loss", slices=["shop"]),
        "candidates": [nr.Prior(), nr.Linear()],
        "rollout": nr.Rollout(shadow="3d", canary=(0.2, 0.5), unit="unit", step="1d", patience="9d"),
        "gate": nr.Gate(block="6h", margin=0.1),
    }
    return nr.System(**(parts | changes))


@dataclass
class World:
    """A home, a clock and a generator of days. ``ask`` and ``close`` do what the data room does."""

    home: Home
    system: nr.System
    clock: SimulatedClock
    seed: int = 0
    rows_a_day: int = 120
    asked: dict[datetime, pl.DataFrame] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, *, seed: int = 0, rows_a_day: int = 120, **changes: Any) -> World:
        clock = SimulatedClock(START)
        home = Home.open(path / "home", Settings(durable=False), clock)
        return cls(home, system_of(**changes), clock, seed, rows_a_day)

    def bundle(self, column: str, *, cost: int = 1, salt: str = "") -> str:
        """A model whose score is ``column`` as it is."""
        encoder = Encoder((Column(column, "number"),))
        decision = msgspec.to_builtins(Decision("expected", 0.0))
        spec = Spec(
            system=self.system.name, candidate=column + salt, recipe="linear", task="binary", cost=cost, decision=decision
        )
        golden = pl.DataFrame({column: [0.0, 0.25, 1.0]})
        return self.home.artifacts.put(pack(spec, Model(encoder, Passthrough(0.5, 0.0, 1.0)), golden))

    def gated(self, bundle: str, verdict: Verdict = Verdict.PASS) -> Entry[Gated]:
        number = self.home.ledger.count(Gated)
        record = Gated(candidate="c", bundle=bundle, verdict=verdict, checks=())
        return self.home.commit(record, key=f"gated/{number}")

    def spine(self, end: datetime) -> pl.DataFrame:
        """The rows asked in the day that ends at ``end``; their truth stays here."""
        random = np.random.default_rng([self.seed, (end - START).days])
        n = self.rows_a_day
        x = random.uniform(size=n)
        unit = [f"u{(end - START).days}-{i}" for i in range(n)]
        times = [end - DAY + timedelta(seconds=1) + DAY * i / n for i in range(n)]
        frame = pl.DataFrame(
            {
                "_id": [f"{u}@{t:%Y%m%dT%H%M%S}Z" for u, t in zip(unit, times, strict=True)],
                "_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                "unit": unit,
                "x": x,
                "z": random.uniform(size=n),
                "shop": [("a", "b")[i % 2] for i in range(n)],
            }
        )
        self.asked[end] = frame.with_columns(label=pl.Series(random.uniform(size=n) < x).cast(pl.Float64))
        return frame

    def seed_sources(self) -> None:
        """Gives the lake the source's table, as ingestion would."""
        rows = (
            self.spine(START + DAY)
            .drop("_id")
            .with_columns(_known=pl.col("_time"), _row=pl.col("unit"), asked_at=pl.col("_time"))
        )
        self.home.commit(
            CohortClosed(window=Window(START - DAY, START), revision=0, n=0, labelled=0, silent=0, mean=None, delay={}, rows=""),
            key="seed",
            tables=[self.home.lake.write("source.asks", rows, key="seed")],
        )

    def score(self, end: datetime) -> Any:
        """Scores the day that ends at ``end``; the clock is moved there."""
        self.clock.move(end)
        spine = self.spine(end)
        return deployment.score(
            self.home, self.system, Window(end - DAY, end), spine, features.compute(self.home, self.system, spine)
        )

    def close(self, end: datetime) -> None:
        """Closes the cohort of the day that ended at ``end``."""
        truth = self.asked[end].select(
            "_id",
            "_time",
            pl.lit(end, dtype=pl.Datetime("us", "UTC")).alias("_cohort"),
            pl.lit(0, dtype=pl.Int32).alias("_revision"),
            pl.col("label").alias("_label"),
            pl.lit(None, dtype=pl.String).alias("_class"),
            pl.col("_time").alias("_known"),
            pl.lit(None, dtype=pl.Float64).alias("_decided"),
        )
        key = f"cohort/{end.isoformat()}/0"
        record = CohortClosed(
            window=Window(end - DAY, end),
            revision=0,
            n=truth.height,
            labelled=truth.height,
            silent=0,
            mean=None,
            delay={},
            rows="",
        )
        commit = self.home.lake.write("outcomes", truth.select(list(OUTCOMES.columns)).sort("_time", "_id"), key=key)
        self.home.commit(record, key=key, tables=[commit])

    def day(self, end: datetime) -> Any:
        """One turn's share of this room: score, close, advance. Returns what moved."""
        self.score(end)
        self.close(end)
        return deployment.advance(self.home, self.system, end)
