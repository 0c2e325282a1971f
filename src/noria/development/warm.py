"""Stateful training: going on from the champion's model on what has closed since it was trained, instead of starting anew.

A bundle holds no estimator that could be trained further, so each recipe goes on in its own sound way. ``Linear`` is drawn towards the champion's
coefficients, by as much as they are worth: the penalty of each coefficient is the declared one plus the Fisher information that the new
rows have of it, so the champion counts for as many rows as are new, and what is old is forgotten by half with each training
(Spokoiny and Panov 2012 for the quadratic approximation; Kirkpatrick et al. 2017 for its use against forgetting). ``Boosting`` adds trees to the
champion's: each is a Newton step on the loss at the scores reached so far (Friedman, Hastie and Tibshirani 2000), or fits the residual, and all
trees are kept as one Treelite ensemble. Encoder and design stay the champion's: a category that came later stays in the unknown bucket
until a training that starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from noria.core import NoriaError
from noria.development.frames import Floats, Rows
from noria.development.recipes import LINKS, PARITY_ROWS, Task, loss_of, without_empty
from noria.model import Linear as LinearModel
from noria.model import Model, Spec, Trees, check_parity, linear_from, load, masked
from noria.model.calibration import sigmoid, softmax
from noria.records import Entry, Trained
from noria.store import Home
from noria.system import Boosting, Candidate, Linear

SUFFIX = "_warm"
LEAST_ROWS = 200
MOST_TREES = 2000
FLOOR = 1e-6
STEP = 4.0


@dataclass(frozen=True)
class Start:
    """The champion to go on from: its bundle, its papers and model, and until when it was trained."""

    bundle: str
    spec: Spec
    model: Model
    until: datetime

    @property
    def recipe(self) -> str:
        """The name of the recipe that made it, however it was trained."""
        return self.spec.recipe.removesuffix(SUFFIX)

    def newer(self, rows: Rows) -> Rows:
        """The rows that it has not been trained on."""
        return rows.take(rows.frame.select(pl.col("_time") > self.until).to_series().to_numpy())


def start_from(home: Home, champion: str | None) -> Start | None:
    """The champion as a start; ``None`` where there is none, or where it cannot be read."""
    if champion is None:
        return None
    made = next((entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == champion), None)
    if made is None:
        return None
    try:
        bundle = load(home.artifacts.get(champion), champion)
    except NoriaError:
        return None
    return Start(champion, bundle.spec, bundle.model, _until(made))


def _until(made: Entry[Trained]) -> datetime:
    return made.record.trained_until


def why_not(task: Task, name: str, recipe: Candidate, start: Start | None) -> str:
    """Why a recipe cannot go on from the champion; empty when it can."""
    if start is None:
        return "there is no champion"
    if start.recipe != name:
        return f"the champion is of another recipe, {start.recipe}"
    predictor = start.model.predictor
    fits = isinstance(recipe, Linear) and isinstance(predictor, LinearModel)
    fits = fits or (isinstance(recipe, Boosting) and isinstance(predictor, Trees))
    if not (fits and isinstance(predictor, LinearModel | Trees) and predictor.link == LINKS[task.system.task]):
        return "a model of this kind cannot go on"
    if set(start.model.encoder.names) != set(task.columns) or start.spec.classes != task.classes:
        return "its features or classes are not those of the champion"
    if isinstance(predictor, Trees) and predictor.link == "softmax":
        return "trees of several classes cannot go on"
    if isinstance(predictor, Trees) and predictor.trees >= MOST_TREES:
        return f"the champion has {predictor.trees} trees; from {MOST_TREES} on it is time to start anew"
    fresh = start.newer(task.train)
    if fresh.n < LEAST_ROWS or len(np.unique(fresh.label)) < 2:
        return f"{fresh.n} rows have closed since the champion was trained; {LEAST_ROWS} with labels that differ are needed"
    return ""


def go_on(task: Task, recipe: Candidate, settings: dict[str, Any], seed: int, start: Start) -> Model:
    """The champion's model after the rows it has not seen, without calibration; ``why_not`` has been asked."""
    fresh = start.newer(task.train)
    encoder = start.model.encoder
    matrix = masked(encoder, encoder.encode(fresh.frame))
    if isinstance(recipe, Linear):
        return Model(encoder, _linear(start.model.predictor, matrix, fresh, settings))
    return Model(encoder, _trees(task, start, matrix, fresh, settings, seed))


# --------------------------------------------------------------------------------------------------------------- linear


