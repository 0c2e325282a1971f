"""A column keeps its name and its meaning and changes its unit: Fahrenheit becomes Celsius, minutes become seconds, euros become cents.

What tells it from a world that moved: it happens from one day to the next, to every row alike, and undoing one conversion brings back exactly
the distribution of the days before. A shift of the world has no such inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from noria.core import Check, Estimate
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.streams import Break, Floats, Stream, distance, quantiles, spread_of
from noria.diagnosis.tested import Tested, check

Steps = list[tuple[datetime, dict[float, int]]]
FACTORS = {
    "thousands": 1000.0,
    "hundreds (cents, per cent)": 100.0,
    "tens": 10.0,
    "sixtieths (minutes, seconds)": 60.0,
    "hours and seconds": 3600.0,
    "hours and days": 24.0,
    "milliseconds and minutes": 60_000.0,
    "miles and kilometres": 1.609344,
    "nautical miles and kilometres": 1.852,
    "knots and miles per hour": 1.150779,
    "metres and feet": 3.28084,
    "metres and yards": 1.0936133,
    "metres per second and kilometres per hour": 3.6,
    "metres per second and miles per hour": 2.236936,
    "metres per second and knots": 1.943844,
    "inches and centimetres": 2.54,
    "inches and millimetres": 25.4,
    "pounds and kilograms": 2.2046226,
    "ounces and grams": 28.349523,
    "gallons and litres": 3.785412,
    "hectopascals and inches of mercury": 33.863886,
    "hectopascals and millimetres of mercury": 1.3332237,
    "kilowatt-hours and megajoules": 3.6,
    "millions": 1e6,
    "halves": 2.0,
}
"""Factors between units that are common in data; each is tried both ways."""

OFFSETS = {
    "Celsius to Fahrenheit": (1.8, 32.0),
    "Fahrenheit to Celsius": (1 / 1.8, -32 / 1.8),
    "Celsius to Kelvin": (1.0, 273.15),
    "Kelvin to Celsius": (1.0, -273.15),
    "Fahrenheit to Kelvin": (1 / 1.8, 273.15 - 32 / 1.8),
    "Kelvin to Fahrenheit": (1.8, 32 - 273.15 * 1.8),
}
CONVERSIONS = [(title, a, b) for title, (a, b) in OFFSETS.items()] + [
    (title, a, 0.0) for title, factor in FACTORS.items() for a in (factor, 1 / factor)
]
MOST_LOOKED_AT = 5
ON_STEPS = 0.9
OFF_STEPS = 0.15
CLEAN = 0.99
FAR = 0.8
NEAR = 0.25
LEFT, CLEARLY = 0.5, 0.15
DRAWS = 60
FAR_BACK = 0.01
WIDE = (0.6, 1.6)
SOME, NEARLY_ALL = 0.1, 0.95


@dataclass(frozen=True)
class Moved:
    """A numeric column with another level or range since a break."""

    stream: Stream
    column: str
    at: Break


def unit_changed(case: Case) -> Tested:
    """From one day on, a numeric column's values are those of before under one conversion."""
    name = "values undo by one conversion"
    suspects, looked = moved_columns(case)
    made = _steps(case)
    told = {one.subject for one in made}
    far = [one for one in suspects if f"{one.stream.name}.{one.column}" not in told][:MOST_LOOKED_AT]
    made += [found for one in far for found in [_confirmed(case, one)] if found is not None]
    failed = [one for one in made if one.verdict.value == "fail"]
    certain = any(one.bound is not None for one in streams.limited(case, failed, 1.0)[0])
    found, strength, blocks = streams.limited(case, failed, 0.97 if certain else 0.7 if failed else 0.0)
    act = f"ask the owner of {', '.join(sorted({one.subject for one in found})) or 'the column'} for the unit; convert it where it comes in, and take the rows since in again"
    if not looked:
        made = [check(name, None, detail="no numeric column has enough days to compare")]
    elif not made:
        made = [check(name, False, detail=f"none of {looked} numeric columns jumped to another level or range")]
    return Tested("unit changed", "data", act, found or tuple(made), strength, blocks=blocks)


