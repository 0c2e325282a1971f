"""The rules that turn windows into alerts: pure functions of the last windows, in one visible list.

Two kinds. *Harm* is judged by a sequential test on the closed windows: a confidence sequence is begun at every seventh window, and harm is
found when any of the running ones excludes the bound (a change is detected by sequences started all along: Shekhar and Ramdas
2023, "Reducing sequential change detection to sequential estimation"), provided that the last seven windows are beyond it too.
*Facts* (drift, volume) are found when so many of the last few windows failed. Both clear later than they open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from noria import stats
from noria.core import Estimate, Verdict, duration
from noria.core.window import EPOCH
from noria.monitoring.outcomes import BASE, CHAMPION, LAST, NOTHING
from noria.monitoring.reference import SCORE
from noria.monitoring.windows import found, value_of
from noria.records import Monitored, Signal
from noria.system import AtMost, System

ERROR = 0.02
MEMORY = 56
EVERY = 7
CURRENT = 7
DRIFT = (5, 7)
SOON = (2, 3)
BASELINE = "worse than baseline"
Number = Callable[[Monitored], tuple[float | None, float | None]]
ALSO = {"js": ("js", "sliding")}
SHIFTS = {"js": "drift", "missing": "missing values", "unseen": "unseen values"}


@dataclass(frozen=True)
class History:
    """The last windows of traffic and of outcomes, oldest first; ``after`` tells when (name, subject) was last resolved."""

    system: System
    traffic: Sequence[Monitored]
    outcomes: Sequence[Monitored]
    after: Callable[[str, str], datetime | None]

    @property
    def release(self) -> str | None:
        return self.outcomes[-1].release if self.outcomes else None


@dataclass(frozen=True)
class Finding:
    """What a rule says of one subject now: whether an alert is to be opened (``raised``), or an open one resolved (``cleared``)."""

    name: str
    subject: str
    level: str
    harm: bool
    raised: bool
    cleared: bool
    since: datetime
    size: Estimate
    bound: float | None
    message: str


@dataclass(frozen=True)
class Point:
    """One window's number: its time, how many rows it rests on."""

    start: datetime
    end: datetime
    value: float
    weight: float


# --------------------------------------------------------------------------------------------------------- sequential


@dataclass(frozen=True)
class Sequel:
    """The outcome of the sequential test: ``size`` is the mean since ``since``."""

    raised: bool
    cleared: bool
    since: datetime
    size: Estimate


