"""Whether what an alert is about is still declared: a rule that is gone says nothing any more, neither good nor bad."""

from __future__ import annotations

from noria.monitoring.reference import SCORE
from noria.system import System

LABEL = "label"
OF_SOURCES = ("source volume", "source late", "duplicates", "quarantined")
OF_COLUMNS = ("drift", "missing values", "unseen values")
OF_CHANCES = ("expected performance", "label shift", "miscalibrated", "concept change", "slice")
WIDE = ("acts", SCORE)


def declared(system: System, name: str, subject: str) -> bool:
    """Whether a rule of the declaration still speaks of (``name``, ``subject``) of an alert; what needs no declaring is always declared."""
    rails = {rail.metric for rail in system.objective.guardrails}
    features = {feature.name for feature in system.flat_features}
    if name in OF_CHANCES and system.combine is not None:
        return False
    match name:
        case "guardrail":
            return subject in rails
        case "expected performance":
            return subject in rails | {system.objective.metric, "accuracy"}
        case "metric link":
            return subject == system.objective.metric
        case "slice":
            return subject in features | {*system.objective.slices, *system.objective.sensitive}
        case "diversity":
            return subject in features | {*WIDE}
    if name in OF_SOURCES:
        return subject in system.sources
    if name in OF_COLUMNS:
        return subject in {feature.source for feature in system.flat_features} | {SCORE, LABEL}
    return True
