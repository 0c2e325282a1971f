"""Batch scoring: every row that was asked is logged once, under what was in force at its own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import features as feature_room
from noria.core import Window, duration
from noria.deployment import degrees, routing
from noria.deployment.bundles import Answers, Bundles, answer
from noria.deployment.live import History, Live, Rollout, history
from noria.measure import before_acts, columns_read, numeric_act
from noria.records import Entry, Scored
from noria.system import Every, Last, Seasonal, System
from noria.tables import PREDICTIONS, SHADOW, TIME

if TYPE_CHECKING:
    from noria.store import Home

Floats = NDArray[np.float64]
FIXED = tuple(PREDICTIONS.columns)


def score(
    home: Home, system: System, window: Window, spine: pl.DataFrame, features: pl.DataFrame, *, bundles: Bundles | None = None
) -> Entry[Scored] | None:
    """Scores and logs the rows of ``spine``, asked in ``window``.

    Parameters
    ----------
    spine:
        Columns of the predicted row with ``_id`` and ``_time`` (when it was asked).
    features:
        ``_id`` and one column a feature, in the order of ``spine``.
    bundles:
        Loaded models, to share between turns; by default they are loaded anew.

    One commit to ``predictions`` and, while a rollout or its guard lasts, one to ``shadow``, published together with the record.
    Returns ``None`` for an empty spine, and the record that is there already when the window was scored before.
    """
    key = f"score/{window.end.isoformat()}"
    known = home.ledger.find(key)
    if known is not None:
        return known  # type: ignore[return-value]  # the key names the kind
    spine, features = _unanswered(home, spine, features)
    if spine.is_empty():
        return None
    made = logged(system, history(home), spine, features, bundles=bundles or Bundles(home), now=home.clock.now())
    commits = [home.lake.write("predictions", made.predictions, key=key)]
    if not made.shadow.is_empty():
        commits.append(home.lake.write("shadow", made.shadow, key=key))
    record = counted(system, window, made.predictions, commits[0].rows, refused=made.refused, unknown=made.unknown)
    return home.commit(record, key=key, parents=made.parents, tables=commits)


def _unanswered(home: Home, spine: pl.DataFrame, features: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Without the rows that the service has answered already under the same id."""
    first, last = (spine["_time"].min(), spine["_time"].max()) if spine.height else (None, None)
    if home.lake.schema("predictions") is None or not isinstance(first, datetime) or not isinstance(last, datetime):
        return spine, features
    scan = home.lake.scan("predictions", _time=(first - timedelta(microseconds=1), last))
    if not scan.files:
        return spine, features
    there = home.engine.sql("select _id from p", p=scan)["_id"]
    fresh = ~spine["_id"].is_in(there.implode())
    return (spine, features) if fresh.all() else (spine.filter(fresh), features.filter(fresh))


@dataclass(frozen=True)
class Logged:
    """The rows for the two tables, the entries they rest on, and the rows that were refused or held unknown categories."""

    predictions: pl.DataFrame
    shadow: pl.DataFrame
    parents: tuple[str, ...]
    refused: int
    unknown: int


def counted(system: System, window: Window, frame: pl.DataFrame, rows: str, *, refused: int, unknown: int = 0) -> Scored:
    """The record of the rows ``frame`` of ``predictions``; ``rows`` is the hash of their content."""
    return Scored(
        window=window,
        n=frame.height,
        rows=rows,
        variants=dict(sorted(Counter(frame["_variant"].to_list()).items())),
        releases=dict(sorted(Counter(frame["_release"].to_list()).items())),
        acts=_acts(system, frame["_act"]),
        late=frame.filter(pl.col("_scored_at") - pl.col("_time") > duration(system.every)).height,
        unknown=unknown,
        refused=refused,
        fallbacks=len(frame["_fallback"]) - frame["_fallback"].null_count(),
        reviews=int(frame["_review"].sum()),
    )


