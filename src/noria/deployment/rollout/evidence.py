"""What closed cohorts and the logs say about a rollout. Reads tables, decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Check, Estimate, NoriaError, Verdict, Window, duration, floor
from noria.deployment.bundles import Bundles, answer, decision_of, fallback, policy_act
from noria.deployment.live import Rollout
from noria.deployment.rollout import arms
from noria.deployment.rollout.rules import Evidence, Terms
from noria.deployment.routing import CHALLENGER, NOT_ACTING
from noria.measure import blocks_of, closed, columns_read, value
from noria.records import Scored
from noria.stats import proportion, sample_ratio
from noria.system import System
from noria.tables import SHADOW

if TYPE_CHECKING:
    from noria.store import Home

Floats = NDArray[np.float64]

TOLERANCE = 1e-9
REFUSED = 0.01
RECOMPUTED = 500
LATELY = timedelta(days=3)
LATER = 0.25  # the part of the declared error that each later veto may add: the arms, a canary step's own days, the guard of a release
_LOGGED = ("_unit", "_variant", "_variant_propensity", "_release", "_score", "_scores", "_act")


def terms(system: System, bundles: Bundles, rollout: Rollout) -> Terms:
    """What this rollout has to show: a costlier recipe, or the first model, has to be superior."""
    superior = rollout.champion is None
    if rollout.champion is not None:
        try:
            superior = bundles.get(rollout.challenger).spec.cost > bundles.get(rollout.champion).spec.cost
        except NoriaError:
            superior = True  # a bundle that cannot be read is no refit; that it refuses rows is seen elsewhere
    randomised = system.label.affected_by_action or system.label.observed_when is not None
    return Terms(system.rollout, superior, randomised)


def gather(home: Home, system: System, rollout: Rollout, known: datetime, bundles: Bundles) -> Evidence:
    """The evidence with everything closed up to ``known``. Blocks that are not whole yet are left out."""
    wanted = terms(system, bundles, rollout)
    block = duration(system.gate.block)
    start = rollout.moved if rollout.stage == "full" else rollout.began
    span = Window(start, max(start, floor(known, block)))
    paired, lately, margin = Estimate(None), Estimate(None), 0.0
    if wanted.randomised:
        frame = _asked(home, system, rollout, span)
    elif rollout.stage != "canary" and span.length <= (system.gate.blocks - 1) * block:
        frame = None  # fewer blocks than give an interval: nothing to look at yet
    else:
        twins = _twins(home, system, rollout, span, bundles)
        frame = pl.concat([some.frame for some in twins], how="diagonal_relaxed") if twins else None
        paired, lately, margin = _paired(home, system, rollout, twins)
    between, units, gain = Estimate(None), 0, 0.0
    if rollout.stage == "canary" and frame is not None:
        between, units, gain = _between(home, system, rollout, frame, cautious=wanted.randomised)
    return Evidence(
        waited=max(known - rollout.moved, timedelta(0)),
        margin=system.gate.margin * gain if wanted.randomised else margin,
        paired=paired,
        lately=lately,
        arms=between,
        software=software(home, system, rollout, bundles),
        units=units,
    )


# ------------------------------------------------------------------------------------------------- on the same rows


@dataclass(frozen=True)
class _Twins:
    """Rows with both models' acts and scores."""

    frame: pl.DataFrame
    challenger: tuple[Floats, Floats]
    champion: tuple[Floats, Floats]


def _paired(home: Home, system: System, rollout: Rollout, both: list[_Twins]) -> tuple[Estimate, Estimate, float]:
    """The paired value difference since the rollout began, and of this canary step alone; and the margin of not being inferior.

    The margin is a share of what the champion gains on doing nothing, on the same rows.
    """
    differences, gains, days, fresh = [], [], [], []
    for twins in both:
        frame, label = twins.frame, _labels(system, twins.frame)
        mine = value(home.engine, system, frame, twins.challenger[0], label, twins.challenger[1])
        other = value(home.engine, system, frame, twins.champion[0], label, twins.champion[1])
        nothing = value(home.engine, system, frame, np.full(frame.height, NOT_ACTING), label)
        differences.append(mine - other)
        gains.append(other - nothing)
        days.append(blocks_of(frame["_time"], system.gate.block))
        fresh.append((frame["_time"] > rollout.moved).to_numpy())
    if not differences:
        return Estimate(None), Estimate(None), 0.0
    difference, gain, day, new = (np.concatenate(some) for some in (differences, gains, days, fresh))
    error, least = system.rollout.error, system.gate.blocks
    found = arms.paired(difference, day, error=error * (LATER if rollout.stage == "full" else 1.0), least=least)
    lately = Estimate(None)
    if rollout.stage == "canary":
        lately = arms.paired(difference[new], day[new], error=error * LATER, least=least)
    known = np.isfinite(difference) & np.isfinite(gain)
    return found, lately, system.gate.margin * max(0.0, float(gain[known].mean())) if known.any() else 0.0


def _twins(home: Home, system: System, rollout: Rollout, span: Window, bundles: Bundles) -> list[_Twins]:
    """Both directions: where the champion answered and the challenger shadowed, and the other way round."""
    found: list[_Twins] = []
    if span.end <= span.start:
        return found
    columns = _columns(home, system)
    quiet = closed(home, system, span, columns=columns, shadow_of=rollout.challenger)
    quiet = quiet.filter(pl.col("_release") == (rollout.champion or ""))
    if quiet.height:
        found.append(_Twins(quiet, _shadowed(system, quiet), _answered(system, rollout.champion, quiet, bundles)))
    if rollout.stage == "shadow":
        return found
    loud = closed(home, system, span, columns=columns, shadow_of=rollout.champion)
    loud = loud.filter(pl.col("_release") == rollout.challenger)
    if loud.height:
        other = _shadowed(system, loud) if rollout.champion is not None else _nothing(loud)
        found.append(_Twins(loud, _answered(system, rollout.challenger, loud, bundles), other))
    return found


