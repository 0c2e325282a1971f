"""Rows that come from outside as plain data (JSON): does a row fit the columns of its source, when did it happen, when could it be used.

The service asks before it acknowledges an event, and the turn asks again when it takes the event in: they cannot differ. The rules are those
for rows of files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from noria.core import SettingsError, duration, micros
from noria.system import Source

NOT_READABLE, NO_TIME, NO_KEY, NO_KNOWN, IMPOSSIBLE, NOT_FINITE, DUPLICATE = (
    "unreadable value",
    "no time",
    "no key",
    "no known time",
    "impossible time",
    "not a finite number",
    "duplicate",
)
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
FAR = timedelta(days=3650)
ZONED = "TIMESTAMP WITH TIME ZONE"
MOST_COLUMNS = 1000
_NAME = re.compile(r"[^_\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,127}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s?(Z|[+-]\d{2}(:?\d{2})?)")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MICRO = timedelta(microseconds=1)
_EARLIEST, _FAR = micros(EARLIEST), FAR // _MICRO


class Fitted(NamedTuple):
    """A row as its columns have it: times as microseconds, the rest as it is, columns that are new as they came.

    When it does not fit, ``reason`` is one of this module's, ``column`` where it lies, ``why`` a sentence that does not repeat the value.
    """

    values: dict[str, Any]
    reason: str = ""
    column: str = ""
    why: str = ""


class _Unfit(Exception):
    pass


def delay_of(source: Source) -> timedelta | str:
    """When a row could be used: how long after its time, or the name of the column that says it.

    >>> delay_of(Source("weather", known="1h"))
    datetime.timedelta(seconds=3600)
    >>> delay_of(Source("bookings", known="booked_at"))
    'booked_at'
    """
    if source.known is None:
        return timedelta(0)
    try:
        return duration(source.known)
    except SettingsError:
        return source.known


def known_of(source: Source, row: Mapping[str, Any], time: int, arrival: int) -> int:
    """When an event could be used: when it arrived, or when its source declares it known, if that is later. In microseconds.

    >>> known_of(Source("w", time="hour", known="1h"), {}, 0, 5)
    3600000000
    """
    delay = delay_of(source)
    if isinstance(delay, timedelta):
        return max(arrival, time + delay // _MICRO)
    try:
        return max(arrival, _zoned(row.get(delay)))
    except _Unfit:  # without a known time the row will be refused
        return arrival


def time_of(source: Source, row: Mapping[str, Any]) -> int | None:
    """When an event happened, in microseconds; ``None`` when its row does not say it.

    >>> time_of(Source("w", time="hour"), {"hour": "1970-01-01T00:00:01Z"})
    1000000
    """
    try:
        return _zoned(row.get(source.time))
    except _Unfit:
        return None


def fitted(source: Source, columns: Mapping[str, str], row: Mapping[str, Any], now: int) -> Fitted:
    """A row under the frozen ``columns`` (name → SQL type; empty before the first row), as of ``now`` in microseconds.

    A column that the row lacks is null; one that is not frozen yet is new, and may be.

    >>> source = Source("sales", key="shop", time="at")
    >>> fitted(source, {"units": "BIGINT"}, {"shop": "a", "at": "2024-01-01T00:00:00Z", "units": "many"}, 2**51)[1:]
    ('unreadable value', 'units', 'a whole number is needed')
    """
    delay = delay_of(source)
    kinds = {**columns, source.time: ZONED} | ({delay: ZONED} if isinstance(delay, str) else {})
    values: dict[str, Any] = {}
    bad: tuple[str, str] | None = None
    taken = {name.lower(): name for name in kinds}
    for name, value in row.items():
        try:
            if name not in kinds:
                _new(name, value, taken)
            values[name] = None if value is None else read(value, kinds[name]) if name in kinds else value
        except _Unfit as unfit:
            bad = bad or (name, str(unfit))
            values[name] = None
    if bad is None and len(taken) > MOST_COLUMNS:
        bad = (source.time, f"a row has at most {MOST_COLUMNS} columns")
    return Fitted(values, *_reason(source, delay, values, bad, now))


def _reason(
    source: Source, delay: timedelta | str, values: Mapping[str, Any], bad: tuple[str, str] | None, now: int
) -> tuple[str, str, str]:
    """Why a row is refused, where, and in a sentence; empty texts when it is not."""
    if bad is not None:
        return NOT_READABLE, *bad
    time = values.get(source.time)
    if time is None:
        return NO_TIME, source.time, "a time with a zone is needed"
    for key in source.keys:
        if values.get(key) is None:
            return NO_KEY, key, "a key is needed"
    known = time + delay // _MICRO if isinstance(delay, timedelta) else values.get(delay)
    if known is None:
        return NO_KNOWN, str(delay), "a time with a zone is needed"
    latest = now + _FAR
    if not _EARLIEST <= time <= latest or known > latest:
        return IMPOSSIBLE, source.time, "the time is out of reach"
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            return NOT_FINITE, name, "a finite number is needed"
    return "", "", ""


def _new(name: str, value: Any, taken: dict[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise _Unfit("the column's name is not allowed: it may not begin with '_' and has at most 128 characters")
    if taken.setdefault(name.lower(), name) != name:
        raise _Unfit("the column's name differs from another's only in case")
    if not isinstance(value, str | int | float | None):
        raise _Unfit("a text, a number, true, false or null is needed")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Unfit("the number is too large")


def guessed(values: Iterable[Any]) -> str | None:
    """The SQL type of a new column, from the values it came with: the one that most of them have; ``None`` when all are null.

    Texts are times or days when every one of them is.

    >>> guessed([1, 2.5, None]), guessed(["2024-01-01T06:00Z"]), guessed([1, 2, "x"]), guessed([True])
    ('DOUBLE', 'TIMESTAMP WITH TIME ZONE', 'BIGINT', 'BOOLEAN')
    """
    kinds: dict[str, list[Any]] = {}
    for value in values:
        if value is not None:
            family = "BOOLEAN" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
            kinds.setdefault(family, []).append(value)
    if not kinds:
        return None
    family, found = max(kinds.items(), key=lambda item: len(item[1]))
    if family == "number":
        return "BIGINT" if all(isinstance(value, int) for value in found) else "DOUBLE"
    if family == "text":
        return next((kind for kind in (ZONED, "DATE") if all(_is(value, kind) for value in found)), "VARCHAR")
    return family


def _is(value: str, kind: str) -> bool:
    if not (_MOMENT if kind == ZONED else _DAY).fullmatch(value):
        return False
    try:
        read(value, kind)
    except _Unfit:
        return False
    return True


def refit(value: Any, kind: str) -> tuple[Any, str]:
    """A value as one of ``kind``, and why it is none.

    >>> refit(3, "DOUBLE"), refit("3", "BIGINT")
    ((3.0, ''), (None, 'a whole number is needed'))
    """
    try:
        return None if value is None else read(value, kind), ""
    except _Unfit as unfit:
        return None, str(unfit)


# ------------------------------------------------------------------------------------------------------- values by type


def read(value: Any, kind: str) -> Any:
    """A value that is not null as one of a SQL type."""
    reader = _READERS.get(kind) or (_number if kind.startswith("DECIMAL") else None)
    if reader is None:
        raise _Unfit(f"a {kind} cannot come as JSON")
    return reader(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit("a text is needed")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unfit("true or false is needed")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some senders write 3.0 for 3
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise _Unfit("a whole number is needed")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Unfit("a number is needed")
    try:
        return float(value)
    except OverflowError:
        raise _Unfit("the number is too large") from None


def _zoned(value: Any) -> int:
    """Microseconds from a text in ISO 8601 with a zone, or from microseconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**62) <= value < 2**62:
            raise _Unfit("the time is out of reach")
        return value
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return micros(moment)
    except (ValueError, TypeError, OverflowError):
        pass
    raise _Unfit("a time with a zone is needed, for example 2013-01-31T06:00:00Z")


def _local(value: Any) -> int:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            return micros(moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError):
        pass
    raise _Unfit("a time without a zone is needed, for example 2013-01-31T06:00:00")


def _day(value: Any) -> date:
    try:
        if _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except (ValueError, TypeError):
        pass
    raise _Unfit("a day is needed, for example 2013-01-31")


_READERS: dict[str, Callable[[Any], Any]] = {
    "VARCHAR": _text,
    "BOOLEAN": _truth,
    "BIGINT": _whole,
    "DOUBLE": _number,
    ZONED: _zoned,
    "TIMESTAMP": _local,
    "DATE": _day,
}
