"""The two models that everyone serves, trained once a run on the same 20 numbers, and the rows that everyone is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

Kind = Literal["logistic", "boosting"]
KINDS: tuple[Kind, ...] = ("logistic", "boosting")
COLUMNS = 20
ROWS = 60_000
ASKED = 256
MANY = 1000


@dataclass(frozen=True)
class Trained:
    """A fitted estimator, the rows it saw, the rows to ask and what it says of them."""

    kind: Kind
    estimator: Any
    seen: NDArray[np.float64]
    asked: NDArray[np.float64]
    expected: NDArray[np.float64]


def estimator_of(kind: Kind) -> Any:
    """The estimator, not fitted: scikit-learn's defaults, so 100 iterations of boosting with 31 leaves each."""
    if kind == "logistic":
        return LogisticRegression(max_iter=1000)
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)


def train(kind: Kind) -> Trained:
    """Fits on rows that are the same in every run."""
    rows, label = make_classification(ROWS, COLUMNS, n_informative=12, random_state=0)
    rows = np.round(rows, 4)
    estimator = estimator_of(kind).fit(rows, label)
    asked = rows[:MANY]
    return Trained(kind, estimator, rows, asked, estimator.predict_proba(asked)[:, 1])


def save(trained: Trained, folder: Path) -> Path:
    """Writes the estimator for the peers, who read it with joblib; the file never leaves the cache."""
    path = folder / f"{trained.kind}.joblib"
    joblib.dump(trained.estimator, path)
    return path
