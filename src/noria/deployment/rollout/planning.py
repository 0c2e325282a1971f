"""How long a rollout will take to decide, from what the home's closed cohorts say: what ``noria check`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import special

from noria.core import Window, duration
from noria.deployment.bundles import fallback
from noria.deployment.live import state
from noria.deployment.rollout import arms
from noria.deployment.rollout.evidence import ARMS
from noria.deployment.rollout.randomised import looks
from noria.deployment.rollout.worth import Floats, clipped, labels, numbers, worth_as_taken
from noria.measure import blocks_of, closed, closed_until, columns_read, policies
from noria.stats import block_sums, blocks_needed, inflation
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

PAST = timedelta(days=91)
POWER = 0.8


@dataclass(frozen=True)
class Planned:
    """How many days one way to decide needs with 80 % power, ``None`` when it is longer than any rollout.

    ``effect`` is the difference of value per prediction that is to be found, and ``why`` says where it comes from; ``spread`` the
    standard deviation of one day's mean difference; ``a_day`` units.
    """

    how: str
    days: int | None
    effect: float
    why: str
    spread: float
    a_day: float

    def __str__(self) -> str:
        took = "longer than any rollout" if self.days is None else f"about {self.days} days"
        return (
            f"{self.how}: {took} to tell {self.effect:.3g} a prediction ({self.why}), with {self.a_day:.0f} units a day and a daily "
            f"difference that varies by {self.spread:.3g}"
        )


@dataclass(frozen=True)
class _Past:
    """Closed rows: the value of what was done and of the reference policies, the unit, the block; and the difference to look for."""

    taken: Floats
    tried: dict[str, Floats]
    units: pl.Series
    days: arms.Ints
    effect: float
    why: str


def planned(home: Home, system: System) -> list[Planned] | str:
    """The days to a decision of each way to decide that this system has, or in a sentence what is missing to say so.

    Where acting does not change the label the paired difference decides in shadow. What two models will differ by is not known before there
    are two, so what stands in is the champion against a trivial policy (before its own rows are closed, always acting against never): models
    differ on fewer rows than that, and take less time. Where acting changes the label the arms decide, at each share.
    """
    until = closed_until(home)
    if until is None:
        return "no cohort is closed yet; ask again after `noria replay` or some turns"
    there = home.lake.schema("predictions") or {}
    texts = (system.objective.value.sql, system.label.observed_when)
    wanted = dict.fromkeys(name for text in texts if text for name in columns_read(text))
    columns = ["_unit", "_act", "_score", "_release", *(name for name in wanted if name in there)]
    frame = closed(home, system, Window(until - PAST, until), columns=columns)
    own = frame.filter(pl.col("_release") == (state(home).champion or "nobody"))
    answered = _blocks(system, own) >= system.gate.blocks
    frame = own if answered else frame
    tried = policies(home.engine, system, frame, labels(system, frame))
    tried = {name: clipped(system, made)[0] for name, made in tried.items()}
    taken = tried["always act"]
    if answered:
        taken = worth_as_taken(home, system, frame, fallback(system, numbers(frame["_act"])), numbers(frame["_score"]))[0]
    days = blocks_of(frame["_time"], system.gate.block)
    if len(np.unique(days[np.isfinite(taken) & np.isfinite(tried["do nothing"])])) < system.gate.blocks:
        return f"fewer than {system.gate.blocks} blocks of {system.gate.block} are closed with a value"
    effect, why = _effect(system, answered, taken, tried)
    if effect is None:
        return why
    if system.label.affected_by_action or system.label.observed_when is not None:
        return _arms(system, _Past(taken, tried, frame["_unit"], days, effect, why))
    return [_paired(system, _Past(taken, tried, frame["_unit"], days, effect, why))]


def _blocks(system: System, frame: pl.DataFrame) -> int:
    return len(np.unique(blocks_of(frame["_time"], system.gate.block)))


def _effect(system: System, answered: bool, taken: Floats, tried: dict[str, Floats]) -> tuple[float | None, str]:
    """The difference worth finding: the declared margin's share of what there is to gain."""
    nothing, always = float(np.nanmean(tried["do nothing"])), float(np.nanmean(tried["always act"]))
    if answered:
        gain, of = float(np.nanmean(taken)) - nothing, "what the champion gains on doing nothing"
    else:
        gain, of = float(np.nanmean(tried["perfect"])) - max(nothing, always), "what perfect decisions would gain on trivial ones"
    effect = system.gate.margin * gain
    if effect > 0:
        return effect, f"{system.gate.margin:.0%} of {of}"
    return None, f"there is no difference to look for: gate.margin is {system.gate.margin:g}, and {of} is {gain:.3g} a prediction"


def _in_days(blocks: int | None, a_day: float) -> int | None:
    return None if blocks is None else ceil(blocks / a_day)


def _paired(system: System, past: _Past) -> Planned:
    """The stand-in that varies least from day to day decides: a challenger is closer to the champion than the trivial policies are."""
    found = []
    for other in ("do nothing", "always act"):
        difference = past.taken - past.tried[other]
        keep = np.isfinite(difference)
        sums, sizes = block_sums(past.days[keep], difference[keep], np.ones(int(keep.sum())))
        means = sums / sizes
        if means.std() > 0:
            found.append((float(means.std(ddof=1)), inflation(means - means.mean())))
    a_day = timedelta(days=1) / duration(system.gate.block)
    asked = pl.DataFrame({"day": past.days, "unit": past.units}).group_by("day").agg(pl.col("unit").n_unique())["unit"]
    spread, k = min(found, default=(0.0, 1.0))
    r, error = (k - 1) / (k + 1), system.rollout.error
    blocks = blocks_needed(spread, past.effect, error=error, autocorrelation=r, prior=arms.PRIOR, power=POWER)
    blocks = None if blocks is None else max(blocks, system.gate.blocks)
    return Planned(
        "shadow, on the same rows, at worst",
        _in_days(blocks, a_day),
        past.effect,
        past.why,
        spread,
        float(asked.to_numpy().mean()) * a_day,
    )


def _arms(system: System, past: _Past) -> list[Planned]:
    """Each canary share: as long as both of its intervals need, that over units and that over days."""
    keep = np.isfinite(past.taken)
    value, names = past.taken[keep], past.units.to_numpy()[keep].astype(str)
    _, day = np.unique(past.days[keep], return_inverse=True)
    _, cell = np.unique(np.char.add(np.char.add(day.astype(str), " "), names), return_inverse=True)
    means = np.bincount(day, value) / np.bincount(day)
    sums, sizes = np.bincount(cell, value - means[day]), np.bincount(cell)
    a_unit, a_block, a_day = (
        float(sums.std() / sizes.mean()),
        len(sums) / len(means),
        timedelta(days=1) / duration(system.gate.block),
    )
    error, made = system.rollout.error * ARMS, []
    for share in tuple(system.rollout.canary) if system.rollout.style != "blue-green" else ():
        spread = a_unit * float(np.sqrt(1 / (a_block * share) + 1 / (a_block * (1 - share))))
        by_day = blocks_needed(spread, past.effect, error=error, prior=arms.PRIOR, power=POWER)
        quantiles = float(special.ndtri(1 - error / looks(system.rollout, system.gate.block) / 2) + special.ndtri(POWER))
        by_unit = ceil((quantiles * spread / past.effect) ** 2)
        blocks = None if by_day is None else max(by_day, by_unit, system.gate.blocks)
        made.append(Planned(f"arms at {share:.0%}", _in_days(blocks, a_day), past.effect, past.why, spread, a_block * a_day))
    return made
