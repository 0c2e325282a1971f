"""The metric link: whether a better ML metric goes with a better business metric, estimated again each week.

Everything is read from records: windows of closed outcomes, evaluations of candidates, moves of rollouts. Three kinds of comparison, from the
weakest to the strongest:

- *windows*: within a release, on days that were better by the metric than their mix of labels, scores and rows lets expect;
- *versions*: candidates on the same days of the same part, so that an easy day is easy for all of them;
- *variants*: challenger and champion of a rollout, on the same rows or between randomised arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.core import Estimate, Verdict, Window, duration
from noria.records import Entry, Evaluated, Linked, Monitored, RolloutMoved, Trained
from noria.store import Home
from noria.system import System

Floats = NDArray[np.float64]

EVERY = 7
HORIZON = 182
RECENT = 91
LEAST = 28
LATELY = 28
YEAR = timedelta(days=365)
CONFIDENCE = 0.99
NO_LINK = 0.4
"""A standardised slope whose whole interval is nearer to 0 than this is no link."""
WINDOWS, VERSIONS, VARIANTS = "windows", "versions", "variants"
LATER, METRIC_LATELY, VALUE_LATELY = "windows lately", "metric lately", "value lately"


@dataclass(frozen=True)
class Day:
    """One closed window: the metric (higher is better), the value per prediction beyond doing nothing, and what moves both."""

    window: Window
    release: str
    metric: float
    value: float
    controls: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """Two variants of one rollout compared: how much better the challenger was by the metric, and by value."""

    metric: Estimate
    value: Estimate
    rollout: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A candidate on the blocks of one part: the metric (higher is better) and the value of each; ``group`` names the part."""

    group: str
    blocks: Floats
    metric: Floats
    value: Floats


@dataclass(frozen=True)
class Evidence:
    """What the link is estimated from."""

    days: Sequence[Day] = ()
    evaluations: Sequence[Evaluation] = ()
    pairs: Sequence[Pair] = ()


@dataclass(frozen=True)
class Link:
    """The estimate: see ``Linked``. ``halves`` are the windows' slopes in the earlier and the later half of the time looked at."""

    slope: Estimate
    pairs: int
    verdict: Verdict
    by: dict[str, Estimate] = field(default_factory=dict)
    account: str = ""


def linked(home: Home, system: System) -> Entry[Linked] | None:
    """Estimates the link anew when seven windows have closed since the last time; ``None`` when it is not due, or nothing was released."""
    newest = home.ledger.latest(Monitored, prefix="monitored/outcomes/")
    if newest is None or newest.record.release is None:
        return None
    every = duration(system.every)
    last = home.ledger.latest(Linked)
    if last is not None and newest.record.window.end < last.record.window.end + EVERY * every:
        return None
    found = evidence(home, system)
    if len(found.days) < EVERY:
        return None
    made = estimated(found, system.objective.metric)
    window = Window(found.days[0].window.start, found.days[-1].window.end)
    if last is not None and window.end <= last.record.window.end:
        return None
    record = Linked(
        window=window,
        metric=system.objective.metric,
        slope=_kept(made.slope),
        pairs=made.pairs,
        verdict=made.verdict,
        by={name: _kept(one) for name, one in made.by.items()},
        account=made.account,
    )
    return home.commit(record, key=f"linked/{window.end.isoformat()}", parents=[newest.id])


# -------------------------------------------------------------------------------------------------------- what is there


def evidence(home: Home, system: System) -> Evidence:
    """The last 182 windows, and the evaluations and rollouts of the last year, from the records."""
    records = [entry.record for entry in home.ledger.heads(Monitored, "monitored/outcomes/", HORIZON)]
    ends = [record.window.end for record in records]
    days = [day for day in (_day(system, record) for record in records) if day is not None]
    since = (ends[-1] if ends else datetime.max.replace(tzinfo=home.clock.now().tzinfo)) - YEAR
    return Evidence(tuple(days), tuple(_evaluations(home, system, since)), tuple(_pairs(home, since)))


