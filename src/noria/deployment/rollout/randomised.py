"""The arms of a canary compared: units, or whole stretches of time, fell to them by a draw that was logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from noria.core import Check, Estimate, Verdict, duration
from noria.deployment.bundles import fallback
from noria.deployment.live import Rollout
from noria.deployment.rollout import arms
from noria.deployment.rollout.rules import UNKNOWN
from noria.deployment.rollout.software import sample_ratio
from noria.deployment.rollout.worth import Floats, numbers, worth_as_taken
from noria.deployment.routing import CHALLENGER, stretches
from noria.measure import blocks_of
from noria.system import Rollout as Rules
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

LOST = 0.001
"""The error of the checks at closing, over a whole rollout."""


@dataclass(frozen=True)
class Arms:
    """What the arms say: the value difference, the closed units of the challenger, the champion's mean value (for a margin), the chance that the
    challenger is worth more, the checks at closing, and how many of ``n`` values were clipped."""

    difference: Estimate = UNKNOWN
    units: int = 0
    gain: float = 0.0
    better: float | None = None
    checks: tuple[Check, ...] = ()
    outside: int = 0
    n: int = 0
    removed: float = 0.0


def looks(rules: Rules, block: str) -> int:
    """The most times that the arms can be looked at: once a block, at each share until patience ends.

    >>> looks(Rules(canary=(0.05, 0.25), patience="56d"), "1d"), looks(Rules(style="bandit", patience="56d"), "1d")
    (112, 56)
    """
    shares = 1 if rules.style == "bandit" else max(1, len(rules.canary))
    return max(1, shares * int(duration(rules.patience) / duration(block)))


def compare(home: Home, system: System, rollout: Rollout, frame: pl.DataFrame, *, error: float, cautious: bool) -> Arms:
    """Compares the arms on the closed rows of a rollout's canary.

    ``cautious``: the difference has to hold with days as the observations too, because it promotes and does not only veto. With a switchback
    a day has no two arms to compare; the stretches are the observations.
    """
    chance, champion = pl.col("_variant_propensity"), rollout.champion or ""
    frame = frame.filter((chance > 0) & (chance < 1) & pl.col("_release").is_in([champion, rollout.challenger]))
    if frame.is_empty():
        return Arms()
    act, score = fallback(system, numbers(frame["_act"])), numbers(frame["_score"])
    value, outside, unseen = worth_as_taken(home, system, frame, act, score)
    mine = (frame["_variant"] == CHALLENGER).to_numpy()
    days = blocks_of(frame["_time"], system.gate.block)
    own = frame["_variant_propensity"].to_numpy()
    _, step = np.unique(np.round(np.where(mine, own, 1 - own), 9), return_inverse=True)
    switchback = system.rollout.switchback
    units = np.array(stretches(frame["_time"], switchback)) if switchback else frame["_unit"].to_numpy().astype(str)
    strata = step if switchback else days * (step.max() + 1) + step
    plain = value
    value, removed = arms.adjusted(value, covariate(home, system, rollout, frame), mine, units, strata)
    found = arms.between(value, mine, units, strata, error=error, looks=looks(system.rollout, system.gate.block))
    if cautious and not switchback:
        found = arms.widest(found, arms.daily(value, mine, days, error=error, least=system.gate.blocks))
    theirs = plain[~mine & np.isfinite(plain)]
    return Arms(
        difference=found,
        units=len(np.unique(units[mine])),
        gain=max(0.0, float(theirs.mean())) if len(theirs) else 0.0,
        better=arms.better_arm(value, mine, units, strata, None if switchback else days, least=system.gate.blocks),
        checks=closing(system, frame, plain, unseen | ~np.isfinite(act), mine, units, strata),
        outside=outside,
        n=int(np.isfinite(plain).sum()),
        removed=removed,
    )


def covariate(home: Home, system: System, rollout: Rollout, frame: pl.DataFrame) -> Floats:
    """What was known of each row before anybody acted: as declared, else the champion's score (the challenger's, when there is no champion).

    Both arms have it: whoever did not answer scored in shadow.
    """
    declared = system.rollout.covariate
    if declared is not None:
        query = f"select cast(({declared}) as double) as x from rows order by _place"
        rows = frame.with_columns(_place=pl.int_range(pl.len()))
        return numbers(home.engine.sql(query, rows=rows)["x"])
    reference = rollout.champion or rollout.challenger
    said = np.where((frame["_release"] == reference).to_numpy(), numbers(frame["_score"]), np.nan)
    if home.lake.schema("shadow") is None:
        return said
    shadow = home.lake.read("shadow", columns=["_id", "_release", "_score"], _time=(rollout.entered, None))
    shadow = shadow.filter(pl.col("_release") == reference).select("_id", pl.col("_score").alias("_quiet"))
    quiet = frame.select("_id").join(shadow, on="_id", how="left", maintain_order="left")["_quiet"]
    return np.where(np.isfinite(said), said, numbers(quiet))


def closing(  # noqa: PLR0917  columns of the same rows
    system: System, frame: pl.DataFrame, value: Floats, unseen: arms.Flags, mine: arms.Flags, units: arms.Names, strata: arms.Ints
) -> tuple[Check, ...]:
    """Whether the arms have lost outcomes unequally: units of closed rows against the shares, and rows without a value.

    Fair when they were assigned and not when they were closed means that what happened in one arm does not come back. Where labels may
    be censored the acts can have done that, which is no fault, and yet the arms cannot be compared then. ``unseen`` are rows that have no
    outcome to lose: what was not shown, and what nobody acted on.
    """
    there = np.isfinite(value) | unseen
    checks = [sample_ratio(system, frame.filter(pl.Series(there)), name="sample ratio at closing")]
    if not there.all():
        lost = (~there).astype(float)
        found = arms.between(lost, mine, units, strata, error=LOST, looks=looks(system.rollout, system.gate.block))
        verdict = Verdict.FAIL if found.above(0.0) or found.below(0.0) else Verdict.PASS
        sides = (
            f"{int(lost[side].sum())} of the {whose} {int(side.sum())} rows"
            for side, whose in ((mine, "challenger's"), (~mine, "champion's"))
        )
        checks.append(Check("lost outcomes", verdict, estimate=found, bound=0.0, detail=f"no value: {' and '.join(sides)}"))
    blind = int((unseen & ~np.isfinite(value)).sum())
    if blind and system.label.observed_when is not None:
        detail = f"the value of {blind} of {len(value)} rows depends on a label that their act left unseen: the arms cannot be compared"
        checks.append(Check("rows that were not shown", Verdict.NOT_ENOUGH_DATA, detail=detail))
    if system.label.censored_when is None:
        return tuple(checks)
    randomised = system.label.affected_by_action or system.label.observed_when is not None
    instead = Verdict.NOT_ENOUGH_DATA if randomised else Verdict.NOT_MEASURED
    return tuple(
        Check(c.name, instead if c.verdict is Verdict.FAIL else c.verdict, c.subject, c.estimate, c.bound, c.detail)
        for c in checks
    )
