"""Label shift before labels: the base rate that the scores of a window speak of (BBSE), which withdraws itself where it cannot hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from noria import stats
from noria.core import Verdict
from noria.monitoring.labelled import Mixture, misfit
from noria.monitoring.windows import number
from noria.records import Signal
from noria.stats.labelshift import WORST

LABEL = ("label shift", "label")
LEAST = 30
Floats = NDArray[np.float64]


def label_shift(mixture: Mixture, score: Floats, error: float, *, seen: bool) -> Signal:
    """The base rate by BBSE with its 95 % interval; the bound is the nearer end of what the reference's windows have.

    Withdrawn (no value, the note says why) when the scores hardly depend on the label (condition number above 30), and when no mixture of
    the scores' distributions given the labels gives those of the window: then more than the label's share has changed.
    """
    score = score[np.isfinite(score)]
    shift = mixture.shift

    def withdrawn(note: str) -> Signal:
        return Signal(*LABEL, "prediction", None, None, Verdict.NOT_ENOUGH_DATA, note=note)

    if len(score) < LEAST:
        return withdrawn(f"{len(score)} rows; {LEAST} are needed")
    if not shift.condition < WORST:
        return withdrawn(
            f"withdrawn: scores hardly depend on the label (condition number {shift.condition:.3g}; at most {WORST:g})"
        )
    fit = misfit(shift, np.array(mixture.shares), np.array(mixture.edges), score)
    if mixture.misfit is None or fit > mixture.misfit:
        return withdrawn(
            "withdrawn: no mixture of the scores given the labels fits the window; more than the labels' share has changed"
        )
    share, errors = stats.label_shift(shift, score)
    value, noise, usual = float(share[1]), mixture.noise[1], mixture.usual[1]
    half = float(special.stdtrit(noise.degrees, 0.975)) * float(errors[1])
    room = usual.allowance(np.array([len(score)]), error / 2)
    bound = usual.mean + (room if value >= usual.mean else -room)
    verdict = Verdict.NOT_ENOUGH_DATA if not seen else Verdict.FAIL if abs(value - usual.mean) > room else Verdict.PASS
    note = "" if seen else "the reference has no window from this time of the year"
    low, high = number(value - half), number(value + half)
    return Signal(*LABEL, "prediction", number(value), number(bound), verdict, low=low, high=high, note=note)
