"""What a release's test and freshest part say of scores and labels together: the reference of every monitor that needs both.

The rows are those that no training has seen; the release's own model scores them. What is kept is small: how scores are calibrated, what
scores look like given the label, which loss goes with which x, and how windows differ in all of that when nothing is wrong.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import NoriaError, Window
from noria.measure.slices import by_slice
from noria.model import load
from noria.monitoring.inputs import Inputs, Text
from noria.monitoring.reference import spec_of, training_of
from noria.stats import Shift, Spread
from noria.store import Home
from noria.system import System

MOST = 20_000
LEAST = 200
BLOCKS = 7
BINS = 10
RIDGE = 1.0
FOLDS = 4
SLICES = 24
VALUES = 50
DRAWS = 4000
TINY = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Loss(msgspec.Struct, frozen=True):
    """The loss expected at an x: a ridge regression on the bins of the score, the points and their squares; within ``low`` and ``high``."""

    metric: str
    edges: tuple[float, ...]
    weights: tuple[float, ...]
    low: float
    high: float
    residual: Spread
    mean: float
    gain: float

    def at(self, score: Floats, points: Floats) -> Floats:
        """The expected loss of each row, given scores (n,) or (n, k) and points (n, width)."""
        made = design(flat(score), points, np.array(self.edges)) @ np.array(self.weights)
        return np.asarray(np.clip(made, self.low, self.high))


class Calibrated(msgspec.Struct, frozen=True):
    """The chance of a positive label as a function of the score: the logistic of ``offset + slope · logit(score)``.

    ``offset_error`` and ``slope_error`` are the standard errors of both over blocks, ``degrees`` theirs; ``information`` is the sum of
    chance · (1 - chance) that they rest on, ``slack`` the spread of (label - chance) over windows.
    """

    offset: float
    slope: float
    offset_error: float
    slope_error: float
    degrees: float
    information: float
    slack: Spread

    def chance(self, score: Floats) -> Floats:
        """The calibrated chance of each score."""
        return 1 / (1 + np.exp(-(self.offset + self.slope * logit(score))))


class Mixture(msgspec.Struct, frozen=True):
    """Scores given labels: the reference of BBSE, the shares of score bins given 0 and given 1, and how badly ordinary windows fit a mixture."""

    confusion: tuple[tuple[float, ...], ...]
    noise: tuple[Spread, ...]
    usual: tuple[Spread, ...]
    edges: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]
    misfit: float | None

    @property
    def shift(self) -> Shift:
        return Shift(np.array(self.confusion), self.noise, self.usual)


class Part(msgspec.Struct, frozen=True):
    """A slice, and the spread over windows of its rows' loss beyond what x lets expect, relative to the rest's."""

    column: str
    value: str
    residual: Spread


class Labelled(msgspec.Struct, frozen=True):
    """All of it. ``critical`` is what the largest of the slices' t-values rarely exceeds."""

    rows: int
    blocks: int
    loss: Loss | None
    mapping: Calibrated | None
    mixture: Mixture | None
    slices: tuple[Part, ...]
    critical: float


def flat(score: Floats) -> Floats:
    """One number a row: the score, or the largest of the classes' probabilities."""
    return np.asarray(score.max(axis=1) if score.ndim == 2 else score, float)


def logit(score: Floats) -> Floats:
    p = np.clip(score, TINY, 1 - TINY)
    return np.asarray(np.log(p / (1 - p)))


def design(score: Floats, points: Floats, edges: Floats) -> Floats:
    """The columns of the loss model: one for each bin of the score, the points, their squares."""
    hot = np.zeros((len(score), len(edges) + 1))
    hot[np.arange(len(score)), np.searchsorted(edges, score, side="left")] = 1.0
    return np.concatenate([hot, points, points**2], axis=1)


