"""Small histories, made by committing records and tables directly: a system whose world is known, so that faults can be planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import noria as nr
from noria import measure, stats
from noria.core import Check, Estimate, SimulatedClock, Verdict, Window, digest
from noria.development.reference import loss_profile
from noria.model import Model, Spec, fit_design, fit_encoder, linear_from, pack
from noria.records import (
    CohortClosed,
    Entry,
    Evaluated,
    Gated,
    Part,
    Released,
    Scored,
    Trained,
    TrainingSet,
)
from noria.settings import Settings
from noria.store import Home

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def declaration(**changes: Any) -> nr.System:
    """A binary system with two sources, three features and a value that pays for being right."""
    asked = nr.Source("asked", None, key="id", time="at", owner="us")
    sensor = nr.Source("sensor", None, key="id", time="at", owner="them")
    done = nr.Source("done", None, key="id", time="at", owner="us")
    given: dict[str, Any] = {
        "name": "story",
        "predict": asked,
        "label": nr.Label(done, "bad", within="6h", otherwise=False, task="binary"),
        "features": [asked.columns("x", "kind"), sensor.last("y", by="id", max_age="4h").named("y")],
        "objective": nr.Objective(
            problem="tests",
            value=nr.Value("case when act and label then 4 when act then -1 else 0 end", "USD"),
            metric="log_loss",
            guardrails=[nr.AtLeast("precision", 0.2)],
        ),
        "candidates": [nr.Prior(), nr.Last(), nr.Linear()],
        "parts": nr.Parts(least="14d", validate="7d", test="14d", fresh="7d"),
    }
    return nr.System(**(given | changes))


@dataclass
class World:
    """What a day is drawn from. ``score`` maps the truth the model believes in to its score; callables take the day's frame."""

    rows: int = 120
    base: float = -1.3
    slope: float = 1.2
    believed_base: float = -1.3
    believed_slope: float = 1.2
    x_mean: float = 0.0
    y_missing: float = 0.0
    tied: float = 0.0
    weekend: float = 0.0
    sticky: float = 0.0
    noise: float = 0.3
    label_missing: float = 0.0
    delay_hours: float = 2.0
    kinds: tuple[str, ...] = ("a", "b", "c")
    refused: float = 0.0
    score: Callable[[np.ndarray], np.ndarray] | None = None
    threshold: float = 0.2
    act: float | None = None

    def but(self, **changes: Any) -> World:
        return replace(self, **changes)


def logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@dataclass
class Story:
    """A home that is told day by day; ``bundle`` answers once ``release`` has been called."""

    home: Home
    system: nr.System
    clock: SimulatedClock
    bundle: str = ""
    day: int = 0
    seed: int = 0
    numbers: int = 0
    last: float = 0.0
    kept: list[pl.DataFrame] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return START + self.day * DAY

    def tell(self, world: World, days: int = 1) -> None:
        """Days of traffic, each scored at its end and closed seven hours later. The rows of all are published with the first."""
        if not days:
            return
        first, frames = self.day, []
        for day in range(first, first + days):
            start = START + day * DAY
            n = int(world.rows * (1 - world.weekend)) if start.weekday() >= 5 else world.rows
            frames.append(self._rows(world, np.random.default_rng([self.seed, day]), start, n))
        whole = pl.concat(frames)
        self.clock.move(START + (first + 1) * DAY)
        written = [self.home.lake.write("predictions", whole.drop("_label", "_known"), key=f"score/{first}")]
        for day, frame in zip(range(first, first + days), frames, strict=True):
            window = Window(START + day * DAY, START + (day + 1) * DAY)
            self.clock.move(max(self.clock.now(), window.end))
            refused = frame.filter((pl.col("_release") != "") & pl.col("_score").is_null()).height
            scored = Scored(
                window=window, n=frame.height, rows="r", variants={"champion": frame.height}, acts={}, refused=refused
            )
            self.home.commit(scored, key=f"score/{window.end.isoformat()}", tables=written)
            if day == first:
                written = [self.home.lake.write("outcomes", _outcomes(whole, 0), key=f"cohort/{first}")]
            self._closed(frame, window, 0, world.delay_hours, written)
            written = []
        self.day += days
        self.clock.move(self.now + timedelta(hours=7))

    def close(self, frame: pl.DataFrame, window: Window, revision: int) -> None:
        """A revision of a day."""
        written = self.home.lake.write("outcomes", _outcomes(frame, revision), key=f"cohort/{window.end.isoformat()}/{revision}")
        self._closed(frame, window, revision, 2.0, [written])

    def _closed(self, frame: pl.DataFrame, window: Window, revision: int, delay_hours: float, tables: list[Any]) -> None:
        known = frame["_label"].drop_nulls()
        mean = known.mean()
        record = CohortClosed(
            window=window,
            revision=revision,
            n=frame.height,
            labelled=len(known),
            silent=0,
            mean=float(mean) if isinstance(mean, float) else None,
            delay={"p50": delay_hours, "p90": 1.5 * delay_hours, "p99": 2 * delay_hours},
            rows="r",
        )
        self.kept.append(frame)
        self.home.commit(record, key=f"cohort/{window.end.isoformat()}/{revision}", tables=tables)

    def _rows(self, world: World, random: np.random.Generator, start: datetime, n: int) -> pl.DataFrame:
        offsets = np.sort(random.integers(1, int(DAY.total_seconds()), n))
        times = [start + timedelta(seconds=int(s)) for s in offsets]
        weekday = world.weekend * 2 * (start.weekday() >= 5)
        x = random.normal(world.x_mean + weekday, 1, n)
        y = world.tied * (x - world.x_mean - weekday) + np.sqrt(1 - world.tied**2) * random.normal(0, 1, n)
        kind = random.choice(world.kinds, n)
        swing = random.normal(0, world.noise)
        truth = logistic(world.base + world.slope * x + swing)
        label = (random.random(n) < truth).astype(float)
        if world.sticky:
            for i in range(n):
                if random.random() < world.sticky:
                    label[i] = self.last
                self.last = label[i]
        believed = logistic(world.believed_base + world.believed_slope * x)
        score = believed if world.score is None else world.score(x)
        answered = bool(self.bundle)
        lost = random.random(n) < world.refused
        score = np.where(lost, np.nan, score)
        act = (np.nan_to_num(score) > world.threshold).astype(float) if world.act is None else np.full(n, world.act)
        hidden = random.random(n) < world.label_missing
        return pl.DataFrame(
            {
                "_id": [f"{start:%Y%m%d}-{i:04d}" for i in range(n)],
                "_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                "_unit": [f"u{i}" for i in range(n)],
                "_features": ["plan"] * n,
                "_score": pl.Series(score if answered else np.full(n, np.nan)).fill_nan(None),
                "_scores": pl.Series([None] * n, dtype=pl.List(pl.Float64)),
                "_act": pl.Series(act if answered else np.full(n, np.nan)).fill_nan(None),
                "_act_propensity": pl.Series(np.full(n, 1.0 if answered else np.nan)).fill_nan(None),
                "_variant": ["champion"] * n,
                "_variant_propensity": [1.0] * n,
                "_release": [self.bundle] * n,
                "_scored_at": pl.Series([start + DAY] * n, dtype=pl.Datetime("us", "UTC")),
                "x": x,
                "kind": kind,
                "y": pl.Series(np.where(random.random(n) < world.y_missing, np.nan, y)).fill_nan(None),
                "_label": pl.Series(np.where(hidden, np.nan, label)).fill_nan(None),
                "_known": pl.Series([t + timedelta(hours=world.delay_hours) for t in times], dtype=pl.Datetime("us", "UTC")),
            }
        )

    def frame(self) -> pl.DataFrame:
        """Everything told so far, with its labels."""
        return pl.concat(self.kept)

    def release(self, world: World, checks: tuple[Check, ...] = ()) -> Entry[Released]:
        """Packs a bundle whose reference is everything told so far, with the papers of a training and a gate, and releases it."""
        self.numbers += 1
        bundle = self._packed(world)
        gated = self.gate(bundle, Verdict.PASS, checks, world)
        self.bundle = bundle
        record = Released(number=self.numbers, bundle=bundle, previous=None, reason="promotion")
        return self.home.commit(record, key=f"released/{self.numbers}", parents=[gated.id])

    def _packed(self, world: World) -> str:
        seen = self.frame()
        profile = measure.profile(seen, ["x", "kind", "y"])
        score = pl.DataFrame({"score": logistic(world.believed_base + world.believed_slope * seen["x"].to_numpy())})
        loss = stats.row_loss("log_loss", seen["_label"].fill_null(float("nan")).to_numpy(), score["score"].to_numpy())
        spec = Spec(
            system=self.system.name,
            candidate=f"c{self.numbers}",
            recipe="linear",
            task="binary",
            reference=reference_of(profile, measure.profile(score, ["score"])) | {"loss": loss_profile(profile, seen, loss)},
        )
        model = linear(seen, world.believed_base + self.numbers / 1e9, world.believed_slope)
        return self.home.artifacts.put(pack(spec, model, seen))

    def gate(self, bundle: str, verdict: Verdict, checks: tuple[Check, ...], world: World | None = None) -> Entry[Gated]:
        """The papers of a training: training set, candidate, evaluation on the last 14 days told, and the gate's verdict."""
        name = f"c{self.numbers}-{self.day}"
        test = Window(self.now - 14 * DAY, self.now)
        parts = (
            Part("train", Window(START, test.start - 7 * DAY), 1, "r"),
            Part("validate", Window(test.start - 7 * DAY, test.start), 1, "r"),
            Part("test", test, 1, "r"),
            Part("fresh", Window(test.end, test.end), 0, "r"),
        )
        training = self.home.commit(
            TrainingSet(features="plan", columns=("x", "kind", "y"), parts=parts, gap="6h", dropped={}), key=f"training/{name}"
        )
        trained = self.home.commit(
            Trained(
                candidate=name,
                recipe="linear",
                baseline=False,
                cost=1,
                settings={},
                bundle=bundle,
                decision={},
                trained_until=self.now,
            ),
            key=f"trained/{name}",
            parents=[training.id],
        )
        evaluated = self.home.commit(
            self._evaluated(name, test, world or World()), key=f"evaluated/{name}/test", parents=[trained.id]
        )
        gated = Gated(candidate=name, bundle=bundle, verdict=verdict, checks=checks)
        return self.home.commit(gated, key=f"gated/{name}", parents=[evaluated.id])

    def _evaluated(self, name: str, test: Window, world: World) -> Evaluated:
        rows = self.frame().filter((pl.col("_time") > test.start) & (pl.col("_time") <= test.end)).drop_nulls("_label")
        score = logistic(world.believed_base + world.believed_slope * rows["x"].to_numpy())
        label = rows["_label"].to_numpy()
        blocks = measure.blocks_of(rows["_time"], "1d")
        loss = stats.row_loss("log_loss", label, score)
        assert loss is not None
        days = np.unique(blocks)
        daily = tuple(float(loss[blocks == b].mean()) for b in days)
        sizes = tuple(float((blocks == b).sum()) for b in days)
        metrics = {name: stats.estimate(name, label, score, blocks) for name in ("log_loss", "auc")}
        return Evaluated(
            candidate=name, part="test", n=len(label), blocks=len(daily), metrics=metrics, value=Estimate(None),
            calibration=stats.reliability(label, score), daily={"log_loss": daily, "block": tuple(float(b) for b in days), "n": sizes},
        )  # fmt: skip


