"""The rules of a declaration: decisions, objective, candidates, and the conditions for going live."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from noria.core import Problem, SettingsError, duration
from noria.data.checklive import check_live
from noria.measure import OUTCOME, PER_PREDICTION, outcome_of, parse_policy
from noria.stats.metrics import METRICS
from noria.system import AtLeast, AtMost, Boosting, Candidate, Estimator, Last, Linear, Seasonal, System

COMBINED = 8
ORDERING = ("auc", "average_precision")
OPERATIONAL = ("latency_p99_ms", "bundle_mb")
TRIGGERS = ("decay", "drift", "volume")
STATES = ("stateless", "stateful", "compare")
STYLES = ("canary", "blue-green", "bandit")
_POLICIES = {
    "expected": ("binary",),
    "threshold": ("binary",),
    "largest": ("binary", "multiclass"),
    "score": ("regression",),
    "quantile": ("regression",),
    "human": ("binary", "multiclass", "regression"),
}


def check_rules(system: System, predicted: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Problems of everything that is neither a source, an expression nor a feature."""
    columns = None if predicted is None else set(predicted) | {f.name for f in system.flat_features}
    yield from _decide(system)
    yield from _objective(system, columns)
    yield from _candidates(system, predicted)
    yield from _parts(system)
    yield from _gate(system)
    yield from _rollout(system, predicted)
    yield from check_live(system)
    yield from _retrain(system)
    yield from _alerts(system)
    yield from _costs(system)
    yield from _combine(system)


def _span(place: str, text: Any, *, positive: bool = True) -> Iterator[Problem]:
    try:
        found = duration(text)
    except (SettingsError, TypeError):
        yield Problem(place, f"{text!r} is not a duration", 'write for example "10m", "8h", "14d" or "2w"')
        return
    if positive and not found:
        yield Problem(place, f"{text!r} is no time at all", "it has to be longer than nothing")


def _share(place: str, value: Any, *, low: float = 0.0, high: float = 1.0, open_ends: bool = False) -> Iterator[Problem]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value < high if open_ends else low <= value <= high):
        yield Problem(place, f"{value!r} is no share", f"it lies {'strictly ' if open_ends else ''}between {low:g} and {high:g}")


def _decide(system: System) -> Iterator[Problem]:
    decide = system.decide
    try:
        policy = parse_policy(decide.policy)
    except (ValueError, AttributeError, TypeError) as error:
        yield Problem("decide.policy", str(error), "copy one of these and change its number")
    else:
        if system.task not in _POLICIES.get(policy.kind, (system.task,)):
            fitting = ", ".join(kind for kind, tasks in _POLICIES.items() if system.task in tasks)
            yield Problem("decide.policy", f"{decide.policy!r} does not fit a {system.task} label", f"these do: {fitting}")
    yield from _share("decide.explore", decide.explore)
    yield from _share("decide.holdout", decide.holdout)
    if len(decide.acts) < 2 or len(set(map(repr, decide.acts))) < len(decide.acts):
        yield Problem("decide.acts", f"{decide.acts!r} leaves no choice", "name at least two different acts")


def _objective(system: System, columns: set[str] | None) -> Iterator[Problem]:
    objective = system.objective
    if not str(objective.problem).strip():
        yield Problem("objective.problem", "there is no business problem", "say in a sentence what costs or earns money today")
    metric = METRICS.get(objective.metric)
    fitting = ", ".join(name for name, some in METRICS.items() if system.task in some.tasks)
    if metric is None:
        yield Problem("objective.metric", f"{objective.metric!r} is not known", f"for a {system.task} label: {fitting}")
    elif system.task not in metric.tasks:
        yield Problem("objective.metric", f"{objective.metric!r} does not fit a {system.task} label", f"these do: {fitting}")
    value = objective.value
    if value.low is not None and value.high is not None and not value.low < value.high:
        yield Problem(
            "objective.value.low",
            f"low={value.low} is not below high={value.high}",
            "low is the worst a decision can be worth, high the best",
        )
    for place, guard in enumerate(objective.guardrails):
        where = f"objective.guardrails[{place}]"
        if not isinstance(guard, AtMost | AtLeast):
            yield Problem(
                where, f"it is a {type(guard).__name__}", 'write AtMost("latency_p99_ms", 20) or AtLeast("precision", 0.3)'
            )
        elif guard.metric.startswith(OUTCOME):
            if outcome_of(system, guard.metric) is None:
                named = ", ".join(f"{OUTCOME}{name}" for name in system.outcomes) or "no outcome is declared"
                yield Problem(where, f"{guard.metric!r} is no declared outcome", f"System(outcomes=...) has: {named}")
        elif guard.metric not in METRICS and guard.metric not in (*OPERATIONAL, PER_PREDICTION):
            known = ", ".join((*OPERATIONAL, PER_PREDICTION))
            yield Problem(where, f"{guard.metric!r} is not known", f"it is a metric ({fitting}), {known} or {OUTCOME}NAME")
        elif guard.metric in METRICS and system.task not in METRICS[guard.metric].tasks:
            yield Problem(where, f"{guard.metric!r} does not fit a {system.task} label", f"these do: {fitting}")
    for part in ("slices", "sensitive"):
        for name in getattr(objective, part):
            if columns is not None and name not in columns:
                yield Problem(
                    f"objective.{part}", f"there is no column or feature {name!r}", f"there are {', '.join(sorted(columns))}"
                )


