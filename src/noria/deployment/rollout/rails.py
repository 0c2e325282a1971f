"""Declared guardrails and the objective's metric, on a challenger's own rows of closed cohorts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from noria import stats
from noria.core import Check, Estimate, Verdict
from noria.deployment.bundles import Bundles
from noria.deployment.rollout import arms
from noria.deployment.rollout.worth import Floats, labels, numbers
from noria.measure import PER_PREDICTION, blocks_of, business_numbers, business_rails, parse_policy
from noria.stats.ratio import parts
from noria.system import AtLeast, AtMost, System

RATIOS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Said:
    """What one model said of some closed rows: ``score`` is (n,), or (n, classes) for multiclass; ``weight`` is 0 where a row does not count."""

    label: Floats
    score: Floats
    act: Floats
    weight: Floats
    days: arms.Ints
    units: arms.Names
    business: dict[str, Floats] = field(default_factory=dict)

    def parts(self, system: System, metric: str) -> tuple[Floats, Floats]:
        """The metric as a ratio of two sums over these rows."""
        if metric in self.business:
            known = np.isfinite(self.business[metric])
            return np.where(known, self.business[metric], 0.0), known.astype(float)
        act = np.where(np.isfinite(self.act), self.act > 0, np.nan) if metric in RATIOS else None
        quantile = parse_policy(system.decide.policy).quantile
        return parts(metric, self.label, self.score, act=act, weights=self.weight, quantile=quantile)


def told(system: System, bundles: Bundles, sha256: str, frame: pl.DataFrame, act: Floats, *, shadow: bool) -> Said:
    """The rows of ``frame`` as a metric needs them; ``shadow``: the model's scores are those that it gave in shadow.

    Where acting changes the label only rows that were not acted on count, each for as many as its propensity says.
    """
    prefix = "_shadow_score" if shadow else "_score"
    score = numbers(frame[prefix])
    label = labels(system, frame)
    if system.task == "multiclass":
        classes = bundles.get(sha256).spec.classes
        places = {name: float(place) for place, name in enumerate(classes)}
        label = np.array([places.get(name, np.nan) for name in label.tolist()])
        rows = frame[f"{prefix}s"].to_list()
        score = np.array([row if row is not None else [np.nan] * len(classes) for row in rows], float).reshape(frame.height, -1)
    weight = np.ones(frame.height)
    if system.label.affected_by_action:
        taken, chance = numbers(frame["_act"]), numbers(frame["_act_propensity"])
        weight = np.where(np.nan_to_num(taken) == 0, 1 / np.where(np.isfinite(chance), chance, 1.0), 0.0)
    days = blocks_of(frame["_time"], system.gate.block)
    units = frame["_unit"].to_numpy().astype(str)
    return Said(np.asarray(label, float), score, act, weight, days, units, _business(system, bundles, frame, act, shadow=shadow))


def _business(system: System, bundles: Bundles, frame: pl.DataFrame, act: Floats, *, shadow: bool) -> dict[str, Floats]:
    """What each business guardrail is the mean of, by its name. What came of another model's act says nothing of this one's outcomes."""
    found = {}
    own = system.label.affected_by_action or system.label.observed_when is not None
    for rail in business_rails(system):
        if shadow and (own or rail.metric != PER_PREDICTION):
            found[rail.metric] = np.full(frame.height, np.nan)
        else:
            taken, score = numbers(frame["_act"]) if own else act, numbers(frame["_shadow_score" if shadow else "_score"])
            found[rail.metric] = business_numbers(bundles.home.engine, system, rail.metric, frame, taken, score)
    return found


def joined(some: list[Said]) -> Said | None:
    """Several stretches of rows as one."""
    if not some:
        return None
    columns = ("label", "score", "act", "weight", "days", "units")
    business = {name: np.concatenate([one.business[name] for one in some]) for name in some[0].business}
    label, score, act, weight, days, units = (np.concatenate([getattr(one, name) for one in some]) for name in columns)
    return Said(label, score, act, weight, days, units, business)


def declared(system: System) -> list[AtMost | AtLeast]:
    """The guardrails that closed outcomes can say something about."""
    by_metric = [
        rail
        for rail in system.objective.guardrails
        if rail.metric in stats.METRICS and system.task in stats.METRICS[rail.metric].tasks
    ]
    return by_metric + business_rails(system)


def guardrails(system: System, mine: Said | None, *, error: float, looks: int) -> tuple[Check, ...]:
    """Each declared bound on a metric, against the challenger's own rows.

    The interval holds with days as the observations, at every look, and with units as the observations (a look's share of the error). Wholly
    beyond the bound fails. Without an interval yet a value beyond the bound is not enough data, and so is no value at all.
    """
    rails = declared(system)
    made = []
    for rail in rails:
        found = Estimate(None)
        if mine is not None:
            over, under = mine.parts(system, rail.metric)
            part = error / len(rails)
            by_day = stats.ratio_sequence(over, under, mine.days, error=part, least=system.gate.blocks)
            keep = under > 0 if rail.metric not in RATIOS else mine.weight > 0
            if rail.metric in mine.business and not keep.any():
                detail = f"{rail.metric} is known only of rows that the challenger answers"
                made.append(Check("guardrail", Verdict.NOT_MEASURED, rail.metric, bound=rail.bound, detail=detail))
                continue
            by_unit = stats.ratio(over[keep], under[keep], mine.units[keep], confidence=1 - part / looks)
            found = arms.widest(by_day, by_unit)
        made.append(_bounded(rail, found))
    return tuple(made)


def _bounded(rail: AtMost | AtLeast, found: Estimate) -> Check:
    least = isinstance(rail, AtLeast)
    sign = 1.0 if least else -1.0
    broken = found.below(rail.bound) if least else found.above(rail.bound)
    if broken:
        verdict = Verdict.FAIL
    elif found.value is None or (not found.known and sign * (found.value - rail.bound) < 0):
        verdict = Verdict.NOT_ENOUGH_DATA
    else:
        verdict = Verdict.PASS
    detail = f"{rail.metric} of the challenger's own rows is {found}; at {'least' if least else 'most'} {rail.bound:g} is asked"
    return Check("guardrail", verdict, rail.metric, found, rail.bound, detail)


def metric_on_the_same_rows(system: System, mine: Said, other: Said, *, error: float) -> Check:
    """How much better the challenger is by the objective's metric; shown, and deciding nothing: the value decides."""
    metric = system.objective.metric
    one = np.isfinite(mine.score).all(axis=1) if mine.score.ndim == 2 else np.isfinite(mine.score)
    two = np.isfinite(other.score).all(axis=1) if other.score.ndim == 2 else np.isfinite(other.score)
    label = np.where(one & two, mine.label, np.nan)
    quantile = parse_policy(system.decide.policy).quantile
    keep, left, _ = stats.linear(metric, label, mine.score, quantile=quantile)
    _, right, _ = stats.linear(metric, label, other.score, quantile=quantile)
    difference = np.full(len(keep), np.nan)
    difference[keep] = stats.better(metric) * (left - right)
    return _note(metric, arms.paired(difference, mine.days, error=error, least=system.gate.blocks), "on the same rows")


def metric_between_the_arms(system: System, mine: Said, other: Said, *, confidence: float) -> Check:
    """The same between the arms, where each model has outcomes only for its own rows; units are the observations."""
    metric = system.objective.metric
    (over1, under1), (over0, under0) = mine.parts(system, metric), other.parts(system, metric)
    sign = float(stats.better(metric))
    over, under = np.concatenate([over1, over0]) * sign, np.concatenate([under1, under0])
    challenger = np.repeat([True, False], [len(over1), len(over0)])
    found = stats.ratio_difference(over, under, challenger, np.concatenate([mine.units, other.units]), confidence=confidence)
    return _note(metric, found, "between the arms")


def _note(metric: str, found: Estimate, where: str) -> Check:
    side = "no clear difference"
    if found.above(0.0) or found.below(0.0):
        side = "better" if found.above(0.0) else "worse: the value decides, and the metric may not serve it"
    detail = f"the challenger's {metric} {where}, positive is better: {side}"
    return Check("metric", Verdict.NOT_MEASURED, metric, found, 0.0, detail)
