"""The system changes what it learns from: acting changes the outcome, or what is shown decides what is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Check, Estimate, Verdict, Window
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.learned import logit
from noria.diagnosis.tested import Tested, check

LEAST_EFFECT = 0.03
FALL = 0.1
SEEN = 0.5
FEW = 50


@dataclass(frozen=True)
class Otherwise:
    """Whether rows acted on turn out otherwise than those left alone, how surely, and whether they come out as the act took them to be."""

    check: Check
    strength: float = 0.0
    comes_true: bool = False


def acting_changed_the_outcome(case: Case) -> Tested:
    """At the same score, the rows acted on turn out otherwise than those left alone, which turn out as expected: the act did it, not the world."""
    act = "declare that acting changes the label (affected_by_action=True) and keep a hold-out: then the untreated rows teach, and value is incremental"
    made = streams.once(case, "acted otherwise", lambda: _otherwise(case))
    strength = made.strength * (0.3 if made.comes_true else 1.0)  # what confirms itself is a feedback loop
    return Tested("acting changed the outcome", "scoping", act, (made.check,), strength)


def _otherwise(case: Case) -> Otherwise:
    name = "acted rows turn out otherwise"
    if case.system.label.affected_by_action:
        said = "it is declared: only rows that were left alone teach and are watched"
        return Otherwise(check(name, False, detail=said))
    recent = case.recent
    if recent is None or not recent.binary:
        return Otherwise(check(name, None))
    acted = recent.number("_act")
    if not np.isin(acted[np.isfinite(acted)], (0.0, 1.0)).all() or min((acted == 1).sum(), (acted == 0).sum()) < FEW:
        return Otherwise(check(name, None, detail="too few rows were acted on, or left alone"))
    jump, alone, whole, origin = _jump(case, recent)
    said = f"at the same score, labels of rows acted on are {jump} away from those of rows left alone {origin}; rows acted on moved by {whole}, rows left alone by {alone}"
    if not jump.known or not alone.known:
        return Otherwise(check(name, None, size=jump, detail=said))
    size, rest = abs(jump.value or 0.0), abs(alone.value or 0.0)
    clear = (jump.above(0.0) or jump.below(0.0)) and size > max(LEAST_EFFECT, 0.1 * float(recent.label.mean()))
    fits = whole.value is not None and whole.value * (jump.value or 0.0) > 0 and abs(whole.value) > 0.5 * size
    found = clear and fits and rest < 0.35 * size
    half = ((jump.high or 0.0) - (jump.low or 0.0)) / 2
    strength = 0.0 if not found else 0.95 if size > 1.5 * half and not (alone.above(0.0) or alone.below(0.0)) else 0.6
    likely = float(recent.score[acted == 1].mean() - recent.score[acted == 0].mean())
    return Otherwise(check(name, found, size=jump, bound=0.0, detail=said), strength, found and likely * (jump.value or 0.0) > 0)


def _jump(case: Case, recent: Sample) -> tuple[Estimate, Estimate, Estimate, str]:
    """(what acting adds to the label at the same score, how far the rows left alone moved, and those acted on, since when).

    The coefficient of the act in a regression of the label on the act and on the logit of the score and its square, by Frisch and Waugh's way
    (1933): a change along the score, however curved, is not mistaken for one at the threshold. Held against the same number of the rows
    before, when the release acted then too; else against zero.
    """
    both = case.compared
    if both is not None and both.binary and both.before.block_count >= 8:
        acted = both.before.number("_act"), both.recent.number("_act")
        if min((acted[0] == 1).sum(), (acted[0] == 0).sum()) >= FEW:
            expected = both.old
            pieces = [
                _piece(s.label - e, a, s.score) for s, a, e in zip((both.before, both.recent), acted, expected, strict=True)
            ]
            jump = both.difference(pieces[0], pieces[1])
            past, new = (s.label - e for s, e in zip((both.before, both.recent), expected, strict=True))
            alone, whole = (
                both.difference(past, new, ((acted[0] == k).astype(float), (acted[1] == k).astype(float))) for k in (0, 1)
            )
            return jump, alone, whole, "more than before the fault"
    acted_now = recent.number("_act")
    rest = recent.label - recent.score
    jump = stats.block_mean(_piece(rest, acted_now, recent.score), recent.blocks, least=5, confidence=0.98)
    alone, whole = (
        stats.block_mean(rest[acted_now == k], recent.blocks[acted_now == k], least=5, confidence=0.98) for k in (0, 1)
    )
    return jump, alone, whole, "since the release acts"


def _piece(rest: Floats, acted: Floats, score: Floats) -> Floats:
    """One number a row whose mean is the coefficient of ``acted``, the score's logit and its square held fixed."""
    line = logit(score)
    line = (line - line.mean()) / (float(line.std()) or 1.0)
    fine = np.isfinite(acted)
    design = np.column_stack([np.ones(len(line)), line, line**2])[fine]
    beta, *_ = np.linalg.lstsq(design, acted[fine], rcond=None)
    left = acted[fine] - design @ beta
    gamma, *_ = np.linalg.lstsq(design, rest[fine], rcond=None)
    scale = float((left**2).mean())
    made = np.full(len(line), np.nan)
    made[fine] = left * (rest[fine] - design @ gamma) / scale if scale > 1e-9 else np.nan
    return made


# ------------------------------------------------------------------------------------------------------------ the loop


