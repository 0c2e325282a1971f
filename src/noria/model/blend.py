"""Several objectives in one score: a model of the label and models of outcomes, added up by weights that lie apart from all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.model.calibration import Calibration, logit, sigmoid

if TYPE_CHECKING:
    from noria.model.predictors import Predictor


class Weights(msgspec.Struct, frozen=True):
    """What is added up, by name in a fixed order, and the calibration of the label's own model."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    calibration: Calibration = Calibration()


class Blend:
    """One encoder's matrix in, one score in (0, 1) out: the log-odds of the label's model, plus each outcome's prediction times its weight, as a chance.

    With positive weights a row with more of an outcome ranks higher. The score orders rows; it is the label's probability only while all weights are 0.
    """

    def __init__(
        self, main: Predictor, calibration: Calibration, parts: Mapping[str, Predictor], weights: Mapping[str, float]
    ) -> None:
        self.main, self.calibration = main, calibration
        self.parts = {name: parts[name] for name in sorted(parts)}
        self.weights = {name: float(weights.get(name, 0.0)) for name in self.parts}

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (n,) of an encoded matrix."""
        score = self.calibration.apply(self.main.predict(matrix))
        used = [(self.weights[name], part) for name, part in self.parts.items() if self.weights[name] != 0]
        if not used:
            return score
        total = logit(score)
        for weight, part in used:
            total = total + weight * part.predict(matrix)
        return np.asarray(sigmoid(total))

    def weighed(self, weights: Mapping[str, float]) -> Blend:
        """The same models under other weights; what is not named stays as it is. Raises ``KeyError`` for what is none of its parts."""
        for name in weights:
            self.parts[name]
        return Blend(self.main, self.calibration, self.parts, self.weights | dict(weights))

    @property
    def papers(self) -> Weights:
        """What is written beside the models."""
        return Weights(tuple(self.parts), tuple(self.weights.values()), self.calibration)