def linear(frame: pl.DataFrame, base: float, slope: float) -> Model:
    """The model that says ``logistic(base + slope * x)``."""
    encoder = fit_encoder(frame, ["x", "kind", "y"])
    design = fit_design(encoder, encoder.encode(frame))
    weights = np.zeros((1, design.width))
    weights[0, 0] = slope * design.scale[0]
    return Model(encoder, linear_from(design, "logit", weights, np.array([base + slope * design.mean[0]])))


def _outcomes(frame: pl.DataFrame, revision: int) -> pl.DataFrame:
    """The rows of the table ``outcomes``."""
    return frame.select(
        "_id",
        "_time",
        (pl.col("_time") - timedelta(microseconds=1)).dt.truncate("1d").dt.offset_by("1d").alias("_cohort"),
        pl.lit(revision, pl.Int32).alias("_revision"),
        "_label",
        pl.lit(None, pl.String).alias("_class"),
        "_known",
    )


def reference_of(profile: measure.Profile, score: measure.Profile) -> dict[str, Any]:
    """A bundle's reference as development writes it."""
    import msgspec

    return {"profile": msgspec.to_builtins(profile), "score": msgspec.to_builtins(score)}


def begin(folder: Path, system: nr.System | None = None, seed: int = 0) -> Story:
    """An empty home, to be told; hold it with ``story.home.hold``."""
    clock = SimulatedClock(START)
    home = Home.open(folder / f"home-{digest([seed])[:6]}", Settings(durable=False), clock)
    return Story(home, system or declaration(), clock, seed=seed)