def loss_metric(system: System) -> str:
    """The declared metric when it is a mean over rows, else the task's usual loss."""
    declared = stats.METRICS[system.objective.metric]
    if declared.row_losses is not None and system.task in declared.tasks:
        return declared.name
    return "mae" if system.task == "regression" else "log_loss"


def quantile_of(system: System) -> float | None:
    words = system.decide.policy.split()
    return float(words[1]) if words and words[0] == "quantile" else None


def labelled(home: Home, system: System, release: str, inputs: Inputs, error: float) -> tuple[Labelled | None, str]:
    """The reference of a release, or ``None`` and why there is none."""
    span = _unseen(home, release)
    if span is None:
        return None, "the release has no training set"
    known = home.lake.schema("predictions") or {}
    wanted = {c.name for c in inputs.columns} | set(system.objective.slices) | set(system.objective.sensitive)
    extra = ("_act", "_act_propensity")
    frame = measure.closed(home, system, span, columns=[*extra, *sorted(name for name in wanted if name in known)])
    frame = measure.usable(system, frame)
    frame = frame[_some(frame.height)]
    try:
        bundle = load(home.artifacts.get(release), release)
        score = np.asarray(bundle.predict(frame), float) if frame.height else np.empty(0)
    except NoriaError as fault:
        return None, f"the release's model cannot score its test rows: {fault}"
    label = labels(home, system, release, frame)
    keep = np.isfinite(label) & np.isfinite(flat(score))
    frame, score, label = frame.filter(pl.Series(keep)), score[keep], label[keep]
    blocks = measure.blocks_of(frame["_time"], system.every)
    count = len(np.unique(blocks))
    if len(label) < LEAST or count < BLOCKS:
        return None, f"{len(label)} labelled rows in {count} windows of the test part; {LEAST} in {BLOCKS} are needed"
    weight = frame["_weight"].to_numpy().astype(float)
    points = inputs.points(frame)
    loss: Loss | None = None
    if system.combine is None:  # a combined score orders rows, and says nothing of the label alone
        loss, residual = _loss(system, label, score, points, blocks, weight)
    binary = system.task == "binary" and 0 < label.mean() < 1
    slices, critical = _slices(system, frame, inputs, residual, blocks, weight, error) if loss is not None else ((), 0.0)
    chance = binary and system.combine is None
    mapping = _mapping(label, score, blocks, weight) if chance else None
    mixture = _mixture(label, score, blocks, error) if chance else None
    return Labelled(len(label), count, loss, mapping, mixture, slices, critical), ""


def labels(home: Home, system: System, release: str, frame: pl.DataFrame) -> Floats:
    """The labels as numbers: class numbers in the bundle's order for several classes."""
    if system.task != "multiclass":
        return measure.numbers_of(frame["_label"])
    places = {name: float(place) for place, name in enumerate(spec_of(home, release).classes)}
    return np.array([places.get(name, np.nan) for name in frame["_class"].to_list()], float)


def _unseen(home: Home, release: str) -> Window | None:
    training = training_of(home, release)
    parts = [p.window for p in training.record.parts if p.name in ("test", "fresh")] if training is not None else []
    return Window(min(p.start for p in parts), max(p.end for p in parts)) if parts else None


def _some(rows: int) -> Ints:
    return np.arange(rows) if rows <= MOST else np.linspace(0, rows - 1, MOST).astype(np.int64)


# -------------------------------------------------------------------------------------------------------- loss given x


