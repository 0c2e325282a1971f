"""What a model's age costs, and how often it pays to train: the value of freshness, measured on history.

Models of one recipe are trained at evenly spaced times, each on a stretch of the same length before it, so that only their age differs. Every
later row is answered by all of them that could have been there (a label's time to become known apart), and on each row an older model is
compared with the freshest: pairs on the same rows, with intervals over blocks of time. The interval between trainings is then a matter of
money: often enough that what a model loses while it ages, and rarely enough that the trainings, cost least together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Estimate, Verdict, duration
from noria.development.calibrate import repair
from noria.development.frames import Floats, Rows, kept, rows_of, seed_of, spaced
from noria.development.recipes import fit, names, task_of
from noria.development.tuning import defaults
from noria.development.warm import SUFFIX
from noria.development.workers import run
from noria.model import Model
from noria.store import Home
from noria.system import System

MOST_MODELS = 24
MOST_ROWS = 200_000
LEAST_ROWS = 300
CHOOSE = 0.2
ADDITIVE = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}


class Age(msgspec.Struct, frozen=True):
    """Models between ``start`` and ``end`` days old: how much more they lose than the freshest on the same rows (positive: worse).

    ``loss`` is in the metric's units, ``value`` the value lost per prediction; ``rows`` how many rows were compared.
    """

    start: float
    end: float
    loss: Estimate
    value: Estimate
    rows: int


class Freshness(msgspec.Struct, frozen=True):
    """How a recipe ages. ``step`` and ``train`` are days; ``per_day`` is predictions a day; ``ages`` begins with the freshest (0 by definition)."""

    recipe: str
    metric: str
    train: float
    step: float
    models: int
    per_day: float
    ages: tuple[Age, ...]


class Interval(msgspec.Struct, frozen=True):
    """Days between two trainings that cost least, with the range that the intervals of the ages allow.

    PASS: older models are shown to cost money (two neighbouring ages beyond chance). NOT_ENOUGH_DATA: they are not, and ``days`` is a guess.
    ``open_ended``: the longest measured is still the best. ``costs`` are a day's costs (trainings and value lost) by days between trainings.
    """

    days: float
    low: float
    high: float
    open_ended: bool
    costs: dict[str, float]
    verdict: Verdict


@dataclass(frozen=True)
class _Ask:
    """What all models of one measurement share."""

    home: Home
    system: System
    rows: Rows
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    recipe: str
    settings: dict[str, Any]


def freshness(
    home: Home,
    system: System,
    frame: pl.DataFrame,
    columns: tuple[str, ...],
    *,
    recipe: str,
    settings: Mapping[str, Any] | None = None,
    train: timedelta,
    step: timedelta,
) -> Freshness | None:
    """Measures how a recipe ages on ``frame`` (``data.labelled``); ``None`` when history is too short for two models.

    Parameters
    ----------
    recipe, settings:
        The name of a candidate and its settings (default: those of a recipe that was never searched).
    train, step:
        The stretch that every model is trained on, and the time between two of them (made longer when there would be more than 24 models).
    """
    if frame.is_empty():
        return None
    times = frame.get_column("_time")
    begun, end = times.min(), times.max()
    assert isinstance(begun, datetime)
    assert isinstance(end, datetime)
    spare = (end - begun - train) / step
    if spare < 2:
        return None
    step *= max(1, int(np.ceil(spare / MOST_MODELS)))
    cuts = [end - step * k for k in range(1, int((end - begun - train) / step) + 1)][::-1]
    name = recipe.removesuffix(SUFFIX)
    classes = tuple(sorted(frame["_class"].drop_nulls().unique().to_list())) if system.task == "multiclass" else ()
    thin = frame[spaced(frame.height, MOST_ROWS)]
    rows = rows_of(system, {"all": thin}, "all", classes).known()
    chosen = dict(settings) if settings else defaults(names(system)[name])
    ask = _Ask(home, system, rows, columns, classes, name, chosen)
    stamps = rows.frame.get_column("_time").cast(pl.Datetime("us", "UTC"))
    made = run([partial(_answers, ask, stamps, cut, train) for cut in cuts], home.settings.threads)
    answers = [one for one in made if one is not None]
    if len(answers) < 2:
        return None
    days = (end - begun) / timedelta(days=1)
    ages = _ages(ask, np.array([a.loss for a in answers]), np.array([a.value for a in answers]), step)
    return Freshness(name, _metric(system), _days(train), _days(step), len(answers), frame.height / days, ages)


@dataclass(frozen=True)
class _Answers:
    """One model's loss and value on every row; NaN where it could not have been there yet."""

    loss: Floats
    value: Floats


