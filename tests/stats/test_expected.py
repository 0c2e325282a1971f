"""Expected metrics against simulated labels, and against NannyML's CBPE on the same rows (``benchmarks/peers/nannyml_cbpe.py``)."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from noria.stats import METRICS, compute, expected, spread

HERE = Path(__file__).parent
BINARY = [name for name, metric in METRICS.items() if "binary" in metric.tasks]


def script():
    path = HERE.parents[1] / "benchmarks" / "peers" / "nannyml_cbpe.py"
    spec = importlib.util.spec_from_file_location("nannyml_cbpe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("metric", BINARY)
def test_simulated_labels_have_the_expected_metric_and_spread(metric):
    random = np.random.default_rng(0)
    chance = random.beta(1.5, 3, 400)
    score = np.clip(chance * 0.9 + 0.02, 0, 1)  # what was said need not be the chance
    act = (score > 0.35).astype(float)
    taken = act if metric in ("precision", "recall", "f1") else None
    made = expected(metric, score, chance, act=taken)
    drawn = [compute(metric, (random.random(400) < chance).astype(float), score, act=taken) for _ in range(800)]
    close = 0.008 if metric == "average_precision" else 0.001  # the ratio of expectations is a little low there
    assert made.value == pytest.approx(np.mean(drawn), abs=max(4 * np.std(drawn) / np.sqrt(800), close))
    assert (made.high - made.low) / 2 / 1.96 == pytest.approx(np.std(drawn), rel=0.15)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy"])
def test_several_classes_against_simulated_labels(metric):
    random = np.random.default_rng(1)
    chance = special.softmax(random.normal(0, 1, (300, 3)), axis=1)
    made = expected(metric, chance, chance)
    drawn = []
    for _ in range(1000):
        label = (random.random((300, 1)) > chance.cumsum(axis=1)[:, :2]).sum(axis=1).astype(float)
        drawn.append(compute(metric, label, chance))
    assert made.value == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(1000))
    assert (made.high - made.low) / 2 / 1.96 == pytest.approx(np.std(drawn), rel=0.12)


def test_the_interval_covers_windows_that_differ_among_themselves():
    """Each day shifts all its chances; the spread over 28 reference days is in the interval."""
    random, inside, runs = np.random.default_rng(2), 0, 200

    def day(rows):
        z = random.normal(-1, 1, rows)
        label = (random.random(rows) < 1 / (1 + np.exp(-(z + random.normal(0, 0.3))))).astype(float)
        return label, 1 / (1 + np.exp(-z))

    for _ in range(runs):
        days = [day(150) for _ in range(28)]
        gap = np.concatenate([label - score for label, score in days])
        slack = spread(gap, np.repeat(np.arange(28), 150))
        label, score = day(300)
        made = expected("log_loss", score, score, calibration=slack)
        inside += made.low <= compute("log_loss", label, score) <= made.high
    assert 0.91 <= inside / runs <= 0.99


def test_against_nannyml():
    told = json.loads((HERE / "nannyml_cbpe.json").read_text())["metrics"]
    module = script()
    score, _ = module.data()
    for window in range(4):
        rows = score[window * module.ROWS : (window + 1) * module.ROWS]
        act = (rows >= module.THRESHOLD).astype(float)
        for metric, values in told.items():
            taken = None if metric == "auc" else act
            made = expected(metric, rows, rows, act=taken)
            # the pairs of a row with itself are in NannyML's AUC, and are not in ours: a difference of order 1/n
            assert made.value == pytest.approx(values[window], abs=3e-4 if metric == "auc" else 1e-9), (metric, window)


@pytest.mark.skipif(importlib.util.find_spec("nannyml") is None, reason="needs the peer's environment")
def test_nannyml_still_says_so(capsys):
    script().main()
    found = json.loads(capsys.readouterr().out)["metrics"]
    kept = json.loads((HERE / "nannyml_cbpe.json").read_text())["metrics"]
    assert all(found[name] == pytest.approx(kept[name], abs=1e-9) for name in kept)


def test_nothing_is_not_a_number():
    assert expected("accuracy", np.empty(0), np.empty(0)).value is None
    assert expected("precision", np.full(3, 0.1), np.full(3, 0.1), act=np.zeros(3)).value is None
