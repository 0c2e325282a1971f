"""Which windows are due, and the records of those already watched."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from noria.core import Verdict, Window, duration, floor, windows
from noria.measure import scored_last
from noria.records import CohortClosed, Entry, Monitored, Signal
from noria.store import Home
from noria.system import System

About = Literal["traffic", "outcomes"]


def key(about: About, window: Window, revision: int = 0) -> str:
    """The key of a window's record."""
    return f"monitored/{about}/{window.end.isoformat()}/{revision}"


def recent(home: Home, about: About, count: int, *, before: Window | None = None) -> list[Monitored]:
    """The newest revisions of the last ``count`` windows watched, in order of time; with ``before`` of those that end by its start."""
    below = f"{before.end.isoformat()}/" if before is not None else ""
    found = home.ledger.heads(Monitored, f"monitored/{about}/", count, below=below)
    return [entry.record for entry in found]


def traffic_due(home: Home, system: System) -> list[Window]:
    """The windows whose traffic has been scored to the end and that have not been watched."""
    scored = scored_last(home, system)
    if scored is None:
        return []
    every = duration(system.every)
    last = home.ledger.latest(Monitored, prefix="monitored/traffic/")
    start = last.record.window.end if last is not None else _first(home, every, scored.record.window.end)
    return [] if start is None else list(windows(start, scored.record.window.end, every))


def _first(home: Home, every: timedelta, end: datetime) -> datetime | None:
    """The start of the window that the oldest prediction falls into."""
    if home.lake.schema("predictions") is None:
        return None
    times = home.lake.read("predictions", columns=["_time"], _time=(None, end))["_time"]
    oldest = times.min()
    return floor(oldest - timedelta(microseconds=1), every) if isinstance(oldest, datetime) else None


def outcomes_due(home: Home) -> list[Entry[CohortClosed]]:
    """The cohorts closed (or revised) since the last one that was watched; of several revisions of a window only the newest."""
    last = home.ledger.latest(Monitored, prefix="monitored/outcomes/")
    done = home.ledger.get(last.parents[0]).seq if last is not None else 0
    newest: dict[datetime, Entry[CohortClosed]] = {}
    for cohort in home.ledger.read(CohortClosed, after=done):
        newest[cohort.record.window.end] = cohort
    return sorted(newest.values(), key=lambda cohort: cohort.seq)


def answering(frame: pl.DataFrame) -> str | None:
    """The champion that answered most of these rows; ``None`` when none did. What a challenger answers, the rollout watches."""
    own = (pl.col("_release").fill_null("") != "") & (pl.col("_variant") == "champion")
    counts = frame.filter(own)["_release"].value_counts(name="n")
    return None if counts.is_empty() else str(counts.sort(["n", "_release"], descending=[True, False])["_release"][0])


def number(value: float | None) -> float | None:
    """A number as it is kept in a record: 12 significant digits, nothing that is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.12g}")


def found(signals: Iterable[Signal], name: str, subject: str) -> Signal | None:
    """The signal of this name and subject."""
    return next((signal for signal in signals if signal.name == name and signal.subject == subject), None)


def value_of(record: Monitored, name: str, subject: str) -> float | None:
    """The value of one signal of a window, if it has it."""
    signal = found(record.signals, name, subject)
    return None if signal is None else signal.value


def judged(value: float | None, *, high: float | None = None, low: float | None = None) -> Verdict:
    """FAIL outside the bounds, PASS within, NOT_ENOUGH_DATA without a value or a bound."""
    if value is None or (high is None and low is None):
        return Verdict.NOT_ENOUGH_DATA
    beyond = (high is not None and value > high) or (low is not None and value < low)
    return Verdict.FAIL if beyond else Verdict.PASS
