"""What happened to the business over many windows: totals, by release, and against the reference policies with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from noria.business.net import Net, net
from noria.core import Estimate, Window
from noria.records import Entry, Valued
from noria.stats import block_mean
from noria.store import Home
from noria.system import System

POLICIES = ("do nothing", "always act", "perfect")


def summary(home: Home, system: System, window: Window | None = None) -> dict[str, Any]:
    """The value of all decisions whose cohorts closed (asked within ``window``, if given).

    Returns plain data and ``Estimate``: ``currency``, ``windows`` (how many), ``window`` (from and to, or ``None``), ``n``, ``total``,
    ``per_prediction``, ``policies`` (totals by name), ``versus`` (by name, the difference per prediction: positive means
    that the decisions were better), ``releases`` (the same for each bundle, in order of first use; ``""`` is the time before the
    first release), ``net`` (what is left once the ML's costs are paid, since the first release) and ``advice``. Intervals are over windows, corrected for autocorrelation; fewer than 10 give none.
    """
    books = newest(home, window)
    found = _figures([_merged(entry.record) for entry in books])
    names = dict.fromkeys(name for entry in books for name in entry.record.sums)
    releases = []
    for name in names:
        used = [entry.record for entry in books if name in entry.record.sums]
        parts = [record.sums[name] for record in used]
        span = Window(used[0].window.start, used[-1].window.end)
        releases.append({"release": name, "window": span} | _figures(parts))
    ran = [(entry.record.window, _merged(entry.record, released=True)) for entry in books]
    ran = [(span, part) for span, part in ran if part["n"] > 0]
    acted = _figures([part for _, part in ran])
    began = books[0].record.window.start if books else None
    left = net(home, system, Window(ran[0][0].start, ran[-1][0].end), acted, began=began) if ran else None
    return {
        "currency": system.objective.value.currency,
        "windows": len(books),
        "window": Window(books[0].record.window.start, books[-1].record.window.end) if books else None,
        **found,
        "releases": releases,
        "net": left,
        "advice": advice(acted["versus"], left),
    }


def newest(home: Home, window: Window | None = None) -> list[Entry[Valued]]:
    """The books in order of time, of each window its newest revision."""
    kept: dict[datetime, Entry[Valued]] = {}
    for entry in home.ledger.read(Valued):
        span = entry.record.window
        if window is None or (span.start >= window.start and span.end <= window.end):
            kept[span.end] = entry
    return [kept[end] for end in sorted(kept)]


def advice(versus: dict[str, Estimate], left: Net | None = None) -> str:
    """What the money says about going on with the system, in a sentence; ``left`` is what the costs leave of it.

    >>> advice({"do nothing": Estimate(-1.0, -2.0, -0.5, 30)})
    'stop: the decisions lost money against doing nothing'
    """
    nothing = versus.get("do nothing", Estimate(None))
    always = versus.get("always act", Estimate(None))
    if not nothing.known:
        return "not enough data: fewer than 10 closed windows under a release"
    if nothing.below(0.0):
        return "stop: the decisions lost money against doing nothing"
    if left is not None and left.says:
        return left.says
    if always.below(0.0):
        return "re-scope: always acting would have made more than deciding"
    if nothing.above(0.0):
        return "continue: the decisions made more than doing nothing"
    return "not enough data: the decisions and doing nothing cannot be told apart yet"


def _merged(record: Valued, *, released: bool = False) -> dict[str, float]:
    """The sums of one window over all releases; ``released`` leaves out what was before the first release."""
    parts = [part for name, part in record.sums.items() if name or not released]
    shared = [name for name in ("n", "value", *POLICIES) if all(name in part for part in parts)]
    return {"n": 0.0, "value": 0.0} | {name: sum(part[name] for part in parts) for name in shared}


def _figures(parts: Sequence[dict[str, float]]) -> dict[str, Any]:
    full = [part for part in parts if part["n"] > 0]
    known = [name for name in POLICIES if full and all(name in part for part in full)]
    partly = [name for name in POLICIES if any(name in part for part in full)]
    return {
        "n": int(sum(part["n"] for part in full)),
        "total": float(sum(part["value"] for part in full)),
        "per_prediction": _per_prediction(full, "value"),
        "policies": {name: float(sum(part[name] for part in full)) for name in known},
        "versus": {name: _per_prediction([part for part in full if name in part], "value", name) for name in partly},
    }


def _per_prediction(parts: Sequence[dict[str, float]], name: str, less: str = "") -> Estimate:
    if not parts:
        return Estimate(None)
    n = np.array([part["n"] for part in parts])
    sums = np.array([part[name] - (part[less] if less else 0.0) for part in parts])
    return block_mean(sums / n, np.arange(len(parts)), weights=n)
