"""The repair of scores that are not probabilities, as plain numbers.

``platt``: a logistic curve through the score's log-odds (Platt 1999); ``isotonic``: a rising step line (Zadrozny and Elkan 2002);
``temperature``: one number that divides the log-probabilities of several classes (Guo et al. 2017). Only how a repair is applied
is here; it is fitted, and kept only when it helps, in development.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6


class Calibration(msgspec.Struct, frozen=True, omit_defaults=True):
    """``platt``: probability = 1/(1+exp(-(slope·logit + offset))); ``isotonic``: ``y`` over ``x``; ``temperature``: ``slope``."""

    kind: Literal["none", "platt", "isotonic", "temperature"] = "none"
    slope: float = 1.0
    offset: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def apply(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Repaired scores of the same shape.

        >>> Calibration("platt", slope=2.0).apply(np.array([0.5])).tolist()
        [0.5]
        """
        if self.kind == "platt":
            return sigmoid(self.slope * logit(score) + self.offset)
        if self.kind == "isotonic":
            return np.interp(score, self.x, self.y)
        if self.kind == "temperature":
            return softmax(np.log(np.clip(score, EPSILON, 1.0)) / self.slope)
        return score


def logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds, with probabilities kept ``EPSILON`` away from 0 and 1."""
    kept = np.clip(p, EPSILON, 1.0 - EPSILON)
    return np.log(kept / (1.0 - kept))


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the log-odds."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    made: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return made
