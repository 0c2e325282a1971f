"""What another decision policy would have made on closed predictions: by pairing where the label says it, and from the log's propensities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Estimate, NotEnoughData
from noria.measure.outcomes import blocks_of
from noria.measure.tally import numbers_of
from noria.measure.value import Floats, known_labels, numeric_act, value
from noria.stats import OffPolicy, block_mean, off_policy, support
from noria.system import System

if TYPE_CHECKING:
    from noria.store.engine import Engine


class OtherPolicy(msgspec.Struct, frozen=True):
    """What another policy would have made per prediction, beside what was made.

    ``n`` rows count; ``left_out`` have no act of ours, or no chance that it was taken with (before the first release, a person decided).
    ``differs`` is the share of the rows on which the other policy acts otherwise. ``paired`` values the other act by the label that came,
    ``paired_gain`` its difference from what was made: both exact, and ``None`` where acting decides what the label is or whether it is seen.
    ``log`` is what the propensities say; ``None`` where an act is an amount, which no other chance could have drawn.
    """

    n: int
    left_out: int
    differs: float
    on_policy: Estimate
    paired: Estimate | None
    paired_gain: Estimate | None
    log: OffPolicy | None


def other_policy(
    engine: Engine,
    system: System,
    frame: pl.DataFrame,
    other: Floats,
    *,
    worth: Floats | None = None,
    clip: float | None = None,
) -> OtherPolicy:
    """The value of acting as ``other`` says, per prediction.

    Parameters
    ----------
    frame:
        Rows of ``closed``, with ``_score``, ``_act``, ``_act_propensity`` and what the value reads.
    other:
        The other policy's act of each row (an index into ``Decide.acts``, or an amount), without exploration.
    worth:
        (n, acts): what a model expected of each act before it was taken (``worth_of_acts``), for the doubly robust estimate. A row without
        counts as 0, which is as unbiased as any guess.
    clip:
        The largest weight; ``None``: none is cut.

    Blocks, their least number and the confidence are the gate's. Raises ``NotEnoughData`` when no row has an act with its propensity.
    """
    act, chance = numbers_of(frame["_act"]), numbers_of(frame["_act_propensity"])
    there = np.isfinite(act) & (chance > 0) & np.isfinite(other)
    if not there.any():
        raise NotEnoughData(
            "no closed prediction has an act with the chance that it was taken with",
            hint="run `noria labels` to see how mature they are; where people decide there are no such chances",
        )
    rows = frame.filter(pl.Series(there))
    act, chance, other = act[there], chance[there], np.asarray(other, float)[there]
    made, blocks = rewards(engine, system, rows, act), blocks_of(rows["_time"], system.gate.block)
    confidence, least = system.gate.confidence, system.gate.blocks
    paired = gain = None
    if exact(system):
        twin = rewards(engine, system, rows, other)
        paired = block_mean(twin, blocks, confidence=confidence, least=least)
        gain = block_mean(twin - made, blocks, confidence=confidence, least=least)
    found = None
    if not numeric_act(system):
        guess = None if worth is None else np.nan_to_num(np.asarray(worth, float)[there], posinf=0.0, neginf=0.0)
        places = np.arange(len(act))
        found = off_policy(
            made,
            (act == other).astype(float),
            chance,
            blocks,
            predicted=None if guess is None else guess[places, act.astype(int)],
            predicted_target=None if guess is None else guess[places, other.astype(int)],
            supported=support(_chosen(other, len(system.decide.acts)), possible(system, act, chance)),
            clip=clip,
            confidence=confidence,
            least=least,
        )
    on_policy = block_mean(made, blocks, confidence=confidence, least=least)
    return OtherPolicy(len(act), int((~there).sum()), float((act != other).mean()), on_policy, paired, gain, found)


def exact(system: System) -> bool:
    """Whether the label that came says what any other act would have brought."""
    return not system.label.affected_by_action and system.label.observed_when is None


def possible(system: System, act: Floats, chance: Floats) -> NDArray[np.bool_]:
    """(n, acts): which acts had a chance on each row, as far as the logged act and its propensity tell.

    An act of propensity 1 was the only one. Below 1, of two acts the other had the rest; of more, exploration gives each a share, but
    a hold-out alone only says that not acting was possible.

    >>> from noria import Decide, Label, Objective, Source, Value
    >>> asked = Source("asked", key="id", owner="us")
    >>> system = System("s", asked, Label(asked, "done", within="1h"), [], Objective("", Value("0"), "brier"), [], Decide(holdout=0.1))
    >>> possible(system, np.array([1.0, 0.0]), np.array([0.9, 1.0])).tolist()
    [[True, True], [True, False]]
    """
    acts = len(system.decide.acts)
    drawn = chance < 1
    found = _chosen(act, acts) > 0
    if acts == 2 or system.decide.explore > 0:
        found |= drawn[:, None]
    else:
        found[:, 0] |= drawn
    return found


def rewards(engine: Engine, system: System, frame: pl.DataFrame, act: Floats) -> Floats:
    """What each act brought, also where the label is missing but could not have mattered (an ad that was not shown costs nothing)."""
    label: NDArray[Any]
    label = np.array(frame["_class"].to_list(), dtype=object) if system.task == "multiclass" else numbers_of(frame["_label"])
    score = numbers_of(frame["_score"])
    made = value(engine, system, frame, act, label, score)
    blind = ~known_labels(system, label)
    if system.task != "binary" or not blind.any():
        return made
    rows = frame.filter(pl.Series(blind))
    no, yes = (value(engine, system, rows, act[blind], np.full(rows.height, side), score[blind]) for side in (0.0, 1.0))
    made[blind] = np.where(no == yes, no, np.nan)
    return made


def _chosen(act: Floats, acts: int) -> Floats:
    """(n, acts): 1 for the act of each row."""
    return np.asarray(act[:, None] == np.arange(acts), float)
