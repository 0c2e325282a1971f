"""What each source brought, day by day, and where its ways changed: the common ground of the faults of data.

A *stream* is a source as the summaries in its ``Ingested`` records tell it: rows, missing values, ranges, means and counts of values per UTC
day of ``_known``. Reading them opens no table. Where nothing was ingested (what is asked comes by request), the logged features of the
predictions stand in. A *break* is the day from which on a daily number stays at another level; only what broke is then looked at row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Check, micros, quoted
from noria.core.window import floor, from_micros
from noria.data.summary import DAY, merged, summarised
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested
from noria.features.binding import columns_of
from noria.records import ColumnDay, DaySummary, Ingested, SchemaFrozen
from noria.system import Every, Feature, Label, Last, Names, Outcome, Request, Rule, Seasonal, Source
from noria.tables import source_table

HISTORY = 84
REFERENCE = 28
LEAST_DAYS = 10
NEWEST_BREAK = 42
UNREAD = 0.3
"""The most that a fault of what nothing reads can explain."""
SAMPLE = 5_000
MOST = 60_000
LOGGED = "predictions"
Floats = NDArray[np.float64]
T = TypeVar("T")


def once(case: Case, name: str, make: Callable[[], T]) -> T:
    """``make()``, the first time that this case is asked for it."""
    if name not in case.notes:
        case.notes[name] = make()
    found: T = case.notes[name]
    return found


def tested(case: Case, cause: Callable[[Case], Tested]) -> Tested:
    """What the tests of a cause say, run once a case: causes look at one another."""
    return once(case, f"cause {cause.__module__}.{cause.__name__}", lambda: cause(case))


def ends(days: Iterable[int]) -> list[datetime]:
    """The ends of days that are counted from 1970.

    >>> ends([0])[0].isoformat()
    '1970-01-02T00:00:00+00:00'
    """
    return [from_micros((int(day) + 1) * 86_400_000_000) for day in days]


@dataclass(frozen=True)
class Stream:
    """A source's last 84 days at most, one summary a complete day that had rows, in order; ``end`` is the end of the last complete day."""

    name: str
    days: tuple[DaySummary, ...]
    end: datetime
    logged: bool = False

    @property
    def dates(self) -> list[datetime]:
        """The ends of all days from the first that had rows to the last complete one."""
        if not self.days:
            return []
        first = self.days[0].day
        return [first + k * DAY for k in range((self.end - first) // DAY + 1)]

    def counts(self) -> Floats:
        """Rows of each of ``dates``."""
        known = {day.day: day.n for day in self.days}
        return np.array([known.get(date, 0) for date in self.dates], float)

    def of(self, column: str) -> list[tuple[DaySummary, ColumnDay]]:
        """The days on which the source had the column, with what it held."""
        return [(day, day.columns[column]) for day in self.days if column in day.columns]

    @property
    def columns(self) -> list[str]:
        return sorted({name for day in self.days for name in day.columns})


def streams(case: Case) -> dict[str, Stream]:
    """Every source that has rows, by name; ``predictions`` for the logged features where what is asked was never ingested."""
    return once(case, "streams", lambda: _streams(case))


def _streams(case: Case) -> dict[str, Stream]:
    end = floor(case.now, DAY)
    found = {}
    for name in case.system.sources:
        batches = case.home.ledger.read(Ingested, prefix=f"ingest/{name}/", since=case.now - HISTORY * DAY)
        days = merged(d for batch in batches for d in batch.record.days)
        kept = tuple(day for day in days if end - HISTORY * DAY < day.day <= end)
        if kept:
            found[name] = Stream(name, kept, end)
    asked = case.system.predict
    if isinstance(asked, Request) or (asked.of if isinstance(asked, Every) else asked).name not in found:
        made = _logged(case, end)
        if made is not None:
            found[LOGGED] = made
    return found


def _logged(case: Case, end: datetime) -> Stream | None:
    known = case.home.lake.schema(LOGGED)
    names = [f.name for f in case.system.flat_features if known and f.name in known and f.op in ("column", "expression", "last")]
    if known is None or not names:
        return None
    rows = logged_rows(case, end - HISTORY * DAY, end, names)
    kinds = {name: "VARCHAR" if known[name] == pl.String else "DOUBLE" for name in names}
    days = summarised(rows.with_columns(pl.col("_time").alias("_known")), kinds)
    return Stream(LOGGED, days, end, logged=True) if days else None


def logged_rows(case: Case, start: datetime, end: datetime, columns: Sequence[str], *, most: int = MOST) -> pl.DataFrame:
    """``_id``, ``_time`` and columns of the predictions asked in (start, end], at most about ``most`` of them, the same ones every time."""
    lake = case.home.lake
    if lake.schema(LOGGED) is None:
        return pl.DataFrame(schema={"_id": pl.String, "_time": pl.Datetime("us", "UTC")})
    scan = lake.scan(LOGGED, _time=(start, end))
    chosen = ", ".join(quoted(name) for name in dict.fromkeys(["_id", "_time", *columns]))
    return case.home.engine.sql(
        f"select {chosen} from t where {between('_time', start, end)} {_thinned('_id', most, start, end)} order by _time, _id",
        t=scan,
    )


def _thinned(by: str, most: int, start: datetime, end: datetime) -> str:
    """SQL that keeps every k-th row by the hash of its identity: as many as ``most`` of a span, whatever lies in it."""
    count = f"(select count(*) from t where {between('_time' if by == '_id' else '_known', start, end)})"
    return f"and (('0x' || left(md5({by}), 8))::bigint % greatest(1, ({count} + {most} - 1) // {most})) = 0"


def between(column: str, start: datetime, end: datetime) -> str:
    return f"epoch_us({column}) > {micros(start)} and epoch_us({column}) <= {micros(end)}"


def rows(
    case: Case, stream: Stream, start: datetime, end: datetime, columns: Sequence[str], *, most: int = SAMPLE
) -> pl.DataFrame:
    """``_time``, ``_known`` and columns of what became known in (start, end], at most about ``most`` rows, the same ones every time."""
    if stream.logged:
        made = logged_rows(case, start, end, columns, most=most)
        return made.with_columns(pl.col("_time").alias("_known"))
    table = source_table(stream.name)
    known = case.home.lake.schema(table)
    names = ["_time", "_known", *(name for name in columns if known and name in known)]
    if known is None:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Datetime("us", "UTC")))
    scan = case.home.lake.scan(table, _known=(start, end))
    chosen = ", ".join(quoted(name) for name in dict.fromkeys(names))
    where = f"{between('_known', start, end)} {_thinned('_row', most, start, end)}"
    return case.home.engine.sql(f"select {chosen} from t where {where} order by _known, _time, _row", t=scan)


