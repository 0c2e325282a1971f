"""Every metric: its value, its loss per row where it has one, and its interval over blocks of time.

Each metric is given by its value and by its *influence*: how much each row moves it (the derivative of the metric with respect
to the row's weight, mean 0). An interval is that of the mean of value + influence over blocks: exact for additive metrics, the
delta method for ratios, and for AUC the clustered method of DeLong (1988) and Obuchowski (1997, Biometrics 53).

Labels are 0/1 for binary tasks, numbers for regression, class numbers 0..k-1 for multiclass; scores are (n,), and (n, k) for
multiclass. Rows whose label or score is NaN do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate, SettingsError
from noria.stats.intervals import around
from noria.stats.longrun import Floats, Ints, block_sums

TINY = 1e-15
Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class Rows:
    """What a metric is computed from: all arrays have the same length; ``weights`` are positive."""

    label: Floats
    score: Floats
    weights: Floats
    act: Floats | None = None
    quantile: float | None = None

    @property
    def positive(self) -> Floats:
        """Which acts are positive: the acts when given, else scores of at least one half."""
        return (self.score >= 0.5 if self.act is None else self.act > 0).astype(float)


@dataclass(frozen=True)
class Metric:
    """A metric: ``tasks`` it is for, its direction, its loss per row (additive metrics only) and its value with its influence."""

    name: str
    tasks: tuple[Task, ...]
    higher_is_better: bool
    row_losses: Callable[[Rows], Floats] | None
    compute: Callable[[Rows], tuple[float, Floats]]


def mean_of(values: Floats, weights: Floats) -> float:
    """The weighted mean of rows; NaN when there are none."""
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else float("nan")


# ------------------------------------------------------------------------------------------------------ losses per row


def _log_loss(rows: Rows) -> Floats:
    if rows.score.ndim == 2:
        score = np.clip(rows.score, TINY, None)
        picked = score[np.arange(len(score)), rows.label.astype(int)]
        return np.asarray(-np.log(picked / score.sum(axis=1)))
    score = np.clip(rows.score, TINY, 1 - TINY)
    return -(rows.label * np.log(score) + (1 - rows.label) * np.log1p(-score))


def _brier(rows: Rows) -> Floats:
    if rows.score.ndim == 2:
        hot = np.zeros_like(rows.score)
        hot[np.arange(len(hot)), rows.label.astype(int)] = 1.0
        return np.asarray(((rows.score - hot) ** 2).sum(axis=1))
    return np.asarray((rows.score - rows.label) ** 2)


def _miss(rows: Rows) -> Floats:
    """1 where the class is wrong, 0 where it is right."""
    if rows.score.ndim == 2:
        return np.asarray(rows.score.argmax(axis=1) != rows.label, float)
    return np.asarray(rows.positive != rows.label, float)


def _absolute(rows: Rows) -> Floats:
    return np.abs(rows.label - rows.score)


def _squared(rows: Rows) -> Floats:
    return np.asarray((rows.label - rows.score) ** 2)


def _pinball(rows: Rows) -> Floats:
    q = 0.5 if rows.quantile is None else rows.quantile
    over = rows.label - rows.score
    return np.asarray(np.maximum(q * over, (q - 1) * over))


# ----------------------------------------------------------------------------------------------- values with influences


def _additive(loss: Callable[[Rows], Floats], *, one_minus: bool = False) -> Callable[[Rows], tuple[float, Floats]]:
    def compute(rows: Rows) -> tuple[float, Floats]:
        values = 1 - loss(rows) if one_minus else loss(rows)
        mean = mean_of(values, rows.weights)
        return mean, values - mean

    return compute


def _rmse(rows: Rows) -> tuple[float, Floats]:
    squares = _squared(rows)
    root = float(np.sqrt(mean_of(squares, rows.weights)))
    return root, (squares - root**2) / (2 * root) if root > 0 else np.zeros_like(squares)


def _r2(rows: Rows) -> tuple[float, Floats]:
    mean = mean_of(rows.label, rows.weights)
    around_mean = (rows.label - mean) ** 2
    spread = mean_of(around_mean, rows.weights)
    if not spread > 0:
        return float("nan"), np.zeros(len(rows.label))
    squares = _squared(rows)
    left = mean_of(squares, rows.weights) / spread
    return 1 - left, -(squares - left * around_mean) / spread


def _ratio(over: Floats, under: Floats, weights: Floats) -> tuple[float, Floats]:
    """mean(over) / mean(under) and its influence."""
    base = mean_of(under, weights)
    if not base > 0:
        return float("nan"), np.zeros_like(over)
    value = mean_of(over, weights) / base
    return value, (over - value * under) / base


def _precision(rows: Rows) -> tuple[float, Floats]:
    return _ratio(rows.positive * rows.label, rows.positive, rows.weights)


def _recall(rows: Rows) -> tuple[float, Floats]:
    return _ratio(rows.positive * rows.label, rows.label, rows.weights)


def _f1(rows: Rows) -> tuple[float, Floats]:
    return _ratio(2 * rows.positive * rows.label, rows.positive + rows.label, rows.weights)


def _ties(score: Floats) -> tuple[Ints, int]:
    """For each row its place among the distinct scores in ascending order, and how many distinct scores there are."""
    distinct, places = np.unique(score, return_inverse=True)
    return places.astype(np.int64), len(distinct)


def _auc(rows: Rows) -> tuple[float, Floats]:
    places, count = _ties(rows.score)
    up, down = rows.weights * rows.label, rows.weights * (1 - rows.label)
    ups, downs = np.bincount(places, up, count), np.bincount(places, down, count)
    total_up, total_down = ups.sum(), downs.sum()
    if not (total_up > 0 and total_down > 0):
        return float("nan"), np.zeros(len(rows.label))
    below = (np.cumsum(downs) - downs / 2) / total_down  # share of the negatives under each score
    above = 1 - (np.cumsum(ups) - ups / 2) / total_up  # share of the positives over each score
    value = float(below @ ups / total_up)
    total = total_up + total_down
    influence = rows.label * (below[places] - value) * (total / total_up)
    return value, influence + (1 - rows.label) * (above[places] - value) * (total / total_down)


def _average_precision(rows: Rows) -> tuple[float, Floats]:
    places, count = _ties(-rows.score)  # from the highest score down
    total = float(rows.weights.sum())
    ups = np.bincount(places, rows.weights * rows.label, count) / total
    every = np.bincount(places, rows.weights, count) / total
    base = float(ups.sum())
    if not base > 0:
        return float("nan"), np.zeros(len(rows.label))
    found, asked = np.cumsum(ups), np.cumsum(every)
    precision = found / asked
    value = float(precision @ ups) / base
    # each row also moves the precision at every lower score: sums over the scores at or below its own
    gain = np.cumsum((ups / asked)[::-1])[::-1]
    loss = np.cumsum((ups * found / asked**2)[::-1])[::-1]
    influence = (rows.label * (precision - value + gain)[places] - loss[places]) / base
    return value, influence


_BINARY: tuple[Task, ...] = ("binary",)
_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_NUMBER: tuple[Task, ...] = ("regression",)

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("log_loss", _CLASSES, False, _log_loss, _additive(_log_loss)),
        Metric("brier", _CLASSES, False, _brier, _additive(_brier)),
        Metric("accuracy", _CLASSES, True, _miss, _additive(_miss, one_minus=True)),
        Metric("auc", _BINARY, True, None, _auc),
        Metric("average_precision", _BINARY, True, None, _average_precision),
        Metric("precision", _BINARY, True, None, _precision),
        Metric("recall", _BINARY, True, None, _recall),
        Metric("f1", _BINARY, True, None, _f1),
        Metric("mae", _NUMBER, False, _absolute, _additive(_absolute)),
        Metric("rmse", _NUMBER, False, None, _rmse),
        Metric("r2", _NUMBER, True, None, _r2),
        Metric("pinball", _NUMBER, False, _pinball, _additive(_pinball)),
    )
}


def metric_named(name: str) -> Metric:
    """The metric of this name; raises ``SettingsError`` that lists the names."""
    try:
        return METRICS[name]
    except KeyError:
        raise SettingsError(f"there is no metric {name!r}", hint=f"one of {', '.join(METRICS)}") from None


def better(metric: str) -> int:
    """+1 when higher is better, -1 when lower is.

    >>> better("auc"), better("log_loss")
    (1, -1)
    """
    return 1 if metric_named(metric).higher_is_better else -1


def row_loss(metric: str, label: Floats, score: Floats, *, quantile: float | None = None) -> Floats | None:
    """The loss of each row, lower is better; ``None`` when the metric is not a mean over rows. NaN where label or score is.

    >>> row_loss("mae", np.array([1.0, 2.0]), np.array([1.5, 2.0]))
    array([0.5, 0. ])
    """
    losses = metric_named(metric).row_losses
    if losses is None:
        return None
    label, score = np.asarray(label, float), np.asarray(score, float)
    keep = _usable(label, score)
    out = np.full(len(label), np.nan)
    out[keep] = losses(Rows(label[keep], score[keep], np.ones(int(keep.sum())), quantile=quantile))
    return out


def compute(
    metric: str,
    label: Floats,
    score: Floats,
    *,
    act: Floats | None = None,
    weights: Floats | None = None,
    quantile: float | None = None,
) -> float:
    """The metric's value; NaN when the rows do not define it (one class only, no rows).

    ``precision``, ``recall``, ``f1`` and ``accuracy`` take the acts (0/1) when given, else scores of at least one half.

    >>> compute("auc", np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.1, 0.9]))
    0.5
    """
    keep, rows = _rows(label, score, act, weights, quantile)
    return metric_named(metric).compute(rows)[0] if keep.any() else float("nan")


def estimate(
    metric: str,
    label: Floats,
    score: Floats,
    blocks: Ints,
    *,
    act: Floats | None = None,
    weights: Floats | None = None,
    quantile: float | None = None,
    confidence: float = 0.95,
    least: int = 10,
    seed: int = 0,  # noqa: ARG001  nothing is drawn; kept so that a resampled metric could be added without a change of callers
) -> Estimate:
    """The metric with its interval over blocks of time; no interval with fewer than ``least`` blocks."""
    keep, rows = _rows(label, score, act, weights, quantile)
    if not keep.any():
        return Estimate(None)
    value, influence = metric_named(metric).compute(rows)
    return _interval(value, influence, rows.weights, np.asarray(blocks)[keep], confidence=confidence, least=least)


def paired(
    metric: str,
    label: Floats,
    score_a: Floats,
    score_b: Floats,
    blocks: Ints,
    *,
    act_a: Floats | None = None,
    act_b: Floats | None = None,
    weights: Floats | None = None,
    quantile: float | None = None,
    confidence: float = 0.95,
    least: int = 10,
) -> Estimate:
    """How much better b is than a on the same rows: POSITIVE means that b is better, whatever the metric's direction.

    Rows that either of them cannot score do not count.
    """
    made = metric_named(metric)
    label = np.asarray(label, float)
    usable = _usable(label, np.asarray(score_a, float)) & _usable(label, np.asarray(score_b, float))
    masked = np.where(usable, label, np.nan)
    keep, rows_a = _rows(masked, score_a, act_a, weights, quantile)
    if not keep.any():
        return Estimate(None)
    _, rows_b = _rows(masked, score_b, act_b, weights, quantile)
    value_a, influence_a = made.compute(rows_a)
    value_b, influence_b = made.compute(rows_b)
    sign = 1.0 if made.higher_is_better else -1.0
    difference = sign * (influence_b - influence_a)
    return _interval(
        sign * (value_b - value_a), difference, rows_a.weights, np.asarray(blocks)[keep], confidence=confidence, least=least
    )


def linear(
    metric: str,
    label: Floats,
    score: Floats,
    *,
    act: Floats | None = None,
    weights: Floats | None = None,
    quantile: float | None = None,
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """The metric as a mean over rows, to first order: which rows count, and their values (value + influence) and weights.

    >>> keep, values, weights = linear("mae", np.array([1.0, 2.0, np.nan]), np.array([1.5, 2.0, 0.0]))
    >>> keep.tolist(), values.tolist()
    ([True, True, False], [0.5, 0.0])
    """
    keep, rows = _rows(label, score, act, weights, quantile)
    if not keep.any():
        return keep, np.empty(0), np.empty(0)
    value, influence = metric_named(metric).compute(rows)
    return keep, value + influence, rows.weights


def _usable(label: Floats, score: Floats) -> NDArray[np.bool_]:
    return np.isfinite(label) & (np.isfinite(score).all(axis=1) if score.ndim == 2 else np.isfinite(score))


def _rows(label: Any, score: Any, act: Any, weights: Any, quantile: float | None) -> tuple[NDArray[np.bool_], Rows]:
    label, score = np.asarray(label, float), np.asarray(score, float)
    if len(label) != len(score):
        raise ValueError(f"{len(label)} labels for {len(score)} scores")
    weights = np.ones(len(label)) if weights is None else np.asarray(weights, float)
    keep = _usable(label, score) & (weights > 0)
    if act is not None:
        act = np.asarray(act, float)
        keep &= np.isfinite(act)
    return keep, Rows(label[keep], score[keep], weights[keep], None if act is None else act[keep], quantile)


def _interval(value: float, influence: Floats, weights: Floats, blocks: Ints, *, confidence: float, least: int) -> Estimate:
    sums, sizes = block_sums(blocks, influence * weights, weights)
    return around(value, sums / sizes.mean(), confidence=confidence, least=least)
