"""Diversity against scipy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from noria.stats import coverage, effective_number, entropy, evenness


def test_entropy_against_scipy():
    counts = np.random.default_rng(0).integers(0, 50, 20)
    assert entropy(counts) == pytest.approx(scipy_stats.entropy(counts))
    assert effective_number(counts) == pytest.approx(np.exp(scipy_stats.entropy(counts)))
    assert evenness(counts) == pytest.approx(scipy_stats.entropy(counts, base=20))


def test_a_part_drawn_at_random_covers_what_was_asked_and_a_narrow_one_does_not():
    random = np.random.default_rng(1)
    asked = random.integers(0, 10, 5000)
    all_, part = np.bincount(asked, minlength=10), np.bincount(asked[::5], minlength=10)
    narrow = np.bincount(asked[asked < 3], minlength=10)
    assert coverage(part, all_) == pytest.approx(1.0, abs=0.01)
    assert coverage(narrow, all_) == pytest.approx(0.3, abs=0.01)
    assert np.isnan(entropy(np.zeros(3)))
    assert np.isnan(evenness(np.array([4])))
