"""Evaluation: how a candidate does on rows that nothing was learned from, with intervals over blocks of time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Estimate, NotFound
from noria.development.answers import Answers, ask
from noria.development.frames import Rows, classes_of, kept, part_of, rounded, rows_of
from noria.records import Entry, Evaluated, SliceResult, TestOpened, Trained, TrainingSet
from noria.store import Home
from noria.system import AtLeast, AtMost, System

SLICE_ROWS = 200
STANDARD = {
    "binary": ("log_loss", "brier", "auc", "accuracy", "precision", "recall"),
    "multiclass": ("log_loss", "brier", "accuracy"),
    "regression": ("mae", "rmse", "r2"),
}


def evaluated_key(trained: Entry[Trained], part: str) -> str:
    """The key of an evaluation: ``evaluated/<training set>/<name>/<part>``."""
    return f"evaluated/{trained.key.removeprefix('trained/')}/{part}"


def evaluate(
    home: Home, system: System, trained: Entry[Trained], frames: Mapping[str, pl.DataFrame], part: str
) -> Entry[Evaluated]:
    """Evaluates a candidate on a part, once: a second call finds the first one's record.

    Opening the part ``test`` is recorded (``TestOpened``) with how often that very part has been opened, by any candidate.
    Raises ``DataFault`` when the training set has no such part.
    """
    key = evaluated_key(trained, part)
    there = home.ledger.find(key)
    if there is not None:
        return there  # type: ignore[return-value]  # the key is only used for this kind
    training = training_of(home, trained)
    if part == "test":
        _opened(home, trained, training)
    answers = ask(home, system, trained.record.bundle, known_rows(system, frames, part))
    return home.commit(_evaluated(answers, trained, part), key=key, parents=[trained.id, training.id])


def known_rows(system: System, frames: Mapping[str, pl.DataFrame], part: str) -> Rows:
    """The rows of a part that have a label."""
    return rows_of(system, frames, part, classes_of(system, frames)).known()


def training_of(home: Home, trained: Entry[Trained]) -> Entry[TrainingSet]:
    """The training set a candidate was made from."""
    for parent in home.ledger.parents(trained.id):
        if isinstance(parent.record, TrainingSet):
            return parent  # type: ignore[return-value]  # just looked at
    raise NotFound(f"the candidate {trained.record.candidate} has no training set among its parents")


def openings(home: Home, training: Entry[TrainingSet]) -> int:
    """How often the test part of a training set has been opened."""
    return home.ledger.count(TestOpened, prefix=_opened_prefix(training))


def _opened_prefix(training: Entry[TrainingSet]) -> str:
    part = part_of(training, "test")
    return f"opened/{part.rows[:16] if part is not None else training.id[:16]}/"


def _opened(home: Home, trained: Entry[Trained], training: Entry[TrainingSet]) -> None:
    """Counts an opening before it happens: a crash in between leaves one too many, never one too few."""
    prefix = _opened_prefix(training)
    key = prefix + trained.key.removeprefix("trained/")
    if home.ledger.find(key) is None:
        part = part_of(training, "test")
        record = TestOpened(
            candidate=trained.record.candidate,
            part=part.rows if part is not None else "",
            count=home.ledger.count(TestOpened, prefix=prefix) + 1,
        )
        home.commit(record, key=key, parents=[trained.id, training.id])


def metrics_of(system: System) -> tuple[str, ...]:
    """What is measured of a candidate: the objective's metric, the task's usual ones, and those of the guardrails."""
    objective = system.objective
    rails = [rail.metric for rail in objective.guardrails if isinstance(rail, AtMost | AtLeast) and rail.metric in stats.METRICS]
    wanted = dict.fromkeys((objective.metric, *STANDARD[system.task], *rails))
    return tuple(name for name in wanted if system.task in stats.METRICS[name].tasks)


def sliced(system: System, frame: pl.DataFrame) -> list[str]:
    """The declared slices and the sensitive columns, as far as the rows have them."""
    wanted = dict.fromkeys((*system.objective.slices, *system.objective.sensitive))
    return [name for name in wanted if name in frame.columns]


def _evaluated(answers: Answers, trained: Entry[Trained], part: str) -> Evaluated:
    system, rows = answers.system, answers.rows
    made = {name: kept(answers.estimate(name)) for name in metrics_of(system)}
    binary = system.task == "binary"
    if binary:
        made["ece"] = Estimate(rounded(stats.ece(rows.label, answers.score)), n=rows.block_count)
        calibration = stats.calibration_test(
            rows.label, answers.score, rows.blocks, confidence=system.gate.confidence, least=system.gate.blocks
        )
        made |= {f"calibration_{name}": kept(estimate) for name, estimate in calibration.items()}
    bins = stats.reliability(rows.label, answers.score) if binary else ()
    return Evaluated(
        candidate=trained.record.candidate,
        part=part,
        n=rows.n,
        blocks=rows.block_count,
        metrics=made,
        value=kept(answers.mean(answers.value)) if np.isfinite(answers.value).any() else None,
        slices=tuple(_slices(answers)),
        calibration=tuple((rounded(s) or 0.0, rounded(y) or 0.0, n) for s, y, n in bins),
        daily=_daily(answers),
    )


def _slices(answers: Answers) -> list[SliceResult]:
    system, frame = answers.system, answers.rows.frame
    made = []
    for column, value, mask in measure.by_slice(frame, sliced(system, frame), SLICE_ROWS):
        part = answers.on(mask)
        metrics = {system.objective.metric: kept(part.estimate(system.objective.metric))}
        if np.isfinite(part.value).any():
            metrics["value"] = kept(part.mean(part.value))
        made.append(SliceResult(column, value, part.rows.n, metrics))
    return made


def _daily(answers: Answers) -> dict[str, tuple[float, ...]]:
    """Per block of time: its number, its rows, the objective's metric and the value; only blocks where all of them are there."""
    rows, metric = answers.rows, answers.system.objective.metric
    losses = stats.row_loss(metric, rows.label, answers.score, quantile=answers.quantile)
    valued = bool(np.isfinite(answers.value).any())
    found: list[tuple[float, ...]] = []
    for block in np.unique(rows.blocks):
        mask = rows.blocks == block
        if losses is not None:
            # an accuracy's loss is its complement
            mean = float(np.nanmean(losses[mask]))
            number = 1 - mean if stats.better(metric) > 0 else mean
        else:
            act = answers.yes_or_no[mask] if answers.yes_or_no is not None and metric in ("precision", "recall", "f1") else None
            number = stats.compute(metric, rows.label[mask], answers.score[mask], act=act, quantile=answers.quantile)
        worth = answers.value[mask]
        value = float(worth[np.isfinite(worth)].mean()) if np.isfinite(worth).any() else float("nan")
        if np.isfinite(number) and (np.isfinite(value) or not valued):
            found.append((float(block), float(mask.sum()), rounded(number) or 0.0, rounded(value) or 0.0))
    columns = list(zip(*found, strict=True)) if found else [(), (), (), ()]
    made = {"block": columns[0], "n": columns[1], metric: columns[2]}
    return made | ({"value": columns[3]} if valued else {})
