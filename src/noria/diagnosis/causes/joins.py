"""The joints between tables: features that are looked up and find nothing, and the evidence that the rows are there all the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict, quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.causes.schema import schema_changed
from noria.diagnosis.causes.source import source_late, source_missing
from noria.diagnosis.streams import Break, Floats
from noria.diagnosis.tested import Tested, check
from noria.measure import by_pairs, predicted_keys
from noria.system import Feature, Request
from noria.tables import source_table

EMPTIER = 0.1
APART = 0.1
AS_EVER = 0.5
NAME = "lookups find their rows"
MEET = "keys meet"
WRITTEN = "keys are written as before"


@dataclass(frozen=True)
class Emptied:
    """The lookups into one source by one set of columns: its emptiest feature, and where it became so."""

    source: str
    by: tuple[tuple[str, str], ...]
    feature: str
    at: Break | None


def join_broken(case: Case) -> Tested:
    """Lookups that found rows find none, although the source brings rows as ever: the keys no longer meet."""
    made: list[Check] = []
    strength = 0.0
    for one in emptied(case):
        checks, weight = _tested(case, one)
        made += checks
        strength = max(strength, weight)
    written = _written_otherwise(case)
    strength = max(strength, 0.93 if written else 0.0)
    made += written
    failed = [one for one in made if one.verdict is Verdict.FAIL]
    subjects = ", ".join(sorted({one.subject for one in failed if one.name in (MEET, WRITTEN)})) or "the joined columns"
    act = f"compare {subjects} on both sides (spelling, type, leading zeros) with their owners, and map the one onto the other where it comes in"
    if not made:
        made = [check(NAME, None, detail="no feature is looked up, or nothing was logged")]
    if failed and strength == 0.0:  # emptier, and something else is why
        made = [one for one in made if one.verdict is not Verdict.FAIL] + [
            check(one.name, False, subject=one.subject, size=one.estimate, detail=one.detail) for one in failed
        ]
    known = [one for one in made if one.verdict is Verdict.PASS]
    kept = made if strength else known or made
    return Tested("join broken", "data", act, tuple(kept), strength, blocks=True)


def emptied(case: Case) -> list[Emptied]:
    """Every way of looking rows up, with where its features became emptier (``at`` is ``None`` with too little to compare)."""
    return streams.once(case, "emptied", lambda: _emptied(case))


def _emptied(case: Case) -> list[Emptied]:
    known = case.home.lake.schema("predictions")
    features = [f for f in streams.looked_up(case) if known is not None and f.name in known]
    if not features:
        return []
    start = case.now - streams.HISTORY * DAY
    empty = ", ".join(f"avg(({_empty(f)})::int) as e{k}" for k, f in enumerate(features))
    query = (
        f"select (epoch_us(_time) - 1) // 86400000000 as d, count(*) as n, {empty} from t "
        f"where {streams.between('_time', start, case.now)} group by d order by d"
    )
    found = case.home.engine.sql(query, t=case.home.lake.scan("predictions", _time=(start, case.now)))
    found = found.filter(pl.col("n") >= 5)
    dates = streams.ends(found["d"])
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], Emptied] = {}
    for k, feature in enumerate(features):
        shares = found[f"e{k}"].cast(pl.Float64).to_numpy()
        one = Emptied(feature.source, feature.by, feature.name, streams.broken(dates, shares, floor_=EMPTIER / 5))
        there = groups.get((feature.source, feature.by))
        if there is None or _rise(one) > _rise(there):
            groups[feature.source, feature.by] = one
    return list(groups.values())


def _empty(feature: Feature) -> str:
    column = quoted(feature.name)
    if feature.op == "window" and feature.agg in ("count", "sum"):
        return f"{column} is null or {column} = 0"
    return f"{column} is null"


def _rise(one: Emptied) -> float:
    return one.at.after - one.at.before if one.at is not None else float("-inf")


def _tested(case: Case, one: Emptied) -> tuple[list[Check], float]:
    """The checks of one way of looking up, and how strongly they speak for a broken join."""
    at = one.at
    if at is None:
        return [check(NAME, None, subject=one.feature, detail="too few days to compare")], 0.0
    bound = at.before + max(EMPTIER, 2 * at.usual)
    said = f"{one.feature} found no row for {at.after:.1%} of what was asked since {at.at:%Y-%m-%d}, for {at.before:.1%} before"
    size = Estimate(at.after, n=at.days)
    if at.after <= bound:
        return [check(NAME, False, subject=one.feature, size=size, bound=bound, detail=said)], 0.0
    empty = check(NAME, True, subject=one.feature, size=size, bound=bound, detail=said)
    stream = streams.streams(case).get(one.source)
    if stream is None:
        said += f"; whether {one.source} still brings rows is not known"
        return [check(NAME, None, subject=one.feature, size=size, bound=bound, detail=said)], 0.0
    for cause in (source_missing, source_late, schema_changed):
        others = [
            c for c in streams.tested(case, cause).evidence if c.verdict is Verdict.FAIL and c.subject.split(".")[0] == one.source
        ]
        if others:
            return [check(NAME, True, subject=one.feature, size=size, detail=f"{said}; {others[0].detail}")], 0.0
    ratio = _ratio(case, one.source, at.at)
    rows = check("rows come as ever", ratio >= AS_EVER, subject=one.source, size=Estimate(ratio), bound=AS_EVER)
    if ratio < AS_EVER:
        return [empty], 0.0
    overlap = _overlap(case, one, at.at)
    said = f"{one.source} brings {ratio:.0%} of its rows before"
    if overlap is None:
        return [empty, check("rows come as ever", True, subject=one.source, size=rows.estimate, detail=said)], 0.6
    past, now, subject = overlap
    said += f"; {now:.1%} of what is asked has a key that it also has, {past:.1%} before"
    meets = check(MEET, now < past - APART, subject=subject, size=Estimate(now), bound=past - APART, detail=said)
    return [empty, meets], 0.97 if now < past - APART else 0.0


def _written_otherwise(case: Case) -> list[Check]:
    """Keys that one side of a join writes as it never did, while the other side writes them as ever."""
    asked, label = streams.asked_name(case), case.system.label
    pairs = {(f.source, mine, theirs) for f in streams.looked_up(case) for mine, theirs in f.by}
    pairs |= {(label.source.name, mine, theirs) for mine, theirs in by_pairs(label, predicted_keys(case.system))}
    made = {}
    for source, mine, theirs in sorted(pairs):
        if source == asked or source not in streams.streams(case):
            continue
        sides = {f"{source}.{theirs}": _new_keys(case, source, theirs), f"{asked}.{mine}": _new_keys(case, asked, mine)}
        for subject, other in (tuple(sides), tuple(reversed(tuple(sides)))):
            now, then = sides[subject], sides[other]
            if now is None or then is None or now[1] <= APART or then[1] > APART / 2:
                continue
            said = f"since {now[0] - DAY:%Y-%m-%d} {now[1]:.1%} of {subject} are written as none was before ({now[2]}), {then[1]:.1%} of {other}"
            made[subject] = check(WRITTEN, True, subject=subject, size=Estimate(now[1]), bound=APART, detail=said)
    return list(made.values())


def _new_keys(case: Case, source: str, column: str) -> tuple[datetime, float, str] | None:
    """From when on a key is written as never before, the share of it that is on the last day, and an example; a share of 0 without."""
    stream = streams.streams(case).get(source)
    days = stream.of(column) if stream is not None else []
    told = [cell.values for _, cell in days if cell.values]
    repeated = bool(told) and all(sum(values.values()) > 2 * len(values) for values in told)
    counts = [(day.day, cell.values if repeated else cell.shapes) for day, cell in days]
    known = [(day, values) for day, values in counts if values]
    if len(known) <= streams.LEAST_DAYS:
        return None
    seen: set[str] = set()
    for place, (day, values) in enumerate(known):
        new = {value: n for value, n in values.items() if value not in seen}
        if place >= max(streams.LEAST_DAYS, len(known) - streams.NEWEST_BREAK) and sum(new.values()) > APART * sum(
            values.values()
        ):
            last = known[-1][1]
            share = sum(n for value, n in last.items() if value not in seen) / sum(last.values())
            return day, share, max(sorted(new), key=lambda v: new[v])
        seen |= values.keys()
    return known[-1][0], 0.0, ""


def _ratio(case: Case, source: str, at: datetime) -> float:
    """Rows a day of a source since a moment, as a share of those in the 28 days before."""
    stream = streams.streams(case)[source]
    counts, dates = stream.counts(), stream.dates
    since = np.array([date > at for date in dates], bool)
    before: Floats = counts[~since][-streams.REFERENCE :]
    if not since.any() or not len(before) or not before.mean():
        return 0.0
    return float(counts[since].mean() / before.mean())


def _overlap(case: Case, one: Emptied, at: datetime) -> tuple[float, float, str] | None:
    """The share of what was asked whose key the source also had in the same time: before, since, and the columns that have to meet."""
    asked = case.system.predict
    mine, theirs = [name for name, _ in one.by], [name for _, name in one.by]
    name = streams.asked_name(case)
    table = "predictions" if isinstance(asked, Request) or name == streams.LOGGED else source_table(name)
    rows, other = case.home.lake.schema(table), case.home.lake.schema(source_table(one.source))
    if rows is None or other is None or any(c not in rows for c in mine) or any(c not in other for c in theirs):
        return None
    found = []
    when = "_time" if table == "predictions" else "_known"
    for start, end in ((at - (case.now - at), at), (at, case.now)):  # as long again, so that a rare key has the same chance
        same = " and ".join(f"a.{quoted(m)}::varchar = s.{quoted(t)}::varchar" for m, t in one.by)
        keys = ", ".join(quoted(t) for t in theirs)
        query = (
            f"with asked as (select * from p where {streams.between(when, start, end)} order by md5({'_id' if table == 'predictions' else '_row'}) "
            f"limit {streams.SAMPLE}), s as (select distinct {keys} from source where {streams.between('_known', start, end)}) "
            f"select count(*) as n, count(s.{quoted(theirs[0])}) as met from asked a left join s on {same}"
        )
        span = {when: (start, end)}
        made = case.home.engine.sql(
            query,
            p=case.home.lake.scan(table, **span),
            source=case.home.lake.scan(source_table(one.source), _known=(start, end)),
        ).row(0, named=True)
        if not made["n"]:
            return None
        found.append(made["met"] / made["n"])
    return found[0], found[1], ", ".join(f"{m} = {one.source}.{t}" for m, t in one.by)
