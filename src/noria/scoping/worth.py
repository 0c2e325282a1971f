"""The money of a study: the trivial policies, what a score's best decisions are worth, and the break-even."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate, digest
from noria.measure import Decision, act, numeric_act, outcome_means, parse_policy, policies, value
from noria.records import Standing
from noria.scoping import money
from noria.scoping.probe import Floats, Study
from noria.stats import block_mean
from noria.system import System

if TYPE_CHECKING:
    from noria.store.engine import Engine

_SAMPLE = 4000


def labels_of(study: Study, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
    """Labels as ``measure.value`` wants them: numbers, or class names."""
    if study.task != "multiclass":
        return study.label if rows is None else study.label[rows]
    names = study.frame["_class"].to_numpy()
    return names if rows is None else names[rows]


def policy_standings(engine: Engine, system: System, study: Study) -> tuple[Standing, ...]:
    """Doing nothing, always acting and a perfect prediction: value per prediction over all closed rows."""
    made = policies(engine, system, study.frame, labels_of(study))
    least = system.gate.blocks
    return tuple(
        Standing(name, value=block_mean(worth, study.blocks, weights=study.weights, least=least)) for name, worth in made.items()
    )


def best_trivial(engine: Engine, system: System, study: Study) -> tuple[str, Floats]:
    """The better of doing nothing and always acting on the later half, and its value per row there."""
    rows = study.late
    made = policies(engine, system, study.frame[rows.tolist()], labels_of(study, rows))
    weights = study.weights[rows]
    trivial = {name: made[name] for name in ("do nothing", "always act")}
    name = max(trivial, key=lambda each: float(np.nansum(trivial[each] * weights)))
    return name, trivial[name]


def reachable(engine: Engine, system: System, study: Study, score: Floats) -> Floats:
    """Value per later row of the best decisions on this score.

    Amounts follow the declared policy; choices are made by expected value, whatever threshold (or person) is declared, because the
    question is what could be reached.
    """
    rows = study.frame[study.late.tolist()]
    policy = parse_policy(system.decide.policy)
    if numeric_act(system):
        decision = Decision(policy.kind, quantile=policy.quantile)
    else:
        earlier = study.frame[study.early.tolist()]
        means = outcome_means(system, earlier, labels_of(study, study.early), classes=study.classes)
        decision = Decision("largest", classes=study.classes, outcomes=means)
    done = act(engine, system, decision, score, rows)
    return value(engine, system, rows, done, labels_of(study, study.late), score)


def value_of(engine: Engine, system: System, study: Study, score: Floats, *, least: int) -> Estimate:
    """``reachable`` as an estimate per prediction."""
    worth = reachable(engine, system, study, score)
    return block_mean(worth, study.blocks[study.late], weights=study.weights[study.late], least=least)


def difference_of_acting(study: Study, a: Floats, b: Floats, *, least: int) -> Estimate:
    """Value per prediction of ``a`` over ``b`` on the later half, paired."""
    return block_mean(a - b, study.blocks[study.late], weights=study.weights[study.late], least=least)


def stakes(engine: Engine, system: System, study: Study) -> tuple[float, float, float] | None:
    """(base rate, what acting adds when true, what it adds when false), on average; ``None`` unless acting or not is the choice."""
    if system.task != "binary" or numeric_act(system) or len(system.decide.acts) != 2:
        return None
    label, weights = study.label, study.weights
    n = len(label)
    worth = [value(engine, system, study.frame, np.full(n, float(a)), label) for a in (0, 1)]
    added = worth[1] - worth[0]
    sides = []
    for side in (1.0, 0.0):
        rows = (label == side) & np.isfinite(added)
        if not rows.any():
            return None
        sides.append(float(added[rows] @ weights[rows] / weights[rows].sum()))
    return float(label @ weights / weights.sum()), sides[0], sides[1]


def break_even(engine: Engine, system: System, study: Study) -> float | None:
    """The least AUC (binary) or R² (regression) that makes more than the best trivial policy; ``None`` when none does.

    For several classes there is no single number: ``None`` too.
    """
    found = stakes(engine, system, study)
    if found is not None:
        return money.break_even(*found)
    if system.task != "regression" or len(study.label) < 2:
        return None
    thin = np.arange(0, len(study.label), -(-len(study.label) // _SAMPLE))
    rows, label = study.frame[thin.tolist()], study.label[thin]
    made = policies(engine, system, rows, label)
    trivial = max(float(np.nanmean(made[name])) for name in ("do nothing", "always act"))
    policy, means = parse_policy(system.decide.policy), outcome_means(system, rows, label)

    def worth(prediction: Floats) -> float:
        offset = float(np.quantile(label - prediction, policy.quantile)) if policy.quantile is not None else 0.0
        kind = policy.kind if numeric_act(system) else "largest"
        decision = Decision(kind, offset=offset, quantile=policy.quantile, outcomes=means)
        done = act(engine, system, decision, prediction, rows)
        return float(np.nanmean(value(engine, system, rows, done, label, prediction)))

    seed = int(digest(["break-even", system.id])[:8], 16)
    return money.break_even_r2(label, worth, trivial, float(np.nanmean(made["perfect"])), seed=seed)
