"""Is what came in like what came before?

Each UTC day of a source (by ``_known``) is compared with the days before it, from the summaries that lie in the ``Ingested`` records. The bounds
are limits that an ordinary day exceeds as seldom as verification's part of ``system.alerts`` allows, shared among sources and tests, and never
nearer than what came before: these tests are for faults of data, not for drift. Days that failed in the last week are no reference. With
fewer than 14 earlier days a test is silent, except where no reference is needed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median

import numpy as np

from noria.core import Check, Verdict, duration
from noria.core.window import floor
from noria.data.summary import DAY, merged
from noria.data.verifycolumns import FEW, LEAST_DAYS, SOME, Past, beyond, categories, numbers, stands_still, unknown
from noria.data.verifycolumns import made as _check
from noria.records import DaySummary, Entry, Ingested, Turned, Verified
from noria.store import Home
from noria.system import Source, System

PART = 0.1
"""Verification's part of the budget of false alarms; ``monitoring.budget`` shares the rest."""
RATE = 1e-3
REFERENCE = timedelta(days=56)
FORGOTTEN = timedelta(days=7)
SAME_WEEKDAY = 4
WIDTH = 8.0
MOST_REFUSED = 0.2
CATCH_UP = 7
TESTS = 6
FEWER, MORE = math.log(4.0), math.log(3.0)
LOST_HOURS = 0.25
REPEATED = 0.05


def verify(home: Home, system: System, now: datetime) -> list[Entry[Verified]]:
    """Verifies every day that ended since the last look (at most a week back).

    A record is written when a source fails, and once when it passes again. Its ``checks`` list what failed, with the day's value, the
    bound, and a sentence. Nothing is written while all is well.
    """
    made = []
    today = floor(now, DAY)
    rate = PART * system.alerts.false_alarms * (DAY / duration(system.alerts.per)) / max(len(system.sources), 1)
    for source in system.sources.values():
        for day in _days(home, source, today, now):
            entry = _verified(home, source, day, now, rate)
            if entry is not None:
                made.append(entry)
    return made


