"""Which labels of a training set are probably wrong, from predictions that never saw them, and who gave them.

Every row is predicted by a model of the rows of other stretches of time: five folds in time order, each predicted from the ones before it (the first,
which has none, from the second), so that a label never speaks for itself or for its neighbours of the same day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Estimate, duration, micros, quoted
from noria.development.frames import Floats, Frames, Rows, kept, rows_of, seed_of, spaced
from noria.development.recipes import DEFAULTS, fit, task_of
from noria.development.workers import run
from noria.store import Home
from noria.system import Boosting, Request, System
from noria.tables import LABELS, source_table

FOLDS = 5
MOST_ROWS = 20_000
MOST_GROUPS = 50
LEAST_IN_GROUP = 50


@dataclass(frozen=True)
class LabelErrors:
    """``rows`` were predicted out of fold with ``score``; ``doubted`` are places of suspicious labels, the most doubtful first.

    ``groups`` has for ``column=value`` of the label's source the share of its labels turned around, beyond what its rows explain (Bonferroni over
    groups); ``noise`` is the share of all labels shown to be wrong by that.
    """

    rows: Rows
    score: Floats
    doubted: NDArray[np.int64]
    groups: Mapping[str, Estimate]
    noise: Estimate
    by: pl.DataFrame

    @property
    def bad_groups(self) -> list[str]:
        """The groups whose labels are wrong beyond chance, the worst first."""
        found = [name for name, made in self.groups.items() if made.above(0.0)]
        return sorted(found, key=lambda name: (-(self.groups[name].value or 0.0), name))

    def table(self) -> pl.DataFrame:
        """The doubted labels as a file for the people who look at them again: id, what was said, what is likelier, how sure, who said it."""
        places = self.doubted
        shown = pl.DataFrame(
            {
                "id": self.rows.frame["_id"].gather(places),
                "label": self.rows.label[places] == 1,
                "likelier": self.rows.label[places] != 1,
                "chance": np.abs(self.rows.label[places] - self.score[places]).round(6),
            }
        )
        return pl.concat([shown, self.by[places]], how="horizontal") if self.by.width else shown


def label_errors(home: Home, system: System, frames: Frames, columns: tuple[str, ...]) -> LabelErrors | None:
    """Looks for wrong labels in all parts of a training set; ``None`` unless the task is binary and there is enough to predict from.

    At most 20,000 rows are looked at, evenly spaced. Deterministic.
    """
    if system.task != "binary":
        return None
    rows = _all(system, frames)
    rows = rows.take(spaced(rows.n, MOST_ROWS))
    if rows.block_count < 2 * FOLDS or len(np.unique(rows.label)) < 2:
        return None
    score = out_of_fold(home, system, rows, columns)
    known = np.isfinite(score)
    if known.sum() < 100 or len(np.unique(rows.label[known])) < 2:
        return None
    rows, score = rows.take(known), score[known]
    both = np.column_stack([1 - score, score])
    doubted = stats.suspects(rows.label.astype(np.int64), both)
    by = _said_by(home, system, rows.frame)
    groups = _groups(by, rows, score)
    return LabelErrors(rows, score, doubted, groups, _noise(by, groups), by)


def out_of_fold(home: Home, system: System, rows: Rows, columns: tuple[str, ...]) -> Floats:
    """A probability for each row from models that saw neither it nor its time; NaN where there is none."""
    blocks = np.unique(rows.blocks)
    fold = np.searchsorted(blocks, rows.blocks) * FOLDS // len(blocks)
    score = np.full(rows.n, np.nan)
    recipe, seed = Boosting(), seed_of("out of fold", rows.n)

    def one(k: int) -> Floats:
        seen = fold < k if k else fold == 1
        train = rows.take(seen)
        if len(np.unique(train.label)) < 2:
            return np.full(int((fold == k).sum()), np.nan)
        task = task_of(system, train, columns, ())
        model = fit(task, recipe, DEFAULTS["Boosting"], seed + k)
        return np.asarray(model.predict(rows.take(fold == k).frame), float)

    jobs = [(lambda k=k: one(k)) for k in range(FOLDS)]
    for k, found in enumerate(run(jobs, home.settings.threads)):
        score[fold == k] = found
    return score


def _all(system: System, frames: Frames) -> Rows:
    """The rows of all parts with a label, in time order."""
    names = [name for name in ("train", "validate", "test", "fresh") if name in frames and frames[name].height]
    whole = pl.concat([frames[name] for name in names], how="vertical_relaxed").sort("_time", "_id")
    return rows_of(system, {"all": whole}, "all").known()


# ------------------------------------------------------------------------------------------------------------ who said it


def _said_by(home: Home, system: System, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns that tell who or what a label came from, one row for each of ``frame``: texts of the label's source with few values, and ``by`` of
    labels that were given outright.
    """
    made = pl.DataFrame({"_id": frame["_id"]})
    table = source_table(system.label.source.name)
    known = home.lake.schema(table) or {}
    pairs = measure.by_pairs(system.label, measure.predicted_keys(system))
    texts = [name for name, kind in known.items() if kind == pl.String and not name.startswith("_")]
    own = set() if isinstance(system.predict, Request) else set(frame.columns)
    texts = [name for name in texts if name not in {theirs for _, theirs in pairs} and name not in own]
    if texts and all(mine in frame.columns for mine, _ in pairs):
        made = made.join(_of_source(home, system, frame, pairs, texts), on="_id", how="left", maintain_order="left")
    if home.lake.schema(LABELS.name) is not None:
        given = home.lake.read(LABELS.name, columns=["_id", "_by", "_known"]).drop_nulls(["_id", "_by"]).sort("_known")
        given = given.unique("_id", keep="last", maintain_order=True).select("_id", pl.col("_by").alias("by"))
        if not given.is_empty():
            made = made.join(given, on="_id", how="left", maintain_order="left")
    kept_columns = [c for c in made.columns if c != "_id" and 1 < made[c].n_unique() <= MOST_GROUPS]
    return made.select(kept_columns)


