"""Faults of the model itself: its scores do not mean what they say, or it fails on one part of the rows."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Check, Estimate
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.compared import FAMILY, Compared, Largest, by_block, placements
from noria.diagnosis.learned import frequent
from noria.diagnosis.tested import Tested, check
from noria.measure.slices import MISSING

OFFSET = 0.1
SLOPE = 0.2
ALERTED = 0.8
LEAST_ROWS, LEAST_FALL, MOST_SHARE, MOST_VALUES, FEW = 200, 0.05, 0.7, 12, 3


def miscalibration(case: Case) -> Tested:
    """Scores are off on average, or far too bold or timid, while the world is as it was: the model does not mean what it says."""
    act = "calibrate on the newest closed labels, and choose the decision's threshold again"
    made = [
        check("calibration at the gate", True, subject=one.subject, size=one.estimate, bound=one.bound, detail=one.detail)
        for one in case.failed("calibration")
    ]
    strength = 0.8 if made else 0.0
    if case.system.combine is not None:
        said = "the score combines several objectives and is no probability"
        return Tested("miscalibration", "development", act, (check("calibration", None, detail=said),))
    recent, both = case.recent, case.compared
    if recent is None or not set(np.unique(recent.label)) <= {0.0, 1.0}:
        return Tested("miscalibration", "development", act, tuple(made) or (check("calibration", None),), strength)
    off, first = _is_off(recent, both)
    if not off and both is not None and both.binary and both.rise.above(0.0):
        off = both.scores_of_inputs.found and abs(both.scores_of_inputs.size.value or 0.0) > 0.1
    made.append(first)
    if off and both is not None and both.binary:
        scores = both.scores_of_inputs
        own = scores.found and abs(scores.size.value or 0.0) > 0.1
        said = (
            f"to the same inputs the release gives scores that moved by {scores.size} of their spread ({scores.name or 'none'})"
        )
        made.append(check("the same inputs, other scores", own, size=scores.size, bound=0.0, detail=said))
        strength = max(strength, 0.85 if own else 0.25)
    if off and case.before is not None and case.before.binary and case.before.block_count >= 8:
        was = bool(_off(case.before.label, case.before.score, case.before.blocks)[2])
        made.append(
            check(
                "it was so before",
                was,
                detail="the scores were off before the symptoms already" if was else "before the symptoms the scores were right",
            )
        )
        strength = max(strength, 0.6 if was else 0.0)
    return Tested("miscalibration", "development", act, tuple(made), max(strength, 0.25) if off else strength)


def _is_off(recent: Sample, both: Compared | None) -> tuple[bool, Check]:
    """Whether offset or slope is off; with few days the offset alone, held against how much it varies from day to day."""
    offset, slope, off = _off(recent.label, recent.score, recent.blocks)
    bound = OFFSET * float(recent.label.mean())
    if off is None and both is not None:
        residuals = [s.label - s.score for s in (both.before, both.recent)]
        shift = both.difference(residuals[0], residuals[1])
        base = float(residuals[0].mean())
        if shift.low is not None and shift.high is not None:
            offset = Estimate(base + (shift.value or 0.0), base + shift.low, base + shift.high, shift.n)
            off = offset.above(bound) or offset.below(-bound)
    said = f"labels less scores {offset} on average, slope {slope}"
    return bool(off), check("calibration", off, size=offset, bound=bound, detail=said)


def slice_failure(case: Case) -> Tested:
    """The loss that came lies in one part of the rows; elsewhere the release is as good as ever."""
    name = "the excess lies in one slice"
    act = "look at rows of that slice: give it features or rows of its own, or leave its decisions to the fallback until then"
    failed = [
        check("slice at the gate", True, subject=one.subject, size=one.estimate, bound=one.bound, detail=one.detail)
        for one in case.failed("slice not worse", "slice")
    ]
    both = case.compared
    if both is None:
        strength = 0.6 if failed and len(failed) == len(case.failed()) else 0.4 if failed else 0.0
        return Tested("slice failure", "development", act, tuple(failed) or (check(name, None),), strength)
    if not both.rise.known or not (both.rise.value or 0.0) > 0:
        made = check(name, False if both.rise.known else None, size=both.rise, bound=0.0, detail=f"the loss moved by {both.rise}")
        return Tested("slice failure", "development", act, (*failed, made) if failed else (made,), 0.4 if failed else 0.0)
    ranked = _ranks_worse(case, both)
    if ranked is not None:
        act = _look_at(ranked.subject)
        return Tested("slice failure", "development", act, (*failed, ranked), 0.9)
    alerted = _alerted(case, both)
    failed += [one for one, _ in alerted]
    found, made = _searched(case, both, name)
    if found is None and any(alone for _, alone in alerted):
        part = next(one.subject for one, alone in alerted if alone)
        act = _look_at(part)
        return Tested("slice failure", "development", act, tuple(failed), ALERTED)
    if found is not None:
        act = _look_at(found.name)
        strength = 0.9 if found.share < 0.5 else 0.6
        return Tested("slice failure", "development", act, (*failed, made), strength)
    return Tested("slice failure", "development", act, (*failed, made) if failed else (made,), 0.4 if failed else 0.0)


def _look_at(part: str) -> str:
    return (
        f"look at rows with {part}: give them features or rows of their own, or leave their decisions to the fallback until then"
    )


def _ranks_worse(case: Case, both: Compared) -> Check | None:
    """The value of a category within which the release's scores order the rows less than they did, while they order the others as ever."""
    if not both.binary:
        return None
    frames = [_with_slices(case, s) for s in (both.before, both.recent)]
    values: list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]] = []
    for column in frames[0].columns:
        if frames[0][column].dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean):
            past, new = (frame[column].cast(pl.String).fill_null(MISSING) for frame in frames)
            for value in frequent(new, MOST_VALUES):
                values.append((f"{column} = {value}", (past == value).to_numpy(), (new == value).to_numpy()))
    values = [(name, a, b) for name, a, b in values if min(a.sum(), b.sum()) >= LEAST_ROWS and b.mean() <= MOST_SHARE]
    worst: tuple[float, Check] | None = None
    for name, there, here in values:
        fell = _order(both, there, here, 1 - FAMILY / len(values))
        if not fell.below(0.0) or (fell.value or 0.0) > -LEAST_FALL:
            continue
        outside = both.difference(placements(both.before, ~there), placements(both.recent, ~here), confidence=0.95)
        if outside.below(0.0):
            continue
        said = f"where {name} ({here.mean():.0%} of the rows) the AUC within a day moved by {fell} against elsewhere, where it moved by {outside}"
        one = check("the scores order each slice as ever", True, subject=name, size=fell, bound=outside.value, detail=said)
        if worst is None or (fell.value or 0.0) < worst[0]:
            worst = (fell.value or 0.0), one
    return worst[1] if worst is not None else None