def _days(home: Home, source: Source, today: datetime, now: datetime) -> list[datetime]:
    """The ends of days to look at, at most a week of them.

    Those that ended since the last finished turn, which looked at all before; after a new batch, those since the batch before it.
    """
    recent = [batch.record.upto for batch in home.ledger.read(Ingested, prefix=f"ingest/{source.name}/", newest=2)]
    if not recent:
        return []
    if len(recent) == 1 and floor(recent[0], DAY) == today:
        return []
    seen = _last_turn(home)
    if seen is not None and recent[-1] <= seen:
        before = seen
    elif len(recent) == 2 and (seen is not None or recent[-1] == now):
        before = recent[0] if seen is None else min(recent[0], seen)
    else:
        before = recent[-1]
    since = max(floor(before, DAY), today - CATCH_UP * DAY)
    return [since + (k + 1) * DAY for k in range((today - since) // DAY)]


def _last_turn(home: Home) -> datetime | None:
    """The time of the last turn that verified, from its key: its record may have been written on the next day."""
    last = home.ledger.latest(Turned, prefix="turn/")
    return datetime.fromisoformat(last.key.removeprefix("turn/")) if last is not None and not last.record.stopped else None


def _verified(home: Home, source: Source, day: datetime, now: datetime, rate: float) -> Entry[Verified] | None:
    key = f"verify/{source.name}/{day.isoformat()}"
    if home.ledger.find(key) is not None:
        return None
    batches = home.ledger.read(Ingested, prefix=f"ingest/{source.name}/", since=day - REFERENCE, until=now)
    last = home.ledger.latest(Verified, prefix=f"verify/{source.name}/")
    bad = home.ledger.read(Verified, prefix=f"verify/{source.name}/", newest=2 * FORGOTTEN.days) if last is not None else []
    days = {entry.record.upto for entry in bad if entry.record.verdict is Verdict.FAIL}
    checks = list(checked(source, [batch.record for batch in batches], day, failed=days, rate=rate))
    failed = tuple(check for check in checks if check.verdict is Verdict.FAIL)
    if not failed and (last is None or last.record.verdict is not Verdict.FAIL):
        return None
    verdict = Verdict.FAIL if failed else Verdict.PASS
    record = Verified(source=source.name, upto=day, verdict=verdict, tested=len(checks), checks=failed)
    parents = [batch.id for batch in batches if day - DAY < batch.record.upto <= day]
    return home.commit(record, key=key, parents=parents or [batches[-1].id] if batches else [])


def checked(
    source: Source, batches: Sequence[Ingested], day: datetime, *, failed: Collection[datetime] = (), rate: float = RATE
) -> Iterator[Check]:
    """Every test of one day of a source against the days before it.

    Days in ``failed`` are no reference for the next week; ``rate`` is how many of the source's days may fail while nothing is wrong.
    """
    days = [some for some in merged(d for batch in batches for d in batch.days) if some.day <= day]
    before = [some for some in days if some.day < day and some.day >= day - REFERENCE]
    good = [some for some in before if some.day not in failed or some.day < day - FORGOTTEN]
    earlier = good if len(good) >= LEAST_DAYS else before
    today = next((some for some in days if some.day == day), None)
    yesterday = next((some for some in before if some.day == day - DAY), None)
    tests = TESTS + (6 * len(today.columns) if today is not None else 0)
    yield from _refused(batches, day)
    yield _fresh(before, today, day)
    yield _volume(earlier, today, yesterday, day, rate / tests)
    if today is None or len(earlier) < LEAST_DAYS:
        return
    yield from _hours(earlier, today, yesterday)
    yield from _again(earlier, today, rate / tests)
    for column in sorted(today.columns):
        days_of = [(some, some.columns[column]) for some in earlier if column in some.columns]
        if len(days_of) >= LEAST_DAYS and today.n:
            before_it = yesterday.columns.get(column) if yesterday is not None else None
            yield from _column(source, Past(column, days_of, today, today.columns[column], before_it, rate / tests))


def _column(source: Source, past: Past) -> Iterator[Check]:
    usual = [some.nulls / day.n for day, some in past.days if day.n]
    share, bound = past.now.nulls / past.today.n, _share_bound(usual, past.today.n)
    detail = f"{share:.1%} of {past.today.n} values are missing; {median(usual):.1%} are usual"
    failed = share > bound and past.now.nulls >= 5
    yield _check("missing values", past.name, share, bound, failed=failed, n=past.today.n, detail=detail)
    if past.name == source.time:
        return
    yield from categories(past)
    if past.name not in source.keys:
        yield from numbers(past)
        yield from stands_still(past)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and 1.4826 × median absolute deviation: centre and scale that half of the values cannot move (Hampel 1974).

    >>> spread([1.0, 2.0, 3.0, 4.0, 1000.0])
    (3.0, 1.4826)
    """
    centre = median(values)
    return centre, 1.4826 * median(abs(value - centre) for value in values)


# --------------------------------------------------------------------------------------------------- the whole source


def _refused(batches: Sequence[Ingested], day: datetime) -> Iterator[Check]:
    """The share put aside, by reason and in all, against the batches before."""
    now = [batch for batch in batches if day - DAY < batch.upto <= day]
    before = [batch for batch in batches if batch.upto <= day - DAY]
    received, refused = sum(b.received for b in now), sum(b.quarantined for b in now)
    if received < FEW:
        yield unknown("rows put aside")
        return
    share = refused / received
    usual = [b.quarantined / b.received for b in before if b.received >= FEW]
    bound = _share_bound(usual, received) if len(usual) >= LEAST_DAYS else MOST_REFUSED
    detail = f"{refused} of {received} rows were put aside ({', '.join(sorted({r for b in now for r in b.reasons})) or 'none'})"
    yield _check("rows put aside", "", share, bound, failed=share > bound, n=received, detail=detail)
    late = sum(b.late for b in now) / received
    usual = [b.late / b.received for b in before if b.received >= FEW]
    if len(usual) < LEAST_DAYS:
        yield unknown("late rows")
        return
    bound = _share_bound(usual, received)
    detail = f"{late:.1%} of the rows came after a turn that should have seen them"
    yield _check("late rows", "", late, bound, failed=late > bound, n=received, detail=detail)


def _share_bound(usual: Sequence[float], n: int) -> float:
    """The largest ordinary share: wide of the earlier days, of chance at this many rows, and never less than five points above."""
    centre, scale = spread(usual)
    chance = 5 * math.sqrt(max(centre * (1 - centre), 1 / max(n, 1)) / max(n, 1))
    return max(centre + WIDTH * scale, max(usual) * 1.5, centre + chance, centre + 0.05)


def _fresh(earlier: Sequence[DaySummary], today: DaySummary | None, day: datetime) -> Check:
    """The newest row's age at the day's end, against the ages at earlier days' ends."""
    if len(earlier) < LEAST_DAYS:
        return unknown("freshness")
    ends = [earlier[0].day + k * DAY for k in range((day - earlier[0].day) // DAY)]
    ages, newest, rest = [], earlier[0].newest, list(earlier)
    for end in ends:
        while rest and rest[0].day <= end:
            newest = rest.pop(0).newest
        ages.append((end - newest) / timedelta(hours=1))
    last = today.newest if today is not None else earlier[-1].newest
    age = (day - last) / timedelta(hours=1)
    bound = max(3 * max(ages), 6.0)
    detail = f"the newest row was {age:.1f} hours old at the day's end; the oldest it ever was before is {max(ages):.1f}"
    return _check("freshness", "", age, bound, failed=age > bound, n=len(ages), detail=detail)


def _volume(
    earlier: Sequence[DaySummary], today: DaySummary | None, yesterday: DaySummary | None, day: datetime, error: float
) -> Check:
    """Rows of the day against the same weekday's median: beyond all that was seen on one day, or beyond what is ordinary on two.

    A storm halves a day's rows and is no fault of the source; what stays halved, or all but stops, is one.
    """
    if len(earlier) < LEAST_DAYS:
        return unknown("volume")
    counts = {some.day: some.n for some in earlier}
    usual = _weekday_medians(counts)
    n = today.n if today is not None else 0
    expected = usual[day.weekday()]
    apart = {when: math.log((count + 1) / (usual[when.weekday()] + 1)) for when, count in counts.items()}
    most = max(abs(value) for value in apart.values())
    _, scale = spread(list(apart.values()))
    ratio = math.log((n + 1) / (expected + 1))
    side = 1.0 if ratio > 0 else -1.0
    before = yesterday.n if yesterday is not None else 0
    was = side * math.log((before + 1) / (usual[(day - DAY).weekday()] + 1))
    far = max(MORE if ratio > 0 else FEWER, WIDTH * scale, 1.5 * most if most < math.log(4) else 0.0)
    older = [side * value for when, value in apart.items() if when < day - DAY]
    near = max(math.log(1.5), beyond(older, min(0.02, error / 0.3))) if len(older) >= LEAST_DAYS else far
    real = abs(n - expected) > 10 + 5 * math.sqrt(expected)
    failed = real and (abs(ratio) > far or (abs(ratio) > near and was > near))
    factor = math.exp(near if abs(ratio) <= far else far)
    detail = (
        f"{n} rows after {before} the day before; {expected:.0f} are usual on this weekday, and "
        f"{expected / factor:.0f} to {expected * factor:.0f} still ordinary{'' if abs(ratio) > far else ' on two days in a row'}"
    )
    bound = expected / factor if ratio < 0 else expected * factor
    return _check("volume", "", float(n), bound, failed=failed, n=len(earlier), detail=detail)


def _hours(earlier: Sequence[DaySummary], today: DaySummary, yesterday: DaySummary | None) -> Iterator[Check]:
    """Hours of the day that always had rows and have none: half of a day's rows were cut off, or a quarter two days in a row."""
    older = [some for some in earlier if some.hours and some.day < today.day - DAY]
    table = np.array([some.hours for some in older], float)
    if len(table) < LEAST_DAYS or not today.hours or not table.sum():
        return
    usual = np.median(table, axis=0)
    empty = table == 0
    never = empty.sum(axis=0)
    alone = [float(usual[row & (never == 1)].sum()) for row in empty]  # the hours that only this day did not have
    bounds = [max(least, 2 * max(alone) / max(float(usual.sum()), 1.0)) for least in (LOST_HOURS, 2 * LOST_HOURS)]

    def lost(day: DaySummary) -> float:
        return float(usual[(np.array(day.hours) == 0) & (never == 0)].sum()) / max(float(usual.sum()), 1.0)

    share = lost(today)
    again = share > bounds[0] and yesterday is not None and bool(yesterday.hours) and lost(yesterday) > bounds[0]
    gone = [str(hour) for hour in range(24) if not today.hours[hour] and never[hour] == 0]
    said = f"{share:.1%} of a day's rows come in hours that never were empty and are now: {', '.join(gone) or 'none'}"
    bound = bounds[0] if again else bounds[1]
    yield _check("hours", "", share, bound, failed=again or share > bounds[1], n=len(table), detail=said)


def _again(earlier: Sequence[DaySummary], today: DaySummary, error: float) -> Iterator[Check]:
    """Rows that repeat another of the day in all but time."""
    usual = [some.again / some.n for some in earlier if some.n]
    if today.n < FEW or median(usual) > 0.5:
        return
    share, most = today.again / today.n, max(usual)
    bound = max(REPEATED, 1.5 * most, beyond(usual, error))
    said = f"{share:.1%} of the rows repeat another of the day in all but its time; {most:.1%} at most did so far"
    failed = share > bound and today.again >= SOME
    yield _check("repeated rows", "", share, bound, failed=failed, n=today.n, detail=said)


def _weekday_medians(counts: dict[datetime, int]) -> dict[int, float]:
    overall = float(median(counts.values()))
    found = {}
    for weekday in range(7):
        same = [count for when, count in counts.items() if when.weekday() == weekday]
        found[weekday] = float(median(same)) if len(same) >= SAME_WEEKDAY else overall
    return found
