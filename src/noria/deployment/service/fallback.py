"""What answers when the model cannot: not acting, the champion before, or a rule; and who keeps that answer for a while.

A row that the fallback answers has no score: its log says which release should have answered, what the fallback did, and why
(``error: previous``). It counts as refused, so a release that fails is taken back by its own rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from noria.core import NoriaError, micros
from noria.deployment import degrees, routing
from noria.deployment.bundles import Bundles, decision_of
from noria.deployment.live import History, Live
from noria.deployment.log import Frames, Row
from noria.deployment.routing import NOT_ACTING
from noria.deployment.scoring import unanswered
from noria.deployment.service.ruling import Asked, Voice
from noria.features.rowwise import Rowwise
from noria.measure.single import single_act
from noria.system import Rule, System
from noria.tables import PREDICTIONS, SHADOW

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

    def forget(self) -> None:
        """Holds nobody any more."""
        self._until = {}

    def holding(self) -> bool:
        """Whether anybody is held."""
        return bool(self._until)

    def holds(self, unit: str, at: int) -> bool:
        """Whether the fallback answers this unit without asking the model."""
        if not self._until or unit not in self._until:
            return False
        if self._until[unit] > at:
            return True
        del self._until[unit]
        return False


class Instead(NamedTuple):
    """What the fallback decided: the act with its propensity, and why it did, empty where people go on deciding."""

    act: float | None
    propensity: float | None
    said: str
    review: bool


Decider = tuple[str, Callable[[Asked], float | None]]


class Fallback:
    """The declared fallback under the newest of the states ``past``."""

    def __init__(self, system: System, past: History, bundles: Bundles, lookup: Lookup) -> None:
        self._system, self._past, self._lookup = system, past, lookup
        live = past.now
        self._nothing = NOT_ACTING if routing.randomised(system.decide) else None
        self._holdout = routing.salted(f"holdout\x1f{system.name}")
        self._default = self._made(live.previous, live, bundles)
        self._challenger = live.rollout.challenger if live.rollout is not None else None
        self._for_challenger = self._made(live.champion, live, bundles)

    def _made(self, before: str | None, live: Live, bundles: Bundles) -> Decider:
        """The fallback's name and what it decides; ``before`` is the bundle that answers where it is the previous one."""
        declared = self._system.serve.fallback
        if isinstance(declared, Rule):
            return declared.name, self._rule(declared, live, bundles)
        if declared == "previous" and before:
            with suppress(NoriaError, LookupError):
                voice = Voice(self._system, bundles, before, self._lookup.names, self._lookup.ways)
                return "previous", lambda asked: _act(voice, asked)
        return "nothing", lambda _asked: self._nothing

    def _rule(self, rule: Rule, live: Live, bundles: Bundles) -> Callable[[Asked], float | None]:
        """The rule's score, decided as the champion's would be, or at one half without one."""
        ways = self._lookup.ways
        score = Rowwise([("rule", rule.expression)], ways.types)
        act = None
        if live.champion:
            with suppress(NoriaError):
                decision = decision_of(bundles.get(live.champion))
                act = single_act(self._system, decision, compile=ways.compile, types=ways.types)

        def decide(asked: Asked) -> float | None:
            row = {**asked.row, **dict(zip(self._lookup.names, asked.values, strict=False))}
            made = score(row)[0]
            if made is None:
                return self._nothing
            return act(float(made), row) if act is not None else float(float(made) > 0.5)

        return decide

    def decide(self, asked: Asked, release: str, why: str) -> Instead:
        """What is done in place of ``release``. Where people decide, they go on deciding; whoever is held out is not acted on."""
        if degrees.is_open(self._system, None, None):
            return Instead(None, None, "", degrees.asks(self._system))
        name, decide = self._for_challenger if release == self._challenger else self._default
        try:
            policy = decide(asked)
        except Exception:  # what answers for a failure must not fail
            policy, name = None, "nothing"
        if policy is None or isnan(policy):
            policy = self._nothing
        said = f"{why}: {name}"
        if policy is None:
            return Instead(None, None, said, review=False)
        hold = self._system.decide.holdout if routing.randomised(self._system.decide) else 0.0
        if hold <= 0:
            return Instead(policy, 1.0, said, review=False)
        act = NOT_ACTING if routing.uniform(self._holdout, asked.unit) < hold else policy
        return Instead(act, (1 - hold) * (act == policy) + hold * (act == NOT_ACTING), said, review=False)

    def instead(self, row: Row, asked: Asked, why: str) -> Row:
        """``row`` with what the fallback decided."""
        made = self.decide(asked, row.release, why)
        return row._replace(
            score=None, scores=None, act=made.act, act_propensity=made.propensity, fallback=made.said or None, review=made.review
        )

    # ---------------------------------------------------------------------------------------------------- many rows

    def frames(self, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime, why: str) -> Frames:
        """The rows of the tables when nothing came of the long way. Features that were not computed are not there."""
        if known is None:
            kinds = {name: pl.Float64 if kind == "Float64" else pl.String for name, kind in self._lookup.kinds}
            known = spine.select("_id", *(pl.lit(None, dtype=kind).alias(name) for name, kind in kinds.items()))
        frame = unanswered(self._system, self._past, spine, known, now=now)
        return self.mended(Frames(frame, pl.DataFrame(schema=SHADOW.columns), 0), spine, [True] * frame.height, why)

    def refused(self, made: Frames) -> list[bool]:
        """Which rows a release should have answered and did not."""
        return made.predictions.select(pl.col("_score").is_null() & (pl.col("_release") != "")).to_series().to_list()

    def mended(self, made: Frames, spine: pl.DataFrame, places: Sequence[bool], why: str) -> Frames:
        """The frames with what the fallback decided on some of the rows."""
        if not any(places):
            return made
        frame = made.predictions
        own = {row["_id"]: row for row in spine.iter_rows(named=True)}
        names = ("_score", "_scores", "_act", "_act_propensity", "_fallback", "_review")
        columns = {name: frame[name].to_list() for name in names}
        for place, row in enumerate(frame.iter_rows(named=True)):
            if places[place]:
                made_here = self.decide(self._asked(row, own[row["_id"]]), row["_release"], why)
                changed = (None, None, made_here.act, made_here.propensity, made_here.said or None, made_here.review)
                for name, value in zip(names, changed, strict=True):
                    columns[name][place] = value
        mended = frame.with_columns(pl.Series(name, values, dtype=PREDICTIONS.columns[name]) for name, values in columns.items())
        return made._replace(predictions=mended)

    def _asked(self, row: Mapping[str, Any], own: Mapping[str, Any]) -> Asked:
        values = tuple(row.get(name) for name in self._lookup.names)
        given = {name: value for name, value in own.items() if not name.startswith("_") and value is not None}
        return Asked(row["_id"], micros(row["_time"]), row["_unit"], values, (), given)


def _act(voice: Voice, asked: Asked) -> float | None:
    said = voice.say(asked)
    return None if said.refused else said.act
