"""A source is late, silent, or brings only a part: the first things to look at when features are old or empty.

The three are told apart by what else can be seen. A *missing* source brings nothing although it never paused so long. A *late* one brings its
rows after the turn that should have seen them. A *truncated* one brings rows every day, and of them certain hours, keys or values are gone, or it
brings fewer while as much is asked as ever; fewer rows of everything alike are less traffic, and no fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes.schema import standing
from noria.diagnosis.clock import Hours, hours
from noria.diagnosis.streams import Floats, Stream
from noria.diagnosis.tested import Tested, check
from noria.records import Ingested

EXPECTED = 10.0
LATE = 0.05
FEWER = 0.6
LOST = 0.15
HOUR = timedelta(hours=1)
ONCE = 24.0


def source_missing(case: Case) -> Tested:
    """A source brought nothing for longer than it ever paused."""
    made = _kept("nothing came", [_silence(case, stream) for stream in _sources(case)], "every source goes on bringing rows")
    act = f"ask the owner of {_named(made)} why nothing comes; until it does, let the fallback or a model without its features answer"
    return _limited(case, "source missing", act, made, 1.0)


def source_late(case: Case) -> Tested:
    """A source's rows come after the turn that should have seen them, or later after their time than before."""
    made = [one for stream in _sources(case) for one in (_late_rows(case, stream), _lag(case, stream))]
    kept = _kept("rows in time", made, "no source brings its rows later than before")
    act = f"ask the owner of {_named(kept)} for the rows in time; if the delay is there to stay, declare it as `known` and train again"
    return _limited(case, "source late", act, kept, 0.9)


def source_truncated(case: Case) -> Tested:
    """A source brings only a part of its rows: hours, keys or values of it are gone."""
    sources = [
        stream for stream in _sources(case) if not streams.only_labels(case, stream.name)
    ]  # fewer labels are labels missing
    made = _kept("all of it came", [cut(case, stream) for stream in sources], "no source lost a part of its rows")
    act = f"ask the owner of {_named(made)} to deliver again what was cut off, then turn again: what is missing can still come"
    return _limited(case, "source truncated", act, made, 0.92)


def _limited(case: Case, name: str, act: str, made: tuple[Check, ...], strength: float) -> Tested:
    """The cause, weak and without holding training back where it is about sources that nothing reads."""
    found, strength, blocks = streams.limited(case, _failed(made), strength if _failed(made) else 0.0)
    return Tested(name, "data", act, found or made, strength, blocks=blocks)


def _failed(made: Sequence[Check]) -> list[Check]:
    return [one for one in made if one.verdict is Verdict.FAIL]


def _named(made: Sequence[Check]) -> str:
    return ", ".join(sorted({one.subject for one in _failed(made)})) or "the source"


def _kept(name: str, made: list[Check], clear: str) -> tuple[Check, ...]:
    """What failed; else what could not be said (one source is enough to say that all is well); else one check that says so."""
    if _failed(made):
        return tuple(_failed(made))
    cleared = [one for one in made if one.verdict is Verdict.PASS]
    if not cleared:
        return tuple(made) or (check(name, None, detail="no source has a history in the lake"),)
    return (check(name, False, size=Estimate(0.0, n=len(cleared)), detail=clear),)


def _sources(case: Case) -> list[Stream]:
    return [stream for stream in streams.streams(case).values() if not stream.logged]


# ------------------------------------------------------------------------------------------------------------- missing


def silent_days(counts: Floats, start: int = 0) -> tuple[int, int, int]:
    """How many days at the end brought nothing; the longest such run that was over before the day ``start``; and the longest that ended since.

    >>> silent_days(np.array([1.0, 0, 1, 1, 0, 0, 1, 0]), 4)
    (1, 1, 2)
    """
    before = since = run = 0
    for day, count in enumerate(counts):
        if not count:
            run += 1
            continue
        if day - 1 >= start:
            since = max(since, run)
        else:
            before = max(before, run)
        run = 0
    return run, before, since