def _steps(case: Case) -> list[Check]:
    """Columns that take few values and now take others: whether one conversion brings those back onto the steps that were known."""
    made = []
    for stream in streams.streams(case).values():
        for column in stream.columns:
            days = [(day.day, {float(v): n for v, n in cell.numbers.items()}) for day, cell in stream.of(column) if cell.numbers]
            found = _off_steps(days)
            if found is None:
                continue
            at, seen, unseen, rows = found
            title, factor, offset, share = _back(unseen, seen)
            if share < ON_STEPS:
                continue
            off = sum(unseen.values())
            said = (
                f"since {at - DAY:%Y-%m-%d} {off} of {rows} values of {stream.name}.{column} are none that came before; "
                f"undoing {title} (x * {factor:.6g} {offset:+.6g}) makes {share:.0%} of them values that did"
            )
            size = Estimate(share, n=off)
            made.append(
                check(
                    "values undo by one conversion",
                    True,
                    subject=f"{stream.name}.{column}",
                    size=size,
                    bound=ON_STEPS,
                    detail=said,
                )
            )
    return made


def _off_steps(days: Steps) -> tuple[datetime, NDArray[np.float64], dict[float, int], int] | None:
    """The first of the last days with many values never seen; the values known before it, those since that were not, and all since, counted."""
    seen: set[float] = set()
    usual: list[float] = []
    for place, (day, values) in enumerate(days):
        new = sum(n for value, n in values.items() if value not in seen)
        if (
            place >= max(streams.REFERENCE, len(days) - streams.NEWEST_BREAK)
            and new >= 10
            and new > OFF_STEPS * sum(values.values())
        ):
            since: dict[float, int] = {}
            for _, later in days[place:]:
                for value, n in later.items():
                    since[value] = since.get(value, 0) + n
            unseen = {value: n for value, n in sorted(since.items()) if value not in seen}
            enough = len(unseen) >= 5 and len(seen) >= 8 and float(np.median(usual)) <= OFF_STEPS / 3
            return (day, np.array(sorted(seen)), unseen, sum(since.values())) if enough else None
        if place >= streams.REFERENCE // 2:
            usual.append(new / max(sum(values.values()), 1))
        seen |= values.keys()
    return None


def _back(unseen: dict[float, int], seen: NDArray[np.float64]) -> tuple[str, float, float, float]:
    """The conversion that brings most of the values never seen back to known ones, and the share of them that it does."""
    values, counts = np.array(list(unseen)), np.array(list(unseen.values()), float)
    best = ("", 1.0, 0.0, 0.0)
    for title, a, b in CONVERSIONS:
        back = (values - b) / a
        place = np.clip(np.searchsorted(seen, back), 1, len(seen) - 1)
        near = np.minimum(np.abs(back - seen[place - 1]), np.abs(back - seen[place]))
        kept = near <= 1e-6 * np.abs(back) + 1e-12
        beyond = (back < seen[0]) | (back > seen[-1])  # a record in the old unit: it says nothing
        whole = float(counts[~beyond].sum())
        several = len(np.unique(np.round(back[kept], 9))) >= 5
        share = float(counts[kept].sum()) / whole if whole > 0.5 * counts.sum() and several else 0.0
        if share > best[3]:
            best = (title, a, b, share)
    return best


def moved_columns(case: Case) -> tuple[list[Moved], int]:
    """The numeric columns whose daily mean, least or greatest jumped, those that something reads and the farthest first; and how many were looked at."""
    return streams.once(case, "moved columns", lambda: _moved_columns(case))


