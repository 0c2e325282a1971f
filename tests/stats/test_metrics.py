"""Every metric against scikit-learn, its influence against its derivative, its interval against resampling."""

import numpy as np
import pytest
from sklearn import metrics as sk

from noria.core import SettingsError
from noria.stats import METRICS, better, compute, estimate, mean_error, paired, row_loss
from noria.stats.intervals import t_quantile
from noria.stats.metrics import Rows

RANDOM = np.random.default_rng(0)
N = 1200
SCORE = np.clip(np.round(RANDOM.random(N), 2), 0.01, 0.99)  # with ties
LABEL = (RANDOM.random(N) < 0.1 + 0.6 * SCORE).astype(float)
ACT = (SCORE > 0.4).astype(float)
WEIGHTS = RANDOM.random(N) + 0.1
NUMBER = RANDOM.standard_normal(N) * 3
GUESS = NUMBER + RANDOM.standard_normal(N)
MANY = RANDOM.dirichlet(np.ones(4), N)
CLASS = RANDOM.integers(0, 4, N).astype(float)
DAYS = np.arange(N) // 30

BINARY = {
    "log_loss": lambda w: sk.log_loss(LABEL, SCORE, sample_weight=w),
    "brier": lambda w: sk.brier_score_loss(LABEL, SCORE, sample_weight=w),
    "accuracy": lambda w: sk.accuracy_score(LABEL, ACT, sample_weight=w),
    "auc": lambda w: sk.roc_auc_score(LABEL, SCORE, sample_weight=w),
    "average_precision": lambda w: sk.average_precision_score(LABEL, SCORE, sample_weight=w),
    "precision": lambda w: sk.precision_score(LABEL, ACT, sample_weight=w),
    "recall": lambda w: sk.recall_score(LABEL, ACT, sample_weight=w),
    "f1": lambda w: sk.f1_score(LABEL, ACT, sample_weight=w),
}
NUMERIC = {
    "mae": lambda w: sk.mean_absolute_error(NUMBER, GUESS, sample_weight=w),
    "rmse": lambda w: sk.root_mean_squared_error(NUMBER, GUESS, sample_weight=w),
    "r2": lambda w: sk.r2_score(NUMBER, GUESS, sample_weight=w),
    "pinball": lambda w: sk.mean_pinball_loss(NUMBER, GUESS, alpha=0.8, sample_weight=w),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", BINARY)
def test_binary_against_scikit_learn(name, weights):
    assert compute(name, LABEL, SCORE, act=ACT, weights=weights) == pytest.approx(BINARY[name](weights), rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", NUMERIC)
def test_regression_against_scikit_learn(name, weights):
    assert compute(name, NUMBER, GUESS, quantile=0.8, weights=weights) == pytest.approx(NUMERIC[name](weights), rel=1e-12)


def test_multiclass_against_scikit_learn():
    labels = [0, 1, 2, 3]
    assert compute("log_loss", CLASS, MANY) == pytest.approx(sk.log_loss(CLASS, MANY, labels=labels))
    assert compute("accuracy", CLASS, MANY) == pytest.approx(sk.accuracy_score(CLASS, MANY.argmax(axis=1)))
    hot = np.eye(4)[CLASS.astype(int)]
    assert compute("brier", CLASS, MANY) == pytest.approx(((MANY - hot) ** 2).sum(axis=1).mean())


def test_all_metrics_are_checked_here():
    assert set(BINARY) | set(NUMERIC) == set(METRICS)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_influence_is_the_derivative_in_a_row_s_weight(name):
    label, score = (NUMBER, GUESS) if name in NUMERIC else (LABEL, SCORE)
    made = METRICS[name].compute

    def value(weights):
        return made(Rows(label, score, weights, ACT if name not in NUMERIC else None, 0.8))

    base, influence = value(WEIGHTS)
    assert influence @ WEIGHTS == pytest.approx(0, abs=1e-8)
    for row in (0, 17, 600, 1199):
        step = 1e-6
        up, down = WEIGHTS.copy(), WEIGHTS.copy()
        up[row] += step
        down[row] -= step
        slope = (value(up)[0] - value(down)[0]) / (2 * step) * WEIGHTS.sum()
        assert influence[row] == pytest.approx(slope, rel=1e-4, abs=1e-5), base


@pytest.mark.parametrize("name", ["auc", "average_precision", "f1", "log_loss"])
def test_standard_errors_agree_with_leaving_out_one_day_at_a_time(name):
    found = estimate(name, LABEL, SCORE, DAYS, act=ACT)
    days = int(DAYS.max()) + 1
    left = np.array([compute(name, LABEL[k], SCORE[k], act=ACT[k]) for k in (day != DAYS for day in range(days))])
    jackknife = np.sqrt((days - 1) * left.var())
    _, influence = METRICS[name].compute(Rows(LABEL, SCORE, np.ones(N), ACT))
    sums = np.bincount(DAYS, influence) / (N / days)
    assert sums.std(ddof=1) / np.sqrt(days) == pytest.approx(jackknife, rel=0.03)
    error, degrees = mean_error(sums)
    assert found.high - found.value == pytest.approx(t_quantile(0.95, degrees) * error)


def test_auc_interval_covers():
    random = np.random.default_rng(9)
    hits = 0
    for _ in range(300):
        label = (random.random(600) < 0.3).astype(float)
        score = random.standard_normal(600) + label * 0.9062  # two unit normals: AUC = Φ(0.9062/√2) = 0.7392
        found = estimate("auc", label, score, np.arange(600) // 20)
        hits += found.low <= 0.7392 <= found.high
    assert 0.9 <= hits / 300 <= 0.99


@pytest.mark.parametrize("name", sorted(METRICS))
def test_paired_is_positive_when_b_is_better(name):
    label, good = (NUMBER, GUESS) if name in NUMERIC else (LABEL, SCORE)
    random = np.random.default_rng(3)
    bad = good + random.standard_normal(N) * 4 if name in NUMERIC else np.clip(0.5 * good + 0.5 * random.random(N), 0.01, 0.99)
    acts = {} if name in NUMERIC else {"act_a": (random.random(N) < 0.5).astype(float), "act_b": ACT}
    found = paired(name, label, bad, good, DAYS, quantile=0.5, **acts)
    kept = {} if not acts else {"act": acts["act_b"]}
    other = {} if not acts else {"act": acts["act_a"]}
    direct = compute(name, label, good, quantile=0.5, **kept) - compute(name, label, bad, quantile=0.5, **other)
    assert found.value == pytest.approx(better(name) * direct)
    assert found.value > 0
    mirrored = paired(
        name, label, good, bad, DAYS, quantile=0.5, **{k: acts[o] for k, o in (("act_a", "act_b"), ("act_b", "act_a")) if acts}
    )
    assert mirrored.low == pytest.approx(-found.high)


def test_the_same_scores_have_no_difference():
    found = paired("auc", LABEL, SCORE, SCORE, DAYS)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_row_losses_average_to_the_metric_and_skip_missing_rows():
    label = LABEL.copy()
    label[:10] = np.nan
    losses = row_loss("log_loss", label, SCORE)
    assert np.isnan(losses[:10]).all()
    assert np.nanmean(losses) == pytest.approx(compute("log_loss", label, SCORE))
    assert row_loss("auc", label, SCORE) is None
    assert compute("log_loss", label, SCORE) == pytest.approx(sk.log_loss(LABEL[10:], SCORE[10:]))


def test_what_is_not_defined_is_nan_and_has_no_interval():
    assert np.isnan(compute("auc", np.ones(5), SCORE[:5]))
    assert np.isnan(compute("log_loss", np.array([]), np.array([])))
    assert estimate("auc", np.ones(300), SCORE[:300], DAYS[:300]).value is None
    assert not estimate("brier", LABEL[:100], SCORE[:100], DAYS[:100]).known  # four days
    with pytest.raises(SettingsError, match="no metric"):
        compute("accuracy_score", LABEL, SCORE)
