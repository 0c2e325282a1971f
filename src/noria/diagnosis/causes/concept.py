"""What follows from the same inputs has changed: all at once, bit by bit, or back to what it was some time ago.

Whether it changed is asked at the inputs that both times have: the labels since are held against what the rows before teach to expect, along the
score and along each column. Which kind it is shows in the shape in time of the advantage that a model of the rows since has over
one of the rows before (Gama et al. 2014, "A survey on concept drift adaptation", names the kinds).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from noria import stats
from noria.core import Check, Estimate, Window
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.causes.shift import label_shift, mix
from noria.diagnosis.compared import SHARED, Compared
from noria.diagnosis.learned import boosted, matrix
from noria.diagnosis.tested import Tested, check

NAME = "labels follow the inputs as before"
GAIN = 0.02
BACK = (1, 2, 3, 5, 8, 12)
CHUNK_ROWS = 2_500
LIKELY = 0.5
AGAIN = 0.5
CLEAR = 1.3
READ, KEPT = 0.45, 0.1
COMES = 0.8


@dataclass(frozen=True)
class Concept:
    """Whether the label given the inputs changed (``None``: not enough data), how much of the rise that is, and its shape in time."""

    changed: bool | None
    strength: float
    check: Check
    shape: stats.Shape | None = None
    gradual: bool = False
    episodes: int = 0


def concept(case: Case) -> Concept:
    """The common part of the three kinds; once per case."""
    known: Concept | None = case.__dict__.get("_concept")
    if known is None:
        known = _concept(case)
        case.__dict__["_concept"] = known  # as a cached property keeps it
    return known


def _concept(case: Case) -> Concept:
    both = case.compared
    if both is None or both.before.block_count < 8:
        return Concept(None, 0.0, check(NAME, None, detail="too few closed days before the fault or since"))
    if not both.comparable:
        said = "the rows since have no inputs in common with those before: what follows from them cannot be compared"
        return Concept(
            None, 0.0, check(NAME, None, size=Estimate(both.shared, n=both.recent.block_count), bound=SHARED, detail=said)
        )
    plain = both.residuals()
    past, new = both.advantage
    gain = both.difference(past, new, both.common)
    better = Estimate(float(np.average(new, weights=both.common[1]))) if np.isfinite(new).all() else Estimate(None)
    learned = gain.above(0.0) and better.value is not None and better.value > GAIN * float(both.losses[0].mean())
    said = f"along {plain.name or 'every column'} the labels are {plain.size} away from what the rows before teach to expect"
    if better.value is not None:
        said += f"; a model of the rows since has a loss lower by {better.value:.3g}"
    clear = plain.found and (plain.ratio > CLEAR or both.rise.above(0.0))
    order, variances, past_days = both.disorder
    turns = stats.episodes(order, before=past_days, variances=variances)[0]
    if not clear and not learned and not turns:
        return Concept(
            False if plain.size.known else None,
            0.0,
            check(NAME, False if plain.size.known else None, size=plain.size, bound=0.0, detail=said),
        )
    other = _said_otherwise(case, both)
    if other:
        return Concept(False, 0.0, check(NAME, False, size=plain.size, bound=0.0, detail=f"{said}; {other}"))
    if not clear and not learned:
        said += f"; the AUC within the day fell {turns} times below what the inputs let expect, and came back"
        made = check(NAME, True, subject="the order within the day", size=Estimate(float(turns)), bound=1.0, detail=said)
        return Concept(True, COMES, made, None, False, turns)
    strength = _strength(both, learned=learned, ratio=plain.ratio)
    if plain.found and both.binary and both.reading[1] > KEPT and not both.residuals(again=True).found:
        strength = min(strength, READ)
        said += "; one new reading of the scores takes all of it up, as noise or another definition of the label does"
    size = plain.size if plain.found else gain
    daily, days = both.daily(plain.name) if plain.found else _daily(both)
    shaped = _shape(daily, days)
    often = turns
    if not len(order) and np.isfinite(daily).all():
        often = stats.episodes(daily, before=days)[0]
    made = check(NAME, True, subject=plain.name, size=size, bound=0.0, detail=said)
    return Concept(True, strength, made, shaped, _gradual(shaped) and not often, often)


def _said_otherwise(case: Case, both: Compared) -> str:
    """Whether something simpler says the same: a new mix of labels (one number), or of one category's values."""
    if label_shift(case).strength > LIKELY:
        return "but the new base rate alone says as much: see label shift"
    mixed = mix(both, case)
    return f"but only the mix of {mixed.column} changed: see traffic mix" if mixed is not None and mixed.alone else ""