def _answers(ask: _Ask, stamps: pl.Series, cut: datetime, train: timedelta) -> _Answers | None:
    system, rows, label = ask.system, ask.rows, ask.system.label
    inside = ((stamps > cut - train) & (stamps <= cut)).to_numpy()
    later = (stamps > cut + duration(label.within) + duration(label.horizon) + duration(label.lateness)).to_numpy()
    places = np.flatnonzero(inside)
    if len(places) < LEAST_ROWS or not later.any():
        return None
    split = int(len(places) * (1 - CHOOSE))
    old, new = rows.take(places[:split]), rows.take(places[split:])
    if len(np.unique(old.label)) < 2:
        return None
    task = task_of(system, old, ask.columns, ask.classes)
    made = fit(task, names(system)[ask.recipe], ask.settings, seed_of("freshness", cut.isoformat()))
    raw = made.predict(new.frame)
    model = Model(made.encoder, made.predictor, repair(system, new, raw))
    score = model.calibration.apply(raw)
    decision = measure.choose(ask.home.engine, system, score, new.said, new.frame, classes=ask.classes, weights=new.weights)
    asked = rows.take(later)
    said = model.predict(asked.frame)
    act = measure.act(ask.home.engine, system, decision, said, asked.frame)
    worth = measure.value(ask.home.engine, system, asked.frame, act, asked.said, said)
    quantile = measure.parse_policy(system.decide.policy).quantile
    found = stats.row_loss(_metric(system), asked.label, said, quantile=quantile)
    assert found is not None
    loss, value = np.full(rows.n, np.nan), np.full(rows.n, np.nan)
    loss[later], value[later] = found, worth
    return _Answers(loss, value)


def _metric(system: System) -> str:
    """The objective's metric where it is a mean over rows, else the usual loss of the task."""
    metric = system.objective.metric
    return metric if stats.METRICS[metric].row_losses is not None else ADDITIVE[system.task]


def _ages(ask: _Ask, loss: Floats, value: Floats, step: timedelta) -> tuple[Age, ...]:
    """By age in steps: the differences from the freshest model that each row has."""
    system, rows = ask.system, ask.rows
    there = np.isfinite(loss)
    freshest = there.shape[0] - 1 - np.argmax(there[::-1], axis=0)  # the newest model that could answer
    known = there.any(axis=0)
    places = np.arange(rows.n)
    made = []
    for age in range(there.shape[0]):
        model = freshest - age
        keep = known & (model >= 0)
        keep &= there[np.maximum(model, 0), places]
        if not keep.any():
            break
        at, mine, best = places[keep], model[keep], freshest[keep]
        how = {"confidence": system.gate.confidence, "least": system.gate.blocks, "weights": rows.weights[at]}
        worse = stats.block_mean(loss[mine, at] - loss[best, at], rows.blocks[at], **how)
        lost = stats.block_mean(value[best, at] - value[mine, at], rows.blocks[at], **how)
        made.append(Age(_days(step * age), _days(step * (age + 1)), kept(worse), kept(lost), len(at)))
    return tuple(made)


def _days(span: timedelta) -> float:
    return round(span / timedelta(days=1), 6)


def best_interval(found: Freshness, training: float, *, lag: timedelta = timedelta(0)) -> Interval | None:
    """How often to train at ``training`` (the cost of one); ``None`` when no age has an interval, or nothing costs anything.

    ``lag`` is how old a model already is when it goes live. The value lost is taken to rise with age (isotonic regression, weighted by rows),
    since a fall is chance.
    """
    ages = [age for age in found.ages if age.value.known and age.rows >= found.ages[0].rows // 4]
    if len(ages) < 2 or training <= 0:
        return None
    skip = min(round(_days(lag) / found.step), len(ages) - 2)
    curves = [_rising(ages, [_end_of(age.value, end) for age in ages])[skip:] for end in ("value", "low", "high")]
    middle, low, high = (_costs(curve, found, training) for curve in curves)
    days = [found.step * (k + 1) for k in range(len(middle))]
    shown = [a.value.above(0.0) and b.value.above(0.0) for a, b in itertools.pairwise(ages[1:])]
    best = [int(np.argmin(costs)) for costs in (middle, high, low)]
    return Interval(
        days=days[best[0]],
        low=days[min(best)],
        high=days[max(best)],
        open_ended=best[0] == len(days) - 1,
        costs={f"{day:g}": float(f"{cost:.12g}") for day, cost in zip(days, middle, strict=True)},
        verdict=Verdict.PASS if any(shown) else Verdict.NOT_ENOUGH_DATA,
    )


def _end_of(made: Estimate, end: str) -> float:
    return float(getattr(made, end) or 0.0)


def _rising(ages: Sequence[Age], values: Sequence[float]) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    at, weights = np.arange(len(ages), dtype=float), np.array([age.rows for age in ages], dtype=float)
    return np.asarray(IsotonicRegression(y_min=0.0).fit_transform(at, np.array(values), sample_weight=weights), dtype=float)


def _costs(curve: Floats, found: Freshness, training: float) -> Floats:
    """A day's costs with a training every 1, 2, … steps."""
    steps = np.arange(1, len(curve) + 1)
    return training / (found.step * steps) + found.per_day * np.cumsum(curve) / steps
