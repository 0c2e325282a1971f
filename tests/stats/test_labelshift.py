"""BBSE: right where its assumption holds, with intervals that cover; its condition number says when scores are useless."""

import numpy as np
import pytest
from scipy import special

from noria.stats import label_shift, shift_reference


def world(random, share, days, rows, swing=0.0):
    """Calibrated at a share of 0.3: z given the label is normal. A day's noise moves all its scores."""
    label = (random.random((days, rows)) < share).astype(float)
    z = random.normal(label * 1.5, 1.0) + random.normal(0, swing, (days, 1))
    return label.ravel(), (1 / (1 + np.exp(-(1.5 * z - 1.97)))).ravel(), np.repeat(np.arange(days), rows)


@pytest.mark.parametrize(("share", "swing"), [(0.3, 0.0), (0.6, 0.0), (0.1, 0.0), (0.6, 0.15)])
def test_the_interval_covers_the_labels_to_come(share, swing):
    random, runs, inside, errors = np.random.default_rng(0), 150, 0, []
    for _ in range(runs):
        reference = shift_reference(*world(random, 0.3, 28, 60, swing))
        label, score, _ = world(random, share, 1, 200, swing)
        made, error = label_shift(reference, score)
        half = special.stdtrit(reference.noise[1].degrees, 0.975) * error[1]
        inside += abs(made[1] - label.mean()) <= half
        errors.append(made[1] - label.mean())
    assert abs(np.mean(errors)) < 0.02
    assert 0.9 <= inside / runs <= 1.0


def test_several_classes():
    random = np.random.default_rng(1)

    def rows(shares, n):
        label = random.choice(3, n, p=shares)
        z = random.normal(0, 1, (n, 3)) + 2.0 * np.eye(3)[label]
        return label.astype(float), special.softmax(z, axis=1)

    label, score = rows([0.5, 0.3, 0.2], 6000)
    reference = shift_reference(label, score, np.arange(6000) // 200)
    share, error = label_shift(reference, rows([0.2, 0.2, 0.6], 2000)[1])
    assert share == pytest.approx([0.2, 0.2, 0.6], abs=0.04)
    assert share.sum() == pytest.approx(1.0)
    assert (error < 0.03).all()


def test_scores_that_say_nothing_are_told_by_the_condition_number():
    random = np.random.default_rng(2)
    label = (random.random(3000) < 0.3).astype(float)
    useless = shift_reference(label, random.random(3000), np.arange(3000) // 100)
    useful = shift_reference(*world(random, 0.3, 30, 100))
    assert useful.condition < 30 < useless.condition
    assert np.isnan(label_shift(shift_reference(np.zeros(30), np.full(30, 0.5), np.arange(30)), np.full(5, 0.5))[0]).all()