def _alerted(case: Case, both: Compared) -> list[tuple[Check, bool]]:
    """The slices that alerts are about, whose test has gone over 14 windows against the other rows; and whether those are known to do as well as ever."""
    made = []
    frames = [_with_slices(case, s) for s in (both.before, both.recent)]
    for alert in {alert.slice: alert for alert in case.alerts if alert.name == "slice"}.values():
        column, _, value = alert.slice.partition("=")
        if column not in frames[0].columns:
            continue
        there, here = ((frame[column].cast(pl.String).fill_null(MISSING) == value).to_numpy() for frame in frames)
        outside = both.difference(*both.losses, ((~there).astype(float), (~here).astype(float)))
        said = f"where {alert.slice} the loss given the inputs rose by {alert.size} against the other rows, whose own loss moved by {outside}"
        one = check("the alert's slice", True, subject=alert.slice, size=alert.size, bound=alert.bound, detail=said)
        made.append((one, outside.known and not outside.above(0.0)))
    return made


def _by_day(sample: Sample, pair: list[tuple[Floats, NDArray[np.bool_]]]) -> list[tuple[float, float, int]]:
    """For each day with enough rows of both the difference of two means (of what is finite), how many rows the first has, and the day."""
    made = []
    for block in np.unique(sample.blocks):
        day = sample.blocks == block
        inside, outside = (values[day & rows & np.isfinite(values)] for values, rows in pair)
        if min(len(inside), len(outside)) >= FEW:
            made.append((float(inside.mean() - outside.mean()), float(len(inside)), int(block)))
    return made


