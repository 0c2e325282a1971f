"""Homes for our side: a champion that is the same model as the peers', put in force by hand, without a replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import noria_request
import noria_windows
import numpy as np
import polars as pl
from models import ASKED, Kind, Trained, estimator_of
from numpy.typing import NDArray

from noria import data, deployment, features
from noria.core import SystemClock
from noria.measure import Decision
from noria.model import Encoder, Model, Spec, fit_design, fit_encoder, linear_from, load, pack, trees_from
from noria.settings import Settings
from noria.store import Home
from noria.system import System

CUSTOMERS = 1000
EVENTS = 200
SPAN = timedelta(days=30)


def bundle_of(system: System, kind: Kind, estimator: Any, frame: pl.DataFrame) -> bytes:
    """A fitted estimator as a bundle. Of the logistic one, the weights are rewritten for standardised columns: the scores are the same."""
    encoder = fit_encoder(frame, frame.columns)
    decision = msgspec.to_builtins(Decision("expected", 0.0))
    spec = Spec(system=system.name, candidate=kind, recipe=kind, task="binary", decision=decision)
    return pack(spec, _model(encoder, kind, estimator, frame), frame)


def _model(encoder: Encoder, kind: Kind, estimator: Any, frame: pl.DataFrame) -> Model:
    if kind == "boosting":
        return Model(encoder, trees_from(estimator, "logit"))
    design = fit_design(encoder, encoder.encode(frame))
    weights = estimator.coef_[0]
    scaled = np.concatenate([weights * np.array(design.scale), np.zeros(len(weights))])
    intercept = estimator.intercept_ + weights @ np.array(design.mean)
    return Model(encoder, linear_from(design, "logit", scaled[None, :], intercept))


def request_home(path: Path, trained: Trained) -> None:
    """A home of ``noria_request.py`` whose champion is the trained model."""
    frame = pl.DataFrame(trained.seen, schema=noria_request.COLUMNS)
    with Home.open(path, Settings(), SystemClock()) as home, home.hold("benchmark"):
        bundle = bundle_of(noria_request.system, trained.kind, trained.estimator, frame)
        deployment.promote(home, noria_request.system, home.artifacts.put(bundle), by="benchmark")


def windows_home(path: Path) -> tuple[list[str], datetime, NDArray[np.float64]]:
    """A home of ``noria_windows.py`` with a month of events, and a boosting model as champion.

    Returns customers to ask for, a time to ask as of, and the scores that batch features and the model give for it.
    """
    clock = SystemClock()
    events = path.parent / f"{path.name}-events.parquet"
    _events(clock.now()).write_parquet(events)
    system = noria_windows.system_of(str(events))
    with Home.open(path, Settings(), clock) as home, home.hold("benchmark"):
        data.ingest(home, system, clock.now())
        frame = features.compute(home, system, _spine(clock.now())).drop("_id")
        label = np.random.default_rng(1).uniform(size=frame.height) < 0.3 + 0.4 * (frame[frame.columns[1]].to_numpy() > 500)
        bundle = bundle_of(system, "boosting", estimator_of("boosting").fit(frame.to_numpy(), label), frame)
        deployment.promote(home, system, home.artifacts.put(bundle), by="benchmark")
        now = clock.now()  # a release answers what is asked after it
        asked = _spine(now).head(ASKED)
        expected = load(bundle).predict(features.compute(home, system, asked))
    return asked["customer"].to_list(), now, expected


def _spine(now: datetime) -> pl.DataFrame:
    """Every customer, asked at one time."""
    spine = pl.DataFrame({"customer": [f"c{number}" for number in range(CUSTOMERS)]})
    return spine.with_columns(pl.lit(now, dtype=pl.Datetime("us", "UTC")).alias("_time"), pl.col("customer").alias("_id"))


def _events(now: datetime) -> pl.DataFrame:
    random = np.random.default_rng(0)
    n = CUSTOMERS * EVENTS
    ages = random.uniform(1.0, SPAN.total_seconds(), n)
    return pl.DataFrame(
        {
            "event": [f"e{number}" for number in range(n)],
            "customer": [f"c{number}" for number in random.integers(0, CUSTOMERS, n)],
            "at": pl.Series([now.astimezone(UTC) - timedelta(seconds=age) for age in ages], dtype=pl.Datetime("us", "UTC")),
            "amount": np.round(random.gamma(2.0, 50.0, n), 2),
        }
    )
