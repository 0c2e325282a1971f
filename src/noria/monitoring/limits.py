"""From the numbers of ordinary windows to a bound that ordinary windows rarely exceed, for a given budget of false alarms.

Three ideas. *Over columns*: each column's distance is divided by what is usual for it, and a window counts by its largest column, so the
bound is one on that maximum; what is usual is taken from the other three quarters of the time, since it is an estimate too, and the bound is widened by what windows
that are part of the profile lie nearer to it. *Over time*: eight weeks of days have no 99.9 % quantile, and they follow one another, so the bound is a
prediction limit: the mean and spread of the logarithms, the t-quantile for as many windows as they are worth (n over their inflation;
Zwiers and von Storch 1995), and the error of the mean. The alert then asks for three windows in a row beyond it: how seldom that
happens by chance in windows so dependent is simulated, and the windows' own error is the largest that keeps the budget. *Like with like*:
where the weekday (for shorter windows the hour) explains a distance, it is scaled by it. The rates are simulated in the tests and, at
length, in ``benchmarks/false_alarms_drift.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.monitoring.budget import CLEAR

Floats = NDArray[np.float64]
Distances = Mapping[tuple[str, str], float]

LEAST = 30
WORTH = 4.0
USUAL = 0.9
ERRORS = (0.02, 0.01, 0.005, 0.002, 0.001)
RULE = (3, 3)  # of drift alone: with two in a row, bounds from eight weeks of strongly dependent days do not keep the budget
STEPS = 200_000
ALIKE = 4
EXPLAINS = 0.01
NOTHING = 1e-3
FOLDS = 4
FLOORS = {"js": 0.05, "missing": 0.01, "unseen": 0.01, "sliding": 0.03}
DAY = timedelta(days=1)


def kind(start: datetime, every: timedelta) -> str:
    """Which windows are like the one that starts at ``start``: those of its weekday, or (windows shorter than a day) of its hour.

    >>> from datetime import UTC
    >>> kind(datetime(2024, 1, 1, 6, tzinfo=UTC), DAY), kind(datetime(2024, 1, 1, 6, tzinfo=UTC), DAY / 24), kind(datetime(2024, 1, 1), 7 * DAY)
    ('Monday', '06:00', '')
    """
    if every == DAY:
        return f"{start:%A}"
    return f"{start:%H}:00" if every < DAY else ""


def largest(ordinary: Sequence[Distances], scales: Sequence[Distances]) -> Floats:
    """Each window's largest distance in units of its scale."""
    made = [
        max((value / scale[name] for name, value in window.items()), default=np.nan)
        for window, scale in zip(ordinary, scales, strict=True)
    ]
    return np.array(made, float)


def bounds(
    ordinary: Sequence[Distances],
    kinds: Sequence[str] = (),
    *,
    error: float = ERRORS[0],
    overlap: int = 1,
    inflated: float | None = None,
) -> dict[str, dict[tuple[str, str], float]]:
    """The bound of each (signal, column), by the kind of window (``""``: any other); nothing from windows worth too little.

    ``ordinary`` are windows' distances in order of time, at least 30; ``error`` is the expected number of false alarms in a window that is
    allowed; ``overlap`` says that each number is over so many windows, of which the next shares all but one, and ``inflated`` what
    ``inflation`` says of these windows alone.

    >>> made = bounds([{("js", "a"): 0.1 + 0.001 * (k * 7 % 60), ("js", "b"): 0.2} for k in range(60)])[""]
    >>> round(made["js", "a"], 2), round(made["js", "b"], 2)
    (0.16, 0.21)
    """
    if len(ordinary) < LEAST:
        return {}
    names = sorted({name for window in ordinary for name in window})
    table = np.array([[window.get(name, np.nan) for name in names] for window in ordinary])
    scales = _scales(names, table, kinds)
    ratios = _unseen(ordinary, names, table, kinds)
    factor = limit(ratios[np.isfinite(ratios)], error, overlap=overlap, inflated=inflated)
    if factor is None:
        return {}
    # the profile may be of these very windows: then they lie nearer to it than later ones will
    n = len(ordinary) + overlap - 1
    factor *= ((n + overlap) / (n - overlap)) ** 0.5
    made = {one: {name: float(f"{factor * scale:.9g}") for name, scale in of.items()} for one, of in scales.items()}
    return {one: of for one, of in made.items() if not one or of != made[""]}


def inflation(ordinary: Sequence[Distances]) -> float:
    """By how much the windows' dependence multiplies the variance of their mean (``stats.inflation``), by their largest distances."""
    names = sorted({name for window in ordinary for name in window})
    table = np.array([[window.get(name, np.nan) for name in names] for window in ordinary])
    ratios = largest(ordinary, [_scales(names, table, ())[""]] * len(ordinary))
    logs = np.log(np.maximum(ratios[np.isfinite(ratios)], NOTHING))
    return stats.inflation(logs - logs.mean()) if len(logs) else 1.0


