"""Training sets: closed cohorts in four parts, in time order, each after a gap in which no label of the part before can still come.

The parts are counted back from the newest closed cohort: fresh, test, validate, and train takes what remains.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import polars as pl

from noria import features, measure
from noria.core import NoriaError, Window, digest, duration, duration_text
from noria.core.window import floor
from noria.data.history import history_columns, history_features
from noria.data.spine import spine
from noria.data.times import maturity
from noria.features import Plan
from noria.records import CohortClosed, Entry, Part, Snapshot, TrainingSet
from noria.store import Home
from noria.store.content import rows_hash
from noria.system import Request, Source, System
from noria.tables import OUTCOMES, PREDICTIONS

TrainingFrames = dict[str, pl.DataFrame]
_OWN = {*PREDICTIONS.columns, *OUTCOMES.columns, "_weight"}

_NOT_LEARNED_FROM = ("_unit", "_score", "_scores", "_variant", "_variant_propensity", "_release", "_scored_at")


def snapshot(home: Home) -> Entry[Snapshot]:
    """Records the tables as they are now; the same tables give the same entry."""
    heads = home.lake.heads()
    key = f"snapshot/{digest(heads)}"
    known = home.ledger.find(key)
    if known is not None and isinstance(known.record, Snapshot):
        return known  # type: ignore[return-value]  # its record was looked at
    return home.commit(Snapshot(tables=heads), key=key)


def training_set(
    home: Home, system: System, now: datetime, *, until: datetime | None = None
) -> tuple[Entry[TrainingSet], TrainingFrames] | None:
    """The training set of what had closed by ``now`` (and was asked by ``until``); ``None`` while there is not enough.

    Returns
    -------
    The record, and for each part (``train``, ``validate``, ``test``, ``fresh``) a frame in time order: ``_id``, ``_time``, the predicted row's columns,
    one column a feature, the declared outcomes, ``_label`` (``_class`` for multiclass), ``_weight``, and what ``history_features`` gives for the baselines.
    """
    windows = part_windows(home, system, now, until=until)
    if windows is None:
        return None
    plan = features.plan(system, features.schemas(home, system))
    everything = Window(windows["train"].start, windows["fresh"].end)
    dropped: dict[str, int] = {}
    rows = _placed(_logged(home, system, everything, dropped), windows, dropped)
    rows = _unrepeated(system, rows, dropped)
    frames = {name: rows.filter(pl.col("_part") == name).drop("_part") for name in windows}
    begun = frames["train"]["_time"].min()
    short = not isinstance(begun, datetime) or windows["train"].end - begun < duration(system.parts.least) - duration(
        system.every
    )
    if short or any(frame.is_empty() for frame in frames.values()):
        return None
    frames = _filled(home, system, plan, frames, now)
    _assert_apart(frames, gap_of(system))
    record = TrainingSet(
        features=plan.id,
        columns=plan.names,
        parts=tuple(_part(name, windows[name], frame) for name, frame in frames.items()),
        gap=duration_text(gap_of(system)),
        dropped=dict(sorted(dropped.items())),
    )
    return _entered(home, record, everything.end), frames


def labelled(home: Home, system: System, now: datetime) -> pl.DataFrame:
    """Everything that had closed by ``now`` with a label, as one frame with the columns of a part; empty when there is none.

    For what looks back over all of history; nothing is recorded, and nothing of it enters a training set.
    """
    end, first = _end(home, system, now), _first_closed(home)
    if end is None or first is None:
        return pl.DataFrame()
    plan = features.plan(system, features.schemas(home, system))
    rows = _logged(home, system, Window(first - timedelta(microseconds=1), end), {}).with_columns(pl.lit("all").alias("_part"))
    return _filled(home, system, plan, {"all": rows.unique("_id", keep="last", maintain_order=True).drop("_part")}, now)["all"]


def recalibration_set(
    home: Home, system: System, now: datetime, since: datetime
) -> tuple[Entry[TrainingSet], TrainingFrames] | None:
    """A set to calibrate on what was asked since ``since``: its first half is ``validate``, its later half ``test``.

    ``fresh`` is the last window, ``train`` (for the baselines) what was asked before. ``None`` while either half has fewer blocks than
    the gate asks for.
    """
    end = _end(home, system, now)
    block, every, gap = duration(system.gate.block), duration(system.every), gap_of(system)
    if end is None:
        return None
    blocks = (end - since - every - 2 * gap) // block
    half = blocks // 2
    if half < system.gate.blocks:
        return None
    parts = replace(
        system.parts,
        least=system.every,
        validate=duration_text((blocks - half) * block),
        test=duration_text(half * block),
        fresh=system.every,
    )
    return training_set(home, replace(system, parts=parts), now)


def gap_of(system: System) -> timedelta:
    """The gap between parts: so long that every label of one part is known before the next begins."""
    return maturity(system)


def part_windows(home: Home, system: System, now: datetime, *, until: datetime | None = None) -> dict[str, Window] | None:
    """The windows of the four parts, in time order; ``None`` when closed cohorts do not reach far enough back."""
    end = _end(home, system, now)
    if end is None:
        return None
    every, gap, parts = duration(system.every), gap_of(system), system.parts
    if until is not None:
        end = min(end, floor(until, every))
    found: dict[str, Window] = {}
    for name, length in (("fresh", parts.fresh), ("test", parts.test), ("validate", parts.validate)):
        found[name] = Window(end - duration(length), end)
        end = found[name].start - gap
    first = _first_closed(home)
    if first is None:
        return None
    start = floor(first - timedelta(microseconds=1), every)
    if parts.train is not None:
        start = max(start, end - duration(parts.train))
    if end - start < duration(parts.least):
        return None
    return {"train": Window(start, end), **dict(reversed(found.items()))}


def _end(home: Home, system: System, now: datetime) -> datetime | None:
    """The end of the newest cohort that had closed by ``now``."""
    newest = measure.closed_until(home)
    return None if newest is None else min(newest, floor(now - maturity(system), duration(system.every)))


def _first_closed(home: Home) -> datetime | None:
    if home.lake.schema(OUTCOMES.name) is None:
        return None
    first = home.engine.sql("select min(_time) as first from outcomes", outcomes=home.lake.scan(OUTCOMES.name)).item()
    return first if isinstance(first, datetime) else None


def _logged(home: Home, system: System, window: Window, dropped: dict[str, int]) -> pl.DataFrame:
    """The closed rows of a window that may be learned from."""
    logged = [name for name in home.lake.schema(PREDICTIONS.name) or () if name not in _NOT_LEARNED_FROM]
    return _usable(system, measure.closed(home, system, window, columns=logged), dropped)


def _usable(system: System, closed: pl.DataFrame, dropped: dict[str, int]) -> pl.DataFrame:
    label = "_class" if system.task == "multiclass" else "_label"
    rows = measure.usable(system, closed)
    missing = int(closed[label].null_count())
    _count(dropped, "no label", missing)
    _count(dropped, "acted on", closed.height - missing - rows.height)
    return rows


def _placed(rows: pl.DataFrame, windows: dict[str, Window], dropped: dict[str, int]) -> pl.DataFrame:
    """The rows with their part in ``_part``; those in a gap are left out."""
    part = pl.lit(None, pl.String)
    for name, window in windows.items():
        part = pl.when((pl.col("_time") > window.start) & (pl.col("_time") <= window.end)).then(pl.lit(name)).otherwise(part)
    placed = rows.with_columns(part.alias("_part"))
    kept = placed.filter(pl.col("_part").is_not_null())
    _count(dropped, "in a gap", placed.height - kept.height)
    return kept


def _unrepeated(system: System, rows: pl.DataFrame, dropped: dict[str, int]) -> pl.DataFrame:
    """Without what one part would tell about a later one: the newest copy stays, so the parts that judge are whole.

    The same thing asked again with the same content (but for its time) is a copy, unless it is asked on a schedule by design. Candidates
    of one request stay in one part.
    """
    order = {name: place for place, name in enumerate(("train", "validate", "test", "fresh"))}
    place = pl.col("_part").replace_strict(order, return_dtype=pl.Int8)
    kept = rows.unique("_id", keep="last", maintain_order=True)
    if isinstance(system.predict, Source) and system.predict.keys:
        label = "_class" if system.task == "multiclass" else "_label"
        other = {system.predict.time, *_OWN, "_part"}
        same = [*(c for c in kept.columns if c not in other), label]
        kept = kept.filter(place == place.max().over(same))
    if isinstance(system.predict, Request) and system.predict.group in kept.columns:
        kept = kept.filter(place == place.max().over(system.predict.group))
    _count(dropped, "duplicate", rows.height - kept.height)
    return kept


def _filled(home: Home, system: System, plan: Plan, frames: TrainingFrames, now: datetime) -> TrainingFrames:
    """The frames with features (as served; computed anew where they were served by another plan) and the baselines' columns."""
    label = "_class" if system.task == "multiclass" else "_label"
    rows = pl.concat([frame.with_columns(pl.lit(name).alias("_part")) for name, frame in frames.items()])
    context = [c for c in rows.columns if c not in _OWN and c not in plan.names and c not in ("_part", *system.outcomes)]
    rows = _with_features(home, system, plan, rows, now)
    history = history_features(home, system, rows)
    rows = rows.with_columns(history[name] for name in history_columns(system))
    kept = ["_id", "_time", *context, *plan.names, *system.outcomes, label, "_weight", *history_columns(system)]
    return {name: rows.filter(pl.col("_part") == name).select(kept) for name in frames}