def _loss(  # noqa: PLR0917  arrays of the same rows
    system: System, label: Floats, score: Floats, points: Floats, blocks: Ints, weight: Floats
) -> tuple[Loss | None, Floats]:
    """The loss model, and what it leaves of each row's loss out of fold."""
    metric, quantile = loss_metric(system), quantile_of(system)
    losses = stats.row_loss(metric, label, score, quantile=quantile)
    if losses is None or not np.isfinite(losses).all():
        return None, np.full(len(label), np.nan)
    one = flat(score)
    edges = np.unique(np.quantile(one, np.arange(1, BINS) / BINS, method="lower"))
    columns = design(one, points, edges)
    penalty = np.full(columns.shape[1], RIDGE)
    penalty[: len(edges) + 1] = 1e-3
    folds = np.unique(blocks, return_inverse=True)[1]
    folds = folds * FOLDS // (int(folds.max()) + 1)
    grams = [(columns[folds == f].T * weight[folds == f]) @ columns[folds == f] for f in range(FOLDS)]
    sums = [columns[folds == f].T @ (weight * losses)[folds == f] for f in range(FOLDS)]
    low, high = float(losses.min()), float(np.quantile(losses, 0.999))
    out = np.empty(len(label))
    for f in range(FOLDS):
        rest = [g for g in range(FOLDS) if g != f]
        beta = np.linalg.solve(sum(grams[g] for g in rest) + np.diag(penalty), sum(sums[g] for g in rest))
        out[folds == f] = np.clip(columns[folds == f] @ beta, low, high)
    beta = np.linalg.solve(sum(grams) + np.diag(penalty), sum(sums))
    residual = losses - out
    mean = float(np.average(losses, weights=weight))
    gain = max(0.0, _base(metric, label, score, weight, quantile) - mean)
    made = _kept(stats.spread(residual, blocks, weight))
    low, high, mean, gain = _short([low, high, mean, gain])
    return Loss(metric, _short(edges), _short(beta), low, high, made, mean, gain), residual


def _base(metric: str, label: Floats, score: Floats, weight: Floats, quantile: float | None) -> float:
    """What the best constant would have lost."""
    if score.ndim == 2:
        share = np.bincount(label.astype(int), weight, score.shape[1]) / weight.sum()
        said: Floats = np.tile(share, (len(label), 1))
    else:
        middle = {"mae": 0.5, "pinball": quantile or 0.5}.get(metric)
        said = np.full(len(label), np.average(label, weights=weight) if middle is None else np.quantile(label, middle))
    found = stats.row_loss(metric, label, said, quantile=quantile)
    return float(np.average(found, weights=weight)) if found is not None else 0.0


# --------------------------------------------------------------------------------------------------------- calibration


def _mapping(label: Floats, score: Floats, blocks: Ints, weight: Floats) -> Calibrated | None:
    """The logistic recalibration of the score on these rows, and how uncertain it is."""
    z = logit(score)
    if z.max() - z.min() < 1e-6:
        return None
    columns = np.column_stack([np.ones_like(z), z])
    beta = stats.logistic_fit(columns, label)
    if not np.isfinite(beta).all():
        return None
    chance = 1 / (1 + np.exp(-np.clip(columns @ beta, -40, 40)))
    again = np.column_stack([np.ones_like(z), logit(chance)])
    information = (again.T * (weight * chance * (1 - chance))) @ again
    if not np.linalg.cond(information) < 1e12:
        return None
    bread = np.linalg.inv(information)
    influence = (again * (weight * (label - chance))[:, None]) @ bread
    sums = stats.block_sums(blocks, influence[:, 0], influence[:, 1])
    errors = [stats.mean_error(one * len(one)) for one in sums]
    slack = _kept(stats.spread(label - chance, blocks, weight))
    numbers = [beta[0], beta[1], errors[0][0], errors[1][0], min(errors[0][1], errors[1][1])]
    offset, slope, offset_error, slope_error, degrees = _short(numbers)
    return Calibrated(offset, slope, offset_error, slope_error, degrees, _short([information[0, 0]])[0], slack)


# -------------------------------------------------------------------------------------------------- scores given labels


