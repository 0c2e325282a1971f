"""Small models and contrasts that the causes share: features as numbers, a few trees, and what is looked at of each column."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.development.recipes import without_empty
from noria.diagnosis.case import Floats, Ints

MOST_CATEGORIES = 60
CLOCK = 0.97
TOP = 6


def matrix(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Features as numbers: categories by their rank among the most frequent ones."""
    made = [measure.numbers_of(frame[name]) if _numeric(frame[name]) else _codes(frame[name]) for name in frame.columns]
    return np.column_stack(made) if made else np.zeros((frame.height, 1))


def _numeric(series: pl.Series) -> bool:
    return series.dtype.is_numeric() or series.dtype == pl.Boolean or series.dtype.is_temporal()


def _codes(series: pl.Series) -> Floats:
    texts = series.cast(pl.String).fill_null("")
    top = frequent(texts, MOST_CATEGORIES)
    codes = {text: float(place) for place, text in enumerate(sorted(top))}
    return texts.replace_strict(codes, default=float(len(codes)), return_dtype=pl.Float64).to_numpy()


def frequent(texts: pl.Series, most: int) -> list[str]:
    """The most frequent values, the first the most frequent one."""
    counted = texts.value_counts(name="_n").sort(["_n", texts.name], descending=[True, False])
    return [str(text) for text in counted[texts.name].to_list()[:most]]


def timeless(frame: pl.DataFrame, blocks: Ints) -> list[str]:
    """The columns that do not simply count time: one that follows the blocks tells any two days apart, which says nothing."""
    kept = []
    days = np.argsort(np.argsort(blocks, kind="stable"), kind="stable").astype(float)
    for name in frame.columns:
        if _numeric(frame[name]):
            numbers = measure.numbers_of(frame[name])
            fine = np.isfinite(numbers)
            if fine.sum() > 10 and np.ptp(numbers[fine]) > 0:
                ranks = np.argsort(np.argsort(numbers[fine], kind="stable"), kind="stable").astype(float)
                if abs(float(np.corrcoef(ranks, days[fine])[0, 1])) > CLOCK:
                    continue
        kept.append(name)
    return kept


def contrasts(before: pl.DataFrame, recent: pl.DataFrame) -> tuple[list[str], Floats, Floats]:
    """(names, before, recent): of each column its rank (-½ to ½), the rank's square, its missing values; of categories the frequent ones.

    Ranks are among the rows before, so that a change of unit or of shape moves one of them whatever the column's scale.
    """
    names: list[str] = []
    past: list[Floats] = []
    new: list[Floats] = []
    for column in before.columns:
        if _numeric(before[column]):
            a, b = measure.numbers_of(before[column]), measure.numbers_of(recent[column])
            fine = np.sort(a[np.isfinite(a)])
            for name, pair in (("missing", [(~np.isfinite(x)).astype(float) for x in (a, b)]), *_ranked(fine, a, b)):
                names.append(f"{column} {name}".strip())
                past.append(pair[0])
                new.append(pair[1])
        else:
            texts, others = (frame[column].cast(pl.String).fill_null("(missing)") for frame in (before, recent))
            for value in dict.fromkeys([*frequent(texts, TOP), *frequent(others, TOP)]):
                names.append(f"{column}={value}")
                past.append((texts == value).to_numpy().astype(float))
                new.append((others == value).to_numpy().astype(float))
    if not names:
        return [], np.empty((before.height, 0)), np.empty((recent.height, 0))
    return names, np.column_stack(past), np.column_stack(new)


def _ranked(fine: Floats, a: Floats, b: Floats) -> list[tuple[str, list[Floats]]]:
    if len(fine) < 2:
        return []
    ranks = []
    for x in (a, b):
        low, high = np.searchsorted(fine, x, side="left"), np.searchsorted(fine, x, side="right")
        made = (low + high) / (2 * len(fine)) - 0.5
        ranks.append(np.where(np.isfinite(x), made, 0.0))
    return [("", ranks), ("spread", [rank**2 for rank in ranks])]


def boosted(made: NDArray[np.float64], label: Floats, *asked: NDArray[np.float64], weights: Floats | None = None) -> list[Floats]:
    """A few small trees fitted on ``made`` and asked elsewhere: chances for labels 0 and 1, else the expected number.

    One thread: short work is slower on several, and stalls on a busy machine.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    binary = bool(np.isin(label, (0.0, 1.0)).all())
    if len(np.unique(label)) < 2:
        return [np.full(len(one), float(label.mean()) if len(label) else 0.5) for one in asked]
    given = {
        "max_iter": 40,
        "learning_rate": 0.12,
        "max_leaf_nodes": 8,
        "min_samples_leaf": max(20, min(40, len(label) // 20)),
        "early_stopping": False,
        "random_state": 0,
        "max_bins": 63,
    }
    filled = without_empty(made)
    with threadpool_limits(1):
        if binary:
            model = HistGradientBoostingClassifier(**given).fit(filled, label, sample_weight=weights)
            return [np.asarray(model.predict_proba(one)[:, 1]) if len(one) else np.empty(0) for one in asked]
        fitted = HistGradientBoostingRegressor(**given).fit(filled, label, sample_weight=weights)
        return [np.asarray(fitted.predict(one)) if len(one) else np.empty(0) for one in asked]


def logit(score: Floats) -> Floats:
    inside = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def sigmoid(margin: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(margin, -500, 500))))