def _of_source(
    home: Home, system: System, frame: pl.DataFrame, pairs: tuple[tuple[str, str], ...], texts: list[str]
) -> pl.DataFrame:
    label = system.label
    start, end = duration(label.horizon), duration(label.horizon) + duration(label.within)
    first, last = frame["_time"].min(), frame["_time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    scan = home.lake.scan(source_table(label.source.name))
    same = " and ".join(f"cast(f.{quoted(mine)} as varchar) = cast(s.{quoted(theirs)} as varchar)" for mine, theirs in pairs)
    micro = 1_000_000
    query = f"""
        select f._id, {", ".join(f"s.{quoted(name)}" for name in texts)} from f join s on {same}
        and epoch_us(s._time) > epoch_us(f._time) + {int(start.total_seconds() * micro)}
        and epoch_us(s._time) <= epoch_us(f._time) + {int(end.total_seconds() * micro)}
        where s._time > make_timestamptz({micros(first) - 1}) and s._time <= make_timestamptz({micros(last) + int(end.total_seconds() * micro)})
        qualify row_number() over (partition by f._id order by s._time, s._row) = 1
    """
    rows = frame.select("_id", "_time", *dict.fromkeys(mine for mine, _ in pairs))
    return home.engine.sql(query, f=rows, s=scan)


def _groups(by: pl.DataFrame, rows: Rows, score: Floats) -> dict[str, Estimate]:
    """For each group that is large enough, the share of its labels that were turned around."""
    wanted: list[tuple[str, NDArray[np.bool_]]] = []
    for column in by.columns:
        counts = by[column].drop_nulls().value_counts(name="n").filter(pl.col("n") >= LEAST_IN_GROUP)
        for value in sorted(counts[column].to_list()):
            mask = (by[column] == value).fill_null(False).to_numpy()
            if mask.sum() < rows.n:
                wanted.append((f"{column}={value}", mask))
    confidence = 1 - 0.05 / max(len(wanted), 1)
    return {name: kept(stats.excess_flips(rows.label, score, mask, rows.blocks, confidence=confidence)) for name, mask in wanted}


def _noise(by: pl.DataFrame, groups: Mapping[str, Estimate]) -> Estimate:
    """The share of all labels that are shown to be wrong: over the column whose groups show most."""
    best = Estimate(None)
    for column in by.columns:
        found = [(name, made) for name, made in groups.items() if name.startswith(f"{column}=")]
        if not any(made.known for _, made in found):
            continue
        total = [0.0, 0.0, 0.0]
        blocks = 0
        for name, made in found:
            if made.above(0.0) and made.value is not None and made.low is not None and made.high is not None:
                share = float((by[column] == name.partition("=")[2]).fill_null(False).mean() or 0.0)  # type: ignore[arg-type]
                total = [t + share * x for t, x in zip(total, (made.value, made.low, made.high), strict=True)]
                blocks = max(blocks, made.n)
        if best.value is None or total[0] > best.value:
            best = Estimate(total[0], total[1], total[2], blocks)
    return kept(best)
