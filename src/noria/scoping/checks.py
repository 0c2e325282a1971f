"""The checks of a charter: each says pass, fail or not enough data, and what a failure means for the decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.scoping import lookup
from noria.scoping.probe import Study
from noria.scoping.study import rules_of
from noria.scoping.worth import best_trivial, difference_of_acting, reachable
from noria.stats import estimate, paired
from noria.system import System

if TYPE_CHECKING:
    from noria.store.engine import Engine

LEAST_EACH = 100
LEAST_ROWS = 1000
RULE_SHARE = 0.95
PROBES = ("linear", "boosting")


def least_blocks(system: System) -> int:
    """How many blocks of closed cohorts a charter takes: enough for an interval on the later half."""
    return max(2 * system.gate.blocks, 20)


@dataclass
class Findings:
    """What was found, on the way to a decision: ``stops`` are no-go reasons, ``limits`` make it partial."""

    checks: list[Check] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)

    def add(self, check: Check, *, stop: str = "", limit: str = "", unknown: str = "") -> Check:
        """Keeps a check; its failure stops or limits, its not being known limits when ``unknown`` says so."""
        self.checks.append(check)
        if check.verdict is Verdict.FAIL and stop:
            self.stops.append(stop)
        elif check.verdict is Verdict.FAIL and limit:
            self.limits.append(limit)
        elif check.verdict is Verdict.NOT_ENOUGH_DATA and unknown:
            self.limits.append(unknown)
        return check

    @property
    def decision(self) -> Literal["go", "no-go", "partial"]:
        return "no-go" if self.stops else "partial" if self.limits else "go"


def label_counts(system: System, study: Study) -> dict[str, int]:
    """Rows by label: ``false`` and ``true``, each class, or all ``labels`` of a regression."""
    if system.task == "regression":
        return {"labels": len(study.label)}
    if system.task == "binary":
        positive = int(study.label.sum())
        return {"false": len(study.label) - positive, "true": positive}
    made = study.frame["_class"].value_counts()
    return dict(sorted(zip(made["_class"].to_list(), made["count"].to_list(), strict=True)))


def enough_data(system: System, study: Study, counts: dict[str, int]) -> Check:
    """Whether there are labels enough, over blocks enough, to say anything."""
    blocks = len(np.unique(study.blocks))
    total = sum(counts.values())
    least = min(counts.values(), default=0) if system.task == "binary" else total
    bound = LEAST_EACH if system.task == "binary" else LEAST_ROWS
    fine = least >= bound and blocks >= least_blocks(system) and len(study.early) > 0
    said = f"{total} labels in {blocks} blocks; asked for: {bound} and {least_blocks(system)} blocks"
    return Check(
        "enough data", Verdict.PASS if fine else Verdict.FAIL, estimate=Estimate(float(least), n=blocks), bound=bound, detail=said
    )


def statements(system: System, found: Findings) -> None:
    """What a person said about fitness: only a warning is a check."""
    said = system.objective.fitness
    if said.unethical:
        check = Check("ethics", Verdict.FAIL, detail=said.unethical)
        found.add(check, stop=f"ethics: {said.unethical}; a second reviewer has to lift this")
    if said.simpler_solution:
        check = Check("simpler solution", Verdict.FAIL, detail=said.simpler_solution)
        found.add(check, limit=f"rule first: a simpler solution suffices: {said.simpler_solution}")
    if said.only_for:
        found.add(Check("only for a part", Verdict.FAIL, detail=said.only_for), limit=f"ML only for: {said.only_for}")


def learnable(study: Study, found: Findings, *, least: int) -> str | None:
    """Checks the probes against the prior; the name of the best of them, by the mean.

    Learnable is: one of the probes is better than the prior on later rows, in the proper score or (binary) in AUC, each at 95 % after
    Bonferroni's correction for the looks. So a fair die passes in at most one of twenty cases.
    """
    label, blocks = study.label[study.late], study.blocks[study.late]
    weights = study.weights[study.late]
    probes = [name for name in PROBES if name in study.scores]
    looks = max(1, len(probes) * (2 if study.task == "binary" else 1))
    confidence = 1 - 0.05 / looks
    best, gain = None, -np.inf
    passed = False
    for name in probes:
        args: dict[str, Any] = {"weights": weights, "confidence": confidence, "least": least}
        better = paired(study.metric, label, study.scores["prior"], study.scores[name], blocks, quantile=study.quantile, **args)
        shown = [Check("better than the prior", _verdict(better), name, better, 0.0, f"gain in {study.metric}")]
        if study.task == "binary":
            auc = estimate("auc", label, study.scores[name], blocks, **args)
            shown.append(Check("better than chance", _verdict(auc, 0.5), name, auc, 0.5, "AUC"))
        passed = passed or any(check.verdict is Verdict.PASS for check in shown)
        found.checks += shown
        if better.value is not None and better.value > gain:
            best, gain = name, better.value
    known = any(check.estimate is not None and check.estimate.known for check in found.checks if check.subject in probes)
    verdict = Verdict.PASS if passed else Verdict.FAIL if known else Verdict.NOT_ENOUGH_DATA
    if not probes:
        verdict = Verdict.FAIL
    detail = "quick models against the prior on the later half" if probes else "there are no features to learn from"
    found.add(
        Check("learnable", verdict, detail=detail),
        stop="nothing better than chance could be learned from these features",
        unknown="too few blocks to say whether anything can be learned",
    )
    return best


def _verdict(shown: Estimate, bound: float = 0.0) -> Verdict:
    if not shown.known:
        return Verdict.NOT_ENOUGH_DATA
    return Verdict.PASS if shown.above(bound) else Verdict.FAIL


def no_lookup(system: System, study: Study, found: Findings) -> None:
    """Stops when one column of the predicted row determines the label."""
    if len(study.early) == 0:
        return
    own = [c for c in study.frame.columns if not c.startswith("_") and c not in study.features and c not in system.outcomes]
    seen = lookup.find(study, [*study.features, *own])
    if seen is None:
        found.add(Check("not a lookup", Verdict.PASS))
        return
    how = "a straight line through it" if seen.formula else "a map from its values"
    said = f"{how} gives the label of {seen.covered:.0%} of the later rows, and is wrong on {seen.error:.2%} of them"
    check = Check("not a lookup", Verdict.FAIL, seen.column, Estimate(seen.error), lookup.ERROR, said)
    found.add(check, stop=f"use a lookup: the column {seen.column} determines the label (or knows it from the future)")


def no_rule(system: System, study: Study, best: str | None, found: Findings) -> None:
    """A rule that is better than the prior and reaches 95 % of the best probe's gain comes first."""
    if best is None:
        return
    label, blocks, weights = study.label[study.late], study.blocks[study.late], study.weights[study.late]

    def gain(name: str) -> Estimate:
        scores = (study.scores["prior"], study.scores[name])
        return paired(study.metric, label, *scores, blocks, weights=weights, quantile=study.quantile, least=system.gate.blocks)

    top = max((gain(name).value or 0.0) for name in PROBES if name in study.scores)
    reached = {name: gain(name) for name in rules_of(system, study)}
    sound = {name: each for name, each in reached.items() if each.above(0.0) and each.value is not None}
    if not sound:
        found.add(Check("no rule suffices", Verdict.PASS, bound=RULE_SHARE, detail="no rule is better than the prior"))
        return
    name = max(sound, key=lambda each: (sound[each].value or 0.0, each))
    share = (sound[name].value or 0.0) / top if top > 0 else float("inf")
    verdict = Verdict.FAIL if share >= RULE_SHARE else Verdict.PASS
    shown = Estimate(min(share, 99.0), n=sound[name].n)
    said = f"the rule reaches {min(share, 99.0):.0%} of the quick models' gain in {study.metric}"
    found.add(Check("no rule suffices", verdict, name, shown, RULE_SHARE, said), limit=f"rule first: {name}: {said}")


def pays(engine: Engine, system: System, study: Study, found: Findings, *, best: str | None, even: float | None) -> None:
    """Whether the best decisions on the best probe's score are worth more than the best trivial policy."""
    shown = Check(
        "break-even", Verdict.NOT_MEASURED if system.task == "multiclass" else Verdict.PASS if even is not None else Verdict.FAIL,
        bound=even, detail="the least discrimination at which deciding by a score pays",
    )  # fmt: skip
    found.add(shown, stop="no prediction, however good, would be worth more than always doing the same")
    if best is None:
        return
    worth = reachable(engine, system, study, study.scores[best])
    name, trivial = best_trivial(engine, system, study)
    gain = difference_of_acting(study, worth, trivial, least=system.gate.blocks)
    verdict = _verdict(gain)
    if verdict is Verdict.FAIL and not gain.below(0.0):
        verdict = Verdict.NOT_ENOUGH_DATA
    found.add(
        Check("pays", verdict, best, gain, 0.0, f"value per prediction over the best trivial policy ({name})"),
        stop=f"deciding by what can be learned is worth less than to {name}",
        unknown=f"it is not certain that deciding by what can be learned is worth more than to {name}",
    )
