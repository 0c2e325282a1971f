"""What closed cohorts and the logs say about a rollout. Reads tables, decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import Check, Estimate, NoriaError, Window, duration, floor
from noria.deployment.bundles import Bundles, decision_of, fallback, policy_act
from noria.deployment.live import Rollout
from noria.deployment.rollout import arms, rails
from noria.deployment.rollout.randomised import Arms, compare, looks
from noria.deployment.rollout.rules import LATER, UNKNOWN, Evidence, Terms
from noria.deployment.rollout.software import software
from noria.deployment.rollout.worth import Floats, numbers, said, worth
from noria.deployment.routing import NOT_ACTING
from noria.measure import before_acts, blocks_of, closed, columns_read
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

ARMS = (
    0.5  # the part that arms take which decide: units' noise hides autocorrelation of the days' own disturbance from its estimate
)
_LOGGED = ("_unit", "_variant", "_variant_propensity", "_release", "_score", "_scores", "_act", "_act_propensity", "_fallback")
UNITS, STRETCHES = 30, 10  # the challenger's fewest before a canary step says anything


def terms(system: System, bundles: Bundles, rollout: Rollout) -> Terms:
    """What this rollout has to show: a costlier recipe, or the first model, has to be superior."""
    superior = rollout.champion is None
    if rollout.champion is not None:
        try:
            superior = bundles.get(rollout.challenger).spec.cost > bundles.get(rollout.champion).spec.cost
        except NoriaError:
            superior = True  # a bundle that cannot be read is no refit; that it refuses rows is seen elsewhere
    randomised = system.label.affected_by_action or system.label.observed_when is not None
    return Terms(system.rollout, superior, randomised, UNITS if system.rollout.switchback is None else STRETCHES)


def gather(home: Home, system: System, rollout: Rollout, known: datetime, bundles: Bundles) -> Evidence:
    """The evidence with everything closed up to ``known``. Blocks that are not whole yet are left out."""
    wanted = terms(system, bundles, rollout)
    block = duration(system.gate.block)
    start = rollout.moved if rollout.stage == "full" else rollout.began
    span = Window(start, max(start, floor(known, block)))
    same, own = Paired(), None
    shown: list[Check] = []
    if wanted.randomised:
        frame = _asked(home, system, rollout, span)
        if frame is not None:
            own, shown = _own_arm(system, rollout, frame, bundles)
    elif rollout.stage != "canary" and span.length <= (system.gate.blocks - 1) * block:
        frame = None  # fewer blocks than give an interval: nothing to look at yet
    else:
        twins = _twins(home, system, rollout, span, bundles)
        frame = pl.concat([some.frame for some in twins], how="diagonal_relaxed") if twins else None
        same = _paired(home, system, rollout, twins)
        own, shown = _own(system, rollout, twins, bundles)
    between, later = Arms(), system.rollout.error * LATER
    if rollout.stage == "canary" and frame is not None:
        error = system.rollout.error * ARMS if wanted.randomised else later
        between = compare(home, system, rollout, frame, error=error, cautious=wanted.randomised)
    guarded = (
        ()
        if wanted.randomised and rollout.stage != "canary"
        else rails.guardrails(system, own, error=later, looks=looks(system.rollout, system.gate.block))
    )
    outside, n = same.outside + between.outside, same.n + between.n
    less = f"; {between.removed:.0%} of the arms' variance was known before acting" if between.removed > 0 else ""
    return Evidence(
        waited=max(known - rollout.moved, timedelta(0)),
        staged=max(known - rollout.entered, timedelta(0)),
        margin=system.gate.margin * between.gain if wanted.randomised else same.margin,
        paired=same.difference,
        lately=same.lately,
        arms=between.difference,
        software=(*software(home, system, rollout, bundles), *between.checks),
        units=between.units,
        guardrails=guarded,
        better=between.better if wanted.randomised else same.better,
        notes=tuple(shown),
        said=said(system, outside, n) + less,
    )


# ------------------------------------------------------------------------------------------------- on the same rows


@dataclass(frozen=True)
class _Twins:
    """Rows with both models' acts and scores. ``loud``: the challenger answered, and the champion shadowed."""

    frame: pl.DataFrame
    challenger: tuple[Floats, Floats]
    champion: tuple[Floats, Floats]
    loud: bool


@dataclass(frozen=True)
class Paired:
    """What the same rows say: the difference since the rollout began and at this share alone, the margin of not being inferior, the chance that
    the challenger is worth more, and how many of ``n`` values were clipped."""

    difference: Estimate = UNKNOWN
    lately: Estimate = UNKNOWN
    margin: float = 0.0
    better: float | None = None
    outside: int = 0
    n: int = 0


def _paired(home: Home, system: System, rollout: Rollout, both: list[_Twins]) -> Paired:
    """The margin is a share of what the champion gains on doing nothing, on the same rows."""
    if not both:
        return Paired()
    differences, gains, values, days, fresh = [], [], [], [], []
    outside = n = 0
    for twins in both:
        frame = twins.frame
        mine, out1 = worth(home, system, frame, *twins.challenger)
        other, out0 = worth(home, system, frame, *twins.champion)
        nothing, _ = worth(home, system, frame, np.full(frame.height, NOT_ACTING))
        differences.append(mine - other)
        gains.append(other - nothing)
        values.append(mine)
        days.append(blocks_of(frame["_time"], system.gate.block))
        fresh.append((frame["_time"] > rollout.moved).to_numpy())
        outside, n = outside + out1 + out0, n + int(np.isfinite(mine).sum() + np.isfinite(other).sum())
    difference, gain, value, day, new = (np.concatenate(some) for some in (differences, gains, values, days, fresh))
    error, least = system.rollout.error, system.gate.blocks
    known = np.isfinite(difference) & np.isfinite(gain)
    return Paired(
        difference=arms.paired(difference, day, error=error * (LATER if rollout.stage == "full" else 1.0), least=least),
        lately=arms.paired(difference[new], day[new], error=error * LATER, least=least)
        if rollout.stage == "canary"
        else Estimate(None),
        margin=system.gate.margin * max(0.0, float(gain[known].mean())) if known.any() else 0.0,
        better=arms.better_pair(difference, day, float(np.nanstd(value)) if known.any() else 0.0),
        outside=outside,
        n=n,
    )


