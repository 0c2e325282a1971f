"""The single tests that the gate is made of. Each says what was looked at, what came out, what was allowed, and a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np

from noria import measure, stats
from noria.core import Check, Estimate, Verdict, duration, stopwatch
from noria.development.answers import Answers
from noria.development.evaluation import SLICE_ROWS, sliced
from noria.development.frames import kept, listed, rounded
from noria.system import AtLeast, AtMost

LATENCY_ROWS = 300
SLOPES = (0.5, 2.0)
OFFSET = 0.02
SLACK = duration("7d")


def superior(mine: Answers, other: Answers, name: str, subject: str, *, confidence: float | None = None) -> Check:
    """Better than ``other`` beyond chance, in the objective's metric on the same rows."""
    made = mine.over(other, mine.system.objective.metric, confidence=confidence)
    detail = f"{mine.system.objective.metric} better by {made} on the part {mine.rows.name}"
    return Check(name, _above(made, 0.0), subject, kept(made), 0.0, detail)


def not_inferior(mine: Answers, other: Answers, name: str, subject: str, margin: float) -> Check:
    """Worse than ``other`` by no more than ``margin`` (in the metric's units), beyond chance."""
    made = mine.over(other, mine.system.objective.metric)
    detail = f"{mine.system.objective.metric} better by {made} on the part {mine.rows.name}; {margin:.4g} worse is allowed"
    # a refit that answers exactly as before is 0 apart: that is within any margin, also an empty one
    verdict = Verdict.PASS if made.known and made.low == 0.0 == made.high else _above(made, -margin)
    return Check(name, verdict, subject, kept(made), rounded(-margin), detail)


def holds(mine: Answers, other: Answers, subject: str, margin: float = 0.0) -> Check:
    """The backtest on the freshest data: a veto. What the test part showed must not have gone since.

    The fresh part is short, so the interval is asked only whether ``mine`` is worse than ``other`` by more than ``margin``; that it is
    not must at least be true of the number itself.
    """
    made = mine.over(other, mine.system.objective.metric)
    detail = f"{mine.system.objective.metric} better by {made} on the part {mine.rows.name}"
    verdict = Verdict.NOT_ENOUGH_DATA
    if made.below(-margin):
        verdict = Verdict.FAIL
    elif made.known and made.value is not None and made.value >= -margin:
        verdict = Verdict.PASS
    return Check("backtest on the freshest data", verdict, subject, kept(made), rounded(-margin), detail)


def _above(made: Estimate, bound: float) -> Verdict:
    """Above the bound beyond chance; below it at least in the number; or too uncertain to say."""
    if made.above(bound):
        return Verdict.PASS
    return Verdict.FAIL if made.known and made.value is not None and made.value <= bound else Verdict.NOT_ENOUGH_DATA


def varies(mine: Answers, positives: int | None) -> Check:
    """The predictor tells rows apart, and what it says leads to different acts.

    ``positives`` is the number of rarer labels in the training part of a binary task. Accuracy is no witness here: a predictor that always says no
    is right as often as the label is no.
    """
    name, rows = "not a constant predictor", mine.rows
    spread = float(np.ptp(mine.score, axis=0).max()) if rows.n else 0.0
    acts = mine.act[np.isfinite(mine.act)]
    same = mine.yes_or_no is not None and acts.size > 0 and bool((acts == acts[0]).all()) and len(np.unique(rows.label)) > 1
    if spread > 1e-9 and not same:
        return Check(name, Verdict.PASS, detail=f"scores spread over {spread:.3g}")
    if mine.system.task != "binary":
        return Check(
            name, Verdict.FAIL, estimate=Estimate(rounded(spread)), detail="a constant predictor: it scores every row the same"
        )
    said = "yes" if acts.size and acts[0] > 0 else "no"
    label = rows.label == 1
    accuracy = float((label == (said == "yes")).mean())
    recall = float(said == "yes") if label.any() else float("nan")
    detail = (
        f"a constant predictor: it always says {said}; accuracy {accuracy:.4f} and recall {recall:.0f} "
        f"at a base rate of {float(label.mean()):.2g}. Collect more positives ({positives or 0} in the training part)"
    )
    return Check(name, Verdict.FAIL, estimate=Estimate(rounded(recall)), bound=0.0, detail=detail)