def feedback_loop(case: Case) -> Tested:
    """The next model learns from its own choices: what is acted on comes true by that, or only what is acted on gets a label and it narrows."""
    act = "explore (Decide(explore=…)), weight what is learned by the chance of having been shown, and watch the diversity of the acts"
    title = "feedback loop"
    confirmed = streams.once(case, "acted otherwise", lambda: _otherwise(case))
    if confirmed.comes_true:
        said = f"what is acted on comes true, and what is left alone does as before: {confirmed.check.detail}"
        made = check("acts confirm themselves", True, size=confirmed.check.estimate, bound=0.0, detail=said)
        return Tested(title, "scoping", act, (made,), confirmed.strength)
    chosen = _selected_labels(case)
    if chosen is None:
        return Tested(title, "scoping", act, (check("labels depend on acts", None),))
    if chosen.verdict is Verdict.PASS:
        return Tested(title, "scoping", act, (chosen,))
    narrowed = _narrowed(case)
    rows = [narrowed] if narrowed.verdict is not Verdict.FAIL else [chosen, narrowed]
    missed = _missed(case)
    if missed is not None and narrowed.verdict is Verdict.FAIL:
        rows.append(missed)
    strength = 0.0
    if narrowed.verdict is Verdict.FAIL:
        strength = 0.9 if missed is not None and missed.verdict is Verdict.FAIL else 0.8
    return Tested(title, "scoping", act, tuple(rows), strength)


def _selected_labels(case: Case) -> Check | None:
    """Whether rows that were not acted on teach nothing: declared, or seen in which rows have a label."""
    name = "labels depend on acts"
    label = case.system.label
    if label.observed_when is not None:
        return check(name, True, detail=f"a label is seen only when {label.observed_when}: what is not chosen teaches nothing")
    cohorts = [c for c in case.cohorts if c.window.start >= case.window.start and c.n]
    if not cohorts:
        return None
    share = sum(c.labelled for c in cohorts) / sum(c.n for c in cohorts)
    return check(
        name,
        share < SEEN,
        size=Estimate(share, n=len(cohorts)),
        bound=SEEN,
        detail=f"{share:.0%} of all rows have a label, acted on or not",
    )


def _narrowed(case: Case) -> Check:
    """Whether the acts concentrate: a watched diversity has fallen, or fewer values share what is acted on."""
    name = "the acts narrow"
    series: dict[str, list[tuple[bool, float]]] = {}
    for window in case.traffic:
        for signal in window.signals:
            if signal.name == "diversity" and signal.value is not None and window.release is not None:
                series.setdefault(signal.subject, []).append((window.window.start >= case.window.start, signal.value))
    if not series:
        series = _breadth(case)
    best: tuple[float, Check] | None = None
    for subject, values in sorted(series.items()):
        past, new = (np.array([v for since, v in values if since is flag]) for flag in (False, True))
        if len(past) < 8 or not len(new):
            continue
        made = stats.moved(past, np.arange(len(past)), new, 1000 + np.arange(len(new)), confidence=1 - 0.02 / len(series))
        if made.value is None:
            continue
        usual = float(np.mean(past)) or 1.0
        found = made.below(0.0) and made.value < -FALL * usual
        said = f"the diversity of {subject} among what is acted on moved by {made} from {usual:.3g}"
        one = check(name, found, subject=subject, size=made, bound=0.0, detail=said)
        if best is None or (found, -made.value / usual) > (best[1].verdict is Verdict.FAIL, best[0]):
            best = (-made.value / usual, one)
    return best[1] if best is not None else check(name, None, detail="no diversity is watched over enough windows")


def _breadth(case: Case) -> dict[str, list[tuple[bool, float]]]:
    """By day, among the rows acted on: the effective number of values of each category (the exponential of Shannon's entropy), and the acts' share."""
    known = case.home.lake.schema("predictions") or {}
    names = [f.name for f in case.system.flat_features if f.name in known and known[f.name] == pl.String]
    start = case.window.start - max(case.window.length, 56 * case.every)
    frame = measure.closed(case.home, case.system, Window(start, case.window.end), columns=["_act", "_release", *names])
    frame = frame.filter((pl.col("_release").fill_null("") != "") & (pl.col("_act") > 0))
    if frame.is_empty():
        return {}
    blocks = measure.blocks_of(frame["_time"], case.system.gate.block)
    since = (frame["_time"] > case.window.start).to_numpy()
    made: dict[str, list[tuple[bool, float]]] = {}
    for name in names:
        codes = frame[name].fill_null("").cast(pl.Categorical).to_physical().to_numpy()
        for block in np.unique(blocks):
            inside = blocks == block
            if inside.sum() >= 20:
                made.setdefault(name, []).append((bool(since[inside].any()), _effective(codes[inside])))
    return made


def _effective(codes: NDArray[np.generic]) -> float:
    counts = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(np.exp(-(counts * np.log(counts)).sum()))


def _missed(case: Case) -> Check | None:
    """Whether rows that chance chose against the policy turn out better than the scores say: what the model has unlearned."""
    recent = case.recent
    if recent is None:
        return None
    chance, acted = recent.number("_act_propensity"), recent.number("_act")
    drawn = (chance < 0.5) & (acted > 0)
    if drawn.sum() < FEW:
        return None
    made = stats.block_mean((recent.label - recent.score)[drawn], recent.blocks[drawn], least=5)
    said = f"rows that chance chose against the policy turn out {made} better than their scores"
    return check("what is not chosen is underrated", made.above(0.0), size=made, bound=0.0, detail=said)
