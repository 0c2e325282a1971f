"""Releases, routing, rollout, batch scoring, the online service and the log of predictions.

What is live is folded from the records ``Released`` and ``RolloutMoved``; ``score`` logs every row that was asked, ``advance`` moves
a rollout on the evidence of closed cohorts, ``serve`` answers single rows over HTTP with the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noria.deployment.bundles import Bundles
from noria.deployment.live import Live, Rollout, state
from noria.deployment.rollout import advance, begin, days_to_decision, planned, promote, rollback
from noria.deployment.scoring import score
from noria.deployment.seal import sweep

if TYPE_CHECKING:
    from noria.deployment.service.server import make_app, serve

__all__ = [
    "Bundles",
    "Live",
    "Rollout",
    "advance",
    "begin",
    "days_to_decision",
    "make_app",
    "planned",
    "promote",
    "rollback",
    "score",
    "serve",
    "state",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in ("make_app", "serve"):  # the HTTP libraries load only for whoever serves
        from noria.deployment.service import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
