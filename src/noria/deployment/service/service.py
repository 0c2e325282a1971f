"""What answers: rows are checked, their features looked up, scored under the release in force, decided, logged, and said.

There are two ways. The short one takes single rows through ``ruling`` in the event loop. The long one takes frames through
``scoring.logged`` in a thread: batches, rows asked as of an earlier moment, and whatever has no short way (a foreign estimator, a rule in SQL). Both
give the same answers. When a model fails, or the long way takes longer than the declared time, the declared fallback answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from noria import features as feature_room
from noria.core import DataFault, NoriaError, duration, micros
from noria.deployment import routing
from noria.deployment.bundles import Bundles
from noria.deployment.live import History, Live, history
from noria.deployment.log import Frames, Layout, PredictionLog, Row
from noria.deployment.scoring import FIXED, context_columns, logged
from noria.deployment.seal import kind_name
from noria.deployment.service import fallback
from noria.deployment.service.contract import About, Answer
from noria.deployment.service.fallback import Fallback
from noria.deployment.service.lookup import Lookup, unfit
from noria.deployment.service.metrics import Metrics
from noria.deployment.service.reader import reader
from noria.deployment.service.rows import FieldError, key_reader, keys_of, needed, row_schema, spine_of_rows, stamped
from noria.deployment.service.ruling import Asked, Ruling
from noria.features.online import News
from noria.features.values import Inexact
from noria.measure import numeric_act
from noria.system import System
from noria.tables import TIME

if TYPE_CHECKING:
    from noria.store import Home

_logger = logging.getLogger("noria.service")
BATCH = 64
MOST_ROWS = 100_000


class State(NamedTuple):
    """Everything that changes with a release or a schema, swapped as one. ``ruling`` is ``None`` when there is no short way."""

    seq: int
    past: History
    live: Live
    about: About
    read: Callable[[bytes], dict[str, Any] | None]
    lookup: Lookup
    layout: int
    context: tuple[str, ...]
    times: tuple[int, ...]
    ruling: Ruling | None
    fallback: Fallback

    @property
    def champion(self) -> str:
        """The bundle that answers whatever a challenger does not, empty for doing nothing."""
        return self.live.champion or ""


class Service:
    """One worker's answers. Made and started inside its event loop's thread; ``refresh`` may run in any other."""

    def __init__(self, home: Home, system: System) -> None:
        self.home, self.system = home, system
        self.metrics = Metrics()
        self._answered = self.metrics.counts["predictions"]
        self.bundles = Bundles(home)
        self.log = PredictionLog(
            home.path / "service",
            home.clock,
            durable=home.settings.log == "durable",
            limit=home.settings.waiting_limit,
            sync=home.settings.durable,
        )
        self._lookup: Lookup | None = None
        self.sticky = fallback.Sticky(duration(system.serve.sticky).total_seconds())
        self._timeout = duration(system.serve.timeout).total_seconds()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="noria-long")
        self._unit = system.rollout.unit
        self._key = key_reader(system)
        self._hides = system.serve.degree in ("human", "shadow")
        self._fault = ""
        self.state = self._state()

    # ------------------------------------------------------------------------------------------------- what is in force

    def refresh(self) -> tuple[Lookup, News] | None:
        """Takes up releases, rollouts and schemas that came since, and reads the rows that turns have published: for the loop to ``apply``.

        A fault leaves the state as it is.
        """
        seq = self._seq()
        if seq == self.state.seq and not self.state.lookup.stale:
            return None
        self.state = self._state()
        lookup = self.state.lookup
        return lookup, lookup.store.news(self.home)

    def apply(self, found: tuple[Lookup, News]) -> None:
        """Takes what ``refresh`` has read, in the loop's thread."""
        lookup, news = found
        if lookup is self.state.lookup and lookup.store.apply(news):
            lookup.stale = True

    def _seq(self) -> int:
        newest = self.home.ledger.read(newest=1)
        return newest[-1].seq if newest else 0

    def _state(self) -> State:
        seq, past = self._seq(), history(self.home)
        schema = row_schema(self.home, self.system)
        if self._lookup is None or self._lookup.stale:
            self._lookup = Lookup(self.home, self.system, schema)
        lookup = self._lookup
        wanted = frozenset(needed(self.system, schema))
        about = self._about(past.now, schema, wanted)
        context = tuple(name for name in context_columns(self.system, list(schema)) if name not in lookup.names)
        kinds = tuple((name, kind_name(schema[name])) for name in context)
        layout = self.log.layout(Layout(feature_room.plan(self.system).id, lookup.kinds, kinds))
        try:
            ruling = Ruling(self.system, past.now, self.bundles, lookup.names, lookup.ways)
        except LookupError:
            ruling = None
        times = tuple(place for place, name in enumerate(context) if schema[name] == TIME)
        answers = Fallback(self.system, past.now, self.bundles, lookup)
        return State(seq, past, past.now, about, reader(schema, wanted), lookup, layout, context, times, ruling, answers)

    def _about(self, live: Live, schema: Mapping[str, pl.DataType], wanted: frozenset[str]) -> About:
        classes: tuple[str, ...] = ()
        if live.champion is not None:
            with suppress(NoriaError):
                classes = self.bundles.get(live.champion).spec.classes
        return About(
            name=self.system.name,
            number=live.number,
            release=live.champion or "",
            task=self.system.task,
            columns=schema,
            needed=wanted,
            classes=classes,
            acts=() if numeric_act(self.system) else tuple(self.system.decide.acts),
            keys=keys_of(self.system),
        )

    def about(self) -> About:
        """What answers now."""
        return self.state.about

    def ready(self) -> bool:
        """Whether the champion can answer; with no release yet, doing nothing can. Not while the log cannot be written."""
        if self.log.fault:
            return False
        if self.state.live.champion is None:
            return True
        try:
            self.bundles.get(self.state.live.champion)
        except NoriaError:
            return False
        return True

    # --------------------------------------------------------------------------------------------------- the short way

    def one(self, body: bytes) -> tuple[Answer, asyncio.Future[None] | None] | None:
        """The answer to a request for one row now, and when it is on the disk; ``None`` when the request has to take the long way.

        Raises ``Unavailable`` while the log cannot be written.
        """
        state = self.state
        if state.ruling is None:
            return None
        row = state.read(body)
        if row is None:
            return None
        self.log.check()
        moment = self.home.clock.now()
        try:
            made = self._short(state, row, moment)
        except Inexact:
            return None
        if made is None:
            return None
        return self._answer(made), self.log.add(state.layout, made)

    def _short(self, state: State, row: Mapping[str, Any], moment: datetime) -> Row | None:
        at = micros(moment)
        key = self._key(row)
        name = f"{key}@{stamped(moment)}"
        unit = self._unit_of(row, key or name)
        values = state.lookup.values(row, at)
        if values is None or state.ruling is None:
            return None
        context: Sequence[Any] = [row.get(name) for name in state.context]
        for place in state.times:
            context[place] = None if context[place] is None else micros(context[place])  # type: ignore[index]
        asked = Asked(name, at, unit, values, context, row)
        if self.sticky.holds(unit, at):
            return state.fallback.instead(self._blank(state, asked, at), asked, "sticky")
        made = state.ruling.answer(asked, at)
        if made.score is None and made.release:
            self.sticky.hold(unit, at)
            return state.fallback.instead(made, asked, "error")
        return made

    def _blank(self, state: State, asked: Asked, at: int) -> Row:
        """A row that no model was asked for."""
        return Row(*asked[:5], None, None, None, None, routing.CHAMPION, 1.0, state.champion, None, False, at, False, ())

    def _unit_of(self, row: Mapping[str, Any], key: str) -> str:
        """What is assigned to a variant; as ``scoring.units`` names it."""
        if self._unit is None or self._unit not in row:
            return key
        value = row[self._unit]
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    def _answer(self, row: Row) -> Answer:
        act: Any = row.act
        acts = self.state.about.acts
        if act is not None and acts:
            act = acts[int(act)]
        self._answered[(row.variant, "" if row.fallback is None else row.fallback.partition(":")[0])] += 1
        hidden = self._hides
        if row.review:
            self.metrics.add("reviews")
        return Answer(
            row.id,
            None if hidden else row.score,
            None if hidden or row.scores is None else tuple(row.scores),
            act,
            row.act_propensity,
            row.variant,
            row.variant_propensity,
            row.release,
            row.fallback or "",
            row.review,
        )

    # ---------------------------------------------------------------------------------------------------- the long way

    async def answer(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> list[Answer]:
        """See ``contract.Answering.answer``."""
        if len(rows) > MOST_ROWS:
            raise FieldError(f"rows: there are more than {MOST_ROWS:,}", hint="send them in several requests")
        self.log.check()
        state, now = self.state, self.home.clock.now()
        if asked is not None and asked > now:
            raise FieldError("asked_at: it lies in the future", hint="leave it out to ask now")
        spine = spine_of_rows(self.system, state.about.columns, state.about.needed, rows, asked or now)
        made = await self._framed(state, spine, now, direct=asked is None)
        answers = [self._answer(row) for row in _rows(made.predictions)]
        done = self.log.add_frames(made)
        if done is not None:
            await done
        order = {answer.id: answer for answer in answers}
        return [order[name] for name in spine["_id"].to_list()]

    async def _framed(self, state: State, spine: pl.DataFrame, now: datetime, *, direct: bool) -> Frames:
        """The rows of the two tables, or the fallback's when the long way fails or is late."""
        loop = asyncio.get_running_loop()
        known = state.lookup.frame(spine) if direct else None
        work = loop.run_in_executor(self._threads, self._scored, state, spine, known, now)
        try:
            async with asyncio.timeout(self._timeout * max(1.0, spine.height / BATCH)):
                made = await work
        except TimeoutError:
            return state.fallback.frames(spine, known, now, "timeout")
        except DataFault as error:
            raise unfit() from error
        except NoriaError:
            raise
        except Exception as error:  # a model must not take the answer down with it
            _logger.error("a batch could not be scored: %s", type(error).__name__, exc_info=error)
            return state.fallback.frames(spine, known, now, "error")
        return state.fallback.mended(made, spine)

    def _scored(self, state: State, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime) -> Frames:
        values = known if known is not None else feature_room.compute(self.home, self.system, spine)
        made = logged(self.system, state.past, spine, values, bundles=self.bundles, now=now)
        return Frames(made.predictions, made.shadow, made.unknown)

    def close(self) -> None:
        """Finishes the log and the threads; the home is the caller's."""
        self.log.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _rows(frame: pl.DataFrame) -> list[Row]:
    """What an answer needs of the rows of ``predictions``."""
    picked = frame.select(FIXED).with_columns(pl.col("_time", "_scored_at").dt.epoch("us"))
    found = []
    for row in picked.iter_rows(named=True):
        found.append(
            Row(
                row["_id"],
                row["_time"],
                row["_unit"],
                (),
                (),
                row["_score"],
                row["_scores"],
                row["_act"],
                row["_act_propensity"],
                row["_variant"],
                row["_variant_propensity"],
                row["_release"],
                row["_fallback"],
                row["_review"],
                row["_scored_at"],
                False,
                (),
            )
        )
    return found
