"""The features that were served are not the ones that training computes: skew, or features that stand still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from noria import features as feature_room
from noria import stats
from noria.core import Check, Estimate, Verdict, duration, quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.features.binding import columns_of
from noria.system import Feature
from noria.tables import source_table

SAMPLED = 200
AGES = ("1h", "6h", "1d", "2d", "7d")
FROZEN = 0.1
MOVES = 0.2
RESTS = 0.02
MOST_ROWS = 100_000
MOST_KEYS, SOME_KEYS = 200, 0.15
SAME = "logged as computed"
OLD = "logged as of its own time"
CHANGE = "values change"


@dataclass(frozen=True)
class Served:
    """What a sample of logged features is against the batch query: the skewed ones, and the age (if any) at which the query gives them."""

    skewed: tuple[feature_room.Skewed, ...]
    n: int
    age: str
    explained: float
    old: tuple[str, ...]


def served(case: Case) -> Served | None:
    """The sample, computed once a case; ``None`` when nothing can be compared."""
    return streams.once(case, "served", lambda: _served(case))


def _served(case: Case) -> Served | None:
    start, end = _lately(case), case.now
    found = feature_room.recomputed(case.home, case.system, start, end, most=SAMPLED)
    if found is None:
        return None
    apart = {name: feature_room.differing(found.logged[name], found.computed[name]) for name in found.names}
    n = found.logged.height
    wrong = [
        feature_room.Skewed(name, stats.proportion(int(rows.sum()), n), int(rows.sum()), found.logged["_id"].filter(rows)[0])
        for name, rows in apart.items()
        if rows.any()
    ]
    wrong.sort(key=lambda one: -one.differing)
    looked_up = {feature.name for feature in streams.looked_up(case)}
    old = [one.feature for one in wrong if one.feature in looked_up]
    age, explained = ("", 0.0) if not old else _age(case, start, end, old, apart)
    return Served(tuple(wrong), n, age, explained, tuple(old))


def _lately(case: Case) -> datetime:
    """The newest quarter of the case's window: what is served now, a week at least."""
    return max(case.now - max(7 * DAY, 7 * case.every), case.window.start - 7 * case.every)


def _age(case: Case, start: datetime, end: datetime, names: list[str], apart: dict[str, pl.Series]) -> tuple[str, float]:
    """The age at which the query gives the differing values that were logged, and the share of them that it explains."""
    best = ("", 0.0)
    for age in AGES:
        made = feature_room.recomputed(case.home, case.system, start, end, most=SAMPLED, earlier=duration(age))
        if made is None:
            continue
        wrong = sum(int(apart[name].sum()) for name in names)
        right = sum(
            int((apart[name] & ~feature_room.differing(made.logged[name], made.computed[name])).sum())
            for name in names
            if name in made.names
        )
        if right / wrong > best[1]:
            best = (age, right / wrong)
    return best


def training_serving_skew(case: Case) -> Tested:
    """Logged features are not what the batch query, which training uses, gives for the same rows and times."""
    act = (
        "compare both with `noria trace` on the row named here; mend the serving path, and train on nothing that was logged since"
    )
    found = served(case)
    if found is None:
        made = check(
            SAME, None, detail="no logged row can be computed again: none under this feature plan, or what was asked is not kept"
        )
        return Tested("training-serving skew", "deployment", act, (made,), blocks=True)
    wrong = [one for one in found.skewed if not (one.feature in found.old and found.explained >= 0.9)]
    checks = tuple(
        check(
            SAME,
            True,
            subject=one.feature,
            size=one.share,
            bound=0.0,
            detail=f"{one.feature} was logged otherwise than computed on {one.differing} of {found.n} rows, such as {one.example}",
        )
        for one in wrong[:5]
    )
    said = f"every feature of {found.n} sampled rows is computed again as it was logged"
    if found.skewed and not wrong:
        said = f"what differs is what was right {found.age} earlier: the features are old, not wrong"
    clear = check(SAME, False, size=stats.proportion(0, found.n), bound=0.0, detail=said)
    return Tested("training-serving skew", "deployment", act, checks or (clear,), 0.98 if checks else 0.0, blocks=True)


def stale_features(case: Case) -> Tested:
    """Features stand still: the source repeats its values while it goes on bringing rows, or what is served is of an earlier time."""
    made = [*_frozen(case), *_served_old(case)]
    failed = [one for one in made if one.verdict is Verdict.FAIL]
    known = [one for one in made if one.verdict is Verdict.PASS]
    subjects = ", ".join(sorted({one.subject for one in failed})) or "the feature"
    act = f"restart what fills {subjects}, with its owner; until it moves again, leave the feature out or let the fallback answer"
    kept = failed or known or made or [check(CHANGE, None, detail="no feature is looked up, or nothing was logged")]
    return Tested("stale features", "data", act, tuple(kept), 0.96 if failed else 0.0, blocks=True)