def logged(
    system: System,
    past: History,
    spine: pl.DataFrame,
    features: pl.DataFrame,
    *,
    bundles: Bundles,
    now: datetime,
    quiet: bool = True,
) -> Logged:
    """The predictions of ``spine``, each under the state in force at its own time; nothing is written.

    Without ``quiet`` only the bundles that may answer are asked: what the others say comes later, from ``whispered``.
    """
    rows = with_context(system, spine, features)
    predictions, shadows, parents = [], [], list[str]()
    refused = unknown = 0
    for live, part in _by_state(past, rows):
        made = _under(system, live, part, bundles, quiet=quiet)
        predictions.append(made.predictions)
        shadows += made.shadow
        refused, unknown = refused + made.refused, unknown + made.unknown
        parents += [entry for entry in live.parents if entry not in parents]
    frame = _table(system, pl.concat(predictions), now)
    shadow = pl.concat(shadows) if shadows else pl.DataFrame(schema=SHADOW.columns)
    return Logged(frame.sort(PREDICTIONS.order), shadow.sort(SHADOW.order), tuple(parents), refused, unknown)


def _by_state(past: History, rows: pl.DataFrame) -> Iterator[tuple[Live, pl.DataFrame]]:
    """The rows by the state that was in force when they were asked."""
    place = np.array([past.place(moment) for moment in rows["_time"].to_list()])
    for number in np.unique(place):
        yield past.states[int(number)], rows.filter(pl.Series(place == number))


