"""What changed since a moment, when only a few blocks of time have passed since: the past blocks say how much a block varies by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from noria.core import Estimate
from noria.stats.intervals import t_quantile
from noria.stats.longrun import Floats, Ints, block_sums, inflation, mean_error


def moved(
    before: Floats,
    before_blocks: Ints,
    recent: Floats,
    recent_blocks: Ints,
    *,
    before_weights: Floats | None = None,
    recent_weights: Floats | None = None,
    confidence: float = 0.98,
    least: int = 8,
) -> Estimate:
    """mean(recent) - mean(before), with an interval that holds for a single recent block too.

    Parameters
    ----------
    before, recent:
        One number a row; rows with NaN do not count. ``*_weights`` are weights ≥ 0, default 1.
    before_blocks, recent_blocks:
        Each row's block (a day). Fewer than ``least`` blocks before give no interval; ``n`` is the number of recent blocks.
    confidence:
        Of the interval.

    The mean of k recent blocks is a draw from the means of k neighbouring blocks before, when nothing changed: its variance is that of a
    block before, s², times (1 + 2 Σ (1 - j/k) rʲ)/k for an autocorrelation of r, which is a random effect of the day rather than
    of the row (a prediction interval; Searle, Casella and McCulloch 1992, "Variance Components"). Smaller recent blocks are taken to vary
    more in proportion; from 10 recent blocks on their own variance (about their trend) counts where it is larger. Coverage is simulated in
    ``tests/stats/test_change.py``.

    >>> past, days = np.tile([0.0, 1.0], 20), np.arange(40) // 2
    >>> made = moved(past, days, np.array([3.0, 3.0]), np.array([20, 20]))
    >>> made.value, made.n
    (2.5, 1)
    """
    past, sizes = _blocks(before, before_blocks, before_weights)
    new, new_sizes = _blocks(recent, recent_blocks, recent_weights)
    k, m = len(new), len(past)
    if not k or not m:
        return Estimate(None, n=k)
    mean, now = float(past.sum() / sizes.sum()), float(new.sum() / new_sizes.sum())
    value = now - mean
    if m < max(least, 3):
        return Estimate(value, n=k)
    deviations = (past - mean * sizes) / sizes.mean()
    infl = inflation(deviations)
    r = (infl - 1) / (infl + 1)
    one = float(deviations @ deviations) / max(m - infl, 0.3 * m)
    one *= max(1.0, float(sizes.mean() / new_sizes.mean()))
    lags = np.arange(1, k)
    variance = one * (1 + 2 * float(((1 - lags / k) * r**lags).sum())) / k
    if k >= 10:
        own = (new - now * new_sizes) / new_sizes.mean()
        places = np.arange(k) - (k - 1) / 2  # a change that comes bit by bit is no noise
        variance = max(variance, mean_error(own - places * float(places @ own) / float(places @ places))[0] ** 2)
    error, degrees = mean_error(deviations)
    half = t_quantile(confidence, degrees) * float(np.sqrt(variance + error**2))
    return Estimate(value, value - half, value + half, k)


def _blocks(values: Floats, blocks: Ints, weights: Floats | None) -> tuple[Floats, Floats]:
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    keep = np.isfinite(values) & (weights > 0)
    if not keep.any():
        return np.empty(0), np.empty(0)
    sums, sizes = block_sums(np.asarray(blocks)[keep], values[keep] * weights[keep], weights[keep])
    return sums, sizes


@dataclass(frozen=True)
class Shape:
    """How a series moved away from its past: at once, bit by bit, or not. ``at`` is the place where it begins, ``evidence`` the difference of BIC between both shapes."""

    kind: Literal["step", "ramp", "none"]
    at: int
    size: float
    evidence: float


def shape(values: Floats, *, least: int = 3, margin: float = 2.0) -> Shape:
    """Whether a series (one number a block, in order of time) steps or ramps to where it is now.

    Both shapes are fitted by least squares with every place of beginning (``least`` blocks from either end) and compared by BIC; neither counts
    unless it beats a constant by ``margin`` (the change-point model of Bai and Perron 1998, Econometrica 66, with one break in mean or in trend).

    >>> shape(np.r_[np.zeros(20), np.ones(20)] + 0.01 * np.sin(np.arange(40))).kind
    'step'
    >>> shape(np.r_[np.zeros(15), np.linspace(0, 2, 25)] + 0.01 * np.sin(np.arange(40))).kind
    'ramp'
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2 * least + 2:
        return Shape("none", n, 0.0, 0.0)
    places = np.arange(n, dtype=float)
    total = float(((values - values.mean()) ** 2).sum()) or 1e-300
    best = {}
    for name in ("step", "ramp"):
        found = []
        for at in range(least, n - least + 1):
            column = (places >= at).astype(float) if name == "step" else np.maximum(places - at + 1, 0.0)
            centred = column - column.mean()
            slope = float(centred @ values) / float(centred @ centred)
            found.append((max(total - slope**2 * float(centred @ centred), 1e-300), at, slope * float(column[-1])))
        best[name] = min(found)
    cost = 2 * np.log(n)  # a size and a place
    bic = {name: n * np.log(rest / n) + cost for name, (rest, _, _) in best.items()}
    flat = n * np.log(total / n)
    kind: Literal["step", "ramp"] = "step" if bic["step"] <= bic["ramp"] else "ramp"
    _, at, size = best[kind]
    apart = float(abs(bic["step"] - bic["ramp"]))
    if flat - bic[kind] < margin:
        return Shape("none", n, 0.0, apart)
    return Shape(kind, at, float(size), apart)


