"""Performance before labels, which withdraws itself: the metric that calibrated scores let expect, while nothing speaks against them.

Binary: from the chance that each score means (calibrated on the release's test part). Numbers and several classes: from the loss that the
same x had there. Both hold under a shift of x and fail under a change of the label given x. A shift of the labels' share is one that scores
show; others no score can show, so the newest closed cohorts have the last word. Rows that nothing can be said of, since the reference is
short or of another season, have no estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from noria import measure, stats
from noria.core import Estimate, Verdict
from noria.monitoring.calibration import OFFSET, SLOPE
from noria.monitoring.concept import CONCEPT, scores_of
from noria.monitoring.labelled import Labelled
from noria.monitoring.labelshift import LABEL
from noria.monitoring.multivariate import DOMAIN, REGIONS
from noria.monitoring.sample import Sample, failed
from noria.monitoring.standard import base_rate_of, standard
from noria.monitoring.windows import found, number, value_of
from noria.records import CohortClosed, Monitored, Signal
from noria.store import Home
from noria.system import AtMost, System

NAME = "expected"
STANDARD = "standard"
PAST = 28
UNAVAILABLE = "for this task only the loss itself can be foreseen"
ACTS = ("precision", "recall", "f1")
Floats = NDArray[np.float64]


def expected(  # noqa: PLR0917  the window, and what it is held against
    home: Home,
    system: System,
    sample: Sample,
    frame: pl.DataFrame,
    signals: Sequence[Signal],
    past: Sequence[Monitored],
    release: str,
) -> list[Signal]:
    """The declared metric, accuracy and the guardrails' metrics, each with the 95 % interval of what the closed window will show.

    ``frame`` are the release's rows, ``signals`` what the window has so far, ``past`` the release's own windows before. The declared metric is
    held against the release's gate (its lead over the base rate, as the closed windows are), a guardrail against its bound. There is nothing
    for a combined score, which is no probability.
    """
    if system.combine is not None:
        return []
    names = _names(system)
    note = _against(home, system, sample, signals, release)
    if note:
        return [
            Signal(NAME, name, "prediction", None, None, Verdict.NOT_ENOUGH_DATA, note=f"withdrawn: {note}") for name in names
        ]
    known = sample.labelled
    if known is None:
        return [Signal(NAME, name, "prediction", None, None, Verdict.NOT_ENOUGH_DATA, note=sample.note) for name in names]
    made, chance = _estimates(system, known, sample, frame, names)
    kind, least = _standard(home, system, release, past)
    bound = _bound(home, system, kind, least, chance)
    unknown = Estimate(None)
    signed = [_signal(system, name, made.get(name, unknown), bound, UNAVAILABLE if name not in made else "") for name in names]
    return [*signed, Signal(STANDARD, kind, "prediction", number(least), None, Verdict.NOT_MEASURED)]


def _names(system: System) -> list[str]:
    """The metrics to estimate."""
    rails = [rail.metric for rail in system.objective.guardrails if rail.metric in stats.METRICS]
    wanted = [system.objective.metric, *(["accuracy"] if system.task != "regression" else []), *rails]
    names = [name for name in dict.fromkeys(wanted) if system.task in stats.METRICS[name].tasks]
    return [name for name in names if not (system.label.affected_by_action and name in ACTS)]  # no label where it was acted


def _against(home: Home, system: System, sample: Sample, signals: Sequence[Signal], release: str) -> str:
    """What speaks against an estimate from scores, in words; empty when nothing does."""
    if system.label.observed_when is not None:
        return "labels are seen only where the act allows it, and scores speak of all rows"
    now = {(s.name, s.subject): s.verdict for s in signals}
    domain = found(signals, *DOMAIN)
    if domain is not None and domain.verdict is Verdict.NOT_ENOUGH_DATA:
        return f"nothing says whether the window's rows are like the reference's: {domain.note}"
    if now.get(DOMAIN) is Verdict.FAIL:
        return "a classifier tells the window's rows from the reference's"
    if now.get(REGIONS) is Verdict.FAIL:
        return "rows lie in regions that the reference did not have"
    if now.get(LABEL) is Verdict.FAIL:
        return "the scores say that the labels' share has shifted, and with it what each score means"
    last = home.ledger.furthest(Monitored, "monitored/outcomes/")
    closed = last.record if last is not None and last.record.release == release else None
    until = f"{closed.window.end:%Y-%m-%d}" if closed is not None else ""
    if failed(closed, *CONCEPT):
        return f"rows of the same x lose more than they did at the reference (closed until {until})"
    if failed(closed, *SLOPE) or failed(closed, *OFFSET):
        return f"the scores of the closed windows are not calibrated (until {until})"
    if sample.labelled is not None and system.task == "binary" and sample.labelled.mapping is None:
        return "the score cannot be calibrated on the test part"
    return ""


def _estimates(
    system: System, known: Labelled, sample: Sample, frame: pl.DataFrame, names: Sequence[str]
) -> tuple[dict[str, Estimate], float | None]:
    """The estimates, and the share of positive labels that the scores speak of (binary)."""
    if system.task == "binary" and known.mapping is not None:
        score = scores_of(frame, 0)
        chance = known.mapping.chance(score)
        act = measure.numbers_of(frame["_act"])
        made = {
            name: stats.expected(name, score, chance, act=act if name in ACTS else None, calibration=known.mapping.slack)
            for name in names
        }
        kept = chance[np.isfinite(chance)]
        return made, float(kept.mean()) if len(kept) else None
    loss = known.loss
    if loss is None:
        return {}, None
    score = scores_of(frame, len(_first(frame)) if system.task == "multiclass" else 0)
    one = score.max(axis=1) if score.ndim == 2 else score
    keep = np.isfinite(one)
    if not keep.any() or loss.metric not in names:
        return {}, None
    rows = frame.filter(pl.Series(keep))
    losses = loss.at(score[keep], sample.inputs.points(rows))
    value = float(losses.mean()) + loss.residual.mean
    half = float(special.stdtrit(loss.residual.degrees, 0.975)) * loss.residual.error(np.array([len(losses)]))
    value, low, high = (
        (1 - value, 1 - value - half, 1 - value + half) if loss.metric == "accuracy" else (value, value - half, value + half)
    )
    return {loss.metric: Estimate(value, low, high, len(losses))}, None


def _first(frame: pl.DataFrame) -> list[Any]:
    kept = frame["_scores"].drop_nulls()
    return kept[0].to_list() if len(kept) else []


def _standard(home: Home, system: System, release: str, past: Sequence[Monitored]) -> tuple[str, float | None]:
    """What the release's gate promised: its lead over the base rate, or without one the metric itself; carried from window to window."""
    for kind in ("lead", "level"):
        for record in reversed(past):
            value = value_of(record, STANDARD, kind)
            if value is not None:
                return kind, value
    lead = standard(home, system, release, relative=True).bound
    return ("lead", lead) if lead is not None else ("level", standard(home, system, release, relative=False).bound)