def _day(system: System, record: Monitored) -> Day | None:
    """The window as one point; ``None`` without a release, a metric or a value."""
    said = {(signal.name, signal.subject): signal.value for signal in record.signals}
    metric, value = said.get((system.objective.metric, "champion")), said.get(("value", "champion"))
    nothing, rows = said.get(("value", "do nothing")), said.get(("rows", "champion"))
    if record.release is None or metric is None or value is None or not rows:
        return None
    mean, offset = said.get(("mean", "label")), said.get(("offset", "score"))
    turn = 2 * np.pi * ((record.window.end.timestamp() / 86400.0) % 7) / 7
    controls = [float(np.log(rows)), float(np.sin(turn)), float(np.cos(turn))]
    if not system.label.affected_by_action:  # where acting changes the label its mean is what acting brought about
        controls += [0.0, 0.0] if mean is None else [mean, mean * mean]
        controls += [0.0] if mean is None or offset is None else [mean - offset]
    gain = value - (nothing or 0.0)
    return Day(record.window, record.release, stats.better(system.objective.metric) * metric, gain, tuple(controls))


def _evaluations(home: Home, system: System, since: datetime) -> Iterable[Evaluation]:
    metric = system.objective.metric
    for entry in home.ledger.read(Evaluated):
        daily = entry.record.daily
        if entry.at <= since or not daily.get(metric) or not daily.get("value"):
            continue
        trained = [e for e in home.ledger.parents(entry.id) if not isinstance(e.record, Trained)]
        group = f"{trained[0].id if trained else ''}/{entry.record.part}"
        better = stats.better(metric) * np.array(daily[metric], float)
        yield Evaluation(group, np.array(daily["block"], float), better, np.array(daily["value"], float))


def _pairs(home: Home, since: datetime) -> Iterable[Pair]:
    """Of each rollout the last word: the challenger's metric and value beside the champion's."""
    newest: dict[int, Pair] = {}
    for entry in home.ledger.read(RolloutMoved):
        if entry.at <= since or entry.record.champion is None:
            continue
        checks = {check.name: check.estimate for check in entry.record.checks if check.estimate is not None}
        value = checks.get("paired value", checks.get("value between the arms"))
        if "metric" in checks and value is not None and checks["metric"].value is not None and value.value is not None:
            newest[entry.record.rollout] = Pair(checks["metric"], value, entry.record.rollout)
    return newest.values()


# ---------------------------------------------------------------------------------------------------------- the estimate


def estimated(found: Evidence, metric: str) -> Link:
    """The link in what was found: a pure function.

    Slopes are in standard deviations of the daily value per prediction for one of the daily metric, so that kinds can be laid together.
    """
    windows = _windows(found.days)
    x, y = windows.x_spread, windows.y_spread
    if not (x > 0 and y > 0) and found.evaluations:
        x, y = _spreads(found.evaluations)
    factor = x / y if x > 0 and y > 0 else float("nan")
    raw = {WINDOWS: windows.estimate, VERSIONS: _versions(found.evaluations), VARIANTS: _variants(found.pairs)}
    by = {name: stats.scaled(one, factor) for name, one in raw.items() if one.value is not None and np.isfinite(factor)}
    slope = stats.pooled(list(by.values()), confidence=CONFIDENCE)
    recent = found.days[-RECENT:]
    if len(recent) < len(found.days):
        by[LATER] = _windows(recent).standard
    by |= _lately(recent)
    pairs = sum(by[name].n for name in (WINDOWS, VERSIONS, VARIANTS) if name in by)
    broken = _broken(found, by)
    verdict, said = _judged(slope, pairs, broken)
    return Link(slope, pairs, verdict, by, _account(metric, slope, by, said, broken))


