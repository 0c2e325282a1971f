"""The case: the evidence that the tests of causes look at, gathered once, read only as far as somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Check, Verdict, Window, duration
from noria.records import (
    Alerted,
    CohortClosed,
    Entry,
    Evaluated,
    Gated,
    Monitored,
    Record,
    Released,
    RolloutMoved,
    Scored,
    Trained,
)
from noria.store import Home
from noria.system import System

SPAN = 28
LEAST = 10
MOST_ROWS = 12_000
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Sample:
    """Closed rows that one release answered: features, labels, scores, blocks of time; all of the same length."""

    frame: pl.DataFrame
    label: Floats
    score: Floats
    blocks: Ints

    @property
    def n(self) -> int:
        return len(self.label)

    @property
    def block_count(self) -> int:
        return len(np.unique(self.blocks))

    def loss(self) -> Floats:
        """The log loss of each row (squared error when labels are not 0/1): what the causes share among them."""
        binary = bool(np.isin(self.label, (0.0, 1.0)).all())
        made = stats.row_loss("log_loss" if binary else "mae", self.label, self.score)
        return made if made is not None else np.empty(0)

    def take(self, rows: NDArray[np.bool_]) -> Sample:
        return Sample(self.frame.filter(rows), self.label[rows], self.score[rows], self.blocks[rows])


@dataclass(frozen=True)
class Case:
    """Symptoms and everything that may explain them."""

    home: Home
    system: System
    now: datetime
    symptoms: tuple[Entry[Record], ...]

    # ------------------------------------------------------------------------------------------------------- symptoms

    def of(self, kind: type[R]) -> list[Entry[R]]:
        """The symptoms of one kind."""
        return [cast("Entry[R]", entry) for entry in self.symptoms if isinstance(entry.record, kind)]

    @cached_property
    def checks(self) -> list[Check]:
        """Every check behind the gates and rollouts among the symptoms."""
        entries: list[Entry[Gated] | Entry[RolloutMoved]] = [*self.of(Gated), *self.of(RolloutMoved)]
        return [check for entry in entries for check in entry.record.checks]

    def failed(self, *names: str) -> list[Check]:
        """The failed checks of these names (all, without names)."""
        return [check for check in self.checks if check.verdict is Verdict.FAIL and (not names or check.name in names)]

    @cached_property
    def harmed(self) -> list[Alerted]:
        """The harm alerts among the symptoms."""
        return [entry.record for entry in self.of(Alerted)]

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What several causes look at, worked out once (``streams.once``)."""
        return {}

    # ------------------------------------------------------------------------------------------------------------ time

    @cached_property
    def every(self) -> timedelta:
        return duration(self.system.every)

    @cached_property
    def window(self) -> Window:
        """The time the symptoms are about: since the alerts began (10 to 56 windows), or the last 28 windows."""
        end = self.closed_until or self.now
        begun = max((alert.since for alert in self.harmed), default=end - SPAN * self.every)
        start = min(max(begun, end - 2 * SPAN * self.every), end - LEAST * self.every)
        return Window(start, end)

    @cached_property
    def closed_until(self) -> datetime | None:
        return measure.closed_until(self.home)

    # -------------------------------------------------------------------------------------------------------- records

    @cached_property
    def release(self) -> str | None:
        last = self.home.ledger.latest(Released)
        return last.record.bundle if last is not None and last.record.bundle else None

    @cached_property
    def cohorts(self) -> list[CohortClosed]:
        """The closed cohorts of the window and of twice that time before, newest revisions, in order."""
        kept: dict[datetime, CohortClosed] = {}
        for entry in self.home.ledger.read(CohortClosed, since=self.window.start - 2 * self.window.length):
            kept[entry.record.window.end] = entry.record
        return [kept[end] for end in sorted(kept)]

    @cached_property
    def traffic(self) -> list[Monitored]:
        return self._watched("traffic")

    @cached_property
    def outcomes(self) -> list[Monitored]:
        return self._watched("outcomes")

    def _watched(self, about: str) -> list[Monitored]:
        kept: dict[datetime, Monitored] = {}
        for entry in self.home.ledger.read(
            Monitored, prefix=f"monitored/{about}/", since=self.window.start - 2 * self.window.length
        ):
            kept[entry.record.window.end] = entry.record
        return [kept[end] for end in sorted(kept)]

    @cached_property
    def scored(self) -> list[Scored]:
        return [entry.record for entry in self.home.ledger.read(Scored, since=self.window.start)]

    def evaluated(self, bundle: str) -> list[Evaluated]:
        """The evaluations of a candidate, by its bundle."""
        trained = next((e for e in reversed(self.home.ledger.read(Trained)) if e.record.bundle == bundle), None)
        children = self.home.ledger.children(trained.id) if trained is not None else []
        return [child.record for child in children if isinstance(child.record, Evaluated)]

    # ------------------------------------------------------------------------------------------------------- samples

    @cached_property
    def recent(self) -> Sample | None:
        """What the release answered within the window, closed."""
        found = self._sample(self.window)
        return found if found is not None and found.block_count >= 5 else None

    @cached_property
    def before(self) -> Sample | None:
        """What the same release answered before that, as far back again."""
        start = self.window.start
        found = self._sample(Window(start - max(self.window.length, 2 * SPAN * self.every), start))
        return found if found is not None and found.block_count >= 5 else None

    def _sample(self, window: Window) -> Sample | None:
        known = self.home.lake.schema("predictions")
        if known is None or self.release is None or self.system.task == "multiclass":
            return None
        features = [feature.name for feature in self.system.flat_features if feature.name in known]
        wanted = ["_score", "_act", "_act_propensity", "_release", "_variant", *features]
        rows = measure.usable(self.system, measure.closed(self.home, self.system, window, columns=wanted))
        rows = rows.filter((pl.col("_release") == self.release) & pl.col("_score").is_finite())
        if rows.is_empty():
            return None
        if rows.height > MOST_ROWS:
            rows = rows.gather_every(-(-rows.height // MOST_ROWS))
        label, score = (rows[name].cast(pl.Float64).to_numpy() for name in ("_label", "_score"))
        return Sample(rows.select(features), label, score, measure.blocks_of(rows["_time"], self.system.gate.block))