def _strength(both: Compared, *, learned: bool, ratio: float) -> float:
    """How much of the rise lies in the label given the inputs."""
    share = both.share(both.given_inputs.value)
    strength = 0.9 if share >= 0.7 else 0.5 + 0.4 * share
    if both.rise.known and not both.rise.above(0.0):
        strength = 0.5 if learned else 0.35
    return min(strength, 0.5) if ratio < 1.5 and not learned else strength


def _daily(both: Compared) -> tuple[Floats, int]:
    """The advantage of the newer knowledge by day, over both times, and how many days are before."""
    rows = []
    for sample, values, weights in zip((both.before, both.recent), both.advantage, both.common, strict=True):
        sums, sizes = stats.longrun.block_sums(sample.blocks, values * weights, weights)
        rows.append(sums / np.maximum(sizes, 1e-9))
    return np.concatenate(rows), len(rows[0])


def _shape(daily: Floats, before: int) -> stats.Shape | None:
    if not np.isfinite(daily).all() or len(daily) - before < 5:
        return None
    return stats.shape(daily[max(0, before - 28) :])


def _gradual(shaped: stats.Shape | None) -> bool:
    return shaped is not None and shaped.kind == "ramp"


def sudden(case: Case) -> Tested:
    """The label given the inputs changed from one day to the next."""
    act = "train on data from after the change only"
    found = concept(case)
    if not found.changed:
        return Tested("sudden concept change", "development", act, (found.check,))
    rows = [found.check]
    if found.gradual:
        said = "but it came bit by bit: see gradual concept change"
        rows = [check("it changed at once", False, detail=f"{found.check.detail}; {said}")]
        return Tested("sudden concept change", "development", act, tuple(rows))
    strength = found.strength
    if found.shape is not None and found.shape.kind == "step":
        size = Estimate(found.shape.evidence)
        rows.append(
            check("it changed at once", True, size=size, bound=0.0, detail="a step fits the change over time better than a ramp")
        )
        strength = min(0.95, strength + 0.05)
    if found.episodes or _returned(case) is not None:
        strength *= 0.6
    return Tested("sudden concept change", "development", act, tuple(rows), strength)


def gradual(case: Case) -> Tested:
    """The label given the inputs changes bit by bit, and may go on."""
    act = "train more often and on less history: the newest rows tell most"
    found = concept(case)
    name = "it changed bit by bit"
    if found.changed is None or found.changed is False:
        return Tested("gradual concept change", "development", act, (found.check,))
    if found.episodes:
        said = f"it came {found.episodes} times and went again: see recurring concept change"
        return Tested("gradual concept change", "development", act, (check(name, False, detail=said),))
    if found.shape is None:
        return Tested(
            "gradual concept change",
            "development",
            act,
            (check(name, None, detail="fewer than 5 days since: too early to tell a ramp from a step"),),
        )
    if not found.gradual:
        said = (
            f"a {found.shape.kind} fits the change over time better than a ramp"
            if found.shape.kind == "step"
            else "no shape stands out"
        )
        return Tested(
            "gradual concept change", "development", act, (check(name, False, size=Estimate(found.shape.evidence), detail=said),)
        )
    said = "a ramp fits the change over time better than a step"
    rows = (found.check, check(name, True, size=Estimate(found.shape.evidence), bound=0.0, detail=said))
    strength = found.strength * (0.7 if _returned(case) is not None else 1.0)
    return Tested("gradual concept change", "development", act, rows, min(0.95, strength + 0.03))


