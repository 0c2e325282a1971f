"""A candidate's answers on one part: its scores, its acts, and what they were worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Estimate
from noria.development.frames import Floats, Rows
from noria.measure import Decision
from noria.model import Bundle, load
from noria.store import Home
from noria.system import System


@dataclass(frozen=True)
class Answers:
    """``bundle`` asked for every row of ``rows``. Two answers on the same rows can be compared row by row."""

    home: Home
    system: System
    bundle: Bundle
    rows: Rows

    @property
    def decision(self) -> Decision:
        return msgspec.convert(self.bundle.spec.decision, Decision)

    @property
    def quantile(self) -> float | None:
        return measure.parse_policy(self.system.decide.policy).quantile

    @cached_property
    def score(self) -> Floats:
        """(n,), or (n, classes)."""
        return self.bundle.predict(self.rows.frame)

    @cached_property
    def act(self) -> Floats:
        """The policy's act of each row, without exploration."""
        return measure.act(self.home.engine, self.system, self.decision, self.score, self.rows.frame)

    @cached_property
    def value(self) -> Floats:
        """What each act was worth, given the label."""
        return measure.value(self.home.engine, self.system, self.rows.frame, self.act, self.rows.said, self.score)

    @property
    def yes_or_no(self) -> Floats | None:
        """The acts where they say yes or no to a binary question: what precision and recall are about."""
        binary = self.system.task == "binary" and len(self.system.decide.acts) == 2
        return self.act if binary and np.isfinite(self.act).any() else None

    def estimate(self, metric: str, *, confidence: float | None = None) -> Estimate:
        """A metric with its interval over blocks of time."""
        gate, rows = self.system.gate, self.rows
        return stats.estimate(
            metric,
            rows.label,
            self.score,
            rows.blocks,
            act=self.yes_or_no if metric in ("precision", "recall", "f1") else None,
            weights=rows.weights,
            quantile=self.quantile,
            confidence=confidence or gate.confidence,
            least=gate.blocks,
        )

    def over(self, other: Answers, metric: str, *, confidence: float | None = None) -> Estimate:
        """How much better this is than ``other`` on the same rows; positive is better, whatever the metric's direction."""
        gate, rows = self.system.gate, self.rows
        acts = metric in ("precision", "recall", "f1")
        return stats.paired(
            metric,
            rows.label,
            other.score,
            self.score,
            rows.blocks,
            act_a=other.yes_or_no if acts else None,
            act_b=self.yes_or_no if acts else None,
            weights=rows.weights,
            quantile=self.quantile,
            confidence=confidence or gate.confidence,
            least=gate.blocks,
        )

    def mean(self, values: Floats, *, confidence: float | None = None) -> Estimate:
        """The mean of a number a row, with its interval over blocks of time."""
        gate = self.system.gate
        rows = self.rows
        return stats.block_mean(
            values, rows.blocks, weights=rows.weights, confidence=confidence or gate.confidence, least=gate.blocks
        )

    def on(self, mask: NDArray[np.bool_]) -> Answers:
        """The same answers on some of the rows (a mask), without asking again."""
        made = Answers(self.home, self.system, self.bundle, self.rows.take(mask))
        made.__dict__["score"] = self.score[mask]
        made.__dict__["act"] = self.act[mask]
        made.__dict__["value"] = self.value[mask]
        return made


def ask(home: Home, system: System, bundle: str, rows: Rows) -> Answers:
    """Loads a bundle and asks it; raises what ``model.load`` raises."""
    return Answers(home, system, load(home.artifacts.get(bundle), bundle), rows)
