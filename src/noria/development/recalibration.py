"""The cheaper act: the champion's own model with its calibration, and the threshold of its decision, chosen anew. Nothing is trained.

The part ``validate`` (here: the first half of what closed since the fault) chooses, the part ``test`` (the later half) judges; both come from
``data.recalibration_set``. What comes of it is a candidate like any other: a bundle, an evaluation, a gate, a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from noria import measure
from noria.core import Check, NoriaError, Verdict
from noria.development.calibrate import repair
from noria.development.evaluation import evaluate
from noria.development.frames import rows_of
from noria.development.gate import gate
from noria.development.reference import UNSEEN_PARTS, score_profile
from noria.development.training import golden_rows, metrics_on, train, training_key
from noria.model import Bundle, Model, load, pack
from noria.records import Entry, Gated, Trained, TrainingSet
from noria.store import Home
from noria.system import System

NAME = "recalibrated"


def recalibrate(
    home: Home,
    system: System,
    training: Entry[TrainingSet],
    frames: Mapping[str, pl.DataFrame],
    champion: str,
    *,
    key: str,
) -> Entry[Gated]:
    """Calibrates the champion anew and takes it through the gate, once per ``key``.

    The candidate's settings name the bundle inside it (``recalibrated``). It has to be better than the champion on the rows it was not
    calibrated on. A champion that cannot answer on these rows is not calibrated: the verdict is then *not enough data*.
    """
    there = home.ledger.find(key)
    if there is not None:
        return there  # type: ignore[return-value]  # the key is only used for this kind
    train(home, system, training, frames, tune=False, baselines=True)
    try:
        made = recalibrated(home, system, training, frames, champion)
    except NoriaError as error:
        check = Check(
            "recalibration", Verdict.NOT_ENOUGH_DATA, "champion", detail=f"the champion cannot be asked: {error.message}"
        )
        refused = Gated(candidate=NAME, bundle=champion, verdict=check.verdict, checks=(check,), against=champion)
        return home.commit(refused, key=key, parents=[training.id])
    evaluate(home, system, made, frames, "validate")
    return gate(home, system, made, frames, champion, key=key)


def recalibrated(
    home: Home, system: System, training: Entry[TrainingSet], frames: Mapping[str, pl.DataFrame], champion: str
) -> Entry[Trained]:
    """The candidate: found by its key, or made. Raises what loading the champion and asking it raise."""
    key = training_key(training, NAME)
    known = home.ledger.find(key)
    if known is not None:
        return known  # type: ignore[return-value]  # the key is only used for this kind
    old = load(home.artifacts.get(champion), champion)
    rows = rows_of(system, frames, "validate", old.spec.classes).known()
    raw = Model(old.model.encoder, old.model.predictor)
    said = raw.predict(rows.frame)
    model = Model(raw.encoder, raw.predictor, repair(system, rows, said, old.spec.calibration))
    score = model.calibration.apply(said)
    decision = measure.choose(home.engine, system, score, rows.said, rows.frame, classes=old.spec.classes, weights=rows.weights)
    unseen = [model.predict(frames[part]) for part in UNSEEN_PARTS if part in frames and frames[part].height]
    settings = old.spec.settings | {NAME: champion}
    spec = msgspec.structs.replace(
        old.spec,
        candidate=f"{old.spec.recipe}-{NAME}@{training.id[:12]}",
        settings=settings,
        decision=msgspec.to_builtins(decision),
        reference=old.spec.reference | {"score": score_profile(np.concatenate(unseen))},
        metrics=metrics_on(system, rows, score),
        hashes=old.spec.hashes | {"calibration_set": training.id, "declaration": system.id},
    )
    record = Trained(
        candidate=spec.candidate,
        recipe=spec.recipe,
        baseline=spec.baseline,
        cost=spec.cost,
        settings=settings,
        bundle=home.artifacts.put(pack(spec, model, golden_rows(frames))),
        decision=spec.decision,
        trained_until=_trained_until(home, old, training),
    )
    before = _made(home, champion)
    return home.commit(record, key=key, parents=[training.id, *([before.id] if before is not None else [])])


def _made(home: Home, bundle: str) -> Entry[Trained] | None:
    return next((entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == bundle), None)


def _trained_until(home: Home, old: Bundle, training: Entry[TrainingSet]) -> datetime:
    made = _made(home, old.sha256)
    return made.record.trained_until if made is not None else training.record.parts[0].window.end
