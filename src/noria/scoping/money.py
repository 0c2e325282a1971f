"""What discrimination is worth: the break-even, and what a better metric brings.

For a binary decision the scores of the two classes are taken as two normals of equal spread (the binormal model), whose AUC is
Φ(μ/√2) at distance μ (Green and Swets 1966); decisions are the best possible for the stated values. For a regression a calibrated
prediction of a given R² is drawn around the labels themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from noria.core import Estimate

Floats = NDArray[np.float64]
LEAST_SHARE = 0.01
_FARTHEST = 8.0


def _phi(x: float) -> float:
    return float(special.ndtr(x))


def auc_of(distance: float) -> float:
    """The AUC of two unit normals at this distance."""
    return _phi(distance / np.sqrt(2))


def distance_of(auc: float) -> float:
    """The distance of two unit normals that gives this AUC.

    >>> round(distance_of(auc_of(1.3)), 9)
    1.3
    """
    return float(special.ndtri(min(max(auc, 0.5), 1 - 1e-12)) * np.sqrt(2))


def gain(auc: float, base_rate: float, if_true: float, if_false: float) -> float:
    """The gain per prediction over doing nothing when the best decisions are made on a score of this AUC.

    ``if_true`` and ``if_false`` are what acting adds when the label is true and when it is false.

    >>> round(gain(0.5, 0.5, 10.0, -10.0), 9), round(gain(0.9, 0.5, 10.0, -10.0), 2)
    (0.0, 3.18)
    """
    up, down = base_rate * if_true, (1 - base_rate) * if_false
    mu = distance_of(auc)
    if up >= 0 and down >= 0:
        return up + down
    if up <= 0 and down <= 0:
        return 0.0
    if mu < 1e-9:
        return max(0.0, up + down)
    cut = np.log(-down / up) / mu + mu / 2  # where acting is worth nothing on average
    if up > 0:  # act above the cut
        return up * _phi(mu - cut) + down * _phi(-cut)
    return up * _phi(cut - mu) + down * _phi(cut)  # act below it


def break_even(base_rate: float, if_true: float, if_false: float, *, least_share: float = LEAST_SHARE) -> float | None:
    """The least AUC at which deciding by the score beats never and always acting; ``None`` when none does.

    In the binormal model any AUC above one half gains something, if only in the far tail; so the gain has to be at least
    ``least_share`` of what a perfect prediction would add to the better of the two.

    >>> break_even(0.5, 10.0, -10.0), break_even(0.2, 10.0, 1.0)
    (0.507, None)
    """
    up, down = base_rate * if_true, (1 - base_rate) * if_false
    trivial = max(0.0, up + down)
    room = max(up, 0.0) + max(down, 0.0) - trivial
    if not room > 1e-12 * max(abs(up), abs(down), 1e-300):
        return None
    low, high = 0.0, _FARTHEST
    for _ in range(60):
        middle = (low + high) / 2
        enough = gain(auc_of(middle), base_rate, if_true, if_false) - trivial >= least_share * room
        low, high = (low, middle) if enough else (middle, high)
    return round(auc_of(high), 3)


def gain_between(
    auc_from: float, auc_to: float, base_rate: Estimate, if_true: float, if_false: float, *, predictions: float = 1.0
) -> Estimate:
    """What going from one AUC to another brings over ``predictions`` predictions, as a range over the base rate's interval.

    >>> wide = gain_between(0.7, 0.75, Estimate(0.2, 0.1, 0.3, 30), 60.0, -15.0)
    >>> thin = gain_between(0.7, 0.75, Estimate(0.2, 0.19, 0.21, 30), 60.0, -15.0)
    >>> wide.low < thin.low < thin.value < thin.high < wide.high
    True
    """
    if base_rate.value is None:
        return Estimate(None)

    def between(rate: float) -> float:
        better, worse = (max(gain(auc, rate, if_true, if_false), 0.0) for auc in (auc_to, auc_from))
        return predictions * (better - worse)

    value = between(base_rate.value)
    if base_rate.low is None or base_rate.high is None:
        return Estimate(value, n=base_rate.n)
    rates = np.linspace(max(base_rate.low, 0.0), min(base_rate.high, 1.0), 41)
    range_ = [between(float(rate)) for rate in rates]
    return Estimate(value, min(*range_, value), max(*range_, value), base_rate.n)


def drawn_prediction(label: Floats, r2: float, seed: int) -> Floats:
    """A calibrated prediction of the labels with this R²: E[label | prediction] = prediction (for normal labels exactly)."""
    random = np.random.default_rng(seed)
    mean, spread = float(label.mean()), float(label.std())
    noise = random.standard_normal(len(label))
    return np.asarray(mean + r2 * (label - mean) + np.sqrt(max(r2 * (1 - r2), 0.0)) * spread * noise)


def break_even_r2(
    label: Floats, worth: Callable[[Floats], float], trivial: float, perfect: float, *, seed: int = 0
) -> float | None:
    """The least R² (in steps of 0.05) at which acting on a calibrated prediction beats the best trivial policy.

    ``worth`` gives the mean value of acting on these predictions. As with ``break_even`` at least 1 % of the room has to be gained.
    """
    room = perfect - trivial
    if not room > 0:
        return None
    for r2 in np.linspace(0.05, 1.0, 20):
        if worth(drawn_prediction(label, float(r2), seed)) - trivial >= LEAST_SHARE * room:
            return round(float(r2), 2)
    return None
