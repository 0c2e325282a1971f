"""The rules that turn windows into alerts: pure functions of the last windows, in one visible list.

*Harm* is judged on the closed windows by a slow test and a fast one (``change``). *Facts* (drift, volume, what the estimates before the
labels say) are found when so many of the last few windows failed, or one failed grossly (``facts``). All clear later than they open. What
each may raise when nothing is wrong is its part of the declared budget (``budget``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from noria import stats
from noria.core import Estimate, duration
from noria.monitoring import budget
from noria.monitoring.change import (
    CURRENT,
    EVERY,
    MEMORY,
    SPANS,
    Ordinary,
    Point,
    Sequel,
    began,
    below,
    lasting,
    ordinary,
    sudden,
)
from noria.monitoring.facts import Finding, History, drift, persistent
from noria.monitoring.lateness import longest
from noria.monitoring.outcomes import BASE, CHAMPION, LAST, NOTHING
from noria.monitoring.reference import SCORE
from noria.monitoring.windows import found
from noria.records import Monitored
from noria.system import AtMost

__all__ = ["CURRENT", "MEMORY", "Finding", "History", "Point", "below", "findings"]

BASELINE = "worse than baseline"
COSTS = "costs"
FEWER = 0.1
RECALL = MEMORY + SPANS[-1]
Number = Callable[[Monitored], tuple[float | None, float | None]]

# --------------------------------------------------------------------------------------------------------------- harm


def _points(windows: Iterable[Monitored], of: Number) -> list[Point]:
    made = []
    for window in windows:
        value, weight = of(window)
        if value is not None and weight:
            made.append(Point(window.window.start, window.window.end, value, weight))
    return made


def _usual(history: History, points: Sequence[Point], given: Ordinary | None = None) -> Ordinary | None:
    """What is ordinary: the windows before the last four, those of past harm apart where enough others are left."""
    before = points[: -SPANS[-1]]
    sound = _sound(history, before)
    return ordinary(sound) or ordinary(before) or given


def _sound(history: History, points: Sequence[Point]) -> list[Point]:
    """Those that lie in no span of past harm."""
    return [p for p in points if not any(start < p.end and p.start < end for start, end in history.faulty)]


def _tested(
    history: History, about: tuple[str, str], own: Sequence[Point], bound: float, *,
    slow: float, fast: float, everyone: Sequence[Point] | None = None, given: Ordinary | None = None,
) -> Sequel | None:  # fmt: skip
    """The three tests on the windows since ``about`` was last resolved; ``slow`` (half of it for what lasts) and ``fast`` are their false alarms in a window.

    ``everyone`` are the windows of every release: what is ordinary is seen from them too.
    """
    after, every = history.after(*about), duration(history.system.every)
    points = [p for p in own if after is None or p.start >= after]
    made = below(points, bound, every, error=budget.sequence_error(slow / 2, EVERY))
    if made is None:
        return None
    before = everyone if everyone is not None else own
    usual = _usual(history, before, given)
    for other in (sudden(points, bound, usual, rate=fast), lasting(points, _sound(history, before), bound, rate=slow / 2)):
        if other is not None and other.raised and not made.raised:
            made = other
    if not made.raised or made.size.value is None:
        return made
    good = usual.mean if usual is not None and usual.mean > bound else bound
    since = began(points, good, made.size.value)
    return made if since is None or not made.raised else replace(made, since=since)


def _parts(history: History) -> tuple[float, float]:
    """What one of the harm rules may raise in a window, slow and fast; decay has half of the fast part, since all faults go through it."""
    rules = 5 + history.system.costs.running + len(history.system.objective.guardrails)
    return budget.share(history.system, "harm slow") / rules, budget.share(history.system, "harm fast") / 2 / (rules - 1)


def _harm(
    history: History, about: tuple[str, str], points: Sequence[Point], bound: float, text: str, *,
    fast: float | None = None, everyone: Sequence[Point] | None = None, given: Ordinary | None = None,
) -> list[Finding]:  # fmt: skip
    """The finding of both tests ``about`` (name, subject); ``text`` takes ``{size}`` and ``{since}``."""
    slow, part = _parts(history)
    made = _tested(history, about, points, bound, slow=slow, fast=part if fast is None else fast, everyone=everyone, given=given)
    if made is None:
        return []
    said = text.format(size=made.size, since=f"{made.since:%Y-%m-%d}")
    return [Finding(*about, "outcome", True, made.raised, made.cleared, made.since, made.size, bound, said)]


def _rows(history: History, window: Monitored) -> float | None:
    return history.value(window, "rows", CHAMPION)


def decay(history: History) -> list[Finding]:
    """The release does worse than it did at its gate."""
    release = history.release
    if release is None:
        return []
    own = [window for window in history.outcomes if window.release == release]
    kind = next((s.name for s in own[-1].signals if s.name in ("lead", "level") and s.subject == CHAMPION), "")
    signal = found(own[-1].signals, kind, CHAMPION)
    if signal is None or signal.bound is None:
        return []
    metric = history.system.objective.metric
    what = f"lead over the base rate in {metric}" if kind == "lead" else f"{metric}, signed so that higher is better,"
    text = f"the release's {what} is {{size}} since {{since}}; from its gate at least {signal.bound:.4g} was expected"

    def number(window: Monitored) -> tuple[float | None, float | None]:
        return history.value(window, kind, CHAMPION), _rows(history, window)

    everyone = _points(history.outcomes, number)
    fast = budget.share(history.system, "harm fast") / 2
    given = _tested_as(history, own[-1], kind)
    return _harm(
        history, ("decay", release[:12]), _points(own, number), signal.bound, text, fast=fast, everyone=everyone, given=given
    )


def _tested_as(history: History, window: Monitored, kind: str) -> Ordinary | None:
    """What a release's windows were like on its test part: ordinary until it has answered for weeks itself."""
    mean, spread = (history.value(window, f"{kind} {part}", CHAMPION) for part in ("expected", "spread"))
    rows = _rows(history, window)
    return None if mean is None or not spread or not rows else Ordinary(mean, spread, weight=rows)