def _candidates(system: System, predicted: Mapping[str, Any] | None) -> Iterator[Problem]:
    if not system.recipes:
        yield Problem("candidates", "there is none", "begin with Prior() and Linear()")
    elif not any(recipe.is_baseline for recipe in system.recipes):
        yield Problem("candidates", "there is no baseline to beat", "add Prior(), Last(), Seasonal() or a Rule(…)")
    names: dict[str, int] = {}
    for place, recipe in enumerate(system.recipes):
        where = f"candidates[{place}] ({recipe.name})"
        key = repr(recipe) if isinstance(recipe, Last | Seasonal) else recipe.name
        if key in names:
            yield Problem(where, f"candidates[{names[key]}] has the same name", "give one of them a title")
        names.setdefault(key, place)
        if isinstance(recipe, Estimator) and not (hasattr(recipe.estimator, "fit") and hasattr(recipe.estimator, "predict")):
            yield Problem(
                where,
                f"a {type(recipe.estimator).__name__} has no fit and predict",
                "give a scikit-learn estimator or one of Noria's candidates",
            )
        if isinstance(recipe, Last | Seasonal):
            by = (recipe.by,) if isinstance(recipe.by, str) else tuple(recipe.by)
            for name in by:
                if predicted is not None and name not in predicted:
                    yield Problem(
                        f"{where}.by", f"the predicted row has no column {name!r}", f"it has {', '.join(sorted(predicted))}"
                    )
        if isinstance(recipe, Seasonal):
            yield from _span(f"{where}.period", recipe.period)
            if system.task == "multiclass":
                yield Problem(where, "a mean of classes has no meaning", "take Last() or Prior()")
        if isinstance(recipe, Linear | Boosting) and recipe.trials < 1:
            yield Problem(f"{where}.trials", f"{recipe.trials} trials try nothing", "at least 1")
        if not isinstance(recipe, Candidate):
            yield Problem(where, f"it is a {type(recipe).__name__}", "give a candidate or a scikit-learn estimator")


def _parts(system: System) -> Iterator[Problem]:
    parts = system.parts
    for name in ("least", "validate", "test", "fresh"):
        yield from _span(f"parts.{name}", getattr(parts, name))
    if parts.train is not None:
        yield from _span("parts.train", parts.train)
        try:
            if duration(parts.train) < duration(parts.least):
                yield Problem(
                    "parts.train",
                    f"train={parts.train!r} is shorter than least={parts.least!r}",
                    "then there would never be a training set",
                )
        except (SettingsError, TypeError):
            return


def _gate(system: System) -> Iterator[Problem]:
    gate = system.gate
    if not isinstance(gate.margin, int | float) or gate.margin < 0:
        yield Problem("gate.margin", f"{gate.margin!r} is no margin", "a share of the champion's gain, from 0")
    yield from _share("gate.confidence", gate.confidence, open_ends=True)
    if not isinstance(gate.blocks, int) or gate.blocks < 2:
        yield Problem("gate.blocks", f"{gate.blocks!r} blocks give no interval", "at least 2; 10 is sensible")
    yield from _span("gate.block", gate.block)


