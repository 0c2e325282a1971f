"""Is the problem fit for machine learning at all? A score of traits, each of which can only help."""

from __future__ import annotations

import msgspec

WEIGHTS = {
    "learnable": 0.3,
    "enough_data": 0.15,
    "worth_it": 0.2,
    "cheap_errors": 0.1,
    "repetitive": 0.1,
    "at_scale": 0.1,
    "changing_patterns": 0.05,
}


class Traits(msgspec.Struct, frozen=True):
    """What speaks for ML, each from 0 (not at all) to 1 (fully).

    ``learnable``, ``enough_data`` and ``worth_it`` are measured; the others are a person's statements (``Fitness``).
    """

    learnable: float = 0.0
    enough_data: float = 0.0
    worth_it: float = 0.0
    cheap_errors: float = 0.0
    repetitive: float = 0.0
    at_scale: float = 0.0
    changing_patterns: float = 0.0


def score(traits: Traits) -> float:
    """The fitness, 0 to 1: the weighted sum of the traits, so improving one never lowers it (Huyen 2022, chapter 1).

    >>> score(Traits()), score(Traits(1, 1, 1, 1, 1, 1, 1))
    (0.0, 1.0)
    """
    total: float = sum(weight * min(max(getattr(traits, name), 0.0), 1.0) for name, weight in WEIGHTS.items())
    return round(total, 6)