def _bound(home: Home, system: System, kind: str, least: float | None, chance: float | None) -> float | None:
    """The standard in units of the metric."""
    metric = system.objective.metric
    if least is None:
        return None
    if kind == "level":
        return stats.better(metric) * least
    closed = [entry.record for entry in home.ledger.heads(CohortClosed, "cohort/", PAST)]
    rows = [(record.mean, record.labelled) for record in closed if record.mean is not None and record.labelled]
    total = sum(n for _, n in rows)
    if not total or chance is None:
        return None
    base = base_rate_of(metric, sum(mean * n for mean, n in rows) / total, chance)
    return None if base is None else base + stats.better(metric) * least


def _signal(system: System, name: str, made: Estimate, standard_: float | None, why: str = "") -> Signal:
    rail = next((r for r in system.objective.guardrails if r.metric == name), None)
    bound, sign = (standard_, stats.better(name)) if name == system.objective.metric else (None, 1)
    if rail is not None:
        bound, sign = rail.bound, -1 if isinstance(rail, AtMost) else 1
    low, high = number(made.low), number(made.high)
    verdict, note = Verdict.NOT_ENOUGH_DATA, ""
    if made.value is None or made.low is None or made.high is None:
        note = why or "the rows do not define it"
    elif bound is None:
        verdict = Verdict.NOT_MEASURED
    elif sign * made.value >= sign * bound:
        verdict = Verdict.PASS if min(sign * made.low, sign * made.high) >= sign * bound else Verdict.NOT_ENOUGH_DATA
    elif max(sign * made.low, sign * made.high) < sign * bound:
        verdict = Verdict.FAIL
    if verdict is Verdict.NOT_ENOUGH_DATA and not note:
        note = "the interval has the bound within it"
    return Signal(NAME, name, "prediction", number(made.value), number(bound), verdict, low=low, high=high, note=note)