def recurring(case: Case) -> Tested:
    """The label given the inputs is again what it was at some earlier time: what was learned then fits once more."""
    act = "keep what was learned then: go back to that release, or train on both times with a feature that tells them apart (the season)"
    found = concept(case)
    name = "an earlier time fits again"
    if not found.changed:
        return Tested("recurring concept change", "development", act, (found.check,))
    if found.episodes:
        said = f"it came {found.episodes} times since and went again: two levels in turn fit the days better than one step"
        rows = (found.check, check("it comes and goes", True, size=Estimate(float(found.episodes)), bound=1.0, detail=said))
        return Tested("recurring concept change", "development", act, rows, min(0.95, found.strength + 0.05))
    again = _returned(case)
    if again is None:
        said = "no earlier stretch of the history knows today's rows better than what came right before"
        enough = bool(case.__dict__.get("_chunks"))
        return Tested(
            "recurring concept change",
            "development",
            act,
            (check(name, False if enough else None, detail=said if enough else "no closed rows from before the comparison"),),
        )
    window, gain, short = again
    said = f"a model of the rows of {window} has a loss lower by {gain} on those since than one of the rows before: {short:.0%} of what it rose by"
    return Tested(
        "recurring concept change",
        "development",
        act,
        (found.check, check(name, True, size=gain, bound=0.0, detail=said)),
        min(0.95, found.strength + 0.05),
    )


def _returned(case: Case) -> tuple[Window, Estimate, float] | None:
    """The earlier stretch of the history whose rows teach today's best, when it is nearly as good as today's own; once per case."""
    if "_again" not in case.__dict__:
        case.__dict__["_again"] = _look_back(case)
    return case.__dict__["_again"]  # type: ignore[no-any-return]  # what _look_back returns


def _look_back(case: Case) -> tuple[Window, Estimate, float] | None:
    both = case.compared
    if both is None or not both.names:
        return None
    length = max(min(case.window.length, 28 * case.every), 7 * case.every)
    case.__dict__["_chunks"] = []
    own = both.given_inputs.value or 0.0
    best: tuple[Window, Estimate, float] | None = None
    for window in _stretches(case, length):
        older = case.rows(window, answered=False, most=CHUNK_ROWS)
        if older is None or older.n < 200 or older.block_count < 3 or set(older.frame.columns) != set(both.before.frame.columns):
            continue
        case.__dict__["_chunks"].append(window)
        judged = _judged(both, older)
        gain = both.difference(judged[0], judged[1])
        mean = float(judged[1].mean())
        made = Estimate(mean, mean - _half(gain), mean + _half(gain), gain.n)
        if gain.above(0.0) and made.above(0.0) and mean > AGAIN * own and (best is None or mean > (best[1].value or 0.0)):
            best = window, made, mean / own if own > 0 else 1.0
    return best


def _half(made: Estimate) -> float:
    return (made.high or 0.0) - (made.value or 0.0)


def _stretches(case: Case, length: timedelta) -> list[Window]:
    """Up to six earlier stretches, the newest first, further apart the further back; and the same time a year ago."""
    end = case.window.start - 2 * case.every
    made = []
    for back in BACK:
        stop = end - back * length
        made.append(Window(stop - length, stop))
    year = timedelta(days=364)
    return [*made, Window(case.window.start - year, case.window.start - year + length)]


def _judged(both: Compared, older: Sample) -> tuple[Floats, Floats]:
    """How much lower the loss of a model of the older rows is than the old expectation, for each row before and since."""
    frames = [s.frame.select(both.names) for s in (older, both.before, both.recent)]
    made = matrix(pl.concat(frames, how="vertical_relaxed"))
    n, m = older.n, both.before.n
    there, here = boosted(made[:n], older.label, made[n : n + m], made[n + m :])
    expected = both.old
    gains = []
    for sample, old, said in zip((both.before, both.recent), expected, (there, here), strict=True):
        losses = [Sample(sample.frame, sample.label, score, sample.blocks).loss() for score in (old, said)]
        gains.append(losses[0] - losses[1])
    return gains[0], gains[1]
