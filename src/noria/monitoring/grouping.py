"""One fault, one alert: which findings belong together, and which of them is at the head.

A fault goes downstream: what a source brought, its columns, the inputs together, the score, the outcomes, the performance. Findings that
begin at about the same time are one fault when the one lies on the way of the other. Two findings on columns are one fault when they are
of the same source, or when columns of several sources moved in one go (the world moved); faults of two sources are two, since two owners
have to mend them. What begins later is another fault, and gets its own alert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from noria.records import Alerted

NEAR = 7
BASELINE = "worse than baseline"
BASELINES = ("last label", "base rate")
SOURCE, MISSING, COLUMN, INPUTS, SCORE, OUTCOME, PERFORMANCE = range(7)
RANKS: dict[str, int] = {
    "source late": SOURCE,
    "source volume": SOURCE,
    "duplicates": SOURCE,
    "quarantined": SOURCE,
    "errors": SOURCE,
    "fallbacks": SOURCE,
    "latency": SOURCE,
    "late scoring": SOURCE,
    "refused": SOURCE,
    "stuck score": SOURCE,
    "skew": SOURCE,
    "score parity": SOURCE,
    "volume": SOURCE,
    "unknown": SOURCE,
    "missing values": MISSING,
    "unseen values": COLUMN,
    "drift": COLUMN,
    "unseen regions": INPUTS,
    "inputs moved together": INPUTS,
    "label shift": SCORE,
    "diversity": SCORE,
    "expected performance": SCORE,
    "labels missing": OUTCOME,
    "labels late": OUTCOME,
    "concept change": OUTCOME,
    "slice": OUTCOME,
    "miscalibrated": OUTCOME,
    "guardrail": PERFORMANCE,
    "decay": PERFORMANCE,
    BASELINE: PERFORMANCE,
    "value": PERFORMANCE,
    "metric link": PERFORMANCE,
}
SERVICE = ("errors", "fallbacks", "latency", "late scoring", "refused", "score parity", "skew", "stuck score")
LABELS = ("labels missing", "labels late")
MOVED = ("drift", "unseen values")
COVERED: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("decay", ""): ((BASELINE, "last label"), (BASELINE, "base rate")),
    (BASELINE, "base rate"): ((BASELINE, "last label"),),
}


@dataclass(frozen=True)
class Part:
    """One finding as grouping sees it; ``source`` is where it comes from when that can be told."""

    name: str
    subject: str
    since: datetime
    source: str = ""

    @property
    def text(self) -> str:
        return f"{self.name}/{self.subject}"


def rank(part: Part) -> tuple[int, int, str]:
    """How far downstream: the smaller, the nearer to the cause. Drift of the score and of the label is downstream of the inputs.

    Of the performance, what says most comes first: that something trivial beats the release, before that it has decayed.
    """
    if part.name == "drift" and part.subject in ("score", "label"):
        return (SCORE if part.subject == "score" else OUTCOME), 0, part.text
    says = BASELINES.index(part.subject) if part.name == BASELINE and part.subject in BASELINES else len(BASELINES)
    return RANKS.get(part.name, OUTCOME), says, part.text


def belongs(part: Part, others: Iterable[Part], every: timedelta) -> bool:
    """Whether a finding is of the same fault as any of ``others``: the findings of one alert."""
    return any(covered(part, other) or (_near(part, other, every) and _linked(part, other)) for other in others)


def covered(part: Part, other: Part) -> bool:
    """Whether an alert that is open for ``other`` says more than ``part`` would, whenever it begins."""
    if (part.name, other.name) == ("unseen values", "drift"):
        return part.subject == other.subject
    wider = COVERED.get((part.name, part.subject), COVERED.get((part.name, ""), ()))
    return (other.name, other.subject) in wider


def _near(part: Part, other: Part, every: timedelta) -> bool:
    return abs(part.since - other.since) <= NEAR * every


def _linked(part: Part, other: Part) -> bool:
    """Whether one lies on the way of the other."""
    first, second = sorted((part, other), key=rank)
    up, down = rank(first)[0], rank(second)[0]
    if first.name in SERVICE or (first.name == "volume" and second.name != "source volume"):
        return second.name in SERVICE or (down >= PERFORMANCE and first.name != "volume")
    if second.name in (*SERVICE, "volume"):
        return first.name in ("source late", "source volume")
    if first.name in LABELS or second.name in LABELS:
        return up in (SOURCE, OUTCOME) and down >= OUTCOME
    if down <= COLUMN:
        if first.source and first.source == second.source:
            return True
        return first.name in MOVED and second.name in MOVED
    return True


def members(record: Alerted) -> list[tuple[str, str]]:
    """What an alert is about: its head's (name, subject), then those of what the same fault also moved."""
    return [(record.name, record.subject), *((name, subject) for name, _, subject in (t.partition("/") for t in record.with_it))]