def _rollout(system: System, predicted: Mapping[str, Any] | None) -> Iterator[Problem]:
    rollout = system.rollout
    yield from _span("rollout.shadow", rollout.shadow, positive=False)
    yield from _span("rollout.step", rollout.step)
    yield from _span("rollout.patience", rollout.patience)
    yield from _share("rollout.error", rollout.error, open_ends=True)
    shares = tuple(rollout.canary)
    for share in shares:
        yield from _share("rollout.canary", share, open_ends=True)
    if list(shares) != sorted(set(shares)):
        yield Problem("rollout.canary", f"the shares {shares!r} do not grow", "write for example (0.05, 0.25)")
    if rollout.unit is not None and predicted is not None and rollout.unit not in predicted:
        yield Problem(
            "rollout.unit", f"the predicted row has no column {rollout.unit!r}", f"it has {', '.join(sorted(predicted))}"
        )
    label = system.label
    if rollout.style != "blue-green" and not shares and (label.affected_by_action or label.observed_when is not None):
        yield Problem(
            "rollout.canary", "without shares there are no arms, and only they could decide", "write for example (0.05, 0.25)"
        )
    try:
        if duration(rollout.patience) < duration(rollout.shadow):
            yield Problem(
                "rollout.patience",
                f"patience={rollout.patience!r} ends before shadow={rollout.shadow!r}",
                "patience is the longest time in shadow",
            )
    except (SettingsError, TypeError):
        return


def _retrain(system: System) -> Iterator[Problem]:
    retrain = system.retrain
    if retrain.every is not None:
        yield from _span("retrain.every", retrain.every)
    yield from _span("retrain.cooldown", retrain.cooldown, positive=False)
    unknown = [name for name in retrain.on if name not in TRIGGERS]
    if unknown:
        yield Problem("retrain.on", f"{unknown[0]!r} is not known", f"any of {', '.join(TRIGGERS)}")
    if not retrain.growth > 0:
        yield Problem("retrain.growth", f"{retrain.growth!r} is no growth", "1.0 is twice the labels")
    if retrain.budget is not None and retrain.budget < 1:
        yield Problem("retrain.budget", f"{retrain.budget!r} trainings a year train nothing", "at least 1, or None")
    if retrain.state not in STATES:
        yield Problem("retrain.state", f"{retrain.state!r} is not known", f"one of {', '.join(STATES)}")


def _alerts(system: System) -> Iterator[Problem]:
    alerts = system.alerts
    yield from _span("alerts.per", alerts.per)
    if not _positive(alerts.false_alarms):
        yield Problem(
            "alerts.false_alarms",
            f"{alerts.false_alarms!r} is no budget",
            "a number above 0: so many in `per`; 0.5 is one in twice as long",
        )
    if alerts.severe is not None and not _positive(alerts.severe):
        yield Problem(
            "alerts.severe", f"{alerts.severe!r} is no value at stake", "an amount above 0 in the value's currency, or None"
        )
    for name, text in dict(alerts.runbooks).items():
        if not isinstance(text, str) or not text.strip():
            yield Problem(f"alerts.runbooks.{name}", "there is nothing to read", "say what to do, or where it is written")


def _costs(system: System) -> Iterator[Problem]:
    for field in fields(system.costs):
        amount = getattr(system.costs, field.name)
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            yield Problem(f"costs.{field.name}", f"{amount!r} is no cost", "an amount in the value's currency, 0 or more")


def _combine(system: System) -> Iterator[Problem]:
    if system.combine is None:
        return
    weights = dict(system.combine.weights)
    if not 1 <= len(weights) <= COMBINED:
        yield Problem("combine.weights", f"{len(weights)} outcomes are named", f"name 1 to {COMBINED} of System(outcomes=...)")
    for name, weight in weights.items():
        if name not in system.outcomes:
            there = ", ".join(system.outcomes) or "none is declared"
            yield Problem(f"combine.weights.{name}", f"{name!r} is no declared outcome", f"System(outcomes=...) has: {there}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            yield Problem(
                f"combine.weights.{name}", f"{weight!r} is no weight", "a finite number; below 0 ranks lower what has more of it"
            )
    if system.task != "binary":
        yield Problem("combine", f"it does not fit a {system.task} label", "only a binary label's log-odds can be added to")
    elif system.objective.metric not in ORDERING:
        hint = f"take one of order: {', '.join(ORDERING)}"
        yield Problem("combine", f"the combined score is no probability, which {system.objective.metric!r} measures", hint)
    if system.task == "binary" and not system.decide.policy.strip().startswith("act when score"):
        yield Problem(
            "combine",
            f"the combined score is no probability, which {system.decide.policy!r} takes it for",
            'write "act when score > best"',
        )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
