"""Faults of purpose: the metric does not mean money, there is nothing to learn, or something simpler knows more."""

from __future__ import annotations

import re

import numpy as np

from noria import stats
from noria.core import Check, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.monitoring.grouping import members
from noria.records import Charter, Monitored

LAST = "last"  # the first word of every such baseline's name: "last", "last_origin", "last label"
LEAST = 10


def misaligned(case: Case) -> Tested:
    """The metric is as good as ever, or better, and the money is not there."""
    act = "go back to scoping: choose a metric that moves with the value, or mend the value's expression; hold the decision's threshold up to both"
    made = [_gate_disagrees(case), _windows_disagree(case)]
    found = any(one.verdict is Verdict.FAIL for one in made)
    return Tested("metric misaligned with value", "scoping", act, tuple(made), 0.85 if found else 0.0)


def _gate_disagrees(case: Case) -> Check:
    """A gate or a rollout found the value worse while every comparison by the metric passed."""
    name = "metric and value at the gate"
    worse = case.failed("not worth less than", "paired value", "value between the arms")
    by_metric = [c for c in case.checks if c.name.startswith(("superior", "not inferior"))]
    if not case.checks:
        return check(name, None if not case.harmed else False, detail="no gate or rollout is among the symptoms")
    found = bool(worse) and not any(c.verdict is Verdict.FAIL for c in by_metric)
    said = f"{worse[0].name} {worse[0].subject}: {worse[0].detail or worse[0].estimate}" if worse else "the value holds"
    return check(name, found, size=worse[0].estimate if worse else None, detail=said)


def _windows_disagree(case: Case) -> Check:
    """Since the fault the decisions lose money, while the metric still beats its baselines in every sense."""
    name = "metric and value on traffic"
    rows = [w for w in case.outcomes if w.window.start >= case.window.start and w.release is not None]
    gain = _series(rows, ("value", "champion"), ("value", "do nothing"))
    metric = case.system.objective.metric
    lead = _series(rows, (metric, "champion"), (metric, "base rate"))
    if len(gain) < LEAST or len(lead) < LEAST:
        return check(name, None)
    money = stats.block_mean(gain, np.arange(len(gain)))
    ahead = stats.block_mean(stats.better(metric) * lead, np.arange(len(lead)))
    found = money.below(0.0) and ahead.above(0.0)
    said = (
        f"{metric} is ahead of the base rate by {ahead}, and the decisions are worth {money} a prediction against doing nothing"
    )
    return check(name, found, size=money, bound=0.0, detail=said)


def no_signal(case: Case) -> Tested:
    """There is nothing in the features that says more than the base rate: no candidate beats it, as the charter feared."""
    act = "go back to scoping: look for other features or another label, or give the problem to a rule"
    trivial = case.failed("superior to baseline")
    made = [
        check(
            "beats the base rate",
            True,
            subject=one.subject,
            size=one.estimate,
            bound=0.0,
            detail=f"against {one.subject}: {one.detail}",
        )
        for one in trivial
        if one.subject.startswith(("prior", "base"))
    ]
    for alert in case.harmed:
        if not made and ("worse than baseline", "base rate") in members(alert):
            size = alert.size if alert.subject == "base rate" else None
            made.append(check("beats the base rate", True, subject="base rate", size=size, bound=0.0, detail=alert.message))
    if not made:
        asked = [c for c in case.checks if c.name == "superior to baseline"]
        made.append(
            check("beats the base rate", False if asked or case.harmed else None, detail="it does, or nothing says otherwise")
        )
    charter = case.home.ledger.latest(Charter)
    strength = 0.0
    if any(one.verdict is Verdict.FAIL for one in made):
        strength = 0.6
        if charter is not None and charter.record.task != "multiclass":  # several classes have no single number
            reach, even = charter.record.reachable, charter.record.break_even
            short = even is None or (reach is not None and reach.value is not None and reach.value < even)
            said = f"within reach is {reach}; to make money takes {even if even is not None else 'more than there is'}"
            made.append(check("break-even is within reach", short, size=reach, bound=even, detail=said))
            strength = 0.9 if short else 0.6
    return Tested("no signal", "scoping", act, tuple(made), strength)


def better_baseline(case: Case) -> Tested:
    """Saying the same as last time knows more than the model: the newest labels hold what the features do not."""
    act = "give the model the last known labels as features, or shorten their delay; until then let the baseline decide"
    made = [
        check(
            "beats the last label",
            True,
            subject=one.subject,
            size=one.estimate,
            bound=0.0,
            detail=f"against {one.subject}: {one.detail}",
        )
        for one in case.failed("superior to baseline", "backtest on the freshest data")
        if re.split(r"[ :_]", one.subject)[0] == LAST
    ]
    for alert in case.harmed:
        if ("worse than baseline", "last label") in members(alert):
            size = alert.size if alert.subject == "last label" else None
            made.append(check("beats the last label", True, subject="last label", size=size, bound=0.0, detail=alert.message))
    if not made:
        made.append(_behind(case))
    found = [one for one in made if one.verdict is Verdict.FAIL]
    clear = any(one.estimate is not None and one.estimate.below(0.0) for one in found)
    return Tested("better baseline", "scoping", act, tuple(made), 0.0 if not found else 0.75 if clear else 0.6)


def _behind(case: Case) -> Check:
    rows = [w for w in case.outcomes if w.window.start >= case.window.start and w.release is not None]
    metric = case.system.objective.metric
    ahead = stats.better(metric) * _series(rows, (metric, "champion"), (metric, "last label"))
    if len(ahead) < LEAST:
        return check("beats the last label", None)
    made = stats.block_mean(ahead, np.arange(len(ahead)))
    return check(
        "beats the last label", made.below(0.0), size=made, bound=0.0, detail=f"{metric} is ahead of the last label by {made}"
    )


def _series(rows: list[Monitored], one: tuple[str, str], other: tuple[str, str]) -> stats.longrun.Floats:
    """The difference of two signals over the windows that have both."""
    made = []
    for row in rows:
        values = {(signal.name, signal.subject): signal.value for signal in row.signals}
        a, b = values.get(one), values.get(other)
        if a is not None and b is not None:
            made.append(a - b)
    return np.array(made, dtype=float)
