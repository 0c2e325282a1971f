"""Fits the numbers of the diagnosis's ranking to the runs of the split ``tune``, where the cause is known.

    python benchmarks/loopbench/calibrate.py [--results .cache/loopbench/tune.jsonl] [--write]

The model is that of ``noria.diagnosis.ranking``: a score for each cause (bias + scale · logit of its strength + what other causes that were found
add), and a softmax over all causes and "none of these". The likelihood of a diagnosis is the sum of the probabilities of the causes that name its
fault rightly; a diagnosis that the same days raise without the fault too is right with "none of these". The numbers are held to the defaults by
a ridge, whose size is chosen by cross-validation over faults and their sizes in five parts. A run counts once, however many diagnoses it has.
The same results give the same file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from loopbench import scoring
from loopbench.faults import FAULTS
from loopbench.results import load
from noria.core import Verdict

ROOT = Path(__file__).resolve().parents[2]
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
PARTS = 5
SEEN = 6  # a pair of causes has a number of its own when it was found together in as many diagnoses
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One diagnosis: every cause's logit of strength, how strongly the found ones were found, what they add by default, and which are right.

    ``moved`` says which causes the others may move at all: what was seen itself is not explained away (``ranking.explainable``).
    """

    names: tuple[str, ...]
    logits: Floats
    found: Floats
    moved: NDArray[np.bool_]
    added: Floats
    right: NDArray[np.bool_]  # the last is "none of these"
    weight: float
    part: int


def cases(results: Sequence[dict[str, Any]]) -> list[Case]:
    """The diagnoses of all runs; those of clean runs, and of days that a clean run has too, are of nothing."""
    from noria.diagnosis import ranking

    good = [one for one in results if not one.get("error")]
    clean, made = scoring.twins(good), []
    groups = sorted({(one["spec"]["fault"], one["spec"]["size"]) for one in good})
    for one in good:
        fault = one["spec"]["fault"]
        twin = clean.get(scoring.same(one)) if fault else None
        mine = {json.dumps(d["symptoms"]) for d in scoring.own(one, twin)[1]} if fault else set()
        pairs = [(d, t) for d, t in zip(one["diagnosed"], one["tested"], strict=False) if t.get("features")]
        for diagnosed, tested in pairs:
            about = FAULTS[fault].causes if fault and json.dumps(diagnosed["symptoms"]) in mine else ()
            made.append(_case(ranking, tested, about, 1 / len(pairs), groups.index((fault, one["spec"]["size"])) % PARTS))
    return made


def _case(ranking: Any, tested: dict[str, Any], causes: Sequence[str], weight: float, part: int) -> Case:
    these = [
        SimpleNamespace(name=n, step=step, blocks=blocks, verdict=Verdict(v), strength=tested["features"][f"{n}:strength"])
        for n, v, _, step, blocks in tested["causes"]
    ]
    strength = np.array([one.strength for one in these])
    fails = np.array([one.verdict is Verdict.FAIL for one in these], float)
    moved = np.array([ranking.explainable(one) for one in these])
    default = ranking.Parameters()
    added = np.array([[ranking.pair(a, b, default) if a is not b else 0.0 for b in these] for a in these])
    right = np.array([one.name in causes for one in these] + [not causes])
    if not right.any():
        right[-1] = True
    names = tuple(one.name for one in these)
    return Case(names, np.log(strength / (1 - strength)), fails * strength, moved, added, right, weight, part)


