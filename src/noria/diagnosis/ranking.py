"""From what the tests found to a probability of each cause: a small model whose numbers can be fitted where the cause is known.

For each cause a score, bias + scale · logit(strength) + Σ pair · strength of the other causes, and a softmax over all of them and over "none of
these". The pairs explain away: a fault found upstream (a source that sends other units) accounts for what it does downstream (moved
inputs, a worse model), so the downstream causes lose by it. ``benchmarks/loopbench/calibrate.py`` fits the numbers to planted faults and
writes ``ranking.json``; what that file does not name has the defaults below, set by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from noria.core import Verdict
from noria.diagnosis.tested import Tested

NONE = "none of these"
FILE = Path(__file__).with_name("ranking.json")
SCALE = 1.2
UNKNOWN = 0.03
CLEARED = 0.004
MOST = 0.97
VERDICTS = {Verdict.FAIL: 1.0, Verdict.PASS: -1.0, Verdict.NOT_ENOUGH_DATA: 0.0, Verdict.NOT_MEASURED: 0.0}
EXPLAINED = -3.0
GENERAL = "bad data"
INFERRED = ("label noise", "label definition changed")
"""Faults of data that are not seen as they come in: what is seen accounts for them."""
BESIDE: dict[tuple[str, str], float] = {
    ("covariate shift", "traffic mix"): -3.0,
    ("label shift", "traffic mix"): -2.0,
    ("label shift", "covariate shift"): -0.5,
    ("sudden concept change", "acting changed the outcome"): -3.0,
    ("gradual concept change", "acting changed the outcome"): -3.0,
    ("recurring concept change", "acting changed the outcome"): -3.0,
    ("sudden concept change", "slice failure"): -3.0,
    ("gradual concept change", "slice failure"): -3.0,
    ("recurring concept change", "slice failure"): -3.0,
    ("sudden concept change", "label shift"): -2.0,
    ("gradual concept change", "label shift"): -2.0,
    ("sudden concept change", "recurring concept change"): -1.0,
    ("gradual concept change", "recurring concept change"): -1.0,
    ("slice failure", "traffic mix"): -2.0,
    ("miscalibration", "label shift"): -2.0,
    ("miscalibration", "covariate shift"): -1.0,
    ("miscalibration", "sudden concept change"): -1.5,
    ("miscalibration", "gradual concept change"): -1.5,
    ("metric misaligned", "threshold stale"): -2.0,
    ("better baseline", "sudden concept change"): -2.0,
    ("better baseline", "covariate shift"): 0.0,
    ("better baseline", "label shift"): 0.0,
    ("better baseline", "miscalibration"): 0.0,
    ("miscalibration", "better baseline"): -1.5,
    ("covariate shift", "better baseline"): -1.5,
    ("covariate shift", "bad data"): -1.0,
    ("traffic mix", "bad data"): -1.0,
    ("label noise", "slice failure"): -2.0,
    ("label noise", "acting changed the outcome"): -3.0,
    ("label noise", "feedback loop"): -3.0,
    ("label noise", "label definition changed"): -1.0,
    ("label definition changed", "acting changed the outcome"): -3.0,
    ("label definition changed", "feedback loop"): -3.0,
    ("acting changed the outcome", "label definition changed"): 0.0,
    ("feedback loop", "label definition changed"): 0.0,
    ("acting changed the outcome", "label noise"): 0.0,
    ("feedback loop", "label noise"): 0.0,
    ("acting changed the outcome", "feedback loop"): -3.0,
    ("source truncated", "labels missing"): 0.0,
    ("source late", "time zone shifted"): -3.0,
    ("duplicates", "time zone shifted"): -3.0,
    ("labels missing", "time zone shifted"): -3.0,
    ("labels missing", "join broken"): -2.0,
    ("label delay changed", "time zone shifted"): -2.0,
}
"""(cause, other): what the other's strength adds to the cause's score, between causes of one level."""


@dataclass(frozen=True)
class Parameters:
    """The numbers of the model: by cause, and by (cause, other); what is not named has the default."""

    bias: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    pair: dict[str, dict[str, float]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def fitted() -> Parameters:
    """The parameters of the package's file."""
    read = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return Parameters(read.get("bias", {}), read.get("scale", {}), read.get("pair", {}))


