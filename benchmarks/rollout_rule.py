"""How often each way to decide a rollout is wrong, and how fast it is right.

Daily differences of value between two models, autocorrelated and heavy-tailed, are looked at after every day from day 14 to day 120.
Four rules decide as soon as they are sure: promote when the challenger looks better, roll back when it looks worse.

- ``sequence``: ``noria.stats.mean_sequence`` excludes 0.
- ``t, daily``: the 95 % interval of a t-test over the days so far excludes 0, as if it were looked at once.
- ``t, daily, HAC``: the same with the interval of ``noria.stats.block_mean``, which allows for autocorrelation but not for looking often.
- ``last 7 days``: the mean of the last seven days is above or below 0 by a quarter of a standard deviation.

Run ``python benchmarks/rollout_rule.py [runs]`` (1,000 runs take about four minutes). What it printed is in the docstring of
``noria.stats.mean_sequence``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from noria.core import Estimate
from noria.stats import block_mean, mean_sequence

Floats = NDArray[np.float64]
FIRST, LAST = 14, 120
Rule = Callable[[Floats], int]


def innovations(random: np.random.Generator, shape: tuple[int, int], kind: str) -> Floats:
    """Draws with mean 0 and standard deviation 1."""
    if kind == "normal":
        return random.standard_normal(shape)
    if kind == "t3":
        return random.standard_t(3, shape) / np.sqrt(3)
    spread = np.sqrt((np.e - 1) * np.e)
    if kind == "lognormal difference":
        return (np.exp(random.standard_normal(shape)) - np.exp(random.standard_normal(shape))) / (spread * np.sqrt(2))
    return (np.exp(random.standard_normal(shape)) - np.sqrt(np.e)) / spread  # "lognormal": one-sided


def days(random: np.random.Generator, runs: int, kind: str, r: float, effect: float = 0.0) -> Floats:
    """(runs, LAST) daily differences: AR(1) with coefficient ``r``, standard deviation 1, mean ``effect``."""
    burn = 50
    noise = innovations(random, (runs, LAST + burn), kind) * np.sqrt(1 - r * r)
    for day in range(1, LAST + burn):
        noise[:, day] += r * noise[:, day - 1]
    return noise[:, burn:] + effect


def _side(estimate: Estimate) -> int:
    return 1 if estimate.above(0.0) else -1 if estimate.below(0.0) else 0


def by_sequence(seen: Floats) -> int:
    return _side(mean_sequence(seen, error=0.05))


def by_t(seen: Floats) -> int:
    half = 1.96 * (1 + 1.2 / len(seen)) * seen.std(ddof=1) / np.sqrt(len(seen))  # Student's quantile to three digits
    return int(np.sign(seen.mean())) if abs(seen.mean()) > half else 0


def by_hac(seen: Floats) -> int:
    return _side(block_mean(seen, np.arange(len(seen))))


def by_last_week(seen: Floats) -> int:
    mean = seen[-7:].mean()
    return int(np.sign(mean)) if abs(mean) > 0.25 else 0


RULES: dict[str, Rule] = {"sequence": by_sequence, "t, daily": by_t, "t, daily, HAC": by_hac, "last 7 days": by_last_week}


def decisions(rule: Rule, differences: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each run what was decided (+1, -1, 0 never) and on which day (``LAST`` when never)."""
    sides, when = np.zeros(len(differences), np.int64), np.full(len(differences), LAST)
    for run, series in enumerate(differences):
        for day in range(FIRST, LAST + 1):
            side = rule(series[:day])
            if side:
                sides[run], when[run] = side, day
                break
    return sides, when


def main(runs: int) -> None:
    kinds = ("normal", "t3", "lognormal difference", "lognormal")
    head = f"{'days':22s}{'r':>5s}  {'rule':15s}{'A/A: decided':>14s}"
    print(head + f"{'+0.4 sd: right by 28':>22s}{'by 56':>8s}{'by 120':>8s}{'wrong':>8s}")
    for kind in kinds:
        for r in (0.0, 0.3, 0.5):
            random = np.random.default_rng([kinds.index(kind), int(10 * r)])
            same, better = days(random, runs, kind, r), days(random, runs, kind, r, effect=0.4)
            for name, rule in RULES.items():
                false = float((decisions(rule, same)[0] != 0).mean())
                sides, when = decisions(rule, better)
                right = [float(((sides == 1) & (when <= day)).mean()) for day in (28, 56, 120)]
                shown = "".join(f"{share:{width}.3f}" for share, width in zip(right, (22, 8, 8), strict=True))
                print(f"{kind:22s}{r:5.1f}  {name:15s}{false:14.3f}{shown}{float((sides == -1).mean()):8.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
