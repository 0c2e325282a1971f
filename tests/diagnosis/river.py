"""Systems whose sources lie in the lake, made by committing what ingest, scoring and closing would have: so that faults of data can be planted.

Orders are asked; stations measure every hour; results say later what became of an order. Everything up to the day ``onset`` is ordinary; a fault
is a function that changes a source's rows of one day from then on, or what was logged of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import noria as nr
from noria import features
from noria.core import Estimate, SimulatedClock, Verdict, Window
from noria.data.summary import summarised
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes import CAUSES
from noria.diagnosis.tested import Tested
from noria.records import Alerted, CohortClosed, Ingested, Scored
from noria.settings import Settings
from noria.store import Home
from noria.tables import PREDICTIONS

START = datetime(2021, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ZONED = pl.Datetime("us", "UTC")
STATIONS = ("north", "south", "west")
CARRIERS = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
KINDS = {
    "orders": {
        "order": "VARCHAR",
        "at": "TIMESTAMP WITH TIME ZONE",
        "station": "VARCHAR",
        "carrier": "VARCHAR",
        "size": "DOUBLE",
    },
    "weather": {"station": "VARCHAR", "hour": "TIMESTAMP WITH TIME ZONE", "temp": "DOUBLE", "wind": "DOUBLE"},
    "results": {"order": "VARCHAR", "at": "TIMESTAMP WITH TIME ZONE", "delay": "DOUBLE"},
}
Change = Callable[[pl.DataFrame, int, np.random.Generator], pl.DataFrame]


def declaration() -> nr.System:
    orders = nr.Source("orders", None, key="order", time="at", owner="sales")
    weather = nr.Source("weather", None, key="station", time="hour", known="1h", owner="met office")
    results = nr.Source("results", None, key="order", time="at", owner="depots")
    return nr.System(
        name="river",
        predict=orders,
        label=nr.Label(results, "delay >= 30", within="6h", task="binary"),
        features=[
            orders.columns("carrier", "size"),
            weather.last("temp", "wind", by="station", max_age="4h").named("temp", "wind"),
            weather.window("12h", every="1h", by="station").count().named("seen"),
        ],
        objective=nr.Objective(problem="tests", value=nr.Value("case when act and label then 4 when act then -1 else 0 end", "USD"), metric="log_loss"),
        candidates=[nr.Prior(), nr.Linear()],
    )  # fmt: skip


@lru_cache(maxsize=256)
def _ordinary(seed: int, day: int, n: int) -> dict[str, pl.DataFrame]:
    random = np.random.default_rng([seed, day])
    start = START + day * DAY
    hours = np.arange(24)
    weights = 0.2 + np.exp(-(((hours - 15) / 4) ** 2))
    hour = random.choice(hours, n, p=weights / weights.sum())
    seconds = np.sort(hour * 3600 + random.integers(1, 3600, n))
    at = pl.Series([start + timedelta(seconds=int(s)) for s in seconds], dtype=ZONED)
    order = [f"o{day:03d}{i:04d}" for i in range(n)]
    carrier = random.choice(list(CARRIERS), n, p=list(CARRIERS.values()))
    orders = pl.DataFrame({"order": order, "at": at, "station": random.choice(STATIONS, n), "carrier": carrier, "size": random.gamma(2.0, 1.0, n)})  # fmt: skip
    drift = 8 * np.sin(day / 58)
    weather = pl.concat(
        pl.DataFrame(
            {
                "station": [name] * 24,
                "hour": pl.Series([start + int(h) * HOUR for h in hours], dtype=ZONED),
                "temp": 60 + drift + 9 * np.sin((hours - 9) / 24 * 2 * np.pi) + random.normal(0, 3) + random.normal(0, 1, 24),
                "wind": random.gamma(4.0, 2.5, 24),
            }
        )
        for name in STATIONS
    )
    delay = random.normal(20, 12, n) + 6 * orders["size"].to_numpy()
    after = random.uniform(0.5, 3.5, n)
    results = pl.DataFrame({"order": order, "at": pl.Series([t + timedelta(hours=float(h)) for t, h in zip(at, after, strict=True)], dtype=ZONED), "delay": delay})  # fmt: skip
    return {"orders": orders, "weather": weather, "results": results}


@dataclass
class River:
    """A home, and what flows into it: ``flow`` makes the days, each source changed by ``faults`` from ``onset`` on."""

    home: Home
    system: nr.System
    clock: SimulatedClock
    days: int = 50
    onset: int = 44
    a_day: int = 120
    faults: dict[str, Change] = field(default_factory=dict)
    served: Change | None = None
    ingested: dict[str, Callable[[int, pl.DataFrame], dict[str, Any]]] = field(default_factory=dict)
    plan: str = ""
    seed: int = 0

    @property
    def now(self) -> datetime:
        return START + self.days * DAY

    def rows(self, day: int) -> dict[str, pl.DataFrame]:
        """What each source brings of a day, before any fault."""
        return _ordinary(self.seed, day, self.a_day)

    def flow(self) -> River:
        """Everything as it would lie there at ``now``."""
        whole: dict[str, list[pl.DataFrame]] = {}
        for day in range(self.days):
            for name, frame in self.rows(day).items():
                random = np.random.default_rng([9, self.seed, day])
                fault = self.faults.get(name)
                whole.setdefault(name, []).append(fault(frame, day, random) if fault is not None and day >= self.onset else frame)
        kept = {name: self._took(name, pl.concat(frames, how="diagonal_relaxed")) for name, frames in whole.items()}
        self.clock.move(START + DAY)
        for name, (_, commit, records) in kept.items():
            first = next(iter(records))
            self.home.commit(records.pop(first), key=f"ingest/{name}/{first.isoformat()}", tables=[commit])
        frame, commit = self._predicted(kept["orders"][0])
        for day in range(self.days):
            window = Window(START + day * DAY, START + (day + 1) * DAY)
            self.clock.move(max(self.clock.now(), window.end))
            items: list[Any] = [
                (some[window.end], f"ingest/{name}/{window.end.isoformat()}", [])
                for name, (_, _, some) in kept.items()
                if window.end in some
            ]
            n = frame.filter((pl.col("_time") > window.start) & (pl.col("_time") <= window.end)).height
            items.append((Scored(window=window, n=n, rows="r", variants={}, acts={}), f"score/{window.end.isoformat()}", []))
            if day < self.days - 1:
                closing = CohortClosed(
                    window=window, revision=0, n=n, labelled=n, silent=0, mean=0.4, delay={"p50": 2.0, "p90": 3.0}, rows="r"
                )
                items.append((closing, f"cohort/{window.end.isoformat()}/0", []))
            self.home.commit_all(items, tables=[commit] if day == 0 else [])
        return self

    def _took(self, name: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, Any, dict[datetime, Ingested]]:
        source = self.system.sources[name]
        known = pl.col(source.time) + (HOUR if source.known else timedelta(0))
        if "_known" not in frame.columns:
            frame = frame.with_columns(known.alias("_known"))
        frame = frame.with_columns(
            pl.col("_known").fill_null(known),
            _time=pl.col(source.time),
            _row=pl.Series([f"{i:07d}" for i in range(frame.height)]),
        )
        frame = frame.filter(pl.col("_known") <= self.now).sort("_known", "_time", "_row")
        self.clock.move(max(self.clock.now(), START))
        commit = self.home.lake.write(f"source.{name}", frame, key=f"all/{name}")
        records = {}
        for day in range(self.days):
            end = START + (day + 1) * DAY
            rows = frame.filter((pl.col("_known") > end - DAY) & (pl.col("_known") <= end))
            given: dict[str, Any] = {"received": rows.height, "accepted": rows.height, "quarantined": 0, "reasons": {}}
            given |= self.ingested[name](day, rows) if name in self.ingested else {}
            if given["received"]:
                records[end] = Ingested(source=name, upto=end, files=(), rows="r", days=summarised(rows, KINDS[name]), **given)
        return frame, commit, records

    def _predicted(self, orders: pl.DataFrame) -> tuple[pl.DataFrame, Any]:
        ids = pl.col("order") + "@" + pl.col("_time").dt.strftime("%Y%m%dT%H%M%SZ")
        spine = orders.unique("order", keep="first", maintain_order=True).with_columns(ids.alias("_id")).sort("_time", "_id")
        made = features.compute(self.home, self.system, spine.drop("_known", "_row"))
        frame = pl.concat([spine.select("_id", "_time", "order", "station"), made.drop("_id")], how="horizontal")
        if self.served is not None:
            day = (pl.col("_time") - START).dt.total_days()
            changed = self.served(frame.filter(day >= self.onset), self.onset, np.random.default_rng(3))
            frame = pl.concat([frame.filter(day < self.onset), changed], how="vertical_relaxed")
        fixed = {
            "_features": self.plan or features.plan(self.system).id,
            "_release": "",
            "_variant": "champion",
            "_scored_at": self.now,
        }
        lacking = [pl.lit(fixed.get(c)).cast(kind).alias(c) for c, kind in PREDICTIONS.columns.items() if c not in frame.columns]
        return frame, self.home.lake.write("predictions", frame.with_columns(lacking).sort("_time", "_id"), key="predictions")

    def case(self, *, name: str = "decay") -> Case:
        """A case with an alert of harm since the onset."""
        since = START + self.onset * DAY
        record = Alerted(
            alert="alert/planted", name=name, subject="planted", state="open", since=since, harm=True, size=Estimate(-0.1, -0.2, -0.05, 9),
            bound=0.0, message="the release does worse", level="outcome",
        )  # fmt: skip
        entry = self.home.commit(record, key="alert/planted/open")
        return Case(self.home, self.system, self.now, (entry,))


def look(case: Case, name: str) -> Tested:
    """What the tests of the cause of that name say."""
    return next(made for cause in CAUSES for made in [streams.tested(case, cause)] if made.name == name)


def found(case: Case) -> dict[str, float]:
    """Every cause that was found, with its strength."""
    made = [streams.tested(case, cause) for cause in CAUSES]
    return {one.name: one.strength for one in made if one.verdict is Verdict.FAIL}


def begin(folder: Path, **changes: Any) -> River:
    clock = SimulatedClock(START)
    home = Home.open(folder, Settings(durable=False), clock)
    return River(home, changes.pop("system", None) or declaration(), clock, **changes)