def features(tested: Sequence[Tested]) -> dict[str, float]:
    """The tests' outcomes as flat numbers: ``cause:strength`` (0 to 1), ``cause:verdict`` (1 found, 0 unknown, -1 cleared), and ``cause:test`` (the size
    of each of its tests' estimates in half widths of their interval, at most 10, where there is one).

    >>> from noria.core import Check
    >>> features([Tested("leak", "data", "", (Check("no leak", Verdict.FAIL),), 0.9)])
    {'leak:strength': 0.9, 'leak:verdict': 1.0}
    """
    made: dict[str, float] = {}
    for one in tested:
        made[f"{one.name}:strength"] = strength(one)
        made[f"{one.name}:verdict"] = VERDICTS[one.verdict]
        for check in one.evidence:
            size = check.estimate
            if size is not None and size.value is not None and size.high is not None and size.low is not None:
                half = max((size.high - size.low) / 2, 1e-12)
                made[f"{one.name}:{check.name}"] = float(np.clip(size.value / half, -10, 10))
    return made


def strength(one: Tested) -> float:
    """How strongly a cause was found, 0.004 to 0.97; a little is left to what could not be tested, less to what was cleared."""
    if one.verdict is Verdict.FAIL:
        return float(np.clip(one.strength, 0.05, MOST))
    return CLEARED if one.verdict is Verdict.PASS else UNKNOWN


def probabilities(tested: Sequence[Tested], parameters: Parameters | None = None) -> dict[str, float]:
    """The probability of each cause, and of ``none of these``; together 1.

    >>> from noria.core import Check
    >>> found = Tested("leak", "data", "", (Check("no leak", Verdict.FAIL),), 0.9)
    >>> made = probabilities([found], Parameters())
    >>> made["leak"] > 0.85, round(sum(made.values()), 9)
    (True, 1.0)
    """
    given = fitted() if parameters is None else parameters
    scores = {NONE: given.bias.get(NONE, 0.0)}
    for one in tested:
        share = strength(one)
        score = given.bias.get(one.name, 0.0) + given.scale.get(one.name, SCALE) * float(np.log(share / (1 - share)))
        for other in tested:
            if other.name != one.name and other.verdict is Verdict.FAIL:
                score += pair(one, other, given) * strength(other)
        scores[one.name] = score
    values = np.array(list(scores.values()))
    chances = np.exp(values - values.max())
    chances /= chances.sum()
    return dict(zip(scores, chances.tolist(), strict=True))


def pair(one: Tested, other: Tested, given: Parameters) -> float:
    """What finding ``other`` adds to the score of ``one``."""
    named = given.pair.get(one.name, {})
    if not explainable(one):
        return 0.0
    if other.name in named:
        return named[other.name]
    if (one.name, other.name) in BESIDE:
        return BESIDE[one.name, other.name]
    if one.name == GENERAL and level(other) == 0:
        return EXPLAINED  # the more specific fault of data is the better answer
    return EXPLAINED if level(other) < level(one) else 0.0


def explainable(one: Tested) -> bool:
    """Whether other causes can account for it: not where it was seen itself, and not inferred from what it does."""
    return strength(one) < MOST or one.name == GENERAL


def level(one: Tested) -> int:
    """Where a cause lies on the way of the data: 0 what came in, 1 what was made of it on the way, 2 the world and the model, 3 the purpose."""
    if one.step == "scoping" and one.name not in ("acting changed the outcome", "feedback loop"):
        return 3
    if not one.blocks:
        return 2
    return 0 if one.step == "data" and one.name not in INFERRED else 1
