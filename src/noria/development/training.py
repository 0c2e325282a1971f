"""Training: every baseline and candidate on the training part, repaired and made to decide on the validation part, packed and kept.

Each candidate is one effect with one key: a training that was killed takes up where it stopped, and gives the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Conflict, DataFault, Verdict, digest
from noria.development import tuning
from noria.development.blending import blendable, blended
from noria.development.calibrate import repair
from noria.development.frames import Floats, Frames, Rows, classes_of, kept, listed, part_of, rounded, rows_of, seed_of, spaced
from noria.development.recipes import Task, fit, names, task_of
from noria.development.reference import UNSEEN_PARTS, loss_profile, reference, score_profile
from noria.development.warm import SUFFIX, Start, go_on, start_from, why_not
from noria.development.workers import run
from noria.model import GOLDEN_ROWS, Constant, Model, Spec, load, pack
from noria.records import Entry, Reproduced, Trained, TrainingSet, Tuned
from noria.store import Home
from noria.system import Boosting, Candidate, Linear, Prior, System

_PAPERS = ("state", "from", "rows")
"""What the settings of a candidate say of where it went on from: the rest is what it was fitted with."""


def training_key(training: Entry[TrainingSet], name: str) -> str:
    """The key of a candidate: ``trained/<training set>/<name>``."""
    return f"trained/{training.id[:16]}/{name}"


def train(
    home: Home,
    system: System,
    training: Entry[TrainingSet],
    frames: Mapping[str, pl.DataFrame],
    *,
    tune: bool,
    champion: str | None = None,
    baselines: bool = False,
) -> list[Entry[Trained]]:
    """Trains every baseline and candidate of the declaration, in its order; a ``Prior`` is added when there is no baseline.

    Parameters
    ----------
    training, frames:
        The training set and its parts as frames: ``_id``, ``_time``, features, context columns, ``_label`` or ``_class``, ``_weight``, and the
        columns of earlier labels that baselines read.
    tune:
        Search for settings. Otherwise those of the last search for the same recipe and declaration are used; without one, a search is
        made. Every recipe gets the same number of trials: the most that any declares.
    champion:
        The bundle in force, which ``Retrain.state`` may ask to go on from; the state of each candidate is in its settings then.
    baselines:
        Train the baselines only.

    Everything is learned on the part ``train``, except what is chosen on ``validate``: settings, calibration, the decision's threshold. Raises
    ``DataFault`` when a part is missing or has no labels.
    """
    asked = names(system)
    if not any(recipe.is_baseline for recipe in asked.values()):
        asked = {"prior": Prior(), **asked}
    if baselines:
        asked = {name: recipe for name, recipe in asked.items() if recipe.is_baseline}
    elif system.retrain.state == "compare":
        warm = {f"{name}{SUFFIX}": recipe for name, recipe in asked.items() if isinstance(recipe, Linear | Boosting)}
        asked = asked | (warm if champion is not None else {})
    lacking = [part for part in ("train", "validate") if part not in frames]
    found = {name: _known(home, training, name) for name in asked}
    if lacking and any(entry is None for entry in found.values()):
        raise DataFault(f"the training set lacks {listed(lacking)}", hint=f"it has {listed(frames)}")
    if all(entry is not None for entry in found.values()):
        return [entry for entry in found.values() if entry is not None]
    desk = _desk(home, system, training, frames, champion)
    jobs = [job for name in asked if found[name] is None and (job := _job(desk, name, asked[name], tune=tune)) is not None]
    models = run([job.fit for job in jobs], home.settings.threads)
    shared = reference(system, frames, training.record.columns)
    for job, model in zip(jobs, models, strict=True):
        made = _packed(desk, _spec(desk, job.name, asked[job.name], job.settings | job.state), model, shared)
        parents = [entry.id for entry in (training, job.tuned) if entry is not None]
        found[job.name] = home.commit(made, key=training_key(training, job.name), parents=parents)
    return [entry for entry in found.values() if entry is not None]


def reproduce(
    home: Home, system: System, trained: Entry[Trained], training: Entry[TrainingSet], frames: Mapping[str, pl.DataFrame]
) -> Entry[Reproduced]:
    """Trains a candidate again with its settings from its training set, and records whether the bundle is the same byte by byte.

    Raises ``Conflict`` when the declaration in force has no such recipe, or another one than it was trained under.
    """
    record = trained.record
    base = record.recipe.removesuffix(SUFFIX)
    recipe, known = names(system).get(base), load(home.artifacts.get(record.bundle), record.bundle).spec
    if recipe is None or training.record.features != known.hashes.get("features", "") or "recalibrated" in record.settings:
        raise Conflict(
            f"{record.candidate} was not trained by this declaration from this training set",
            hint="name the file that it was trained from; what was only calibrated anew is reproduced with its training",
        )
    settings = {name: value for name, value in record.settings.items() if name not in _PAPERS}
    going_on = record.settings.get("state") == "stateful"
    desk = _desk(home, system, training, frames, str(record.settings["from"]) if going_on else None)
    seed = seed_of("trained", training.id)
    anew = partial(fit, desk.task, recipe, settings, seed)
    job = partial(go_on, desk.task, recipe, settings, seed, desk.start) if going_on and desk.start is not None else anew
    model = run([job], 1)[0]
    shared = reference(system, frames, training.record.columns)
    again = _packed(desk, _spec(desk, record.recipe, recipe, dict(record.settings)), model, shared)
    same = again.bundle == record.bundle
    made = Reproduced(
        candidate=record.candidate,
        bundle=record.bundle,
        again=again.bundle,
        verdict=Verdict.PASS if same else Verdict.FAIL,
        says="the same byte by byte" if same else f"another bundle, {again.bundle[:12]} instead of {record.bundle[:12]}",
    )
    return home.commit(made, key=f"reproduced/{record.bundle}/{home.clock.now().isoformat()}", parents=[trained.id, training.id])


@dataclass(frozen=True)
class _Job:
    """One candidate to be fitted: with which settings, from which search, and from where it goes on (``state``, for the papers)."""

    name: str
    fit: Callable[[], Model]
    settings: dict[str, Any]
    state: dict[str, Any]
    tuned: Entry[Tuned] | None


def _job(desk: _Desk, name: str, recipe: Candidate, *, tune: bool) -> _Job | None:
    """``None`` for the second of two candidates (``compare``) where going on is not possible: it would be the first again."""
    base, state = name.removesuffix(SUFFIX), desk.system.retrain.state
    tuned = _tuned(desk, base, recipe, tune=tune)
    settings = dict(tuned.record.best) if tuned is not None else {}
    seed = seed_of("trained", desk.training.id)
    anew = partial(fit, desk.task, recipe, settings, seed)
    if state == "stateless" or recipe.is_baseline:
        return _Job(name, anew, settings, {}, tuned)
    if state == "compare" and name == base:
        return _Job(name, anew, settings, {"state": "stateless"}, tuned)
    why = why_not(desk.task, base, recipe, desk.start)
    if why or desk.start is None:
        return None if state == "compare" else _Job(name, anew, settings, {"state": f"stateless: {why}"}, tuned)
    papers = {"state": "stateful", "from": desk.start.bundle, "rows": desk.start.newer(desk.task.train).n}
    return _Job(name, partial(go_on, desk.task, recipe, settings, seed, desk.start), settings, papers, tuned)


@dataclass(frozen=True)
class _Desk:
    """What every candidate of one training needs."""

    home: Home
    system: System
    training: Entry[TrainingSet]
    frames: Frames
    task: Task
    validate: Rows
    start: Start | None


def _desk(home: Home, system: System, training: Entry[TrainingSet], frames: Frames, champion: str | None = None) -> _Desk:
    classes = classes_of(system, frames)
    task = task_of(system, rows_of(system, frames, "train", classes), training.record.columns, classes)
    validate = rows_of(system, frames, "validate", classes).known()
    if validate.n == 0:
        raise DataFault("no row of the validation part has a label", hint="look at the label's expression and its source")
    start = start_from(home, champion) if system.retrain.state != "stateless" else None
    return _Desk(home, system, training, frames, task, validate, start)


def _known(home: Home, training: Entry[TrainingSet], name: str) -> Entry[Trained] | None:
    entry = home.ledger.find(training_key(training, name))
    return entry if entry is not None and isinstance(entry.record, Trained) else None  # type: ignore[return-value]  # just looked at


def _tuned(desk: _Desk, name: str, recipe: Candidate, *, tune: bool) -> Entry[Tuned] | None:
    """The search that a candidate's settings are from: made now, or the last one."""
    if not tuning.tunable(recipe):
        return None
    ledger, prefix = desk.home.ledger, f"tuned/{desk.system.id[:16]}/{name}/"
    last = None if tune else ledger.latest(Tuned, prefix=prefix)
    if last is not None:
        return last
    key = prefix + desk.training.id[:16]
    there = ledger.find(key)
    if there is not None:
        return there  # type: ignore[return-value]  # the key is only used for this kind
    made = tuning.search(desk.task, desk.validate, name, recipe, threads=desk.home.settings.threads)
    return desk.home.commit(made, key=key, parents=[desk.training.id])


