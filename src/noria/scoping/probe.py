"""Quick models that say whether there is anything to learn. They are never released."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.system import Task

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TOP_VALUES = 30
MOST_CLASSES = 20
OTHER = "(other)"


@dataclass
class Study:
    """Closed rows in time order, cut in two by time with a gap; scores of everything that was tried are on the later part.

    ``label`` is 0/1, a number, or a class number into ``classes``, where rare classes are one; ``raw`` has all classes apart.
    ``scores`` maps a name to (n later rows[, classes]).
    """

    task: Task
    frame: pl.DataFrame
    features: tuple[str, ...]
    label: Floats
    raw: Floats
    weights: Floats
    blocks: Ints
    early: Ints
    late: Ints
    classes: tuple[str, ...] = ()
    metric: str = "log_loss"
    quantile: float | None = None
    scores: dict[str, Floats] = field(default_factory=dict)


def halves(times: Ints, blocks: Ints, gap: timedelta) -> tuple[Ints, Ints]:
    """Row numbers of the earlier and the later half of the blocks; earlier rows less than ``gap`` before the later half are left out."""
    distinct = np.unique(blocks)
    if len(distinct) < 2:
        return np.empty(0, np.int64), np.arange(len(blocks))
    first = distinct[len(distinct) // 2]
    late = np.flatnonzero(blocks >= first)
    border = times[late].min() - gap // timedelta(microseconds=1)
    return np.flatnonzero((blocks < first) & (times <= border)), late


def encode(frame: pl.DataFrame, features: Sequence[str], early: Ints) -> tuple[Floats, list[bool]]:
    """(n, features) numbers: categories as their rank of frequency among the earlier rows, the rare and new ones as one; NaN is missing."""
    columns: list[Floats] = []
    categorical: list[bool] = []
    for name in features:
        series = frame[name]
        numeric = series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean
        categorical.append(not numeric)
        if numeric:
            made = series.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
            made[~np.isfinite(made)] = np.nan
        else:
            texts = series.cast(pl.String)
            counts = texts.gather(early.tolist()).drop_nulls().value_counts().rename({texts.name: "value"})
            top = counts.sort(["count", "value"], descending=[True, False])["value"].head(TOP_VALUES).to_list()
            codes = {value: float(code) for code, value in enumerate(top)}
            made = np.array([np.nan if v is None else codes.get(v, float(len(top))) for v in texts.to_list()])
        columns.append(made)
    return (np.column_stack(columns) if columns else np.empty((frame.height, 0))), categorical


def _linear_design(matrix: Floats, categorical: list[bool], early: Ints) -> Floats:
    """Standardised numbers with a column for missing, and one-hot categories."""
    parts: list[Floats] = []
    for column, is_category in zip(matrix.T, categorical, strict=True):
        if is_category:
            codes = np.where(np.isnan(column), -1.0, column)
            parts += [(codes == code).astype(float) for code in np.unique(codes[early])]
            continue
        known = column[early][np.isfinite(column[early])]
        middle, spread = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        spread = spread if spread > 0 else 1.0
        parts.append(np.clip(np.nan_to_num((column - middle) / spread, nan=0.0), -8, 8))
        if np.isnan(column).any():
            parts.append(np.isnan(column).astype(float))
    return np.column_stack(parts) if parts else np.zeros((len(matrix), 1))


def _spread_classes(found: Floats, seen: NDArray[Any], k: int) -> Floats:
    """Probabilities over all classes, with a little for those that were never seen."""
    wide = np.zeros((len(found), k))
    wide[:, seen.astype(int)] = found
    return wide * (1 - 1e-3) + 1e-3 / k


def _probabilities(model: Any, design: Floats, study: Study) -> Floats:
    found = model.predict_proba(design)
    if study.task == "multiclass":
        return _spread_classes(found, model.classes_, len(study.classes))
    return np.asarray(found[:, 1])


def prior(study: Study) -> Floats:
    """The base rate, class shares, or the mean (median, quantile: as the metric asks) of the earlier part, for every later row."""
    y, w, n = study.label[study.early], study.weights[study.early], len(study.late)
    if study.task == "multiclass":
        shares = np.bincount(y.astype(int), w, len(study.classes))
        return np.tile((shares / shares.sum()) * (1 - 1e-3) + 1e-3 / len(study.classes), (n, 1))
    if study.task == "regression" and study.metric in ("mae", "pinball"):
        return np.full(n, float(np.quantile(y, study.quantile or 0.5)))
    mean = float(y @ w / w.sum())
    return np.full(n, mean if study.task == "regression" else np.clip(mean, 1e-6, 1 - 1e-6))


def fit_probes(study: Study) -> dict[str, Floats]:
    """Scores on the later part of a linear model, a small boosting, and the best rule on one feature; empty when nothing can be fitted."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    y = study.label[study.early]
    if not study.features or len(np.unique(y)) < 2:
        return {}
    matrix, categorical = encode(study.frame, study.features, study.early)
    matrix = np.where(np.isnan(matrix[study.early]).all(axis=0), 0.0, matrix)  # boosting cannot bin a column without a value
    design = _linear_design(matrix, categorical, study.early)
    made: dict[str, Floats] = {}
    # one thread: the sums keep their order, and on a busy machine small fits are ten times faster than with OpenMP's waiting
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, (model, inputs) in _models(study, matrix, design, categorical).items():
            model.fit(inputs[study.early], y, sample_weight=study.weights[study.early])
            if study.task == "regression":
                made[name] = np.asarray(model.predict(inputs[study.late]), float)
            else:
                made[name] = _probabilities(model, inputs[study.late], study)
    return made


