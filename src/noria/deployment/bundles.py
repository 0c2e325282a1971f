"""The models that answer: loaded once, and asked so that a failure is a counted row and never a lost one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.deployment.routing import NOT_ACTING, by_hand, randomised
from noria.measure import Decision, act
from noria.model import Bundle, load
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class Bundles:
    """The bundles of a home, each loaded and checked once. Whoever turns or serves holds one and passes it on."""

    home: Home
    _loaded: dict[str, Bundle] = field(default_factory=dict)

    def get(self, sha256: str) -> Bundle:
        """The bundle; raises ``NotFound``, ``Corrupt`` or ``Refused``."""
        if sha256 not in self._loaded:
            self._loaded[sha256] = load(self.home.artifacts.get(sha256), sha256)
        return self._loaded[sha256]


@dataclass(frozen=True)
class Answers:
    """What one bundle says of some rows: score (n,), scores (n, classes) for multiclass, and the policy's act (n,).

    A ``refused`` row has a NaN score and does not act; an ``unknown`` one holds a category that the training never saw.
    """

    score: Floats
    scores: Floats | None
    act: Floats
    refused: Flags
    unknown: Flags


def decision_of(bundle: Bundle) -> Decision:
    """The decision policy as it was chosen when the bundle was trained."""
    return msgspec.convert(bundle.spec.decision, Decision)


def answer(system: System, bundles: Bundles, sha256: str, frame: pl.DataFrame) -> Answers:
    """Asks a bundle for every row of ``frame`` (features and context columns).

    A bundle that cannot be loaded or that raises refuses all rows: a broken model must not take the log of the predictions, or the
    other model's answers, down with it.
    """
    try:
        bundle = bundles.get(sha256)
        raw = np.asarray(bundle.predict(frame), float)
        refused = ~(np.isfinite(raw).all(axis=1) if raw.ndim == 2 else np.isfinite(raw))
        acts = policy_act(bundles, system, decision_of(bundle), raw, frame)
        unknown = bundle.unknown(frame)
    except Exception:  # whatever a model does wrong is counted as refused rows, which stop a rollout
        none, all_rows = np.full(frame.height, np.nan), np.ones(frame.height, bool)
        return Answers(none, None, fallback(system, none), all_rows, ~all_rows)
    return Answers(np.where(refused, np.nan, _largest(raw)), raw if raw.ndim == 2 else None, acts, refused, unknown)


def _largest(raw: Floats) -> Floats:
    return np.asarray(raw.max(axis=1)) if raw.ndim == 2 else raw


def policy_act(bundles: Bundles, system: System, decision: Decision, raw: Floats, frame: pl.DataFrame) -> Floats:
    """The policy's act of each row, without exploration; not acting where the score is missing, NaN where a person decides.

    ``raw`` is the bundle's output, (n,) or (n, classes).
    """
    if by_hand(system.decide):
        return np.full(len(raw), np.nan)
    return fallback(system, act(bundles.home.engine, system, decision, raw, frame))


def fallback(system: System, acts: Floats) -> Floats:
    """``acts`` with not acting in place of NaN. An amount has no such act, and a person's act is not ours to fill in."""
    return np.where(np.isnan(acts), NOT_ACTING, acts) if randomised(system.decide) else acts
