"""What earlier labels say at the time of asking: the columns behind the baselines ``Last`` and ``Seasonal``.

A label counts once its own time was up (``horizon``, ``within`` and lateness after its row was asked), however early it became known:
taking labels as they come would select by outcome. It counts as it was when its cohort closed (revision 0), and one that arrived
late counts from its arrival.
Both look back a bounded time, so that a turn costs the same in December as in February.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from noria.core import Window, duration, micros, quoted
from noria.data.times import maturity
from noria.store import Home
from noria.system import Last, Names, Seasonal, System
from noria.tables import OUTCOMES, PREDICTIONS

LAST_LOOKBACK = timedelta(days=90)
SEASONS = 8
_MICRO = timedelta(microseconds=1)
_SCALE = 1_000_000


def names_of(by: Names) -> tuple[str, ...]:
    """The predicted row's columns that a baseline goes by."""
    return (by,) if isinstance(by, str) else tuple(by)


def last_column(by: Names) -> str:
    """The column of a ``Last``.

    >>> last_column(()), last_column(("carrier", "origin"))
    ('_last', '_last_carrier_origin')
    """
    return "_".join(["_last", *names_of(by)])


def seasonal_column(period: str, by: Names) -> str:
    """The column of a ``Seasonal``.

    >>> seasonal_column("1w", "store")
    '_seasonal_1w_store'
    """
    return "_".join(["_seasonal", period, *names_of(by)])


def history_columns(system: System) -> tuple[str, ...]:
    """The names of all history columns of a system's candidates, in order of declaration."""
    found = [last_column(c.by) for c in system.recipes if isinstance(c, Last)]
    found += [seasonal_column(c.period, c.by) for c in system.recipes if isinstance(c, Seasonal)]
    return tuple(dict.fromkeys(found))


def history_features(home: Home, system: System, spine: pl.DataFrame) -> pl.DataFrame:
    """What earlier labels said when each row was asked.

    Parameters
    ----------
    spine:
        Rows with ``_id``, ``_time`` and the columns that the baselines go by.

    Returns
    -------
    ``_id`` and, in the spine's order, for every ``Last`` the label (of the same ``by``) that became final last (a text, for
    multiclass), and for every ``Seasonal`` the mean label at the same place in the season over the last 8 seasons. Null where there is none.
    """
    recipes = _recipes(system)
    kind = pl.String if system.task == "multiclass" else pl.Float64
    nothing = spine.select(
        "_id", *(pl.lit(None, pl.Float64 if name.startswith("_seasonal") else kind).alias(name) for name in recipes)
    )
    first, last = spine["_time"].min(), spine["_time"].max()
    if (
        not recipes
        or not isinstance(first, datetime)
        or not isinstance(last, datetime)
        or home.lake.schema(OUTCOMES.name) is None
    ):
        return nothing
    back = max(lookback(c) for c in recipes.values()) + maturity(system) + duration(system.every)
    span = (first - back - _MICRO, last - maturity(system))
    outcomes, predictions = home.lake.scan(OUTCOMES.name, _time=span), home.lake.scan(PREDICTIONS.name, _time=span)
    if not outcomes.files or not predictions.files:
        return nothing
    by = sorted({name for c in recipes.values() for name in names_of(c.by)})
    asked = spine.select("_id", "_time", *by).with_columns(_n=pl.int_range(pl.len()))
    query = _query(system, recipes, by, Window(*span))
    found = home.engine.sql(query, asked=asked, outcomes=outcomes, predictions=predictions)
    return found.select("_id", *(pl.col(name).cast(nothing.schema[name]) for name in recipes))


def lookback(recipe: Last | Seasonal) -> timedelta:
    """How long before asking a closed row may have been asked and still count."""
    return LAST_LOOKBACK if isinstance(recipe, Last) else SEASONS * duration(recipe.period)


def _recipes(system: System) -> dict[str, Last | Seasonal]:
    found: dict[str, Last | Seasonal] = {last_column(c.by): c for c in system.recipes if isinstance(c, Last)}
    return found | {seasonal_column(c.period, c.by): c for c in system.recipes if isinstance(c, Seasonal)}


