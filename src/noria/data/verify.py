"""Is what came in like what came before?

Each UTC day of a source (by ``_known``) is compared with the days before it, from the summaries that lie in the ``Ingested`` records. The bounds
are robust (median, and median absolute deviation, of the same weekday where there are enough), and wide: these tests are for faults of
data, not for drift. With fewer than 14 earlier days a test is silent, except where no reference is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median

from noria.core import Check, Estimate, Verdict
from noria.core.window import floor
from noria.data.summary import DAY, merged
from noria.records import ColumnDay, DaySummary, Entry, Ingested, Verified
from noria.store import Home
from noria.system import Source, System

LEAST_DAYS = 14
REFERENCE = timedelta(days=56)
SAME_WEEKDAY = 4
WIDTH = 8.0
MOST_REFUSED = 0.2
FEW = 20
CATCH_UP = 7


def verify(home: Home, system: System, now: datetime) -> list[Entry[Verified]]:
    """Verifies every day that ended since the last look (at most a week back).

    A record is written when a source fails, and once when it passes again. Its ``checks`` list what failed, with the day's value, the
    bound, and a sentence. Nothing is written while all is well.
    """
    made = []
    today = floor(now, DAY)
    for source in system.sources.values():
        for day in _days(home, source, today, now):
            entry = _verified(home, source, day, now)
            if entry is not None:
                made.append(entry)
    return made


def _days(home: Home, source: Source, today: datetime, now: datetime) -> list[datetime]:
    """The ends of days to look at: those that ended since the batch before the newest, at most a week of them."""
    recent = home.ledger.read(Ingested, prefix=f"ingest/{source.name}/", newest=2)
    if not recent:
        return []
    if len(recent) == 1 and floor(recent[0].record.upto, DAY) == today:
        return []
    before = recent[-2].record.upto if len(recent) == 2 and recent[-1].record.upto == now else recent[-1].record.upto
    since = max(floor(before, DAY), today - CATCH_UP * DAY)
    return [since + (k + 1) * DAY for k in range((today - since) // DAY)]


def _verified(home: Home, source: Source, day: datetime, now: datetime) -> Entry[Verified] | None:
    key = f"verify/{source.name}/{day.isoformat()}"
    if home.ledger.find(key) is not None:
        return None
    batches = home.ledger.read(Ingested, prefix=f"ingest/{source.name}/", since=day - REFERENCE, until=now)
    checks = list(checked(source, [batch.record for batch in batches], day))
    failed = tuple(check for check in checks if check.verdict is Verdict.FAIL)
    last = home.ledger.latest(Verified, prefix=f"verify/{source.name}/")
    if not failed and (last is None or last.record.verdict is not Verdict.FAIL):
        return None
    verdict = Verdict.FAIL if failed else Verdict.PASS
    record = Verified(source=source.name, upto=day, verdict=verdict, tested=len(checks), checks=failed)
    parents = [batch.id for batch in batches if day - DAY < batch.record.upto <= day]
    return home.commit(record, key=key, parents=parents or [batches[-1].id] if batches else [])


def checked(source: Source, batches: Sequence[Ingested], day: datetime) -> Iterator[Check]:
    """Every test of one day of a source against the days before it."""
    days = [some for some in merged(d for batch in batches for d in batch.days) if some.day <= day]
    earlier = [some for some in days if some.day < day and some.day >= day - REFERENCE]
    today = next((some for some in days if some.day == day), None)
    yield from _refused(batches, day)
    yield _fresh(earlier, today, day)
    yield _volume(earlier, today, day)
    if today is not None and len(earlier) >= LEAST_DAYS:
        for column in sorted(today.columns):
            past = [(some, some.columns[column]) for some in earlier if column in some.columns]
            if len(past) >= LEAST_DAYS:
                yield from _column(source, column, past, today)


def _check(name: str, subject: str, value: float, bound: float | None, *, failed: bool, n: int, detail: str) -> Check:
    verdict = Verdict.FAIL if failed else Verdict.PASS
    estimate = Estimate(float(f"{value:.9g}"), n=n)
    return Check(name, verdict, subject, estimate, None if bound is None else float(f"{bound:.9g}"), detail)


def _unknown(name: str, subject: str = "") -> Check:
    return Check(name, Verdict.NOT_ENOUGH_DATA, subject)


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
        yield _unknown("rows put aside")
        return
    share = refused / received
    usual = [b.quarantined / b.received for b in before if b.received >= FEW]
    bound = _share_bound(usual, received) if len(usual) >= LEAST_DAYS else MOST_REFUSED
    detail = f"{refused} of {received} rows were put aside ({', '.join(sorted({r for b in now for r in b.reasons})) or 'none'})"
    yield _check("rows put aside", "", share, bound, failed=share > bound, n=received, detail=detail)
    late = sum(b.late for b in now) / received
    usual = [b.late / b.received for b in before if b.received >= FEW]
    if len(usual) < LEAST_DAYS:
        yield _unknown("late rows")
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
        return _unknown("freshness")
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


def _volume(earlier: Sequence[DaySummary], today: DaySummary | None, day: datetime) -> Check:
    """Rows of the day against the same weekday's median; the scale is that of all earlier days about their own weekday's."""
    if len(earlier) < LEAST_DAYS:
        return _unknown("volume")
    counts = {some.day: some.n for some in earlier}
    usual = _weekday_medians(counts)
    n = today.n if today is not None else 0
    expected = usual[day.weekday()]
    _, scale = spread([math.log((count + 1) / (usual[when.weekday()] + 1)) for when, count in counts.items()])
    most = max([abs(math.log((count + 1) / (usual[when.weekday()] + 1))) for when, count in counts.items()], default=0.0)
    bound = max(WIDTH * scale, math.log(2.0), 1.5 * most if most < math.log(4) else 0.0)
    ratio = math.log((n + 1) / (expected + 1))
    failed = abs(ratio) > bound and abs(n - expected) > 10 + 5 * math.sqrt(expected)
    factor = math.exp(bound)
    detail = (
        f"{n} rows; {expected:.0f} are usual on this weekday, {expected / factor:.0f} to {expected * factor:.0f} still ordinary"
    )
    return _check(
        "volume",
        "",
        float(n),
        expected / factor if ratio < 0 else expected * factor,
        failed=failed,
        n=len(earlier),
        detail=detail,
    )


def _weekday_medians(counts: dict[datetime, int]) -> dict[int, float]:
    overall = float(median(counts.values()))
    found = {}
    for weekday in range(7):
        same = [count for when, count in counts.items() if when.weekday() == weekday]
        found[weekday] = float(median(same)) if len(same) >= SAME_WEEKDAY else overall
    return found


# ---------------------------------------------------------------------------------------------------------- one column


def _column(source: Source, column: str, past: Sequence[tuple[DaySummary, ColumnDay]], today: DaySummary) -> Iterator[Check]:
    now = today.columns[column]
    usual = [some.nulls / day.n for day, some in past if day.n]
    share, bound = now.nulls / today.n, _share_bound(usual, today.n)
    detail = f"{share:.1%} of {today.n} values are missing; {median(usual):.1%} are usual"
    yield _check("missing values", column, share, bound, failed=share > bound and now.nulls >= 5, n=today.n, detail=detail)
    if column in source.keys or column == source.time:
        return
    if now.low is not None and now.high is not None and now.mean is not None:
        yield from _range(column, past, now, today.n)
    values = [(day, some.values) for day, some in past]
    if now.values is not None and all(some is not None for _, some in values):
        yield from _categories(column, [(day, some or {}) for day, some in values], now.values, today.n - now.nulls)


def _range(column: str, past: Sequence[tuple[DaySummary, ColumnDay]], now: ColumnDay, n: int) -> Iterator[Check]:
    """Values far outside of all that came before, and a mean that jumped: another unit, a default value, a broken sensor."""
    lows, highs = [c.low for _, c in past if c.low is not None], [c.high for _, c in past if c.high is not None]
    means = [c.mean for _, c in past if c.mean is not None]
    if len(means) < LEAST_DAYS or now.low is None or now.high is None or now.mean is None:
        return
    low, high = min(lows), max(highs)
    room = max(high - low, abs(high) * 0.1, 1e-9)
    outside = now.low if low - now.low > now.high - high else now.high
    failed = now.low < low - 2 * room or now.high > high + 2 * room
    detail = f"values from {now.low:g} to {now.high:g}; so far they were from {low:g} to {high:g}"
    yield _check(
        "range", column, outside, high + 2 * room if outside == now.high else low - 2 * room, failed=failed, n=n, detail=detail
    )
    centre, scale = spread(means)
    wide = (high - low) * (0.2 if scale > 0 else 1.0)  # mostly zeros, as rain is: then only a mean outside of all values counts
    bound = max(WIDTH * scale, 2 * (max(means) - min(means)), wide, 0.02 * abs(centre), 1e-9)
    failed = abs(now.mean - centre) > bound and n >= FEW
    detail = f"the day's mean is {now.mean:.4g}; usual is {centre:.4g}"
    yield _check("level", column, now.mean, centre + math.copysign(bound, now.mean - centre), failed=failed, n=n, detail=detail)


def _categories(column: str, past: Sequence[tuple[DaySummary, dict[str, int]]], now: dict[str, int], n: int) -> Iterator[Check]:
    """The share of values never seen before, and frequent values that are gone."""
    if n < FEW:
        yield _unknown("new categories", column)
        return
    seen = {value for _, values in past for value in values}
    new = {value: count for value, count in now.items() if value not in seen}
    share = sum(new.values()) / n
    named = ", ".join(sorted(new, key=lambda v: (-new[v], v))[:3])
    failed = share > 0.05 and sum(new.values()) >= 10
    yield _check(
        "new categories",
        column,
        share,
        0.05,
        failed=failed,
        n=n,
        detail=f"{share:.1%} of the values were never seen before{': ' + named if new else ''}",
    )
    totals = [(sum(values.values()), values) for _, values in past]
    gone = []
    for value in sorted(seen - set(now)):
        shares = [values.get(value, 0) / total for total, values in totals if total]
        if min(shares) > 0.05:
            gone.append((median(shares), value))
    lost = max((share for share, _ in gone), default=0.0)
    detail = (
        f"values that came every day are gone: {', '.join(value for _, value in gone)}"
        if gone
        else "every frequent value is there"
    )
    yield _check("lost categories", column, lost, 0.05, failed=bool(gone), n=n, detail=detail)
