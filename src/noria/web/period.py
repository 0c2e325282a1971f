"""A period in order: what happened, what the decisions were worth week by week, and the diagnosis of it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from noria import diagnosis
from noria.core import Verdict, Window
from noria.records import Diagnosed, Entry, Step
from noria.store import Home
from noria.system import System
from noria.web import facts, series


class Week(msgspec.Struct, frozen=True):
    """What one week's decisions were worth, and doing nothing in their place (``None``: not known)."""

    end: datetime
    value: float
    nothing: float | None


class Fault(msgspec.Struct, frozen=True):
    """What was said of one fault at the time: the newest of its diagnoses in the period.

    ``start`` and ``end`` are when the fault was first and last diagnosed there, ``cause`` is empty when none was found at work, ``weight`` its
    probability, ``step`` the one to go back to, ``symptom`` the key of the first symptom, ``record`` the newest diagnosis.
    """

    start: datetime
    end: datetime
    symptom: str
    cause: str
    weight: float
    step: Step
    record: str


class Period(msgspec.Struct, frozen=True):
    """A period's faults as they were diagnosed at the time, its events in order, its value by week, and a diagnosis of all of it at its end."""

    window: Window
    currency: str
    faults: tuple[Fault, ...]
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
    return Period(
        window, system.objective.value.currency, _faults(home, window), events, weeks, diagnosis.of_period(home, system, window)
    )


def _faults(home: Home, window: Window) -> tuple[Fault, ...]:
    """The faults that were diagnosed in the period, in the order in which they began."""
    looks: dict[str, list[Entry[Diagnosed]]] = {}
    for entry in home.ledger.read(Diagnosed, since=window.start, until=window.end):
        looks.setdefault(next(iter(entry.record.symptoms), entry.key), []).append(entry)
    made = []
    for symptom, entries in looks.items():
        newest = entries[-1].record
        first = newest.causes[0] if newest.causes and newest.causes[0].verdict is Verdict.FAIL else None
        name, weight = (first.name, first.weight) if first else ("", 0.0)
        made.append(Fault(entries[0].at, entries[-1].at, symptom, name, weight, newest.back_to, entries[-1].id))
    return tuple(made)
