"""The fit of the ranking: better than the defaults on what it has not seen, always the same, and the model that the diagnosis uses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from loopbench.calibrate import Case, Model

from loopbench import calibrate

NAMES = ("unit changed", "covariate shift", "label noise")


def planted(n: int, seed: int) -> list[Case]:
    """Diagnoses in which what is found is right, but for covariate shift, which is found beside every changed unit; one in four is of nothing."""
    random, made = np.random.default_rng(seed), []
    for k in range(n):
        truth = random.integers(0, 4)
        strength = np.full(3, 0.03)
        if truth < 3:
            strength[truth] = 0.7
        if truth == 0 or (truth == 3 and random.random() < 0.5):
            strength[1] = 0.9
        right = np.zeros(4, bool)
        right[truth] = True
        found = strength * (strength > 0.5)
        logits, moved = np.log(strength / (1 - strength)), np.ones(3, bool)
        made.append(Case(NAMES, logits, found, moved, np.zeros((3, 3)), right, 1.0, k % calibrate.PARTS))
    return made


def test_the_fit_explains_away_and_is_better_on_new_diagnoses() -> None:
    seen, new = planted(120, 1), planted(200, 2)
    model = Model(seen, 1.2, "none of these")
    assert ("covariate shift", "unit changed") in model.pairs
    theta, default = model.fit(seen, 1.0), np.zeros(model.size)
    assert calibrate.log_loss(model, new, theta) < 0.8 * calibrate.log_loss(model, new, default)
    both = next(case for case in new if case.right[0])
    assert model.chances(both, theta)[0] > 0.8 > model.chances(both, default)[0]
    assert np.array_equal(theta, model.fit(planted(120, 1), 1.0))


def test_a_wide_ridge_keeps_the_defaults() -> None:
    seen = planted(60, 3)
    model = Model(seen, 1.2, "none of these")
    theta = model.fit(seen, 1e9)
    assert np.abs(theta).max() < 1e-4
    assert model.parameters(theta)["scale"] == dict.fromkeys(sorted(NAMES), 1.2)


def test_the_slope_is_that_of_the_loss() -> None:
    seen = planted(30, 4)
    model = Model(seen, 1.2, "none of these")
    theta = model.fit(seen, 0.5)

    def penalised(at: np.ndarray) -> float:
        return 30 * calibrate.log_loss(model, seen, at) + 0.25 * float(at @ at)

    least = penalised(theta)
    random = np.random.default_rng(5)
    assert all(penalised(theta + 0.1 * random.standard_normal(model.size)) > least for _ in range(30))


@pytest.mark.parametrize("moved", [0.9, 0.99])
def test_it_is_the_model_of_the_diagnosis(moved: float) -> None:
    """With any numbers, also where a cause was seen itself, which no other moves."""
    ranking = pytest.importorskip("noria.diagnosis.ranking")
    from noria.core import Check, Verdict
    from noria.diagnosis.tested import Tested

    these = [
        Tested("unit changed", "data", "", (Check("a", Verdict.FAIL),), 0.6, blocks=True),
        Tested("covariate shift", "development", "", (Check("b", Verdict.FAIL),), moved),
        Tested("label noise", "data", "", (Check("c", Verdict.PASS),), blocks=True),
    ]
    tested = {
        "causes": [[t.name, str(t.verdict), t.strength, t.step, t.blocks] for t in these],
        "features": ranking.features(these),
    }
    case = calibrate._case(ranking, tested, ("unit changed",), 1.0, 0)
    model = Model([case], ranking.SCALE, ranking.NONE)
    made = dict(zip([*case.names, ranking.NONE], model.chances(case, np.zeros(model.size)), strict=True))
    said = ranking.probabilities(these, ranking.Parameters())
    assert made == pytest.approx(said)
    model.pairs = [("covariate shift", "unit changed"), ("unit changed", "covariate shift")]
    model.size += 2
    theta = np.random.default_rng(6).normal(0, 0.5, model.size)
    pair = {
        one: {other: calibrate.pair_default([case], one, other) + theta[2 * len(model.causes) + 1 + place]}
        for place, (one, other) in enumerate(model.pairs)
    }
    bias = {name: theta[place] for place, name in enumerate(model.causes)} | {ranking.NONE: theta[2 * len(model.causes)]}
    scale = {name: ranking.SCALE + theta[len(model.causes) + place] for place, name in enumerate(model.causes)}
    made = dict(zip([*case.names, ranking.NONE], model.chances(case, theta), strict=True))
    assert made == pytest.approx(ranking.probabilities(these, ranking.Parameters(bias, scale, pair)))
    assert case.right.tolist() == [True, False, False, False]
