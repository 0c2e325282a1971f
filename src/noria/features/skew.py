"""Training–serving skew: are the features that were logged the ones that the batch query gives for the same row and time?

By construction they are: one definition, two executions. Whatever else writes the log, or sits between (a cache, a client that sends its own
features), can break it, and a model then answers on other numbers than it was trained on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from noria.core import Estimate, NoriaError, Window, micros, quoted
from noria.features.compute import compute, schemas
from noria.features.plan import plan
from noria.stats import proportion
from noria.system import Every, Request, System
from noria.tables import PREDICTIONS, source_table

if TYPE_CHECKING:
    from noria.store import Home

TOLERANCE = 1e-9
_MICRO = timedelta(microseconds=1)


class Skewed(NamedTuple):
    """A feature: the share of sampled rows whose logged value is another than the computed one (with its interval), and one such row's id."""

    feature: str
    share: Estimate
    differing: int
    example: str


class Recomputed(NamedTuple):
    """Sampled rows twice, in the same order: as ``logged`` (with ``_id`` and ``_time``), and as ``computed`` (one column a feature)."""

    logged: pl.DataFrame
    computed: pl.DataFrame
    names: tuple[str, ...]


def recomputed(
    home: Home, system: System, start: datetime, end: datetime, *, most: int = 200, earlier: timedelta = timedelta(0)
) -> Recomputed | None:
    """Logged features of some of the predictions asked in (``start``, ``end``], and the same computed by the batch query.

    Parameters
    ----------
    most:
        About how many rows to sample; it is the same rows every time (by the hash of their ids).
    earlier:
        Computes them as of so long before each row's own time: what a cache of that age would give.

    Rows under another feature plan, and those that the fallback answered, do not count. ``None`` when nothing can be compared: no such rows, or what was
    asked cannot be found again.
    """
    known = home.lake.schema(PREDICTIONS.name)
    resolved = plan(system, schemas(home, system))
    if known is None:
        return None
    logged = _sampled(home, resolved.id, Window(start, end), most)
    spine = _asked(home, system, logged) if logged.height else None
    if spine is None or spine.is_empty():
        return None
    logged = logged.join(spine.select("_id"), on="_id", how="semi", maintain_order="left")
    spine = logged.select("_id").join(spine, on="_id", how="left", maintain_order="left")
    try:
        made = compute(home, system, spine.with_columns(pl.col("_time") - earlier))
    except NoriaError:
        return None
    names = tuple(name for name in resolved.names if name in logged.columns and name in made.columns)
    return Recomputed(logged, made.drop("_id"), names) if names else None


def skew(home: Home, system: System, start: datetime, end: datetime, *, most: int = 200) -> list[Skewed] | None:
    """For each feature the share of sampled predictions in (``start``, ``end``] whose logged value is not the computed one.

    Numbers differ beyond 1e-9 (relative, above 1), texts when they are not equal; missing equals missing. The worst first; the interval is
    Wilson's. ``None`` when nothing can be compared (see ``recomputed``).
    """
    found = recomputed(home, system, start, end, most=most)
    if found is None:
        return None
    made = []
    for name in found.names:
        apart = differing(found.logged[name], found.computed[name])
        k = int(apart.sum())
        example = found.logged["_id"].filter(apart)[0] if k else ""
        made.append(Skewed(name, proportion(k, found.logged.height), k, example))
    return sorted(made, key=lambda one: -one.differing)


def differing(logged: pl.Series, computed: pl.Series) -> pl.Series:
    """Where two values of a feature differ.

    >>> differing(pl.Series([1.0, None, 2.0]), pl.Series([1.0 + 1e-12, None, None])).to_list()
    [False, False, True]
    """
    if logged.dtype.is_numeric() and computed.dtype.is_numeric():
        frame = pl.DataFrame({"a": logged.cast(pl.Float64).fill_nan(None), "b": computed.cast(pl.Float64).fill_nan(None)})
        a, b = pl.col("a"), pl.col("b")
        room = TOLERANCE * pl.max_horizontal(a.abs(), pl.lit(1.0))
        return frame.select(
            pl.when(a.is_null() | b.is_null()).then(a.is_null() != b.is_null()).otherwise((a - b).abs() > room)
        ).to_series()
    return logged.cast(pl.String).ne_missing(computed.cast(pl.String))


def _sampled(home: Home, plan_id: str, window: Window, most: int) -> pl.DataFrame:
    span = f"epoch_us(_time) > {micros(window.start)} and epoch_us(_time) <= {micros(window.end)}"
    known = home.lake.schema(PREDICTIONS.name) or {}
    fallback = "and _fallback is null" if "_fallback" in known else ""
    where = f"{span} {fallback} and _features = '{plan_id}'"
    query = f"select * from (select * from p where {where} order by md5(_id), _id limit {most}) order by _time, _id"
    return home.engine.sql(query, p=home.lake.scan(PREDICTIONS.name, _time=(window.start, window.end)))


def _asked(home: Home, system: System, logged: pl.DataFrame) -> pl.DataFrame | None:
    """What was asked, with every column of the predicted row; ``None`` where that cannot be found again."""
    asked = system.predict
    if isinstance(asked, Request):
        kept = [name for name in asked.columns if name in logged.columns]
        return logged.select("_id", "_time", *kept) if len(kept) == len(asked.columns) else None
    source = asked.of if isinstance(asked, Every) else asked
    table = source_table(source.name)
    schema = home.lake.schema(table)
    if schema is None or not source.keys or any(key not in logged.columns for key in source.keys):
        return None
    own = ", ".join(f"lake.{quoted(name)}" for name in schema if not name.startswith("_"))
    same = " and ".join(f"lake.{quoted(key)} = asked.{quoted(key)}" for key in source.keys)
    first, last = logged["_time"][0], logged["_time"][-1]
    if isinstance(asked, Every):
        scan, when = home.lake.scan(table, _known=(None, last)), "lake._known <= asked._time"
        order = "lake._time desc, lake._known desc, lake._row desc"
    else:
        scan, when = home.lake.scan(table, _time=(first - _MICRO, last)), "lake._time = asked._time"
        order = "lake._known, lake._row"
    query = (
        f"select asked._id, asked._time, {own} from asked join lake on {same} and {when} "
        f"qualify row_number() over (partition by asked._id order by {order}) = 1 order by asked._time, asked._id"
    )
    keys = [pl.col(key).cast(schema[key], strict=False) for key in source.keys]
    return home.engine.sql(query, asked=logged.select("_id", "_time", *keys), lake=scan)