def worse_than_last_label(history: History) -> list[Finding]:
    """Saying "the same as the last label" would have done better, by the metric or by accuracy."""
    made = []
    for metric in dict.fromkeys((history.system.objective.metric, "accuracy")):
        text = f"saying the same as the last label beats the release in {metric}: the release is {{size}} ahead since {{since}}"
        made += _harm(history, (BASELINE, LAST), _points(history.outcomes, _ahead(history, metric, LAST)), 0.0, text)
    return _one(made)


def worse_than_base_rate(history: History) -> list[Finding]:
    """Saying the same for every row would have done better."""
    metric = history.system.objective.metric
    text = f"saying the base rate for every row beats the release in {metric}: the release is {{size}} ahead since {{since}}"
    return _harm(history, (BASELINE, BASE), _points(history.outcomes, _ahead(history, metric, BASE)), 0.0, text)


def worse_than_doing_nothing(history: History) -> list[Finding]:
    """The decisions lose money."""

    def gain(window: Monitored) -> tuple[float | None, float | None]:
        own, nothing = history.value(window, "value", CHAMPION), history.value(window, "value", NOTHING)
        return (None if own is None or nothing is None else own - nothing), _rows(history, window)

    text = f"the decisions are worth {{size}} {history.system.objective.value.currency} a prediction against doing nothing since {{since}}"
    return _harm(history, ("value", NOTHING), _points(history.outcomes, gain), 0.0, text)


