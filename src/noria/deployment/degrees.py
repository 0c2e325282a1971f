"""Who decides: how much of the deciding is left to people, by the declared degree of automation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from noria.system import System

Floats = NDArray[np.float64]
BY_PEOPLE = ("human", "shadow", "assist")
ASKS = ("human", "assist", "partial")


def confidence(score: float, scores: tuple[float, ...] | None) -> float:
    """How sure a model is: the largest class probability.

    >>> confidence(0.1, None), confidence(0.7, (0.7, 0.2, 0.1))
    (0.9, 0.7)
    """
    return max(scores) if scores is not None else max(score, 1.0 - score)


def left_open(system: System, score: Floats, scores: Floats | None) -> NDArray[np.bool_]:
    """Which rows' acts are left to a person (n,). A row without a score is open wherever people decide at all."""
    degree = system.serve.degree
    if degree in BY_PEOPLE:
        return np.ones(len(score), bool)
    if degree == "full":
        return np.zeros(len(score), bool)
    sure = scores.max(axis=1) if scores is not None else np.maximum(score, 1.0 - score)
    return ~(sure >= system.serve.confidence)


def is_open(system: System, score: float | None, scores: tuple[float, ...] | None) -> bool:
    """The same for one row.

    >>> import noria
    >>> assist = type("S", (), {"serve": noria.Serve("assist")})
    >>> is_open(assist, 0.9, None)
    True
    """
    degree = system.serve.degree
    if degree in BY_PEOPLE:
        return True
    if degree == "full":
        return False
    return score is None or not confidence(score, scores) >= system.serve.confidence


def asks(system: System) -> bool:
    """Whether what is left open waits in the review queue. In ``shadow`` nobody is asked: whoever decides today goes on."""
    return system.serve.degree in ASKS
