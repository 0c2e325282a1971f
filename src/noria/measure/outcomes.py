"""Predictions of closed cohorts with what became of them. Nothing else in Noria may look at labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Window, duration, micros
from noria.records import CohortClosed, Entry, Scored
from noria.system import Request, System
from noria.tables import OUTCOMES, PREDICTIONS

if TYPE_CHECKING:
    from noria.store.home import Home


def closed_until(home: Home) -> datetime | None:
    """The end of the newest closed cohort; every earlier cohort is closed too. ``None`` before the first."""
    last = home.ledger.furthest(CohortClosed, "cohort/")  # the newest record may be of an old cohort, revised or closed late
    return None if last is None else last.record.window.end


def scored_last(home: Home, system: System) -> Entry[Scored] | None:
    """The record of the newest scoring: up to its window's end everything that the sources asked has been scored.

    What came by request says nothing of the sources, and counts only where there are requests alone.
    """
    return home.ledger.latest(Scored, prefix="" if isinstance(system.predict, Request) else "score/")


def blocks_of(times: pl.Series, every: str) -> NDArray[np.int64]:
    """The number of each row's block on the UTC grid of ``every``; a block is half-open at its start, as a cohort is.

    >>> from datetime import UTC, datetime
    >>> midnight = datetime(1970, 1, 3, tzinfo=UTC)
    >>> blocks_of(pl.Series([midnight, midnight.replace(minute=1)], dtype=pl.Datetime("us", "UTC")), "1d").tolist()
    [1, 2]
    """
    length = duration(every).total_seconds() * 1e6
    stamps = times.cast(pl.Datetime("us", "UTC")).dt.timestamp("us").to_numpy().astype(np.int64)
    return (stamps - 1) // np.int64(length)


def closed(
    home: Home,
    system: System,
    window: Window | None = None,
    *,
    columns: Sequence[str] | None = None,
    shadow_of: str | None = None,
) -> pl.DataFrame:
    """Predictions asked within ``window`` whose cohort is closed, with the newest revision of their label and outcomes.

    Parameters
    ----------
    window:
        Over the time of asking; ``None``: everything closed.
    columns:
        Of the predictions; ``None``: all. ``_id`` and ``_time`` come always.
    shadow_of:
        A bundle: only rows where it scored in shadow, with ``_shadow_score``, ``_shadow_scores`` and ``_shadow_act``.

    Returns rows in the order of (``_time``, ``_id``) with ``_label``, ``_class``, ``_known`` and the declared outcomes. A label that could not
    be seen (``observed_when``) is null: that was decided when its cohort closed. ``_act`` is the act that was taken: a person's, where one
    decided (then no chance had a part in it, and ``_act_propensity`` is null), else the logged one.
    """
    lake, engine = home.lake, home.engine
    asked, found = lake.schema(PREDICTIONS.name), lake.schema(OUTCOMES.name)
    shadows = lake.schema("shadow") if shadow_of is not None else {}
    if asked is None or found is None or shadows is None:
        return _nothing(system, columns, shadow_of)
    chosen = list(asked) if columns is None else ["_id", "_time", *(c for c in columns if c not in ("_id", "_time"))]
    span = (window.start, window.end) if window is not None else (None, None)
    tables = {"p": lake.scan(PREDICTIONS.name, _time=span), "o": lake.scan(OUTCOMES.name, _time=span)}
    decided = {
        "_act": "coalesce(o._decided, p._act)",
        "_act_propensity": "case when o._decided is null then p._act_propensity end",
    }
    taken = decided if "_decided" in found else {}
    picked = [f'{taken[name]} as "{name}"' if name in taken else f'p."{name}"' for name in chosen]
    picked += ["o._label", "o._class"]
    outcomes = [f'o."{name}"' for name in found if name not in OUTCOMES.columns and name not in chosen]
    picked += ["o._known", *outcomes]
    joins = "join newest o on p._id = o._id"
    where = ["true"]
    if shadow_of is not None:
        tables["s"] = lake.scan("shadow", _time=span)
        picked += ["s._score as _shadow_score", "s._scores as _shadow_scores", "s._act as _shadow_act"]
        joins += f" join s on p._id = s._id and s._release = '{shadow_of.replace(chr(39), chr(39) * 2)}'"
        where.append(_within("s", window))
    query = f"""
        with revised as (select _id, max(_revision) as _revision from o where _revision > 0 group by _id),
        newest as (
            select o.* from o left join revised r on o._id = r._id
            where o._revision = coalesce(r._revision, 0) and {_within("o", window)}
        )
        select {", ".join(picked)} from p {joins}
        where {_within("p", window)} and {" and ".join(where)}
        order by p._time, p._id
    """
    return engine.sql(query, **tables)


def _within(alias: str, window: Window | None) -> str:
    if window is None:
        return "true"
    start, end = micros(window.start), micros(window.end)
    return f"epoch_us({alias}._time) > {start} and epoch_us({alias}._time) <= {end}"


def _nothing(system: System, columns: Sequence[str] | None, shadow_of: str | None) -> pl.DataFrame:
    kept = {k: v for k, v in PREDICTIONS.columns.items() if columns is None or k in ("_id", "_time", *columns)}
    kept |= {name: pl.Null() for name in columns or () if name not in kept}
    kept |= {name: OUTCOMES.columns[name] for name in ("_label", "_class", "_known")}
    kept |= {name: pl.Float64() for name in system.outcomes}
    if shadow_of is not None:
        kept |= {"_shadow_score": pl.Float64(), "_shadow_scores": pl.List(pl.Float64), "_shadow_act": pl.Float64()}
    return pl.DataFrame(schema=kept)


def usable(system: System, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``closed`` that training and monitoring may learn from, with a column ``_weight``.

    Rows with a label. Where acting changes the label (``affected_by_action``) only rows that were not acted on tell what happens
    without acting; each stands for 1/propensity rows (Horvitz and Thompson 1952). A row from before the first release was not acted on
    by this system and weighs 1. Rows that the policy always acts on have no untreated twin: without exploration or a hold-out
    the rest is not representative, and no weight mends that.
    """
    label = "_class" if system.task == "multiclass" else "_label"
    kept = frame.filter(pl.col(label).is_not_null())
    if not system.label.affected_by_action:
        return kept.with_columns(pl.lit(1.0).alias("_weight"))
    kept = kept.filter(pl.col("_act").is_null() | (pl.col("_act") == 0))
    chance = pl.when(pl.col("_act").is_null()).then(1.0).otherwise(pl.col("_act_propensity"))
    return kept.with_columns((1 / chance.fill_null(1.0)).alias("_weight"))
