"""Edge cases, kept apart from outliers that the model handles: closed rows far from the reference, by what they lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.core import Verdict
from noria.monitoring.sample import WINDOW, Sample, some
from noria.monitoring.windows import number
from noria.records import Signal

Floats = NDArray[np.float64]
WORSE = 2.0


def edges(sample: Sample, points: Floats, residual: Floats) -> list[Signal]:
    """Of the rows looked at (evenly spaced), the shares that lie outside the reference's regions: ``edge cases`` lost much more than their
    score and features let expect (2 standard deviations of a row at the reference), ``handled`` did not.

    An outlier is a property of x, an edge case one of performance: only the second asks for examples, a rule or a fallback.
    """
    loss = sample.labelled.loss if sample.labelled is not None else None
    if loss is None or not len(points):
        return []
    rows = some(len(points), WINDOW)
    far = stats.nearest(points[rows], sample.rows()) > sample.radius
    lost = np.nan_to_num(residual[rows]) > WORSE * float(np.sqrt(loss.residual.within))
    shares = {"edge cases": float((far & lost).mean()), "handled": float((far & ~lost).mean())}
    return [Signal("outliers", name, "outcome", number(share), None, Verdict.NOT_MEASURED) for name, share in shares.items()]
