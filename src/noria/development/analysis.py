"""Error analysis: where a candidate's loss lies, and what would be gained by working on it.

Rows are tagged: labels that are probably wrong, the values of declared slices and of categories, missing features. Of each tag the share of the loss
is counted, and the *room*: how much of the loss would go if the tagged rows did as well as the others (Ng, "Machine Learning Yearning", 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Estimate
from noria.development.evaluation import SLICE_ROWS, known_rows, sliced, training_of
from noria.development.frames import Floats, Rows, kept, rounded
from noria.development.labelerrors import LabelErrors, label_errors
from noria.records import Analysed, Entry, ErrorTag, Trained
from noria.store import Home
from noria.system import System

MOST_TAGS = 12
WRONG = "wrong labels"
Mask = NDArray[np.bool_]


def analyse(home: Home, system: System, trained: Entry[Trained], frames: Mapping[str, pl.DataFrame]) -> Entry[Analysed] | None:
    """The error analysis of a candidate, once; ``None`` for tasks without a loss per row.

    What the model says is asked on the parts it did not learn from, except for wrong labels, which are looked for everywhere by models of their own.
    """
    key = f"analysed/{trained.key.removeprefix('trained/')}"
    there = home.ledger.find(key)
    if there is not None:
        return there  # type: ignore[return-value]  # the key is only used for this kind
    from noria.development.answers import ask

    rows = known_rows(system, frames, "validate")
    score = ask(home, system, trained.record.bundle, rows).score
    loss = _loss(system, rows, score)
    if loss is None or not len(loss) or float(loss.sum()) <= 0:
        return None
    training = training_of(home, trained)
    found = label_errors(home, system, frames, training.record.columns)
    made = [*_wrong(found), *_tags(system, rows, loss)]
    made.sort(key=lambda tag: (-_certain(tag.room), tag.tag))
    record = Analysed(
        candidate=trained.record.candidate,
        n=rows.n,
        doubted=rounded(len(found.doubted) / found.rows.n) or 0.0 if found is not None else 0.0,
        noise=found.noise if found is not None else Estimate(None),
        groups={name: made_of for name, made_of in (found.groups if found is not None else {}).items() if made_of.known},
        tags=tuple(made[:MOST_TAGS]),
        suspects=_kept_table(home, found),
    )
    return home.commit(record, key=key, parents=[trained.id])


def _certain(room: Estimate) -> float:
    """What the room is at least: tags are ordered by what is sure."""
    return room.low if room.known and room.low is not None else 0.0


def _loss(system: System, rows: Rows, score: Floats) -> Floats | None:
    metric = system.objective.metric
    quantile = measure.parse_policy(system.decide.policy).quantile
    made = stats.row_loss(metric, rows.label, score, quantile=quantile)
    if made is None:
        usual = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}[system.task]
        made = stats.row_loss(usual, rows.label, score)
    return made


def _wrong(found: LabelErrors | None) -> Iterator[ErrorTag]:
    """Labels that are wrong: their loss is what they have now, less what they would have turned around, as far as wrong labels are shown to be there."""
    if found is None or not found.noise.above(0.0) or not len(found.doubted):
        return
    rows, score = found.rows, np.clip(found.score, 1e-6, 1 - 1e-6)
    loss = stats.row_loss("log_loss", rows.label, score)
    turned = stats.row_loss("log_loss", 1 - rows.label, score)
    if loss is None or turned is None:
        return
    most = max(1, round((found.noise.value or 0.0) * rows.n))
    mask = np.zeros(rows.n, bool)
    mask[_of_bad_groups(found)[:most]] = True
    room = _ratio(np.where(mask, loss - turned, 0.0), loss, rows)
    who = ", ".join(found.bad_groups[:3])
    act = f"have the labels of {who} looked at again (noria labels --suspects FILE), and give the corrected ones back (noria labels --relabel FILE)"
    yield ErrorTag(WRONG, int(mask.sum()), rounded(float(loss[mask].sum() / loss.sum())) or 0.0, kept(room), act)


def _of_bad_groups(found: LabelErrors) -> NDArray[np.int64]:
    """The doubted rows of the groups that were found to be wrong, the most doubtful first."""
    bad = np.zeros(found.rows.n, bool)
    for name in found.bad_groups:
        column, _, value = name.partition("=")
        bad |= (found.by[column] == value).fill_null(False).to_numpy()
    return found.doubted[bad[found.doubted]]


def _tags(system: System, rows: Rows, loss: Floats) -> Iterator[ErrorTag]:
    for name, mask, act in _masks(system, rows):
        n = int(mask.sum())
        if not SLICE_ROWS <= n <= rows.n - SLICE_ROWS:
            continue
        rest = float(loss[~mask].mean())
        room = _ratio(np.where(mask, loss - rest, 0.0), loss, rows)
        yield ErrorTag(name, n, rounded(float(loss[mask].sum() / loss.sum())) or 0.0, kept(room), act)


def _masks(system: System, rows: Rows) -> Iterator[tuple[str, Mask, str]]:
    """The tagged rows, by the tag, with what would be done about it."""
    frame = rows.frame
    features = [feature.name for feature in system.flat_features if feature.name in frame.columns]
    texts = [name for name in features if not frame[name].dtype.is_numeric()]
    for column, value, mask in measure.by_slice(frame, list(dict.fromkeys([*sliced(system, frame), *texts])), SLICE_ROWS):
        yield f"{column}={value}", mask, f"more rows, or features that tell more, where {column} is {value}"
    for name in features:
        mask = frame[name].is_null().to_numpy()
        if mask.any():
            yield f"{name} missing", mask, f"find out why {name} is missing, and fill it"


def _ratio(part: Floats, whole: Floats, rows: Rows) -> Estimate:
    """sum(part) / sum(whole), with an interval over blocks."""
    return stats.block_mean(part / np.maximum(whole, 1e-12), rows.blocks, weights=np.maximum(whole, 1e-12), least=5)


def _kept_table(home: Home, found: LabelErrors | None) -> str:
    """The sha256 of the table of doubted labels among the artifacts; empty when there is none."""
    if found is None or not len(found.doubted):
        return ""
    return home.artifacts.put(found.table().write_csv().encode())
