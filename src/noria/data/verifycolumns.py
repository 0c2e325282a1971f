"""The tests of one column's day against its earlier days.

One storm, one broken reading or one wild price is no failure of a source. So a test fails on one day only where most of the rows say what
none said before (another unit, names never seen, values that stand still); what the weather can do too (another level, another width, a tenth
of the rows out of range) has to last for two days, beyond what is ordinary for such days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from noria import stats
from noria.core import Check, Estimate, Verdict
from noria.data.summary import DAY
from noria.records import ColumnDay, DaySummary

LEAST_DAYS = 14
FEW = 20
SOME = 10
RUNNING = 0.3
SHARE = 0.05
OFF_GRID = 0.3
NEW = 0.6
MOST_NEW = 0.9
FEW_NEW = 0.2
STANDS = 0.1
SLOWER = 0.5
MOVES = 0.2
FURTHER = 2.0


@dataclass(frozen=True)
class Past:
    """A column's earlier days in order, the day itself, and the day before it (``None``: it brought nothing)."""

    name: str
    days: Sequence[tuple[DaySummary, ColumnDay]]
    today: DaySummary
    now: ColumnDay
    before: ColumnDay | None
    error: float

    @property
    def known(self) -> int:
        """Values of the day that are not missing."""
        return self.today.n - self.now.nulls

    def older(self) -> list[ColumnDay]:
        """The days before yesterday: what two days are compared with."""
        return [cell for day, cell in self.days if day.day < self.today.day - DAY]

    def lasting(self) -> float:
        """The chance for one ordinary day to be beyond a limit when two in a row have to be: the second follows the first three times in ten."""
        return min(0.02, self.error / RUNNING)


def made(name: str, subject: str, value: float, bound: float | None, *, failed: bool, n: int, detail: str) -> Check:
    """One test's check."""
    verdict = Verdict.FAIL if failed else Verdict.PASS
    estimate = Estimate(float(f"{value:.9g}"), n=n)
    return Check(name, verdict, subject, estimate, None if bound is None else float(f"{bound:.9g}"), detail)


def unknown(name: str, subject: str = "") -> Check:
    return Check(name, Verdict.NOT_ENOUGH_DATA, subject)


def beyond(values: Sequence[float], error: float, further: float = 1.5) -> float:
    """What an ordinary day's number exceeds with a chance of at most ``error``, and at least ``further`` times as far from the median as any did."""
    limit = stats.ordinary(np.array(values, float), error, least=LEAST_DAYS)
    centre = median(values)
    return max(limit, centre + further * (max(values) - centre))


def numbers(past: Past) -> Iterator[Check]:
    """Range, level and width of a number, and values between the known ones that never came."""
    days = [cell for _, cell in past.days if cell.quantiles]
    if len(days) < LEAST_DAYS or not past.now.quantiles or past.known < FEW:
        return
    yield _range(past, days)
    older = [cell for cell in past.older() if cell.quantiles]
    if len(older) >= LEAST_DAYS and past.before is not None and past.before.quantiles:
        yield from _level(past, older, past.before)
        yield from _width(past, older, past.before)
    yield from _off_grid(past)


def _range(past: Past, days: list[ColumnDay]) -> Check:
    """Half of the rows outside of all that came before, or a tenth on two days in a row."""
    lows = [c.low for c in days if c.low is not None]
    highs = [c.high for c in days if c.high is not None]
    room = 0.3 * (max(highs) - min(lows))
    wild = (max(highs) / min(lows)) ** 0.3 if min(lows) > 0 else 1.0  # a positive number may move by factors
    low, high = min(lows) - room, max(max(highs) + room, max(highs) * wild)
    yesterday = past.before.quantiles if past.before is not None else ()
    older = past.older()
    low2 = min((c.low for c in older if c.low is not None), default=low) - room
    high2 = max((c.high for c in older if c.high is not None), default=high) + room
    first, _, middle, _, last = past.now.quantiles
    constant = min(lows) == max(highs)
    half = (last < low or first > high) if constant else (middle < low or middle > high)
    tenth = (
        bool(yesterday) and not constant and ((first < low2 and yesterday[0] < low2) or (last > high2 and yesterday[-1] > high2))
    )
    low, high = (low2, high2) if tenth and not half else (low, high)
    outside = last if last - high > low - first else first
    said = f"nine in ten values are from {first:g} to {last:g} or beyond; so far all were from {min(lows):g} to {max(highs):g}"
    return made("range", past.name, outside, high if outside == last else low, failed=half or tenth, n=past.known, detail=said)


