"""Whether a shift of the inputs matters: a shift alone is a fact about the world, and no reason to train.

A drift counts when performance suffers with it: harm is already found in closed outcomes, or the last week of them is below what the gate
promised, or the performance expected of the newest traffic (before labels) is, or the columns that moved carry a material share of the
release's loss (``Signal.impact``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria.core import Verdict
from noria.monitoring.alerts import harms
from noria.monitoring.change import CURRENT
from noria.monitoring.facts import SOON
from noria.monitoring.grouping import members
from noria.monitoring.outcomes import CHAMPION
from noria.monitoring.windows import found, recent, value_of
from noria.records import Alerted, Entry, Monitored
from noria.store import Home
from noria.system import System

MATERIAL = 0.1
"""The share of the release's loss that has to move with a shift before the shift alone is a reason to train."""
DRIFTS = ("drift", "inputs moved together", "unseen regions", "label shift")
"""The alerts that say that something moved."""
BEFORE_LABELS = ("expected performance", "concept change")
LEADS = ("lead", "level")


def suffers(home: Home, system: System, drift: Alerted, opened: Sequence[Entry[Alerted]]) -> str:
    """Why this drift is no harmless one, as the end of a sentence; empty while nothing suffers from it."""
    for entry in opened:
        before = next((name for name, _ in members(entry.record) if name in BEFORE_LABELS), "")
        if harms(entry.record) or before:
            return f"{before or entry.record.name} is found at the same time"
    traffic = recent(home, "traffic", CURRENT)
    share = material(system, drift, traffic)
    if share is not None and share >= MATERIAL:
        return f"{share:.0%} of the release's loss moves with it"
    if _expected(system, traffic):
        return f"{system.objective.metric}, as it is expected of the newest traffic, is out of bounds"
    outcomes = recent(home, "outcomes", CURRENT)
    return "the last closed windows are below what the gate promised" if below_promise(outcomes) else ""


def material(system: System, drift: Alerted, traffic: Sequence[Monitored]) -> float | None:
    """The middle, over the windows where the source's columns failed, of the largest share of the loss that moves with one of them."""
    moved = {subject for name, subject in members(drift) if name in DRIFTS}
    columns = {f.name for f in system.flat_features if f.source in moved} | moved
    shares = []
    for window in traffic:
        mine = [s.impact for s in window.signals if s.subject in columns and s.verdict is Verdict.FAIL and s.impact is not None]
        if mine:
            shares.append(max(mine))
    return float(np.median(shares)) if shares else None


def _expected(system: System, traffic: Sequence[Monitored]) -> bool:
    k, m = SOON
    signals = [found(window.signals, "expected", system.objective.metric) for window in traffic[-m:]]
    return sum(signal is not None and signal.verdict is Verdict.FAIL for signal in signals) >= k


def below_promise(outcomes: Sequence[Monitored]) -> bool:
    """Whether the mean of the last windows of the release that answers is below its bound; never with less than ``CURRENT`` windows."""
    release = outcomes[-1].release if outcomes else None
    own = [window for window in outcomes if window.release == release and release is not None]
    if len(own) < CURRENT:
        return False
    made = mean_lead(own)
    return made is not None and made[0] < made[1]


def mean_lead(windows: Sequence[Monitored]) -> tuple[float, float] | None:
    """The release's mean lead over these windows, by rows, and its bound; ``None`` where either is unknown."""
    values, weights, bound = [], [], None
    for window in windows:
        signal = next((s for s in window.signals if s.name in LEADS and s.subject == CHAMPION), None)
        rows = value_of(window, "rows", CHAMPION)
        if signal is not None and signal.value is not None and rows:
            values.append(signal.value)
            weights.append(rows)
            bound = signal.bound if signal.bound is not None else bound
    return (float(np.average(values, weights=weights)), bound) if values and bound is not None else None