def _spec(desk: _Desk, name: str, recipe: Candidate, settings: dict[str, Any]) -> Spec:
    training, system = desk.training, desk.system
    return Spec(
        system=system.name,
        candidate=f"{name}@{training.id[:12]}",
        recipe=name,
        task=system.task,
        baseline=recipe.is_baseline,
        cost=recipe.cost,
        classes=desk.task.classes,
        settings=settings,
        hashes={
            "training_set": training.id,
            "features": training.record.features,
            "declaration": system.id,
            "candidates": digest(system.spec()["candidates"]),
        },
    )


def _packed(desk: _Desk, spec: Spec, model: Model, shared: dict[str, Any]) -> Trained:
    """Calibrates, decides, adds the papers, and keeps the archive."""
    system, validate, frames = desk.system, desk.validate, desk.frames
    raw = model.predict(validate.frame)
    if not isinstance(model.predictor, Constant):
        model = Model(model.encoder, model.predictor, repair(system, validate, raw))
    if blendable(system, model, desk.task, baseline=spec.baseline):
        model = blended(desk.task, frames, model, spec)
        raw = model.predict(validate.frame)
    score = model.calibration.apply(raw)
    decision = measure.choose(
        desk.home.engine, system, score, validate.said, validate.frame, classes=spec.classes, weights=validate.weights
    )
    profiled = msgspec.convert(shared["profile"], measure.Profile)
    unseen = [model.predict(frames[part]) for part in UNSEEN_PARTS if part in frames and frames[part].height]
    papers = msgspec.structs.replace(
        spec,
        decision=msgspec.to_builtins(decision),
        reference=shared
        | {"score": score_profile(np.concatenate(unseen))}
        | {"loss": loss_profile(profiled, validate.frame, _losses(system, validate, score))},
        metrics=metrics_on(system, validate, score),
    )
    return Trained(
        candidate=spec.candidate,
        recipe=spec.recipe,
        baseline=spec.baseline,
        cost=spec.cost,
        settings=spec.settings,
        bundle=desk.home.artifacts.put(pack(papers, model, golden_rows(frames))),
        decision=papers.decision,
        trained_until=_trained_until(desk.training, frames),
    )


