"""From closed predictions to a study: labels as numbers, weights, blocks, the two halves, and the scores of everything tried."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import NoriaError, duration
from noria.measure import blocks_of, usable
from noria.scoping import probe
from noria.scoping.probe import MOST_CLASSES, OTHER, Floats, Study
from noria.system import Last, Rule, System

if TYPE_CHECKING:
    from noria.store.engine import Engine

MOST_ROWS = 60_000


def matures(system: System) -> timedelta:
    """How long after asking a label is closed."""
    label = system.label
    return duration(label.horizon) + duration(label.within) + duration(label.lateness)


def prepare(system: System, frame: pl.DataFrame) -> Study:
    """A study of the rows of ``measure.closed``; of more than 60,000, every k-th."""
    rows = usable(system, frame).sort("_time", "_id")
    if rows.height > MOST_ROWS:
        rows = rows.gather_every(-(-rows.height // MOST_ROWS))
    classes: tuple[str, ...] = ()
    if system.task == "multiclass":
        raw, label, classes = _class_numbers(rows["_class"])
    else:
        raw = label = rows["_label"].cast(pl.Float64).to_numpy()
    blocks = blocks_of(rows["_time"], system.gate.block)
    times = rows["_time"].dt.timestamp("us").to_numpy()
    early, late = probe.halves(times, blocks, matures(system))
    words = system.decide.policy.split()
    return Study(
        task=system.task,
        frame=rows,
        features=tuple(f.name for f in system.flat_features if f.name in rows.columns),
        label=label,
        raw=raw,
        weights=rows["_weight"].to_numpy(),
        blocks=blocks,
        early=early,
        late=late,
        classes=classes,
        metric=_metric(system),
        quantile=float(words[1]) if words[:1] == ["quantile"] else None,
    )


def _metric(system: System) -> str:
    """What learnability is measured by: a proper score, or the regression's own."""
    if system.task != "regression":
        return "log_loss"
    return system.objective.metric if system.objective.metric in ("mae", "pinball") else "rmse"


def _class_numbers(names: pl.Series) -> tuple[Floats, Floats, tuple[str, ...]]:
    """(all classes as numbers, the frequent ones as numbers with the rest as one, the names of the latter)."""
    counts = names.value_counts().rename({names.name: "value"}).sort(["count", "value"], descending=[True, False])
    every = counts["value"].to_list()
    top = sorted(every[:MOST_CLASSES])
    classes = tuple(top) + ((OTHER,) if len(every) > MOST_CLASSES else ())
    full = {name: float(i) for i, name in enumerate(sorted(every))}
    short = {name: float(i) for i, name in enumerate(top)}
    texts = names.to_list()
    return np.array([full[t] for t in texts]), np.array([short.get(t, float(len(top))) for t in texts]), classes


def try_everything(engine: Engine, system: System, study: Study) -> None:
    """Fills ``study.scores``: ``prior``, the declared ``Last`` and ``Rule`` baselines, and the probes."""
    if len(study.early) == 0 or len(study.late) == 0:
        return
    study.scores["prior"] = probe.prior(study)
    for each in [recipe for recipe in system.recipes if isinstance(recipe, Last)] or [Last()]:
        by = [each.by] if isinstance(each.by, str) else list(each.by)
        if all(name in study.frame.columns for name in by):
            last = probe.last_labels(study, by, matures(system))
            study.scores["last by " + ", ".join(by) if by else "last"] = probe.score_of_last(study, last)
    for recipe in system.recipes:
        if isinstance(recipe, Rule):
            made = _rule(engine, recipe, study)
            if made is not None:
                study.scores[recipe.name] = made
    study.scores |= probe.fit_probes(study)


def _rule(engine: Engine, rule: Rule, study: Study) -> Floats | None:
    rows = study.frame.with_columns(pl.int_range(study.frame.height, dtype=pl.Int64).alias("_place"))
    try:
        found = engine.sql(f"select cast(({rule.expression}) as double) as s from rows order by _place", rows=rows)
    except NoriaError:
        return None  # `noria check` names what is wrong with it; scoping goes on without
    return probe.calibrated_rule(study, found["s"].fill_null(float("nan")).to_numpy())


def rules_of(system: System, study: Study) -> tuple[str, ...]:
    """The names among ``study.scores`` that need no learning to speak of: declared rules, last labels, one feature."""
    named = {recipe.name for recipe in system.recipes if isinstance(recipe, Rule)}
    return tuple(name for name in study.scores if name in named or name.startswith("last") or name == "one feature")
