"""The third step: candidates are trained, evaluated, and let through the gate or not.

Of the records it writes ``Tuned``, ``Trained``, ``TestOpened``, ``Evaluated`` and ``Gated``; bundles go to the artifacts.
"""

from noria.development.choice import choose
from noria.development.evaluation import evaluate
from noria.development.gate import gate
from noria.development.recalibration import recalibrate
from noria.development.training import train

__all__ = ["choose", "evaluate", "gate", "recalibrate", "train"]