def _mixture(label: Floats, score: Floats, blocks: Ints, error: float) -> Mixture | None:
    shift = stats.shift_reference(label, score, blocks)
    if not shift.noise:
        return None
    edges = np.unique(np.quantile(score, np.arange(1, BINS) / BINS, method="lower"))
    cells = np.searchsorted(edges, score, side="left")
    shares = np.stack([np.bincount(cells[label == y], minlength=len(edges) + 1) / (label == y).sum() for y in (0, 1)])
    fits = [misfit(shift, shares, edges, score[blocks == b]) for b in np.unique(blocks) if (blocks == b).sum() >= 30]
    bound = stats.ordinary(np.log(np.maximum(fits, 1e-6)), error, least=BLOCKS)
    confusion = tuple(_short(row) for row in shift.confusion)
    noise, usual = (tuple(_kept(one) for one in some) for some in (shift.noise, shift.usual))
    kept = tuple(_short(row) for row in shares)
    return Mixture(confusion, noise, usual, _short(edges), kept, float(np.exp(bound)) if np.isfinite(bound) else None)


def misfit(shift: Shift, shares: Floats, edges: Floats, score: Floats) -> float:
    """How far the scores are from every mixture of their distributions given the labels, in units of the noise of so many rows.

    The largest difference of the distribution functions over the bins at BBSE's estimate, times √n.
    """
    share = float(np.clip(stats.label_shift(shift, score)[0][1], 0, 1))
    found = np.bincount(np.searchsorted(edges, score, side="left"), minlength=len(edges) + 1) / len(score)
    mixed = share * shares[1] + (1 - share) * shares[0]
    return float(np.abs(np.cumsum(found - mixed)).max() * np.sqrt(len(score)))


# -------------------------------------------------------------------------------------------------------------- slices


def _slices(  # noqa: PLR0917  arrays of the same rows
    system: System, frame: pl.DataFrame, inputs: Inputs, residual: Floats, blocks: Ints, weight: Floats, error: float
) -> tuple[tuple[Part, ...], float]:
    """The slices to watch (declared ones first, then frequent values of categories), and what the largest of their t-values rarely exceeds."""
    texts = [column.name for column in inputs.columns if isinstance(column, Text)]
    columns = dict.fromkeys([*system.objective.slices, *system.objective.sensitive, *texts])
    least = max(LEAST // 2, frame.height // 50)
    parts: list[Part] = []
    rows: list[Floats] = []
    for column, value, mask in by_slice(frame, [name for name in columns if name in frame.columns], least, most=SLICES):
        cut = frame[column].dtype.is_numeric() and frame[column].n_unique() > VALUES
        if len(parts) == SLICES or mask.all() or cut:
            continue
        beyond = beyond_rest(residual, mask, blocks, weight)
        parts.append(Part(column, value, _kept(stats.spread(beyond, blocks, np.where(mask, weight, 0.0)))))
        total, count = stats.block_sums(blocks, np.where(mask, np.nan_to_num(beyond), 0.0) * weight, mask * weight)
        rows.append(np.where(count > 0, total / np.maximum(count, TINY), 0.0))
    if not parts:
        return (), 0.0
    table = np.array(rows).T
    table = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), TINY)
    drawn = np.random.default_rng(0).normal(size=(DRAWS, len(table))) @ table / np.sqrt(len(table))
    return tuple(parts), float(f"{np.quantile(drawn.max(axis=1), 1 - error):.9g}")


def beyond_rest(residual: Floats, mask: NDArray[np.bool_], blocks: Ints, weight: Floats) -> Floats:
    """Each row's residual less the mean residual of the window's rows outside the slice (NaN where there is none)."""
    _, places = np.unique(blocks, return_inverse=True)
    rest = weight * ~mask
    total, count = np.bincount(places, rest * residual), np.bincount(places, rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(residual - (total / count)[places])


def _kept(made: Spread) -> Spread:
    mean, within, between, inflation, rows = _short([made.mean, made.within, made.between, made.inflation, made.rows])
    return Spread(mean, within, between, inflation, made.blocks, rows)


def _short(values: list[float] | Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.9g}") for value in np.asarray(values, float).tolist())
