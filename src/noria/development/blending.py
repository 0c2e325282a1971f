"""Decoupled objectives: a model for each outcome that is combined with the label's, and other weights for models that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Check, DataFault, Estimate, NotEnoughData, Refused, Verdict, Window, digest, duration, overall
from noria.development.frames import Floats, Frames, Rows, kept, rows_of, seed_of
from noria.development.recipes import DEFAULTS, Task, fit
from noria.development.reference import score_profile
from noria.measure import Decision
from noria.model import Blend, Bundle, Model, Spec, load, masked, pack
from noria.records import Entry, Gated, Trained, TrainingSet
from noria.store import Home
from noria.system import Boosting, Candidate, Linear, System


def blendable(system: System, model: Model, task: Task, *, baseline: bool) -> bool:
    """Whether a candidate gets the outcomes' models: it learned, and reads what they read."""
    return system.combine is not None and not baseline and bool(model.encoder.names) and model.encoder == task.encoder


def blended(task: Task, frames: Frames, model: Model, spec: Spec) -> Model:
    """The model of the label and one of each combined outcome, of the same recipe and settings (an estimator's outcomes get linear ones)."""
    system = task.system
    weights = dict(system.combine.weights) if system.combine is not None else {}
    parts = {name: _of_outcome(task, frames, name, spec) for name in sorted(weights)}
    predictor = Blend(model.predictor, model.calibration, {name: part.predictor for name, part in parts.items()}, weights)
    return Model(task.encoder, predictor)


def _of_outcome(task: Task, frames: Frames, name: str, spec: Spec) -> Model:
    system, rows = task.system, rows_of(task.system, frames, "train")
    if name not in rows.frame.columns:
        raise DataFault(f"the training set has no outcome {name!r}", hint="declare it in System(outcomes=...)")
    target = measure.numbers_of(rows.frame[name])
    own = Rows(rows.name, rows.frame, target, target, rows.weights, rows.blocks).known()
    if own.n == 0:
        raise DataFault(f"no row of the training part has the outcome {name!r}", hint="look at its expression and its source")
    regression = replace(
        system, label=replace(system.label, task="regression"), objective=replace(system.objective, metric="rmse"), combine=None
    )
    recipe: Candidate = next((one for one in system.recipes if one.name == spec.recipe.rstrip("_0123456789")), Linear())
    if not isinstance(recipe, Linear | Boosting):
        recipe = Linear()
    settings = dict(spec.settings) if spec.settings and type(recipe).__name__ in DEFAULTS else {}
    settings = settings or dict(DEFAULTS[type(recipe).__name__])
    mine = Task(regression, own, task.columns, (), task.encoder, masked(task.encoder, task.encoder.encode(own.frame)))
    return fit(mine, recipe, settings, seed_of("outcome", name, spec.candidate))


# ---------------------------------------------------------------------------------------------------------- other weights


def weights_of(bundle: Bundle) -> dict[str, float]:
    """The weights in a bundle; raises ``Refused`` when it combines nothing."""
    return dict(_blend(bundle).weights)


def reweigh(home: Home, system: System, sha256: str, weights: Mapping[str, float]) -> tuple[Entry[Trained], Entry[Gated]]:
    """The same models under other weights as a bundle of its own, with a gate that looks at its value on closed rows. Nothing is trained.

    The threshold is chosen anew on the closed rows before the last ``Parts.test``, and the value compared on those since, with the bundle's own acts
    on the same rows. Raises ``Refused`` when the bundle combines nothing, or has no such part, ``NotEnoughData`` without closed rows.
    """
    bundle = load(home.artifacts.get(sha256), sha256)
    old = _blend(bundle)
    unknown = [name for name in weights if name not in old.parts]
    if unknown:
        raise Refused(f"the bundle {sha256[:12]} has no model of {unknown[0]!r}", hint=f"it has {', '.join(old.parts)}")
    origin = _origin(home, sha256)
    new = old.weighed(weights)
    model = Model(bundle.model.encoder, new)
    before, since = _rows(home, system)
    score = model.predict(before)
    said = before["_label"].cast(pl.Float64).to_numpy()
    decision = measure.choose(home.engine, system, score, said, before, classes=(), weights=before["_weight"].to_numpy())
    spec = msgspec.structs.replace(
        bundle.spec,
        candidate=f"weights@{digest([sha256, new.weights])[:12]}",
        settings=bundle.spec.settings | {"weights": dict(new.weights)},
        decision=msgspec.to_builtins(decision),
        reference=bundle.spec.reference | {"score": score_profile(np.concatenate([score, model.predict(since)]))},
        hashes=bundle.spec.hashes | {"weights_of": sha256},
    )
    made = home.artifacts.put(pack(spec, model, pl.DataFrame(bundle.golden.rows, strict=False)))
    record = Trained(
        candidate=spec.candidate,
        recipe=spec.recipe,
        baseline=False,
        cost=spec.cost,
        settings=spec.settings,
        bundle=made,
        decision=spec.decision,
        trained_until=origin.record.trained_until,
    )
    sets = [parent.id for parent in home.ledger.parents(origin.id) if isinstance(parent.record, TrainingSet)]
    trained = home.commit(record, key=f"trained/weights/{made[:16]}", parents=[*sets, origin.id])
    checks = tuple(
        _evidence(home, system, since, (bundle.predict(since), _decision(bundle.spec)), (model.predict(since), decision))
    )
    gated = Gated(candidate=spec.candidate, bundle=made, verdict=overall(checks), checks=checks, against=sha256)
    return trained, home.commit(gated, key=f"gated/weights/{made[:16]}/{_closed(home)}", parents=[trained.id])


