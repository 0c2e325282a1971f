"""Which candidate goes to the gate: the simplest that a costlier one does not beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria import stats
from noria.core import Estimate
from noria.development.evaluation import evaluated_key
from noria.records import Entry, Evaluated, Trained
from noria.store import Home
from noria.system import System


def choose(home: Home, system: System, entries: Sequence[Entry[Trained]]) -> Entry[Trained] | None:
    """The simplest candidate that no costlier one beats by an interval over the same blocks; ``None`` when there are only baselines.

    Candidates climb from cheap to costly: a costlier one takes the place of the one that stands only when it is better beyond chance on
    the part ``validate``: choosing is tuning, and the part ``test`` is for the one that was chosen. One that was not evaluated there
    cannot be chosen.
    """
    ranked = sorted((entry for entry in entries if not entry.record.baseline), key=lambda e: (e.record.cost, e.record.recipe))
    standing: Entry[Trained] | None = None
    seen: Evaluated | None = None
    for entry in ranked:
        found = home.ledger.find(evaluated_key(entry, "validate"))
        if found is None or not isinstance(found.record, Evaluated):
            continue
        if seen is None or by_blocks(system, seen, found.record).above(0.0):
            standing, seen = entry, found.record
    return standing


def by_blocks(system: System, first: Evaluated, second: Evaluated) -> Estimate:
    """How much better the second is than the first, from their means per block of time; positive is better."""
    metric = system.objective.metric
    a, b = (
        dict(zip(e.daily.get("block", ()), zip(e.daily.get(metric, ()), e.daily.get("n", ()), strict=True), strict=True))
        for e in (first, second)
    )
    common = sorted(set(a) & set(b))
    if not common:
        return Estimate(None)
    sign = stats.better(metric)
    difference = np.array([sign * (b[block][0] - a[block][0]) for block in common])
    sizes = np.array([a[block][1] for block in common])
    return stats.block_mean(
        difference,
        np.array(common, dtype=np.int64),
        weights=sizes,
        confidence=system.gate.confidence,
        least=system.gate.blocks,
    )
