"""The world sends other rows: its inputs moved, its labels became more or less frequent, or only the mix of its parts changed.

Told apart on closed rows, before the fault and since (``diagnosis.compared``). With x the features and y the label: a *covariate shift* changes
p(x) and keeps p(y | x), a *label shift* changes p(y) and keeps p(x | y) (Schölkopf et al. 2012, "On causal and anticausal learning"; Lipton
et al. 2018, "Detecting and correcting for label shift"). A change of the *traffic mix* is the covariate shift of one category alone:
within each of its values nothing changed, and what looks like a change of the whole is Simpson's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats
from noria.diagnosis.compared import Compared, Largest
from noria.diagnosis.learned import frequent
from noria.diagnosis.tested import Tested, check
from noria.measure.slices import MISSING
from noria.records import Entry, Verified
from noria.stats import moved

MATTERS = 0.3
FEW = 40
RATIO = 20.0
TOLD, FACT = 0.4, 0.65
GIVEN = ("concept change", "slice", "miscalibrated")  # alerts of the label given the inputs: where the inputs went is no answer
LATELY = timedelta(days=7)
SOFT = {"level", "width", "hours", "values move", "lost categories"}
"""What verification finds where the world sends other rows, and where nothing is broken."""


def covariate_shift(case: Case) -> Tested:
    """The inputs moved, and the release does worse for just that reason: at the inputs that both times have, it is as good as ever."""
    act = "train on the newest data; where rows of the new kind are few, collect more of them"
    name = "moved inputs explain the loss"
    both = case.compared
    told_by = _told_by_alerts(case)
    if both is None:
        return Tested("covariate shift", "development", act, told_by or (check(name, None),), TOLD if told_by else 0.0)
    found = both.column if both.column.found else Largest("all columns together", 0.0, both.apart)
    told = f"a classifier tells the rows before from those since with AUC {both.auc:.3f}"
    if not both.inputs_moved:
        known = both.recent.block_count > 1 or both.column.size.known
        said = f"{told}: no more than days differ"
        closed = check("inputs moved", False if known else None, size=both.apart, bound=0.0, detail=said)
        return Tested("covariate shift", "development", act, (*told_by, closed), 0.8 * TOLD if told_by else 0.0)
    moved_by = check(
        "inputs moved", True, subject=found.name, size=found.size, bound=0.0, detail=f"{told}; most of all moved {found.name}"
    )
    mixed = mix(both, case)
    if mixed is not None and mixed.alone:
        said = f"only the mix of {mixed.column} changed: see traffic mix"
        return Tested("covariate shift", "development", act, (check(name, False, subject=mixed.column, detail=said),))
    rise = both.rise
    if not rise.known or not rise.above(0.0):
        said = f"{told} ({found.name} most), but the loss moved by {rise}: a fact, not harm"
        made = check(name, False if rise.known else None, size=rise, bound=0.0, detail=said)
        if not case.alerts or case.harmed or any(alert.name in GIVEN for alert in case.alerts):
            return Tested("covariate shift", "development", act, (made,), 0.0)
        return Tested("covariate shift", "development", f"wait: nothing is lost by it so far; then {act}", (moved_by, made), FACT)
    share = both.inputs_share
    said = f"{told} ({found.name} most); at the inputs that both times have the loss rose by {both.given_inputs} of {rise.value:.3g}: {share:.0%} come from where the inputs went"
    made = check(name, share >= MATTERS, size=Estimate(share, n=both.recent.block_count), bound=MATTERS, detail=said)
    strength = 0.85 * share if share >= MATTERS else 0.0
    return Tested("covariate shift", "development", act, (moved_by, made) if strength else (made,), strength)


def _told_by_alerts(case: Case) -> tuple[Check, ...]:
    """What says that inputs moved before enough is closed: alerts, and what moved of the source that asks, where verification finds nothing broken."""
    names = ("drift", "unseen values", "unseen regions", "inputs moved together")
    found = [one for one in case.alerts if one.name in names and one.subject not in ("label", "score")]
    made = [
        check("inputs moved", True, subject=one.subject, size=one.size, bound=one.bound, detail=one.message) for one in found[-3:]
    ]
    for entry in _softly(case):
        source, failed = entry.record.source, [one for one in entry.record.checks if one.verdict is Verdict.FAIL]
        made += [
            check(
                "inputs moved",
                True,
                subject=f"{source}.{one.subject}".rstrip("."),
                size=one.estimate,
                bound=one.bound,
                detail=one.detail,
            )
            for one in failed[:3]
        ]
    return tuple(made)


def _softly(case: Case) -> list[Entry[Verified]]:
    """The last verification of what is asked, when it failed, and it and all that fail now found only what the world does: labels and outcomes echo what was asked."""
    symptoms = case.of(Verified)
    if not symptoms or not all(_soft(entry) for entry in symptoms):
        return []
    asked = streams.asked_name(case)
    since = symptoms[-1].at - LATELY
    lately = [
        e
        for e in case.home.ledger.read(Verified, prefix=f"verify/{asked}/", since=since, until=case.until)
        if e.at <= symptoms[-1].at
    ]
    return lately[-1:] if lately and _soft(lately[-1]) else []


def _soft(entry: Entry[Verified]) -> bool:
    failed = [one.name for one in entry.record.checks if one.verdict is Verdict.FAIL]
    return bool(failed) and SOFT.issuperset(failed)


# -------------------------------------------------------------------------------------------------------------- labels


def label_shift(case: Case) -> Tested:
    """The labels' mean moved, and everything else moved as it does when only the mix of labels changes."""
    act = "train on the newest data, or correct the scores for the new base rate; ask whether what is asked for has changed"
    name = "only the mix of labels changed"
    both = case.compared
    if both is None or not both.binary:
        return Tested("label shift", "development", act, (check(name, None),))
    rate = both.difference(both.before.label, both.recent.label)
    if not (rate.above(0.0) or rate.below(0.0)):
        made = check(name, False if rate.known else None, size=rate, bound=0.0, detail=f"the label's mean moved by {rate}")
        return Tested("label shift", "development", act, (made,))
    apart = _apart(both.before.label, both.before.score)
    wanted = (rate.value or 0.0) * apart
    score = both.difference(both.before.score, both.recent.score)
    fits = score.low is not None and score.high is not None and score.low <= wanted <= score.high
    within = _within_classes(both)
    corrected = both.residuals(_new_odds(both))
    plain = both.residuals()
    # inputs that stay (a concept change) keep the scores; inputs that move on their own carry labels and scores along alike
    away = (score.above(0.0) or score.below(0.0)) and abs(score.value or 0.0) < 0.85 * abs(rate.value or 0.0)
    said = f"the label's mean moved by {rate}, the score's by {score}; a new mix of labels alone would move the score by {wanted:.3g}"
    found = bool(fits and away and plain.found)
    made_first = check(name, found, size=score, bound=wanted, detail=said)
    strength = 0.0
    if found:
        strength = 0.75
        if within.found:
            strength *= max(0.3, 1 / within.ratio)
        if corrected.found and corrected.ratio > 0.5 * plain.ratio:
            strength *= 0.4
    rows = [made_first]
    if found:
        said = f"given its label a row looks as before ({within.name or 'nothing'} moved most); corrected for the new base rate the labels follow the inputs as before"
        fine = strength > 0.5
        if not fine:
            said = f"but given its label {within.name or 'nothing'} moved, and {corrected.name or 'nothing'} stays unexplained"
        rows.append(check("the same within each label", fine, size=within.size, bound=0.0, detail=said))
    return Tested("label shift", "development", act, tuple(rows), strength)