def _own(system: System, rollout: Rollout, both: list[_Twins], bundles: Bundles) -> tuple[rails.Said | None, list[Check]]:
    """The challenger's own rows for the guardrails, and the metric beside the champion's on the same rows."""
    mine, other = [], []
    for twins in both:
        try:
            mine.append(rails.told(system, bundles, rollout.challenger, twins.frame, twins.challenger[0], shadow=not twins.loud))
            if rollout.champion is not None:
                other.append(rails.told(system, bundles, rollout.champion, twins.frame, twins.champion[0], shadow=twins.loud))
        except NoriaError:  # a bundle that cannot be read: its refused rows stop the rollout
            return None, []
    own, champion = rails.joined(mine), rails.joined(other)
    if own is None or champion is None:
        return own, []
    return own, [rails.metric_on_the_same_rows(system, own, champion, error=system.rollout.error)]


def _own_arm(system: System, rollout: Rollout, frame: pl.DataFrame, bundles: Bundles) -> tuple[rails.Said | None, list[Check]]:
    """The same of randomised arms: each model's own rows are those that it answered in the canary."""
    frame = frame.filter((pl.col("_variant_propensity") > 0) & (pl.col("_variant_propensity") < 1))

    def of(release: str | None) -> rails.Said | None:
        rows = frame.filter(pl.col("_release") == (release or ""))
        if release is None or rows.is_empty():
            return None
        try:
            return rails.told(system, bundles, release, rows, _answered(system, release, rows, bundles)[0], shadow=False)
        except NoriaError:
            return None

    mine, other = of(rollout.challenger), of(rollout.champion)
    if mine is None or other is None:
        return mine, []
    return mine, [
        rails.metric_between_the_arms(
            system, mine, other, confidence=1 - system.rollout.error / looks(system.rollout, system.gate.block)
        )
    ]


def _twins(home: Home, system: System, rollout: Rollout, span: Window, bundles: Bundles) -> list[_Twins]:
    """Both directions: where the champion answered and the challenger shadowed, and the other way round."""
    found: list[_Twins] = []
    if span.end <= span.start:
        return found
    columns = _columns(home, system)
    quiet = closed(home, system, span, columns=columns, shadow_of=rollout.challenger)
    quiet = quiet.filter(pl.col("_release") == (rollout.champion or ""))
    if quiet.height:
        found.append(_Twins(quiet, _shadowed(system, quiet), _answered(system, rollout.champion, quiet, bundles), False))
    if rollout.stage == "shadow":
        return found
    loud = closed(home, system, span, columns=columns, shadow_of=rollout.champion)
    loud = loud.filter(pl.col("_release") == rollout.challenger)
    if loud.height:
        other = _shadowed(system, loud) if rollout.champion is not None else _before(system, loud, bundles)
        found.append(_Twins(loud, _answered(system, rollout.challenger, loud, bundles), other, True))
    return found


def _shadowed(system: System, frame: pl.DataFrame) -> tuple[Floats, Floats]:
    return fallback(system, numbers(frame["_shadow_act"])), numbers(frame["_shadow_score"])


def _answered(system: System, sha256: str | None, frame: pl.DataFrame, bundles: Bundles) -> tuple[Floats, Floats]:
    """What the policy says to the logged scores: the logged act may have been drawn by exploration or the hold-out.

    Where the fallback answered, its act is what the release brought about.
    """
    if sha256 is None:
        return _before(system, frame, bundles)
    score = numbers(frame["_score"])
    raw = score
    if system.task == "multiclass":
        lists = frame["_scores"].to_list()
        width = next((len(some) for some in lists if some is not None), 1)
        raw = np.array([some if some is not None else [np.nan] * width for some in lists], float)
    try:
        decision = decision_of(bundles.get(sha256))
    except NoriaError:
        return _nothing(frame)
    instead = frame["_fallback"].is_not_null().to_numpy()
    act = np.where(instead, fallback(system, numbers(frame["_act"])), policy_act(bundles, system, decision, raw, frame))
    return act, score


def _before(system: System, frame: pl.DataFrame, bundles: Bundles) -> tuple[Floats, Floats]:
    """What is done before the first release."""
    return before_acts(bundles.home.engine, system, frame), np.full(frame.height, np.nan)


def _nothing(frame: pl.DataFrame) -> tuple[Floats, Floats]:
    return np.full(frame.height, NOT_ACTING), np.full(frame.height, np.nan)


def _columns(home: Home, system: System) -> list[str]:
    """The columns of the predictions that valuing, deciding and the covariate need."""
    there = home.lake.schema("predictions") or {}
    texts = (system.objective.value.sql, system.label.observed_when, system.rollout.covariate, system.decide.before)
    wanted = dict.fromkeys(name for text in texts if text for name in columns_read(text))
    return [*_LOGGED, *(name for name in wanted if name in there and name not in _LOGGED)]


def _asked(home: Home, system: System, rollout: Rollout, span: Window) -> pl.DataFrame | None:
    """The closed rows of a rollout's canary, whoever answered."""
    if rollout.stage != "canary" or span.end <= span.start:
        return None
    return closed(home, system, span, columns=_columns(home, system))
