"""From a declared candidate and settings to a fitted model: what ``train`` and the search over settings both call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.core import DataFault
from noria.development.frames import Floats, Rows
from noria.model import (
    Constant,
    Encoder,
    Model,
    Passthrough,
    Rule,
    check_parity,
    fit_design,
    fit_encoder,
    linear_from,
    masked,
    trees_from,
)
from noria.model.predictors import Link
from noria.system import Boosting, Candidate, Estimator, Last, Linear, Seasonal, System
from noria.system import Rule as DeclaredRule

PARITY_ROWS = 2000
SMOOTH = 1.0
EDGE = 1e-4
LINKS: dict[str, Link] = {"binary": "logit", "multiclass": "softmax", "regression": "identity"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "Linear": {"strength": 1.0},
    "Boosting": {
        "learning_rate": 0.1,
        "max_iter": 80,
        "max_leaf_nodes": 15,
        "min_samples_leaf": 100,
        "l2_regularization": 1.0,
        "max_features": 0.7,
    },
}


@dataclass(frozen=True)
class Task:
    """What all candidates of one training set share: the encoder and the training part's matrix, made once."""

    system: System
    train: Rows
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    encoder: Encoder
    matrix: Floats

    @property
    def quantile(self) -> float | None:
        """The quantile that the declaration asks for, if it does."""
        return measure.parse_policy(self.system.decide.policy).quantile

    def sample(self, places: NDArray[np.int64]) -> Task:
        """The same task on some of the training rows."""
        return Task(self.system, self.train.take(places), self.columns, self.classes, self.encoder, self.matrix[places])


def task_of(system: System, train: Rows, columns: tuple[str, ...], classes: tuple[str, ...]) -> Task:
    """Fits the encoder on the training part (rows with a label) and encodes it."""
    known = train.known()
    if known.n == 0:
        raise DataFault("no row of the training part has a label", hint="look at the label's expression and its source")
    encoder = fit_encoder(known.frame, columns)
    return Task(system, known, columns, classes, encoder, masked(encoder, encoder.encode(known.frame)))


def names(system: System) -> dict[str, Candidate]:
    """Every candidate by a name of its own: ``prior``, ``last_origin``, ``linear``, ``boosting``, ``linear_2``.

    >>> from noria.system import Last, Linear
    >>> class Some:
    ...     recipes = (Last(), Last(by="origin"), Linear(), Linear(trials=4))
    >>> list(names(Some()))
    ['last', 'last_origin', 'linear', 'linear_2']
    """
    found: dict[str, Candidate] = {}
    for recipe in system.recipes:
        base = recipe.name
        if isinstance(recipe, Last | Seasonal):
            base = "_".join([base, *_by(recipe)])
        name, copy = base, 2
        while name in found:
            name, copy = f"{base}_{copy}", copy + 1
        found[name] = recipe
    return found


def fit(task: Task, recipe: Candidate, settings: dict[str, Any], seed: int) -> Model:
    """A fitted model in its compiled form, without calibration. Deterministic: one thread, fixed seeds."""
    if isinstance(recipe, Last | Seasonal):
        return _history(task, recipe)
    if isinstance(recipe, DeclaredRule):
        return _rule(task, recipe)
    if len(np.unique(task.train.label)) > 1:
        if isinstance(recipe, Linear):
            return _linear(task, settings)
        if isinstance(recipe, Boosting):
            return _boosting(task, settings, seed)
        if isinstance(recipe, Estimator):
            return _estimator(task, recipe, seed)
    # the prior; and whatever else, when the training part has one label only: there is nothing to tell apart
    return Model(Encoder(()), Constant(prior(task)))


