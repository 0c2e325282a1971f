"""When labels are late: one rule for the alert and for the diagnosis."""

from __future__ import annotations

from datetime import timedelta

from noria.core import duration
from noria.system import System

SLOWER, LATER = 1.5, 0.15
MIDDLE = "p50"


def longest(system: System, quantile: str, usual: float) -> float:
    """The hours after the question within which ``quantile`` ("p50" or "p90") of the labels has to be known, ``usual`` being ordinary.

    Half as long again as usual; for the median also 15 % of what is waited for (``Label.within``), since a delay that a source declares is in
    both. Not for the nine in ten: one storm makes those late, and says nothing of the labels' source. What makes less than half of the labels late, and
    by less than half of what is usual, is not seen.
    """
    if quantile != MIDDLE:
        return SLOWER * usual
    return min(SLOWER * usual, usual + LATER * (duration(system.label.within) / timedelta(hours=1)))
