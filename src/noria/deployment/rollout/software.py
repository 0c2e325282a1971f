"""Checks of a rollout that need no labels: refused rows, score parity, and whether the variants got the units they were to get."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict
from noria.deployment.bundles import Bundles, answer
from noria.deployment.live import Rollout
from noria.deployment.rollout.rules import LATER
from noria.deployment.routing import CHALLENGER, stretches
from noria.records import Scored
from noria.stats import drawn_as_declared, rate_sequence
from noria.system import System
from noria.tables import SHADOW

if TYPE_CHECKING:
    from noria.store import Home

TOLERANCE = 1e-9
REFUSED = 0.01
REFUSING = LATER / 3  # the part of the declared error that refusals may add in each stage: shadow, canary, full
RECOMPUTED = 500
LATELY = timedelta(days=3)


def software(home: Home, system: System, rollout: Rollout, bundles: Bundles) -> tuple[Check, ...]:
    """Refused rows of the whole stage, score parity of the last days, and the sample ratio of the whole canary."""
    newest = home.ledger.latest(Scored)
    since = rollout.entered if newest is None else max(rollout.entered, newest.record.window.end - LATELY)
    shadow = _shadow(home, rollout.entered)
    asked = home.lake.read("predictions", columns=["_id", "_release", "_score", "_fallback"], _time=(rollout.entered, None))
    checks = [refusals(rollout, asked, shadow, error=system.rollout.error * REFUSING)]
    if rollout.stage != "full":
        checks.append(parity(system, rollout, home.lake.read("predictions", _time=(since, None)), shadow, bundles))
    if rollout.stage == "canary":
        columns = ["_time", "_unit", "_variant", "_variant_propensity"]
        checks.append(sample_ratio(system, home.lake.read("predictions", columns=columns, _time=(rollout.entered, None))))
    return tuple(checks)


def _shadow(home: Home, since: datetime) -> pl.DataFrame:
    if home.lake.schema("shadow") is None:
        return pl.DataFrame(schema=SHADOW.columns)
    return home.lake.read("shadow", columns=["_id", "_release", "_score"], _time=(since, None))


def refusals(rollout: Rollout, logged: pl.DataFrame, shadow: pl.DataFrame, *, error: float) -> Check:
    """Whether the challenger refuses rows: clearly more than one in a hundred, and clearly more than the champion.

    Parameters
    ----------
    logged, shadow:
        Everything that was answered, and said in shadow, since the rollout came into its stage.
    error:
        The chance that the check, in this stage, ever fails a challenger whose rows are refused no more often than one in a hundred or than the
        champion's. The interval of either takes half of it and may be looked at after every row.

    A row that the fallback answered was refused by the release that should have answered. One that stayed with the fallback because an
    earlier one had failed (``sticky``) was asked of nobody and does not count. What a release said in shadow of a row that it also answered
    (the act was left to a person) is the same row.
    """
    name = "refused rows"
    stuck, instead = pl.col("_fallback").str.starts_with("sticky").fill_null(value=False), pl.col("_fallback").is_not_null()
    asked = logged.filter(~stuck)

    def counted(sha256: str | None) -> tuple[int, int]:
        if not sha256:
            return 0, 0
        own = asked.filter(pl.col("_release") == sha256)
        said = shadow.filter(pl.col("_release") == sha256).join(own.select("_id"), on="_id", how="anti")
        bad = own.select((pl.col("_score").is_null() | instead).sum()).item() + said["_score"].null_count()
        return int(bad), own.height + said.height

    bad, n = counted(rollout.challenger)
    if n == 0:
        return Check(name, Verdict.NOT_ENOUGH_DATA, detail="the challenger has not been asked yet")
    found = rate_sequence(bad, n, error=error / 2)
    usual = rate_sequence(*counted(rollout.champion), error=error / 2).high or 0.0
    bound = max(REFUSED, usual)
    verdict = Verdict.FAIL if found.above(bound) else Verdict.PASS
    return Check(name, verdict, estimate=found, bound=bound, detail=f"{bad} of {n} rows could not be scored")


def parity(system: System, rollout: Rollout, logged: pl.DataFrame, shadow: pl.DataFrame, bundles: Bundles) -> Check:
    """Whether the challenger says again what was logged, from the features that were logged.

    Rows of which it said nothing, and those that the fallback answered for it, are the refusals' business: a fault that passes is gone when
    they are computed again.
    """
    name = "score parity"
    if rollout.stage == "canary":
        rows = logged.filter((pl.col("_release") == rollout.challenger) & pl.col("_fallback").is_null())
    else:
        said = shadow.filter(pl.col("_release") == rollout.challenger).select("_id", pl.col("_score").alias("_said"))
        rows = logged.join(said, on="_id", how="inner", maintain_order="left").with_columns(_score=pl.col("_said"))
    rows = rows.filter(pl.col("_score").is_not_null()).tail(RECOMPUTED)
    if rows.is_empty():
        return Check(name, Verdict.NOT_ENOUGH_DATA, detail="the challenger has not scored a row lately")
    again = answer(system, bundles, rollout.challenger, rows).score
    apart = np.abs(again - rows["_score"].cast(pl.Float64).to_numpy())
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