def prior(task: Task) -> tuple[float, ...]:
    """The base rate (one more of each, so that it is never 0 or 1), the class frequencies, or the middle that suits the metric."""
    label, weights = task.train.label, task.train.weights
    total = float(weights.sum())
    if task.system.task == "binary":
        return (float((label @ weights + SMOOTH / 2) / (total + SMOOTH)),)
    if task.system.task == "multiclass":
        counts = np.bincount(label.astype(int), weights, minlength=len(task.classes)) + SMOOTH / len(task.classes)
        return tuple((counts / counts.sum()).tolist())
    metric = task.system.objective.metric
    if metric == "mae":
        return (float(np.median(label)),)
    if metric == "pinball":
        return (float(np.quantile(label, task.quantile or 0.5)),)
    return (float(label @ weights / total),)


def _by(recipe: Last | Seasonal) -> tuple[str, ...]:
    return (recipe.by,) if isinstance(recipe.by, str) else tuple(recipe.by)


def _history(task: Task, recipe: Last | Seasonal) -> Model:
    """The baselines that read a column of earlier labels; ``Last`` becomes P(label | last label), so that it is a fair probability."""
    parts = ["_last"] if isinstance(recipe, Last) else ["_seasonal", recipe.period]
    column = "_".join([*parts, *_by(recipe)])
    if column not in task.train.frame.columns:
        raise DataFault(f"the training set has no column {column!r}", hint=f"it is what the baseline {recipe} reads")
    base = prior(task)
    if task.system.task == "regression":
        return Model(_numeric(task.train.frame, column), Passthrough(base[0]))
    if isinstance(recipe, Seasonal) and task.system.task == "binary":
        return Model(_numeric(task.train.frame, column), Passthrough(base[0], EDGE, 1 - EDGE))
    if task.system.task == "binary":
        encoder = _numeric(task.train.frame, column)
        return Model(encoder, Passthrough(base[0], table=_given(task, encoder, base, 3, shift=1)))
    encoder = fit_encoder(task.train.frame, [column], least=1)
    size = len(encoder.columns[0].categories) + 1
    return Model(encoder, Passthrough(base[0], table=_given(task, encoder, base, size, shift=0), coded=True))


def _numeric(frame: pl.DataFrame, column: str) -> Encoder:
    return fit_encoder(frame.select(pl.col(column).cast(pl.Float64)), [column])


def _given(task: Task, encoder: Encoder, base: tuple[float, ...], size: int, *, shift: int) -> tuple[tuple[float, ...], ...]:
    """Row v of the table: the distribution of the label where the last one was v, smoothed by one row of the prior."""
    last = encoder.encode(task.train.frame)[:, 0]
    place = np.where(np.isnan(last), 0, np.nan_to_num(last) + shift).astype(int).clip(0, size - 1)
    binary = task.system.task == "binary"
    middle = np.array([1 - base[0], base[0]]) if binary else np.array(base)
    counts = np.zeros((size, len(middle)))
    np.add.at(counts, (place, task.train.label.astype(int)), task.train.weights)
    made = (counts + SMOOTH * middle) / (counts.sum(axis=1, keepdims=True) + SMOOTH)
    return tuple((row[1],) if binary else tuple(row) for row in made.tolist())


def _rule(task: Task, recipe: DeclaredRule) -> Model:
    import sqlglot

    read = {column.name.lower() for column in sqlglot.parse_one(recipe.expression, read="duckdb").find_all(sqlglot.exp.Column)}
    used = [name for name in task.columns if name.lower() in read]
    low, high = (0.0, 1.0) if task.system.task == "binary" else (None, None)
    return Model(fit_encoder(task.train.frame, used), Rule(recipe.expression, prior(task)[0], low, high))


def _linear(task: Task, settings: dict[str, Any]) -> Model:
    from sklearn.linear_model import LogisticRegression, Ridge

    design = fit_design(task.encoder, task.matrix)
    wide = design.sparse(task.matrix)
    link = LINKS[task.system.task]
    strength = float(settings["strength"])
    weights = None if (task.train.weights == task.train.weights[0]).all() else task.train.weights
    if link == "identity":
        model = Ridge(alpha=1.0 / strength, solver="lsqr", tol=1e-8, max_iter=2000).fit(wide, task.train.label, weights)
    else:
        model = LogisticRegression(C=strength, max_iter=100).fit(wide, task.train.label, weights)
    coefficients, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if link == "softmax":
        coefficients, intercept = _every_class(model, coefficients, intercept)
    made = Model(task.encoder, linear_from(design, link, coefficients, intercept))
    places = slice(0, PARITY_ROWS)
    expected = model.predict(wide[places]) if link == "identity" else model.predict_proba(wide[places])
    _check(task, made, expected, model, what="the linear model", places=places)
    return made