def _with_features(home: Home, system: System, plan: Plan, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The rows with the plan's features: as they were served, or computed anew from the rows to predict where another plan served them."""
    served = (pl.col("_features") == plan.id).fill_null(False)
    stale = rows.filter(~served)
    kinds = {column.name: pl.String if column.numeric is False else pl.Float64 for column in plan.columns}
    casts = [pl.col(name).cast(kind) for name, kind in kinds.items()]
    kept = rows.filter(served).with_columns(
        pl.lit(None, kind).alias(name) for name, kind in kinds.items() if name not in rows.columns
    )
    kept = kept.with_columns(casts)
    begun = stale["_time"].min()
    if not isinstance(begun, datetime):
        return kept
    asked = stale.select("_id", "_time", *(c for c in stale.columns if c not in {*_OWN, "_part"}))
    if not isinstance(system.predict, Request):
        asked = spine(home, system, Window(begun - timedelta(microseconds=1), now)).join(
            stale.select("_id"), on="_id", how="semi", maintain_order="left"
        )
    made = features.compute(home, system, asked).with_columns(casts)
    anew = stale.drop([c for c in plan.names if c in stale.columns]).join(made, on="_id", how="inner", maintain_order="left")
    return pl.concat([kept, anew.select(kept.columns)]).sort("_time", "_id")


def _assert_apart(frames: TrainingFrames, gap: timedelta) -> None:
    for before, after in itertools.pairwise(frames.values()):
        last, first = before["_time"].max(), after["_time"].min()
        if isinstance(last, datetime) and isinstance(first, datetime) and last + gap > first:
            raise NoriaError(
                f"a part of the training set ends at {last.isoformat()}, and the next begins at {first.isoformat()}: less than the gap of {gap}",
                hint="this is a fault of Noria's: please report it with the declaration's parts, label and every",
            )


def _entered(home: Home, record: TrainingSet, end: datetime) -> Entry[TrainingSet]:
    key = f"training/{end.isoformat()}/{digest(record)[:16]}"
    known = home.ledger.find(key)
    if known is not None and isinstance(known.record, TrainingSet):
        return known  # type: ignore[return-value]  # its record was looked at
    closed = home.ledger.latest(CohortClosed)
    parents = [snapshot(home).id, *([closed.id] if closed else [])]
    return home.commit(record, key=key, parents=parents)


def _part(name: str, window: Window, frame: pl.DataFrame) -> Part:
    return Part(name=cast(Any, name), window=window, n=frame.height, rows=rows_hash(frame))


def _count(dropped: dict[str, int], reason: str, n: int) -> None:
    if n:
        dropped[reason] = dropped.get(reason, 0) + n