def _table(system: System, frame: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The columns of ``predictions``, in their order, and those of the system."""
    waits = pl.lit(now, dtype=TIME) - pl.col("_time") <= duration(system.every)  # nobody decides on what is long past
    frame = frame.with_columns(
        _features=pl.lit(feature_room.plan(system).id),
        _fallback=pl.lit(None, dtype=pl.String),
        _scored_at=pl.lit(now, dtype=TIME),
        _review=pl.col("_review") & waits,
    )
    rest = [name for name in frame.columns if name not in FIXED and frame.schema[name] != pl.Null]  # no type yet: no column yet
    return frame.select(*(pl.col(name).cast(kind) for name, kind in PREDICTIONS.columns.items()), *rest)


def whispered(
    system: System,
    past: History,
    spine: pl.DataFrame,
    features: pl.DataFrame,
    *,
    bundles: Bundles,
    only: Container[str] | None = None,
) -> pl.DataFrame:
    """What the bundles that cannot answer (a challenger in shadow, the champion before) would have said: rows of ``shadow``.

    ``only`` names the bundles to ask; default: all of them.
    """
    found = []
    for live, part in _by_state(past, with_context(system, spine, features)):
        answering = _answering(live)
        for sha in _asked(system, live, part):
            if sha not in answering and (only is None or sha in only):
                found.append(_whisper(part, sha, answer(system, bundles, sha, part)))
    return pl.concat(found).sort(SHADOW.order) if found else pl.DataFrame(schema=SHADOW.columns)


def unanswered(system: System, past: History, spine: pl.DataFrame, features: pl.DataFrame, *, now: datetime) -> pl.DataFrame:
    """The rows of ``predictions`` for which no bundle was asked: routed as ever, with neither score nor act."""
    parts = []
    for live, part in _by_state(past, with_context(system, spine, features)):
        _, routed = _routed(system, live, part)
        empty = ("_score", "_scores", "_act", "_act_propensity")
        blank = [pl.lit(None, dtype=PREDICTIONS.columns[name]).alias(name) for name in empty]
        parts.append(part.with_columns(*blank, *routed, pl.lit(False).alias("_review")))
    return _table(system, pl.concat(parts), now).sort(PREDICTIONS.order)


def _routed(system: System, live: Live, rows: pl.DataFrame) -> tuple[NDArray[np.bool_], list[pl.Series]]:
    """Which rows are the challenger's, and the columns that say so: variant, its propensity, and the release that is to answer."""
    rollout, mine = live.rollout, np.zeros(rows.height, bool)
    share = rollout.share if rollout is not None and rollout.stage == "canary" else 0.0
    if rollout is not None:
        mine = assigned(system, rollout.number, rows["_time"], rows["_unit"].to_list(), share)
    release = np.where(mine, rollout.challenger if rollout else "", live.champion or "")
    return mine, [
        pl.Series("_variant", np.where(mine, routing.CHALLENGER, routing.CHAMPION).tolist(), dtype=pl.String),
        _column(np.where(mine, share, 1 - share)).alias("_variant_propensity"),
        pl.Series("_release", release.tolist(), dtype=pl.String),
    ]


def _answering(live: Live) -> set[str]:
    """The bundles whose answer may be given."""
    challenger = live.rollout.challenger if live.rollout is not None and live.rollout.share > 0 else None
    return {sha for sha in (live.champion, challenger) if sha}


@dataclass(frozen=True)
class _Part:
    predictions: pl.DataFrame
    shadow: list[pl.DataFrame]
    refused: int
    unknown: int


def _under(system: System, live: Live, rows: pl.DataFrame, bundles: Bundles, *, quiet: bool) -> _Part:
    """The predictions of rows that were all asked under the same state."""
    n, units, rollout = rows.height, rows["_unit"].to_list(), live.rollout
    mine, routed = _routed(system, live, rows)
    asked = [sha for sha in _asked(system, live, rows) if quiet or sha in _answering(live)]
    said = {sha: answer(system, bundles, sha, rows) for sha in asked}
    champion = said.get(live.champion) if live.champion else None
    challenger = said.get(rollout.challenger) if rollout else None
    answered = _choose(mine, challenger, champion, n)
    taken = routing.acts(system.name, system.decide, answered.act, rows["_id"].to_list(), units)
    silent = (routed[-1] == "").to_numpy()  # doing nothing answered: there is no score and no act of ours
    open_ = degrees.left_open(system, answered.score, answered.scores)
    none = silent | open_
    act, chance = np.where(none, np.nan, taken.act), np.where(none | np.isnan(taken.act), np.nan, taken.propensity)
    ours = silent & ~open_  # what is left to people has no act of ours
    if system.decide.before is not None and ours.any() and not routing.by_hand(system.decide):
        some = rows.filter(pl.Series(ours))
        before = routing.done_before(
            system.name, system.decide, before_acts(bundles.home.engine, system, some), some["_unit"].to_list()
        )
        act[ours], chance[ours] = before.act, before.propensity
    frame = rows.with_columns(
        _score=_column(answered.score),
        _scores=_lists(answered.scores, n),
        _act=_column(act),
        _act_propensity=_column(chance),
        _review=pl.Series(open_ & degrees.asks(system)),
    ).with_columns(routed)
    shadow = _shadow(live, rows, mine, said, open_)
    return _Part(frame, shadow, int(answered.refused.sum()), int(answered.unknown.sum()))


def assigned(system: System, rollout: int, times: pl.Series, units: list[str], share: float) -> NDArray[np.bool_]:
    """Which rows are the challenger's: by their unit, or with ``Rollout.switchback`` by the stretch of time they were asked in."""
    if system.rollout.switchback is not None:
        return routing.switched(system.name, rollout, times, system.rollout.switchback, share)
    return routing.challenged(system.name, rollout, units, share)


def _asked(system: System, live: Live, rows: pl.DataFrame) -> list[str]:
    """The bundles that have something to say about ``rows``: the champion, the challenger, and the champion before while it guards."""
    asked = [live.champion, live.rollout.challenger if live.rollout else None]
    if live.guarded is not None and rows["_time"].min() <= guarded_until(system, live.guarded):  # type: ignore[operator]  # a time
        asked.append(live.guarded.champion)
    return [sha for sha in dict.fromkeys(asked) if sha]


def guarded_until(system: System, rollout: Rollout) -> datetime:
    """Until when the champion before keeps scoring in shadow after a rollout has become full."""
    return rollout.moved + duration(system.rollout.shadow)


def _choose(mine: NDArray[np.bool_], challenger: Answers | None, champion: Answers | None, n: int) -> Answers:
    """Each row's answer from the bundle that it was routed to."""
    no_row = np.zeros(n, bool)
    nothing = Answers(np.full(n, np.nan), None, np.full(n, routing.NOT_ACTING), no_row, no_row)
    yes, no = challenger or nothing, champion or nothing
    scores = None
    if yes.scores is not None or no.scores is not None:
        width = next(some.shape[1] for some in (yes.scores, no.scores) if some is not None)
        empty = np.full((n, width), np.nan)
        scores = np.where(
            mine[:, None], yes.scores if yes.scores is not None else empty, no.scores if no.scores is not None else empty
        )
    return Answers(
        np.where(mine, yes.score, no.score),
        scores,
        np.where(mine, yes.act, no.act),
        np.where(mine, yes.refused, no.refused),
        np.where(mine, yes.unknown, no.unknown),
    )


def _shadow(
    live: Live, rows: pl.DataFrame, mine: NDArray[np.bool_], said: dict[str, Answers], open_: NDArray[np.bool_]
) -> list[pl.DataFrame]:
    """What the bundles that did not answer would have said and done, and those whose act was left to a person."""
    found = []
    for sha, other in said.items():
        is_challenger = live.rollout is not None and sha == live.rollout.challenger
        if sha == live.champion:
            quiet = mine | open_
        else:
            quiet = ~mine | open_ if is_challenger else np.ones(rows.height, bool)
        if not quiet.any():
            continue
        found.append(_whisper(rows, sha, other).filter(pl.Series(quiet)))
    return found


def _whisper(rows: pl.DataFrame, sha256: str, said: Answers) -> pl.DataFrame:
    """What a bundle says of every row, as rows of ``shadow``."""
    frame = rows.select("_id", "_time").with_columns(
        _release=pl.lit(sha256), _score=_column(said.score), _scores=_lists(said.scores, rows.height), _act=_column(said.act)
    )
    return frame.select(*(pl.col(name).cast(kind) for name, kind in SHADOW.columns.items()))


def with_context(system: System, spine: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """``_id``, ``_time``, ``_unit``, the context columns and the features, in the order of ``spine``."""
    context = [name for name in context_columns(system, spine.columns) if name not in features.columns]
    head = spine.select("_id", pl.col("_time").cast(TIME), units(system, spine), *context)
    return pl.concat([head, features.drop("_id")], how="horizontal")


def units(system: System, spine: pl.DataFrame) -> pl.Series:
    """What is assigned to a variant: the declared column, by default the key; the row's own id where that is null."""
    key = spine["_id"].str.replace(r"@[^@]*$", "")
    own = spine.select(pl.when(key == "").then(pl.col("_id")).otherwise(key).alias("_unit"))["_unit"]
    unit = system.rollout.unit
    if unit is None or unit not in spine.columns:
        return own.alias("_unit")
    return spine[unit].cast(pl.String).fill_null(own).alias("_unit")


def context_columns(system: System, available: list[str]) -> list[str]:
    """The columns of the predicted row that later steps read besides the features.

    They are the key and the unit, those that the label, the outcomes and the baselines are looked up by, the slices, the sensitive
    ones, and those that the value, the outcomes' conditions, the covariate and the time of asking are written in.
    """
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    key = (source.key,) if isinstance(source.key, str) else tuple(source.key)
    wanted = {*key, system.rollout.unit, *system.objective.slices, *system.objective.sensitive}
    for by in (system.label.by, *(outcome.by for outcome in system.outcomes.values())):
        wanted |= _names(by)
    for recipe in system.recipes:
        if isinstance(recipe, Last | Seasonal):
            wanted |= _names(recipe.by)
    for text in (system.objective.value.sql, system.label.observed_when, system.rollout.covariate, system.decide.before):
        wanted |= set(columns_read(text)) if text else set()
    return [name for name in available if name in wanted and not name.startswith("_")]


def _names(by: object) -> set[str]:
    if by is None:
        return set()
    return {by} if isinstance(by, str) else set(by)  # type: ignore[call-overload]  # names, or a mapping from names


def _column(values: Floats) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64).fill_nan(None)


def _lists(values: Floats | None, n: int) -> pl.Series:
    if values is None:
        return pl.Series([None] * n, dtype=pl.List(pl.Float64))
    rows = [row if np.isfinite(row).all() else None for row in values]
    return pl.Series([None if row is None else row.tolist() for row in rows], dtype=pl.List(pl.Float64))


def _acts(system: System, act: pl.Series) -> dict[str, float]:
    """Rows by act (by index into the declared acts); for numeric acts their sum. Null acts count as ``none``."""
    known = act.drop_nulls()
    found: dict[str, float] = {"none": float(act.null_count())} if act.null_count() else {}
    if numeric_act(system):
        return found | ({"sum": float(f"{known.sum():.12g}")} if len(known) else {})
    counted = sorted(Counter(known.to_list()).items())
    return found | {f"{value:g}": float(count) for value, count in counted}
