"""Facts: what failed in so many of the last windows, or grossly in one. One visible list of what is watched, whoever measures it.

A signal that a window does not have, or on which it has no verdict, says nothing. The bound of each signal comes from its part of the
budget (``budget.window_error`` for the rule "k of the last m"), so that here only the counting is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from noria.core import Estimate, Verdict
from noria.core.window import EPOCH
from noria.monitoring.budget import CLEAR, RULE
from noria.monitoring.reference import SCORE
from noria.records import Monitored, Signal
from noria.system import System

SOON = (2, 3)
SOON_CLEAR = 2
GROSS = 3.0
GROSS_SHARE = 0.1
GROSS_NEW = 0.5
NEW = ("unseen", "regions")
Rule = tuple[int, int]


@dataclass(frozen=True)
class History:
    """The last windows of traffic and of outcomes, oldest first.

    ``after`` tells when (name, subject) was last resolved, ``faulty`` the spans of past harm.
    """

    system: System
    traffic: Sequence[Monitored]
    outcomes: Sequence[Monitored]
    after: Callable[[str, str], datetime | None]
    faulty: Sequence[tuple[datetime, datetime]] = ()

    @property
    def release(self) -> str | None:
        return self.outcomes[-1].release if self.outcomes else None

    def value(self, window: Monitored, name: str, subject: str) -> float | None:
        """The value of a signal of one of the windows of outcomes."""
        return self._values[id(window)].get((name, subject))

    @cached_property
    def _values(self) -> dict[int, dict[tuple[str, str], float | None]]:
        return {id(w): {(s.name, s.subject): s.value for s in reversed(w.signals)} for w in self.outcomes}

    @cached_property
    def failing(self) -> dict[str, list[tuple[Monitored, dict[str, list[Signal]]]]]:
        """The last windows, each with its failed signals by name; by what they are about."""
        return self._with(Verdict.FAIL)

    @cached_property
    def passed(self) -> dict[str, list[tuple[Monitored, dict[str, list[Signal]]]]]:
        """The last windows, each with the signals that are within their bounds."""
        return self._with(Verdict.PASS)

    def _with(self, verdict: Verdict) -> dict[str, list[tuple[Monitored, dict[str, list[Signal]]]]]:
        kept = {"traffic": self.traffic[-MEMORY:], "outcomes": self.outcomes[-MEMORY:]}
        return {about: [(window, _judged(window, verdict)) for window in windows] for about, windows in kept.items()}


@dataclass(frozen=True)
class Finding:
    """What a rule says of one subject now: whether an alert is to be opened (``raised``), or an open one resolved (``cleared``).

    ``source`` is where the fault comes from when that can be told, ``slice`` the part of the rows. ``quiet`` is the release that answered all of
    the last windows when none of them failed, whether or not there was a verdict: another release than that of the fault ends the fault with it.
    """

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
    source: str = ""
    slice: str = ""
    quiet: str = ""


@dataclass(frozen=True)
class Watch:
    """One kind of alert that signals lead to.

    ``signals`` are the names of its signals; the alert's subject is ``subject``, or the signal's own without one. ``text`` takes
    ``{subject}``, ``{value}``, ``{bound}`` and ``{since}``; ``style`` is the format of numbers.
    """

    name: str
    signals: tuple[str, ...]
    about: Literal["traffic", "outcomes"]
    level: str
    text: str
    subject: str = ""
    only: tuple[str, ...] = ()
    rule: Rule = RULE
    clear: int = CLEAR
    harm: bool = False
    style: str = ".3g"
    from_source: bool = False
    column: bool = False


MEMORY = 8
DISTANCES = ("js", "psi", "ks", "wasserstein", "chi2", "sliding")
SHIFTS = {"drift": DISTANCES, "missing values": ("missing",), "unseen values": ("unseen",)}
USUAL = "ordinary windows stay below {bound}"
WATCHES: tuple[Watch, ...] = (
    Watch("source volume", ("rows",), "traffic", "input", "{subject} brought {value} rows in a window since {since}; its past allows for {bound}",
          style=".0f", from_source=True, rule=SOON, clear=SOON_CLEAR),
    Watch("source late", ("freshness hours",), "traffic", "input", "the newest row of {subject} is {value} hours old since {since}; " + USUAL,
          from_source=True, rule=SOON, clear=SOON_CLEAR),
    Watch("duplicates", ("duplicates",), "traffic", "input", "{value} of what {subject} brought was there before, since {since}; " + USUAL,
          from_source=True, style=".1%"),
    Watch("quarantined", ("quarantined",), "traffic", "input", "{value} of what {subject} brought was set aside, since {since}; " + USUAL,
          from_source=True, style=".1%"),
    Watch("volume", ("rows",), "traffic", "operation",
          "{value} predictions were asked in a window since {since}; the last 28 windows allow for {bound}",
          subject="traffic", only=("volume",), rule=SOON, clear=SOON_CLEAR, style=".0f"),
    Watch("late scoring", ("late",), "traffic", "operation", "{value} of the rows were scored late since {since}; {bound} is allowed",
          subject="traffic", only=("volume",), rule=SOON, clear=SOON_CLEAR, style=".1%"),
    Watch("refused", ("refused",), "traffic", "operation", "{value} of the rows could not be scored since {since}; {bound} is allowed",
          subject="traffic", only=("volume",), rule=SOON, clear=SOON_CLEAR, style=".1%", harm=True),
    Watch("stuck score", ("alike",), "traffic", "prediction",
          "{value} of the rows got one and the same score since {since}; at most {bound} is to be expected of the release",
          subject=SCORE, rule=SOON, clear=SOON_CLEAR, style=".1%", harm=True),
    Watch("skew", ("skew",), "traffic", "operation",
          "{value} of the rows that were computed again had other features when they were answered, since {since}; {bound} is allowed",
          subject="features", rule=SOON, clear=SOON_CLEAR, style=".1%"),
    Watch("score parity", ("parity",), "traffic", "operation",
          "{value} of the rows that were computed again had other scores when they were answered, since {since}; {bound} is allowed",
          subject=SCORE, rule=SOON, clear=SOON_CLEAR, style=".1%", harm=True),
    Watch("unknown", ("unknown",), "traffic", "operation", "{value} of the rows had keys that nothing is known of, since {since}; " + USUAL,
          subject="traffic", only=("volume",), style=".1%"),
    Watch("fallbacks", ("fallbacks",), "traffic", "operation", "{value} of the answers were fallbacks since {since}; {bound} is allowed",
          subject="traffic", only=("volume",), rule=SOON, clear=SOON_CLEAR, style=".1%"),
    Watch("latency", ("latency p99 ms",), "traffic", "operation", "one answer in a hundred takes {value} ms or more since {since}; {bound} ms is allowed",
          subject="service", rule=SOON, clear=SOON_CLEAR),
    Watch("errors", ("errors",), "traffic", "operation", "{value} of the requests failed since {since}; {bound} is allowed",
          subject="service", rule=SOON, clear=SOON_CLEAR, style=".1%", harm=True),
    Watch("inputs moved together", ("domain",), "traffic", "feature",
          "a classifier tells the inputs from those of the training time with an AUC of {value} since {since}; " + USUAL, subject="inputs"),
    Watch("unseen regions", ("regions",), "traffic", "feature",
          "{value} of the rows lie where the training set had none, since {since}; " + USUAL, subject="inputs", style=".1%"),
    Watch("label shift", ("label shift",), "traffic", "prediction",
          "the scores say that the base rate is {value} since {since}, before any label; {bound} is the end of its ordinary range", subject="label"),
    Watch("expected performance", ("expected",), "traffic", "prediction",
          "{subject} is expected to be {value} since {since}, before any label; {bound} was to be expected from the release"),
    Watch("diversity", ("diversity",), "traffic", "prediction", "the diversity of {subject} is {value} since {since}; ordinary windows reach {bound}"),
    Watch("drift", ("shift",), "outcomes", "outcome",
          "the label's mean is {value} away from its reference since {since}; ordinary windows stay within {bound}", subject="label", only=("label",)),
    Watch("concept change", ("concept",), "outcomes", "outcome",
          "the loss on rows like those of the training set has changed by {value} since {since}, beyond chance and the {bound} that the gate lets pass",
          subject="label"),
    Watch("slice", ("slice",), "outcomes", "outcome", "the excess loss on {subject} is {value} since {since}; " + USUAL, column=True),
)  # fmt: skip


def persistent(history: History) -> list[Finding]:
    """What every watch of the list says; one finding for each subject that has failed lately or is to be resolved."""
    made = []
    for watch in WATCHES:
        groups: dict[str, None] = {}
        for _, failed in history.failing[watch.about]:
            for signal in _of(watch, failed):
                groups[_subject(watch, signal)] = None
        for subject in groups or ({watch.subject: None} if watch.subject else {}):
            made += _counted(history, watch, subject, lambda s, w=watch, of=subject: _subject(w, s) == of)  # type: ignore[misc]
    return made


def drift(history: History) -> list[Finding]:
    """Columns of a source have moved and stay moved: a fact, not harm. One alert for each source, since that is where faults come from."""
    sources = {feature.name: feature.source for feature in history.system.flat_features} | {SCORE: SCORE}
    made = []
    for source in dict.fromkeys(sources.values()):
        columns = {name for name, of in sources.items() if of == source}
        for name, kinds in SHIFTS.items():
            text = name + " in {subject}: {column} is at {value} since {since}; " + USUAL
            level = "prediction" if source == SCORE else "feature"
            watch = Watch(name, kinds, "traffic", level, text, subject=source, from_source=source != SCORE)
            made += _counted(history, watch, source, lambda s, mine=columns: s.subject in mine)  # type: ignore[misc]
    return made


def resolved(history: History, known: Sequence[tuple[str, str]], said: Sequence[Finding]) -> list[Finding]:
    """Findings that clear open alerts of the list about subjects that do not fail any more at all."""
    about = {(finding.name, finding.subject) for finding in said}
    watches = {watch.name: watch for watch in WATCHES}
    made = []
    for name, subject in known:
        watch = watches.get(name)
        if watch is not None and (name, subject) not in about:
            made += _counted(history, watch, subject, lambda s, w=watch, of=subject: _subject(w, s) == of)  # type: ignore[misc]
    return made


def _counted(history: History, watch: Watch, subject: str, mine: Callable[[Signal], bool]) -> list[Finding]:
    """Found when at least k of the last m windows failed, or the last one grossly.

    Cleared when none of the last ``clear`` did, and what failed is within its bounds in one of them: no verdict is no pass.
    """
    k, m = watch.rule
    after = history.after(watch.name, subject)
    answered = watch.about == "traffic" and watch.level != "input"

    def signals_of(verdict: str) -> list[tuple[Monitored, list[Signal]]]:
        windows = getattr(history, verdict)[watch.about]
        windows = [pair for pair in windows if (after is None or pair[0].window.start >= after)]
        windows = [pair for pair in windows if pair[0].release is not None or not answered]
        return [(window, [s for s in _of(watch, judged) if mine(s)]) for window, judged in windows]

    hits = signals_of("failing")
    failed = [(window, signals) for window, signals in hits if signals]
    still = len(hits) >= watch.clear and not any(signals for _, signals in hits[-watch.clear :])
    gone = {s.subject for _, signals in failed for s in signals}
    passed = {s.subject for _, signals in signals_of("passed")[-watch.clear :] for s in signals}
    cleared = still and bool(passed) and gone <= passed
    quiet = (
        _release_of([window for window, _ in hits[-watch.clear :]]) if still and watch.level not in ("input", "operation") else ""
    )
    if not failed:
        since = hits[-1][0].window.start if hits else EPOCH
        said = f"{watch.name} of {subject}: {'back within bounds' if passed else 'it is not measured any more'}"
        return [
            Finding(watch.name, subject, watch.level, watch.harm, False, cleared, since, Estimate(None), None, said, quiet=quiet)
        ]
    worst = max(failed[-1][1], key=lambda signal: (_over(signal), signal.subject))
    gross = bool(hits[-1][1]) and any(_gross(signal) for signal in hits[-1][1])
    raised = sum(bool(signals) for _, signals in hits[-m:]) >= k or gross
    since = _since(hits)
    size = Estimate(worst.value, worst.low, worst.high, n=len(failed))
    style = watch.style
    words = {
        "subject": worst.subject if watch.column else subject,
        "column": worst.subject,
        "value": format(worst.value, style) if worst.value is not None else "unknown",
        "bound": format(worst.bound, style) if worst.bound is not None else "nothing",
        "since": f"{since:%Y-%m-%d}",
    }
    return [
        Finding(
            watch.name,
            subject,
            watch.level,
            watch.harm,
            raised,
            cleared,
            since,
            size,
            worst.bound,
            watch.text.format(**words),
            source=subject if watch.from_source else "",
            slice=worst.subject if watch.column else "",
            quiet=quiet,
        )
    ]


def _release_of(windows: Sequence[Monitored]) -> str:
    """The release that answered all of these windows; empty when there were several."""
    releases = {window.release for window in windows}
    return (releases.pop() or "") if len(releases) == 1 else ""


def _since(hits: Sequence[tuple[Monitored, list[Signal]]]) -> datetime:
    """The start of the first window of the spell that lasts: between its failed windows lies one good one at most."""
    start, good = hits[-1][0].window.start, 0
    for window, signals in reversed(hits):
        if signals:
            start, good = window.window.start, 0
        else:
            good += 1
            if good > 1 and any(found for later, found in hits if later.window.start >= start):
                break
    return start


def _judged(window: Monitored, verdict: Verdict) -> dict[str, list[Signal]]:
    made: dict[str, list[Signal]] = {}
    for signal in window.signals:
        if signal.verdict is verdict:
            made.setdefault(signal.name, []).append(signal)
    return made


def _of(watch: Watch, failed: dict[str, list[Signal]]) -> list[Signal]:
    """The failed signals of a watch: by name, and where names are shared by subject or level."""
    made = [signal for name in watch.signals for signal in failed.get(name, ())]
    if watch.only:
        return [signal for signal in made if signal.subject in watch.only]
    return [signal for signal in made if signal.level == watch.level] if watch.from_source and watch.level == "input" else made


def _subject(watch: Watch, signal: Signal) -> str:
    if watch.subject:
        return watch.subject
    return signal.subject.partition("=")[0] if watch.column else signal.subject


def _gross(signal: Signal) -> bool:
    """Whether one window says it all: three times the bound, and of shares a tenth of the rows at least (half of them for what is only new)."""
    shares = ("missing", "unseen", "late", "refused", "fallbacks", "errors", "duplicates", "quarantined", "regions", "unknown")
    if signal.value is None or not signal.bound or signal.name in ("domain", "label shift", "expected", "diversity", "rows"):
        return False
    least = GROSS_NEW if signal.name in NEW else GROSS_SHARE
    return _over(signal) >= GROSS and (signal.name not in shares or signal.value >= least)


def _over(signal: Signal) -> float:
    return abs(signal.value or 0.0) / signal.bound if signal.bound else 0.0
