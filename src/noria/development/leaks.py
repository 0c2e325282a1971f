"""Columns that know the answer.

No honest feature tells the rarer label almost for certain. One that does was filled in after the fact, like a tail number that is
missing only where a flight was cancelled. Each column's values (for numbers twenty bins, and the missing ones) are tried against the label.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Check, Estimate, Verdict
from noria.development.frames import Floats, Rows, kept
from noria.model import Encoder, fit_encoder
from noria.system import System

LEAST = 50
PURE = 0.97
ALONE = 0.985
BINS = 20
MOST_ROWS = 100_000


def leaks(system: System, rows: Rows, columns: tuple[str, ...]) -> list[Check]:
    """One failed check for each suspicious column, the worst first; one passed check when there is none."""
    names = [name for name in columns if name in rows.frame.columns]
    if system.task == "multiclass" or not names or rows.n < 2 * LEAST:
        return []
    step = max(1, rows.n // MOST_ROWS)
    known = rows.take(np.arange(0, rows.n, step)).known()
    encoder = fit_encoder(known.frame, names)
    matrix = encoder.encode(known.frame)
    judge = _of_binary if system.task == "binary" else _of_number
    found = [check for place in range(len(names)) if (check := judge(encoder, matrix, known.label, place)) is not None]
    found.sort(key=lambda check: -(check.estimate.value or 0.0) if check.estimate else 0.0)
    return found or [Check("no leak", Verdict.PASS, detail=f"none of {len(names)} columns tells the label by itself")]


def _of_binary(encoder: Encoder, matrix: Floats, label: Floats, place: int) -> Check | None:
    column = encoder.columns[place]
    rare = 1.0 if label.mean() <= 0.5 else 0.0
    groups, names = _groups(column.kind == "text", matrix[:, place])
    n = np.bincount(groups, minlength=len(names))
    hits = np.bincount(groups, label == rare, minlength=len(names))
    worst = [
        (stats.proportion(int(k), int(total)), names[g])
        for g, (k, total) in enumerate(zip(hits, n, strict=True))
        if total >= LEAST
    ]
    pure = [
        (share, name) for share, name in worst if share.low is not None and share.low > PURE - 0.05 and (share.value or 0) > PURE
    ]
    base = float((label == rare).mean())
    if pure and base < 0.9:
        share, name = max(pure, key=lambda one: one[0].low or 0.0)
        what = _told(encoder, place, name)
        return Check(
            "no leak",
            Verdict.FAIL,
            column.name,
            kept(share),
            PURE,
            f"where {column.name} is {what}, the label is {'yes' if rare else 'no'} in {share.value:.1%} of the rows (base rate {base:.1%}): it was filled in after the fact",
        )
    alone = _alone(hits, n)
    if alone > ALONE:
        return Check(
            "no leak",
            Verdict.FAIL,
            column.name,
            kept(Estimate(alone)),
            ALONE,
            f"{column.name} alone ranks the labels with an AUC of {alone:.4f}: it is the label, or made from it",
        )
    return None


def _of_number(encoder: Encoder, matrix: Floats, label: Floats, place: int) -> Check | None:
    column = encoder.columns[place]
    keep = np.isfinite(matrix[:, place]) & np.isfinite(label)
    if column.kind == "text" or keep.sum() < LEAST:
        return None
    ranks = [pl.Series(values[keep]).rank().to_numpy() for values in (matrix[:, place], label)]
    if min(r.std() for r in ranks) == 0:
        return None
    alone = abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
    if alone <= ALONE:
        return None
    return Check(
        "no leak",
        Verdict.FAIL,
        column.name,
        kept(Estimate(alone)),
        ALONE,
        f"{column.name} alone has a rank correlation of {alone:.4f} with the label: it is the label, or made from it",
    )


def _groups(text: bool, values: Floats) -> tuple[NDArray[np.int64], list[int]]:
    """Each row's group, and the groups' names: codes of texts; for numbers bins from 1, and 0 for missing ones."""
    if text:
        return values.astype(np.int64), list(range(int(values.max(initial=0)) + 1))
    finite = values[np.isfinite(values)]
    edges = np.unique(np.quantile(finite, np.arange(1, BINS) / BINS, method="lower")) if finite.size else np.empty(0)
    groups = np.where(np.isfinite(values), 1 + np.searchsorted(edges, values, side="left"), 0)
    return groups.astype(np.int64), list(range(len(edges) + 2))


def _alone(hits: NDArray[np.int64], n: NDArray[np.int64]) -> float:
    """The AUC of ranking rows by the share of hits in their group."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(n > 0, hits / n, 0.0)
    order = np.argsort(share, kind="stable")
    up, down = hits[order].astype(float), (n - hits)[order].astype(float)
    if up.sum() == 0 or down.sum() == 0:
        return 0.5
    below = np.cumsum(down) - down / 2
    return float((up * below).sum() / (up.sum() * down.sum()))


def _told(encoder: Encoder, place: int, group: int) -> str:
    column = encoder.columns[place]
    if column.kind == "text":
        value = column.categories[group - 1] if group else "rare"
        return "missing" if value is None else repr(value)
    return "missing" if group == 0 else f"in its bin {group} of {BINS}"
