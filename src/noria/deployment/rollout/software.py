"""Checks of a rollout that need no labels: refused rows, score parity, and whether the variants got the units they were to get."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict
from noria.deployment.bundles import Bundles, answer
from noria.deployment.live import Rollout
from noria.deployment.routing import CHALLENGER, stretches
from noria.records import Scored
from noria.stats import drawn_as_declared, proportion
from noria.system import System
from noria.tables import SHADOW

if TYPE_CHECKING:
    from noria.store import Home

TOLERANCE = 1e-9
REFUSED = 0.01
RECOMPUTED = 500
LATELY = timedelta(days=3)


def software(home: Home, system: System, rollout: Rollout, bundles: Bundles) -> tuple[Check, ...]:
    """Refused rows and score parity of the last days, and the sample ratio of the whole canary."""
    newest = home.ledger.latest(Scored)
    since = rollout.entered if newest is None else max(rollout.entered, newest.record.window.end - LATELY)
    logged, shadow = home.lake.read("predictions", _time=(since, None)), _shadow(home, since)
    checks = [refusals(rollout, logged, shadow)]
    if rollout.stage != "full":
        checks.append(parity(system, rollout, logged, shadow, bundles))
    if rollout.stage == "canary":
        columns = ["_time", "_unit", "_variant", "_variant_propensity"]
        checks.append(sample_ratio(system, home.lake.read("predictions", columns=columns, _time=(rollout.entered, None))))
    return tuple(checks)


def _shadow(home: Home, since: datetime) -> pl.DataFrame:
    if home.lake.schema("shadow") is None:
        return pl.DataFrame(schema=SHADOW.columns)
    return home.lake.read("shadow", columns=["_id", "_release", "_score"], _time=(since, None))


def refusals(rollout: Rollout, logged: pl.DataFrame, shadow: pl.DataFrame) -> Check:
    """Whether the challenger refuses rows: clearly more than one in a hundred, and clearly more than the champion."""
    name = "refused rows"

    def counted(sha256: str | None) -> tuple[int, int]:
        parts = [frame.filter(pl.col("_release") == sha256)["_score"] for frame in (logged, shadow)] if sha256 else []
        return sum(part.null_count() for part in parts), sum(len(part) for part in parts)

    bad, n = counted(rollout.challenger)
    if n == 0:
        return Check(name, Verdict.NOT_ENOUGH_DATA, detail="the challenger has not been asked yet")
    found = proportion(bad, n)
    usual = proportion(*counted(rollout.champion)).high or 0.0
    bound = max(REFUSED, usual)
    verdict = Verdict.FAIL if found.above(bound) else Verdict.PASS
    return Check(name, verdict, estimate=found, bound=bound, detail=f"{bad} of {n} rows could not be scored")


def parity(system: System, rollout: Rollout, logged: pl.DataFrame, shadow: pl.DataFrame, bundles: Bundles) -> Check:
    """Whether the challenger says again what was logged, from the features that were logged."""
    name = "score parity"
    if rollout.stage == "canary":
        rows = logged.filter(pl.col("_release") == rollout.challenger)
    else:
        said = shadow.filter(pl.col("_release") == rollout.challenger).select("_id", pl.col("_score").alias("_said"))
        rows = logged.join(said, on="_id", how="inner", maintain_order="left").with_columns(_score=pl.col("_said"))
    rows = rows.tail(RECOMPUTED)
    if rows.is_empty():
        return Check(name, Verdict.NOT_ENOUGH_DATA, detail="the challenger has not been asked lately")
    again = answer(system, bundles, rollout.challenger, rows).score
    first = rows["_score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    apart = np.where(np.isnan(again) & np.isnan(first), 0.0, np.abs(again - first))
    differing = int((~(apart <= TOLERANCE)).sum())
    verdict = Verdict.PASS if differing == 0 else Verdict.FAIL
    detail = f"{differing} of {rows.height} scores differ by more than {TOLERANCE:g} when computed again"
    return Check(name, verdict, estimate=Estimate(float(differing), n=rows.height), bound=0.0, detail=detail)


def sample_ratio(system: System, logged: pl.DataFrame, *, name: str = "sample ratio") -> Check:
    """Whether the challenger got the share of the units that was declared; ``logged`` are the rows of one rollout's canary.

    A unit is drawn once, by one number that stays: in at 5 % is in at 25 %. So its first row tells with the chance of the share
    then, and each later share with the chance that is left between the shares where it was seen on either side. A unit that
    does not keep to that is wrong whatever the counts say. With a switchback the stretches of time are the units.
    """
    chance = pl.col("_variant_propensity")
    mine = pl.col("_variant") == CHALLENGER
    share = pl.when(mine).then(chance).otherwise(1 - chance).round(9)
    rows = logged.filter((chance > 0) & (chance < 1)).select("_time", "_unit", share=share, mine=mine)
    if system.rollout.switchback is not None:
        rows = rows.with_columns(_unit=pl.Series(stretches(rows["_time"], system.rollout.switchback), dtype=pl.String))
    seen = rows.group_by("_unit", "share").agg(pl.col("_time").min(), pl.col("mine").any(), both=pl.col("mine").n_unique() > 1)
    seen = seen.sort("_unit", "_time", "share").with_columns(turn=pl.int_range(pl.len()).over("_unit"))
    _, unit = np.unique(seen["_unit"].to_numpy().astype(str), return_inverse=True)
    turns, shares, mine_, both = (seen[column].to_numpy() for column in ("turn", "share", "mine", "both"))
    low, high = np.zeros(seen.height), np.ones(seen.height)  # where each unit's number may lie, by unit
    hits, chances = [np.empty(0)], [np.empty(0)]
    for turn in range(int(turns.max()) + 1 if len(turns) else 0):
        now = turns == turn
        who, here = unit[now], shares[now]
        room = np.maximum(high[who] - low[who], 1e-12)
        left = np.clip((here - low[who]) / room, 0.0, 1.0)
        hits.append(mine_[now].astype(float))
        chances.append(np.where(both[now], 1 - hits[-1], left))  # in both arms at one share cannot be
        high[who] = np.where(mine_[now], np.minimum(high[who], here), high[who])
        low[who] = np.where(mine_[now], low[who], np.maximum(low[who], here))
    return drawn_as_declared(np.concatenate(hits), np.concatenate(chances), name=name)