def on_one_side(values: Sequence[float], error: float, further: float) -> float:
    """``beyond`` of the values above the median and their mirror images: what is ordinary on one side is not made wider by storms on the other.

    >>> values = [-90.0, -60.0, *[1.0, 2.0, 3.0, 4.0] * 6]
    >>> round(on_one_side(values, 0.001, 2.0)), round(beyond(values, 0.001, 2.0))
    (8, 128)
    """
    centre = median(values)
    above = [value - centre for value in values if value > centre]
    both = [
        sign * value for value in above for sign in (1.0, -1.0)
    ]  # in turn: a block of either sign would look like a slow wave
    return centre + beyond([0.0, *both], error, further) if len(both) >= LEAST_DAYS else beyond(values, error, further)


def _level(past: Past, older: list[ColumnDay], before: ColumnDay) -> Iterator[Check]:
    """The median on two days beyond what it ever does, and that half of the values with it. Not for columns that are mostly one value."""
    medians = [cell.quantiles[2] for cell in older]
    if 3 * sum(cell.quantiles[1] == cell.quantiles[3] for cell in older) > len(older):
        return
    now, was = past.now.quantiles, before.quantiles
    centre = median(medians)
    side = 1.0 if now[2] >= centre else -1.0
    limit = on_one_side([side * value for value in medians], past.lasting(), FURTHER)
    usual = [median(cell.quantiles[k] for cell in older) for k in range(5)]
    half = slice(2, None) if side > 0 else slice(0, 3)
    together = all(side * (a - b) > 0 for a, b in zip(now[half], usual[half], strict=True))
    failed = together and min(side * now[2], side * was[2]) > limit
    said = f"the day's median is {now[2]:.4g}, the day before {was[2]:.4g}; usual is {centre:.4g}"
    yield made("level", past.name, now[2], side * limit, failed=failed, n=past.known, detail=said)


def _width(past: Past, older: list[ColumnDay], before: ColumnDay) -> Iterator[Check]:
    """How far the middle eight tenths of the values reach, on two days: a unit may change where the level stays about nought."""
    widths = [cell.quantiles[-1] - cell.quantiles[0] for cell in older]
    if min(widths) <= 0 or _mostly_one(widths):
        return
    least = 1e-3 * median(widths)
    logs = [math.log(width) for width in widths]
    centre = median(logs)
    now, was = (math.log(max(one.quantiles[-1] - one.quantiles[0], least)) for one in (past.now, before))
    side = 1.0 if now >= centre else -1.0
    limit = max(beyond([side * value for value in logs], past.lasting(), FURTHER), side * centre + math.log(2))
    said = (
        f"eight in ten values lie within {math.exp(now):.4g}, the day before {math.exp(was):.4g}; usual is {math.exp(centre):.4g}"
    )
    failed = min(side * now, side * was) > limit
    yield made("width", past.name, math.exp(now), math.exp(side * limit), failed=failed, n=past.known, detail=said)


def _mostly_one(values: Sequence[float]) -> bool:
    """Whether more than a third of the days have the same number, as where most values are nought."""
    return max(values.count(value) for value in set(values)) * 3 > len(values)


def _off_grid(past: Past) -> Iterator[Check]:
    """Values that never came, where a number takes few values (a reading's steps): another unit has other steps.

    A day of records is all new and lies beyond the known values: one day of values *between* known ones is enough, of values beyond two. The most
    frequent value is left out (nought, where most values are nought): what is left has to be of few values too.
    """
    table = [(day.day, cell.numbers) for day, cell in past.days]
    if past.now.numbers is None or any(cell is None for _, cell in table) or len(table) < 2 * LEAST_DAYS:
        return
    total: dict[str, int] = {}
    for _, cell in table:
        for value, n in (cell or {}).items():
            total[value] = total.get(value, 0) + n
    most = max(sorted(total), key=lambda v: total[v], default="")
    seen: set[float] = set()
    older: set[float] = set()
    usual = []
    for place, (day, cell) in enumerate(table):
        values = _floats(cell, most)
        if 2 * place >= len(table) and seen and sum(values.values()) >= SOME:
            usual.append(_unseen(values, seen))
        seen |= values.keys()
        older |= values.keys() if day < past.today.day - DAY else set()
    now, before = _floats(past.now.numbers, most), _floats(past.before.numbers if past.before is not None else None, most)
    few = len(usual) < LEAST_DAYS or len(older) < SOME or median(one[0] for one in usual) > FEW_NEW
    if few or sum(now.values()) < SOME:
        return
    whole, between = _unseen(now, seen)
    lasting = min(whole, _unseen(before, older)[0]) if sum(before.values()) >= SOME else 0.0
    bounds = [min(max(least, 2 * max(one[k] for one in usual)), MOST_NEW) for k, least in enumerate((NEW, OFF_GRID))]
    k = 0 if lasting > bounds[0] and between <= bounds[1] else 1
    share, where = (between, " and lie between known ones") if k else (whole, " on two days")
    said = (
        f"{share:.1%} of the values never came before{where}; {max(one[k] for one in usual):.1%} at most did so on one day so far"
    )
    yield made("new numbers", past.name, share, bounds[k], failed=share > bounds[k], n=past.known, detail=said)