def _served_old(case: Case) -> list[Check]:
    found = served(case)
    if found is None:
        return []
    if found.old and found.explained >= 0.9:
        said = f"{', '.join(found.old[:3])}: {found.explained:.0%} of the values that differ are those of {found.age} earlier"
        return [check(OLD, True, subject=found.old[0], size=Estimate(found.explained, n=found.n), bound=0.9, detail=said)]
    return [check(OLD, False, size=Estimate(0.0, n=found.n), detail="looked-up features are as of the row's own time")]


def _frozen(case: Case) -> list[Check]:
    """Columns that features read: how often a row says otherwise than the one before it under the same key."""
    made = []
    groups: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for feature in streams.looked_up(case):
        names = columns_of(feature.expr) if feature.expr != "*" else set()
        groups.setdefault((feature.source, tuple(theirs for _, theirs in feature.by)), set()).update(names)
    for (source, by), names in sorted(groups.items()):
        stream = streams.streams(case).get(source)
        schema = case.home.lake.schema(source_table(source))
        if stream is None or schema is None:
            continue
        columns = [name for name in sorted(names) if name in schema and name not in by]
        if columns and by and stream.counts()[-35:].sum() <= MOST_ROWS:
            made += _changes(case, stream, by, columns)
    seen = {one.subject for one in made if one.verdict is not Verdict.NOT_ENOUGH_DATA}
    return [*(one for one in made if one.subject in seen), *_still(case, seen), *_constant(case)]


def _still(case: Case, seen: set[str]) -> list[Check]:
    """Columns that features read off a row itself, or that the lookups above leave out: the daily share of rows that differ from the one before."""
    read: dict[str, set[str]] = {}
    for feature in case.system.flat_features:
        if feature.expr != "*" and feature.op in ("column", "expression", "last", "window"):
            read.setdefault(feature.source, set()).update(columns_of(feature.expr))
    made = []
    for source, names in sorted(read.items()):
        stream = streams.streams(case).get(source)
        if stream is None or stream.logged:
            continue
        for column in sorted(names):
            subject = f"{source}.{column}"
            days = [(day.day, cell.moved) for day, cell in stream.of(column) if cell.moved is not None and day.n >= 5]
            at = streams.broken([day for day, _ in days], np.array([moved for _, moved in days], float), floor_=0.02)
            if subject in seen or at is None or at.before < MOVES:
                continue
            said = f"{at.after:.1%} of the rows of {subject} differ from the one before since {at.at:%Y-%m-%d}, {at.before:.1%} before"
            bound = FROZEN * at.before
            size = Estimate(at.after, n=at.days)
            still = at.after <= bound and not _rested([day for day, _ in days], [moved for _, moved in days], at)
            made.append(check(CHANGE, still, subject=subject, size=size, bound=bound, detail=said))
    return made


def _rested(days: Sequence[datetime], moved: Sequence[float], at: streams.Break) -> bool:
    """Whether the column has stood nearly as still on a day before: a dry spell is no frozen gauge."""
    before = [share for day, share in zip(days, moved, strict=True) if day <= at.at and np.isfinite(share)]
    return bool(before) and min(before) <= 2 * at.after + RESTS


def _changes(case: Case, stream: streams.Stream, by: tuple[str, ...], columns: list[str]) -> list[Check]:
    start = case.now - 35 * DAY
    key = ", ".join(map(quoted, by))
    over = f"over (partition by {key} order by _known, _time, _row)"
    lags = ", ".join(
        f"({quoted(c)} is distinct from lag({quoted(c)}) {over})::int as c{k}, {quoted(c)} is not null as v{k}"
        for k, c in enumerate(columns)
    )
    sums = ", ".join(
        f"coalesce(sum(c{k}) filter (v{k}), 0)::double as c{k}, count(*) filter (v{k}) as v{k}" for k in range(len(columns))
    )
    query = (
        f"with moved as (select (epoch_us(_known) - 1) // 86400000000 as d, hash({key}) as k, row_number() {over} as _place, {lags} from t "
        f"where {streams.between('_known', start, stream.end)}) "
        f"select d, k, count(*) as n, {sums} from moved where _place > 1 group by d, k order by d, k"
    )
    found = case.home.engine.sql(query, t=case.home.lake.scan(source_table(stream.name), _known=(start, stream.end)))
    made = []
    for k, column in enumerate(columns):
        counts = found.select("d", "k", changed=pl.col(f"c{k}"), n=pl.col(f"v{k}").cast(pl.Float64)).filter(pl.col("n") > 0)
        one = _all_together(stream, by, column, counts)
        made.append(one if one.verdict is Verdict.FAIL else _some_stand(stream, by, column, counts) or one)
    return made


