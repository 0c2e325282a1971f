"""A source's times are in another zone: every row is some whole hours off, and so are the features that were computed as of them.

Rows by hour of the day, and what the columns do over the day (the warm afternoon), make a pattern; a wrong zone turns it by whole hours and leaves
it otherwise as it was. One hour in all sources alike is summer time, and no fault.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.clock import BLOCKS, Shift, hours
from noria.diagnosis.streams import Floats, Stream
from noria.diagnosis.tested import Tested, check

NAME = "the day's pattern is turned by whole hours"


def time_zone_shifted(case: Case) -> Tested:
    """From one day on, a source's day is turned by whole hours."""
    made: dict[str, tuple[Check, Shift | None]] = {}
    for stream in streams.streams(case).values():
        made[stream.name] = _turned(case, stream)
    found = {name: shift.hours for name, (_, shift) in made.items() if shift is not None and shift.found}
    told = [shift for _, shift in made.values() if shift is not None]
    summer = bool(found) and all(abs(by) == 1 for by in found.values()) and len(set(found.values())) == 1
    checks = [one for one, _ in made.values()]
    if summer:
        everywhere = len(found) == len(told)
        said = f"{', '.join(sorted(found))} are turned by one hour, as summer time turns what people do"
        checks = [check(NAME, False if everywhere and len(found) > 1 else None, subject=", ".join(sorted(found)), detail=said)]
        found = {}
    act = f"ask the owner of {', '.join(sorted(found)) or 'the source'} for the zone of its times; they have to carry it, and the rows since have to come again"
    if not checks:
        checks = [check(NAME, None, detail="no source has a history in the lake")]
    failed = [one for one in checks if one.verdict is Verdict.FAIL]
    unknown = [one for one in checks if one.verdict is Verdict.NOT_ENOUGH_DATA]
    kept = failed or (
        [one for one in checks if one.verdict is Verdict.PASS] if len(unknown) < len(checks) and not summer else checks
    )
    return Tested("time zone shifted", "data", act, tuple(kept), 0.96 if failed else 0.0, blocks=True)


def _turned(case: Case, stream: Stream) -> tuple[Check, Shift | None]:
    seen = hours(case, stream)
    at = _moment(case, stream)
    shift = None if at is None else seen.shift(at)
    if at is None or shift is None:
        return check(NAME, None, subject=stream.name, detail="too few days, or nothing that follows the hours of the day"), None
    said = (
        f"turned by {shift.hours:+d} hours the day of {stream.name} since {at:%Y-%m-%d} is {shift.fits:.2g} from the one before, "
        f"{shift.stays:.2g} as it is, and {shift.usual:.2g} at most are usual"
    )
    if not shift.found:
        said = f"the day of {stream.name} is {shift.stays:.2g} from the one before; {shift.usual:.2g} at most are usual"
    size = Estimate(float(shift.hours if shift.found else 0), n=shift.blocks)
    return check(NAME, shift.found, subject=stream.name, size=size, bound=0.0, detail=said), shift


def _moment(case: Case, stream: Stream) -> datetime | None:
    """The day that best splits the hours of a source: where on the circle its rows lie, and its columns' high hours."""
    seen = hours(case, stream)
    if len(seen.dates) <= streams.LEAST_DAYS:
        return None
    angle = np.exp(2j * np.pi * np.arange(24) / 24)
    lines = [(seen.rows @ angle) / np.maximum(seen.rows.sum(axis=1), 1)]
    for column, sums in seen.sums.items():
        number = seen.seen[column]
        mean = sums.sum(axis=1) / np.maximum(number.sum(axis=1), 1)
        apart = np.where(number > 0, sums - mean[:, None] * number, 0.0)
        scale = float(np.sqrt(np.mean(apart**2))) or 1.0
        lines.append((apart @ angle) / scale / 24)
    n = len(seen.dates)
    places = [k for k in range(max(streams.LEAST_DAYS, n - streams.NEWEST_BREAK), n) if k >= BLOCKS * min(n - k, 7)]
    if not places:
        return None
    table = np.column_stack([part for line in lines for part in (line.real, line.imag)])
    table = (table - np.median(table, axis=0)) / np.maximum(np.std(table, axis=0), 1e-9)
    best = min(places, key=lambda k: _within(table[:k]) + _within(table[k:]))
    return seen.dates[best - 1]


def _within(rows: Floats) -> float:
    """The sum of squares about the mean."""
    return float(((rows - rows.mean(axis=0)) ** 2).sum())