def worth(mine: Answers) -> Iterator[Check]:
    """Its decisions are not worth less than doing nothing or always acting, nor exactly the same.

    This is a veto: whether they are worth more is decided on traffic, by the rollout, where there is as much data as it takes.
    """
    system, rows = mine.system, mine.rows
    name = "not worth less than"
    if system.label.affected_by_action:
        yield Check(
            name, Verdict.NOT_MEASURED, "do nothing", detail="acting changes the label: only a randomised rollout can say"
        )
        return
    if not np.isfinite(mine.value).any():
        yield Check(name, Verdict.NOT_MEASURED, "do nothing", detail="a person decides: the score alone has no value")
        return
    for policy, values in measure.policies(mine.home.engine, system, rows.frame, rows.said).items():
        if policy != "perfect":
            made = mine.mean(mine.value - values)
            detail = f"{made} {system.objective.value.currency} more a prediction than to {policy}".replace("  ", " ")
            verdict = Verdict.NOT_ENOUGH_DATA
            if made.known and made.high is not None:
                verdict = Verdict.PASS if made.high > 0 else Verdict.FAIL
            yield Check(name, verdict, policy, kept(made), 0.0, detail)


def slices(mine: Answers, other: Answers, subject: str, floor: float) -> Iterator[Check]:
    """No declared slice is worse than under ``other`` by more than ``floor``, beyond chance (corrected for the number of slices)."""
    system, frame = mine.system, mine.rows.frame
    found = list(measure.by_slice(frame, sliced(system, frame), SLICE_ROWS))
    if not found:
        return
    confidence = 1 - (1 - system.gate.confidence) / len(found)
    looked, failed = 0, 0
    for column, value, mask in found:
        made = mine.on(mask).over(other.on(mask), system.objective.metric, confidence=confidence)
        looked += made.known
        if made.below(-floor):
            failed += 1
            detail = f"{system.objective.metric} on {column} = {value} better by {made} than {subject}"
            yield Check("slice not worse", Verdict.FAIL, f"{column} = {value}", kept(made), rounded(-floor), detail)
    if not failed:
        verdict = Verdict.PASS if looked else Verdict.NOT_MEASURED
        detail = f"{looked} of {len(found)} slices have an interval; none is worse than {subject}"
        yield Check("slice not worse", verdict, listed(dict.fromkeys(c for c, _, _ in found)), detail=detail)


def calibrated(mine: Answers) -> Iterator[Check]:
    """Scores mean what they say: right on average, and neither far too bold nor far too timid (Cox's slope)."""
    system, rows = mine.system, mine.rows
    if system.task != "binary" or system.combine is not None:  # a combined score orders rows, and is no probability
        return
    made = stats.calibration_test(
        rows.label, mine.score, rows.blocks, confidence=system.gate.confidence, least=system.gate.blocks
    )
    base = float(rows.label.mean()) if rows.n else 0.0
    bound = max(OFFSET, min(base, 1 - base) / 2)
    offset, slope = made["offset"], made["slope"]
    detail = f"labels minus scores {offset} on average; up to {bound:.3g} either way is allowed"
    yield Check("calibration", _within(offset, -bound, bound), "offset", kept(offset), rounded(bound), detail)
    detail = f"slope {slope} of the label's log-odds on the score's; {SLOPES[0]} to {SLOPES[1]} is allowed"
    yield Check("calibration", _within(slope, *SLOPES), "slope", kept(slope), SLOPES[0], detail)


def _within(made: Estimate, low: float, high: float) -> Verdict:
    """Fails when the whole interval is outside: within reach of the bounds, it is no reason to stop a model."""
    if not made.known:
        return Verdict.NOT_ENOUGH_DATA
    return Verdict.FAIL if made.above(high) or made.below(low) else Verdict.PASS


