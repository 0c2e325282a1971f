"""The hours of a source: when in the day its rows happen, how long after that they are known, and what its columns do over the day.

One query a source, over its newest 84 days, with one row a day and hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.streams import Floats, Stream
from noria.tables import source_table

HOURS = 24
COLUMNS = 8
BLOCKS = 5
TELLING = 1.5


@dataclass(frozen=True)
class Shift:
    """How the pattern of the day since a break fits that before, turned by ``hours``.

    ``stays`` and ``fits`` are its distances from the pattern before without and with the turn, in units of the ordinary noise; ``usual`` is the
    largest among the blocks before.
    ``found`` says that only the turn explains it.
    """

    hours: int
    stays: float
    fits: float
    usual: float
    blocks: int
    found: bool


@dataclass(frozen=True)
class Hours:
    """Rows by day of ``_known`` (its end) and hour of ``_time``: ``rows`` (days, 24), sums and counts of each column alike; lags by day."""

    dates: list[datetime]
    rows: Floats
    sums: dict[str, Floats]
    seen: dict[str, Floats]
    lag: dict[float, Floats]

    def lags(self, quantile: float) -> tuple[list[datetime], Floats]:
        """The quantile (0.5 or 0.9) of each day's delays from ``_time`` to ``_known``, in hours."""
        return self.dates, self.lag[quantile]

    def _since(self, at: datetime) -> NDArray[np.bool_]:
        return np.asarray(np.array([date > at for date in self.dates]), bool)

    def lost(self, at: datetime) -> Floats:
        """The shares before of those hours that brought rows on nearly every day before and none since."""
        since = self._since(at)
        if not since.any() or since.all():
            return np.empty(0)
        before, after = self.rows[~since][-streams.REFERENCE :], self.rows[since]
        share = before.sum(axis=0) / max(before.sum(), 1)
        gone = ((before > 0).mean(axis=0) > 0.9) & (after.sum(axis=0) == 0)
        return np.asarray(share[gone])

    def shift(self, at: datetime) -> Shift | None:
        """Whether the day's pattern since ``at`` is the one before, turned by whole hours; ``None`` with too little to say so, or no pattern."""
        since = self._since(at)
        n = int(since.sum())
        before = np.flatnonzero(~since)[-2 * streams.REFERENCE :]
        length = min(max(n, 1), 7)
        blocks = [before[k - length : k] for k in range(len(before), length - 1, -length)]
        if not n or len(blocks) < BLOCKS or self.rows[since].sum() < 20:
            return None
        now = self._pattern(np.flatnonzero(since))
        past = self._pattern(before)
        own = [(self._pattern(block), self._pattern(np.setdiff1d(before, block))) for block in blocks[:8]]
        noise = {name: float(np.sqrt(np.mean([(a[name] - b[name]) ** 2 for a, b in own]))) for name in past}
        telling = {
            name: noise[name] for name, line in past.items() if noise[name] > 1e-9 and np.std(line) > TELLING * noise[name]
        }
        if not telling:
            return None
        usual = [_apart(a, b, telling) for a, b in own]
        apart = [_apart({name: np.roll(line, -k) for name, line in now.items()}, past, telling) for k in range(HOURS)]
        best = int(np.argmin(apart))
        most = max(usual)
        found = best != 0 and apart[0] > 1.5 * most and apart[best] < 0.5 * apart[0] and apart[best] <= 1.5 * most
        return Shift(best if best <= HOURS // 2 else best - HOURS, apart[0], apart[best], most, len(usual), found)

    def _pattern(self, days: NDArray[np.int64]) -> dict[str, Floats]:
        """Over the hours: the rows' share times 24, and each column's mean in its own spread (hours without rows say nothing)."""
        rows = self.rows[days].sum(axis=0)
        made = {"rows": rows / max(rows.sum(), 1) * HOURS}
        for column, sums in self.sums.items():
            n = self.seen[column][days]
            total, number = sums[days], n
            day_mean = total.sum(axis=1) / np.maximum(number.sum(axis=1), 1)
            apart = np.where(number > 0, total - day_mean[:, None] * number, 0.0).sum(axis=0)
            made[column] = np.where(number.sum(axis=0) > 0, apart / np.maximum(number.sum(axis=0), 1), 0.0)
        return made


def _apart(one: dict[str, Floats], other: dict[str, Floats], noise: dict[str, float]) -> float:
    """The distance of two patterns of the day: the root mean square of their lines' differences, each in units of its own noise."""
    return float(np.sqrt(np.mean([np.mean((one[name] - other[name]) ** 2) / scale**2 for name, scale in noise.items()])))


def hours(case: Case, stream: Stream) -> Hours:
    """The hours of a source's newest 84 days."""
    return streams.once(case, f"hours {stream.name}", lambda: _hours(case, stream))


def _hours(case: Case, stream: Stream) -> Hours:
    columns = _numbers(case, stream)
    start = stream.end - streams.HISTORY * DAY
    names = [f"s{k}" for k in range(len(columns))]
    sums = "".join(
        f", sum({quoted(c)}::double) filter (isfinite({quoted(c)}::double)) as s{k}, count({quoted(c)}) as n{k}"
        for k, c in enumerate(columns)
    )
    lag = "(epoch_us(_known) - epoch_us(_time)) / 3.6e9"
    query = (
        f"with day as (select *, (epoch_us(_known) - 1) // 86400000000 as d, hour(_time) as h, {lag} as lag from t "
        f"where {streams.between('_known', start, stream.end)}), "
        f"lags as (select d, quantile_cont(lag, 0.5) as l5, quantile_cont(lag, 0.9) as l9 from day group by d) "
        f"select d, h, count(*) as n, any_value(l5) as l5, any_value(l9) as l9{sums} from day join lags using (d) group by d, h order by d, h"
    )
    if stream.logged:
        frame = streams.logged_rows(case, start, stream.end, columns).with_columns(pl.col("_time").alias("_known"))
        found = case.home.engine.sql(query, t=frame)
    else:
        found = case.home.engine.sql(query, t=case.home.lake.scan(source_table(stream.name), _known=(start, stream.end)))
    days = found["d"].unique().sort().to_list()
    place = {day: k for k, day in enumerate(days)}
    at = (np.array([place[d] for d in found["d"].to_list()], int), found["h"].to_numpy().astype(int))

    def table(name: str) -> Floats:
        made = np.zeros((len(days), HOURS))
        made[at] = np.nan_to_num(found[name].cast(pl.Float64).to_numpy())
        return made

    def by_day(name: str) -> Floats:
        made = np.zeros(len(days))
        made[at[0]] = found[name].cast(pl.Float64).to_numpy()
        return made

    dates = streams.ends(days)
    return Hours(
        dates,
        table("n"),
        {column: table(name) for column, name in zip(columns, names, strict=True)},
        {column: table(f"n{k}") for k, column in enumerate(columns)},
        {0.5: by_day("l5"), 0.9: by_day("l9")},
    )


def _numbers(case: Case, stream: Stream) -> list[str]:
    """The first eight columns of numbers that are no key."""
    source = streams.source_of(case, stream.name)
    keys = set(source.keys) if source is not None else set()
    known = case.home.lake.schema(streams.LOGGED if stream.logged else source_table(stream.name)) or {}
    numbers = [name for name in stream.columns if name in known and known[name].is_numeric()]
    return [name for name in numbers if name not in keys][:COLUMNS]
