"""The case: the evidence that the tests of causes look at, gathered once, read only as far as somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Check, NoriaError, Verdict, Window, duration
from noria.model import load
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
    TrainingSet,
)
from noria.store import Home
from noria.system import System

if TYPE_CHECKING:
    from noria.diagnosis.compared import Compared

SPAN = 28
LEAST = 10
CLEAR = 5.0
MOST_ROWS = 12_000
FRESHEST = "backtest on the freshest data"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Sample:
    """Closed rows that were answered: features, labels, scores, blocks of time; all of the same length.

    ``more`` has what is no feature: the act, its propensity, the release, the columns of slices and of the value.
    """

    frame: pl.DataFrame
    label: Floats
    score: Floats
    blocks: Ints
    more: pl.DataFrame = field(default_factory=pl.DataFrame)

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

    @property
    def table(self) -> pl.DataFrame:
        """The features, and what else is known of the rows."""
        besides = [name for name in self.more.columns if name not in self.frame.columns]
        return pl.concat([self.frame, self.more.select(besides)], how="horizontal")

    def take(self, rows: NDArray[np.bool_]) -> Sample:
        more = self.more.filter(rows) if self.more.width else self.more
        return Sample(self.frame.filter(rows), self.label[rows], self.score[rows], self.blocks[rows], more)

    def number(self, name: str) -> Floats:
        """A column of ``more`` as numbers; NaN where it is missing."""
        if name not in self.more.columns:
            return np.full(self.n, np.nan)
        return self.more[name].cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()

    @property
    def binary(self) -> bool:
        """Whether both labels are there, and nothing else."""
        return set(np.unique(self.label)) == {0.0, 1.0}


@dataclass(frozen=True)
class Backtest:
    """A candidate, the part that let it through, and the part that refused it."""

    bundle: str
    test: Window
    fresh: Window


@dataclass(frozen=True)
class Case:
    """Symptoms and everything that may explain them. ``about`` is a period that somebody asks about, instead of what the symptoms say."""

    home: Home
    system: System
    now: datetime
    symptoms: tuple[Entry[Record], ...]
    about: Window | None = None

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
    def backtest(self) -> Backtest | None:
        """The candidate that the freshest data refused, when that is all there is to explain: its rows say what has changed since its test part."""
        if self.alerts or self.about is not None or not self.failed(FRESHEST):
            return None
        gated = next(
            (e for e in self.of(Gated) if any(c.name == FRESHEST and c.verdict is Verdict.FAIL for c in e.record.checks)), None
        )
        trained = self._trained(gated.record.bundle) if gated is not None else None
        parents = self.home.ledger.parents(trained.id) if trained is not None else []
        parts = {part.name: part.window for e in parents if isinstance(e.record, TrainingSet) for part in e.record.parts}
        if gated is None or not {"test", "fresh"} <= set(parts):
            return None
        return Backtest(gated.record.bundle, parts["test"], parts["fresh"])

    @cached_property
    def harmed(self) -> list[Alerted]:
        """The harm alerts among the symptoms."""
        return [record for record in self.alerts if record.harm]

    @cached_property
    def alerts(self) -> list[Alerted]:
        """All alerts among the symptoms, facts too."""
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
        """The time the symptoms are about: since the fault began (1 to 56 windows), or the last 28 windows.

        The alerts say roughly when; where the series of the outcomes' windows breaks clearly near that, they say exactly.
        """
        end = self.closed_until or self.now
        if self.about is not None:
            return Window(self.about.start, min(max(end, self.about.start + self.every), self.about.end))
        if self.backtest is not None:
            return self.backtest.fresh
        alerts = [entry.record.since for entry in self.of(Alerted)]
        earliest = end - 2 * SPAN * self.every
        if not alerts:
            return Window(end - SPAN * self.every, end)
        since = max(min(alerts), earliest)
        broke = self._broke(since, end)
        start = broke if broke is not None else since
        return Window(min(start, end - self.every), end)

    def _broke(self, since: datetime, end: datetime) -> datetime | None:
        """Where one of the daily numbers of what closed breaks most clearly, from ten windows before the alerts' time on."""
        look = since - (LEAST + SPAN) * self.every
        kept = {}
        for entry in self.home.ledger.read(Monitored, prefix="monitored/outcomes/", since=look):
            if look <= entry.record.window.start and entry.record.window.end <= end:
                kept[entry.record.window.end] = entry.record
        metric = self.system.objective.metric
        found: list[tuple[float, datetime]] = []
        for wanted in ((metric, "champion"), ("offset", "score"), ("mean", "label")):
            windows = [kept[moment] for moment in sorted(kept) if kept[moment].release is not None]
            rows = [(w.window.start, s.value) for w in windows for s in w.signals if (s.name, s.subject) == wanted]
            values = [(start, value) for start, value in rows if value is not None]
            place, strength = stats.begun(np.array([value for _, value in values]))
            if place < len(values) and strength >= CLEAR and values[place][0] >= since - LEAST * self.every:
                found.append((strength, values[place][0]))
        return max(found)[1] if found else None

    @property
    def until(self) -> datetime | None:
        """Where a period ends that somebody asks about: no record made after it is looked at. ``None`` for what is diagnosed now."""
        return self.about.end if self.about is not None else None

    @property
    def earlier(self) -> datetime:
        """From where the records before the window are looked at: twice its length, 28 windows at least."""
        return self.window.start - max(2 * self.window.length, SPAN * self.every)

    @cached_property
    def closed_until(self) -> datetime | None:
        return measure.closed_until(self.home)

    # -------------------------------------------------------------------------------------------------------- records

    @cached_property
    def release(self) -> str | None:
        """The bundle that answered at the end of the window."""
        if self.about is None:
            last = self.home.ledger.latest(Released)
        else:
            last = next((e for e in reversed(self.home.ledger.read(Released)) if e.at <= self.about.end), None)
        return last.record.bundle if last is not None and last.record.bundle else None

    @cached_property
    def cohorts(self) -> list[CohortClosed]:
        """The closed cohorts of the window and of those before it (``earlier``), newest revisions, in order."""
        kept: dict[datetime, CohortClosed] = {}
        for entry in self.home.ledger.read(CohortClosed, since=self.earlier):
            if self.about is None or entry.record.window.end <= self.about.end:
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
        for entry in self.home.ledger.read(Monitored, prefix=f"monitored/{about}/", since=self.earlier):
            if self.about is None or entry.record.window.end <= self.about.end:
                kept[entry.record.window.end] = entry.record
        return [kept[end] for end in sorted(kept)]

    @cached_property
    def scored(self) -> list[Scored]:
        return [entry.record for entry in self.home.ledger.read(Scored, since=self.window.start, until=self.until)]

    def evaluated(self, bundle: str) -> list[Evaluated]:
        """The evaluations of a candidate, by its bundle."""
        trained = self._trained(bundle)
        children = self.home.ledger.children(trained.id) if trained is not None else []
        return [child.record for child in children if isinstance(child.record, Evaluated)]

    def _trained(self, bundle: str) -> Entry[Trained] | None:
        return next((e for e in reversed(self.home.ledger.read(Trained)) if e.record.bundle == bundle), None)

    # ------------------------------------------------------------------------------------------------------- samples

    @cached_property
    def recent(self) -> Sample | None:
        """What was answered since the fault began, closed: by the release alone, unless it has answered for a part of that time only."""
        if self.backtest is not None:
            return self._said(self.backtest.bundle, self.backtest.fresh)
        return self._answered(self.window, 1)

    @cached_property
    def before(self) -> Sample | None:
        """What was answered before that, twice 28 windows long or as long as since."""
        if self.backtest is not None:
            return self._said(self.backtest.bundle, self.backtest.test)
        return self._answered(self.past, 5)

    @property
    def past(self) -> Window:
        """What the window is compared with: twice 28 windows before it, or as long as it is."""
        start = self.window.start
        return Window(start - max(self.window.length, 2 * SPAN * self.every), start)

    @cached_property
    def compared(self) -> Compared | None:
        """The rows before the fault beside those since; ``None`` without either."""
        from noria.diagnosis.compared import Compared

        if self.recent is None or self.before is None:
            return None
        return Compared(self.before, self.recent)

    def _said(self, bundle: str, window: Window) -> Sample | None:
        """What a candidate says of the closed rows of a window, whoever answered them."""
        rows = self.rows(window, answered=False)
        if rows is None:
            return None
        try:
            score = load(self.home.artifacts.get(bundle), bundle).predict(rows.frame)
        except NoriaError:
            return None
        known = np.isfinite(score) & np.isfinite(rows.label)
        return Sample(rows.frame, rows.label, score, rows.blocks, rows.more).take(known)

    def _answered(self, window: Window, least: int) -> Sample | None:
        rows = self.rows(window)
        if rows is None:
            return None
        own = rows.take((rows.more["_release"] == self.release).fill_null(False).to_numpy())
        chosen = own if own.block_count >= max(least, 0.8 * rows.block_count) else rows
        return chosen if chosen.block_count >= least else None

    def rows(self, window: Window, *, answered: bool = True, labelled: bool = True, most: int = MOST_ROWS) -> Sample | None:
        """The closed rows of a window that may be learned from, evenly thinned to ``most``; ``answered``: those with a score only.

        Without ``labelled`` all rows that were asked, the label NaN where none came.
        """
        known = self.home.lake.schema("predictions")
        if known is None or (answered and self.release is None) or self.system.task == "multiclass":
            return None
        features = [feature.name for feature in self.system.flat_features if feature.name in known]
        objective = self.system.objective
        extra = [*objective.slices, *objective.sensitive, *measure.columns_read(objective.value.sql)]
        more = ["_score", "_act", "_act_propensity", "_release", "_variant", *(name for name in extra if name in known)]
        wanted = list(dict.fromkeys([*more, *features]))
        rows = measure.closed(self.home, self.system, window, columns=wanted)
        if labelled:
            rows = measure.usable(self.system, rows)
        if answered:
            rows = rows.filter((pl.col("_release").fill_null("") != "") & pl.col("_score").is_finite())
        if rows.is_empty():
            return None
        if rows.height > most:
            rows = rows.gather_every(-(-rows.height // most))
        label, score = (measure.numbers_of(rows[name]) for name in ("_label", "_score"))
        besides = [name for name in rows.columns if name not in features]
        blocks = measure.blocks_of(rows["_time"], self.system.gate.block)
        return Sample(rows.select(features), label, score, blocks, rows.select(besides))
