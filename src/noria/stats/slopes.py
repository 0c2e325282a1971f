"""The slope of one series on another, with what moves both taken out of them first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noria.core import Estimate
from noria.stats.intervals import around, t_quantile
from noria.stats.longrun import Floats


@dataclass(frozen=True)
class Slope:
    """A slope in the units of y by x, and the standard deviations of what the controls leave of both."""

    estimate: Estimate
    x_spread: float
    y_spread: float
    x: Floats
    y: Floats

    @property
    def standard(self) -> Estimate:
        """The slope in standard deviations of y for one of x."""
        if not self.x_spread > 0 or not self.y_spread > 0:
            return Estimate(None, n=self.estimate.n)
        return scaled(self.estimate, self.x_spread / self.y_spread)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in other units; a negative factor turns it over.

    >>> scaled(Estimate(1.0, 0.5, 2.0, 9), -2.0)
    Estimate(value=-2.0, low=-4.0, high=-1.0, n=9)
    """
    value, low, high = (None if one is None else one * factor for one in (estimate.value, estimate.low, estimate.high))
    if factor < 0:
        low, high = high, low
    return Estimate(value, low, high, estimate.n)


def partial_slope(x: Floats, y: Floats, controls: Floats | None = None, *, confidence: float = 0.95, least: int = 10) -> Slope:
    """The slope of ``y`` on ``x`` by least squares, beside an intercept and ``controls``; blocks are the observations.

    Parameters
    ----------
    x, y:
        One number a block, in time order; blocks where anything is NaN are left out.
    controls:
        (blocks, k): what moves both and must not pass for a link.
    confidence, least:
        Of the interval; with fewer than ``least`` blocks beyond those that the controls use up it has no bounds.

    The controls are taken out of both series first (Frisch and Waugh 1933, Econometrica 1; Lovell 1963, JASA 58). The interval allows for blocks of
    unequal spread by the leave-one-out residuals (MacKinnon and White 1985, J. Econometrics 29: HC3), and for first-order
    autocorrelation as ``longrun.mean_error`` does. An error in ``x`` that has nothing to do with ``y`` draws the slope towards 0.

    >>> x = np.arange(40.0) % 7
    >>> round(partial_slope(x, 3 * x + np.arange(40.0), np.arange(40.0)[:, None]).estimate.value or 0.0, 6)
    3.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    given = np.empty((len(x), 0)) if controls is None else np.asarray(controls, float).reshape(len(x), -1)
    keep = np.isfinite(x) & np.isfinite(y) & np.isfinite(given).all(axis=1)
    x, y, basis = x[keep], y[keep], _basis(given[keep])
    n, used = len(x), basis.shape[1]
    left_x, left_y = x - basis @ (basis.T @ x), y - basis @ (basis.T @ y)
    total = float(left_x @ left_x)
    free = n - used - 1
    if free < 1 or total <= 1e-18 * max(float(x @ x), 1e-300):
        return Slope(Estimate(None, n=max(free, 0)), 0.0, 0.0, left_x, left_y)
    slope = float(left_x @ left_y) / total
    leverage = (basis**2).sum(axis=1) + left_x**2 / total
    residual = (left_y - slope * left_x) / np.maximum(1 - leverage, 0.05)
    deviations = left_x * residual / (total / n)
    found = around(slope, deviations - deviations.mean(), confidence=confidence, least=least + used + 1)
    x_spread, y_spread = (float(np.sqrt(one @ one / max(n - used, 1))) for one in (left_x, left_y))
    return Slope(Estimate(found.value, found.low, found.high, free), x_spread, y_spread, left_x, left_y)


def _basis(controls: Floats) -> Floats:
    """An orthonormal basis of the intercept and the controls; columns that add nothing are left out."""
    n = len(controls)
    if n == 0:
        return np.empty((0, 0))
    centred = controls - controls.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    centred = centred[:, spread > 1e-12 * np.maximum(np.abs(controls).max(axis=0, initial=0.0), 1e-300) * np.sqrt(n)]
    constant = np.full((n, 1), 1 / np.sqrt(n))
    if centred.shape[1] == 0:
        return constant
    left, size, _ = np.linalg.svd(centred / np.sqrt((centred**2).sum(axis=0)), full_matrices=False)
    return np.hstack([constant, left[:, size > 1e-8]])


def pooled(estimates: list[Estimate], *, confidence: float = 0.95) -> Estimate:
    """Several estimates of one number as one, each weighted by its precision; ``n`` adds up.

    Estimates without an interval do not count; all intervals, the result's too, have the same ``confidence``. Where they differ by more than their intervals allow, the interval is widened by
    that much (Birge 1932, Phys. Rev. 40).

    >>> print(pooled([Estimate(1.0, 0.0, 2.0, 10), Estimate(3.0, 2.0, 4.0, 10)]))
    2 [0.04004, 3.96]
    """
    known = [one for one in estimates if one.known]
    if not known:
        values = [one for one in estimates if one.value is not None]
        return Estimate(values[0].value, n=values[0].n) if len(values) == 1 else Estimate(None)
    value = np.array([one.value for one in known], float)
    half = np.array([((one.high or 0.0) - (one.low or 0.0)) / 2 for one in known], float)
    half = np.maximum(half, 1e-12 * np.maximum(np.abs(value), 1.0))
    weight = half**-2.0
    mean = float(value @ weight / weight.sum())
    apart = float((((value - mean) / (half / t_quantile(confidence, np.inf))) ** 2).sum()) / max(len(known) - 1, 1)
    wide = float(weight.sum() ** -0.5) * max(1.0, apart**0.5)
    return Estimate(mean, mean - wide, mean + wide, sum(one.n for one in known))
