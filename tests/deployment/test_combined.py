"""A bundle of several objectives behind the service: it goes the long way, and says what the batch said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from noria import deployment
from noria.measure import Decision
from noria.model import Blend, Calibration, Column, Encoder, Model, Passthrough, Spec, pack

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def combined(w: Any, weight: float) -> str:
    """The score of ``x``, and beside it an outcome that is ``x`` cut at a half."""
    blend = Blend(Passthrough(0.5, 0.0, 1.0), Calibration(), {"liked": Passthrough(0.0, 0.5, 2.0)}, {"liked": weight})
    decision = msgspec.to_builtins(Decision("threshold", 0.6))
    spec = Spec(system=w.system.name, candidate="blend", recipe="linear", task="binary", decision=decision)
    golden = pl.DataFrame({"x": [0.1, 0.25, 0.9]})
    return str(w.home.artifacts.put(pack(spec, Model(Encoder((Column("x", "number"),)), blend), golden)))


def test_the_service_says_what_the_batch_said(running: Any, world: Callable[..., Any]) -> None:
    w = world()
    w.score(START + DAY * 2)
    seen = {}
    for day, weight in ((3, 0.0), (4, 3.0)):
        deployment.promote(w.home, w.system, combined(w, weight), by="ada")
        end = START + DAY * day
        w.score(end)
        batch = w.home.lake.read("predictions", _time=(end - DAY, end))
        seen[weight] = batch.select("x", "_score", "_act")
        ask = running(w)
        for row in batch.head(10).iter_rows(named=True):
            said = ask.predict({name: row[name] for name in ("unit", "x", "z", "shop")}, asked_at=row["_time"].isoformat()).json()
            assert said["release"] == row["_release"]
            assert (said["score"], float(said["act"])) == (row["_score"], row["_act"])
        ask.stop()
    assert seen[0.0]["_score"].to_list() == seen[0.0]["x"].to_list()  # no weight: the label's own score
    assert seen[3.0]["_act"].mean() > seen[0.0]["_act"].mean()  # type: ignore[operator]  # numbers