def _moved_columns(case: Case) -> tuple[list[Moved], int]:
    found, looked = [], 0
    for stream in streams.streams(case).values():
        types = streams.kinds(case, stream)
        source = streams.source_of(case, stream.name)
        for column in stream.columns:
            if types.get(column) == "BOOLEAN" or (source is not None and column in (*source.keys, source.time)):
                continue
            days = [(day, cell) for day, cell in stream.of(column) if cell.mean is not None and day.n - cell.nulls >= 5]
            if len(days) <= streams.LEAST_DAYS:
                continue
            looked += 1
            dates = [day.day for day, _ in days]
            series = [np.array([getattr(cell, side) for _, cell in days], float) for side in ("mean", "low", "high")]
            series.append(series[2] - series[1])
            series.append(np.array([cell.quantiles[2] if cell.quantiles else np.nan for _, cell in days], float))
            breaks = [streams.broken(dates, values, floor_=1e-9) for values in series]
            worst = max((one for one in breaks if one is not None), key=lambda one: one.jump, default=None)
            if worst is not None and worst.sudden and worst.jump > 2.0:
                found.append(Moved(stream, column, worst))
    return sorted(found, key=lambda one: (not streams.is_read(case, one.stream, one.column), -one.at.jump)), looked


def samples(case: Case, moved: Moved) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Values and day numbers of the 28 days before a break, and of those since; ``None`` when either is too little."""
    at = moved.at.at
    column = moved.column
    before = streams.rows(case, moved.stream, at - streams.REFERENCE * DAY, at, [column])
    after = streams.rows(case, moved.stream, at, case.now, [column])
    both = []
    for frame in (before, after):
        if column not in frame.columns or not frame[column].dtype.is_numeric():
            return None
        kept = frame.drop_nulls(column)
        both += [kept[column].cast(float).to_numpy(), kept["_known"].dt.epoch("d").to_numpy().astype(float)]
    enough = len(both[0]) >= 50 and len(both[2]) >= 20 and len(np.unique(both[0])) >= 8
    return (both[0], both[1], both[2], both[3]) if enough else None


def ordinary(values: Floats, days: Floats, scale: float, length: int) -> float:
    """The largest distance of a block of ``length`` days to the block before it: how far the column moves by itself."""
    blocks = (days.max() - days) // max(length, 1)
    parts = [values[blocks == block] for block in np.unique(blocks)]
    parts = [part for part in parts if len(part) >= 10]
    apart = [distance(a, b, scale) for a, b in pairwise(parts)]
    return max(apart, default=0.0)


def _confirmed(case: Case, moved: Moved) -> Check | None:
    """Whether a conversion undoes what happened to a column."""
    found = samples(case, moved)
    if found is None:
        return None
    before, days, after, since = found
    scale = spread_of(before)
    usual = ordinary(before, days, scale, min(int(np.ptp(since)) + 1, 7))
    whole = distance(before, after, scale)
    subject = f"{moved.stream.name}.{moved.column}"
    name = "values undo by one conversion"
    if whole <= max(FAR, 3 * usual):
        return check(
            name, False, subject=subject, size=Estimate(whole), detail=f"its values moved by {whole:.2g} standard deviations"
        )
    slope, offset, fit = fitted(before, after)
    known = nearest(before, after, scale)
    title, a, b, left = known
    priced = streams.only_priced(case, moved.stream.name, moved.column)  # prices double, and no unit is behind it
    undone = left <= min(max(1.5 * usual, NEAR), LEFT) and left < CLEARLY * whole and abs(slope / a - 1) < 0.15
    gone = len(_beyond(before, after)) >= NEARLY_ALL * len(after)
    undone = (undone or (gone and _far_and_back(before, after, known, whole))) and not (priced and title == "halves")
    size = _interval(before, after, since)
    since_when = f"since {moved.at.at:%Y-%m-%d}"
    if undone:
        said = (
            f"{subject} moved by {whole:.3g} standard deviations {since_when}; undoing {title} (x * {a:.6g} {b:+.6g}) leaves {left:.2g}, "
            f"and it moves by {usual:.2g} by itself"
        )
        return check(name, True, subject=subject, size=size, bound=a, detail=said)
    clean = (
        not priced
        and fit > CLEAN
        and (slope > 1.9 or 0 < slope < 0.53)
        and abs(offset) < 0.15 * float(np.std(after)) + 1e-12
        and whole > 6 * usual
    )
    some = _some_rows(before, after, scale) if not priced else None
    if some is not None:
        share, (title, a, b, left) = some
        said = (
            f"{share:.0%} of the values of {subject} lie beyond all that was known {since_when}; undoing {title} (x * {a:.6g} {b:+.6g}) leaves "
            f"them {left:.2g} standard deviations from those before"
        )
        return check(name, True, subject=subject, size=size, bound=a, detail=said)
    said = f"{subject} {since_when} is {slope:.4g} * before {offset:+.4g} (R² {fit:.4f}); no common conversion does that"
    return check(name, clean, subject=subject, size=size, detail=said)


def _far_and_back(before: Floats, after: Floats, known: tuple[str, float, float, float], whole: float) -> bool:
    """Whether values went hundreds of times as far as what a conversion leaves of it: a few days need not have the shape of the weeks before."""
    _, a, b, left = known
    middle, new = float(np.median(before)), (float(np.median(after)) - b) / a
    wide = spread_of(after) / (abs(a) * max(spread_of(before), 1e-12))
    return left < FAR_BACK * whole and left <= 1.0 and abs(new - middle) <= spread_of(before) and WIDE[0] < wide < WIDE[1]


def _beyond(before: Floats, after: Floats) -> Floats:
    """The values after that lie beyond all before, with room."""
    room = 0.3 * float(np.ptp(before))
    return np.asarray(after[(after < before.min() - room) | (after > before.max() + room)])


def _some_rows(before: Floats, after: Floats, scale: float) -> tuple[float, tuple[str, float, float, float]] | None:
    """(share, conversion) where a part of the rows, all beyond what was known, comes back by one conversion."""
    outside = _beyond(before, after)
    share = len(outside) / len(after)
    if len(outside) < 10 or not SOME <= share < NEARLY_ALL:
        return None
    known = nearest(before, outside, scale)
    return (share, known) if _far_and_back(before, outside, known, distance(before, outside, scale)) else None


def fitted(before: Floats, after: Floats) -> tuple[float, float, float]:
    """Slope, offset and R² of the quantiles after as a line of those before."""
    x, y = quantiles(before), quantiles(after)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, float(y.mean()), 0.0
    slope, offset = np.polyfit(x, y, 1)
    rest = y - (slope * x + offset)
    return float(slope), float(offset), float(1 - rest @ rest / ((y - y.mean()) @ (y - y.mean())))


def nearest(before: Floats, after: Floats, scale: float) -> tuple[str, float, float, float]:
    """The common conversion (title, factor, offset) that brings the values after nearest to those before, and the distance left."""
    x, y = quantiles(before), quantiles(after)
    left = [float(np.abs((y - b) / a - x).mean() / max(scale, 1e-12)) for _, a, b in CONVERSIONS]
    best = int(np.argmin(left))
    return (*CONVERSIONS[best], left[best])


def _interval(before: Floats, after: Floats, days: Floats) -> Estimate:
    """The slope, with an interval from drawing the days since again (the rows, with fewer than five days)."""
    slope = fitted(before, after)[0]
    random = np.random.default_rng(0)
    found = []
    groups = [after[days == day] for day in np.unique(days)]
    for _ in range(DRAWS):
        if len(groups) >= 5:
            drawn = np.concatenate([groups[k] for k in random.integers(0, len(groups), len(groups))])
        else:
            drawn = random.choice(after, len(after))
        found.append(fitted(before, drawn)[0])
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(slope, float(low), float(high), len(groups))