def below(points: Sequence[Point], bound: float, every: timedelta, *, error: float = ERROR) -> Sequel | None:
    """Whether the mean of the windows' numbers has gone below ``bound``; ``None`` without a window.

    It is over when the mean of the last 7 windows and that of the last 14 are back, so that one good week does not end it.

    The false alarms of this rule are counted by simulation in ``tests/monitoring/test_rules.py``.
    """
    points = [point for point in points if np.isfinite(point.value) and point.weight > 0][-MEMORY:]
    if not points:
        return None
    values, weights = np.array([p.value for p in points]), np.array([p.weight for p in points])
    recent = float(np.average(values[-CURRENT:], weights=weights[-CURRENT:]))
    size, since = Estimate(recent, n=min(CURRENT, len(points))), points[max(0, len(points) - CURRENT)].start
    raised = False
    for place, point in enumerate(points):
        if place and ((point.end - EPOCH) // every) % EVERY:
            continue
        made = stats.mean_sequence(values[place:], error=error, block_weights=weights[place:])
        if made.below(bound):
            size, since, raised = made, point.start, recent < bound
            break
    longer = float(np.average(values[-2 * CURRENT :], weights=weights[-2 * CURRENT :]))
    cleared = not raised and len(points) >= CURRENT and min(recent, longer) >= bound
    return Sequel(raised, cleared, since, size)


def _points(windows: Iterable[Monitored], of: Number) -> list[Point]:
    made = []
    for window in windows:
        value, weight = of(window)
        if value is not None and weight:
            made.append(Point(window.window.start, window.window.end, value, weight))
    return made


def _harm(history: History, about: tuple[str, str], points: Sequence[Point], bound: float, text: str) -> list[Finding]:
    """The finding of the sequential test ``about`` (name, subject); ``text`` takes ``{size}`` and ``{since}``."""
    name, subject = about
    after = history.after(name, subject)
    made = below([p for p in points if after is None or p.start >= after], bound, duration(history.system.every))
    if made is None:
        return []
    said = text.format(size=made.size, since=f"{made.since:%Y-%m-%d}")
    return [Finding(name, subject, "outcome", True, made.raised, made.cleared, made.since, made.size, bound, said)]


def _rows(window: Monitored) -> float | None:
    return value_of(window, "rows", CHAMPION)


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
    points = _points(own, lambda window: (value_of(window, kind, CHAMPION), _rows(window)))
    return _harm(history, ("decay", release[:12]), points, signal.bound, text)


def worse_than_last_label(history: History) -> list[Finding]:
    """Saying "the same as the last label" would have done better, by the metric or by accuracy."""
    made = []
    for metric in dict.fromkeys((history.system.objective.metric, "accuracy")):
        text = f"saying the same as the last label beats the release in {metric}: the release is {{size}} ahead since {{since}}"
        made += _harm(history, (BASELINE, LAST), _points(history.outcomes, _ahead(metric, LAST)), 0.0, text)
    return _one(made)


def worse_than_base_rate(history: History) -> list[Finding]:
    """Saying the same for every row would have done better."""
    metric = history.system.objective.metric
    text = f"saying the base rate for every row beats the release in {metric}: the release is {{size}} ahead since {{since}}"
    return _harm(history, (BASELINE, BASE), _points(history.outcomes, _ahead(metric, BASE)), 0.0, text)


def worse_than_doing_nothing(history: History) -> list[Finding]:
    """The decisions lose money."""

    def gain(window: Monitored) -> tuple[float | None, float | None]:
        own, nothing = value_of(window, "value", CHAMPION), value_of(window, "value", NOTHING)
        return (None if own is None or nothing is None else own - nothing), _rows(window)

    text = f"the decisions are worth {{size}} {history.system.objective.value.currency} a prediction against doing nothing since {{since}}"
    return _harm(history, ("value", NOTHING), _points(history.outcomes, gain), 0.0, text)


def guardrails(history: History) -> list[Finding]:
    """A declared bound on a metric is broken."""
    made = []
    for rail in history.system.objective.guardrails:
        most = isinstance(rail, AtMost)
        sign = -1.0 if most else 1.0
        text = f"{rail.metric} is {{size}} since {{since}}; it has to be at {'most' if most else 'least'} {rail.bound:g}"
        points = _points(history.outcomes, _railed(rail.metric, sign))
        made += _harm(history, ("guardrail", rail.metric), points, sign * rail.bound, f"times -1, {text}" if most else text)
    return made


def miscalibrated(history: History) -> list[Finding]:
    """The mean score and the mean label have parted, by more than a tenth of the label's mean: a fact that deciding pays for."""
    if history.system.task != "binary":
        return []
    name, every = "miscalibrated", duration(history.system.every)
    after = history.after(name, SCORE)
    own = [w for w in history.outcomes if w.release == history.release and (after is None or w.window.start >= after)]
    means = [mean for w in own if (mean := value_of(w, "mean", "label")) is not None]
    if not means:
        return []
    tolerance = max(0.01, 0.1 * float(np.mean(means)))
    for sign, word in ((1.0, "too high"), (-1.0, "too low")):
        made = below(_points(own, _offset(sign)), -tolerance, every)
        if made is not None and made.raised:
            size = _turned(made.size, sign)
            said = f"scores are {word}: labels less scores are {size} on average since {made.since:%Y-%m-%d}"
            return [Finding(name, SCORE, "outcome", False, True, False, made.since, size, tolerance, said)]
    recent = [point.value for point in _points(own, _offset(1.0))][-2 * CURRENT :]
    mean = float(np.mean(recent)) if recent else 0.0
    said = f"labels less scores are {mean:.4g} on average; {tolerance:.3g} is allowed"
    size = Estimate(mean, n=len(recent))
    return [Finding(name, SCORE, "outcome", False, False, abs(mean) < tolerance, own[-1].window.start, size, tolerance, said)]


# --------------------------------------------------------------------------------------------------------- k of m windows


def _persistent(
    history: History, windows: Sequence[Monitored], name: str, subject: str, level: str, *,
    failing: Callable[[Monitored], list[Signal]], rule: tuple[int, int], harm: bool, says: Callable[[Signal, datetime], str],
) -> list[Finding]:  # fmt: skip
    """Found when at least k of the last m windows failed; cleared when all of the last k did not."""
    k, m = rule
    after = history.after(name, subject)
    last = [window for window in windows[-m:] if after is None or window.window.start >= after]
    hits = [(window, failing(window)) for window in last]
    failed = [(window, signals) for window, signals in hits if signals]
    cleared = len(hits) >= k and not any(signals for _, signals in hits[-k:])
    if not failed:
        since = last[-1].window.start if last else EPOCH
        said = f"{name} of {subject}: back within bounds"
        return [Finding(name, subject, level, harm, False, cleared, since, Estimate(None), None, said)]
    since = failed[0][0].window.start
    worst = max(failed[-1][1], key=lambda signal: (_over(signal), signal.subject))
    size = Estimate(worst.value, n=len(failed))
    return [Finding(name, subject, level, harm, len(failed) >= k, cleared, since, size, worst.bound, says(worst, since))]


def drift(history: History) -> list[Finding]:
    """Columns of a source have moved and stay moved: a fact, not harm. One alert for each source, since that is where faults come from."""
    sources = {feature.name: feature.source for feature in history.system.flat_features} | {SCORE: SCORE}
    made = []
    for source in dict.fromkeys(sources.values()):
        columns = {name for name, of in sources.items() if of == source}
        for signal_name, name in SHIFTS.items():

            def failing(window: Monitored, kind: str = signal_name, mine: set[str] = columns) -> list[Signal]:
                return [
                    s
                    for s in window.signals
                    if s.name in ALSO.get(kind, (kind,)) and s.subject in mine and s.verdict is Verdict.FAIL
                ]

            def says(worst: Signal, since: datetime, what: str = name, of: str = source) -> str:
                return f"{what} in {of}: {worst.subject} is at {worst.value:.3g} since {since:%Y-%m-%d}; ordinary windows stay below {worst.bound:.3g}"

            level = "prediction" if source == SCORE else "feature"
            made += _persistent(history, history.traffic, name, source, level, failing=failing, rule=DRIFT, harm=False, says=says)
    return made


def label_shift(history: History) -> list[Finding]:
    """The label's mean has left its reference and stays away."""

    def failing(window: Monitored) -> list[Signal]:
        return [s for s in window.signals if s.name == "shift" and s.subject == "label" and s.verdict is Verdict.FAIL]

    def says(worst: Signal, since: datetime) -> str:
        return f"the label's mean is {worst.value:.3g} away from its reference since {since:%Y-%m-%d}; ordinary windows stay within {worst.bound:.3g}"

    return _persistent(history, history.outcomes, "drift", "label", "outcome", failing=failing, rule=DRIFT, harm=False, says=says)


def operation(history: History) -> list[Finding]:
    """Volume outside its own past, rows scored late, rows that could not be scored (harm: somebody got no answer)."""
    texts = {
        "rows": (
            "volume",
            "{0:.0f} predictions were asked in a window since {1:%Y-%m-%d}; the last 28 windows allow for {2:.0f}",
        ),
        "late": ("late scoring", "{0:.1%} of the rows were scored late since {1:%Y-%m-%d}; {2:.0%} is allowed"),
        "refused": ("refused", "{0:.1%} of the rows could not be scored since {1:%Y-%m-%d}; {2:.0%} is allowed"),
    }
    made = []
    for kind, (name, text) in texts.items():

        def failing(window: Monitored, of: str = kind) -> list[Signal]:
            signal = found(window.signals, of, "volume")
            return [signal] if signal is not None and signal.verdict is Verdict.FAIL and window.release is not None else []

        def says(worst: Signal, since: datetime, said: str = text) -> str:
            return said.format(worst.value, since, worst.bound)

        harm = kind == "refused"
        made += _persistent(
            history, history.traffic, name, "traffic", "operation", failing=failing, rule=SOON, harm=harm, says=says
        )
    return made


RULES: tuple[Callable[[History], list[Finding]], ...] = (
    worse_than_last_label,
    worse_than_base_rate,
    decay,
    worse_than_doing_nothing,
    guardrails,
    miscalibrated,
    drift,
    label_shift,
    operation,
)
COVERED = {
    ("decay", ""): ((BASELINE, LAST), (BASELINE, BASE)),
    (BASELINE, BASE): ((BASELINE, LAST),),
}
PERFORMANCE = ("decay", BASELINE, "value", "guardrail")


def findings(history: History) -> list[Finding]:
    """What every rule says, in the order of the list."""
    return [finding for rule in RULES for finding in rule(history)]


# --------------------------------------------------------------------------------------------------------------- helpers


def _ahead(metric: str, baseline: str) -> Number:
    """How far the release is ahead of a baseline in a window, higher is better."""

    def of(window: Monitored) -> tuple[float | None, float | None]:
        own, other = value_of(window, metric, CHAMPION), value_of(window, metric, baseline)
        return (None if own is None or other is None else stats.better(metric) * (own - other)), _rows(window)

    return of


def _railed(metric: str, sign: float) -> Number:
    def of(window: Monitored) -> tuple[float | None, float | None]:
        value = value_of(window, "guardrail", metric)
        return (None if value is None else sign * value), value_of(window, "guardrail rows", metric)

    return of


def _offset(sign: float) -> Number:
    def of(window: Monitored) -> tuple[float | None, float | None]:
        value = value_of(window, "offset", SCORE)
        return (None if value is None else sign * value), _rows(window)

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


def _over(signal: Signal) -> float:
    return abs(signal.value or 0.0) / signal.bound if signal.bound else 0.0
