"""Calibration where Newton's method needs care."""

import numpy as np
import pytest
import statsmodels.api

from noria import stats


def test_strongly_overconfident_scores_have_a_slope_too() -> None:
    """A full Newton step from slope 1 would overshoot here; statsmodels finds the same slope."""
    draw = np.random.default_rng(3)
    truth = draw.normal(size=4000)
    label = (draw.random(4000) < 1 / (1 + np.exp(-truth))).astype(float)
    score = 1 / (1 + np.exp(-8 * truth - 3))
    made = stats.calibration_test(label, score, np.arange(4000) // 100)["slope"]
    clipped = np.clip(score, 1e-9, 1 - 1e-9)
    design = np.column_stack([np.ones(4000), np.log(clipped / (1 - clipped))])
    oracle = statsmodels.api.Logit(label, design).fit(disp=0).params[1]
    assert made.value == pytest.approx(oracle, rel=1e-6)
    assert made.below(0.2)
