"""Faults of purpose: the metric does not mean money, the decision is stale, there is nothing to learn, something simpler knows more, or it costs too much."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np

from noria import measure, stats
from noria.business.net import counted
from noria.core import Check, Estimate, NoriaError, Verdict, Window
from noria.development.curve import Curve, learning_curve
from noria.diagnosis.case import SPAN, Case, Sample
from noria.diagnosis.causes.concept import concept
from noria.diagnosis.causes.payoffs import LEFT, jumped, payoffs
from noria.diagnosis.causes.service import series
from noria.diagnosis.compared import Compared, folds
from noria.diagnosis.learned import boosted, matrix
from noria.diagnosis.tested import Tested, check, rounded
from noria.monitoring.grouping import members
from noria.records import Charter, CohortClosed, Linked, Monitored, Valued

LAST = "last"  # the first word of every such baseline's name: "last", "last_origin", "last label"
LEAST = 10
FELL = 0.25


def misaligned(case: Case) -> Tested:
    """The metric is as good as ever, or better, and the money is not there."""
    act = "choose a metric that moves with the value, or mend the value's expression; hold the decision's threshold up to both"
    made = [_gate_disagrees(case), _windows_disagree(case), *_link(case)]
    found = [one for one in made if one.verdict is Verdict.FAIL]
    strength = 0.0 if not found else 0.9 if len(found) > 1 else 0.8
    if found and threshold_stale(case).strength > 0.5:
        strength *= 0.5  # the metric would serve, were the threshold where it should be
    paid = _order_is_worthless(case)
    if any(one.verdict is Verdict.FAIL for one in paid):
        strength = 0.92
    return Tested("metric misaligned", "scoping", act, (*made, *paid), strength)


def _order_is_worthless(case: Case) -> list[Check]:
    """Telling true rows from false ones brings less than a quarter of what it did, or what it brings turned its sign."""
    name, made = "telling rows apart brings money", payoffs(case)
    if made is None:
        return jumped(case, turned=True)
    size = Estimate(made.worth_of_order[1], n=made.brings_moved.n)
    bound = LEFT * made.worth_of_order[0]
    return [check(name, made.order_is_worthless, size=size, bound=bound, detail=made.says), *jumped(case, turned=True)]


def _link(case: Case) -> list[Check]:
    """What business found of the link from the metric to the money, when it looked since the fault or shortly before."""
    last = next(iter(case.home.ledger.read(Linked, until=case.until, newest=1)), None)
    if (
        last is None
        or last.record.window.end < case.window.start - 28 * case.every
        or last.record.verdict is Verdict.NOT_ENOUGH_DATA
    ):
        return []
    record = last.record
    said = (
        record.account
        or f"one standard deviation of {record.metric} brings {record.slope} of the value, over {record.pairs} comparisons"
    )
    return [
        check(
            "the metric brings value",
            record.verdict is Verdict.FAIL,
            subject=record.metric,
            size=record.slope,
            bound=0.0,
            detail=said,
        )
    ]


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
    act = "look for other features or another label, or give the problem to a rule"
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
    if any(one.verdict is Verdict.FAIL for one in made):
        more, act = _more_data(case, act)
        made += more
    charter = next(iter(case.home.ledger.read(Charter, until=case.until, newest=1)), None)
    strength = 0.0
    if any(one.verdict is Verdict.FAIL for one in made):
        strength = 0.6
        if charter is not None and charter.record.task != "multiclass":  # several classes have no single number
            reach, even = charter.record.reachable, charter.record.break_even
            short = even is None or (reach is not None and reach.value is not None and reach.value < even)
            said = f"within reach is {reach}; to make money takes {even if even is not None else 'more than there is'}"
            made.append(check("break-even is within reach", short, size=reach, bound=even, detail=said))
            strength = 0.9 if short else 0.6
        if not trivial and _was_ahead(case, "base rate"):  # there was something to learn, and what was learned holds no more
            strength = FELL
            made.append(check("never ahead of the base rate", False, detail="before the fault the release was ahead of it"))
    return Tested("no signal", "scoping", act, tuple(made), strength)


def _more_data(case: Case, act: str) -> tuple[list[Check], str]:
    """What the learning curve says of more rows: a number to collect, or that more of the same brings nothing."""
    made = curve_of(case)
    if made is None:
        return [], act
    curve, base, rate = made
    gain = curve.gain(4.0)
    rows = curve.needed(0.98 * base)
    said = f"with 4 times the data the loss would fall by {gain}, from {curve.law[0] + curve.law[1] * curve.sizes[-1] ** -curve.law[2]:.4g} (base rate {base:.4g})"
    one = Check("what more data would bring", Verdict.NOT_MEASURED, "", rounded(gain), 0.0, said)
    if rows is not None and rows > curve.sizes[-1]:
        more = (rows - curve.sizes[-1]) * min(rate, 1 - rate)
        act = f"collect about {_about(more)} more of the rarer label (its learning curve gets there), or {act}"
    elif rows is None:
        act = f"{act}; more of the same data brings nothing"
    return [one], act


def curve_of(case: Case) -> tuple[Curve, float, float] | None:
    """(learning curve, the base rate's loss on its test rows, the labels' mean) of a small model on the newest closed rows."""
    end = case.closed_until or case.now
    sample = case.rows(Window(end - 112 * case.every, end), answered=False)
    if sample is None or not sample.binary or sample.block_count < 8:
        return None
    days = np.unique(sample.blocks)
    later = sample.blocks >= days[int(0.75 * len(days))]
    asked, label = sample.take(later), sample.label[~later]
    made = matrix(sample.frame)
    if len(np.unique(label)) < 2:
        return None

    def loss(score: stats.longrun.Floats) -> stats.longrun.Floats:
        return Sample(asked.frame, asked.label, score, asked.blocks).loss()

    curve = learning_curve(lambda rows: boosted(made[~later][rows], label[rows], made[later])[0], len(label), loss, asked.blocks)
    rate = float(label.mean())
    return None if curve is None else (curve, float(loss(np.full(asked.n, rate)).mean()), rate)


def _about(number: float) -> str:
    """A number with two digits, as one says it."""
    scale = 10 ** max(int(np.floor(np.log10(max(number, 1)))) - 1, 0)
    return f"{int(round(number / scale) * scale):,}"


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
    strength = 0.0 if not found else 0.93 if clear else 0.6
    if found and not case.checks and _was_ahead(case, "last label"):  # the release fell, the baseline did not rise
        strength = FELL
        made.append(check("never ahead of the last label", False, detail="before the fault the release was ahead of it"))
    return Tested("better baseline", "scoping", act, tuple(made), strength)


def _was_ahead(case: Case, baseline: str) -> bool:
    """Whether before the fault the release was ahead of a baseline, which does no better since than it did then."""
    rows = [w for w in case.outcomes if w.window.start < case.window.start and w.release is not None]
    since = [w for w in case.outcomes if w.window.start >= case.window.start and w.release is not None]
    metric = case.system.objective.metric
    sign = stats.better(metric)
    ahead = sign * _series(rows, (metric, "champion"), (metric, baseline))
    if len(ahead) < 5:
        return False
    values = [sign * series(some, metric, baseline)[1] for some in (rows, since)]
    own = [stats.block_mean(one, np.arange(len(one)), least=2) for one in values]
    risen = own[0].high is not None and own[1].low is not None and own[1].low > own[0].high
    return bool(stats.block_mean(ahead, np.arange(len(ahead)), least=5, confidence=0.8).above(0.0)) and not risen


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


# -------------------------------------------------------------------------------------------------- threshold, costs


def threshold_stale(case: Case) -> Tested:
    """The scores are right and rank as ever, and another threshold would have made more of them; once per case."""
    known: Tested | None = case.__dict__.get("_threshold")
    if known is None:
        known = _threshold_stale(case)
        case.__dict__["_threshold"] = known  # as a cached property keeps it
    return known


def _threshold_stale(case: Case) -> Tested:
    act = "choose the decision's threshold again on the newest closed rows (a new training does), or declare the value's change"
    title, name = "threshold stale", "another threshold pays more"
    recent, both = case.recent, case.compared
    paid = _payoffs_moved(case)
    choice = (
        measure.parse_policy(case.system.decide.policy).kind in ("threshold", "expected") and len(case.system.decide.acts) == 2
    )
    if choice and paid:
        return Tested(title, "development", act, tuple(paid), 0.9)
    if not choice or recent is None or not recent.binary:
        said = "the decision has no threshold" if not choice else ""
        return Tested(title, "development", act, (check(name, False if not choice else None, detail=said),))
    gained = _better_threshold(case, recent, both)
    if gained is None:
        return Tested(title, "development", act, (check(name, None),))
    gain, threshold, logged = gained
    least = 0.02 * float(np.abs(logged).mean() + 1e-9)
    found = gain.above(0.0) and (gain.value or 0.0) > least
    said = f"acting when the score exceeds {threshold:.3g}, chosen on other days, would have brought {gain} more a prediction"
    if not found:
        return Tested(title, "development", act, (check(name, found if gain.known else None, size=gain, bound=0.0, detail=said),))
    holds, says = _scores_hold(recent, both)
    if both is not None and both.rise.above(0.0):
        holds, says = False, f"the loss rose by {both.rise}"
    elif concept(case).changed:
        holds, says = False, concept(case).check.detail
    if not holds:
        said += f", but the scores do not hold: {says}"
        return Tested(title, "development", act, (check(name, False, size=gain, bound=0.0, detail=said),))
    rows = (
        check(name, True, size=gain, bound=0.0, detail=said),
        check("the scores hold", True, detail=f"calibration and ranking hold: {says}"),
    )
    return Tested(title, "development", act, rows, 0.85)


def _payoffs_moved(case: Case) -> list[Check]:
    """What decisions bring or cost is of another size than when the threshold was chosen; empty when it is not, or cannot be told."""
    name, made = "acting pays from the same chance on", payoffs(case)
    found = jumped(case, turned=False)
    if made is None:
        return found
    if made.order_is_worthless:
        return []
    if not made.threshold_moved:
        return found if not made.moved else []
    size = Estimate(made.pays_from[1], n=made.brings_moved.n)
    return [check(name, True, size=size, bound=made.pays_from[0], detail=made.says), *found]


def _better_threshold(case: Case, recent: Sample, both: Compared | None) -> tuple[Estimate, float, stats.longrun.Floats] | None:
    """(gain a prediction, the threshold, the values as logged): each fold of the days is judged by the threshold of the other."""
    worth = _worths(case, recent)
    if worth is None:
        return None
    nothing, acting, logged = worth
    part = folds(recent)
    candidates = np.unique(np.quantile(recent.score, np.linspace(0, 1, 61)[1:-1]))
    candidates = np.r_[-1.0, candidates, 1.0]
    gain = np.full(recent.n, np.nan)
    chosen = [0.0, 0.0]
    for fold in (0, 1):
        seen = (part != fold) & np.isfinite(logged)
        if not seen.any():
            return None
        totals = [float(np.where(recent.score[seen] > t, acting[seen], nothing[seen]).sum()) for t in candidates]
        chosen[fold] = float(candidates[int(np.argmax(totals))])
        here = part == fold
        gain[here] = np.where(recent.score[here] > chosen[fold], acting[here], nothing[here]) - logged[here]
    middle = float(np.mean(chosen))
    if recent.block_count >= 10 or both is None or both.recent is not recent:
        return stats.block_mean(gain, recent.blocks, confidence=0.98), middle, logged
    past = _worths(case, both.before)
    if past is None:
        return None
    before = np.where(both.before.score > middle, past[1], past[0]) - past[2]
    change = both.difference(before, gain)
    level = float(np.nanmean(gain))
    if change.value is None or change.high is None:
        return None
    half = change.high - change.value
    return Estimate(level, level - half, level + half, change.n), middle, logged


def _worths(case: Case, sample: Sample) -> tuple[stats.longrun.Floats, stats.longrun.Floats, stats.longrun.Floats] | None:
    """The value of each row left alone, acted on, and as the policy did; rows on which chance decided do not count."""
    acts = sample.number("_act")
    chance = np.nan_to_num(sample.number("_act_propensity"), nan=1.0)
    acts = np.where(chance >= 0.5, acts, np.nan)
    if not np.isfinite(acts).any():
        return None
    frame, engine, system = sample.table, case.home.engine, case.system
    try:
        made = [
            measure.value(engine, system, frame, act, sample.label, sample.score)
            for act in (np.zeros(sample.n), np.ones(sample.n), acts)
        ]
    except NoriaError:
        return None  # the value reads a column that was not logged
    return made[0], made[1], made[2]


def _scores_hold(recent: Sample, both: Compared | None) -> tuple[bool, str]:
    """Whether calibration and ranking are what they were: then only the decision is to be mended."""
    made = stats.calibration_test(recent.label, recent.score, recent.blocks, least=2)
    off = abs(made["offset"].value or 0.0) > 0.1 * float(recent.label.mean()) and not (made["offset"].low or 0.0) <= 0 <= (
        made["offset"].high or 0.0
    )
    if both is None or not both.binary:
        return not off, f"labels less scores are {made['offset']} on average"
    ranks = [stats.estimate("auc", s.label, s.score, s.blocks, least=2) for s in (both.before, both.recent)]
    fell = (ranks[0].value or 0.0) - (ranks[1].value or 0.0)
    clear = ranks[0].low is not None and ranks[1].high is not None and ranks[1].high < ranks[0].low and fell > 0.02
    said = f"labels less scores are {made['offset']} on average, AUC is {ranks[1]}, {ranks[0]} before"
    return not off and not clear, said


def cost_above_value(case: Case) -> Tested:
    """The decisions are worth something, and less than the machine learning costs."""
    act = "predict less often, label less, train less, or give the problem to a rule; stop if nothing helps"
    title, name = "cost above value", "value net of costs"
    costs = case.system.costs
    if not any((costs.prediction, costs.label, costs.training, costs.day)):
        return Tested(title, "scoping", act, (check(name, False, detail="no costs are declared"),))
    start = min(case.window.start, case.window.end - SPAN * case.every)
    kept = {e.record.window.end: e.record for e in case.home.ledger.read(Valued, since=start, until=case.until)}
    books = [kept[end] for end in sorted(kept) if kept[end].window.start >= start and kept[end].n]
    gross, net = _net(case, books, start)
    if len(net) < LEAST:
        return Tested(title, "scoping", act, (check(name, None, detail="fewer than ten valued windows"),))
    days = np.arange(len(net))
    made, earned = stats.block_mean(net, days), stats.block_mean(gross, days)
    said = f"against doing nothing the decisions bring {earned} a window, less costs {made}"
    found = made.below(0.0)
    strength = 0.0 if not found else 0.85 if not earned.below(0.0) else 0.4
    return Tested(title, "scoping", act, (check(name, found, size=made, bound=0.0, detail=said),), strength)


def _net(case: Case, books: list[Valued], start: datetime) -> tuple[stats.longrun.Floats, stats.longrun.Floats]:
    """By window: the gain over doing nothing under releases, and the same less what it cost."""
    costs = case.system.costs
    end = books[-1].window.end if books else case.window.end
    trained = counted(case.home, Window(start, end))["trainings"] if start < end else 0.0
    cohorts = (e.record for e in case.home.ledger.read(CohortClosed, since=start))
    labelled = {c.window.end: c.labelled - c.silent for c in cohorts}  # a label by silence costs nothing
    gross, net = [], []
    trainings = costs.training * trained / max(len(books), 1)
    for book in books:
        parts = [part for name, part in book.sums.items() if name and "do nothing" in part]
        if not parts:
            continue
        gain = sum(part["value"] - part["do nothing"] for part in parts)
        length = book.window.length.total_seconds() / 86400
        spent = costs.prediction * book.n + costs.label * labelled.get(book.window.end, book.n) + costs.day * length + trainings
        gross.append(gain)
        net.append(gain - spent)
    return np.array(gross, float), np.array(net, float)
