"""What one state of releases says to single rows: ``scoring.logged`` for one row, compiled once and answered in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import isfinite, isnan, nan
from typing import Any, NamedTuple

from noria.core import NoriaError, duration, micros
from noria.deployment import degrees, routing
from noria.deployment.bundles import Bundles, decision_of
from noria.deployment.live import Live
from noria.deployment.log import Row
from noria.deployment.routing import CHALLENGER, CHAMPION, NOT_ACTING
from noria.deployment.scoring import guarded_until
from noria.features.values import Inexact
from noria.measure.single import single_act
from noria.model.single import single, unseen
from noria.system import System

Compile = Callable[[str, Mapping[str, str]], Callable[[Mapping[str, Any]], Any] | None]


class Ways(NamedTuple):
    """What makes functions of SQL expressions over a row, and the SQL types of the row's columns."""

    compile: Compile
    types: Mapping[str, str]


class Said(NamedTuple):
    """What one bundle says of one row; a refused row has no score and does not act."""

    score: float | None
    scores: tuple[float, ...] | None
    act: float
    refused: bool
    unknown: bool


class Asked(NamedTuple):
    """One row that is asked: its id, when, for which unit, with which features and context, and the row with its features by name."""

    id: str
    time: int
    unit: str
    values: Sequence[Any]
    context: Sequence[Any]
    row: Mapping[str, Any]


class Voice:
    """One bundle, ready to answer single rows."""

    def __init__(self, system: System, bundles: Bundles, sha256: str, names: Sequence[str], ways: Ways) -> None:
        """Raises ``LookupError`` when the bundle or the decision has no short way; then the rows go through ``scoring.logged``."""
        bundle = bundles.get(sha256)
        score = single(bundle, names)
        act = (
            _nobody
            if routing.by_hand(system.decide)
            else single_act(system, decision_of(bundle), compile=ways.compile, types=ways.types)
        )
        if score is None or act is None:
            raise LookupError(f"{sha256[:12]} has no short way")
        self._score, self._act, self._unseen = score, act, unseen(bundle, names)
        self._no_act = NOT_ACTING if routing.randomised(system.decide) else nan

    def say(self, asked: Asked) -> Said:
        """The bundle's score and act; whatever goes wrong in it is a refusal. Raises ``Inexact`` when only the engine can decide."""
        try:
            made = self._score(asked.values)
            if isinstance(made, tuple):
                scores, score = made, max(made)
                known = all(map(isfinite, made))
            else:
                scores, score = None, made
                known = isfinite(made)
            if not known:
                return Said(None, None, self._no_act, refused=True, unknown=self._unseen(asked.values))
            act = self._act(made, asked.row)
            return Said(score, scores, self._no_act if isnan(act) else act, refused=False, unknown=self._unseen(asked.values))
        except Inexact:
            raise  # the long way says it exactly
        except Exception:  # whatever a model does wrong is counted as a refused row, which stops a rollout
            return Said(None, None, self._no_act, refused=True, unknown=False)


def _nobody(_score: Any, _row: Mapping[str, Any]) -> float:
    """A person decides."""
    return nan


NOBODY = Said(None, None, NOT_ACTING, refused=False, unknown=False)