def guardrails(mine: Answers, size: int) -> Iterator[Check]:
    """Declared bounds: of metrics by their interval, of the bundle's size, and of the latency where the clock is a real one.

    A guardrail stops what is shown to break it: the whole interval lies beyond the bound. Where the bound is inside the interval the
    detail says so, and the rollout goes on looking at it.
    """
    for rail in mine.system.objective.guardrails:
        least = isinstance(rail, AtLeast)
        if rail.metric == "latency_p99_ms":
            made, detail = _latency(mine)
        elif rail.metric == "bundle_mb":
            exact = rounded(size / 1e6)
            made, detail = Estimate(exact, exact, exact, 1), f"the bundle has {size / 1e6:.2f} MB"
        elif rail.metric in stats.METRICS:
            made = mine.estimate(rail.metric)
            detail = (
                f"{rail.metric} {made} on the part {mine.rows.name}; at {'least' if least else 'most'} {rail.bound:g} is asked"
            )
        elif rail.metric == measure.PER_PREDICTION and not mine.system.label.affected_by_action:
            made = mine.mean(mine.value)
            detail = f"the value per prediction is {made} on the part {mine.rows.name}; {rail.bound:g} is the bound"
        else:
            made, detail = None, f"{rail.metric} cannot be measured before a rollout"
        verdict = Verdict.NOT_MEASURED if made is None else _bounded(made, rail)
        yield Check("guardrail", verdict, rail.metric, kept(made) if made is not None else None, rail.bound, detail)


def _bounded(made: Estimate, rail: AtMost | AtLeast) -> Verdict:
    if not made.known:
        return Verdict.NOT_ENOUGH_DATA
    broken = made.below(rail.bound) if isinstance(rail, AtLeast) else made.above(rail.bound)
    return Verdict.FAIL if broken else Verdict.PASS


def _latency(mine: Answers) -> tuple[Estimate | None, str]:
    """The 99 % quantile of the time for one row, encoder and all, in milliseconds."""
    if mine.home.clock.latency(0.0) is None:
        return None, "not measured: this clock does not run in real time"
    rows = mine.rows.frame.select(mine.bundle.spec.columns).head(LATENCY_ROWS).to_dicts()
    seconds = []
    for row in rows:
        begun = stopwatch()
        mine.bundle.predict_rows({name: [value] for name, value in row.items()})
        seconds.append(mine.home.clock.latency(stopwatch() - begun) or 0.0)
    if len(seconds) < 100:
        return Estimate(None, n=len(seconds)), f"{len(seconds)} rows are too few for a 99 % quantile"
    p99 = rounded(float(np.quantile(seconds, 0.99)) * 1e3)
    return Estimate(p99, p99, p99, len(seconds)), f"the slowest of 100 single predictions takes {p99:.3g} ms"


def served(mine: Answers, columns: tuple[str, ...]) -> Check:
    """Every column that the bundle reads is served."""
    lacking = [name for name in mine.bundle.spec.columns if name not in columns]
    verdict = Verdict.FAIL if lacking else Verdict.PASS
    detail = (
        f"not served: {listed(lacking)}"
        if lacking
        else f"{len(mine.bundle.spec.columns)} of {len(columns)} served columns are read"
    )
    return Check("columns are served", verdict, detail=detail)


def fresh_enough(mine: Answers, newest: datetime, now: datetime) -> Check:
    """What was evaluated reaches up to what is known: a test part from long ago says nothing of today."""
    label = mine.system.label
    ripe = duration(label.within) + duration(label.lateness) + duration(label.horizon) + duration(mine.system.every)
    age, bound = (now - newest).total_seconds() / 86400, (ripe + SLACK).total_seconds() / 86400
    verdict = Verdict.PASS if age <= bound else Verdict.FAIL
    detail = f"the newest row that was evaluated is from {age:.1f} days ago; up to {bound:.1f} are allowed"
    return Check("evaluated on fresh data", verdict, estimate=Estimate(rounded(age)), bound=rounded(bound), detail=detail)
