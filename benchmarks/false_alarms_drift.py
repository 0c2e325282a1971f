"""How often drift alarms while nothing has changed, and how soon a change is found: whole years of counts through our own bounds and rule.

Columns of twenty bins are drawn day by day: a latent state of each column (an autoregression of first order, of its own for each column) tilts the
shares of the bins, and ``rows`` rows are drawn from them; some streams have weekends of another mix. Eight weeks are the
reference's windows, from which ``noria.monitoring.limits`` makes the bounds; the profile is of the same stationary process. Then 168
days are judged: each day alone, seven days together, and the alert of both (three windows in a row, closed after five within). The
budget is 1 alarm in 28 days for all monitors, of which drift has a sixth: 1 in 168 days.

Run ``python benchmarks/false_alarms_drift.py [runs]`` (100 runs take about two minutes on an idle core; ``--markdown`` for a table).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from noria import stats
from noria.monitoring import limits
from noria.monitoring.budget import CLEAR
from noria.monitoring.ordinary import SLIDE

Floats = NDArray[np.float64]
BINS, COLUMNS, REFERENCE, LIVE, BEFORE = 20, 10, 56, 168, 28
DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
ERROR = 1 / 168
TILT = np.linspace(-1, 1, BINS) / np.linspace(-1, 1, BINS).std()


def days(random: np.random.Generator, stream: tuple[float, float, float, int], shift: float) -> Floats:
    """Counts, columns by days by bins; the first column moves by ``shift`` standard deviations once 28 live days have passed."""
    r, swing, weekend, rows = stream
    total = REFERENCE + LIVE
    draws = random.standard_normal((COLUMNS, total + 60))
    state = swing * signal.lfilter([np.sqrt(1 - r * r)], [1.0, -r], draws, axis=1)[:, 60:]
    state += weekend * np.isin(np.arange(total) % 7, (5, 6))
    state[0, REFERENCE + BEFORE :] += shift
    shares = np.exp(state[:, :, None] * TILT)
    shares /= shares.sum(axis=2, keepdims=True)
    return random.multinomial(rows, shares).astype(float)


def far(base: Floats, counts: Floats) -> Floats:
    """The Jensen-Shannon distance of every day of every column."""
    return np.array([stats.jensen_shannon_each(base[c], counts[c]) for c in range(len(counts))])


def together(counts: Floats) -> Floats:
    sums = np.concatenate([np.zeros((len(counts), 1, BINS)), np.cumsum(counts, axis=1)], axis=1)
    return sums[:, SLIDE:] - sums[:, :-SLIDE]


def listed(name: str, table: Floats) -> list[dict[tuple[str, str], float]]:
    return [{(name, str(c)): float(table[c, t]) for c in range(len(table))} for t in range(table.shape[1])]


def judged(counts: Floats, base: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which live days are beyond their bound alone, and which with the six days before."""
    kinds = [limits.kind(START + k * DAY, DAY) for k in range(REFERENCE + LIVE)]
    alone, seven = far(base, counts), far(base, together(counts))
    before = listed("js", alone[:, :REFERENCE])
    made = limits.bounds(before, kinds[:REFERENCE], error=ERROR / 2)
    slow = limits.bounds(
        listed("sliding", seven[:, : REFERENCE - SLIDE + 1]), error=ERROR / 2, overlap=SLIDE, inflated=limits.inflation(before)
    )
    live = range(REFERENCE, REFERENCE + LIVE)
    one = (
        np.array([any(alone[c, t] > made.get(kinds[t], made[""])["js", str(c)] for c in range(COLUMNS)) for t in live])
        if made
        else np.zeros(LIVE, bool)
    )
    if not slow:
        return one, np.zeros(LIVE, bool)
    edge = np.array([slow[""]["sliding", str(c)] for c in range(COLUMNS)])
    return one, (seven[:, REFERENCE - SLIDE + 1 :] > edge[:, None]).any(axis=0)


def opened(fails: NDArray[np.bool_]) -> list[int]:
    """The days on which an alert opens."""
    made, is_open = [], False
    k, m = limits.RULE
    for t in range(m, len(fails) + 1):
        if not is_open and fails[t - m : t].sum() >= k:
            is_open = True
            made.append(t - 1)
        elif is_open and not fails[max(0, t - CLEAR) : t].any():
            is_open = False
    return made


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    runs, markdown = int(words[0]) if words else 100, "--markdown" in sys.argv
    head = (
        "stream",
        "days beyond",
        "weeks beyond",
        "alarms in 168 days",
        "by days alone",
        f"found {0.3}",
        "days to it",
        "by days alone ",
    )
    rows = [head]
    for r, swing, weekend, size in STREAMS:
        quiet, found, beyond = [], [], []
        for run in range(runs):
            for shift, kept in ((0.0, quiet), (0.3, found)):
                random = np.random.default_rng([run, int(100 * r), int(100 * swing), size, int(10 * shift)])
                counts = days(random, (r, swing, weekend, size), shift)
                base = counts[:, :REFERENCE].sum(axis=1)
                one, seven = judged(counts, base)
                kept.append((opened(one | seven), opened(one)))
                if not shift:
                    beyond.append((one.mean(), seven.mean()))
        late = [[next((t - BEFORE for t in said[k] if t >= BEFORE), None) for said in found] for k in (0, 1)]
        shown = [[t for t in some if t is not None] for some in late]
        rows.append(
            (
                f"{size:,} rows, r={r}, swing {swing}, weekend {weekend}",
                *(f"{value:.1%}" for value in np.mean(beyond, axis=0)),
                *(f"{np.mean([len(said[k]) for said in quiet]):.2f}" for k in (0, 1)),
                f"{len(shown[0]) / runs:.0%}",
                f"{np.median(shown[0]):.0f}" if shown[0] else "-",
                f"{len(shown[1]) / runs:.0%}",
            )
        )
    if markdown:
        print(
            "\n".join(
                "| " + " | ".join(row) + " |" + ("\n|---|" + "---:|" * (len(row) - 1) if row is head else "") for row in rows
            )
        )
    else:
        print("\n".join("  ".join(cell.ljust(42) if not k else cell.rjust(18) for k, cell in enumerate(row)) for row in rows))


STREAMS = [
    (0.0, 0.0, 0.0, 1000),
    (0.0, 0.1, 0.0, 1000),
    (0.5, 0.1, 0.0, 1000),
    (0.8, 0.1, 0.0, 1000),
    (0.5, 0.1, 0.4, 1000),
    (0.5, 0.1, 0.0, 50_000),
    (0.0, 0.0, 0.0, 100),
]


if __name__ == "__main__":
    main()
