"""Who answers a prediction, and which act is taken: decided by hashes, so that asking twice gives the same answer.

Draws independent of each other, each uniform in [0, 1):

- the *variant* of a unit, salted by the system's name and the rollout's number: sticky within a rollout, drawn anew in the next.
  A unit is the challenger's when its draw is below the share, so whoever is in at 5 % stays in at 25 %;
- with a *switchback* the same of a stretch of time: everything asked in it has one variant;
- the *hold-out* of a unit, salted by the system's name alone: whoever is never acted on stays so;
- the *exploration* of one prediction, by its id.

Propensities are the chances that these draws had of giving what they gave, the hold-out's included: dividing by
them is unbiased over all rows, without knowing which unit was held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.measure import blocks_of, held_out, numeric_policy, uniforms
from noria.system import Decide

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHAMPION = "champion"
CHALLENGER = "challenger"
NOT_ACTING = 0.0


def salted(salt: str) -> Any:
    """The beginning of a draw's hash, to be kept for ``uniform``."""
    return hashlib.sha256(f"{salt}\x1f".encode())


def uniform(start: Any, name: str, *, draw: int = 0) -> float:
    """``uniforms`` of one name, for single rows: the same number.

    >>> bool(uniform(salted("s"), "a") == uniforms(["a"], "s")[0])
    True
    """
    hashed = start.copy()
    hashed.update(name.encode())
    return (int.from_bytes(hashed.digest()[8 * draw : 8 * draw + 8], "big") >> 11) / 2.0**53


def challenged(system: str, rollout: int, units: Sequence[str], share: float) -> Flags:
    """Which units the challenger answers when ``share`` (0 to 1) of them are its own.

    >>> five = challenged("late-flights", 1, ["a", "b", "c", "d"], 0.05)
    >>> quarter = challenged("late-flights", 1, ["a", "b", "c", "d"], 0.25)
    >>> bool((five <= quarter).all())
    True
    """
    if share <= 0 or share >= 1:
        return np.full(len(units), share >= 1)
    return uniforms(units, f"variant\x1f{system}\x1f{rollout}") < share


def stretches(times: pl.Series, length: str) -> list[str]:
    """The name of the stretch of time that each row was asked in: its number on the UTC grid of ``length``, half-open at the start.

    >>> from datetime import UTC, datetime
    >>> noon = datetime(1970, 1, 1, 12, tzinfo=UTC)
    >>> stretches(pl.Series([noon, noon.replace(minute=1)], dtype=pl.Datetime("us", "UTC")), "6h")
    ['1', '2']
    """
    return [str(number) for number in blocks_of(times, length).tolist()]


def switched(system: str, rollout: int, times: pl.Series, length: str, share: float) -> Flags:
    """Which rows the challenger answers when whole stretches of ``length`` are drawn, ``share`` (0 to 1) of them for it.

    >>> from datetime import UTC, datetime, timedelta
    >>> hours = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(1, 5)]
    >>> len(set(switched("late-flights", 1, pl.Series(hours, dtype=pl.Datetime("us", "UTC")), "4h", 0.5).tolist()))
    1
    """
    if share <= 0 or share >= 1:
        return np.full(len(times), share >= 1)
    numbers, place = np.unique(blocks_of(times, length), return_inverse=True)
    drawn = uniforms([str(number) for number in numbers.tolist()], f"switchback\x1f{system}\x1f{rollout}") < share
    return np.asarray(drawn[place])


@dataclass(frozen=True)
class Acts:
    """The act of each row and its propensity; both NaN where a person decides."""

    act: Floats
    propensity: Floats


def acts(system: str, decide: Decide, policy: Floats, ids: Sequence[str], units: Sequence[str]) -> Acts:
    """The acts taken: the policy's (``policy``, an index into ``decide.acts``), but for hold-out and exploration.

    With ``e = decide.explore`` over ``k`` acts and ``h = decide.holdout``, the propensity of act ``a`` is
    ``(1 - h) ((1 - e) [a is the policy's] + e / k) + h [a is not acting]``. Policies whose act is a number (the score itself,
    a quantile) have no other act to try and none that means not acting: they neither explore nor hold out.

    >>> import numpy as np
    >>> acts("s", Decide(), np.array([1.0]), ["a@1"], ["a"])
    Acts(act=array([1.]), propensity=array([1.]))
    """
    if not randomised(decide):
        return Acts(policy, np.where(np.isnan(policy), np.nan, 1.0))
    explore, hold, many = decide.explore, decide.holdout, len(decide.acts)
    act = policy.copy()
    if explore > 0:
        trying = uniforms(ids, f"explore\x1f{system}") < explore
        drawn = np.floor(uniforms(ids, f"explore\x1f{system}", draw=1) * many)
        act = np.where(trying, drawn, act)
    act = np.where(held_out(system, units, hold), NOT_ACTING, act)
    chance = (1 - explore) * (act == policy) + explore / many
    return Acts(act, (1 - hold) * chance + hold * (act == NOT_ACTING))


def done_before(system: str, decide: Decide, policy: Floats, units: Sequence[str]) -> Acts:
    """The acts taken before the first release: ``Decide.before``'s, but for the hold-out; nothing is explored yet.

    The same units are held out as later on, and the propensity of act ``a`` is ``(1 - h) [a is the policy's] + h [a is not acting]``.

    >>> import numpy as np
    >>> made = done_before("s", Decide(holdout=0.25), np.array([1.0, 0.0]), ["b", "c"])
    >>> made.act.tolist(), made.propensity.tolist()
    ([1.0, 0.0], [0.75, 1.0])
    """
    return acts(system, replace(decide, explore=0.0), policy, units, units)


def by_hand(decide: Decide) -> bool:
    """Whether a person decides and the score is advice."""
    return decide.policy.strip() == "human"


def randomised(decide: Decide) -> bool:
    """Whether the policy has acts that can be drawn."""
    return not numeric_policy(decide) and not by_hand(decide)