def costs_more_than_it_brings(history: History) -> list[Finding]:
    """What the decisions bring beyond doing nothing is less than what predictions, labels and days cost, as they are declared now.

    Trainings are left out: they come in lumps, and ``noria value`` counts them.
    """
    costs = history.system.costs
    if not costs.running:
        return []

    def left(window: Monitored) -> tuple[float | None, float | None]:
        own, nothing = history.value(window, "value", CHAMPION), history.value(window, "value", NOTHING)
        rows = _rows(history, window)
        if own is None or nothing is None or not rows:
            return None, None
        came = (history.value(window, "labelled", "label") or 0.0) * (1 - (history.value(window, "silent", "label") or 0.0))
        days = (window.window.end - window.window.start) / timedelta(days=1)
        return own - nothing - costs.prediction - costs.label * came - costs.day * days / rows, rows

    text = f"what the decisions bring, less what they cost, is {{size}} {history.system.objective.value.currency} a prediction since {{since}}"
    return _harm(history, ("value", COSTS), _points(history.outcomes, left), 0.0, text)


def guardrails(history: History) -> list[Finding]:
    """A declared bound on a metric is broken."""
    made = []
    for rail in history.system.objective.guardrails:
        most = isinstance(rail, AtMost)
        sign = -1.0 if most else 1.0
        text = f"{rail.metric} is {{size}} since {{since}}; it has to be at {'most' if most else 'least'} {rail.bound:g}"
        points = _points(history.outcomes, _railed(history, rail.metric, sign))
        made += _harm(history, ("guardrail", rail.metric), points, sign * rail.bound, f"times -1, {text}" if most else text)
    return made


def miscalibrated(history: History) -> list[Finding]:
    """The mean score and the mean label have parted, by more than a tenth of the label's mean: a fact that deciding pays for."""
    if history.system.task != "binary":
        return []
    about = ("miscalibrated", SCORE)
    after = history.after(*about)
    own = [w for w in history.outcomes if w.release == history.release and (after is None or w.window.start >= after)]
    means = [mean for w in own if (mean := history.value(w, "mean", "label")) is not None]
    if not means:
        return []
    tolerance = max(0.01, 0.1 * float(np.mean(means)))
    part = budget.share(history.system, "calibration") / 4
    for sign, word in ((1.0, "too high"), (-1.0, "too low")):
        everyone = _points(history.outcomes, _offset(history, sign))
        made = _tested(history, about, _points(own, _offset(history, sign)), -tolerance, slow=part, fast=part, everyone=everyone)
        if made is not None and made.raised:
            size = _turned(made.size, sign)
            said = f"scores are {word}: labels less scores are {size} on average since {made.since:%Y-%m-%d}"
            return [Finding(*about, "outcome", False, True, False, made.since, size, tolerance, said)]
    recent = [point.value for point in _points(own, _offset(history, 1.0))][-2 * CURRENT :]
    mean = float(np.mean(recent)) if recent else 0.0
    said = f"labels less scores are {mean:.4g} on average; {tolerance:.3g} is allowed"
    size = Estimate(mean, n=len(recent))
    return [
        Finding(
            *about, "outcome", False, False, bool(recent) and abs(mean) < tolerance, own[-1].window.start, size, tolerance, said
        )
    ]


# -------------------------------------------------------------------------------------------------------------- labels