def episodes(
    values: Floats, *, before: int, least: int = 2, margin: float = 5.0, variances: Floats | None = None
) -> tuple[int, float]:
    """How often a series (one number a block) goes up to another level and comes back from it, after its first ``before`` blocks; and the evidence.

    Parameters
    ----------
    values:
        In order of time; the first ``before`` of them are at the old level.
    least:
        How many blocks an episode, and the time between two, last at least; the first and the last may be cut short.
    margin:
        By how much the two levels' BIC has to beat that of one step that lasts.
    variances:
        How noisy each block is, against the others: one with few rows says less. A block counts for no more than those before on average.

    Every block is at one of two levels, the old one and a higher one (the best of those tried), and each change of level costs as much as a
    parameter: the path is found by Viterbi's recursion. (0, 0.0) when one step does as well, or nothing happened.

    >>> series = np.r_[np.zeros(20), np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], 3)] + 0.05 * np.sin(np.arange(38))
    >>> episodes(series, before=20)[0]
    3
    """
    values = np.asarray(values, float)
    past, new = values[:before], values[before:]
    n = len(new)
    if before < 5 or n < 4 * least:
        return 0, 0.0
    old = float(past.mean())
    noise = float(past.var(ddof=1)) or 1e-300
    weights = np.ones(n) if variances is None else 1 / np.maximum(variances[before:] / variances[:before].mean(), 1.0)
    best = (np.inf, np.zeros(n, int))
    for level in np.quantile(new, [0.5, 0.6, 0.7, 0.8, 0.9]):
        if level - old < np.sqrt(noise):
            continue
        cost = weights[:, None] * np.column_stack([(new - old) ** 2, (new - level) ** 2]) / noise
        total, path = _switching(cost, np.log(len(values)) + 2.0, least)
        if total < best[0]:
            best = (total, path)
    step = min(_stepped(new, weights, old, k) for k in range(n)) / noise + 2 * float(np.log(len(values)))
    begins = int((np.diff(np.r_[0, best[1]]) == 1).sum())
    evidence = step - best[0]
    return (begins, float(evidence)) if begins >= 2 and evidence > margin else (0, 0.0)


def _stepped(new: Floats, weights: Floats, old: float, place: int) -> float:
    """What is left over when the series is at the old level up to a place, and at one of its own from there on."""
    later = float(np.average(new[place:], weights=weights[place:]))
    return float((weights[:place] * (new[:place] - old) ** 2).sum() + (weights[place:] * (new[place:] - later) ** 2).sum())


def _switching(cost: Floats, change: float, least: int) -> tuple[float, Ints]:
    """The cheapest path through two states, each visit at least ``least`` long (the first and the last may be cut short): (cost, path)."""
    n = len(cost)
    sums = np.vstack([np.zeros(2), np.cumsum(cost, axis=0)])
    total = np.full((n + 1, 2), np.inf)
    back = np.zeros((n + 1, 2), int)
    total[0] = (0.0, np.inf)
    for end in range(1, n + 1):
        for state in (0, 1):
            for start in range(end):
                if end - start < least and start and end != n:
                    continue
                entry = 0.0 if start == 0 and state == 0 else change
                came = 0.0 if start == 0 else total[start, 1 - state]
                made = came + entry + sums[end, state] - sums[start, state]
                if made < total[end, state]:
                    total[end, state], back[end, state] = made, start
    state = int(np.argmin(total[n]))
    best, path, end = float(total[n, state]), np.zeros(n, int), n
    while end > 0:
        start = back[end, state]
        path[start:end] = state
        end, state = start, 1 - state
    return best, path


def begun(values: Floats, *, least_before: int = 8, least_since: int = 1) -> tuple[int, float]:
    """(place, strength): where the mean of the rest of a series (one number a block) departs most from the mean before, in standard errors.

    The scan of CUSUM (Page 1954, Biometrika 41): the strength is the largest of many t-values, so that only what is far above 3 counts.

    >>> begun(np.r_[np.zeros(20), np.ones(3)] + 0.1 * np.sin(np.arange(23)))[0]
    20
    """
    values = np.asarray(values, float)
    n = len(values)
    best = (n, 0.0)
    for at in range(least_before, n - least_since + 1):
        past, new = values[:at], values[at:]
        deviations = past - past.mean()
        spread = float(np.sqrt(max(float(deviations @ deviations) / max(at - 1, 1), 1e-300)))
        if len(new) > 2:  # the same noise on both sides
            rest = new - new.mean()
            spread = max(spread, float(np.sqrt(float(rest @ rest) / (len(new) - 1))))
        strength = abs(float(new.mean() - past.mean())) / (spread * np.sqrt(1 / at + 1 / len(new)))
        if strength > best[1]:
            best = (at, float(strength))
    return best
