"""How often the cumulative sum of ranks (``noria.monitoring.change.lasting``) begins to be false, against the rate that it was asked for.

A world is a series of windows in which nothing happens: normal, long-tailed on the bad side, or heavy-tailed, each of independent windows or of
such that resemble the one before (r). After ``reference`` windows every next one is looked at through the real rule, which knows the windows so far.
A run of alarms counts once. The heights in ``change.height`` are those at which the worst independent world is right.

Run ``python benchmarks/false_alarms_lasting.py --markdown``; ``--worlds`` says how many of each kind.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from noria.monitoring import change

DAY = timedelta(days=1)
START = datetime(2021, 1, 1, tzinfo=UTC)
RATES = (0.005, 0.001, 0.0002)
REFERENCES = (28, 56)
LENGTH = 100
Floats = NDArray[np.float64]


def noise(kind: str, follow: float, random: np.random.Generator, n: int) -> Floats:
    raw = random.standard_normal(n + 200)
    made = np.asarray(lfilter([np.sqrt(1 - follow**2)], [1.0, -follow], raw))[200:]
    if kind == "long tail":
        return -np.exp(0.6 * made)
    return made / np.sqrt(random.chisquare(4, n) / 4) if kind == "heavy tails" else made


def begins(values: Floats, reference: int, rate: float) -> int:
    series = [change.Point(START + k * DAY, START + (k + 1) * DAY, float(v), 100.0) for k, v in enumerate(values)]
    count, before = 0, False
    for n in range(reference, len(series)):
        made = change.lasting(series[: n + 1], series[: n + 1], np.inf, rate=rate)
        raised = made is not None and made.raised
        count, before = count + (raised and not before), raised
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    head = ["windows", "r", "reference", *(f"asked {rate:g}" for rate in RATES)]
    lines = [head]
    for kind in ("normal", "long tail", "heavy tails"):
        for follow in (0.0, 0.3, 0.5):
            for reference in REFERENCES:
                cells = [kind, f"{follow:g}", str(reference)]
                for rate in RATES:
                    random = np.random.default_rng([11, int(10 * follow), reference])
                    made = sum(
                        begins(noise(kind, follow, random, reference + LENGTH), reference, rate) for _ in range(given.worlds)
                    )
                    looked = given.worlds * LENGTH
                    cells.append(f"{made / looked:.4f} ± {2 * np.sqrt(max(made, 1)) / looked:.4f}")
                lines.append(cells)
    rows = [" | ".join(line) for line in lines]
    if given.markdown:
        rows = [f"| {row} |" for row in rows]
        rows.insert(1, "|---" * len(head) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
