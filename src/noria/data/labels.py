"""Labels and their maturity.

A label may be *known* early, but nothing may use it before its whole cohort is *closed*: whoever takes labels as they arrive selects by
outcome. A cohort is what was asked in one window of ``system.every``; it closes when horizon, ``within`` and lateness have passed since its
end. Rows that come after that make a new revision of the cohorts whose labels they change; the old revision is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import polars as pl

from noria.core import Window, duration, micros, quoted
from noria.core.window import EPOCH, floor
from noria.data import given
from noria.data.times import maturity, next_edge, reach
from noria.measure import by_pairs, closed_until, predicted_keys
from noria.records import CohortClosed, Declared, Entry, Ingested, Record, Scored
from noria.store import Commit, Home
from noria.store.content import rows_hash
from noria.system import Label, Outcome, Source, System
from noria.tables import OUTCOMES, PREDICTIONS, QUARANTINE, SOURCE, source_table

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_MICRO = timedelta(microseconds=1)


def close(home: Home, system: System, now: datetime) -> list[Entry[CohortClosed]]:
    """Closes every cohort that is due, and revises those whose labels late rows have changed, in one transaction.

    Only rows known by ``now`` count. Cohorts without predictions have no record. When another label or other outcomes are declared, every closed
    cohort is revised under the new declaration: labels of two meanings never stand side by side.
    """
    every = duration(system.every)
    done = closed_until(home)
    due = Window(done or EPOCH, floor(now - maturity(system), every))
    frames: list[tuple[pl.DataFrame, dict[datetime, int]]] = []
    if due.end > due.start:
        found = labelled(home, system, due, now)
        frames.append((found, dict.fromkeys(found["_cohort"].unique(), 0)))
    if done is not None and (late := _touched(home, system, done, now)):
        revised = labelled(home, system, Window(min(late) - every, max(late)), now, only=late)
        frames.append(_changed(home, revised))
    lost = None
    if due.end > due.start or _given_since(home):
        lost = given.unknown(home, system, max(due.end, done or due.end), now, done=done, seen=_seen(home))
    return _written(home, frames, every, now, lost)


def labelled(home: Home, system: System, window: Window, now: datetime, *, only: Iterable[datetime] = ()) -> pl.DataFrame:
    """The labels and outcomes of the predictions asked in ``window``, as known at ``now``.

    Returns the columns of ``outcomes`` but for ``_revision``, and ``_silent``. ``only`` restricts to cohorts by their ends.
    """
    every = duration(system.every) // _MICRO
    table = home.lake.schema(PREDICTIONS.name)
    scan = home.lake.scan(PREDICTIONS.name, _time=(window.start, window.end))
    if table is None or not scan.files:
        return _empty(system)
    pairs = {pair for found in _wanted(system) for pair in _by(system, found)}
    cohort = f"make_timestamptz((epoch_us(_time) + {every - 1}) // {every} * {every})"
    chosen = "" if not only else f" and {cohort} in ({', '.join(_at(end) for end in sorted(only))})"
    where = f"_time > {_at(window.start)} and _time <= {_at(window.end)}{chosen}"
    held = given.held(home, window.start, now)
    tables: dict[str, Any] = {"predictions": scan} | ({"labels": held} if held.files else {})
    columns = sorted({mine for mine, _ in pairs})
    picked = ", ".join(["_id", "_time", f"{cohort} as _cohort", "_act", *map(quoted, _read_of(system, columns, table))])
    once = "qualify row_number() over (partition by _id order by _time) = 1"
    query = [f"with picked as (select {picked} from predictions where {where} {once})"]
    query += given.given_sql(system, now) if held.files else given.NOTHING
    query.append(
        f"asked as (select _id, _time, _cohort{''.join(f', {quoted(c)}' for c in columns)}, {_observed(system.label)} as _observed, _decided "
        "from (select picked.* exclude (_act), coalesce(given_act._act, picked._act) as _act, given_act._act as _decided "
        "from picked left join given_act on given_act._id = picked._id))"
    )
    sources = {found.source.name: found.source for found in _wanted(system)}
    names = {name: f"source{place}" for place, name in enumerate(sources)}
    for name, source in sources.items():
        begins = window.start + duration(system.label.horizon)
        furthest = max(_length(system, found) for found in _wanted(system) if found.source.name == name)
        tables[names[name]] = home.lake.scan(source_table(name), _time=(begins, window.end + furthest))
        query.append(_newest(source, names[name], begins, window.end + furthest, now))
    query.append(_matches(system, system.label, "label", f"new_{names[system.label.source.name]}"))
    for place, outcome in enumerate(system.outcomes.values()):
        query.append(_matches(system, outcome, f"outcome{place}", f"new_{names[outcome.source.name]}"))
    select = _answer(system) + " order by _time, _id"
    found = home.engine.sql(", ".join(query) + " " + select, **_typed(tables, sources, names, system))
    return found.with_columns(
        pl.col(name).cast(pl.Float64)
        for name in system.outcomes
        if found.schema[name].is_numeric() or found.schema[name] == pl.Null
    )


# ----------------------------------------------------------------------------------------------------------- the query


def _at(moment: datetime) -> str:
    return f"make_timestamptz({micros(moment)})"


def _wanted(system: System) -> tuple[Label | Outcome, ...]:
    return (system.label, *system.outcomes.values())


def _by(system: System, found: Label | Outcome) -> tuple[tuple[str, str], ...]:
    """(column of the predicted row, column of the source) pairs that tie a label to its prediction."""
    return by_pairs(found, predicted_keys(system))


def _read_of(system: System, columns: Sequence[str], table: Iterable[str]) -> list[str]:
    """The columns of the predictions that labels are found and seen by."""
    from noria.features.binding import columns_of

    read = {name.lower() for name in columns_of(system.label.observed_when or "true")}
    return [*columns, *(name for name in table if name.lower() in read and name not in (*columns, "_id", "_time", "_act"))]


def _length(system: System, found: Label | Outcome) -> timedelta:
    return duration(system.label.horizon) + duration(found.within)


def _observed(label: Label) -> str:
    """SQL for whether the label can be seen at all, over the predictions; ``act`` reads the act that was taken. Unknown is not seen."""
    if not label.observed_when:
        return "true"
    import sqlglot
    from sqlglot import exp

    def place(node: Any) -> Any:
        if isinstance(node, exp.Column) and not node.table and node.name.lower() == "act":
            return sqlglot.parse_one("(_act > 0)", read="duckdb")
        return node

    return f"({sqlglot.parse_one(label.observed_when, read='duckdb').transform(place).sql(dialect='duckdb')})"


def _newest(source: Source, table: str, begins: datetime, ends: datetime, now: datetime) -> str:
    """The newest version known of each row of a source within a span of time."""
    identity = ", ".join([*(quoted(k) for k in source.keys), "_time"]) if source.keys else "_row"
    return (
        f"new_{table} as (select * from {table} where _known <= {_at(now)} and _time > {_at(begins)} and _time <= {_at(ends)} "
        f"qualify row_number() over (partition by {identity} order by _known desc, _row desc) = 1)"
    )


def _matches(system: System, found: Label | Outcome, name: str, table: str) -> str:
    """What the rows that match each prediction say: value, when it was known, how many there are, whether any is censored."""
    how = found.how if isinstance(found, Label) else "first"
    censored = f"coalesce(({found.censored_when}), false)" if isinstance(found, Label) and found.censored_when else "false"
    value = "true" if how == "count" and found.expression.strip() == "*" else found.expression
    horizon, length = duration(system.label.horizon) // _MICRO, _length(system, found) // _MICRO
    pairs = _by(system, found)
    same = "".join(f"asked.{quoted(mine)} = rows.{quoted(theirs)} and " for mine, theirs in pairs)
    kept = "".join(f"{quoted(theirs)}, " for theirs in sorted({theirs for _, theirs in pairs}))
    rows = f"select {kept}_time, _known, _row, ({value}) as _value, {censored} as _censored from {table}"
    joined = (
        f"select asked._id, rows._known, rows._value, rows._censored from asked join ({rows}) rows on {same}"
        f"epoch_us(rows._time) > epoch_us(asked._time) + {horizon} and epoch_us(rows._time) <= epoch_us(asked._time) + {length}"
    )
    if how == "first":
        joined += " qualify row_number() over (partition by asked._id order by rows._time, rows._known, rows._row) = 1"
        return f"{name} as (select _id, _value, _known, 1 as _n, _censored from ({joined}))"
    all_of, known = {
        "any": ("bool_or(cast(_value as BOOLEAN))", "coalesce(min(_known) filter (cast(_value as BOOLEAN)), max(_known))"),
        "sum": ("cast(sum(cast(_value as DECIMAL(38, 6))) as DOUBLE)", "max(_known)"),
        "count": (
            "count(*) filter (_value is not null and not (typeof(_value) = 'BOOLEAN' and cast(_value as VARCHAR) = 'false'))",
            "max(_known)",
        ),
    }[how]
    return f"{name} as (select _id, {all_of} as _value, {known} as _known, count(*) as _n, bool_or(_censored) as _censored from ({joined}) group by _id)"


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _answer(system: System) -> str:
    """From matches to labels: what was given, silence, censoring, what cannot be seen, the type of the task."""
    label = system.label
    cast = {
        "binary": "cast(cast({} as BOOLEAN) as DOUBLE)",
        "regression": "cast({} as DOUBLE)",
        "multiclass": "cast({} as VARCHAR)",
    }[system.task]
    value = (
        f"case when given_label._id is not null then given_label.{'_class' if system.task == 'multiclass' else '_label'} "
        "when not coalesce(asked._observed, false) or coalesce(label._censored, false) then null "
        f"when label._n is null then {cast.format(_literal(label.otherwise))} else {cast.format('label._value')} end"
    )
    as_label, as_class = (value, "cast(null as VARCHAR)") if system.task != "multiclass" else ("cast(null as DOUBLE)", value)
    parts = [
        f"{as_label} as _label",
        f"{as_class} as _class",
        "coalesce(given_label._known, label._known) as _known",
        "asked._decided as _decided",
        f"given_label._id is null and label._n is null and ({value}) is not null as _silent",
    ]
    joins = ["left join label on label._id = asked._id", "left join given_label on given_label._id = asked._id"]
    for place, (name, outcome) in enumerate(system.outcomes.items()):
        default = _literal(outcome.otherwise)
        parts.append(f"case when outcome{place}._n is null then {default} else outcome{place}._value end as {quoted(name)}")
        joins.append(f"left join outcome{place} on outcome{place}._id = asked._id")
    return f"select asked._id, asked._time, asked._cohort, {', '.join(parts)} from asked {' '.join(joins)}"


def _typed(tables: dict[str, Any], sources: dict[str, Source], names: dict[str, str], system: System) -> dict[str, Any]:
    """Tables of sources that never had a row get the columns that expressions name, so that the query still has a meaning."""
    for name, source in sources.items():
        scan = tables[names[name]]
        if set(scan.schema) <= set(SOURCE.columns):
            tables[names[name]] = _bare(source, system)
    return tables


def _bare(source: Source, system: System) -> pl.DataFrame:
    from noria.features.binding import columns_of

    columns: dict[str, Any] = dict.fromkeys(source.keys, pl.String)
    for found in _wanted(system):
        if found.source.name == source.name:
            texts = [found.expression, getattr(found, "censored_when", None) or "true"]
            columns |= {c: pl.Null for text in texts for c in sorted(columns_of(text)) if c not in columns}
            columns |= {theirs: pl.String for _, theirs in _by(system, found) if theirs not in columns}
    return pl.DataFrame(schema=columns | dict(SOURCE.columns))


def _empty(system: System) -> pl.DataFrame:
    kept = {name: kind for name, kind in OUTCOMES.columns.items() if name != "_revision"}
    return pl.DataFrame(schema=kept | {"_silent": pl.Boolean} | dict.fromkeys(system.outcomes, pl.Float64))


# ----------------------------------------------------------------------------------------------------------- revisions


class Late(NamedTuple):
    """Which late rows can matter: known in (``after``, ``now``], happened in (``low``, ``edge``], for cohorts that ended by ``done``."""

    after: datetime
    now: datetime
    low: datetime | None
    edge: datetime
    done: datetime


def _seen(home: Home) -> datetime | None:
    """What became known later than this was not there at the last closing; ``None`` before the first."""
    last = home.ledger.latest(CohortClosed)
    if last is None:
        return None
    taken = home.ledger.read(Ingested, until=last.at, newest=1)
    return taken[-1].record.upto if taken else last.at


def _given_since(home: Home) -> bool:
    """Whether labels were given since the last closing."""
    last = home.ledger.latest(CohortClosed)
    return bool(home.ledger.read(Ingested, prefix=f"ingest/{given.SOURCE}/", after=last.seq if last else 0))


def _touched(home: Home, system: System, done: datetime, now: datetime) -> list[datetime]:
    """The ends of closed cohorts whose labels rows that became known since they closed may change."""
    last, seen = home.ledger.latest(CohortClosed), _seen(home)
    assert last is not None
    assert seen is not None
    if _redefined(home, system, last):
        return sorted({entry.record.window.end for entry in home.ledger.read(CohortClosed)})
    every = duration(system.every)
    touched: set[datetime] = set()
    edge = done + reach(system)
    for source in {found.source.name: found.source for found in _wanted(system)}.values():
        batches = home.ledger.read(Ingested, prefix=f"ingest/{source.name}/", since=last.at)
        first = min((b.record.first for b in batches if b.record.first is not None), default=None)
        delayed = source.known is not None
        if not delayed and (first is None or first > edge):
            continue
        low = None if first is None else first - _MICRO
        touched |= _cohorts_of(home, system, source, Late(seen, now, None if delayed else low, edge, done))
    if _given_since(home):
        touched |= given.touched(home, system, seen, now, done)
    return sorted(touched | _asked_late(home, system, last, every, done))


def _redefined(home: Home, system: System, last: Entry[CohortClosed]) -> bool:
    """Whether the label or the outcomes mean something else than when the newest cohort was closed."""
    declared = home.ledger.read(Declared)
    then = [entry.record.spec for entry in declared if entry.seq < last.seq]
    if not then or not any(entry.seq > last.seq for entry in declared):
        return False
    now = system.spec()
    return any(then[-1].get(part) != msgspec.to_builtins(now[part]) for part in ("label", "outcomes"))


def _asked_late(home: Home, system: System, last: Entry[CohortClosed], every: timedelta, done: datetime) -> set[datetime]:
    """Closed cohorts with predictions that have no outcome: rows and requests that came, or were sealed, after the closing."""
    scored = [entry.record.window.start for entry in home.ledger.read(Scored, after=last.seq)]
    firsts = [] if not scored else [min(scored) + _MICRO]
    if isinstance(system.predict, Source):  # rows are asked when they are known, and their time may be long before
        batches = home.ledger.read(Ingested, prefix=f"ingest/{system.predict.name}/", after=last.seq)
        firsts += [batch.record.first for batch in batches if batch.record.first is not None]
    first = min(firsts, default=None)
    if first is None or first > done:
        return set()
    between = (first - _MICRO, done)
    asked, found = home.lake.scan(PREDICTIONS.name, _time=between), home.lake.scan(OUTCOMES.name, _time=between)
    if not asked.files:
        return set()
    query = (
        f"select distinct _time from p anti join o on o._id = p._id where p._time > {_at(between[0])} and p._time <= {_at(done)}"
    )
    rows = home.engine.sql(query, p=asked, o=found)
    return {next_edge(moment, every) for moment in rows["_time"].to_list()}


def _cohorts_of(home: Home, system: System, source: Source, late: Late) -> set[datetime]:
    """Cohorts with a prediction that a row known since they closed belongs to."""
    scan = home.lake.scan(source_table(source.name), _known=(late.after, late.now), _time=(late.low, late.edge))
    if not scan.files:
        return set()
    known = f"_known > {_at(late.after)} and _known <= {_at(late.now)} and _time <= {_at(late.edge)}"
    rows = home.engine.sql(f"select * from late where {known}", late=scan)
    first, last = rows["_time"].min(), rows["_time"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return set()
    predictions = home.lake.scan(PREDICTIONS.name, _time=(first - reach(system) - _MICRO, min(last, late.done)))
    horizon, step, found = duration(system.label.horizon) // _MICRO, duration(system.every) // _MICRO, set()
    for wanted in _wanted(system):
        if wanted.source.name != source.name:
            continue
        same = "".join(f"p.{quoted(mine)} = l.{quoted(theirs)} and " for mine, theirs in _by(system, wanted))
        query = (
            f"select distinct (epoch_us(p._time) + {step - 1}) // {step} * {step} as cohort from p join l on {same}"
            f"epoch_us(l._time) > epoch_us(p._time) + {horizon} and epoch_us(l._time) <= epoch_us(p._time) + {_length(system, wanted) // _MICRO} "
            f"where p._time <= {_at(late.done)}"
        )
        found |= {
            EPOCH + timedelta(microseconds=int(end)) for end in home.engine.sql(query, p=predictions, l=rows)["cohort"].to_list()
        }
    return found


def _changed(home: Home, found: pl.DataFrame) -> tuple[pl.DataFrame, dict[datetime, int]]:
    """Of recomputed cohorts those whose labels differ from the newest revision, with the number of the next."""
    revisions: dict[datetime, int] = {}
    said = [c for c in found.columns if c not in ("_silent", "_cohort")]
    for end in found["_cohort"].unique().sort().to_list():
        before = home.lake.read(OUTCOMES.name, _cohort=(end - _MICRO, end))
        if before.is_empty():
            revisions[end] = 0
            continue
        newest = int(before["_revision"].max())  # type: ignore[arg-type]  # whole numbers
        old = before.filter(pl.col("_revision") == newest).sort("_time", "_id")
        new = found.filter(pl.col("_cohort") == end).sort("_time", "_id")
        shared = [c for c in said if c in old.columns]
        if not new.select(shared).cast({c: old.schema[c] for c in shared}).equals(old.select(shared)):
            revisions[end] = newest + 1
    return found.filter(pl.col("_cohort").is_in(list(revisions))), revisions


# -------------------------------------------------------------------------------------------------------------- writing


def _written(
    home: Home,
    frames: list[tuple[pl.DataFrame, dict[datetime, int]]],
    every: timedelta,
    now: datetime,
    lost: tuple[pl.DataFrame, Ingested] | None,
) -> list[Entry[CohortClosed]]:
    parts: list[pl.DataFrame] = []
    items: list[tuple[Record, str, list[str]]] = []
    tables: list[Commit] = []
    if lost is not None:
        aside, record = lost
        tables.append(home.lake.write(QUARANTINE.name, aside, key=f"quarantine/unknown/{now.isoformat()}"))
        items.append((record, f"ingest/{given.SOURCE}/unknown/{now.isoformat()}", []))
    parents = [entry.id for entry in (home.ledger.latest(Scored),) if entry is not None]
    for found, revisions in reversed(frames):  # revisions first: the last record of a turn is then its newest cohort
        for end, revision in sorted(revisions.items()):
            rows = found.filter(pl.col("_cohort") == end).with_columns(pl.lit(revision, pl.Int32).alias("_revision"))
            written = rows.drop("_silent").sort(*OUTCOMES.order)
            parts.append(written)
            closing = cohort_record(rows, Window(end - every, end), revision, rows_hash(written))
            items.append((closing, f"cohort/{end.isoformat()}/{revision}", parents))
    if not items:
        return []
    if parts:
        table = pl.concat(parts).sort(*OUTCOMES.order)
        tables.append(home.lake.write(OUTCOMES.name, table, key=f"outcomes/{now.isoformat()}"))
    made = home.commit_all(items, tables=tables)
    return made[len(made) - len(parts) :]  # type: ignore[return-value]  # all of these are CohortClosed


def cohort_record(rows: pl.DataFrame, window: Window, revision: int, content: str) -> CohortClosed:
    """What a cohort's rows come to. The delay's quantiles are over labels that came, in hours."""
    missing = pl.col("_label").is_null() & pl.col("_class").is_null()
    known = rows.filter(~missing)
    delay = (
        known.filter(~pl.col("_silent")).select((pl.col("_known") - pl.col("_time")).dt.total_microseconds() / 3.6e9).to_series()
    )
    labels = known["_label"].drop_nulls().to_list()
    return CohortClosed(
        window=window,
        revision=revision,
        n=rows.height,
        labelled=known.height,
        silent=int(known["_silent"].sum()),
        mean=float(f"{math.fsum(labels) / len(labels):.12g}") if labels else None,
        delay={name: round(float(delay.quantile(q, "linear") or 0.0), 6) for name, q in QUANTILES.items()} if len(delay) else {},
        rows=content,
    )
