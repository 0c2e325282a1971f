"""Calibration drift: do scores still mean what they meant at the reference? Slope and offset over the last closed windows.

Scores go through the calibration of the release's test part first, so that slope 1 and offset 0 are "as at the gate". A window keeps
the five sums of one step of Newton's method; several windows add up, and each is one observation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from noria import stats
from noria.core import Verdict
from noria.monitoring.labelled import Calibrated, logit
from noria.monitoring.windows import number, value_of
from noria.records import Monitored, Signal

SLOPE = ("calibration", "score")
OFFSET = ("calibration", "offset")
SUMS = ("u0", "u1", "i00", "i01", "i11")
RUNS = (7, 28)
OWN = 10
LEAST = 200
WINDOWS = 5
SLACK = {"score": 0.1, "offset": 0.1}
Floats = NDArray[np.float64]


def calibration(  # noqa: PLR0917  the window's rows, and what they are held against
    reference: Calibrated, label: Floats, score: Floats, weight: Floats, past: Sequence[Monitored], error: float
) -> list[Signal]:
    """Slope and offset (log-odds) of the label on the calibrated score; ``past`` are the release's own windows before.

    Each fails when it differs from 1 (from 0) by more than 0.1 with its interval, which has the windows' and the reference's error.
    """
    keep = np.isfinite(label) & np.isfinite(score) & (weight > 0)
    mine = sums_of(reference.chance(score[keep]), label[keep], weight[keep])
    kept = [
        Signal("calibration sum", name, "outcome", number(one), None, Verdict.NOT_MEASURED)
        for name, one in zip(SUMS, mine, strict=True)
    ]
    before = [[value_of(record, "calibration sum", name) for name in SUMS] for record in past[-RUNS[-1] + 1 :]]
    table = np.array([[float(x) for x in row if x is not None] for row in before if None not in row] + [list(mine)])
    enough = len(table) >= WINDOWS and 4 * float(table[:, 2].sum()) >= LEAST  # p(1-p) is at most a quarter: at least so many rows
    tried = [deviation(reference, table[-run:]) for run in RUNS if run <= max(len(table), RUNS[0])]
    made = []
    for place, (name, right) in enumerate(((OFFSET, 0.0), (SLOPE, 1.0))):
        apart, spread = max(((step[place], errors[place]) for step, errors in tried), key=lambda one: abs(one[0]) / one[1])
        made.append(_judged(name, right, float(apart), float(spread), reference.degrees, error / (4 * len(RUNS)), enough))
    return [*reversed(made), *kept]


def deviation(reference: Calibrated, table: Floats) -> tuple[Floats, Floats]:
    """How far offset and slope of some windows are from the reference's, and the standard errors of that.

    The windows' error is the reference's own, scaled to so much information or to so many windows, whichever leaves more; at least that of
    independent rows, and from ten windows on at least that of the windows themselves.
    """
    step, errors, floor = newton(table)
    there = np.array([reference.offset_error, reference.slope_error])
    scale = max(reference.information / max(float(table[:, 2].sum()), 1e-12), reference.slack.blocks / len(table))
    own = np.maximum(there * np.sqrt(scale), floor)
    if len(table) >= OWN:
        own = np.maximum(own, errors)
    return step, np.hypot(own, there)


def _judged(  # noqa: PLR0917  one test
    name: tuple[str, str], right: float, apart: float, spread: float, degrees: float, error: float, enough: bool
) -> Signal:
    slack = SLACK[name[1]]
    if not (np.isfinite(spread) and np.isfinite(apart)):
        return Signal(*name, "outcome", None, slack, Verdict.NOT_ENOUGH_DATA, note="the scores do not vary")
    inner, outer = (float(special.stdtrit(degrees, 1 - e)) * spread for e in (0.025, error))
    beyond, within = abs(apart) - outer > slack, abs(apart) <= slack
    verdict = Verdict.FAIL if beyond else Verdict.PASS if within else Verdict.NOT_ENOUGH_DATA
    note = "" if enough else "too few closed windows or rows"
    value = right + apart
    bound = right + (slack if apart >= 0 else -slack)
    verdict = verdict if enough else Verdict.NOT_ENOUGH_DATA
    return Signal(
        *name, "outcome", number(value), bound, verdict, low=number(value - inner), high=number(value + inner), note=note
    )


def sums_of(chance: Floats, label: Floats, weight: Floats) -> tuple[float, ...]:
    """The score (2) and the information (3) of a logistic regression of the label on the chance's log-odds, at offset 0 and slope 1."""
    z = logit(chance)
    gap, slack = weight * (label - chance), weight * chance * (1 - chance)
    return float(gap.sum()), float(gap @ z), float(slack.sum()), float(slack @ z), float(slack @ z**2)


def newton(table: Floats) -> tuple[Floats, Floats, Floats]:
    """One step from (0, 1) over windows' sums (w, 5): the change of (offset, slope), their standard errors over windows, and those of independent rows.

    One step is efficient where scores are about calibrated, and points the right way where they are not (Le Cam 1956).
    """
    u, information = table[:, :2], table[:, 2:]
    whole = _square(information.sum(axis=0))
    if not np.isfinite(whole).all() or np.linalg.cond(whole) > 1e10:
        nan = np.full(2, np.nan)
        return nan, nan, nan
    turned = np.linalg.inv(whole)
    step = turned @ u.sum(axis=0)
    influence = np.array([turned @ (one - _square(part) @ step) for one, part in zip(u, information, strict=True)])
    errors = [stats.mean_error(influence[:, k] * len(table))[0] if len(table) > 2 else np.inf for k in range(2)]
    return step, np.array(errors), np.sqrt(np.diag(turned))


def _square(part: Floats) -> Floats:
    return np.array([[part[0], part[1]], [part[1], part[2]]])
