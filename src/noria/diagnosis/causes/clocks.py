"""A source's times are in another zone: every row is some whole hours off, and so are the features that were computed as of them.

Rows by hour of the day, and what the columns do over the day (the warm afternoon), make a pattern; a wrong zone turns it by whole hours and leaves
it otherwise as it was. One hour in all sources alike is summer time, and no fault.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict, quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.clock import BLOCKS, Shift, hours
from noria.diagnosis.streams import Floats, Stream
from noria.diagnosis.tested import Tested, check
from noria.records import Ingested
from noria.tables import PREDICTIONS, source_table

NAME = "the day's pattern is turned by whole hours"
HOUR = timedelta(hours=1)
FEW, SHARP, LATER = 10, 0.1, 0.3
MOST_ROWS = 200_000


def time_zone_shifted(case: Case) -> Tested:
    """From one day on, a source's day is turned by whole hours."""
    made: dict[str, tuple[Check, Shift | None]] = {}
    for stream in streams.streams(case).values():
        made[stream.name] = _turned(case, stream)
    seen = [
        one
        for stream in streams.streams(case).values()
        for one in (_gone_back(case, stream), _against_asked(case, stream))
        if one is not None
    ]
    direct = [one for one in seen if one.verdict is Verdict.FAIL]
    made |= {one.subject: (one, None) for one in seen if one.verdict is Verdict.PASS}
    found = {name: shift.hours for name, (_, shift) in made.items() if shift is not None and shift.found}
    if direct:
        names = ", ".join(sorted({one.subject for one in direct}))
        act = f"ask the owner of {names} for the zone of its times; they have to carry it, and the rows since have to come again"
        return Tested("time zone shifted", "data", act, tuple(direct), 0.97, blocks=True)
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


def _gone_back(case: Case, stream: Stream) -> Check | None:
    """Whether times went back by whole hours: the newest row of each batch is so much older since a batch that told those hours once more.

    A source that is late is as much older, and tells nothing twice.
    """
    found = case.home.ledger.read(
        Ingested, prefix=f"ingest/{stream.name}/", since=case.now - streams.HISTORY * DAY, until=case.until
    )
    batches = [entry.record for entry in found if entry.record.received >= FEW and entry.record.last is not None]
    ages = np.array([(one.upto - one.last) / HOUR for one in batches if one.last is not None], float)
    at = streams.broken([one.upto for one in batches], ages, floor_=0.02)
    if at is None:
        return None
    by = round(at.after - at.before)
    whole = by >= 1 and abs(at.after - at.before - by) < SHARP and at.usual < 0.5
    first = next((one for one in batches if one.upto > at.at), None)
    if not whole or first is None or first.last is None or first.first is None:
        return None
    spell = max((first.last - first.first) / HOUR, 1.0)
    share, wanted = first.restated / first.received, min(by / (spell + 1), 1.0)
    if not 0.6 * wanted <= share <= 1.6 * wanted:
        return None
    said = (
        f"since {at.at:%Y-%m-%d} the newest row of {stream.name} is {by} hours older than it was, and the first batch told "
        f"{share:.0%} of its rows once more: those hours were known"
    )
    return check(NAME, True, subject=stream.name, size=Estimate(-float(by), n=at.days), bound=0.0, detail=said)


def _against_asked(case: Case, stream: Stream) -> Check | None:
    """Whether a source that tells of what was asked (labels, outcomes) does so at times that moved by whole hours, against the times of asking."""
    pairs = streams.told_by(case, stream.name)
    known, asked = case.home.lake.schema(source_table(stream.name)), case.home.lake.schema(PREDICTIONS.name)
    if not pairs or known is None or asked is None or any(ours not in asked or theirs not in known for ours, theirs in pairs):
        return None
    start = stream.end - streams.REFERENCE * DAY - 14 * DAY
    if stream.counts()[-42:].sum() > MOST_ROWS:
        return None
    same = " and ".join(f"t.{quoted(theirs)} = p.{quoted(ours)}" for ours, theirs in pairs)
    query = (
        f"select (epoch_us(t._known) - 1) // 86400000000 as d, count(*) as n, median(epoch_us(t._time) - epoch_us(p._time)) / 3.6e9 as gap "
        f"from t join p on {same} where {streams.between('t._known', start, stream.end)} group by d order by d"
    )
    scans = {
        "t": case.home.lake.scan(source_table(stream.name), _known=(start, stream.end)),
        "p": case.home.lake.scan(PREDICTIONS.name, _time=(start - 3 * DAY, stream.end)),
    }
    found = case.home.engine.sql(query, **scans).filter(pl.col("n") >= FEW)
    dates = streams.ends(found["d"])
    at = streams.broken(dates, found["gap"].cast(pl.Float64).to_numpy(), floor_=0.02)
    if at is None:
        return None
    moved = at.after - at.before
    by = round(moved)
    if by >= 0 or abs(moved - by) > max(SHARP, at.usual) or at.usual > 0.25:
        said = f"half of the rows of {stream.name} are {at.after:+.3g} hours from what they tell of, {at.before:+.3g} hours before {at.at:%Y-%m-%d}"
        later = moved > max(LATER, 3 * at.usual)  # what is told later is a delay, whatever hours it makes up
        return check(NAME, False, subject=stream.name, size=Estimate(moved, n=at.days), detail=said) if later else None
    said = f"half of the rows of {stream.name} are {at.after:+.3g} hours from what they tell of since {at.at:%Y-%m-%d}, {at.before:+.3g} hours before"
    return check(NAME, True, subject=stream.name, size=Estimate(float(by), n=at.days), bound=0.0, detail=said)


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
