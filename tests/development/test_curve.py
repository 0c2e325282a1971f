"""The learning curve: the law is found where it holds, and the gain it predicts lies in its interval."""

from __future__ import annotations

import numpy as np
import pytest

from noria.development.curve import Curve, learning_curve

WEIGHTS = np.r_[1.0, -1.0, 0.7, np.zeros(17)]


def world(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = random.normal(0, 1, (n, 20))
    return x, (random.random(n) < 1 / (1 + np.exp(-(x @ WEIGHTS)))).astype(float)


def log_loss(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    score = np.clip(score, 1e-9, 1 - 1e-9)
    return -(label * np.log(score) + (1 - label) * np.log(1 - score))


def fitted(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(C=10.0, max_iter=200).fit(x, y).predict_proba(asked)[:, 1])


def test_the_predicted_gain_holds_within_its_interval() -> None:
    """Fourteen worlds: a curve of 1,600 rows says what 4 times as many bring; a model of 6,400 rows shows it."""
    inside = []
    for run in range(14):
        random = np.random.default_rng([run, 11])
        x, y = world(random, 1600)
        more, labels = world(random, 6400)
        asked, label = world(random, 3000)
        made = learning_curve(
            lambda rows, x=x, y=y, asked=asked: fitted(x[rows], y[rows], asked),
            1600,
            lambda score, label=label: log_loss(label, score),
            np.arange(3000) // 100,
        )
        assert made is not None
        gain = made.gain(4.0)
        seen = log_loss(label, fitted(x, y, asked)).mean() - log_loss(label, fitted(more, labels, asked)).mean()
        assert gain.low is not None
        assert gain.high is not None
        inside.append(gain.low <= seen <= gain.high)
    assert np.mean(inside) >= 12 / 14


def test_the_law_is_found_where_it_holds() -> None:
    def fit(rows: np.ndarray) -> np.ndarray:
        return np.full(500, 0.3 + 4.0 * len(rows) ** -0.5)

    made = learning_curve(fit, 3200, lambda score: score, np.arange(500) // 25)
    assert made is not None
    assert made.law == pytest.approx((0.3, 4.0, 0.5), rel=0.1)
    assert made.gain(4.0).value == pytest.approx(4.0 * (3200**-0.5 - 12800**-0.5), rel=0.05)
    assert made.needed(0.32) == pytest.approx(40_000, rel=0.15)
    assert made.needed(0.29) is None
    assert made.sizes == (100, 200, 400, 800, 1600, 3200)


def test_too_few_rows_make_no_curve() -> None:
    assert learning_curve(lambda rows: np.zeros(10) + len(rows), 200, lambda score: score, np.arange(10)) is None
    flat = Curve((100, 200), (), (0.5, 0.0, 1.0), ())
    assert flat.needed(0.4) is None
    assert flat.gain(10.0).value == 0.0
