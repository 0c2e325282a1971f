"""Noria runs the whole lifecycle of a machine-learning system as one closed loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = dict.fromkeys(
    (
        "Alerts",
        "AtLeast",
        "AtMost",
        "Boosting",
        "Candidate",
        "Combine",
        "Costs",
        "Decide",
        "Estimator",
        "Every",
        "Fitness",
        "Gate",
        "Label",
        "Last",
        "Linear",
        "Objective",
        "Outcome",
        "Parts",
        "Prior",
        "Query",
        "Request",
        "Retrain",
        "Rollout",
        "Rule",
        "Seasonal",
        "Serve",
        "Source",
        "System",
        "Value",
    ),
    "noria.system",
) | {
    "Estimate": "noria.core",
    "NoriaError": "noria.core",
    "Verdict": "noria.core",
    "Window": "noria.core",
}

if TYPE_CHECKING:
    from noria.core import Estimate, NoriaError, Verdict, Window
    from noria.system import (
        Alerts,
        AtLeast,
        AtMost,
        Boosting,
        Candidate,
        Combine,
        Costs,
        Decide,
        Estimator,
        Every,
        Fitness,
        Gate,
        Label,
        Last,
        Linear,
        Objective,
        Outcome,
        Parts,
        Prior,
        Query,
        Request,
        Retrain,
        Rollout,
        Rule,
        Seasonal,
        Serve,
        Source,
        System,
        Value,
    )

__all__ = [
    "Alerts",
    "AtLeast",
    "AtMost",
    "Boosting",
    "Candidate",
    "Combine",
    "Costs",
    "Decide",
    "Estimate",
    "Estimator",
    "Every",
    "Fitness",
    "Gate",
    "Label",
    "Last",
    "Linear",
    "NoriaError",
    "Objective",
    "Outcome",
    "Parts",
    "Prior",
    "Query",
    "Request",
    "Retrain",
    "Rollout",
    "Rule",
    "Seasonal",
    "Serve",
    "Source",
    "System",
    "Value",
    "Verdict",
    "Window",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'noria' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