def _silence(case: Case, stream: Stream) -> Check:
    name = "nothing came"
    counts = stream.counts()
    active = counts[counts > 0]
    if len(active) < streams.LEAST_DAYS:
        return check(name, None, subject=stream.name, detail=f"only {len(active)} days of rows")
    stops = standing(case)
    stopped = next((e.record for e in stops if e.record.source == stream.name), None)
    if stopped is not None:
        return check(name, False, subject=stream.name, detail=f"it came, and cannot be used: {stopped.reason}")
    if stops and not case.home.ledger.read(Ingested, after=stops[0].seq, until=case.until):
        said = f"{stops[0].record.source} stopped the turn: nothing of {stream.name} was looked for since"
        return check(name, None, subject=stream.name, detail=said)
    run, longest, gap = silent_days(counts, sum(date <= case.window.start for date in stream.dates))
    usual = float(np.median(counts[: len(counts) - run][-streams.REFERENCE :]))
    newest = max(day.newest for day in stream.days)
    age = (case.now - newest) / HOUR
    over = gap > run
    run = max(run, gap)
    found = run > longest and (run > 1 or usual >= EXPECTED) and not (over and _late_rows(case, stream).verdict is Verdict.FAIL)
    said = f"{stream.name} brought nothing for {run} days ({usual:.0f} rows a day before; its longest pause was {longest} days): "
    said += "it is back" if over else f"its newest row is {age:.0f} hours old"
    return check(name, found, subject=stream.name, size=Estimate(float(run), n=len(active)), bound=float(longest), detail=said)


# ---------------------------------------------------------------------------------------------------------------- late


def late_shares(case: Case, stream: Stream) -> tuple[list[datetime], Floats]:
    """For each batch after the first: when, and the share of its rows that came after a turn that should have seen them."""
    found = case.home.ledger.read(
        Ingested, prefix=f"ingest/{stream.name}/", since=case.now - streams.HISTORY * DAY, until=case.until
    )
    first = case.home.ledger.read(Ingested, prefix=f"ingest/{stream.name}/")[:1]
    batches = [entry.record for entry in found if entry.record.received and entry not in first]
    return [batch.upto for batch in batches], np.array([batch.late / batch.received for batch in batches], float)


def _late_rows(case: Case, stream: Stream) -> Check:
    name = "rows in time"
    when, shares = late_shares(case, stream)
    at = streams.broken(when, shares, floor_=LATE / 4)
    if at is None:
        return check(name, None, subject=stream.name, detail=f"{len(shares)} batches are too few to compare")
    found = at.after > at.before + max(LATE, 2 * at.usual)
    said = f"{at.after:.1%} of the rows of {stream.name} come after a turn that should have seen them, {at.before:.1%} before {at.at:%Y-%m-%d}"
    return check(name, found, subject=stream.name, size=Estimate(at.after, n=at.days), bound=at.before + LATE, detail=said)


def _lag(case: Case, stream: Stream) -> Check:
    """From a row's time to when it was known: where the source says itself when (``known`` is a column)."""
    name = "delay"
    seen = hours(case, stream)
    dates, lags = seen.lags(0.9)
    at = streams.broken(dates, lags, floor_=0.05)
    if at is None:
        return check(name, None, subject=stream.name, detail="too few days to compare")
    later = at.after - at.before
    found = later > max(0.5, 3 * at.usual, 0.5 * at.before) and not _whole_hours(seen, at.at)
    said = f"nine of ten rows of {stream.name} were known within {at.after:.3g} h of their time, within {at.before:.3g} h before {at.at:%Y-%m-%d}"
    return check(name, found, subject=stream.name, size=Estimate(at.after, n=at.days), bound=at.before, detail=said)


def _whole_hours(seen: Hours, at: datetime) -> bool:
    """Whether what moved the delay is the hour of the rows' own times, as a wrong time zone does."""
    made = seen.shift(at)
    return made is not None and made.found


# ----------------------------------------------------------------------------------------------------------- truncated