def _floats(counts: Mapping[str, int] | None, most: str) -> dict[float, int]:
    return {float(value): n for value, n in (counts or {}).items() if value != most}


def _unseen(values: Mapping[float, int], seen: set[float]) -> tuple[float, float]:
    """The share of values that were never seen, and of those the ones between the least and the greatest that were."""
    low, high = min(seen), max(seen)
    total = max(sum(values.values()), 1)
    new = {value: n for value, n in values.items() if value not in seen}
    return sum(new.values()) / total, sum(n for value, n in new.items() if low <= value <= high) / total


def stands_still(past: Past) -> Iterator[Check]:
    """Rows that say otherwise than the row before: hardly any on one day, or fewer than ever on two."""
    usual = [cell.moved for _, cell in past.days if cell.moved is not None]
    now = past.now.moved
    if now is None or len(usual) < LEAST_DAYS or median(usual) < MOVES or min(usual) < SHARE or past.known * median(usual) < FEW:
        return
    older = [cell.moved for cell in past.older() if cell.moved is not None]
    was = past.before.moved if past.before is not None else None
    failed = now <= STANDS * min(usual)
    bound = STANDS * min(usual)
    if was is not None and len(older) >= LEAST_DAYS:
        slow = min(-beyond([-value for value in older], past.lasting()), SLOWER * min(older))
        failed, bound = failed or (now < slow and was < slow), max(bound, slow)
    said = (
        f"{now:.1%} of the values differ from the one before; {median(usual):.1%} are usual, {min(usual):.1%} the fewest so far"
    )
    yield made("values move", past.name, now, bound, failed=failed, n=past.known, detail=said)


def categories(past: Past) -> Iterator[Check]:
    """The share of values never seen before, and frequent values that are gone; of texts with many values, of the ways they are written."""
    if past.now.values is not None and all(cell.values is not None for _, cell in past.days):
        table = [cell.values or {} for _, cell in past.days]
        yield _new("new categories", "values", past, table, past.now.values)
        if past.known >= FEW:
            yield _lost(past, table, past.now.values)
    if past.now.shapes is not None:
        shapes = [cell.shapes for _, cell in past.days if cell.shapes is not None]
        if len(shapes) >= LEAST_DAYS:
            yield _new("new forms", "texts are written as none was", past, shapes, past.now.shapes)


def _new(name: str, what: str, past: Past, table: Sequence[Mapping[str, int]], now: Mapping[str, int]) -> Check:
    if past.known < FEW:
        return unknown(name, past.name)
    seen: set[str] = set()
    usual = []
    for place, values in enumerate(table):
        if place >= LEAST_DAYS // 2 and values:
            usual.append(sum(n for value, n in values.items() if value not in seen) / sum(values.values()))
        seen |= values.keys()
    new = {value: count for value, count in now.items() if value not in seen}
    share = sum(new.values()) / past.known
    bound = max(SHARE, 3 * max(usual, default=0.0))
    named = ", ".join(sorted(new, key=lambda v: (-new[v], v))[:3])
    failed = share > bound and sum(new.values()) >= SOME
    said = f"{share:.1%} of the {what if what == 'values' else 'texts'} were never {'seen' if what == 'values' else 'written so'} before"
    return made(name, past.name, share, bound, failed=failed, n=past.known, detail=f"{said}{': ' + named if new else ''}")


def _lost(past: Past, table: Sequence[Mapping[str, int]], now: Mapping[str, int]) -> Check:
    daily = set(table[0]).intersection(*table[1:])
    totals = [sum(values.values()) for values in table]
    gone = []
    for value in sorted(daily - set(now)):
        shares = [values[value] / total for total, values in zip(totals, table, strict=True)]
        if min(shares) > SHARE:
            gone.append((median(shares), value))
    lost = max((share for share, _ in gone), default=0.0)
    said = "every frequent value is there"
    if gone:
        said = f"values that came every day are gone: {', '.join(value for _, value in gone)}"
    return made("lost categories", past.name, lost, SHARE, failed=bool(gone), n=past.known, detail=said)