def bucket(system: System, period: str) -> timedelta:
    """How finely places in a season are told apart: a cohort's length when the period is longer than that, else an hour."""
    every = duration(system.every)
    return every if every < duration(period) else min(timedelta(hours=1), duration(period))


def _query(system: System, recipes: dict[str, Last | Seasonal], by: list[str], span: Window) -> str:
    """One query: labels once, for each recipe its sums by cohort, and the newest cohort that had closed."""
    label = "_class" if system.task == "multiclass" else "_label"
    columns = "".join(f", p.{quoted(c)}" for c in by)
    closes = f"greatest(epoch_us(o._time) + {maturity(system) // _MICRO}, epoch_us(coalesce(o._known, o._time)))"
    low, high = micros(span.start), micros(span.end)
    parts = [
        f"labels as (select o._id, o._time, o.{label} as _said, {closes} as _closes{columns} from outcomes o join predictions p on o._id = p._id "
        f"where o._revision = 0 and o.{label} is not null and epoch_us(o._time) > {low} and epoch_us(o._time) <= {high} "
        f"and epoch_us(p._time) > {low} and epoch_us(p._time) <= {high})"
    ]
    picked, joins = [], []
    for place, (name, recipe) in enumerate(recipes.items()):
        parts += _last(place, recipe) if isinstance(recipe, Last) else _seasonal(system, place, recipe)
        picked.append(f"h{place}._value as {quoted(name)}")
        joins.append(f"left join h{place} on h{place}._n = asked._n")
    return f"with {', '.join(parts)} select asked._id, {', '.join(picked)} from asked {' '.join(joins)} order by asked._n"


def _last(place: int, recipe: Last) -> list[str]:
    by = [quoted(c) for c in names_of(recipe.by)]
    keys = "".join(f"{c}, " for c in by)
    same = "".join(f"a.{c} = c.{c} and " for c in by)
    back = LAST_LOOKBACK // _MICRO
    cohorts = f"c{place} as (select {keys}_closes, arg_max(_said, (_time, _id)) as _value, max(epoch_us(_time)) as _asked from labels group by {keys}_closes)"
    newest = (
        f"h{place} as (select a._n, case when c._asked > epoch_us(a._time) - {back} then c._value end as _value "
        f"from asked a asof join c{place} c on {same}epoch_us(a._time) >= c._closes)"
    )
    return [cohorts, newest]


def _seasonal(system: System, place: int, recipe: Seasonal) -> list[str]:
    """Sums are of whole numbers (millionths), so that no order of rows can change them."""
    if system.task == "multiclass":
        return [f"h{place} as (select _n, null as _value from asked)"]
    by = [quoted(c) for c in names_of(recipe.by)]
    keys = "".join(f"{c}, " for c in by)
    same = "".join(f"a.{c} = c.{c} and " for c in by)
    period, width = duration(recipe.period) // _MICRO, bucket(system, recipe.period) // _MICRO
    back = SEASONS * period
    spot = f"(epoch_us(_time) - 1) % {period} // {width}"
    cohorts = (
        f"s{place} as (select {keys}{spot} as _spot, _closes, cast(sum(cast(round(_said * {_SCALE}) as HUGEINT)) as HUGEINT) as _sum, count(*) as _rows "
        f"from labels group by {keys}_spot, _closes)"
    )
    over = f"(partition by {keys}_spot order by _closes range between {back} preceding and current row)"
    running = (
        f"c{place} as (select {keys}_spot, _closes, sum(_sum) over {over} as _sum, sum(_rows) over {over} as _rows from s{place})"
    )
    asked = f"a{place} as (select *, {spot} as _spot from asked)"
    newest = (
        f"h{place} as (select a._n, case when c._closes > epoch_us(a._time) - {back} then cast(c._sum as DOUBLE) / c._rows / {_SCALE} end as _value "
        f"from a{place} a asof join c{place} c on {same}a._spot = c._spot and epoch_us(a._time) >= c._closes)"
    )
    return [cohorts, running, asked, newest]