def _apart(label: Floats, score: Floats) -> float:
    return float(score[label == 1].mean() - score[label == 0].mean())


def _within_classes(both: Compared) -> Largest:
    """Of the score and every column the one that moved most among rows of one label."""
    names, a, b = both.contrasts
    best = Largest("", 0.0, Estimate(None))
    for value in (0.0, 1.0):
        past, new = both.before.label == value, both.recent.label == value
        if past.sum() < FEW or new.sum() < FEW:
            continue
        columns = [np.column_stack([s.score, z]) for s, z in ((both.before, a), (both.recent, b))]
        weights = past.astype(float), new.astype(float)
        made = both.largest(["the score", *names], columns[0], columns[1], weights)
        best = max(best, made, key=lambda one: one.ratio)
    return best


def _new_odds(both: Compared) -> float:
    """The change of the base rate in log-odds (Saerens et al. 2002, Neural Computation 14)."""
    rates = [float(np.clip(s.label.mean(), 1e-4, 1 - 1e-4)) for s in (both.before, both.recent)]
    return float(np.log(rates[1] / (1 - rates[1])) - np.log(rates[0] / (1 - rates[0])))


# ----------------------------------------------------------------------------------------------------------------- mix


@dataclass(frozen=True)
class Mix:
    """A category whose shares moved: which value most, and whether nothing else moved (``alone``)."""

    column: str
    value: str
    size: Estimate
    alone: bool
    weights: Floats
    rest: str = ""