def labels(history: History) -> list[Finding]:
    """Labels stay away (fewer than usual, or more by silence than usual), or come later than usual.

    What is later than usual stands in ``lateness``.
    """
    few = "{value:.1%} of the rows have a label since {since}; {usual:.1%} is ordinary"
    silent = "{value:.1%} of the labels are there by silence since {since}; {usual:.1%} is ordinary"
    late = " are known after {value:.3g} hours since {since}; {usual:.3g} is ordinary"

    def by(quantile: str) -> Callable[[float], float]:
        return lambda usual: -longest(history.system, quantile, -usual)

    texts: tuple[tuple[str, str, float, Callable[[float], float], str], ...] = (
        ("labels missing", "labelled", -1.0, lambda usual: usual - FEWER, few),
        ("labels missing", "silent", 1.0, lambda usual: usual - FEWER, silent),
        ("labels late", "delay p50 hours", 1.0, by("p50"), "half of the labels" + late),
        ("labels late", "delay p90 hours", 1.0, by("p90"), "nine labels in ten" + late),
    )
    made: dict[str, Finding] = {}
    for name, kind, sign, allowed, text in texts:
        points = _points(history.outcomes, _labelled(history, kind, -sign))
        usual = _usual(history, points)
        if usual is None:
            continue
        after = history.after(name, "label")
        fresh = [p for p in points if after is None or p.start >= after]
        bound = allowed(usual.mean)  # of the number signed so that less is worse
        tested = sudden(fresh, bound, usual, rate=budget.share(history.system, "label") / len(texts))
        if tested is None:
            continue
        if tested.raised and tested.size.value is not None:
            tested = replace(tested, since=began(fresh, usual.mean, tested.size.value) or tested.since)
        last = [p.value for p in fresh[-SPANS[-1] :]]
        cleared = not tested.raised and len(last) >= SPANS[-1] and min(last) >= bound
        said = text.format(value=-sign * (tested.size.value or 0.0), usual=-sign * usual.mean, since=f"{tested.since:%Y-%m-%d}")
        size = _turned(tested.size, -sign)
        one = Finding(name, "label", "outcome", False, tested.raised, cleared, tested.since, size, -sign * bound, said)
        made[name] = _one([made[name], one])[0] if name in made else one
    return list(made.values())


def _labelled(history: History, kind: str, sign: float) -> Number:
    def of(window: Monitored) -> tuple[float | None, float | None]:
        value = history.value(window, kind, "label")
        return (None if value is None else sign * value), float(window.n)

    return of


RULES: tuple[Callable[[History], list[Finding]], ...] = (
    worse_than_last_label,
    worse_than_base_rate,
    decay,
    worse_than_doing_nothing,
    costs_more_than_it_brings,
    guardrails,
    miscalibrated,
    labels,
    drift,
    persistent,
)
PERFORMANCE = ("decay", BASELINE, "value", "guardrail")


def findings(history: History) -> list[Finding]:
    """What every rule says, in the order of the list."""
    return [finding for rule in RULES for finding in rule(history)]


# --------------------------------------------------------------------------------------------------------------- helpers


def _ahead(history: History, metric: str, baseline: str) -> Number:
    """How far the release is ahead of a baseline in a window, higher is better."""

    def of(window: Monitored) -> tuple[float | None, float | None]:
        own, other = history.value(window, metric, CHAMPION), history.value(window, metric, baseline)
        return (None if own is None or other is None else stats.better(metric) * (own - other)), _rows(history, window)

    return of


def _railed(history: History, metric: str, sign: float) -> Number:
    def of(window: Monitored) -> tuple[float | None, float | None]:
        value = history.value(window, "guardrail", metric)
        return (None if value is None else sign * value), history.value(window, "guardrail rows", metric)

    return of


def _offset(history: History, sign: float) -> Number:
    def of(window: Monitored) -> tuple[float | None, float | None]:
        value = history.value(window, "offset", SCORE)
        return (None if value is None else sign * value), _rows(history, window)

    return of


def _one(made: list[Finding]) -> list[Finding]:
    """Several measures of one fault as one finding: raised when one is, cleared when all are."""
    if not made:
        return []
    raised = [finding for finding in made if finding.raised]
    message = "; ".join(finding.message for finding in raised) or made[0].message
    cleared = all(finding.cleared for finding in made)
    return [replace((raised or made)[0], cleared=cleared, message=message)]


def _turned(size: Estimate, sign: float) -> Estimate:
    """The estimate with its sign turned back."""
    if sign > 0 or size.value is None:
        return size
    low = None if size.high is None else -size.high
    high = None if size.low is None else -size.low
    return Estimate(-size.value, low, high, size.n)