def _losses(system: System, rows: Rows, score: Floats) -> Floats | None:
    """Each row's loss by the objective's metric, or by one that is a mean over rows where it is none."""
    quantile = measure.parse_policy(system.decide.policy).quantile
    instead = {"binary": "log_loss", "multiclass": "log_loss"}.get(system.task, "mae")
    for metric in (system.objective.metric, instead):
        loss = stats.row_loss(metric, rows.label, score, quantile=quantile)
        if loss is not None:
            return loss
    return None


def metrics_on(system: System, rows: Rows, score: Floats) -> dict[str, Any]:
    """The objective's metric on a part, for the papers."""
    metric = system.objective.metric
    quantile = measure.parse_policy(system.decide.policy).quantile
    made = stats.estimate(
        metric, rows.label, score, rows.blocks, weights=rows.weights, quantile=quantile, least=system.gate.blocks
    )
    return {rows.name: {metric: msgspec.to_builtins(kept(made))}, "n": rows.n, "base": rounded(float(np.mean(rows.label)))}


def golden_rows(frames: Frames) -> pl.DataFrame:
    """Rows that a bundle proves itself on: spread over the validation part, and one with nothing in it."""
    frame = frames["validate"]
    chosen = frame[spaced(frame.height, GOLDEN_ROWS - 1)]
    return pl.concat([chosen, pl.DataFrame({name: [None] for name in frame.columns}, schema=frame.schema)])


def _trained_until(training: Entry[TrainingSet], frames: Frames) -> datetime:
    part = part_of(training, "train")
    if part is not None:
        return part.window.end
    last = frames["train"].get_column("_time").max()
    assert isinstance(last, datetime)
    return last