def _windows(days: Sequence[Day], *, confidence: float = CONFIDENCE) -> stats.Slope:
    """Day by day within each release: its own level and trend, the mix of labels and scores, the rows and the week are taken out."""
    if not days:
        return stats.Slope(Estimate(None), 0.0, 0.0, np.empty(0), np.empty(0))
    counts = {name: sum(day.release == name for day in days) for name in dict.fromkeys(day.release for day in days)}
    enough = [day for day in days if counts[day.release] >= EVERY]
    names = [name for name, n in counts.items() if n >= EVERY]
    place = np.arange(len(enough), dtype=float)
    columns = [np.array([day.controls[i] for day in enough]) for i in range(len(days[0].controls))]
    for name in names:
        own = np.array([day.release == name for day in enough], float)
        columns += [own, own * (place - (own @ place) / max(own.sum(), 1.0))]
    x, y = np.array([day.metric for day in enough]), np.array([day.value for day in enough])
    return stats.partial_slope(x, y, np.column_stack(columns) if enough else None, confidence=confidence)


def _versions(evaluations: Sequence[Evaluation]) -> Estimate:
    """Candidates compared on the same blocks: how far each is from the group's mean, by the metric and by value; blocks are the observations."""
    rows: list[tuple[Floats, Floats, Floats]] = []
    groups: dict[str, list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault(one.group, []).append(one)
    for group in groups.values():
        same = [one for one in group if len(one.blocks) == len(group[0].blocks) and (one.blocks == group[0].blocks).all()]
        if len(same) < 2:
            continue
        metric, value = np.array([one.metric for one in same]), np.array([one.value for one in same])
        rows.append((same[0].blocks, metric - metric.mean(axis=0), value - value.mean(axis=0)))
    total = sum(float((m.mean(axis=1) ** 2).sum()) * m.shape[1] for _, m, _ in rows)
    if total <= 0:
        return Estimate(None)
    slope = sum(float((m.mean(axis=1) * v.mean(axis=1)).sum()) * m.shape[1] for _, m, v in rows) / total
    block = np.concatenate([b for b, _, _ in rows])
    moved = np.concatenate([(m.mean(axis=1)[:, None] * (v - slope * m)).sum(axis=0) for _, m, v in rows])
    (sums,) = stats.block_sums(block.astype(np.int64), moved)
    found = stats.around(slope, sums / (total / len(sums)), confidence=CONFIDENCE)
    return Estimate(found.value, found.low, found.high, len(sums))


def _variants(pairs: Sequence[Pair]) -> Estimate:
    """Rollouts compared: the slope through the origin of the value's differences by the metric's, weighted by the value's precision."""
    known = [pair for pair in pairs if pair.value.known and pair.metric.value is not None]
    if len(known) < 3:
        return Estimate(None, n=len(known))
    x = np.array([pair.metric.value for pair in known], float)
    y = np.array([pair.value.value for pair in known], float)
    half = np.array([((pair.value.high or 0.0) - (pair.value.low or 0.0)) / 2 for pair in known], float)
    weight = np.maximum(half, 1e-12) ** -2.0
    total = float(weight @ x**2)
    if total <= 0:
        return Estimate(None, n=len(known))
    slope = float(weight @ (x * y)) / total
    apart = float(weight @ (y - slope * x) ** 2) * 4 / (len(known) - 1)  # the halves are of about two standard errors
    wide = stats.t_quantile(CONFIDENCE, len(known) - 1) / 2 * max(1.0, apart**0.5) * total**-0.5
    return Estimate(slope, slope - wide, slope + wide, len(known))


def _spreads(evaluations: Sequence[Evaluation]) -> tuple[float, float]:
    metric = np.concatenate([one.metric - one.metric.mean() for one in evaluations])
    value = np.concatenate([one.value - one.value.mean() for one in evaluations])
    return float(metric.std()), float(value.std())


def _lately(days: Sequence[Day]) -> dict[str, Estimate]:
    """How far metric and value moved in the last 28 windows against those before, with the same things taken out of both."""
    if len(days) < 2 * LATELY:
        return {}
    step = np.array([float(place >= len(days) - LATELY) for place in range(len(days))])
    controls = np.array([day.controls for day in days])
    made = {}
    for name, series in ((METRIC_LATELY, [d.metric for d in days]), (VALUE_LATELY, [d.value for d in days])):
        found = stats.partial_slope(step, np.array(series), controls, confidence=CONFIDENCE)
        spread = float(np.std(found.y - (found.estimate.value or 0.0) * found.x)) if len(found.y) else 0.0
        if found.estimate.value is not None and spread > 0:
            made[name] = stats.scaled(found.estimate, 1 / spread)
    return made


# ----------------------------------------------------------------------------------------------------------- the verdict


def _broken(found: Evidence, by: dict[str, Estimate]) -> list[str]:
    """Every way in which a better metric went with a worse value: clear, and not of the last days only."""
    made, recent = [], found.days[-RECENT:]
    if by.get(LATER, by.get(WINDOWS, Estimate(None))).below(0.0) and len(recent) >= LEAST:
        half = len(recent) // 2
        halves = [_windows(part).estimate.value for part in (recent[:half], recent[half:])]
        if all(one is not None and one < 0 for one in halves):
            made.append("windows better by the metric were worse by value, in both halves of the time")
    made += [
        f"{name} better by the metric were worse by value"
        for name in (VERSIONS, VARIANTS)
        if by.get(name, Estimate(None)).below(0.0)
    ]
    against = [pair for pair in found.pairs if pair.metric.above(0.0) and pair.value.below(0.0)]
    made += [f"in rollout {pair.rollout} the challenger was better by the metric and worse by value" for pair in against]
    up, down = by.get(METRIC_LATELY, Estimate(None)), by.get(VALUE_LATELY, Estimate(None))
    if up.above(0.0) and down.below(0.0) and _persists(recent):
        made.append(f"in the last {LATELY} windows the metric rose and the value fell")
    return made


def _persists(days: Sequence[Day]) -> bool:
    """Whether the metric is up and the value down in both halves of the last 28 windows, each against what came before."""
    half = LATELY // 2
    before, last = days[:-LATELY], days[-LATELY:]
    for part in (last[:half], last[half:]):
        moved = _lately_of(before, part)
        if not (moved[0] > 0 > moved[1]):
            return False
    return True


def _lately_of(before: Sequence[Day], part: Sequence[Day]) -> tuple[float, float]:
    both = [*before, *part]
    step = np.array([0.0] * len(before) + [1.0] * len(part))
    controls = np.array([day.controls for day in both])
    one = stats.partial_slope(step, np.array([day.metric for day in both]), controls).estimate.value
    two = stats.partial_slope(step, np.array([day.value for day in both]), controls).estimate.value
    return one or 0.0, two or 0.0


def _judged(slope: Estimate, pairs: int, broken: list[str]) -> tuple[Verdict, str]:
    if broken:
        return Verdict.FAIL, "broken"
    if pairs < LEAST or not slope.known:
        return Verdict.NOT_ENOUGH_DATA, "not enough data"
    if slope.above(0.0):
        return Verdict.PASS, "linked"
    if slope.above(-NO_LINK) and slope.below(NO_LINK):
        return Verdict.FAIL, "no link"
    return Verdict.NOT_ENOUGH_DATA, "not enough data"


def state(record: Linked) -> str:
    """What the record says in a word: ``linked``, ``no link``, ``broken`` or ``not enough data``."""
    return record.account.split(":", 1)[0]


def _account(metric: str, slope: Estimate, by: dict[str, Estimate], said: str, broken: list[str]) -> str:
    """The record's sentence; it begins with the state."""
    size = f"one standard deviation of {metric} (higher is better) brings {slope} standard deviations of value"
    kinds = ", ".join(
        f"{name} {by[name]} (n={by[name].n})"
        for name in (WINDOWS, *((LATER,) if broken else ()), VERSIONS, VARIANTS)
        if name in by
    )
    text = {
        "linked": f"a better metric brings a better value; {size}",
        "no link": f"a better metric brings nothing; {size}",
        "broken": "; ".join(broken),
        "not enough data": f"{size}; whether it brings any cannot be told yet",
    }[said]
    return f"{said}: {text}" + (f". By kind: {kinds}" if kinds else "")


def _kept(one: Estimate) -> Estimate:
    value, low, high = (None if x is None or not np.isfinite(x) else float(f"{x:.12g}") for x in (one.value, one.low, one.high))
    return Estimate(value, low, high, one.n)
