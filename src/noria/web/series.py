"""The report's numbers over time: daily accounts gathered into weeks, performance of closed cohorts, cumulative money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from noria.business.summary import newest
from noria.core.window import EPOCH
from noria.records import Monitored
from noria.stats.intervals import block_mean
from noria.store import Home

WEEK = timedelta(weeks=1)
BLOCKS = 28
"""Intervals over time look at the last 28 accounts (days, mostly): fewer than ten give no interval."""


class Point(msgspec.Struct, frozen=True):
    """A number at a time with its interval, for a chart. ``n`` is the number of accounts behind it."""

    at: datetime
    series: str
    value: float
    low: float | None = None
    high: float | None = None


class Account(msgspec.Struct, frozen=True):
    """One window's money: of this system and of the trivial policies, over the same ``n`` predictions."""

    end: datetime
    n: float
    made: dict[str, float]


def accounts(home: Home) -> list[Account]:
    """The books in time order; a policy is there when every prediction of the window has its value."""
    rows = []
    for entry in newest(home):
        parts = list(entry.record.sums.values())
        names = [name for name in ("value", "do nothing", "always act") if parts and all(name in part for part in parts)]
        made = {"this system" if name == "value" else name: sum(part[name] for part in parts) for name in names}
        rows.append(Account(entry.record.window.end, sum(part["n"] for part in parts), made))
    return rows


def cumulative(home: Home) -> list[Point]:
    """Money so far, day by day: this system and the trivial policies."""
    sums: dict[str, float] = {}
    points = []
    for account in accounts(home):
        for name, value in account.made.items():
            sums[name] = sums.get(name, 0.0) + value
            points.append(Point(account.end, name, sums[name]))
    return points


def weekly_value(home: Home, *, confidence: float = 0.95) -> list[Point]:
    """Value per prediction at the end of each week, as the mean of the 28 accounts up to it, with its interval."""
    rows = [account for account in accounts(home) if account.n > 0]
    means = [{name: value / account.n for name, value in account.made.items()} for account in rows]
    return _rolling([account.end for account in rows], [account.n for account in rows], means, confidence)


def weekly_performance(home: Home, metric: str, *, confidence: float = 0.95) -> list[Point]:
    """The metric of the model that answered and of the free baselines at the end of each week, over the 28 closed windows up to it."""
    newest: dict[datetime, tuple[int, dict[str, float]]] = {}
    for entry in home.ledger.read(Monitored):
        seen = entry.record
        if seen.about == "outcomes" and seen.release is not None:
            values = {one.subject: one.value for one in seen.signals if one.name == metric and one.value is not None}
            newest[seen.window.end] = (seen.n, {NAMES.get(name, name): value for name, value in values.items()})
    rows = [(end, *newest[end]) for end in sorted(newest) if newest[end][1]]
    return _rolling([end for end, _, _ in rows], [n for _, n, _ in rows], [values for _, _, values in rows], confidence)


NAMES = {"champion": "model"}


def _rolling(ends: list[datetime], n: Sequence[float], values: list[dict[str, float]], confidence: float) -> list[Point]:
    """At the end of each week the weighted mean of the windows up to it, for each name that all of them have."""
    points: list[Point] = []
    for week, stop in _weeks(ends):
        some = values[max(0, stop - BLOCKS) : stop]
        weights = np.array(n[max(0, stop - BLOCKS) : stop], dtype=np.float64)
        blocks = np.arange(len(some), dtype=np.int64)
        for name in values[stop - 1]:
            known = np.array([row.get(name, np.nan) for row in some])
            found = block_mean(known, blocks, weights=weights, confidence=confidence)
            if found.value is not None:
                points.append(Point(week, name, found.value, found.low, found.high))
    return points


def _weeks(ends: list[datetime]) -> list[tuple[datetime, int]]:
    """The end of each week since 1970 in which a window ended, and how many windows ended by then."""
    found: dict[int, int] = {}
    for place, end in enumerate(ends):
        found[-((EPOCH - end) // WEEK)] = place + 1
    return [(EPOCH + week * WEEK, stop) for week, stop in sorted(found.items())]


def drift(home: Home) -> list[Point]:
    """The largest distance of any column to its reference, in units of its bound: above 1 is drift. ``series`` is the column."""
    newest: dict[datetime, Point] = {}
    for entry in home.ledger.read(Monitored):
        if entry.record.about == "traffic":
            for one in entry.record.signals:
                if one.name == "largest" and one.value is not None:
                    newest[entry.record.window.end] = Point(entry.record.window.end, one.subject, one.value, None, one.bound)
    return [newest[end] for end in sorted(newest)]