def cut(case: Case, stream: Stream) -> Check:
    """Whether a source brings a part of its rows only, while the rest comes as ever."""
    name = "all of it came"
    counts, dates = stream.counts(), stream.dates
    if len(counts) <= streams.LEAST_DAYS or (counts > 0).sum() < streams.LEAST_DAYS:
        return check(name, None, subject=stream.name, detail=f"only {len(counts)} days of rows")
    weekly = _without_weekdays(dates, counts)
    at = streams.broken(dates, weekly, floor_=0.05)
    if at is None:
        return check(name, None, subject=stream.name, detail="too few days to compare")
    ratio = float(np.exp(at.after - at.before))
    since = counts[[date > at.at for date in dates]]
    size = Estimate(ratio, n=at.days)
    if ratio > FEWER or at.before - at.after < 2 * at.usual or not since.any():
        return check(
            name,
            False,
            subject=stream.name,
            size=size,
            bound=FEWER,
            detail=f"{stream.name} brings {ratio:.0%} of the rows before",
        )
    lost = hours(case, stream).lost(at.at)
    gone = _gone(stream, at.at)
    asked = streams.streams(case).get(streams.asked_name(case))
    instead = ""
    if len(lost) and lost.sum() >= LOST:
        instead = f"the hours that brought {lost.sum():.0%} of its rows brought none"
    elif gone:
        instead = f"all rows of {', '.join(gone[:3])} are gone while the others come as ever"
    elif asked is not None and asked.name != stream.name and _ratio(asked, at.at) > 1.5 * ratio:
        instead = f"what is asked comes at {_ratio(asked, at.at):.0%} of its number before"
    said = f"since {at.at:%Y-%m-%d} {stream.name} brings {ratio:.0%} of its rows before"
    said += f"; {instead}" if instead else "; all its hours and values alike: less traffic"
    return check(name, bool(instead), subject=stream.name, size=size, bound=FEWER, detail=said)


def _without_weekdays(dates: list[datetime], counts: Floats) -> Floats:
    """Logarithms of counts less their weekday's usual; the days without rows are missing."""
    logs = np.log(np.where(counts > 0, counts, np.nan))
    early = logs[: max(len(logs) * 2 // 3, 3)]
    weekday = np.array([date.weekday() for date in dates])
    made = logs - (np.nanmedian(early) if np.isfinite(early).any() else 0.0)
    for day in range(7):
        same = (weekday == day) & np.isfinite(logs)
        if same.sum() >= 4:
            usual = logs[same][: max(int(same.sum()) * 2 // 3, 3)]
            made[same] = logs[same] - np.median(usual)
    return made


def _ratio(stream: Stream, at: datetime) -> float:
    """Rows a day since a moment, as a share of the 28 days before."""
    counts, dates = stream.counts(), stream.dates
    since = np.array([date > at for date in dates])
    before = counts[~since][-streams.REFERENCE :]
    if not since.any() or not len(before) or not before.mean():
        return 1.0
    return float(counts[since].mean() / before.mean())


def _gone(stream: Stream, at: datetime) -> list[str]:
    """Values of a column that came every day and are gone since, while the rest of the column's values come as often as ever."""
    best: list[str] = []
    for column in stream.columns:
        days = [(day.day, cell.values) for day, cell in stream.of(column) if cell.values]
        before = [values for date, values in days if date <= at][-streams.REFERENCE :]
        after = [values for date, values in days if date > at]
        if len(before) < streams.LEAST_DAYS or not after:
            continue
        regular = {value for value in before[-1] if all(value in values for values in before)}
        gone = sorted(value for value in regular if not any(value in values for values in after))
        kept = regular - set(gone)
        if not gone or not kept:
            continue
        now, past = (float(np.mean([sum(values.get(v, 0) for v in kept) for values in some])) for some in (after, before))
        lost = float(np.mean([sum(values.get(v, 0) for v in gone) for values in before]))
        if now > 0.7 * past and lost > LOST * (lost + past):
            best = best or [f"{column} {value}" for value in gone]
    return best
