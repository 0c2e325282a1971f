"""What answers when the model cannot: not acting, the champion before, or a rule; and who keeps that answer for a while.

A row that the fallback answers has no score: its log says which release should have answered, what the fallback did, and why
(``error: previous``). It counts as refused, so a release that fails is taken back by its own rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Any

import polars as pl

from noria import features as feature_room
from noria.core import NoriaError, micros
from noria.deployment import degrees, routing
from noria.deployment.bundles import Bundles, decision_of
from noria.deployment.live import Live
from noria.deployment.log import Frames, Row
from noria.deployment.routing import CHAMPION, NOT_ACTING
from noria.deployment.scoring import FIXED, units, with_context
from noria.deployment.service.ruling import Asked, Voice
from noria.features.rowwise import Rowwise
from noria.measure.single import single_act
from noria.system import Rule, System
from noria.tables import PREDICTIONS, SHADOW, TIME

if TYPE_CHECKING:
    from noria.deployment.service.lookup import Lookup

MOST_STICKY = 100_000


class Sticky:
    """The units that keep getting the fallback's answer for a while, so that nobody's answers flicker."""

    def __init__(self, seconds: float) -> None:
        self._length = int(seconds * 1e6)
        self._until: dict[str, int] = {}

    def hold(self, unit: str, at: int) -> None:
        """From ``at`` (µs) on, for the declared time."""
        if self._length:
            if len(self._until) >= MOST_STICKY:
                self._until = {name: until for name, until in self._until.items() if until > at}
            self._until[unit] = at + self._length

    def holds(self, unit: str, at: int) -> bool:
        """Whether the fallback answers this unit without asking the model."""
        if not self._until or unit not in self._until:
            return False
        if self._until[unit] > at:
            return True
        del self._until[unit]
        return False


class Fallback:
    """The declared fallback under one state of releases."""

    def __init__(self, system: System, live: Live, bundles: Bundles, lookup: Lookup) -> None:
        self._system, self._names = system, lookup.names
        self._champion = live.champion or ""
        self._nothing = NOT_ACTING if routing.randomised(system.decide) else None
        self.name, self._decide = self._made(live, bundles, lookup)

    def _made(self, live: Live, bundles: Bundles, lookup: Lookup) -> tuple[str, Callable[[Asked], float | None]]:
        declared = self._system.serve.fallback
        if isinstance(declared, Rule):
            return declared.name, self._rule(declared, live, bundles, lookup)
        if declared == "previous" and live.previous:
            with suppress(NoriaError, LookupError):
                voice = Voice(self._system, bundles, live.previous, lookup.names, lookup.ways)
                return "previous", lambda asked: _act(voice, asked)
        return "nothing", lambda _asked: self._nothing

    def _rule(self, rule: Rule, live: Live, bundles: Bundles, lookup: Lookup) -> Callable[[Asked], float | None]:
        """The rule's score, decided as the champion's would be, or at one half without one."""
        score = Rowwise([("rule", rule.expression)], lookup.ways.types)
        act = None
        if live.champion:
            with suppress(NoriaError):
                decision = decision_of(bundles.get(live.champion))
                act = single_act(self._system, decision, compile=lookup.ways.compile, types=lookup.ways.types)

        def decide(asked: Asked) -> float | None:
            row = {**asked.row, **dict(zip(self._names, asked.values, strict=False))}
            made = score(row)[0]
            if made is None:
                return self._nothing
            return act(float(made), row) if act is not None else float(float(made) > 0.5)

        return decide

    def instead(self, row: Row, asked: Asked, why: str) -> Row:
        """``row`` with the fallback's act. Where people decide, they go on deciding."""
        said = f"{why}: {self.name}"
        if degrees.is_open(self._system, None, None):
            return row._replace(fallback=said, score=None, scores=None, act=None, review=degrees.asks(self._system))
        try:
            act = self._decide(asked)
        except Exception:  # what answers for a failure must not fail
            act, said = self._nothing, f"{why}: nothing"
        if act is None or isnan(act):
            act = self._nothing
        return row._replace(fallback=said, score=None, scores=None, act=act, act_propensity=None if act is None else 1.0)

    # ---------------------------------------------------------------------------------------------------- many rows

    def frames(self, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime, why: str) -> Frames:
        """The rows of the tables when nothing came of the long way. Features that were not computed are not there."""
        kinds = [(name, pl.Float64 if kind == "Float64" else pl.String) for name, kind in self._kinds(known)]
        values = (
            known
            if known is not None
            else pl.DataFrame({"_id": spine["_id"]} | {n: pl.Series([None] * spine.height, dtype=k) for n, k in kinds})
        )
        rows = with_context(self._system, spine, values)
        blank = rows.with_columns(
            units(self._system, spine),
            pl.lit(feature_room.plan(self._system).id).alias("_features"),
            pl.lit(CHAMPION).alias("_variant"),
            pl.lit(1.0).alias("_variant_propensity"),
            pl.lit(self._champion).alias("_release"),
            pl.lit(False).alias("_review"),
            pl.lit(now, dtype=TIME).alias("_scored_at"),
            *(pl.lit(None).alias(name) for name in ("_score", "_scores", "_act", "_act_propensity", "_fallback")),
        )
        rest = [name for name in blank.columns if name not in FIXED and blank.schema[name] != pl.Null]
        frame = blank.select(*(pl.col(name).cast(kind) for name, kind in PREDICTIONS.columns.items()), *rest)
        return self.mended(Frames(frame, pl.DataFrame(schema=SHADOW.columns), 0), spine, why, everything=True)

    def _kinds(self, known: pl.DataFrame | None) -> Sequence[tuple[str, str]]:
        return () if known is not None else [(name, "Float64") for name in self._names]

    def mended(self, made: Frames, spine: pl.DataFrame, why: str = "error", *, everything: bool = False) -> Frames:
        """The frames with the fallback's acts where a model refused (or on all rows)."""
        frame = made.predictions
        refused = (pl.col("_score").is_null() & (pl.col("_release") != "")) if not everything else pl.lit(True)
        places = frame.select(refused.alias("r"))["r"]
        if not everything and not places.any():
            return made
        if places.len() == 1 and frame.height > 1:
            places = pl.Series([True] * frame.height)
        own = {row["_id"]: row for row in spine.iter_rows(named=True)}
        acts, chances, said, reviews = (frame[name].to_list() for name in ("_act", "_act_propensity", "_fallback", "_review"))
        for place, row in enumerate(frame.iter_rows(named=True)):
            if places[place]:
                asked = self._asked(row, own[row["_id"]])
                new = self.instead(_blank(row), asked, why)
                acts[place], chances[place], said[place], reviews[place] = new.act, new.act_propensity, new.fallback, new.review
        mended = frame.with_columns(
            pl.Series("_act", acts, dtype=pl.Float64),
            pl.Series("_act_propensity", chances, dtype=pl.Float64),
            pl.Series("_fallback", said, dtype=pl.String),
            pl.Series("_review", reviews, dtype=pl.Boolean),
        )
        return made._replace(predictions=mended)

    def _asked(self, row: Mapping[str, Any], own: Mapping[str, Any]) -> Asked:
        values = tuple(row.get(name) for name in self._names)
        given = {name: value for name, value in own.items() if not name.startswith("_") and value is not None}
        return Asked(row["_id"], micros(row["_time"]), row["_unit"], values, (), given)


def _blank(row: Mapping[str, Any]) -> Row:
    return Row(
        row["_id"],
        0,
        row["_unit"],
        (),
        (),
        None,
        None,
        row["_act"],
        None,
        row["_variant"],
        1.0,
        row["_release"],
        None,
        False,
        0,
        False,
        (),
    )


def _act(voice: Voice, asked: Asked) -> float | None:
    said = voice.say(asked)
    return None if said.refused else said.act
