"""What the engine's functions make of single values, step by step: divisions, roundings, and parts of times."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from noria.core import from_micros, micros

DAY = 86_400_000_000
LARGEST_INTEGER = 2**31 - 1


class Inexact(Exception):
    """A value for which only the engine's own answer will do."""


def moment(value: Any) -> int:
    """A time as microseconds in UTC; raises ``ValueError`` for what is none.

    >>> moment("1970-01-01T00:00:01Z"), moment(datetime(1970, 1, 1)), moment(5)
    (1000000, 0, 5)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # midnight in UTC, below
    if not isinstance(value, datetime):
        raise ValueError(f"{type(value).__name__} is no time")
    return micros(value.replace(tzinfo=UTC) if value.tzinfo is None else value)


def quotient(left: float, right: float) -> float:
    """A division of doubles: by zero it is infinite, and of zero by zero NaN."""
    if right:
        return left / right
    if not left or left != left:  # noqa: PLR0124  # NaN
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def remainder(left: int, right: int) -> int:
    """The rest of a division of whole numbers, with the sign of the dividend."""
    if right == 0:
        raise Inexact("division by zero")
    made = abs(left) % abs(right)
    return -made if left < 0 else made


def whole_quotient(left: int, right: int) -> int:
    """A division of whole numbers, cut towards zero; ``Inexact`` where an ``INTEGER`` would overflow."""
    if right == 0:
        raise Inexact("division by zero")
    made = abs(left) // abs(right)
    made = -made if (left < 0) != (right < 0) else made
    if made > LARGEST_INTEGER:
        raise Inexact("overflow")
    return made


def nearest(value: float) -> float:
    """The nearest whole number, halves away from zero."""
    whole = math.floor(abs(value))
    return math.copysign(float(whole + (abs(value) - whole >= 0.5)), value)


def to_whole(value: float) -> int:
    """The nearest whole number, halves to the even one."""
    if not -(2.0**63) <= value < 2.0**63:
        raise Inexact("range")
    return round(value)


def is_true(value: float) -> bool:
    """A number as a truth."""
    if value != value:  # noqa: PLR0124  # NaN
        raise Inexact("NaN")
    return value != 0


def span_seconds(span: int) -> float:
    """A span in seconds: days and the rest of a day, each by itself."""
    days, rest = divmod(abs(span), DAY)
    seconds = days * 86400.0 + rest / 1_000_000
    return -seconds if span < 0 else seconds


def checked(function: Callable[..., int], low: int, high: int) -> Callable[..., int]:
    """A function whose whole numbers have to stay within bounds."""

    def run(*values: int) -> int:
        made = function(*values)
        if low <= made <= high:
            return made
        raise Inexact("overflow")

    return run


def guarded(function: Callable[..., float], *, least: float = -math.inf) -> Callable[..., float]:
    """A function of finite numbers not below ``least``; what it cannot say is for the engine."""

    def run(*values: float) -> float:
        if not all(math.isfinite(value) for value in values) or values[0] < least:
            raise Inexact("range")
        try:
            return function(*values)
        except (ArithmeticError, ValueError):
            raise Inexact("range") from None

    return run


def ordered(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of doubles without NaN, which for SQL is the largest number."""

    def run(left: float, right: float) -> bool:
        if left != left or right != right:  # noqa: PLR0124  # for SQL NaN is the largest number
            raise Inexact("NaN")
        return function(left, right)

    return run


def in_ascii(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """A function of texts in ASCII: the cases of other letters follow other tables."""

    def run(value: str) -> Any:
        if not value.isascii():
            raise Inexact("letters")
        return function(value)

    return run


PARTS: dict[str, Callable[[int], int]] = {
    "hour": lambda at: at // 3_600_000_000 % 24,
    "minute": lambda at: at // 60_000_000 % 60,
    "second": lambda at: at // 1_000_000 % 60,
    "dow": lambda at: (at // DAY + 4) % 7,
    "isodow": lambda at: (at // DAY + 3) % 7 + 1,
    "day": lambda at: from_micros(at).day,
    "month": lambda at: from_micros(at).month,
    "year": lambda at: from_micros(at).year,
    "doy": lambda at: from_micros(at).timetuple().tm_yday,
}
PARTS |= {"dayofweek": PARTS["dow"], "weekday": PARTS["dow"], "dayofyear": PARTS["doy"], "dayofmonth": PARTS["day"]}
UNITS = {"microsecond": 1, "millisecond": 1000, "second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": DAY}