def mix(both: Compared, case: Case) -> Mix | None:
    """The category whose mix alone explains what moved; else the one that moved most; ``None`` when no mix moved."""
    found: list[tuple[float, Mix]] = []
    for column, past, new in _categories(both, case):
        values = list(dict.fromkeys([*frequent(past, 12), *frequent(new, 12)]))
        if not 1 < len(values) <= 24:
            continue
        a, b = (np.column_stack([(s == v).to_numpy().astype(float) for v in values]) for s in (past, new))
        moved_most = both.largest(values, a, b)
        if not moved_most.found:
            continue
        weights = _ratio(a, b)
        names, za, zb = both.contrasts
        others = [k for k, n in enumerate(names) if not n.startswith((f"{column}=", f"{column} "))]
        rest = both.largest([names[k] for k in others], za[:, others], zb[:, others], (weights, np.ones(both.recent.n)))
        inside = _within_values(both, a, b)
        alone = not rest.found and not inside.found
        one = Mix(column, moved_most.name, moved_most.size, alone, weights, rest.name if rest.found else inside.name)
        found.append((moved_most.ratio + 1000 * alone, one))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _categories(both: Compared, case: Case) -> list[tuple[str, pl.Series, pl.Series]]:
    made: list[tuple[str, pl.Series, pl.Series]] = []
    declared = {*case.system.objective.slices, *case.system.objective.sensitive}
    for before, recent in ((both.before.frame, both.recent.frame), (both.before.more, both.recent.more)):
        for name in before.columns:
            series = before[name]
            texts = series.dtype in (pl.String, pl.Categorical, pl.Boolean, pl.Enum)
            if name.startswith("_") or name in {one[0] for one in made} or not (texts or name in declared):
                continue
            past, new = (f[name].cast(pl.String).fill_null(MISSING) for f in (before, recent))
            made.append((name, past, new))
    return made


def _ratio(a: Floats, b: Floats) -> Floats:
    """A weight for each row before that gives its category the share that it has since."""
    shares = (a.mean(axis=0), b.mean(axis=0))
    ratio = np.clip(shares[1] / np.maximum(shares[0], 1e-9), 0.0, RATIO)
    return np.asarray(np.where(a.any(axis=1), a @ ratio, 1.0))


def _within_values(both: Compared, a: Floats, b: Floats) -> Largest:
    """Whether the label or the loss moved within any of the values that both times have."""
    best = Largest("", 0.0, Estimate(None))
    columns = [np.column_stack([s.label, loss]) for s, loss in zip((both.before, both.recent), both.losses, strict=True)]
    for place in range(a.shape[1]):
        if a[:, place].sum() < FEW or b[:, place].sum() < FEW:
            continue
        made = both.largest(
            ["the label", "the loss"] * 3, np.tile(columns[0], 3), np.tile(columns[1], 3), (a[:, place], b[:, place])
        )
        best = max(best, made, key=lambda one: one.ratio)
    return best


def traffic_mix(case: Case) -> Tested:
    """The shares of one category's values changed and nothing within them: the total moved, the parts did not."""
    act = "compare within the parts, not the total; weight the training data to the new mix, and ask who sends the traffic"
    name = "only the mix changed"
    both = case.compared
    if both is None:
        return Tested("traffic mix", "development", act, (check(name, None),))
    found = mix(both, case)
    if found is None:
        made = check(name, False, detail="no category's shares moved beyond what they do from day to day")
        return Tested("traffic mix", "development", act, (made,))
    said = f"the share of {found.column} = {found.value} moved by {found.size}"
    if not found.alone:
        made = check(name, False, subject=found.column, size=found.size, bound=0.0, detail=f"{said}, but {found.rest} moved too")
        return Tested("traffic mix", "development", act, (made,))
    losses = both.losses
    left = moved(
        losses[0],
        both.before.blocks,
        losses[1],
        both.recent.blocks,
        before_weights=found.weights,
        recent_weights=np.ones(both.recent.n),
    )
    within = f"{said}; within its values neither labels nor loss moved, and at the new mix the loss before differs by {left}"
    made = check(name, True, subject=found.column, size=found.size, bound=0.0, detail=within)
    return Tested("traffic mix", "development", act, (made, *_harm(both)), 0.9 if both.rise.above(0.0) else 0.7)


def _harm(both: Compared) -> list[Check]:
    if not both.rise.known or both.rise.above(0.0) or both.rise.below(0.0):
        return []
    return [check("the loss rose", False, size=both.rise, bound=0.0, detail=f"the loss moved by {both.rise}: a fact, not harm")]