def _closed(home: Home) -> str:
    """Up to when closed rows were looked at: the same evidence is one gate."""
    until = measure.closed_until(home)
    return until.isoformat() if until is not None else "never"


def _blend(bundle: Bundle) -> Blend:
    predictor = bundle.model.predictor
    if not isinstance(predictor, Blend):
        raise Refused(
            f"the bundle {bundle.sha256[:12]} combines nothing", hint="declare System(combine=Combine({...})) and train"
        )
    return predictor


def _origin(home: Home, sha256: str) -> Entry[Trained]:
    return next(entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == sha256)


def _rows(home: Home, system: System) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Closed rows with a label: of the length of ``Parts.validate`` before the last ``Parts.test``, and those."""
    until = measure.closed_until(home)
    if until is None:
        raise NotEnoughData("no cohort is closed yet", hint="run `noria labels` to see how mature the labels are")
    middle = until - duration(system.parts.test)
    made = []
    for window in (Window(middle - duration(system.parts.validate), middle), Window(middle, until)):
        frame = measure.usable(system, measure.closed(home, system, window))
        if frame.is_empty():
            raise NotEnoughData(f"no closed prediction with a label was asked in {window}", hint="wait for more of them")
        made.append(frame)
    return made[0], made[1]


def _decision(spec: Spec) -> Decision:
    return msgspec.convert(spec.decision, Decision)


def _evidence(
    home: Home, system: System, rows: pl.DataFrame, old: tuple[Floats, Decision], new: tuple[Floats, Decision]
) -> list[Check]:
    """The value of the acts under the new weights beside the old ones', on the same closed rows; blocks of time are the observations."""
    label = rows["_label"].cast(pl.Float64).to_numpy()
    worth: list[Floats] = []
    for score, policy in (old, new):
        act = measure.act(home.engine, system, policy, score, rows)
        worth.append(measure.value(home.engine, system, rows, act, label, score))
    blocks = measure.blocks_of(rows["_time"], system.gate.block)
    difference = stats.block_mean(worth[1] - worth[0], blocks, confidence=system.gate.confidence, least=system.gate.blocks)
    nothing = measure.policies(home.engine, system, rows, label)["do nothing"]
    gain = float(np.nanmean(worth[0] - nothing)) if np.isfinite(worth[0] - nothing).any() else 0.0
    bound = -system.gate.margin * max(0.0, gain)
    verdict = Verdict.NOT_ENOUGH_DATA
    if difference.below(0.0):
        verdict = Verdict.FAIL
    elif difference.known and difference.low is not None and difference.low >= bound:
        verdict = Verdict.PASS
    detail = f"on {rows.height} closed rows the new weights are worth {difference} a prediction more than the old"
    if system.label.affected_by_action or system.label.observed_when is not None:
        verdict, difference = Verdict.NOT_ENOUGH_DATA, Estimate(None)
        detail = "acting changes the label or whether it is seen: closed rows cannot tell, only a rollout's arms can"
    return [Check("not worth less than", verdict, "the old weights", kept(difference), bound, detail)]
