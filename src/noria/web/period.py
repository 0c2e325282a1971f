"""A period in order: what happened, what the decisions were worth week by week, and the diagnosis of it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from noria import diagnosis
from noria.core import Window
from noria.records import Diagnosed
from noria.store import Home
from noria.system import System
from noria.web import facts, series


class Week(msgspec.Struct, frozen=True):
    """What one week's decisions were worth, and doing nothing in their place (``None``: not known)."""

    end: datetime
    value: float
    nothing: float | None


class Period(msgspec.Struct, frozen=True):
    """A period's events in order, its value by week, and its diagnosis."""

    window: Window
    currency: str
    events: tuple[facts.Event, ...]
    weeks: tuple[Week, ...]
    diagnosis: Diagnosed


def period(home: Home, system: System, window: Window) -> Period:
    """Everything that happened in ``window``, from the ledger alone; the diagnosis is made anew, with or without a symptom."""
    events = tuple(event for event in facts.events(home) if window.start < event.at <= window.end)
    sums: dict[datetime, list[float]] = {}
    known: dict[datetime, bool] = {}
    for account in series.accounts(home):
        if window.start < account.end <= window.end:
            week = min(window.start + -((window.start - account.end) // series.WEEK) * series.WEEK, window.end)
            one = sums.setdefault(week, [0.0, 0.0])
            one[0] += account.made.get("this system", 0.0)
            one[1] += account.made.get("do nothing", 0.0)
            known[week] = known.get(week, True) and "do nothing" in account.made
    weeks = tuple(Week(end, sums[end][0], sums[end][1] if known[end] else None) for end in sorted(sums))
    return Period(window, system.objective.value.currency, events, weeks, diagnosis.of_period(home, system, window))
