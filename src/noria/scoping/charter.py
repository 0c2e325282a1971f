"""The charter: whether ML is worth it here, with everything the answer rests on."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict, duration
from noria.measure import blocks_of, closed
from noria.records import Charter, CohortClosed, Declared, Entry, Standing
from noria.scoping import fitness, framing, money
from noria.scoping.checks import (
    LEAST_EACH,
    LEAST_ROWS,
    PROBES,
    Findings,
    enough_data,
    label_counts,
    learnable,
    least_blocks,
    no_lookup,
    no_rule,
    pays,
    statements,
)
from noria.scoping.probe import Study
from noria.scoping.study import prepare, try_everything
from noria.scoping.worth import break_even, policy_standings, stakes, value_of
from noria.stats import block_mean, compute, estimate
from noria.system import AtLeast, System

if TYPE_CHECKING:
    from noria.store.engine import Engine
    from noria.store.home import Home


def due(home: Home, system: System, now: datetime) -> bool:  # noqa: ARG001  every step is asked with the time
    """Whether a charter should be written: there is none for this declaration and the closed labels suffice.

    Binary labels: 100 true and 100 false; others: 1,000 labels; over at least twice the gate's blocks. Anything but a
    clear go is looked at again when the closed cohorts have doubled.
    """
    standing = home.ledger.latest(Charter, prefix=f"charter/{system.id}")
    if standing is not None and standing.record.decision == "go":
        return False
    cohorts = home.ledger.count(CohortClosed, prefix="cohort/")
    needed = least_blocks(system)
    if standing is not None:
        needed = max(needed, 2 * int(standing.record.labels.get("cohorts", needed)))
    if cohorts < needed and duration(system.every) <= duration(system.gate.block):
        return False
    newest = {entry.record.window: entry.record for entry in home.ledger.read(CohortClosed)}
    ends = pl.Series([window.end for window in newest], dtype=pl.Datetime("us", "UTC"))
    if len(newest) == 0 or len(np.unique(blocks_of(ends, system.gate.block))) < least_blocks(system):
        return False
    if standing is not None and len(newest) < needed:
        return False
    labelled = sum(record.labelled for record in newest.values())
    if system.task != "binary":
        return labelled >= LEAST_ROWS
    positive = sum(round((record.mean or 0.0) * record.labelled) for record in newest.values())
    return min(positive, labelled - positive) >= LEAST_EACH


def charter(home: Home, system: System, now: datetime) -> Entry[Charter] | None:
    """Writes the charter when it is due; ``None`` when there are not enough closed labels or it is written already. The one before is a parent.

    Raises ``DeclarationError`` without a business problem, an owner for each source, a baseline, or with an output of the wrong type.
    """
    framing.refuse_unfounded(system)
    if not due(home, system, now):
        return None
    frame = closed(home, system)
    entries = home.ledger.read(CohortClosed)
    cohorts = len({entry.record.window for entry in entries})
    record = examine(home.engine, system, frame, cohorts=cohorts)
    declared = home.ledger.latest(Declared)
    parents = [entry.id for entry in (declared, entries[-1], home.ledger.latest(Charter)) if entry is not None]
    return home.commit(record, key=f"charter/{system.id}/{cohorts}", parents=parents)


def examine(engine: Engine, system: System, frame: pl.DataFrame, *, cohorts: int = 0) -> Charter:
    """The charter of these closed predictions (as ``measure.closed`` gives them), unwritten: a function of its arguments."""
    framing.refuse_unfounded(system)
    study, found = prepare(system, frame), Findings()
    counts = label_counts(system, study)
    found.add(framing.output_check(study), stop="the label's values are not of the declared type")
    enough = found.add(enough_data(system, study, counts), stop="there are too few labels to learn from")
    if system.task != "regression":
        found.add(framing.cardinality_check(counts), limit="some classes have too few examples to be learned")
    for check in framing.target_checks(system):
        found.add(check, limit=check.detail)
    statements(system, found)
    try_everything(engine, system, study)
    best = learnable(study, found, least=system.gate.blocks)
    no_lookup(system, study, found)
    no_rule(system, study, best, found)
    standings = policy_standings(engine, system, study)
    even, base = break_even(engine, system, study), _base_rate(system, study)
    pays(engine, system, study, found, best=best, even=even)
    record = Charter(
        declaration=system.id,
        decision=found.decision,
        reasons=tuple(found.stops + found.limits) or ("it is learnable, and deciding by it pays",),
        checks=tuple(found.checks),
        fitness=fitness.score(_traits(system, study, found, enough)),
        task=system.task,
        framing=framing.describe(system),
        alternatives=framing.alternatives(system, study),
        base_rate=base,
        labels=_labels(frame, study, counts) | {"cohorts": float(cohorts)},
        baselines=_baselines(engine, system, study),
        policies=standings,
        break_even=even,
        reachable=_reachable(system, study, best),
        requirements=_requirements(engine, system, frame, study, base),
    )
    return _rounded(record)


# ------------------------------------------------------------------------------------------------------ what is reported


def _traits(system: System, study: Study, found: Findings, enough: Check) -> fitness.Traits:
    passed = {check.name: check.verdict is Verdict.PASS for check in found.checks}
    said = system.objective.fitness
    return fitness.Traits(
        learnable=float(passed.get("learnable", False)),
        enough_data=min(1.0, len(study.label) / 10_000) if enough.verdict is Verdict.PASS else 0.0,
        worth_it=float(passed.get("pays", False)),
        cheap_errors=float(said.cheap_errors),
        repetitive=float(said.repetitive),
        at_scale=float(said.at_scale),
        changing_patterns=float(said.changing_patterns),
    )


def _base_rate(system: System, study: Study) -> Estimate:
    """The mean label; for several classes the share of the most frequent."""
    label = study.label
    if system.task == "multiclass" and len(label):
        shares = np.bincount(study.raw.astype(int), study.weights)
        label = (study.raw == int(shares.argmax())).astype(float)
    return block_mean(label, study.blocks, weights=study.weights, least=system.gate.blocks)


def _reachable(system: System, study: Study, best: str | None) -> Estimate | None:
    """The discrimination that the best probe reached, in the units of the break-even: AUC, or R²."""
    metric = {"binary": "auc", "regression": "r2"}.get(system.task)
    if best is None or metric is None:
        return None
    rows, least = study.late, system.gate.blocks
    return estimate(metric, study.label[rows], study.scores[best], study.blocks[rows], weights=study.weights[rows], least=least)


def _labels(frame: pl.DataFrame, study: Study, counts: dict[str, int]) -> dict[str, float]:
    """How many, how many a day, and how late: quantiles of the delay in hours among the labels that came."""
    made = {"predictions": float(frame.height), "labelled": float(study.frame.height)}
    made |= {f"n_{name}": float(n) for name, n in counts.items()} if len(counts) <= 2 else {"classes": float(len(counts))}
    hours = (study.frame["_known"] - study.frame["_time"]).dt.total_microseconds().drop_nulls().to_numpy() / 3.6e9
    made["silent"] = float(study.frame["_known"].null_count())
    if len(hours):
        made |= {f"delay_p{q}_hours": float(np.quantile(hours, q / 100)) for q in (10, 50, 90, 99)}
    if len(study.blocks):
        made["blocks"] = float(len(np.unique(study.blocks)))
    return made


def _baselines(engine: Engine, system: System, study: Study) -> tuple[Standing, ...]:
    """Every trivial baseline and both probes, on the later half, by the declared metric and by value."""
    if not study.scores:
        return ()
    label, blocks, weights = study.label[study.late], study.blocks[study.late], study.weights[study.late]
    made = []
    for name, score in study.scores.items():
        metric = estimate(
            system.objective.metric, label, score, blocks, weights=weights, quantile=study.quantile, least=system.gate.blocks
        )
        worth = value_of(engine, system, study, score, least=system.gate.blocks)
        made.append(Standing(name, metric, worth))
    return tuple(made)


def _requirements(engine: Engine, system: System, frame: pl.DataFrame, study: Study, base: Estimate) -> dict[str, float]:
    """What later steps have to hold to, as numbers, and what a better metric is worth.

    ``at_least_…`` and ``at_most_…`` are the guardrails, ``predictions_a_day`` the load. ``auc`` is what the best probe reached, and
    ``day_per_auc_point…`` what one hundredth more brings a day, as a range over the base rate's interval.
    """
    made: dict[str, float] = {}
    for rail in system.objective.guardrails:
        made[f"{'at_least' if isinstance(rail, AtLeast) else 'at_most'}_{rail.metric}"] = float(rail.bound)
    if system.objective.target is not None:
        made["target"] = float(system.objective.target)
    if frame.height == 0:
        return made
    blocks = len(np.unique(blocks_of(frame["_time"], system.gate.block)))
    made["predictions_a_day"] = frame.height / (blocks * duration(system.gate.block).total_seconds() / 86400)
    found = stakes(engine, system, study)
    aucs = [compute("auc", study.label[study.late], study.scores[name]) for name in PROBES if name in study.scores and found]
    if found is None or not aucs or not np.isfinite(max(aucs)):
        return made
    made["auc"] = max(aucs)
    brings = money.gain_between(made["auc"], made["auc"] + 0.01, base, *found[1:], predictions=made["predictions_a_day"])
    ends = {"": brings.value, "_low": brings.low, "_high": brings.high}
    return made | {f"day_per_auc_point{end}": value for end, value in ends.items() if value is not None}


def _rounded(record: Charter) -> Charter:
    """The charter with every float cut to 9 significant digits, which the order of threads cannot change."""

    def cut(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.9g}") if np.isfinite(value) else None
        if isinstance(value, dict):
            return {name: cut(item) for name, item in value.items()}
        return [cut(item) for item in value] if isinstance(value, list | tuple) else value

    return msgspec.convert(cut(msgspec.to_builtins(record)), Charter)
