"""Features that know too much: one alone says nearly what the label will be.

A column from the future gives itself away in one of three forms: its value orders the label almost perfectly; its *absence* settles the
label (a flight without a tail number never left); or some of its categories do. Each is looked at by itself, with an interval over
blocks of time, so that a rare category that happened to be pure is not accused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import polars as pl

from noria.core import Check, Estimate, NotFound, Verdict, duration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

BINS = 64
SHRINK = 20.0
CATEGORIES = 256

Form = Literal["value alone", "missing alone", "category alone"]
_Found = tuple[Check, float, float]


def suspects(
    frame: pl.DataFrame,
    label: str,
    columns: Sequence[str],
    *,
    block: str = "1d",
    bound: float = 0.95,
    residue: float = 0.05,
    least: int = 10,
) -> list[Check]:
    """The columns that are implausibly good at telling the label by themselves, the worst first.

    Parameters
    ----------
    frame:
        Rows with ``_time``, the columns and the label; rows without a label do not count.
    label:
        The label's column: 0/1 or boolean, a text (classes; each is told from the rest), or a number with more values.
    bound:
        The AUC (for numbers: the share of variance explained) above which a single column is implausible. Values are cut into at most
        64 bins and scored by the mean label of the same bin on the *other* blocks, so that an identifier explains nothing; numbers also
        by themselves.
    residue:
        A missing value or a category settles the label when the share of other labels among its rows is surely below this part of
        what it is among all rows.
    block, least:
        The length of a block of time, and the fewest that give an interval.

    Returns
    -------
    Checks named ``value alone``, ``missing alone`` or ``category alone``, with the column as subject. FAIL: the whole interval is
    beyond its bound. NOT_ENOUGH_DATA: the value is, and there is no interval. What is within its bound is left out.

    Raises ``NotFound`` when the frame lacks a column.

    >>> from datetime import datetime, timedelta, UTC
    >>> times = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(960)]
    >>> frame = pl.DataFrame({"_time": times, "late": [n % 3 == 0 for n in range(960)], "x": [n % 7 for n in range(960)]})
    >>> [(c.subject, c.verdict.value) for c in suspects(frame.with_columns(copy="late"), "late", ["x", "copy"])][0]
    ('copy', 'fail')
    """
    if missing := sorted({"_time", label, *columns} - set(frame.columns)):
        raise NotFound(f"the frame has no column {', '.join(missing)}", hint=f"it has {', '.join(frame.columns)}")
    rows = frame.filter(pl.col(label).is_not_null()).sort("_time", maintain_order=True)
    blocks = (rows["_time"].dt.epoch("us") // (duration(block).total_seconds() * 1e6)).to_numpy().astype(np.int64)
    blocks = np.unique(blocks, return_inverse=True)[1].astype(np.int64)
    limits = _Limits(bound, residue, least)
    targets = list(_targets(rows[label], blocks))
    found = [one for column in columns for target in targets for one in _of_column(rows[column], target, limits)]
    best: dict[tuple[str, str], _Found] = {}
    for one in sorted(found, key=lambda one: (one[0].verdict != Verdict.FAIL, -one[1], -one[2], one[0].subject)):
        best.setdefault((one[0].name, one[0].subject), one)
    return [check for check, _, _ in best.values()]


@dataclass(frozen=True)
class _Limits:
    """See ``suspects``."""

    bound: float
    residue: float
    least: int


@dataclass(frozen=True)
class _Target:
    """What is to be told: the label as numbers, of ``about`` against the rest when it is one of several classes."""

    values: Floats
    blocks: Ints
    about: str = ""

    @property
    def binary(self) -> bool:
        return bool(np.isin(self.values, (0.0, 1.0)).all())

    @property
    def constant(self) -> bool:
        return len(self.values) < 2 or bool(self.values.min() == self.values.max())

    def where(self, mask: Mask) -> _Target:
        return _Target(self.values[mask], self.blocks[mask], self.about)


def _targets(label: pl.Series, blocks: Ints) -> Iterator[_Target]:
    """The label as numbers: itself, or each class against the rest (of two classes, the first)."""
    if label.dtype == pl.String:
        classes = sorted(label.unique().to_list())
        for one in classes if len(classes) > 2 else classes[:1]:
            yield _Target((label == one).to_numpy().astype(float), blocks, str(one))
    elif len(label):
        yield _Target(label.cast(pl.Float64).to_numpy().astype(float), blocks)


def _of_column(series: pl.Series, target: _Target, limits: _Limits) -> Iterator[_Found]:
    if target.constant:
        return
    series = series.fill_nan(None) if series.dtype.is_float() else series
    here = series.is_not_null().to_numpy()
    codes, names = _codes(series)
    made = [_value_alone(series, codes, here, target, limits)]
    if target.binary and here.any():
        made.append(_settled("missing alone", (series.name, f"{series.name} is missing"), ~here, target, limits))
        for code, text in names.items():
            made.append(_settled("category alone", (series.name, f"{series.name} = {text}"), codes == code, target, limits))
    yield from (one for one in made if one is not None)


def _codes(series: pl.Series) -> tuple[Ints, dict[int, str]]:
    """A number per row (-1 for null): the category, or the bin of a number with many values; and the frequent categories' texts."""
    if series.dtype.is_numeric() and series.n_unique() > BINS:
        values = series.cast(pl.Float64).to_numpy()
        edges = np.unique(np.nanquantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        codes = np.searchsorted(edges, values, side="right")
        return np.where(np.isnan(values), -1, codes).astype(np.int64), {}
    texts = series.cast(pl.String).alias("text")
    counts = texts.drop_nulls().value_counts(name="n").sort(["n", "text"], descending=[True, False]).with_row_index("code")
    joined = texts.to_frame().join(counts, on="text", how="left", maintain_order="left")["code"].cast(pl.Int64)
    frequent = counts.filter(pl.col("n") >= SHRINK).head(CATEGORIES)
    return joined.fill_null(-1).to_numpy(), dict(zip(frequent["code"].to_list(), frequent["text"].to_list(), strict=True))


def _value_alone(series: pl.Series, codes: Ints, here: Mask, target: _Target, limits: _Limits) -> _Found | None:
    """The AUC, or the variance explained, of the column by itself among the rows that have it."""
    known = target.where(here)
    if known.constant:
        return None
    scores = [_other_blocks(codes[here], known)]
    if (series.dtype.is_numeric() or series.dtype == pl.Boolean) and series.n_unique() > 1:
        scores.append(_line(series.cast(pl.Float64).to_numpy().astype(float)[here], known.values))
    measure = _auc if target.binary else _explained
    estimate = max((measure(known, score, limits) for score in scores), key=lambda found: found.value or 0.0)
    strength = 2 * (estimate.value or 0.5) - 1 if target.binary else estimate.value or 0.0
    what = "an AUC" if target.binary else "a share of the variance"
    share = float(here.mean())
    about = f" for {target.about!r} against the rest" if target.about else ""
    detail = f"{series.name} alone reaches {what} of {estimate}{about}, over the {share:.1%} of the rows that have it"
    return _judged(Check("value alone", Verdict.PASS, series.name, estimate, limits.bound, detail), strength, share)


def _other_blocks(codes: Ints, target: _Target) -> Floats:
    """Per row the mean target of the same code on the blocks of the other parity, drawn towards their overall mean."""
    values = target.values
    fold = target.blocks % 2 if len(np.unique(target.blocks % 2)) > 1 else np.arange(len(values)) % 2
    score = np.full(len(values), values.mean())
    width = int(codes.max()) + 2
    for one in (0, 1):
        learn, use = fold != one, fold == one
        n = np.bincount(codes[learn] + 1, minlength=width)
        total = np.bincount(codes[learn] + 1, weights=values[learn], minlength=width)
        score[use] = ((total + SHRINK * values[learn].mean()) / (n + SHRINK))[codes[use] + 1]
    return score


def _line(values: Floats, target: Floats) -> Floats:
    """The straight line through the values that is nearest to the target."""
    spread = values - values.mean()
    slope = float(spread @ (target - target.mean())) / (float(spread @ spread) or 1.0)
    return np.asarray(target.mean() + slope * spread)


def _auc(target: _Target, score: Floats, limits: _Limits) -> Estimate:
    from noria.stats import estimate

    return estimate("auc", target.values, score, target.blocks, least=limits.least)


def _explained(target: _Target, score: Floats, limits: _Limits) -> Estimate:
    """1 − squared error / variance, with the interval of the error's mean."""
    from noria.stats import block_mean

    error = block_mean((target.values - score) ** 2 / float(target.values.var()), target.blocks, least=limits.least)
    low, high = (None if bound is None else 1 - bound for bound in (error.high, error.low))
    return Estimate(None if error.value is None else 1 - error.value, low, high, error.n)


def _settled(form: Form, subject: tuple[str, str], here: Mask, target: _Target, limits: _Limits) -> _Found | None:
    """Whether these rows nearly all have one label, and the others do not: the share of that label among them."""
    from noria.stats import block_mean, proportion

    column, where = subject
    n = int(here.sum())
    if n < SHRINK or n == len(here):
        return None
    towards = 1.0 if target.values[here].mean() >= target.values[~here].mean() else 0.0
    hit = target.values == towards
    others = 1 - float(hit[~here].mean())
    if others <= 0.0:
        return None
    by_block = block_mean(hit[here].astype(float), target.blocks[here], least=limits.least)
    by_row = proportion(int(hit[here].sum()), n)
    low = None if by_block.low is None or by_row.low is None else min(by_block.low, by_row.low)
    high = None if by_block.high is None or by_row.high is None else min(max(by_block.high, by_row.high), 1.0)
    estimate = Estimate(by_block.value, low, high, by_block.n)
    which = repr(target.about) if target.about else "1"
    said = which if towards else f"not {which}" if target.about else "0"
    detail = f"where {where} ({n} rows) the label is {said} for {estimate} of them, elsewhere for {1 - others:.3g}"
    strength = 1 - (1 - (estimate.value or 0.0)) / others
    check = Check(form, Verdict.PASS, column, estimate, 1 - limits.residue * others, detail)
    return _judged(check, strength, float(here.mean()))


def _judged(check: Check, strength: float, coverage: float) -> _Found | None:
    """The check with its verdict when its value is beyond its bound."""
    estimate, bound = check.estimate, check.bound
    if estimate is None or bound is None or estimate.value is None or estimate.value <= bound:
        return None
    if not estimate.known:
        return msgspec.structs.replace(check, verdict=Verdict.NOT_ENOUGH_DATA), strength, coverage
    return (msgspec.structs.replace(check, verdict=Verdict.FAIL), strength, coverage) if estimate.above(bound) else None