def _all_together(stream: streams.Stream, by: tuple[str, ...], column: str, counts: pl.DataFrame) -> Check:
    """The daily share of rows that say otherwise than the one before under the same key."""
    subject = f"{stream.name}.{column}"
    days = counts.group_by("d").agg(pl.col("changed", "n").sum()).filter(pl.col("n") >= 3).sort("d")
    dates = streams.ends(days["d"])
    shares = (days["changed"] / days["n"]).to_list()
    at = streams.broken(dates, np.array(shares, float), floor_=0.02)
    if at is None:
        return check(CHANGE, None, subject=subject, detail="too few days to compare")
    fell = at.before >= MOVES and at.after <= FROZEN * at.before and not _rested(dates, shares, at)
    said = f"{at.after:.1%} of the rows of {subject} differ from the one before under the same {', '.join(by)} since {at.at:%Y-%m-%d}, {at.before:.1%} before"
    return check(CHANGE, fell, subject=subject, size=Estimate(at.after, n=at.days), bound=FROZEN * at.before, detail=said)


def _some_stand(stream: streams.Stream, by: tuple[str, ...], column: str, counts: pl.DataFrame) -> Check | None:
    """Keys that stand still while the others move: the share of a day's rows under keys that change a tenth as often as they do, or less."""
    kept = counts.filter(pl.col("n") >= 5)
    if kept["k"].n_unique() > MOST_KEYS or kept.is_empty():
        return None
    usual = pl.col("share").median().over("k")
    kept = kept.with_columns(share=pl.col("changed") / pl.col("n")).with_columns(usual=usual)
    kept = kept.filter(pl.col("usual") >= MOVES)
    still = pl.when(pl.col("share") <= FROZEN * pl.col("usual")).then("n").otherwise(0.0)
    days = kept.with_columns(still=still).group_by("d").agg(pl.col("still", "n").sum()).sort("d")
    shares = (days["still"] / days["n"]).to_numpy()
    dates = streams.ends(days["d"])
    at = streams.broken(dates, shares, floor_=0.02)
    if at is None:
        return None
    past = [share for date, share in zip(dates, shares.tolist(), strict=True) if date <= at.at]
    if at.after < SOME_KEYS or at.after < 2 * max(past):
        return None
    subject = f"{stream.name}.{column}"
    said = f"{at.after:.0%} of the rows of {subject} are under a {', '.join(by)} that stands still since {at.at:%Y-%m-%d}, {at.before:.0%} before"
    return check(CHANGE, True, subject=subject, size=Estimate(at.after, n=at.days), bound=2 * max(past), detail=said)


def _constant(case: Case) -> list[Check]:
    """Looked-up features as logged: how many values a day has, where the source itself cannot be read."""
    known = case.home.lake.schema("predictions") or {}
    seen = streams.streams(case)
    features: list[Feature] = [f for f in streams.looked_up(case) if f.name in known and f.source not in seen]
    if not features:
        return []
    start = case.now - streams.HISTORY * DAY
    kinds = ", ".join(f"count(distinct {quoted(f.name)}) as k{k}" for k, f in enumerate(features))
    query = f"select (epoch_us(_time) - 1) // 86400000000 as d, count(*) as n, {kinds} from t where {streams.between('_time', start, case.now)} group by d order by d"
    found = case.home.engine.sql(query, t=case.home.lake.scan("predictions", _time=(start, case.now))).filter(pl.col("n") >= 5)
    dates = streams.ends(found["d"])
    made = []
    for k, feature in enumerate(features):
        counts = found[f"k{k}"].cast(pl.Float64).to_numpy()
        at = streams.broken(dates, counts, floor_=0.5)
        if at is None:
            made.append(check(CHANGE, None, subject=feature.name, detail="too few days to compare"))
            continue
        stands = at.before >= 5 and at.after == 1.0
        said = f"{feature.name} has {at.after:.0f} different values a day since {at.at:%Y-%m-%d}, {at.before:.0f} before"
        made.append(check(CHANGE, stands, subject=feature.name, size=Estimate(at.after, n=at.days), bound=1.0, detail=said))
    return made
