"""A value gets another name: the same things are counted as ever, under a word that the model never saw.

New words alone are a changed world (new kinds of things); words that go away alone, too. A renaming is both on the same day, in pairs of the same
frequency, or a new word that is the old one in other letters. The pairs are the assignment of least cost (Kuhn 1955, "The Hungarian method").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.streams import Stream
from noria.diagnosis.tested import Tested, check

LEAST_SHARE = 0.005
ENOUGH = 0.01
COVERED = 0.7
FEW = 20


@dataclass(frozen=True)
class Renamed:
    """Old value → new value, with the old one's share before and the new one's share since; ``same`` when only letters or spaces differ."""

    old: str
    new: str
    before: float
    after: float
    same: bool


def category_renamed(case: Case) -> Tested:
    """New values appear as old ones vanish, with their frequencies."""
    made: list[Check] = []
    looked = 0
    for stream in streams.streams(case).values():
        joins = streams.join_columns(case, stream.name)
        source = streams.source_of(case, stream.name)
        keys = set(source.keys) if source is not None and len(source.keys) == 1 else set()
        for column in stream.columns:
            days = [(day, cell.values) for day, cell in stream.of(column) if cell.values]
            if len(days) <= streams.LEAST_DAYS or column in joins | keys:
                continue
            looked += 1
            found = _renamed(stream, column, [(day.day, values) for day, values in days if values is not None])
            if found is not None:
                made.append(found)
    act = "ask the owner which value is now called what; map the new names to the old where they come in, then train once more"
    if not looked:
        made = [check("old names go as new ones come", None, detail="no column of values has enough days to compare")]
    elif not made:
        made = [
            check("old names go as new ones come", False, detail=f"no new value took the place of an old one in {looked} columns")
        ]
    failed = [one for one in made if one.verdict is Verdict.FAIL]
    found_, strength, blocks = streams.limited(case, failed, 0.95 if failed else 0.0)
    return Tested("category renamed", "data", act, found_ or tuple(made), strength, blocks=blocks)


def _renamed(stream: Stream, column: str, days: list[tuple[datetime, dict[str, int]]]) -> Check | None:
    """A check where new values came, ``None`` where none did."""
    at = first_new(days)
    if at is None:
        return None
    before = _shares([values for day, values in days if at - streams.REFERENCE * DAY < day <= at])
    after = _shares([values for day, values in days if day > at])
    subject = f"{stream.name}.{column}"
    rows = sum(n for day, values in days if day > at for n in values.values())
    name = "old names go as new ones come"
    if rows < FEW:
        return check(name, None, subject=subject, detail=f"{rows} rows since new values came")
    daily = [{v: n / max(sum(values.values()), 1) for v, n in values.items()} for day, values in days if day <= at]
    pairs = paired(before, after, daily, rows)
    new = {value: share for value, share in after.items() if value not in before}
    covered = sum(pair.after for pair in pairs)
    whole = sum(new.values())
    found = bool(pairs) and covered >= COVERED * whole and covered >= ENOUGH
    listed = (
        ", ".join(f"{p.old!r} → {p.new!r} ({p.before:.1%} → {p.after:.1%})" for p in pairs[:4]) or "none in place of an old one"
    )
    said = f"since {at:%Y-%m-%d} {whole:.1%} of {subject} are values never seen before; {listed}"
    return check(
        name, found, subject=subject, size=Estimate(covered / whole if whole else 0.0, n=rows), bound=COVERED, detail=said
    )


def first_new(days: list[tuple[datetime, dict[str, int]]]) -> datetime | None:
    """The end of the day before the one from which on values come that did not before; ``None`` without such values."""
    start = max(streams.LEAST_DAYS, len(days) - streams.NEWEST_BREAK)
    seen = {value for _, values in days[:start] for value in values}
    for day, values in days[start:]:
        total = sum(values.values())
        if total and sum(n for value, n in values.items() if value not in seen) > ENOUGH * total:
            return day - DAY
        seen |= values.keys()
    return None


def _shares(days: list[dict[str, int]]) -> dict[str, float]:
    total: dict[str, int] = {}
    for values in days:
        for value, n in values.items():
            total[value] = total.get(value, 0) + n
    whole = sum(total.values())
    return {value: n / whole for value, n in total.items()} if whole else {}


def plain(value: str) -> str:
    """A value without case, spaces and punctuation.

    >>> plain(" United-States ") == plain("UNITED STATES")
    True
    """
    return re.sub(r"[\W_]+", "", value.casefold()) or value


def paired(before: dict[str, float], after: dict[str, float], daily: list[dict[str, float]], rows: int) -> list[Renamed]:
    """Old and new values that belong together: the same word in other letters, or a vanished value and a new one as frequent."""
    new = sorted((value for value in after if value not in before and after[value] >= LEAST_SHARE), key=lambda v: -after[v])
    words: dict[str, list[str]] = {}
    for value in before:
        words.setdefault(plain(value), []).append(value)
    made = []
    for value in list(new):
        same = [old for old in words.get(plain(value), []) if after.get(old, 0.0) < 0.9 * before[old]]
        if same:
            old = max(same, key=lambda v: before[v])
            made.append(Renamed(old, value, before[old], after[value], same=True))
            new.remove(value)
    taken = {pair.old for pair in made}
    gone = sorted(
        value for value, share in before.items() if share >= LEAST_SHARE and value not in taken and not after.get(value)
    )
    if new and gone:
        from scipy.optimize import linear_sum_assignment

        cost = np.array([[abs(math.log(after[b] / before[a])) for b in new] for a in gone])
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            old, value = gone[i], new[j]
            if abs(after[value] - before[old]) <= _room(before[old], [day.get(old, 0.0) for day in daily], rows):
                made.append(Renamed(old, value, before[old], after[value], same=False))
    return sorted(made, key=lambda pair: -pair.after)


def _room(share: float, days: list[float], rows: int) -> float:
    """How far a share may be from what it was: four standard errors of chance, three of what it does from day to day."""
    chance = 4 * math.sqrt(share * (1 - share) / max(rows, 1))
    return max(chance, 3 * float(np.std(days[-streams.REFERENCE :])) if len(days) > 1 else 0.0, 0.1 * share)
