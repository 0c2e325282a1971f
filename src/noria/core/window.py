"""Windows of time and durations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from noria.core.errors import SettingsError

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration(text: str) -> timedelta:
    """Reads a duration: a whole number and one of ``ms s m h d w`` (millisecond, second, minute, hour, day, week).

    >>> duration("8h")
    datetime.timedelta(seconds=28800)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise SettingsError(f"{text!r} is not a duration", hint='write for example "10m", "8h", "14d" or "2w"')
    return int(match[1]) * _UNITS[match[2]]


def duration_text(span: timedelta) -> str:
    """Writes a duration in its largest whole unit: the inverse of ``duration``.

    >>> duration_text(timedelta(hours=48))
    '2d'
    """
    for unit in ("w", "d", "h", "m"):
        if span and span % _UNITS[unit] == timedelta(0):
            return f"{span // _UNITS[unit]}{unit}"
    return f"{int(span.total_seconds())}s"


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC: how times are compared inside SQL."""
    span = moment - EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def from_micros(value: int) -> datetime:
    """The inverse of ``micros``."""
    return EPOCH + timedelta(microseconds=value)


def parse_time(text: str) -> datetime:
    """Reads an ISO date or time; without a zone it is UTC.

    >>> parse_time("2013-01-01").isoformat()
    '2013-01-01T00:00:00+00:00'
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is not a time", hint="write for example 2013-01-31 or 2013-01-31T06:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Window(msgspec.Struct, frozen=True, order=True):
    """A half-open span of time: ``start < t <= end``, both in UTC.

    Half-open at the start, because a turn at T covers what was asked in (T₀, T].
    """

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start < moment <= self.end

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M}..{self.end:%Y-%m-%d %H:%M}"


def floor(moment: datetime, every: timedelta) -> datetime:
    """The latest boundary of the grid ``every`` (counted from 1970) that is not after ``moment``."""
    return EPOCH + (moment - EPOCH) // every * every


def windows(start: datetime, end: datetime, every: timedelta) -> Iterator[Window]:
    """The whole windows of the grid ``every`` within ``start..end``, in order."""
    left = floor(start, every)
    if left < start:
        left += every
    while left + every <= end:
        yield Window(left, left + every)
        left += every