def kinds(case: Case, stream: Stream) -> dict[str, str]:
    """The columns' SQL types; empty where they are not known."""
    frozen = case.home.ledger.latest(SchemaFrozen, prefix=f"schema/{stream.name}/")
    return {} if frozen is None or stream.logged else frozen.record.columns


def source_of(case: Case, name: str) -> Source | None:
    return case.system.sources.get(name)


def asked_name(case: Case) -> str:
    """The stream of what is asked."""
    asked = case.system.predict
    if isinstance(asked, Request):
        return LOGGED
    name = (asked.of if isinstance(asked, Every) else asked).name
    return name if name in streams(case) else LOGGED


def looked_up(case: Case) -> list[Feature]:
    """The features that look another source's rows up."""
    return [feature for feature in case.system.flat_features if feature.op in ("last", "window")]


def join_columns(case: Case, source: str) -> set[str]:
    """The columns of a source that its rows are found by."""
    return {theirs for feature in looked_up(case) if feature.source == source for _, theirs in feature.by}


def label_columns(case: Case, source: str) -> set[str]:
    """The columns of a source that the label is read off."""
    label = case.system.label
    return columns_of(label.expression) if label.source.name == source else set()


def only_labels(case: Case, source: str) -> bool:
    """Whether a source brings labels, and no feature reads it."""
    system = case.system
    asked = system.predict.of if isinstance(system.predict, Every) else system.predict
    read = {feature.source for feature in system.flat_features} | ({asked.name} if isinstance(asked, Source) else set())
    return system.label.source.name == source and source not in read