def _models(study: Study, matrix: Floats, design: Floats, categorical: list[bool]) -> dict[str, tuple[Any, Floats]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    n = len(study.early)
    small: dict[str, Any] = {
        "max_iter": max(15, 120 // max(len(study.classes), 2)),
        "max_leaf_nodes": 15,
        "min_samples_leaf": max(20, n // 200),
        "early_stopping": False,
        "random_state": 0,
        "categorical_features": categorical,
    }
    stump: dict[str, Any] = {"max_depth": 1, "min_samples_leaf": max(20, n // 200), "random_state": 0}
    if study.task == "regression":
        loss = {"mae": "absolute_error", "pinball": "quantile"}.get(study.metric, "squared_error")
        quantile = study.quantile if loss == "quantile" else None
        return {
            "linear": (Ridge(alpha=1.0), design),
            "boosting": (HistGradientBoostingRegressor(loss=loss, quantile=quantile, **small), matrix),
            "one feature": (DecisionTreeRegressor(**stump), design),
        }
    return {
        "linear": (LogisticRegression(C=0.1, max_iter=200), design),
        "boosting": (HistGradientBoostingClassifier(**small), matrix),
        "one feature": (DecisionTreeClassifier(**stump), design),
    }


def calibrated_rule(study: Study, rule: Floats) -> Floats | None:
    """A rule's score (one number a row) as a probability: a logistic curve through the earlier part; a number stays as it is."""
    if study.task == "regression":
        late = rule[study.late]
        return late if np.isfinite(late).all() else None
    from sklearn.linear_model import LogisticRegression

    column = np.nan_to_num(rule, nan=float(np.nanmean(rule)) if np.isfinite(rule).any() else 0.0)[:, None]
    y = study.label[study.early]
    if study.task != "binary" or len(np.unique(y)) < 2:
        return None
    model = LogisticRegression(C=100.0, max_iter=200).fit(column[study.early], y, sample_weight=study.weights[study.early])
    return np.asarray(model.predict_proba(column[study.late])[:, 1])


def last_labels(study: Study, by: Sequence[str], matures: timedelta) -> pl.Series:
    """For each row the newest label of the same ``by`` that was closed when it was asked (asked + ``matures`` <= asked now), or null."""
    rows = study.frame.select("_time", *by).with_columns(
        _place=pl.int_range(study.frame.height, dtype=pl.Int64),
        _value=pl.Series(study.label).fill_nan(None),
    )
    closed = rows.drop_nulls("_value").sort("_time", "_place").with_columns(_closes=pl.col("_time") + matures)
    found = rows.sort("_time", "_place").join_asof(
        closed.select("_closes", "_value", *by),
        left_on="_time",
        right_on="_closes",
        by=list(by) or None,
        check_sortedness=False,
        suffix="_last",
    )
    return found.sort("_place")["_value_last"]


def score_of_last(study: Study, last: pl.Series) -> Floats:
    """The last label as a score on the later part: the label's distribution after such a last label, on the earlier part."""
    values = last.to_numpy().astype(float)
    if study.task == "regression":
        return np.where(np.isfinite(values), values, prior(study)[0])[study.late]
    states = np.where(np.isfinite(values), values, -1.0)
    k = max(len(study.classes), 2)
    base = np.atleast_1d(prior(study)[0]) if study.task == "multiclass" else np.array([1 - prior(study)[0], prior(study)[0]])
    made = np.tile(base, (len(study.late), 1))
    for state in np.unique(states):
        early = study.early[states[study.early] == state]
        seen = np.bincount(study.label[early].astype(int), study.weights[early], k)
        made[states[study.late] == state] = (seen + base) / (seen.sum() + 1)
    return made if study.task == "multiclass" else made[:, 1]
