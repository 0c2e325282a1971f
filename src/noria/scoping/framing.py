"""Is the question asked in the right form, and in which other forms could it be asked?"""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlglot
from sqlglot import exp

from noria.core import Check, DeclarationError, Estimate, Problem, Verdict
from noria.measure import parse_policy
from noria.scoping.probe import Study
from noria.stats import METRICS, better
from noria.system import System

LEAST_PER_CLASS = 100
_SAID = {
    "binary": "binary classification: will it be so?",
    "multiclass": "multiclass classification: which of several?",
    "regression": "regression: how much?",
}


def refuse_unfounded(system: System) -> None:
    """Raises ``DeclarationError`` for what no charter can be written without; nothing about the data is looked at."""
    problems: list[Problem] = []
    if not system.objective.problem.strip():
        problems.append(
            Problem("objective.problem", "there is no business problem", "say in words what the business loses today")
        )
    for name, source in system.sources.items():
        if not source.owner.strip():
            problems.append(Problem(f"sources.{name}.owner", "nobody answers for this source", "name an owner"))
    if not any(recipe.is_baseline for recipe in system.recipes):
        hint = "add Prior(), Last(...), Seasonal(...) or Rule(...) to the candidates"
        problems.append(Problem("candidates", "there is no baseline to promise anything against", hint))
    problems += _output_problems(system)
    if problems:
        raise DeclarationError(problems, where="the charter")


def _output_problems(system: System) -> list[Problem]:
    """Outputs that do not fit the task: a metric of another task, a policy that needs another score."""
    task, problems = system.task, []
    metric = METRICS.get(system.objective.metric)
    if metric is None or task not in metric.tasks:
        fitting = ", ".join(name for name, each in METRICS.items() if task in each.tasks)
        what = f"the metric {system.objective.metric!r} is not for a {task} label"
        problems.append(Problem("objective.metric", what, f"one of {fitting}"))
    try:
        kind = parse_policy(system.decide.policy).kind
    except ValueError as error:
        return [*problems, Problem("decide.policy", str(error))]
    if kind in ("score", "quantile") and task != "regression":
        what = f"the policy {system.decide.policy!r} acts by an amount, and a {task} label has none"
        problems.append(Problem("decide.policy", what, 'use "act when expected value > 0" or make the label a number'))
    if kind == "threshold" and task == "multiclass":
        what = f"the policy {system.decide.policy!r} needs one score, and several classes have one each"
        problems.append(Problem("decide.policy", what, 'use "largest expected value"'))
    return problems


def describe(system: System) -> str:
    """The framing in words: inputs, output, objective."""
    inputs = len(system.flat_features)
    return f"{_SAID[system.task]} {inputs} features, asked of each prediction; judged by {system.objective.metric} and by value"


def alternatives(system: System, study: Study) -> tuple[str, ...]:
    """Other framings, a sentence each."""
    found: list[str] = []
    cut = _comparison(system.label.expression)
    if system.task == "binary" and cut is not None:
        found.append(f"regression of {cut[0]}, cut at {cut[1]} when deciding: one model then serves every other cut too")
    elif system.task == "binary":
        found.append("regression of how long until it happens (or how much), if the sources tell: more is learned from each row")
    if system.task == "regression":
        found.append(
            "binary: whether the number exceeds the cut at which the decision changes; easier when only that cut matters"
        )
        found.append("a quantile instead of the mean, when too much and too little cost differently")
    if system.task == "multiclass":
        found.append("one binary model a class, when classes are not exclusive or are acted on by different people")
        if _new_classes(study):
            found.append(
                "binary over (row, class) pairs with features of the class: new classes keep appearing, and a classifier over a fixed "
                "list has to be trained again for each"
            )
    return tuple(found)


def _comparison(expression: str) -> tuple[str, str] | None:
    """The two sides of ``something >= constant``, as text."""
    try:
        node: Any = sqlglot.parse_one(expression, read="duckdb")
    except sqlglot.errors.ParseError:
        return None
    kinds = exp.GT | exp.GTE | exp.LT | exp.LTE
    if isinstance(node, kinds) and isinstance(node.expression, exp.Literal | exp.Neg):
        return node.this.sql(dialect="duckdb"), node.expression.sql(dialect="duckdb")
    return None


def _new_classes(study: Study) -> bool:
    return bool(set(study.raw[study.late]) - set(study.raw[study.early])) if len(study.early) else False


def output_check(study: Study) -> Check:
    """Whether the labels look like what the task says."""
    name, seen = "output type", np.unique(study.raw)
    if study.task == "regression" and len(seen) <= 2:
        said = f"a regression label with {len(seen)} distinct values: declare task='binary'"
        return Check(name, Verdict.FAIL, detail=said)
    if study.task == "binary" and not set(seen.tolist()) <= {0.0, 1.0}:
        return Check(name, Verdict.FAIL, detail="a binary label with other values than true and false: declare task='regression'")
    if study.task == "multiclass" and len(np.unique(study.raw)) > 0.5 * len(study.raw):
        return Check(name, Verdict.FAIL, detail="almost every row has a class of its own: the label is an identifier or a number")
    return Check(name, Verdict.PASS, detail=f"{study.task}, {len(seen)} distinct values")


def cardinality_check(counts: dict[str, int]) -> Check:
    """About a hundred examples a class at least (a rule of thumb); ``counts`` is over all classes.

    >>> cardinality_check({"a": 500, "b": 3}).detail
    '1 of 2 classes have fewer than 100 examples: b'
    """
    rare = sorted(name for name, n in counts.items() if n < LEAST_PER_CLASS)
    name = "examples a class"
    least = Estimate(float(min(counts.values(), default=0)), n=len(counts))
    if not rare:
        return Check(name, Verdict.PASS, estimate=least, bound=LEAST_PER_CLASS)
    shown = ", ".join(rare[:5]) + (", …" if len(rare) > 5 else "")
    said = f"{len(rare)} of {len(counts)} classes have fewer than {LEAST_PER_CLASS} examples: {shown}"
    return Check(name, Verdict.FAIL, estimate=least, bound=LEAST_PER_CLASS, detail=said)


def target_checks(system: System) -> list[Check]:
    """The target against what people and today's solution reach. A target that nobody reaches is flagged."""
    objective, made = system.objective, []
    if objective.target is None:
        return []
    sign = better(objective.metric)
    for name, reached in (("human", objective.human), ("existing", objective.existing)):
        if reached is None:
            continue
        beyond = sign * (objective.target - reached) > 0
        verdict = Verdict.FAIL if beyond and name == "human" else Verdict.PASS
        better_or_not = "better" if beyond else "not better"
        said = f"the target {objective.target:g} is {better_or_not} than {name} performance ({reached:g}) in {objective.metric}"
        made.append(Check(f"target against {name}", verdict, estimate=Estimate(objective.target), bound=reached, detail=said))
    return made