def _unseen(ordinary: Sequence[Distances], names: Sequence[tuple[str, str]], table: Floats, kinds: Sequence[str]) -> Floats:
    """Each window's largest distance, in units of scales from the other three quarters of the time: as a new window will be measured."""
    of = np.array(kinds) if kinds else np.full(len(table), "")
    made = np.full(len(table), np.nan)
    for fold in np.array_split(np.arange(len(table)), FOLDS):
        rest = np.setdiff1d(np.arange(len(table)), fold)
        scales = _scales(names, table[rest], of[rest].tolist() if kinds else ())
        made[fold] = largest([ordinary[k] for k in fold], [scales.get(of[k], scales[""]) for k in fold])
    return made


def _scales(names: Sequence[tuple[str, str]], table: Floats, kinds: Sequence[str]) -> dict[str, dict[tuple[str, str], float]]:
    """What is usual for each distance (its 90 % quantile, at least a floor), by the kind of window where that explains it."""
    with np.errstate(all="ignore"):
        usual = np.nan_to_num(np.nanquantile(table, USUAL, axis=0))
    floors = [FLOORS[name] for name, _ in names]
    made = {"": dict(zip(names, np.maximum(usual, floors).tolist(), strict=True))}
    if not kinds:
        return made
    of = np.array(kinds)
    enough = [str(one) for one in np.unique(of) if (of == one).sum() >= ALIKE]
    made |= {str(one): dict(made[""]) for one in np.unique(of)}
    if len(enough) < 2:
        return made
    for place, name in enumerate(names):
        groups = {one: column[np.isfinite(column)] for one in enough for column in [table[of == one, place]]}
        middle = float(np.median(table[np.isfinite(table[:, place]), place])) if np.isfinite(table[:, place]).any() else 0.0
        if middle <= 0 or not _explains([group for group in groups.values() if len(group) >= ALIKE]):
            continue
        rest = np.concatenate([group / max(float(np.median(group)), NOTHING * middle) for group in groups.values() if len(group)])
        spread = float(np.quantile(rest, USUAL))
        for one, group in groups.items():
            if len(group) >= ALIKE:
                made[one][name] = max(spread * float(np.median(group)), FLOORS[name[0]])
    return made


def _explains(groups: Sequence[Floats]) -> bool:
    """Whether the groups differ beyond chance (Kruskal and Wallis 1952), at 1 %."""
    from scipy import stats as scipy_stats

    if len(groups) < 2 or np.ptp(np.concatenate(groups)) == 0:
        return False
    return bool(scipy_stats.kruskal(*groups).pvalue < EXPLAINS)


def limit(values: Floats, error: float, *, overlap: int = 1, inflated: float | None = None) -> float | None:
    """What the next windows' numbers rarely exceed when they are as these were; ``None`` when these are worth fewer than four windows.

    A prediction limit of the logarithms with as many degrees of freedom as the windows are worth, at the largest error of a window
    for which the alert's rule (``RULE``) keeps ``error`` false alarms a window; never below the 98 % quantile seen.
    """
    from scipy import special

    n = len(values)
    if n < LEAST // 2:
        return None
    logs = np.log(np.maximum(values, NOTHING))
    apart = logs - logs.mean()
    k = overlap * (stats.inflation(apart) if inflated is None else inflated)
    worth = n / k
    if worth < WORTH:
        return None
    r = (k - 1) / (k + 1) if overlap == 1 else 1 - 1 / overlap
    p = allowed(round(min(0.95, r + n**-0.5), 1), error / 2)  # half: the bound is an estimate too
    spread = float(np.sqrt(apart @ apart / max(n - k, 1.0)))
    made = float(np.exp(logs.mean() + special.stdtrit(worth - 1, 1 - p) * spread * np.sqrt(1 + 1 / worth)))
    return max(made, float(np.quantile(values, 1 - ERRORS[0])))


def allowed(r: float, error: float) -> float:
    """The largest chance of a window to be beyond its bound, at most 2 %, for which alerts open no oftener than ``error`` a window."""
    return next((p for p in ERRORS if openings(r, p) <= error), ERRORS[-1])


@lru_cache(maxsize=256)
def openings(r: float, p: float) -> float:
    """How many alerts a window brings by chance, when each window is beyond its bound with probability ``p`` and follows the last with ``r``.

    By simulation of 200,000 windows, a Gaussian autoregression of first order; an alert opens by ``RULE`` and closes after
    ``budget.CLEAR`` windows within.

    >>> round(openings(0.0, 0.02), 4), openings(0.9, 0.02) < 0.02 / 5
    (0.0, True)
    """
    from scipy import signal, special

    draws = np.random.default_rng(20).standard_normal(STEPS)
    process = signal.lfilter([np.sqrt(1 - r * r)], [1.0, -r], draws)
    beyond = process > special.ndtri(1 - p)
    k, m = RULE
    sums = np.concatenate([[0], np.cumsum(beyond)])
    here = np.arange(max(m, CLEAR), len(sums))
    said = np.where(sums[here] - sums[here - m] >= k, 1, np.where(sums[here] == sums[here - CLEAR], 0, -1))
    said = said[said >= 0]
    return float(((said[1:] == 1) & (said[:-1] == 0)).mean() * len(said) / STEPS)
