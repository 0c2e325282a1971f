"""The learning curve: the metric against the number of training rows, and what k times the data would bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate
from noria.stats import block_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEPS = 6
SMALLEST = 60
POWERS = np.linspace(0.2, 1.0, 17)
DRAWS = 200
LEVELS = 0.95


@dataclass(frozen=True)
class Curve:
    """Losses at some training sizes with the power law loss(n) = floor + b·n⁻ᶜ through them.

    ``sizes`` are numbers of rows, ``losses`` what a model of so many rows loses out of sample. ``drawn`` are the laws (floor, b, c) of
    resampled test blocks: their spread is the uncertainty. ``luck`` / n is the variance of the loss between training sets of n rows.
    """

    sizes: tuple[int, ...]
    losses: tuple[Estimate, ...]
    law: tuple[float, float, float]
    drawn: tuple[tuple[float, float, float], ...]
    luck: float = 0.0

    def loss(self, n: float) -> Estimate:
        """The loss that the law expects of ``n`` rows, with its interval."""
        return self._of(lambda law: _law(law, n), self.luck / n)

    def gain(self, times: float) -> Estimate:
        """By how much the loss falls with ``times`` the data that there is, with its interval.

        >>> exact = Curve((100, 1000), (), (0.5, 2.0, 0.5), ((0.5, 2.0, 0.5),) * 20)
        >>> round(exact.gain(4.0).value, 4)
        0.0316
        """
        most = float(self.sizes[-1])
        return self._of(lambda law: _law(law, most) - _law(law, times * most), self.luck / most * (1 + 1 / times))

    def needed(self, loss: float, *, most: float = 1e9) -> float | None:
        """About how many rows bring the expected loss to ``loss``; ``None`` when its floor lies above, or it takes more than ``most``."""
        floor, b, c = self.law
        if loss <= floor or b <= 0:
            return None if b <= 0 or loss <= floor else 0.0
        rows = float((b / (loss - floor)) ** (1 / c))
        return rows if rows <= most else None

    def _of(self, number: Callable[[tuple[float, float, float]], float], variance: float) -> Estimate:
        """A number of the law, with the spread over the laws drawn and the luck of the training sets that will be."""
        values = np.array([number(law) for law in self.drawn])
        value = number(self.law)
        if len(values) < 10:
            return Estimate(value)
        low, high = np.quantile(values, [0.5 - LEVELS / 2, 0.5 + LEVELS / 2])
        extra = 1.96 * float(np.sqrt(variance))
        down, up = (float(np.hypot(value - min(low, value), extra)), float(np.hypot(max(high, value) - value, extra)))
        return Estimate(value, value - down, value + up, len(self.sizes))


def learning_curve(
    fit: Callable[[Ints], Floats],
    rows: int,
    loss: Callable[[Floats], Floats],
    blocks: Ints,
    *,
    steps: int = STEPS,
    smallest: int = SMALLEST,
) -> Curve | None:
    """Fits on nested subsets of the training rows, the newest first, and draws the law through their losses; ``None`` with too few rows.

    Parameters
    ----------
    fit:
        From the places of the training rows (in order of time, 0 to ``rows`` - 1) to the scores of the test rows.
    rows:
        How many training rows there are; the sizes double on the way to them.
    loss:
        From the test rows' scores to each row's loss.
    blocks:
        Each test row's block of time.

    The law is fitted by weighted least squares for every power c on a grid (Hestness et al. 2017, "Deep learning scaling is predictable,
    empirically"). Its uncertainty: the test blocks are resampled for all sizes together, and the luck of each training set, as it shows
    between halves and between quarters of the rows, is drawn again with it. That the predicted gain lies in its interval is simulated in
    ``tests/development/test_curve.py``.
    """
    sizes = [rows // 2**k for k in range(steps) if rows // 2**k >= smallest][::-1]
    if len(sizes) < 4:
        return None
    lost = np.stack([loss(fit(np.arange(rows - n, rows))) for n in sizes])
    if not np.isfinite(lost).all() or len(np.unique(blocks)) < 2:
        return None
    sums = np.stack([block_sums(blocks, row)[0] for row in lost])
    counts = block_sums(blocks, np.ones(len(blocks)))[0]
    means = sums.sum(axis=1) / counts.sum()
    places = np.array(sizes, float)
    law = _fitted(places, means)
    rest = means - np.array([_law(law, n) for n in sizes])
    luck = max(_luck(fit, rows, loss), float((rest**2 * places).sum()) / max(len(sizes) - 3, 1))
    random = np.random.default_rng(0)
    drawn, spread = [], []
    for _ in range(DRAWS):
        picked = random.integers(0, len(counts), len(counts))
        resampled = sums[:, picked].sum(axis=1) / counts[picked].sum()
        spread.append(resampled)
        drawn.append(_fitted(places, resampled + random.normal(0, np.sqrt(luck / places))))
    low, high = np.quantile(np.stack(spread), [0.5 - LEVELS / 2, 0.5 + LEVELS / 2], axis=0)
    losses = tuple(Estimate(float(m), float(a), float(b), len(counts)) for m, a, b in zip(means, low, high, strict=True))
    return Curve(tuple(sizes), losses, law, tuple(drawn), luck)


def _luck(fit: Callable[[Ints], Floats], rows: int, loss: Callable[[Floats], Floats]) -> float:
    """The variance of the mean loss between training sets of one size, times that size: from the halves and the quarters of the rows."""
    found = []
    for parts in (2, 4):
        size = rows // parts
        if size >= SMALLEST:
            made = [float(loss(fit(np.arange(k * size, (k + 1) * size))).mean()) for k in range(parts)]
            found += [float(np.var(made, ddof=1)) * size] * (parts - 1)
    return float(np.mean(found)) if found else 0.0


def _law(law: Sequence[float], n: float) -> float:
    floor, b, c = law
    return float(floor + b * n**-c)


def _fitted(sizes: Floats, losses: Floats) -> tuple[float, float, float]:
    """(floor, b, c) with b ≥ 0 and least weighted squares; larger sizes are less noisy and count more."""
    weights = np.sqrt(sizes / sizes[-1])
    best = (np.inf, (float(losses.mean()), 0.0, 1.0))
    for power in POWERS:
        column = sizes**-power
        middle = float(np.average(column, weights=weights)), float(np.average(losses, weights=weights))
        spread = float((weights * (column - middle[0]) ** 2).sum())
        b = max(float((weights * (column - middle[0]) * (losses - middle[1])).sum()) / spread, 0.0)
        floor = middle[1] - b * middle[0]
        if floor < 0:
            floor, b = 0.0, float((weights * column * losses).sum() / (weights * column**2).sum())
        error = float((weights * (losses - floor - b * column) ** 2).sum())
        if error < best[0]:
            best = error, (float(floor), float(b), float(power))
    return best[1]