class Model:
    """The ranking's numbers as one vector of departures from their defaults: biases, scales, pairs."""

    def __init__(self, all_cases: Sequence[Case], scale: float, none: str) -> None:
        self.scale, self.none = scale, none
        self.causes = sorted({name for case in all_cases for name in case.names})
        together: dict[tuple[str, str], int] = {}
        for case in all_cases:
            up = [(name, moved) for name, size, moved in zip(case.names, case.found, case.moved, strict=True) if size > 0]
            for pair in ((a, b) for a, moved in up for b, _ in up if a != b and moved):
                together[pair] = together.get(pair, 0) + 1
        self.pairs = sorted(pair for pair, n in together.items() if n >= SEEN)
        self.place = {name: k for k, name in enumerate(self.causes)}
        self.size = 2 * len(self.causes) + 1 + len(self.pairs)

    def design(self, case: Case) -> tuple[Floats, Floats]:
        """The scores under the defaults, and how each departure moves them: (causes + 1,), (causes + 1, size)."""
        n, k = len(case.names), len(self.causes)
        base = np.append(self.scale * case.logits + case.added @ case.found, 0.0)
        moves = np.zeros((n + 1, self.size))
        for row, name in enumerate(case.names):
            moves[row, self.place[name]] = 1.0
            moves[row, k + self.place[name]] = case.logits[row]
        moves[n, 2 * k] = 1.0
        rows = {name: row for row, name in enumerate(case.names)}
        for column, (one, other) in enumerate(self.pairs):
            if one in rows and other in rows and case.moved[rows[one]]:
                moves[rows[one], 2 * k + 1 + column] = case.found[rows[other]]
        return base, moves

    def fit(self, some: Sequence[Case], ridge: float) -> Floats:
        """The departures that make the right causes likeliest, less ``ridge`` times half of their squares."""
        designs = [self.design(case) for case in some]

        def loss(theta: Floats) -> tuple[float, Floats]:
            total, slope = 0.5 * ridge * float(theta @ theta), ridge * theta
            for case, (base, moves) in zip(some, designs, strict=True):
                chances = softmax(base + moves @ theta)
                here = chances * case.right
                total -= case.weight * float(np.log(max(here.sum(), 1e-12)))
                slope = slope - case.weight * (moves.T @ (here / max(here.sum(), 1e-12) - chances))
            return total, slope

        return np.asarray(minimize(loss, np.zeros(self.size), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x)

    def chances(self, case: Case, theta: Floats) -> Floats:
        base, moves = self.design(case)
        return softmax(base + moves @ theta)

    def parameters(self, theta: Floats) -> dict[str, Any]:
        """The file's content; numbers with 4 digits after the point."""
        k = len(self.causes)
        pair: dict[str, dict[str, float]] = {}
        return {
            "bias": {name: round(float(theta[i]), 4) for i, name in enumerate(self.causes)}
            | {self.none: round(float(theta[2 * k]), 4)},
            "scale": {name: round(float(self.scale + theta[k + i]), 4) for i, name in enumerate(self.causes)},
            "pair": pair,
        }


def softmax(scores: Floats) -> Floats:
    made = np.exp(scores - scores.max())
    return np.asarray(made / made.sum())


def log_loss(model: Model, some: Sequence[Case], theta: Floats) -> float:
    """The mean of minus the log of the right causes' probability, over runs."""
    total = sum(case.weight for case in some)
    return sum(-case.weight * float(np.log(max((model.chances(case, theta) * case.right).sum(), 1e-12))) for case in some) / max(
        total, 1e-12
    )


def held_out(model: Model, all_cases: Sequence[Case], ridge: float) -> float:
    """The log loss of each part under the numbers fitted to the others."""
    losses = []
    for part in range(PARTS):
        out = [case for case in all_cases if case.part == part]
        if out:
            theta = model.fit([case for case in all_cases if case.part != part], ridge)
            losses.append((log_loss(model, out, theta), sum(case.weight for case in out)))
    return float(np.average([loss for loss, _ in losses], weights=[weight for _, weight in losses]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / ".cache" / "loopbench" / "tune.jsonl")
    parser.add_argument("--write", action="store_true", help="write src/noria/diagnosis/ranking.json")
    given = parser.parse_args()
    from noria.diagnosis import ranking

    results = {one["key"]: one for one in load(given.results)}
    if any(one["spec"]["split"] != "tune" for one in results.values()):
        sys.exit("the ranking is fitted to the split tune only: what is reported must not have been seen")
    all_cases = cases([results[key] for key in sorted(results)])
    model = Model(all_cases, ranking.SCALE, ranking.NONE)
    none = np.zeros(model.size)
    print(f"{len(all_cases)} diagnoses; log loss with the defaults {log_loss(model, all_cases, none):.3f}")
    losses = {ridge: held_out(model, all_cases, ridge) for ridge in RIDGES}
    for ridge, loss in losses.items():
        print(f"  ridge {ridge:<5} held out {loss:.3f}")
    best = min(losses, key=lambda ridge: losses[ridge])
    theta = model.fit(all_cases, best)
    print(f"ridge {best}: log loss {log_loss(model, all_cases, theta):.3f} on what it was fitted to")
    made = model.parameters(theta)
    for (one, other), size in zip(model.pairs, theta[2 * len(model.causes) + 1 :], strict=True):
        default = pair_default(all_cases, one, other)
        made["pair"].setdefault(one, {})[other] = round(float(default + size), 4)
    if given.write:
        (ROOT / "src" / "noria" / "diagnosis" / "ranking.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def pair_default(all_cases: Sequence[Case], one: str, other: str) -> float:
    """What ``other`` adds to ``one`` by default."""
    for case in all_cases:
        if one in case.names and other in case.names and case.moved[case.names.index(one)]:
            return float(case.added[case.names.index(one), case.names.index(other)])
    return 0.0


if __name__ == "__main__":
    main()
