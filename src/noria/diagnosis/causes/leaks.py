"""A column tells the label by itself: it is known too late in truth, or is the label by another name."""

from __future__ import annotations

import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Check, Estimate, Verdict, Window
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.causes.source import late_shares, source_late
from noria.diagnosis.tested import Tested, check
from noria.records import Trained, TrainingSet

STRONG = 0.25
HALF = 0.5
ALWAYS_LATE = 0.5
ROWS = 3_000
NAME = "columns that know too much"


def leak(case: Case) -> Tested:
    """At the gate, a column that tells the label alone; live, one that told it in training and does not since the release answers."""
    failed = case.failed("no leak")
    made = [check(NAME, True, subject=f.subject, size=f.estimate, bound=f.bound, detail=f.detail) for f in failed]
    alone = bool(failed) and len(failed) == len(case.failed())
    looked = any(one.name == "no leak" for one in case.checks)
    if not made:
        said = "no column tells the label by itself" if looked else "no gate is among the symptoms"
        made = [check(NAME, False, detail=said)]
    if not looked:
        made += [*_told_in_training(case), *_known_later(case)]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    names = ", ".join(sorted({one.subject for one in found if one.subject}))
    act = f"ask when {names or 'the column'} is known in truth; declare its delay, or leave it out"
    strength = 0.0 if not found else 0.9 if alone else 0.85 if not failed else 0.7
    return Tested("leak", "data", act, tuple(found or made), strength)


def _told_in_training(case: Case) -> list[Check]:
    """Features whose bond with the label was strong in training and is less than half since the release first answered, in both live samples."""
    live = [sample for sample in (case.before, case.recent) if sample is not None]
    training = trained_on(case)
    if not live or training is None:
        return []
    made = []
    for column in training.frame.columns:
        past = bond(training, column)
        now = [bond(sample, column) for sample in live if column in sample.frame.columns]
        if past is None or not past.above(STRONG) or not now or any(one is None or not one.known for one in now):
            continue
        least = [one for one in now if one is not None]
        lost = all(one.below(HALF * (past.value or 0.0)) for one in least)
        if not lost:
            continue
        said = (
            f"{column} alone ordered {2 * (past.value or 0):.0%} of what there is to order in training ({past} above chance), "
            f"and {least[0]} since the release answers: it was filled in later"
        )
        made.append(
            check("bonds of training hold", True, subject=column, size=least[0], bound=HALF * (past.value or 0.0), detail=said)
        )
    return made or [check("bonds of training hold", False, detail="no feature told the label in training and tells it no more")]


def trained_on(case: Case) -> Sample | None:
    """The features and labels of the champion's training part, at most 3,000 rows of it."""
    entry = next((e for e in reversed(case.home.ledger.read(Trained)) if e.record.bundle == case.release), None)
    if entry is None or not entry.parents or case.system.task != "binary":
        return None
    training = next((e for e in reversed(case.home.ledger.read(TrainingSet)) if e.id in entry.parents), None)
    if training is None:
        return None
    part = next((part for part in training.record.parts if part.name == "train"), None)
    known = case.home.lake.schema("predictions") or {}
    names = [name for name in training.record.columns if name in known]
    if part is None or not names:
        return None
    window = Window(max(part.window.start, part.window.end - 60 * DAY), part.window.end)
    found = measure.usable(case.system, measure.closed(case.home, case.system, window, columns=names))
    if found.height < 100:
        return None
    found = found.gather_every(-(-found.height // ROWS)) if found.height > ROWS else found
    label = found["_label"].cast(pl.Float64).to_numpy()
    return Sample(
        found.select(names), label, np.full(len(label), np.nan), measure.blocks_of(found["_time"], case.system.gate.block)
    )


def bond(sample: Sample, column: str) -> Estimate | None:
    """How far the AUC of a column alone (or of its being missing, the stronger of both) is from one half, with its interval over blocks."""
    series = sample.frame[column]
    if not series.dtype.is_numeric() or len(np.unique(sample.label)) < 2:
        return None
    values = series.cast(pl.Float64).fill_nan(None)
    ways: list[Floats] = [values.is_null().cast(pl.Float64).to_numpy()]
    middle = values.median()
    if isinstance(middle, float):
        ways.append(values.fill_null(middle).to_numpy())
    found = []
    for way in ways:
        made = stats.estimate("auc", sample.label, way, sample.blocks, least=5)
        if made.value is None or not made.known:
            continue
        sign = 1 if made.value >= 0.5 else -1
        ends = sorted(sign * ((end or 0.0) - 0.5) for end in (made.low, made.high))
        found.append(Estimate(sign * (made.value - 0.5), ends[0], ends[1], made.n))
    return max(found, key=lambda one: one.value or 0.0, default=None)


def _known_later(case: Case) -> list[Check]:
    """Sources whose rows have come late ever since the first history: what is declared of when they are known was never true."""
    name = "known when declared"
    made = []
    used = {feature.source for feature in streams.looked_up(case)}
    for stream in streams.streams(case).values():
        if stream.name not in used:
            continue
        when, shares = late_shares(case, stream)
        if len(shares) < streams.LEAST_DAYS:
            continue
        share = float(np.median(shares))
        always = share > ALWAYS_LATE and float(np.quantile(shares, 0.1)) > ALWAYS_LATE / 2
        sudden = streams.tested(case, source_late).verdict is Verdict.FAIL
        said = f"{share:.0%} of the rows of {stream.name} have come after a turn that should have seen them, ever since {when[0]:%Y-%m-%d}"
        if always and not sudden:
            made.append(
                check(name, True, subject=stream.name, size=Estimate(share, n=len(shares)), bound=ALWAYS_LATE, detail=said)
            )
    return made
