"""A repair of probabilities, kept only when it helps.

The validation part is cut into two halves of time. A repair is fitted on each half and applied to the other; it is kept when the log loss
is better by an interval over blocks, and then fitted on the whole part. A repair that cannot show this adds noise, so scores stay as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.development.frames import Floats, Rows
from noria.model import Calibration
from noria.model.calibration import EPSILON, logit
from noria.system import System

CONFIDENCE = 0.9
LEAST_ROWS = 200
ISOTONIC_ROWS = 5000
KNOTS = 200


def repair(system: System, rows: Rows, score: Floats, current: Calibration | None = None) -> Calibration:
    """The calibration of the raw ``score`` that helps most on these rows against ``current`` (default: none); that one when none helps.

    >>> Calibration().kind
    'none'
    """
    current = current or Calibration()
    keep = np.isfinite(rows.label) & np.isfinite(score.sum(axis=1) if score.ndim == 2 else score)
    label, score, blocks = rows.label[keep], score[keep], rows.blocks[keep]
    if system.task == "regression" or len(label) < LEAST_ROWS or len(np.unique(label)) < 2:
        return current
    kinds = ["temperature"] if score.ndim == 2 else ["platt", *(["isotonic"] if len(label) >= ISOTONIC_ROWS else [])]
    said = current.apply(score)
    best, best_gain = current, 0.0
    for kind in kinds:
        crossed = _crossed(kind, label, score, blocks)
        if crossed is None:
            continue
        gain = stats.paired("log_loss", label, said, crossed, blocks, confidence=CONFIDENCE, least=system.gate.blocks)
        if gain.above(0.0) and gain.value is not None and gain.value > best_gain:
            best, best_gain = fitted(kind, label, score), gain.value
    return best


def _crossed(kind: str, label: Floats, score: Floats, blocks: NDArray[np.int64]) -> Floats | None:
    """Scores repaired by what was learned from the other half of time."""
    first = blocks <= np.median(blocks)
    made = np.empty_like(score)
    for half in (first, ~first):
        if half.all() or not half.any() or len(np.unique(label[~half])) < len(np.unique(label)):
            return None
        made[half] = fitted(kind, label[~half], score[~half]).apply(score[half])
    return made


def fitted(kind: str, label: Floats, score: Floats) -> Calibration:
    """A repair of the kind, fitted on all rows given."""
    if kind == "temperature":
        return Calibration("temperature", slope=_temperature(label, score))
    if kind == "isotonic":
        return _isotonic(label, score)
    offset, slope = (float(f"{b:.9g}") for b in stats.logistic_fit(np.column_stack([np.ones(len(score)), logit(score)]), label))
    # a falling curve would turn the model round, and one that does not exist cannot be drawn: neither is a repair
    return Calibration("platt", slope, offset) if slope > 0 else Calibration()


def _isotonic(label: Floats, score: Floats) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=EPSILON, y_max=1 - EPSILON, out_of_bounds="clip").fit(score, label)
    x, y = model.X_thresholds_, model.y_thresholds_
    keep = np.unique(np.linspace(0, len(x) - 1, KNOTS).round().astype(int))
    return Calibration("isotonic", x=tuple(float(v) for v in x[keep]), y=tuple(float(f"{v:.12g}") for v in y[keep]))


def _temperature(label: Floats, score: Floats) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return stats.compute("log_loss", label, Calibration("temperature", slope=float(np.exp(log_t))).apply(score))

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-6})
    return float(f"{np.exp(found.x):.9g}")
