"""The third step: candidates are trained, evaluated, and let through the gate or not.

Of the records it writes ``Tuned``, ``Trained``, ``TestOpened``, ``Evaluated``, ``Analysed`` and ``Gated``; bundles go to the artifacts.
"""

from noria.development.analysis import analyse
from noria.development.blending import reweigh, weights_of
from noria.development.choice import choose
from noria.development.evaluation import evaluate
from noria.development.freshness import Freshness, Interval, best_interval, freshness
from noria.development.gate import gate
from noria.development.recalibration import recalibrate
from noria.development.recipes import names
from noria.development.training import reproduce, train

__all__ = [
    "Freshness",
    "Interval",
    "analyse",
    "best_interval",
    "choose",
    "evaluate",
    "freshness",
    "gate",
    "names",
    "recalibrate",
    "reproduce",
    "reweigh",
    "train",
    "weights_of",
]
