"""Labels come later, fewer of them come, or they mean something else: what every metric and every training rests on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats
from noria.diagnosis.causes.labelnoise import changed
from noria.diagnosis.causes.source import cut
from noria.diagnosis.causes.units import fitted, moved_columns, samples, unit_changed
from noria.diagnosis.compared import Compared
from noria.diagnosis.tested import Tested, check
from noria.monitoring.lateness import SLOWER, longest
from noria.records import CohortClosed, Declared

COVERAGE = 0.05
SOONER = 0.3
LEAST = 14
JUMP = 0.03
PART = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95])
STEADY = 0.2
FEWEST_DAYS = 5


def label_delay_changed(case: Case) -> Tested:
    """Labels come later after the question than they did; that they come sooner is told, explains little and holds no training back."""
    act = "ask the owner of the label's source why; if the delay is there to stay, declare a longer `within` or `lateness`"
    recent, earlier = _cohorts(case)
    made, later = [], []
    for name in ("p50", "p90"):
        now, past = ([c.delay[name] for c in some if name in c.delay] for some in (recent, earlier))
        if not now or len(past) < LEAST:
            made.append(check("label delay", None, subject=name))
            continue
        middle, usual = float(np.median(now)), float(np.median(past))
        most = max(longest(case.system, name, usual), float(np.quantile(past, 0.98)))
        least = min(usual / SLOWER, float(np.quantile(past, 0.02)))
        found = middle > most or middle < least
        share = "half" if name == "p50" else "nine of ten"
        said = f"{share} of the labels came within {middle:.3g} h, within {usual:.3g} h before"
        bound = least if middle < least else most
        made.append(check("label delay", found, subject=name, size=Estimate(middle, n=len(now)), bound=bound, detail=said))
        later += [made[-1]] if middle > most else []
    sooner = [one for one in made if one.verdict is Verdict.FAIL]
    if not later and sooner:  # nothing is wrong with what is known, and nothing of it is lacking
        return Tested("label delay changed", "data", act, tuple(sooner), SOONER)
    return Tested("label delay changed", "data", act, tuple(later or made), 0.9 if later else 0.0, blocks=True)


def labels_missing(case: Case) -> Tested:
    """Fewer predictions get a label, or more of them get it by silence, while those that come are as quick as ever."""
    act = "ask the owner of the label's source what is missing; what comes late makes new revisions of its cohorts by itself"
    recent, earlier = _cohorts(case)
    source = streams.streams(case).get(case.system.label.source.name)
    few = [cut(case, source)] if source is not None and streams.only_labels(case, source.name) else []
    if any(one.verdict is Verdict.FAIL for one in few):
        return Tested("labels missing", "data", act, tuple(few), 0.93, blocks=True)
    if len(earlier) < LEAST or not recent:
        return Tested("labels missing", "data", act, (check("label coverage", None), check("silence", None)), blocks=True)
    shares = [[c.labelled / c.n for c in some] for some in (recent, earlier)]
    coverage, usual = (float(np.median(share)) for share in shares)
    lowest = min(float(np.quantile(shares[1], 0.02)), usual - COVERAGE)
    said = f"{coverage:.1%} of the predictions got a label, {usual:.1%} before"
    made = [check("label coverage", coverage < lowest, size=Estimate(coverage, n=len(recent)), bound=lowest, detail=said)]
    silent = [[c.silent / c.labelled for c in some if c.labelled] for some in (recent, earlier)]
    now, past = (float(np.median(share)) if share else 0.0 for share in silent)
    bound = max(past + COVERAGE, float(np.quantile(silent[1], 0.98)) if silent[1] else 1.0)
    said = f"{now:.1%} of the labels were made by silence, {past:.1%} before"
    made.append(check("silence", now > bound, size=Estimate(now, n=len(recent)), bound=bound, detail=said))
    found = [one for one in made if one.verdict is Verdict.FAIL]
    late = bool(found) and streams.tested(case, label_delay_changed).strength > SOONER
    both = _asked(case) if found else None
    if both is not None:
        other = both.inputs_moved or not both.comparable
        said = (
            "other rows are asked than before: a storm or another mix takes labels away too"
            if other
            else "the rows asked are as ever"
        )
        found.append(check("the inputs stayed", not other, size=both.apart, detail=said))
        late = late or other
    strength = 0.0 if not found else 0.5 if late else 0.92
    return Tested("labels missing", "data", act, tuple(found or made), strength, blocks=True)


def _asked(case: Case) -> Compared | None:
    """What was asked before and since, with a label or without one."""
    past, new = (case.rows(window, answered=False, labelled=False) for window in (case.past, case.window))
    return None if past is None or new is None or past.block_count < FEWEST_DAYS else Compared(past, new)


def _cohorts(case: Case) -> tuple[list[CohortClosed], list[CohortClosed]]:
    recent = [c for c in case.cohorts if c.n and c.window.start >= case.window.start]
    earlier = [c for c in case.cohorts if c.n and c.window.start < case.window.start]
    return recent, earlier


# ----------------------------------------------------------------------------------------------------- what they mean


def label_definition_changed(case: Case) -> Tested:
    """What counts as a positive changed: the labels' mean jumps from one day to the next, the inputs stay, and the scores still order the rows.

    A changed concept breaks the order; a label shift moves the inputs along; noise draws both ends to the middle.
    """
    act = "ask who defines the label what counts since when; declare the new definition, relabel the history by it and train once more"
    declared, moved = _declared(case), _source_moved(case)
    made = [*declared, *moved]
    certain = any(one.verdict is Verdict.FAIL for one in made)
    made += _jumped(case)
    found = certain or (len(made) > 0 and all(one.verdict is Verdict.FAIL for one in made))
    if not found:  # one of several needed: speaks for it, and does not prove it
        made = [one for one in made if one.verdict is not Verdict.FAIL] or [check("the labels' mean jumped", None)]
    if certain:
        made = [one for one in made if one.verdict is Verdict.FAIL]
    strength = 0.0 if not found else 0.95 if certain else 0.85
    if found and streams.tested(case, labels_missing).verdict is Verdict.FAIL:
        strength = 0.4  # labels that silence made are no other definition
    if found and streams.tested(case, unit_changed).strength > 0.9 and not any(one.name == "declared label" for one in made):
        strength = min(strength, 0.5)
    meant = bool(declared) and not moved  # somebody meant it: what is trained from now on learns the new definition
    return Tested("label definition changed", "data", act, tuple(made), strength, blocks=not meant)


def _declared(case: Case) -> list[Check]:
    """The declaration itself says another label since a while: another source, expression, ``otherwise`` or ``how``."""
    entries = case.home.ledger.read(Declared, until=case.until)
    for old, new in pairwise(entries):
        before, after = _defined(old.record.spec.get("label")), _defined(new.record.spec.get("label"))
        if new.at > case.window.start - case.window.length and before is not None and before != after:
            said = f"since {new.at:%Y-%m-%d} the declaration says {_shown(after)}; before {_shown(before)}"
            return [check("declared label", True, detail=said)]
    return []


def _defined(label: object) -> dict[str, object] | None:
    """What a declared label means; how long is waited for it is no part of that."""
    if not isinstance(label, dict):
        return None
    source = label.get("source")
    return {
        "source": source.get("name") if isinstance(source, dict) else source,
        "expression": label.get("expression"),
        "otherwise": label.get("otherwise"),
        "how": label.get("how"),
    }


def _shown(label: dict[str, object] | None) -> str:
    return ", ".join(f"{key}={said!r}" for key, said in (label or {}).items() if said is not None)


def _source_moved(case: Case) -> list[Check]:
    """A column that the label is read off is counted from another point: every value is off by the same amount since one day."""
    name = "the label's column keeps its zero"
    source = case.system.label.source.name
    columns = streams.label_columns(case, source)
    for moved in moved_columns(case)[0]:
        if moved.stream.name != source or moved.column not in columns:
            continue
        found = samples(case, moved)
        if found is None:
            continue
        before, _, after, _ = found
        offset = _offset(before, after)
        if offset is not None:
            subject = f"{source}.{moved.column}"
            said = f"{subject} is {offset:+.4g} since {moved.at.at:%Y-%m-%d}, for its rows alike: the label is read off it"
            return [check(name, True, subject=subject, size=Estimate(offset), bound=0.0, detail=said)]
    return []


def _offset(before: Floats, after: Floats) -> float | None:
    """The same amount by which all quantiles moved, or all of the lower or of the upper half (a storm stretches the other); ``None`` without one."""
    slope, whole, fit = fitted(before, after)
    least = 0.5 * streams.spread_of(before)
    if fit > 0.99 and abs(slope - 1) < 0.05 and abs(whole) > least:
        return whole
    apart = np.quantile(after, PART) - np.quantile(before, PART)
    for half in (apart[PART < 0.5], apart[PART > 0.5]):
        middle = float(np.median(half))
        if abs(middle) > least and float(np.abs(half - middle).max()) < STEADY * abs(middle):
            return middle
    return None


def _jumped(case: Case) -> list[Check]:
    """The four marks on closed rows; all are needed."""
    name = "the labels' mean jumped"
    cohorts = [c for c in case.cohorts if c.mean is not None and c.labelled >= 5]
    means = np.array([c.mean for c in cohorts], float)
    at = streams.broken([c.window.end for c in cohorts], means, floor_=0.005)
    if at is None:
        return [check(name, None, detail="too few closed cohorts to compare")]
    moved = at.after - at.before
    seen = changed(case)
    clear = seen is not None and (seen.away.above(JUMP) or seen.away.below(-JUMP))
    jumped = (abs(moved) > max(JUMP, 1.5 * at.usual) and at.sudden) or clear
    said = f"the labels' mean is {at.after:.3g} since {at.at:%Y-%m-%d}, {at.before:.3g} before; {at.usual:.2g} is usual"
    made = [check(name, jumped, size=Estimate(moved, n=at.days), bound=1.5 * at.usual, detail=said)]
    if not jumped:
        return made
    if seen is None:
        return [*made, check("the scores still order the rows", None, detail="too few closed rows on either side")]
    made.append(
        check(
            "the inputs stayed",
            seen.same_inputs,
            size=seen.apart,
            detail=f"a classifier tells rows before and since apart with AUC {seen.apart}",
        )
    )
    said = f"labels less scores moved by {seen.away}"
    away = None if not seen.away.known else seen.away.above(0.0) or seen.away.below(0.0)
    made.append(check("labels left the scores", away, size=seen.away, bound=0.0, detail=said))
    said = f"the scores' AUC is {seen.auc} since, {seen.auc_before} before"
    made.append(check("the scores still order the rows", seen.order_kept, size=seen.auc, detail=said))
    said = f"a refit on all features beats a new reading of the same scores by {seen.beyond}"
    made.append(check("a new reading of the scores is enough", seen.score_suffices, size=seen.beyond, detail=said))
    said = f"labels flipped at random would fit worse than moved odds by {seen.flips_less_odds}"
    made.append(
        check("no flips at random", None if seen.flips is None else not seen.flips, size=seen.flips_less_odds, detail=said)
    )
    return made
