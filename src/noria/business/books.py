"""The closed rows of a time with what each was worth: what value is split by, once, for every question of one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.business.account import realised
from noria.business.incremental import policies_by_propensity
from noria.core import Window
from noria.store import Home
from noria.system import System

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

LOGGED = ("_unit", "_variant", "_variant_propensity", "_score", "_act", "_act_propensity", "_release")


@dataclass(frozen=True)
class Books:
    """Rows in order of time: ``value`` and each policy's value have NaN where it is not known; ``blocks`` number the windows."""

    system: System
    frame: pl.DataFrame
    value: Floats
    policies: dict[str, Floats]
    blocks: Ints

    @property
    def released(self) -> Flags:
        """Which rows some release answered."""
        return (self.frame["_release"].fill_null("") != "").to_numpy()

    def of(self, name: str, rows: Flags) -> Floats:
        """A reference policy's value of the chosen rows; where it is estimated by weights, weighted among them alone."""
        if not self.system.label.affected_by_action:
            return self.policies[name][rows]
        part, value = self.frame.filter(pl.Series(rows)), self.value[rows]
        act = part["_act"].cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()
        found = policies_by_propensity(part, self.system.decide, act, value)
        return found.get(name, np.full(len(value), np.nan))


def books(home: Home, system: System, window: Window | None, columns: Sequence[str] = ()) -> Books:
    """One query over the closed rows asked within ``window``, with ``columns`` of the predictions besides."""
    known = home.lake.schema("predictions") or {}
    wanted = dict.fromkeys((*LOGGED, *measure.columns_read(system.objective.value.sql), *columns))
    frame = measure.closed(home, system, window, columns=[name for name in wanted if name in known])
    value, policies = realised(home, system, frame)
    blocks = measure.blocks_of(frame["_time"], system.every) if frame.height else np.empty(0, np.int64)
    if not system.label.affected_by_action:
        policies |= best_fixed(system, frame, policies)
    return Books(system, frame, value, policies, blocks)


def best_fixed(system: System, frame: pl.DataFrame, policies: dict[str, Floats]) -> dict[str, Floats]:
    """The best fixed policy in hindsight: never acting, always acting, or acting above that score which these very rows show to be best.

    It is chosen on the rows that it is valued on, those that a release answered, so it is more than anybody could have had: what is left up to it is what the
    decisions' threshold may cost.
    """
    nothing, always = policies.get("do nothing"), policies.get("always act")
    if nothing is None or always is None or frame.is_empty():
        return {}
    released = (frame["_release"].fill_null("") != "").to_numpy()
    nothing, always = np.where(released, nothing, np.nan), np.where(released, always, np.nan)
    gain = always - nothing
    if system.task != "binary" or measure.numeric_act(system):
        return {"best fixed": always if np.nansum(gain) > 0 else nothing}
    score = measure.numbers_of(frame["_score"])
    order = np.argsort(np.where(np.isfinite(score), -score, np.inf), kind="stable")
    ranked = score[order]
    reach = np.cumsum(np.nan_to_num(gain[order]))
    ends = np.append(ranked[1:] != ranked[:-1], True) & np.isfinite(ranked)
    places = np.flatnonzero(ends)
    best = places[int(np.argmax(reach[places]))] if len(places) else -1
    if max(reach[best] if best >= 0 else 0.0, 0.0, float(np.nansum(gain))) <= 0:
        return {"best fixed": nothing}
    if best < 0 or float(np.nansum(gain)) >= reach[best]:
        return {"best fixed": always}
    return {"best fixed": np.where(score >= ranked[best], always, nothing)}
