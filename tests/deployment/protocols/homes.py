"""Homes with a release each: one whose rows have columns of every kind, and one of numbers with three classes and acts that are words.

The models are packed by hand, so what they say is known without training anything; the oracle is ``Home.expected``, which asks the bundle
itself for a whole frame and lets the policy act on it, without the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

import noria as nr
from noria import deployment
from noria.core import SimulatedClock, Window
from noria.measure import Decision, act
from noria.model import Column, Design, Encoder, Model, Spec, linear_from, load, pack
from noria.records import CohortClosed, SchemaFrozen
from noria.settings import Settings
from noria.store import Home as Store

NOW = datetime(2024, 6, 1, 6, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
SECONDS = 15
"""A machine that is busy with other things must not bring in the fallback."""

MIXED = {
    "carrier": "VARCHAR",
    "distance": "BIGINT",
    "delay": "DOUBLE",
    "sunny": "BOOLEAN",
    "planned": "TIMESTAMP WITH TIME ZONE",
    "note": "VARCHAR",
}
_KINDS = {"VARCHAR": pl.String(), "BIGINT": pl.Int64(), "DOUBLE": pl.Float64(), "BOOLEAN": pl.Boolean()}
POLARS = {name: _KINDS.get(kind, TIME) for name, kind in MIXED.items()}


def flights() -> nr.System:
    """Rows of a source, with columns of every kind; ``note`` may be left out. Where the model is unsure, people decide."""
    asked = nr.Source("flights", key="carrier", time="asked_at", owner="us")
    weather = nr.Source("weather", key="station", time="hour", owner="them")
    landed = nr.Source("landed", key="carrier", time="at", owner="us")
    return nr.System(
        name="late-flights",
        predict=asked,
        label=nr.Label(landed, "late", within="1h", otherwise=False),
        features=[
            asked.columns("carrier", "distance", "delay", "sunny"),
            asked.sql("epoch(planned)").named("begins"),
            weather.last("temp", by={"carrier": "station"}, max_age="1d"),
        ],
        objective=nr.Objective(
            "Whom to warn?", nr.Value("case when act and label then 1 when act then -1 else 0 end"), "log_loss"
        ),
        candidates=[nr.Prior(), nr.Linear()],
        serve=nr.Serve("partial", confidence=0.6, timeout=f"{SECONDS}s"),
    )


def demand() -> nr.System:
    """Rows that are asked by request alone, of numbers (and the time, which may be left out); three classes, three acts."""
    columns = {"a": "DOUBLE", "asked_at": "TIMESTAMPTZ", "b": "BIGINT", "c": "REAL"}
    sold = nr.Source("sold", key="b", time="at", owner="us")
    worth = "case when act = 'buy' and label = 'high' then 2 when act = 'sell' and label = 'low' then 2 when act = 'wait' then 0.9 else 0 end"
    return nr.System(
        name="demand",
        predict=nr.Request(columns, key="b"),
        label=nr.Label(sold, "level", within="1h", task="multiclass"),
        features=[nr.Source("asks", key="b", time="asked_at").columns("a", "b", "c")],
        objective=nr.Objective("What to do?", nr.Value(worth), "log_loss"),
        candidates=[nr.Prior(), nr.Linear()],
        decide=nr.Decide("largest expected value", acts=("wait", "buy", "sell")),
        serve=nr.Serve(timeout=f"{SECONDS}s"),
    )


@dataclass
class Home:
    """A store whose release answers, and what its bundle says without a service."""

    store: Store
    system: nr.System
    clock: SimulatedClock
    columns: dict[str, pl.DataType]
    bundle: Any = None
    sha256: str = ""
    classes: tuple[str, ...] = field(default=())

    def release(self, model: Model, decision: Decision, golden: pl.DataFrame) -> None:
        """Packs the model and promotes it."""
        task = self.system.task
        spec = Spec(
            system=self.system.name,
            candidate="by hand",
            recipe="linear",
            task=task,
            cost=1,
            classes=self.classes,
            decision=msgspec.to_builtins(decision),
        )
        data = pack(spec, model, golden)
        self.bundle, self.sha256 = load(data), self.store.artifacts.put(data)
        deployment.promote(self.store, self.system, self.sha256, by="ada")
        self.clock.move(self.clock.now() + timedelta(hours=1))

    def expected(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What each row has to be answered: by the bundle for the frame of all of them, and the policy on its scores."""
        kinds = {name: kind for name, kind in self.columns.items() if name in rows[0]}
        times = [name for name, kind in kinds.items() if kind == TIME]
        parsed = [{**row, **{name: datetime.fromisoformat(row[name]) for name in times if name in row}} for row in rows]
        frame = pl.DataFrame(parsed, schema=kinds)
        if "planned" in frame.columns:
            frame = frame.with_columns(begins=pl.col("planned").dt.timestamp() / 1e6)
        scores = self.bundle.predict(frame)
        decision = msgspec.convert(self.bundle.spec.decision, Decision)
        acts = act(self.store.engine, self.system, decision, scores, frame).tolist()
        sure = scores.max(axis=1) if scores.ndim == 2 else np.maximum(scores, 1 - scores)
        bound = self.system.serve.confidence
        key = self.system.predict.key
        moment = self.clock.now()
        return [
            {
                "id": f"{row[key]}@{moment:%Y%m%dT%H%M%S}Z",
                "score": float(np.max(score)),
                "scores": score.tolist() if scores.ndim == 2 else None,
                "act": None if certain < bound else self.system.decide.acts[int(chosen)],
                "release": self.sha256,
                "variant": "champion",
                "fallback": "",
                "review": bool(certain < bound),
            }
            for row, score, chosen, certain in zip(rows, scores, acts, sure, strict=True)
        ]


