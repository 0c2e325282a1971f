"""Time. Nothing else in Noria asks the operating system what time it is.

Logical time (``Clock.now``) orders what the system decides, and is an argument everywhere. Physical time
(``stopwatch``) measures seconds for the measurements that lie beside the ledger; it never enters a record.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from noria.core.errors import Conflict


class Clock(Protocol):
    """Tells the logical time."""

    def now(self) -> datetime:
        """The logical time, in UTC."""
        ...

    def latency(self, seconds: float) -> float | None:
        """What a measured latency says about production: itself on a live clock, ``None`` (not measured) in history."""
        ...


class SystemClock:
    """The clock of the machine. It never goes back within one process."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        self._last = max(self._last, datetime.now(UTC))
        return self._last

    def latency(self, seconds: float) -> float | None:
        return seconds


class SimulatedClock:
    """A clock that is moved by hand.

    >>> from datetime import timedelta
    >>> clock = SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))
    >>> clock.move(clock.now() + timedelta(days=1))
    >>> clock.now().isoformat()
    '2013-01-02T00:00:00+00:00'
    """

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def move(self, to: datetime) -> None:
        """Moves the clock forward; raises ``Conflict`` when asked to go back."""
        if to < self._now:
            raise Conflict(f"the clock is at {self._now.isoformat()} and cannot go back to {to.isoformat()}")
        self._now = to.astimezone(UTC)

    def latency(self, seconds: float) -> float | None:  # noqa: ARG002
        return None


def stopwatch() -> float:
    """Physical seconds from an arbitrary start, for differences only."""
    return time.perf_counter()
