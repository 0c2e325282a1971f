"""What acting changed, where acting changes the label: other acts are valued from the rows on which chance chose them."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.system import Decide

Floats = NDArray[np.float64]


def policies_by_propensity(frame: pl.DataFrame, decide: Decide, act: Floats, value: Floats) -> dict[str, Floats]:
    """The value of doing nothing and of always acting, as one weighted number a row whose sum estimates the policy's total.

    Parameters
    ----------
    frame:
        Logged rows with ``_act_propensity``: the chance of the logged act, hold-out and exploration included.
    act, value:
        One number a row: the act taken (0 or 1) and what it was worth; rows with NaN value do not count.

    A row on which the policy's act was taken counts for 1 / (the chance that it was taken), every other row 0; the weights are
    scaled to the number of rows (Hájek's ratio estimator, 1971). Doing nothing needs a hold-out or exploration, always acting
    needs exploration: without them some rows had no chance of that act, and the policy is left out.

    >>> log = pl.DataFrame({"_act_propensity": [0.5, 0.5]})
    >>> policies_by_propensity(log, Decide(holdout=0.5), np.array([1.0, 0.0]), np.array([5.0, 2.0]))["do nothing"]
    array([0., 4.])
    """
    chance = np.maximum(frame["_act_propensity"].cast(pl.Float64).fill_null(1.0).fill_nan(1.0).to_numpy(), 1e-6)
    counted = np.isfinite(value)
    found = {}
    if decide.holdout > 0 or decide.explore > 0:
        found["do nothing"] = _weighted(value, counted, act == 0, chance)
    if decide.explore > 0:
        found["always act"] = _weighted(value, counted, act == 1, chance)
    return found


def _weighted(value: Floats, counted: NDArray[np.bool_], taken: NDArray[np.bool_], chance: Floats) -> Floats:
    weight = np.where(counted & taken, 1.0 / chance, 0.0)
    if weight.sum() == 0:
        return np.full(len(value), np.nan)
    return np.where(weight > 0, np.where(counted, value, 0.0) * weight * (counted.sum() / weight.sum()), 0.0)