def only_priced(case: Case, source: str, column: str) -> bool:
    """Whether a column of a source is what decisions bring or cost (by way of an outcome), and no input and no label."""
    system = case.system
    outcomes = {name for one in system.outcomes.values() if one.source.name == source for name in columns_of(one.expression)}
    inputs = {name for one in system.flat_features if one.source == source and one.expr != "*" for name in columns_of(one.expr)}
    return column.lower() in {name.lower() for name in outcomes} - {name.lower() for name in inputs | label_columns(case, source)}


def read_columns(case: Case) -> dict[str, set[str]]:
    """By source the columns (in lower case) that something declared reads: features, label, outcomes, value, joins, slices, decisions, keys and times."""
    return once(case, "read columns", lambda: _read_columns(case))


def _read_columns(case: Case) -> dict[str, set[str]]:
    system = case.system
    read: dict[str, set[str]] = {}
    for feature in system.flat_features:
        names = set() if feature.expr == "*" else columns_of(feature.expr)
        read.setdefault(feature.source, set()).update(names, (theirs for _, theirs in feature.by))
    asked = system.predict.of if isinstance(system.predict, Every) else system.predict
    asking = {name for text in _asked_texts(case) if text for name in columns_of(text)}
    asking |= {ours for feature in system.flat_features for ours, _ in feature.by}
    asking |= {*system.objective.slices, *system.objective.sensitive, *([system.rollout.unit] if system.rollout.unit else [])}
    for recipe in system.recipes:
        if isinstance(recipe, Last | Seasonal):
            asking |= {ours for ours, _ in _pairs(recipe.by)}
    told: list[Label | Outcome] = [system.label, *system.outcomes.values()]
    for found in told:
        pairs = _pairs(found.by) if found.by is not None else ()
        asking |= {ours for ours, _ in pairs}
        censored = found.censored_when if isinstance(found, Label) else None
        names = {name for text in (found.expression, censored) if text for name in columns_of(text)}
        theirs = {theirs for _, theirs in pairs} or {name for name, _ in _pairs(asked.key)}
        read.setdefault(found.source.name, set()).update(names, theirs)
    if isinstance(asked, Source):
        read.setdefault(asked.name, set()).update(asking)
    for name, names in read.items():
        source = system.sources.get(name)
        if source is not None:
            names.update((*source.keys, source.time, *([source.known] if source.known else [])))
    return {name: {column.lower() for column in names} for name, names in read.items()}


def told_by(case: Case, source: str) -> list[tuple[str, str]]:
    """(column of the predicted row, column of the source) by which a source's rows tell labels or outcomes; empty when it tells none."""
    system = case.system
    asked = system.predict.of if isinstance(system.predict, Every) else system.predict
    told: list[Label | Outcome] = [system.label, *system.outcomes.values()]
    for one in told:
        if one.source.name == source:
            return _pairs(one.by if one.by is not None else asked.key)
    return []


def _pairs(by: Names) -> list[tuple[str, str]]:
    """(column of the predicted row, column of the source) from the three ways to write them."""
    if isinstance(by, str):
        return [(by, by)]
    return list(by.items()) if isinstance(by, Mapping) else [(name, name) for name in by]