def coefficients_of(model: LinearModel) -> tuple[Floats, Floats]:
    """Coefficients (outputs, design.width) and intercepts, as ``linear_from`` took them.

    The inverse of ``linear_from``.
    """
    outputs = len(model.intercept)
    blocks = [np.array(model.number).reshape(-1, outputs).T, np.array(model.missing).reshape(-1, outputs).T]
    blocks += [np.array(table).reshape(-1, outputs).T for table in model.tables]
    return np.hstack(blocks), np.array(model.intercept)


def _linear(champion: Any, matrix: Floats, fresh: Rows, settings: dict[str, Any]) -> LinearModel:
    from scipy.optimize import minimize

    design, link = champion.design, champion.link
    wide = design.sparse(matrix)
    old, intercept = coefficients_of(champion)
    outputs, width = old.shape
    label = np.eye(outputs)[fresh.label.astype(int)] if link == "softmax" else fresh.label[:, None]
    weight = fresh.weights[:, None]

    def said(margin: Floats) -> Floats:
        if link == "softmax":
            return softmax(margin)
        return sigmoid(margin) if link == "logit" else margin

    at_start = said(wide @ old.T + intercept)
    curvature = weight * (np.ones_like(at_start) if link == "identity" else at_start * (1 - at_start))
    known = np.asarray(wide.multiply(wide).T @ curvature).T  # (outputs, width): the Fisher information of each coefficient
    precision = 1.0 / float(settings["strength"]) + known

    def loss(flat: Floats) -> tuple[float, Floats]:
        beta = flat.reshape(outputs, width + 1)
        moved = beta[:, :width] - old
        margin = wide @ beta[:, :width].T + beta[:, width]
        if link == "softmax":
            top = margin.max(axis=1, keepdims=True)
            rows = top + np.log(np.exp(margin - top).sum(axis=1, keepdims=True)) - (label * margin).sum(axis=1, keepdims=True)
        elif link == "logit":
            rows = np.logaddexp(0.0, margin) - label * margin
        else:
            rows = (margin - label) ** 2 / 2
        error = weight * (said(margin) - label)
        slope = np.column_stack([np.asarray(wide.T @ error).T + precision * moved, error.sum(axis=0)])
        return float((weight * rows).sum() + (precision * moved**2).sum() / 2), slope.ravel()

    begun = np.column_stack([old, intercept]).ravel()
    found = minimize(loss, begun, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8}).x
    beta = found.reshape(outputs, width + 1)
    return linear_from(design, link, beta[:, :width], beta[:, width])


# ---------------------------------------------------------------------------------------------------------------- trees


def _trees(  # noqa: PLR0917
    task: Task, start: Start, matrix: Floats, fresh: Rows, settings: dict[str, Any], seed: int
) -> Trees:
    """The champion's trees and half as many as the settings say, fitted at the champion's own scores."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    champion = start.model.predictor
    assert isinstance(champion, Trees)
    count = max(1, int(settings["max_iter"]) // 2)
    shared = {"categorical_features": list(start.model.encoder.texts), "early_stopping": False}
    shared |= {name: value for name, value in settings.items() if name not in ("max_iter", "learning_rate")}
    filled = without_empty(matrix)
    margin = champion.predict_margin(matrix)[:, 0]
    if champion.link == "identity":
        rate = {"max_iter": count, "learning_rate": settings["learning_rate"], "random_state": seed % 2**31}
        more = HistGradientBoostingRegressor(**loss_of(task), **shared, **rate)
        more.fit(filled, fresh.label - margin, sample_weight=fresh.weights)
        return _checked(champion.with_more([more], 1.0), matrix, margin + more.predict(filled))
    made = []
    for k in range(count):
        said = sigmoid(margin)
        curvature = np.maximum(said * (1 - said), FLOOR)
        target = np.clip((fresh.label - said) / curvature, -STEP, STEP)
        step = HistGradientBoostingRegressor(max_iter=1, learning_rate=1.0, random_state=(seed + k) % 2**31, **shared)
        step.fit(filled, target, sample_weight=fresh.weights * curvature)
        margin = margin + settings["learning_rate"] * step.predict(filled)
        made.append(step)
    return _checked(champion.with_more(made, settings["learning_rate"]), matrix, margin)


def _checked(made: Trees, matrix: Floats, margin: Floats) -> Trees:
    """The ensemble as kept says what the steps said, on real rows."""
    places = slice(0, PARITY_ROWS)
    scale = max(1.0, float(np.abs(margin).max(initial=1.0)))
    check_parity(margin[places], made.predict_margin(matrix[places])[:, 0], 1e-9 * scale, "the trees that were added")
    return made