def _shadowed(system: System, frame: pl.DataFrame) -> tuple[Floats, Floats]:
    act = frame["_shadow_act"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return fallback(system, act), frame["_shadow_score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _answered(system: System, sha256: str | None, frame: pl.DataFrame, bundles: Bundles) -> tuple[Floats, Floats]:
    """What the policy says to the logged scores: the logged act may have been drawn by exploration or the hold-out."""
    if sha256 is None:
        return _nothing(frame)
    score = frame["_score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    raw = score
    if system.task == "multiclass":
        lists = frame["_scores"].to_list()
        width = next((len(some) for some in lists if some is not None), 1)
        raw = np.array([some if some is not None else [np.nan] * width for some in lists], float)
    try:
        decision = decision_of(bundles.get(sha256))
    except NoriaError:
        return _nothing(frame)
    return policy_act(bundles, system, decision, raw, frame), score


def _nothing(frame: pl.DataFrame) -> tuple[Floats, Floats]:
    return np.full(frame.height, NOT_ACTING), np.full(frame.height, np.nan)


def _columns(home: Home, system: System) -> list[str]:
    """The columns of the predictions that valuing and deciding need."""
    there = home.lake.schema("predictions") or {}
    return [*_LOGGED, *(name for name in columns_read(system.objective.value.sql) if name in there)]


def _labels(system: System, frame: pl.DataFrame) -> NDArray[Any]:
    if system.task == "multiclass":
        return np.array(frame["_class"].to_list(), dtype=object)
    return frame["_label"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


# --------------------------------------------------------------------------------------------- between randomised units


def _asked(home: Home, system: System, rollout: Rollout, span: Window) -> pl.DataFrame | None:
    """The closed rows of a rollout's canary, whoever answered."""
    if rollout.stage != "canary" or span.end <= span.start:
        return None
    return closed(home, system, span, columns=_columns(home, system))


def _between(home: Home, system: System, rollout: Rollout, frame: pl.DataFrame, *, cautious: bool) -> tuple[Estimate, int, float]:
    """The arms' difference, the challenger's closed units, and the champion's mean value (for a margin).

    ``cautious``: the difference has to hold with days as the observations too, because it promotes and does not only veto.
    """
    chance, champion = pl.col("_variant_propensity"), rollout.champion or ""
    frame = frame.filter((chance > 0) & (chance < 1) & pl.col("_release").is_in([champion, rollout.challenger]))
    if frame.is_empty():
        return Estimate(None), 0, 0.0
    act = fallback(system, frame["_act"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    score = frame["_score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    worth = value(home.engine, system, frame, act, _labels(system, frame), score)
    mine = (frame["_variant"] == CHALLENGER).to_numpy()
    share = np.where(mine, frame["_variant_propensity"].to_numpy(), 1 - frame["_variant_propensity"].to_numpy())
    days = blocks_of(frame["_time"], system.gate.block)
    _, step = np.unique(np.round(share, 9), return_inverse=True)
    strata = days * (step.max() + 1) + step
    error = system.rollout.error * LATER
    looks = max(1, int(duration(system.rollout.patience) / duration(system.gate.block)))
    found = arms.between(worth, mine, frame["_unit"].to_numpy().astype(str), strata, error=error, looks=looks)
    if cautious:
        found = arms.widest(found, arms.daily(worth, mine, days, error=error, least=system.gate.blocks))
    theirs = worth[~mine & np.isfinite(worth)]
    return found, frame.filter(pl.Series(mine))["_unit"].n_unique(), max(0.0, float(theirs.mean())) if len(theirs) else 0.0


# ---------------------------------------------------------------------------------------------- what needs no labels


def software(home: Home, system: System, rollout: Rollout, bundles: Bundles) -> tuple[Check, ...]:
    """Refused rows and score parity of the last days, and the sample ratio of the whole canary step."""
    newest = home.ledger.latest(Scored)
    since = rollout.moved if newest is None else max(rollout.moved, newest.record.window.end - LATELY)
    logged, shadow = home.lake.read("predictions", _time=(since, None)), _shadow(home, since)
    checks = [refusals(rollout, logged, shadow)]
    if rollout.stage != "full":
        checks.append(parity(system, rollout, logged, shadow, bundles))
    if rollout.stage == "canary":
        units = home.lake.read("predictions", columns=["_unit", "_variant"], _time=(rollout.moved, None))
        checks.append(ratio(rollout, units))
    return tuple(checks)


def _shadow(home: Home, since: datetime) -> pl.DataFrame:
    if home.lake.schema("shadow") is None:
        return pl.DataFrame(schema=SHADOW.columns)
    return home.lake.read("shadow", columns=["_id", "_release", "_score"], _time=(since, None))


def ratio(rollout: Rollout, logged: pl.DataFrame) -> Check:
    """Whether the units of this step fell to the variants in the declared shares; a unit counts once."""
    seen = logged.group_by("_variant").agg(pl.col("_unit").n_unique().alias("units"))
    counts = dict(zip(seen["_variant"].to_list(), seen["units"].to_list(), strict=True))
    return sample_ratio([counts.get(CHALLENGER, 0), counts.get("champion", 0)], [rollout.share, 1 - rollout.share])


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