class Ruling:
    """The short way through one state (``live``). ``names`` are the features' names in order."""

    def __init__(self, system: System, live: Live, bundles: Bundles, names: Sequence[str], ways: Ways) -> None:
        """Raises ``LookupError`` when a bundle that may answer has no short way. ``slow`` are quiet ones without."""
        if live.champion is None and system.decide.before is not None:
            raise LookupError("what is done before the first release is SQL")
        self.system, self.live = system, live
        self._guards = micros(guarded_until(system, live.guarded)) if live.guarded is not None else 0
        rollout = live.rollout
        answering = {live.champion, rollout.challenger if rollout is not None and rollout.share > 0 else None}
        quiet = {rollout.challenger if rollout is not None else None, live.guarded.champion if live.guarded is not None else None}
        self.voices: dict[str, Voice] = {}
        self.slow: set[str] = set()
        for sha in sorted(sha for sha in answering | quiet if sha):
            try:
                self.voices[sha] = Voice(system, bundles, sha, names, ways)
            except (NoriaError, LookupError) as error:
                if sha in answering:
                    raise LookupError(f"{sha[:12]} has no short way") from error
                self.slow.add(sha)  # it answers nobody: what it says is found out later, and nobody waits for it
        decide = system.decide
        self._draws = routing.randomised(decide)
        self._by_hand = routing.by_hand(decide)
        self._variant = routing.salted(f"variant\x1f{system.name}\x1f{live.rollout.number}") if live.rollout else None
        self._switched = routing.salted(f"switchback\x1f{system.name}\x1f{live.rollout.number}") if live.rollout else None
        length = system.rollout.switchback
        self._stretch = 0 if length is None else duration(length) // timedelta(microseconds=1)
        self._explore = routing.salted(f"explore\x1f{system.name}")
        plain = live.rollout is None and live.guarded is None and system.serve.degree == "full"
        fixed = not self._draws or (decide.explore == 0 and decide.holdout == 0)
        self._only = self.voices.get(live.champion or "") if plain and fixed and not self._by_hand else None
        self._holdout = routing.salted(f"holdout\x1f{system.name}")

    def answer(self, asked: Asked, scored_at: int) -> Row:
        """The row of the log, which holds the answer. ``scored_at`` is now, in microseconds."""
        if self._only is not None:
            return self._simply(self._only.say(asked), asked, scored_at)
        variant, chance, release = self.routed(asked)
        said = {sha: voice.say(asked) for sha, voice in self.voices.items() if self._is_asked(sha, asked.time)}
        answered = said.get(release, NOBODY)
        act, propensity = self._act(answered.act, asked)
        left = degrees.is_open(self.system, answered.score, answered.scores)
        none = left or release == "" or isnan(act)
        shadow = [
            (sha, other.score, other.scores, None if isnan(other.act) else other.act)
            for sha, other in said.items()
            if sha != release or left
        ]
        return Row(
            asked.id,
            asked.time,
            asked.unit,
            asked.values,
            asked.context,
            answered.score,
            answered.scores,
            None if none else act,
            None if none else propensity,
            variant,
            chance,
            release,
            None,
            left and degrees.asks(self.system),
            scored_at,
            answered.unknown,
            shadow,
        )

    def _simply(self, said: Said, asked: Asked, scored_at: int) -> Row:
        """The same where one bundle answers everything and nothing is drawn: what most requests are."""
        none = isnan(said.act)
        return Row(
            *asked[:5],
            said.score,
            said.scores,
            None if none else said.act,
            None if none else 1.0,
            CHAMPION,
            1.0,
            self.live.champion or "",
            None,
            False,
            scored_at,
            said.unknown,
            (),
        )

    def routed(self, asked: Asked) -> tuple[str, float, str]:
        """The variant of a row, its propensity, and the release that is to answer."""
        rollout = self.live.rollout
        share, mine = (0.0, False) if rollout is None else self._assigned(asked)
        if mine and rollout is not None:
            return CHALLENGER, share, rollout.challenger
        return CHAMPION, 1 - share, self.live.champion or ""

    def _assigned(self, asked: Asked) -> tuple[float, bool]:
        """The challenger's share, and whether this row is the challenger's."""
        rollout = self.live.rollout
        assert rollout is not None
        share = rollout.share if rollout.stage == "canary" else 0.0
        if share <= 0 or share >= 1:
            return share, share >= 1
        if self._stretch:
            return share, routing.uniform(self._switched, str((asked.time - 1) // self._stretch)) < share
        return share, routing.uniform(self._variant, asked.unit) < share

    def _is_asked(self, sha: str, time: int) -> bool:
        """The champion before a release is asked only while it guards."""
        live = self.live
        if sha == live.champion or (live.rollout is not None and sha == live.rollout.challenger):
            return True
        return time <= self._guards

    def _act(self, policy: float, asked: Asked) -> tuple[float, float]:
        """``routing.acts`` for one row."""
        if self._by_hand or not self._draws:
            return policy, nan if isnan(policy) else 1.0
        decide = self.system.decide
        explore, hold, many = decide.explore, decide.holdout, len(decide.acts)
        act = policy
        if explore > 0 and routing.uniform(self._explore, asked.id) < explore:
            act = float(int(routing.uniform(self._explore, asked.id, draw=1) * many))
        if hold > 0 and routing.uniform(self._holdout, asked.unit) < hold:
            act = NOT_ACTING
        chance = (1 - explore) * (act == policy) + explore / many
        return act, (1 - hold) * chance + hold * (act == NOT_ACTING)