def _every_class(model: Any, coefficients: Floats, intercept: Floats) -> tuple[Floats, Floats]:
    """Two classes come as one row of coefficients; a softmax has one a class."""
    if len(model.classes_) == 2:
        return np.vstack([np.zeros_like(coefficients), coefficients]), np.concatenate([np.zeros_like(intercept), intercept])
    return coefficients, intercept


def _boosting(task: Task, settings: dict[str, Any], seed: int) -> Model:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    link = LINKS[task.system.task]
    matrix = without_empty(task.matrix)
    common = {"categorical_features": list(task.encoder.texts), "early_stopping": False, "random_state": seed % 2**31, **settings}
    weights = None if (task.train.weights == task.train.weights[0]).all() else task.train.weights
    if link == "identity":
        model = HistGradientBoostingRegressor(**loss_of(task), **common)
    else:
        model = HistGradientBoostingClassifier(**common)
    model.fit(matrix, task.train.label if link == "identity" else task.train.label.astype(int), sample_weight=weights)
    made = Model(task.encoder, trees_from(model, link))
    places = slice(0, PARITY_ROWS)
    expected = model.predict(matrix[places]) if link == "identity" else model.predict_proba(matrix[places])
    _check(task, made, expected, model, what="the tree ensemble", places=places, tolerance=1e-12)
    return made


def without_empty(matrix: Floats) -> Floats:
    """Columns without a single number become 0: the library cannot bin nothing, and no tree can split on them either way."""
    empty = np.isnan(matrix).all(axis=0)
    return np.where(empty, 0.0, matrix) if empty.any() else matrix


def loss_of(task: Task) -> dict[str, Any]:
    metric = task.system.objective.metric
    if metric == "mae":
        return {"loss": "absolute_error"}
    if metric == "pinball":
        return {"loss": "quantile", "quantile": task.quantile or 0.5}
    return {"loss": "squared_error"}


def _estimator(task: Task, recipe: Estimator, seed: int) -> Model:
    from sklearn.base import clone
    from sklearn.utils.validation import has_fit_parameter

    from noria.model.foreign import foreign_from

    design = fit_design(task.encoder, task.matrix)
    wide = design.dense(task.matrix)
    model = clone(recipe.estimator)
    if "random_state" in model.get_params(deep=False):
        model.set_params(random_state=seed % 2**31)
    link = LINKS[task.system.task]
    weighted = has_fit_parameter(model, "sample_weight") and not (task.train.weights == task.train.weights[0]).all()
    weights = {"sample_weight": task.train.weights} if weighted else {}
    model.fit(wide, task.train.label if link == "identity" else task.train.label.astype(int), **weights)
    if link != "identity" and not hasattr(model, "predict_proba"):
        raise DataFault(
            f"{type(model).__name__} gives no probabilities",
            hint="wrap it in sklearn.calibration.CalibratedClassifierCV, or take another",
        )
    made = Model(task.encoder, foreign_from(model, design, link))
    places = slice(0, 200)
    expected = model.predict(wide[places]) if link == "identity" else model.predict_proba(wide[places])
    _check(task, made, expected, model, what=type(model).__name__, places=places)
    return made


def _check(task: Task, made: Model, expected: Any, model: Any, *, what: str, places: slice, tolerance: float = 1e-9) -> None:
    """The compiled form says what the trained model says, on real rows."""
    wanted = np.asarray(expected, dtype=np.float64)
    if task.system.task == "binary":
        wanted = wanted[:, list(model.classes_).index(1)]
    scale = max(1.0, float(np.abs(wanted).max(initial=1.0)))
    check_parity(wanted, made.predict_matrix(task.matrix[places]), tolerance * scale, what)