def open_flights(path: Path) -> Home:
    """The home with columns of every kind. The columns of ``weather`` are known, ``landed`` has had no row yet."""
    clock = SimulatedClock(NOW)
    store = Store.open(path, Settings(durable=False), clock)
    home = Home(store, flights(), clock, POLARS)
    with store.hold("test"):
        row = {"carrier": "UA", "distance": 1, "delay": 0.5, "sunny": True, "planned": NOW, "note": "x", "asked_at": NOW}
        frame = pl.DataFrame([row], schema=POLARS | {"asked_at": TIME})
        frame = frame.with_columns(_time=pl.col("asked_at"), _known=pl.col("asked_at"), _row=pl.col("carrier"))
        closed = CohortClosed(
            window=Window(NOW - timedelta(days=1), NOW), revision=0, n=0, labelled=0, silent=0, mean=None, delay={}, rows=""
        )
        store.commit(closed, key="seed", tables=[store.lake.write("source.flights", frame.drop("asked_at"), key="seed")])
        columns = {
            "station": "VARCHAR",
            "hour": "TIMESTAMP WITH TIME ZONE",
            "temp": "DOUBLE",
            "wet": "BOOLEAN",
            "gusts": "BIGINT",
        }
        store.commit(SchemaFrozen(source="weather", version=0, columns=columns), key="schema/weather/0")
        encoder = Encoder(
            (
                Column("carrier", "text", ("B6", "UA", "né", "日本"), ("",)),
                *(Column(name, "number") for name in ("distance", "delay", "sunny", "begins")),
            )
        )
        design = Design((1, 2, 3, 4), (300.0, 1.0, 0.5, NOW.timestamp()), (200.0, 1.0, 0.5, 180 * 86_400.0), (0,), (5,))
        weights = np.array([[-0.4, 1.5, -0.7, 0.3, 0, 0, 0, 0, 0.1, 0.9, -0.8, 0.5, -1.3]])
        home.release(
            Model(encoder, linear_from(design, "logit", weights, np.array([0.05]))),
            Decision("expected", 0.0),
            frame.with_columns(begins=pl.col("planned").dt.timestamp() / 1e6),
        )
    return home


def open_demand(path: Path) -> Home:
    """The home of numbers."""
    clock = SimulatedClock(NOW)
    store = Store.open(path, Settings(durable=False), clock)
    kinds: dict[str, pl.DataType] = {"a": pl.Float64(), "asked_at": TIME, "b": pl.Int64(), "c": pl.Float64()}
    home = Home(store, demand(), clock, kinds, classes=("low", "middle", "high"))
    with store.hold("test"):
        encoder = Encoder(tuple(Column(name, "number") for name in ("a", "b", "c")))
        design = Design((0, 1, 2), (0.5, 4.0, 1.0), (0.3, 2.0, 0.5), (), ())
        weights = np.array([[1.1, -0.7, 0.2, 0, 0, 0], [0.1, 0.3, -0.9, 0, 0, 0], [-0.6, 0.8, 0.4, 0, 0, 0]])
        home.release(
            Model(encoder, linear_from(design, "softmax", weights, np.array([0.1, -0.2, 0.3]))),
            Decision("largest", classes=home.classes),
            pl.DataFrame({"a": [0.1, 0.9], "b": [1, 5], "c": [0.5, 1.5]}),
        )
    return home


@dataclass(frozen=True)
class Served:
    """The real service on one of these homes: where it listens, its token, and what it has to answer."""

    running: Any
    home: Home

    @property
    def url(self) -> str:
        return str(self.running.url)

    @property
    def token(self) -> str:
        return str(self.running.token)

    @property
    def about(self) -> Any:
        return self.running.app.service.about()

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Asks as a client with the token would: GET, or POST when there is a body."""
        said = {name.replace("_", "-"): text for name, text in headers.items()}
        found = self.running("GET" if body is None else "POST", path, content=body, headers=said)
        return found.status_code, dict(found.headers), found.content


__all__ = ["MIXED", "NOW", "POLARS", "Home", "Served", "open_demand", "open_flights"]
