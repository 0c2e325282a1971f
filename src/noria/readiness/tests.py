"""The 28 tests of the ML Test Score, in one list: what each asks, what shows it, and what to do for it.

Source: Breck, Cai, Nielsen, Salib and Sculley 2017, "The ML Test Score: a rubric for ML production readiness and technical debt reduction",
IEEE Big Data. The words are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from noria.readiness import evidence
from noria.readiness.evidence import Ask

SECTIONS = ("data", "model", "infrastructure", "monitoring")


class Test(NamedTuple):
    """``ask`` looks for evidence; ``machine`` says whether evidence can ever show it, or only a person's statement; ``todo`` is the next step."""

    id: str
    asks: str
    ask: Ask
    todo: str
    machine: bool = True

    @property
    def section(self) -> str:
        return self.id.partition(".")[0]


TESTS: tuple[Test, ...] = (
    Test("data.schema", "What is expected of each feature stands in a schema", evidence.schema, "turn once, so that every source's schema is frozen"),
    Test("data.beneficial", "Every feature is worth having", evidence.beneficial, "leave single features out, compare, and state it", machine=False),
    Test("data.cost", "No feature costs more than it brings", evidence.cost, "write cost= on the sources' cards, weigh it, and state it", machine=False),
    Test("data.meta", "Features keep to the rules of the house", evidence.meta, "declare sensitive= in the objective, or look after the rules and state it"),
    Test("data.privacy", "The pipeline protects what is private", evidence.privacy, "look at who may read the home and the sources, and state it", machine=False),
    Test("data.quick", "A new feature is quickly there", evidence.quick, "add a feature to the declaration, and train"),
    Test("data.code", "The code of the features is tested", evidence.feature_code, "let a candidate through the gate"),
    Test("model.reviewed", "The model's definition was looked at by somebody", evidence.reviewed, "declare Gate(approval=True), and sign (noria approve)"),
    Test("model.correlates", "The offline metric means something online", evidence.correlates, "see the link between metric and value (noria value): wait while it is unknown, choose another metric where it is broken"),
    Test("model.tuned", "The settings were searched", evidence.tuned, "train with candidates that have trials"),
    Test("model.staleness", "What a stale model costs is known", evidence.staleness, "retrain once: the gate holds the release against the younger candidate"),
    Test("model.simpler", "No simpler model is as good", evidence.simpler, "have baselines among the candidates"),
    Test("model.slices", "The model is good enough on every slice that matters", evidence.slices, "declare slices= in the objective"),
    Test("model.inclusion", "The model is fair to those it is about", evidence.inclusion, "declare sensitive= in the objective"),
    Test("infrastructure.reproducible", "Training again gives the same model", evidence.reproducible, "run noria readiness --reproduce"),
    Test("infrastructure.unit", "The model's code is tested by itself", evidence.unit_tested, "let a candidate reach the end of the gate"),
    Test("infrastructure.integration", "The whole pipeline is tested together", evidence.integration, "turn the wheel until a release"),
    Test("infrastructure.validated", "Quality is checked before a model serves", evidence.validated, "release through the gate, not by hand"),
    Test("infrastructure.debuggable", "A single prediction can be followed step by step", evidence.debuggable, "release a model that was trained in this home"),
    Test("infrastructure.canaried", "A model meets a few before it meets all", evidence.canaried, "let the next release go through shadow and canary"),
    Test("infrastructure.rollback", "The way back is rehearsed", evidence.rolled_back, "run noria drill"),
    Test("monitoring.dependencies", "Changes upstream are noticed", evidence.dependencies, "keep turning: every source has to be looked at each week"),
    Test("monitoring.invariants", "Training and live data keep to the same invariants", evidence.invariants, "release a model: its reference sets the thresholds"),
    Test("monitoring.skew", "Training and serving compute the same", evidence.skew, "let the next release go through shadow"),
    Test("monitoring.fresh", "The model is not too old", evidence.fresh, "declare Retrain(every=…), and keep turning"),
    Test("monitoring.stable", "Scores are numbers", evidence.stable, "keep scoring; at most 1 % of the rows may have none"),
    Test("monitoring.performance", "Speed and cost of computing have not got worse", evidence.performance, "serve live (noria up): a replay cannot measure it"),
    Test("monitoring.quality", "Predictions are as good as they were", evidence.quality, "keep closing cohorts under a release, and mend what its open alerts say (noria diagnose)"),
)  # fmt: skip
