"""Which drift matters: how much of a release's loss moves with a column, before any label of the window is known.

The bundle holds the mean loss of its model in each bin of each column, on rows it was not trained on. If only the column's distribution
moves, the loss moves by the sum over bins of (share now - share then) x loss there: the first-order term of covariate shift. What is not
seen by it: bins that had no rows then (taken as the mean), and a model that is wrong in another way than it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.measure import Profile
from noria.measure.profile import Column, cells

Floats = NDArray[np.float64]


def impacts(loss: Mapping[str, Any], window: Profile) -> dict[str, float]:
    """The share of the release's loss that moves with each column (0 to 1, either way); only columns whose loss is known.

    ``loss`` is what ``development.reference.loss_profile`` made. The means of the bins are drawn to the overall mean as far as chance
    explains their differences (empirical Bayes; Efron and Morris 1973), so that a column that says nothing of the loss has no impact.
    """
    if not loss or not loss.get("mean"):
        return {}
    whole, variance = float(loss["mean"]), float(loss["variance"])
    made = {}
    for name, bins in loss["columns"].items():
        if name in window.columns:
            n, means = np.asarray(bins["n"], float), np.asarray(bins["mean"], float)
            moved = _moved(n, shrunk(n, means, whole, variance), window.columns[name])
            if moved is not None:
                made[name] = float(f"{min(1.0, abs(moved) / abs(whole)):.9g}")
    return made


def shrunk(n: Floats, means: Floats, whole: float, variance: float) -> Floats:
    """The means of bins of ``n`` rows, drawn to the mean of all; bins without rows have it."""
    some = n > 0
    if some.sum() < 2:
        return np.full(len(n), whole)
    noise = variance / np.maximum(n, 1)
    share = n / n.sum()
    between = float(share @ ((means - whole) ** 2 - noise * (1 - share)))
    # a spread that chance alone would reach (two standard errors of its own) is none
    chance = variance / n.sum() * np.sqrt(2.0 * max(1, int(some.sum()) - 1)) * 2
    if between <= chance:
        return np.full(len(n), whole)
    return np.where(some, whole + (means - whole) * between / (between + noise), whole)


def _moved(n: Floats, means: Floats, column: Column) -> float | None:
    now = np.append(cells(column), column.nulls)
    if len(now) != len(n) or not now.sum() or not n.sum():
        return None
    return float((now / now.sum() - n / n.sum()) @ means)
