"""Rollouts read as experiments: what the challenger was worth more than the champion, by intervals that hold however often they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from noria import measure, stats
from noria.business.books import Books, Flags, Floats, Ints
from noria.core import Check, Estimate, Window
from noria.records import Entry, RolloutMoved
from noria.store import Home
from noria.system import System

Names = NDArray[np.str_]

PRIOR = 0.1
TUNED = 1000
LEAST_UNITS = 30
CANARY, ENDED = "canary", ("full", "rolled back", "withdrawn")


class Experiment(msgspec.Struct, frozen=True):
    """One comparison of a rollout. ``how`` is ``arms`` (randomised units, each answered by one of the two) or ``same rows`` (the challenger's acts
    beside the champion's, from the shadow log). ``difference`` is per prediction, positive is the challenger's; ``novelty`` how much more it was in
    the later half of the windows than in the earlier one: a challenger that only was new loses there.
    """

    rollout: int
    how: str
    challenger: str
    champion: str | None
    stage: str
    window: Window
    n: int
    units: tuple[int, int]
    difference: Estimate
    novelty: Estimate
    sample_ratio: Check | None = None


@dataclass(frozen=True)
class _Story:
    """A rollout from its records: from when on it was in shadow and in canary, and until when."""

    first: RolloutMoved
    last: RolloutMoved
    began: datetime
    canary: datetime | None
    ended: datetime | None


def experiments(
    home: Home, system: System, books: Books, window: Window | None = None, *, error: float = 0.05
) -> list[Experiment]:
    """Every rollout that has closed rows within ``window``: between its arms and, where acting does not change the label, on the same rows."""
    made = []
    for story in _stories(home.ledger.read(RolloutMoved)):
        found = [_between(system, books, story, error)]
        if not (system.label.affected_by_action or system.label.observed_when is not None):
            found.append(_same_rows(home, system, story, window, error))
        made += [one for one in found if one is not None]
    return made


def _stories(entries: list[Entry[RolloutMoved]]) -> list[_Story]:
    made = []
    for number in dict.fromkeys(entry.record.rollout for entry in entries):
        own = [entry for entry in entries if entry.record.rollout == number]
        canary = next((entry.at for entry in own if entry.record.stage == CANARY), None)
        ended = next((entry.at for entry in own if entry.record.stage in ENDED), None)
        made.append(_Story(own[0].record, own[-1].record, own[0].at, canary, ended))
    return made


# ----------------------------------------------------------------------------------------------------- randomised arms


def _between(system: System, books: Books, story: _Story, error: float) -> Experiment | None:
    """The rows that were drawn for one arm or the other while both had a share."""
    frame, first = books.frame, story.first
    if frame.is_empty() or story.canary is None:
        return None
    chance, release = pl.col("_variant_propensity"), pl.col("_release").fill_null("")
    drawn = (chance > 0) & (chance < 1) & release.is_in([first.challenger, first.champion or ""])
    while_ = (pl.col("_time") > story.canary) & (pl.lit(True) if story.ended is None else pl.col("_time") <= story.ended)
    rows = frame.select((drawn & while_).fill_null(False).alias("rows"))["rows"].to_numpy()
    rows &= np.isfinite(books.value)
    if not rows.any():
        return None
    part, value, blocks = frame.filter(pl.Series(rows)), books.value[rows], books.blocks[rows]
    mine = (part["_release"].fill_null("") == first.challenger).to_numpy()
    switchback = system.rollout.switchback
    units = (
        measure.blocks_of(part["_time"], switchback).astype(str)
        if switchback
        else part["_unit"].cast(pl.String).fill_null("").to_numpy().astype(str)
    )
    chances = part["_variant_propensity"].cast(pl.Float64).to_numpy()
    share = np.where(mine, chances, 1 - chances)
    step = np.unique(np.round(share, 9), return_inverse=True)[1]
    strata = np.asarray(step if switchback else blocks * (step.max() + 1) + step, np.int64)
    daily = _daily(value, mine, blocks)
    return Experiment(
        rollout=first.rollout,
        how="arms",
        challenger=first.challenger,
        champion=first.champion,
        stage=story.last.stage,
        window=Window(part["_time"][0], part["_time"][-1]),
        n=len(value),
        units=(len(np.unique(units[mine])), len(np.unique(units[~mine]))),
        difference=arms_difference(value, mine, units, strata, error=error, days=None if switchback else blocks),
        novelty=_novelty(*daily),
        sample_ratio=_sample_ratio(units, mine, share),
    )


def arms_difference(
    value: Floats,
    mine: Flags,
    units: Names,
    strata: Ints,
    *,
    error: float = 0.05,
    days: Ints | None = None,
    least_units: int = LEAST_UNITS,
) -> Estimate:
    """The mean value of ``mine`` less that of the others, compared within strata, by an interval that holds at every look.

    It covers two intervals: one with units as the observations (an asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
    2024, "Time-uniform central limit theory and asymptotic confidence sequences", Ann. Statist. 52), which knows that a unit's rows belong
    together; and, given ``days``, one with those as the observations (``stats.mean_sequence``), which knows that a day's rows do. With
    fewer than ``least_units`` units in an arm, or 10 days, there are no bounds. ``n`` counts the units of ``mine``.

    >>> mine, units = np.arange(2000) % 2 == 0, np.arange(2000).astype(str)
    >>> print(arms_difference(np.where(mine, 1.0, 0.5), mine, units, np.arange(2000) // 100, days=np.arange(2000) // 100))
    0.5 [0.4661, 0.5339]
    """
    _, place = np.unique(strata, return_inverse=True)
    own = mine.astype(float)
    n1, n0 = np.bincount(place, own), np.bincount(place, 1 - own)
    weight = np.where((n1 > 0) & (n0 > 0), n1 * n0 / np.maximum(n1 + n0, 1), 0.0)
    if weight.sum() == 0:
        return Estimate(None)
    safe1, safe0 = np.maximum(n1, 1), np.maximum(n0, 1)
    mean1, mean0 = np.bincount(place, value * own) / safe1, np.bincount(place, value * (1 - own)) / safe0
    difference = float((weight * (mean1 - mean0)).sum() / weight.sum())
    middle = np.bincount(place, value) / (n1 + n0)
    moved = (value - middle[place]) * np.where(mine, 1 / safe1[place], -1 / safe0[place]) * weight[place] / weight.sum()
    _, unit = np.unique(units, return_inverse=True)
    spread = float(np.sqrt((np.bincount(unit, moved) ** 2).sum()))
    fewest = min(len(np.unique(unit[mine])), len(np.unique(unit[~mine])))
    n = len(np.unique(unit[mine]))
    if fewest < least_units:
        return Estimate(difference, n=n)
    half = spread * _boundary(fewest, error)
    if days is None:
        return Estimate(difference, difference - half, difference + half, n)
    by_day, sizes = _daily(value, mine, days)
    found = stats.mean_sequence(by_day, error=error, block_weights=sizes, prior=PRIOR)
    if found.low is None or found.high is None:
        return Estimate(difference, n=n)
    return Estimate(difference, min(difference - half, found.low), max(difference + half, found.high), n)


def _boundary(n: int, error: float) -> float:
    """How many standard errors wide a side is after ``n`` units; tightest at about a thousand."""
    tight = (-2 * np.log(error) + np.log(1 - 2 * np.log(error))) / TUNED
    grown = n * tight
    return float(np.sqrt(2 * (grown + 1) / grown * np.log(np.sqrt(grown + 1) / error)))


def _daily(value: Floats, mine: Flags, blocks: Ints) -> tuple[Floats, Floats]:
    """Each block's difference of means and its weight, where both arms are there."""
    own = mine.astype(float)
    n1, n0, sum1, sum0 = stats.block_sums(blocks, own, 1 - own, value * own, value * (1 - own))
    both = (n1 > 0) & (n0 > 0)
    n1, n0, sum1, sum0 = n1[both], n0[both], sum1[both], sum0[both]
    return sum1 / n1 - sum0 / n0, n1 * n0 / (n1 + n0)


def _novelty(differences: Floats, weights: Floats, *, confidence: float = 0.95) -> Estimate:
    """The later half's mean difference less the earlier half's, at 95 %; at least ten blocks in each half."""
    n = len(differences)
    if n < 20:
        return Estimate(None, n=n)
    half = n // 2
    means, errors = [], []
    degrees = float("inf")
    for rows in (slice(0, half), slice(half, n)):
        part, weight = differences[rows], weights[rows]
        mean = float(part @ weight / weight.sum())
        error, free = stats.mean_error((part - mean) * weight / weight.mean())
        means.append(mean)
        errors.append(error)
        degrees = min(degrees, free)
    wide = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * float(np.hypot(errors[0], errors[1]))
    change = means[1] - means[0]
    return Estimate(change, change - wide, change + wide, n)


def _sample_ratio(units: Names, mine: Flags, share: Floats) -> Check:
    """Each unit once at each share: whether the challenger got the part of them that it was to get."""
    keys = np.char.add(np.char.add(units, "\x1f"), np.round(share, 9).astype(str))
    _, first = np.unique(keys, return_index=True)
    return stats.drawn_as_declared(mine[first].astype(float), np.clip(share[first], 0.0, 1.0))


# ------------------------------------------------------------------------------------------------------- on the same rows


def _same_rows(home: Home, system: System, story: _Story, window: Window | None, error: float) -> Experiment | None:
    """The challenger's acts in shadow beside what was done, on the rows that the champion answered."""
    start, end = story.began, story.ended
    if window is not None:
        start = max(start, window.start)
        end = window.end if end is None else min(end, window.end)
    end = end or measure.closed_until(home)
    if end is None or start >= end or measure.numeric_act(system) or system.decide.policy.strip() == "human":
        return None
    known = home.lake.schema("predictions") or {}
    wanted = ("_unit", "_score", "_act", "_release", *measure.columns_read(system.objective.value.sql))
    columns = [name for name in dict.fromkeys(wanted) if name in known]
    frame = measure.closed(home, system, Window(start, end), columns=columns, shadow_of=story.first.challenger)
    frame = frame.filter(pl.col("_release").fill_null("") == (story.first.champion or ""))
    if frame.is_empty():
        return None
    label = frame["_class"].to_numpy() if system.task == "multiclass" else measure.numbers_of(frame["_label"])
    mine = measure.value(
        home.engine,
        system,
        frame,
        np.nan_to_num(measure.numbers_of(frame["_shadow_act"])),
        label,
        measure.numbers_of(frame["_shadow_score"]),
    )
    done = measure.value(
        home.engine, system, frame, np.nan_to_num(measure.numbers_of(frame["_act"])), label, measure.numbers_of(frame["_score"])
    )
    keep = np.isfinite(mine - done)
    if not keep.any():
        return None
    blocks = measure.blocks_of(frame["_time"], system.every)
    sums, sizes = stats.block_sums(blocks[keep], (mine - done)[keep], np.ones(int(keep.sum())))
    found = stats.mean_sequence(sums / sizes, error=error, block_weights=sizes, prior=PRIOR)
    units = len(frame["_unit"].unique())
    return Experiment(
        rollout=story.first.rollout,
        how="same rows",
        challenger=story.first.challenger,
        champion=story.first.champion,
        stage=story.last.stage,
        window=Window(frame["_time"][0], frame["_time"][-1]),
        n=int(keep.sum()),
        units=(units, units),
        difference=found,
        novelty=_novelty(sums / sizes, sizes),
    )
