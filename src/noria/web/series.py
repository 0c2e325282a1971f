"""The report's numbers over time: daily accounts gathered into weeks, performance of closed cohorts, cumulative money."""

from __future__ import annotations

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
    points: list[Point] = []
    for week, (_, stop) in _weeks([account.end for account in rows]):
        some = rows[max(0, stop - BLOCKS) : stop]
        n = np.array([account.n for account in some])
        for name in some[0].made:
            if all(name in account.made for account in some):
                means = np.array([account.made[name] for account in some]) / n
                found = block_mean(means, np.arange(len(some), dtype=np.int64), weights=n, confidence=confidence)
                if found.value is not None:
                    points.append(Point(week, name, found.value, found.low, found.high))
    return points


def _weeks(ends: list[datetime]) -> list[tuple[datetime, tuple[int, int]]]:
    """(end of the week, its first and last index + 1) of the windows ending in each week since 1970."""
    found: dict[int, tuple[int, int]] = {}
    for place, end in enumerate(ends):
        week = -((EPOCH - end) // WEEK)
        first, _ = found.get(week, (place, 0))
        found[week] = (first, place + 1)
    return [(EPOCH + week * WEEK, span) for week, span in sorted(found.items())]


def signal(home: Home, name: str, *, about: str) -> list[Point]:
    """One monitored signal over time, one point a window; ``series`` is its subject."""
    newest: dict[tuple[datetime, str], Point] = {}
    for entry in home.ledger.read(Monitored):
        if entry.record.about != about:
            continue
        for one in entry.record.signals:
            if one.name == name and one.value is not None:
                newest[entry.record.window.end, one.subject] = Point(entry.record.window.end, one.subject, one.value, None, one.bound)
    return [newest[key] for key in sorted(newest)]


def signal_names(home: Home, *, about: str, level: str) -> list[str]:
    """The names of the signals of a level that were ever measured."""
    found: dict[str, None] = {}
    for entry in home.ledger.read(Monitored):
        if entry.record.about == about:
            found |= {one.name: None for one in entry.record.signals if one.level == level and one.value is not None}
    return list(found)
