"""How often intervals that say 95 % hold what they should, by simulation: means over days, a change since a day, a metric before its labels.

Days resemble the one before by ``r`` (first order). *mean* is ``stats.block_mean`` over 42 days, beside the plain t-interval of the same days
(scipy). *change* is ``stats.moved``: 56 days before, and 2, 7 or 28 since, with nothing changed. *before labels* is ``stats.expected`` of a
window of 300 rows: its metric once the labels are there, when the days' chances shift about (standard deviation 0.3 in log-odds) as they did on 28 reference days.

Run ``python benchmarks/coverage.py --markdown``; ``--runs`` of each kind.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special
from scipy import stats as scipy_stats

from noria import stats

Floats = NDArray[np.float64]
DAYS, BEFORE, ROWS = 42, 56, 300
SINCE = (2, 7, 28)


def days(random: np.random.Generator, follow: float, n: int) -> Floats:
    raw = random.standard_normal(n + 100)
    return np.asarray(signal.lfilter([np.sqrt(1 - follow**2)], [1.0, -follow], raw))[100:]


def mean(random: np.random.Generator, follow: float) -> tuple[bool, bool]:
    """Whether the interval over blocks and the plain one hold the true mean, 0."""
    series = days(random, follow, DAYS)
    ours = stats.block_mean(series, np.arange(DAYS))
    low, high = scipy_stats.t.interval(0.95, DAYS - 1, series.mean(), series.std(ddof=1) / np.sqrt(DAYS))
    return _holds(ours, 0.0), bool(low <= 0 <= high)


def change(random: np.random.Generator, follow: float, since: int) -> bool:
    series = days(random, follow, BEFORE + since)
    at = np.arange(BEFORE + since)
    return _holds(stats.moved(series[:BEFORE], at[:BEFORE], series[BEFORE:], at[BEFORE:], confidence=0.95), 0.0)


def before_labels(random: np.random.Generator, metric: str) -> bool:
    def day(rows: int) -> tuple[Floats, Floats]:
        z = random.normal(-1, 1, rows)
        label = (random.random(rows) < special.expit(z + random.normal(0, 0.3))).astype(float)
        return label, special.expit(z)

    reference = [day(150) for _ in range(28)]
    slack = stats.spread(np.concatenate([label - score for label, score in reference]), np.repeat(np.arange(28), 150))
    label, score = day(ROWS)
    return _holds(stats.expected(metric, score, score, calibration=slack), float(stats.compute(metric, label, score)))


def _holds(made: stats.Estimate, truth: float) -> bool:
    return made.low is not None and made.high is not None and made.low <= truth <= made.high


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    lines = [["what", "r = 0", "r = 0.3", "r = 0.6"]]
    follows = (0.0, 0.3, 0.6)
    means = {r: [mean(np.random.default_rng([1, k]), r) for k in range(given.runs)] for r in follows}
    for name, place in (("mean of 42 days", 0), ("the same, plain t-interval", 1)):
        lines.append([name, *(f"{np.mean([one[place] for one in means[r]]):.1%}" for r in follows)])
    for since in SINCE:
        found = [np.mean([change(np.random.default_rng([2, k]), r, since) for k in range(given.runs)]) for r in follows]
        lines.append([f"change, {since} days since", *(f"{share:.1%}" for share in found)])
    for metric in ("log_loss", "auc", "brier"):
        found = np.mean([before_labels(np.random.default_rng([3, k]), metric) for k in range(given.runs)])
        lines.append([f"{metric} before labels", f"{found:.1%}", "", ""])
    rows = [" | ".join(line) for line in lines]
    if given.markdown:
        rows = [f"| {row} |" for row in rows]
        rows.insert(1, "|---" * len(lines[0]) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