def _asked_texts(case: Case) -> list[str | None]:
    """Every expression over the predicted row."""
    system = case.system
    rules = [recipe.expression for recipe in (*system.recipes, system.serve.fallback) if isinstance(recipe, Rule)]
    where = system.predict.where if isinstance(system.predict, Every) else None
    return [system.objective.value.sql, system.label.observed_when, system.rollout.covariate, system.decide.before, where, *rules]


def is_read(case: Case, stream: Stream, column: str | None = None) -> bool:
    """Whether something declared reads a column of a stream (without one: anything of it); what is logged is read."""
    if stream.logged:
        return True
    read = read_columns(case).get(stream.name)
    return read is not None and (column is None or column.lower() in read)


def limited(case: Case, found: Sequence[Check], strength: float) -> tuple[tuple[Check, ...], float, bool]:
    """What was found of columns that something reads, with its strength, and whether it may hold training back.

    Subjects are ``source.column`` or a source. A fault of what nothing reads explains little, and training cannot learn it: its strength is
    at most 0.3.
    """
    subjects = set()
    for stream in streams(case).values():
        subjects |= {stream.name} if is_read(case, stream) else set()
        subjects |= {f"{stream.name}.{column}" for column in stream.columns if is_read(case, stream, column)}
    known = {f"{s.name}.{column}" for s in streams(case).values() for column in s.columns} | set(streams(case))
    kept = tuple(one for one in found if one.subject in subjects or one.subject not in known)
    if kept or not found:
        return kept, strength, True
    return tuple(found), min(strength, UNREAD), False


# ------------------------------------------------------------------------------------------------------------- breaks


@dataclass(frozen=True)
class Break:
    """From ``at`` on (the end of the day before) a daily number stays at another level.

    ``before`` and ``after`` are the medians, ``usual`` the scale on which the number moved before from day to day, ``days`` how many days
    lie after it.
    """

    at: datetime
    before: float
    after: float
    usual: float
    days: int
    sudden: bool

    @property
    def jump(self) -> float:
        """How far it jumped, in its usual scale."""
        return abs(self.after - self.before) / max(self.usual, 1e-12)


def broken(dates: Sequence[datetime], values: Floats, *, floor_: float = 0.0, least: int = LEAST_DAYS) -> Break | None:
    """The day that best splits a daily number into two levels (least absolute deviations), ``None`` with fewer than ``least`` days before it.

    ``usual`` is the greater of the days' scale about their median (1.4826 x median absolute deviation), a quarter of their range
    before, and ``floor_``. Only breaks of the last 42 days count.
    """
    kept = np.isfinite(values)
    series, when = values[kept], [date for date, keep in zip(dates, kept, strict=True) if keep]
    n = len(series)
    first = max(least, n - NEWEST_BREAK)
    if n <= first:
        return None
    costs = [_deviation(series[:place]) + _deviation(series[place:]) for place in range(first, n)]
    place = first + int(np.argmin(costs))
    past, since = series[max(0, place - REFERENCE) : place], series[place:]
    before, after = float(np.median(past)), float(np.median(since))
    usual = max(1.4826 * float(np.median(np.abs(past - before))), 0.25 * float(np.ptp(past)), floor_)
    sudden = abs(float(since[0]) - before) > 0.5 * abs(after - before)
    return Break(when[place] - timedelta(days=1), before, after, usual, len(since), sudden)


def _deviation(values: Floats) -> float:
    return float(np.abs(values - np.median(values)).sum())


def distance(before: Floats, after: Floats, scale: float) -> float:
    """How far apart two samples are: the mean distance of their quantiles (Wasserstein's), in units of ``scale``."""
    return float(np.abs(quantiles(before) - quantiles(after)).mean() / max(scale, 1e-12))


def quantiles(values: Floats) -> Floats:
    return np.asarray(np.quantile(values, np.linspace(0.02, 0.98, 49)))


def spread_of(values: Floats) -> float:
    """The interquartile range in standard deviations of a normal, or the standard deviation where it is nought."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / 1.349) or float(np.std(values))