def _order(both: Compared, there: NDArray[np.bool_], here: NDArray[np.bool_], confidence: float) -> Estimate:
    """How far the AUC within a slice and day moved against that of the day's other rows: what is hard for all has no part in it."""
    days = []
    for sample, inside in ((both.before, there), (both.recent, here)):
        days.append(_by_day(sample, [(placements(sample, rows), rows) for rows in (inside, ~inside)]))
    if not all(days):
        return Estimate(None)
    (past, past_size, past_block), (new, new_size, new_block) = (
        tuple(np.array(one) for one in zip(*made, strict=True)) for made in days
    )
    weights = np.sqrt(past_size), np.sqrt(new_size)
    return stats.moved(
        past, past_block, new, new_block, before_weights=weights[0], recent_weights=weights[1], confidence=confidence
    )


def _searched(case: Case, both: Compared, name: str) -> tuple[measure.Slice | None, Check]:
    excess = both.losses[1] - both.crossed(both.losses[0])[1]
    frames = [_with_slices(case, s) for s in (both.before, both.recent)]
    inside_days = excess - by_block(both.recent.blocks, excess, np.ones(len(excess)))  # a storm lifts all of a day's rows
    found = measure.slice_search(frames[1], inside_days, both.recent.blocks, most=1)
    if not found:
        said = "no slice of one or two columns stands out on both halves of the rows"
        enough = both.recent.n >= 8 * measure.slicesearch.LEAST
        return None, check(
            name,
            False if enough else None,
            size=both.rise,
            detail=said if enough else f"{both.recent.n} rows are too few to search slices",
        )
    one = found[0]
    past = _selected(frames[0], frames[1], one)
    inside = both.difference(*both.losses, (past.astype(float), one.rows.astype(float)))
    outside = both.difference(*both.losses, ((~past).astype(float), (~one.rows).astype(float)))
    said = f"where {one.name} ({one.share:.0%} of the rows) the loss rose by {inside}, elsewhere by {outside}"
    rest = (outside.value or 0.0) * (1 - one.share)
    held = (inside.value or 0.0) * one.share
    alone = (
        inside.above(0.0) and not outside.above(0.25 * (inside.value or 0.0)) and held > 2 * max(rest, 0.0) and one.share < 0.7
    )
    if alone:
        elsewhere = Compared(both.before.take(~past), both.recent.take(~one.rows))
        left = elsewhere.residuals() if elsewhere.before.binary and elsewhere.recent.n > 100 else Largest("", 0.0, Estimate(None))
        alone = not left.found
        said += f"; elsewhere the labels follow the inputs {'as before' if alone else f'otherwise too (along {left.name})'}"
    return (one if alone else None), check(name, alone, subject=one.name, size=inside, bound=outside.value, detail=said)


def _with_slices(case: Case, sample: Sample) -> pl.DataFrame:
    """The features, and the declared slices that are none of them."""
    declared = {*case.system.objective.slices, *case.system.objective.sensitive}
    besides = [name for name in sample.more.columns if name in declared and name not in sample.frame.columns]
    return sample.frame.with_columns(sample.more[name] for name in besides)


def _selected(past: pl.DataFrame, recent: pl.DataFrame, one: measure.Slice) -> NDArray[np.bool_]:
    """The rows before that the slice takes: ranges are those of the rows since."""
    chosen = np.ones(past.height, bool)
    for column, value in one.where:
        series, asked = past[column], recent[column]
        if series.dtype.is_numeric() and ".." in value:
            low, _, high = value.partition("..")
            numbers = measure.numbers_of(series)
            chosen &= (numbers > (float(low) if low else -np.inf)) & (numbers <= (float(high) if high else np.inf))
        else:
            chosen &= (series.cast(asked.dtype).cast(pl.String).fill_null(MISSING) == value).to_numpy()
    return chosen


def _off(
    label: stats.longrun.Floats, score: stats.longrun.Floats, blocks: stats.longrun.Ints
) -> tuple[Estimate, Estimate, bool | None]:
    """Offset and slope, and whether either is off by more than a tenth of the label's mean, or a fifth."""
    made = stats.calibration_test(label, score, blocks, least=5)
    offset, slope = made["offset"], made["slope"]
    if not offset.known:
        return offset, slope, None
    bound = OFFSET * float(label.mean())
    off = offset.above(bound) or offset.below(-bound)
    return offset, slope, off or slope.above(1 + SLOPE) or slope.below(1 - SLOPE)
