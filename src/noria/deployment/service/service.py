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
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from noria import features as feature_room
from noria.core import DataFault, NoriaError, duration, micros
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
from noria.deployment.service.quiet import Quiet, Single, Waiting
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
THREADS = 2
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
    able: bool

    @property
    def champion(self) -> str:
        """The bundle that answers whatever a challenger does not, empty for doing nothing."""
        return self.live.champion or ""


class Service:
    """One worker's answers. Made and started inside its event loop's thread; ``refresh`` may run in any other."""

    def __init__(self, home: Home, system: System, *, said: Callable[[str, Exception], None] | None = None) -> None:
        """``said`` takes what goes wrong inside, for the operator; default: the service's own log."""
        self.home, self.system = home, system
        self._said = said or (lambda text, error: _logger.error(text, exc_info=error))
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
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="noria-long")
        self._frames = ThreadPoolExecutor(1, thread_name_prefix="noria-frames")
        self._stuck = 0
        self.quiet = Quiet(system, self.bundles, self.log, lambda n: self.metrics.add("shadow_dropped", n=n))
        self._unit = system.rollout.unit
        self._key = key_reader(system)
        self._hides = system.serve.degree in ("human", "shadow")
        self.state: State
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
        answers = Fallback(self.system, past, self.bundles, lookup)
        known = getattr(self, "state", None)
        if known is not None and known.live != past.now:
            self.sticky.forget()  # another release: nobody is held to what the last one could not do
        read = reader(schema, wanted)
        able = self._loads(past.now.champion)
        return State(seq, past, past.now, about, read, lookup, layout, context, times, ruling, answers, able)

    def _loads(self, champion: str | None) -> bool:
        try:
            return champion is None or self.bundles.get(champion) is not None
        except NoriaError:
            return False

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
        """Whether the champion can answer; with no release yet, doing nothing can.

        Not while the log cannot be written, nor while models hold every thread of the long way and do not come back.
        """
        return self.state.able and not self.log.fault and self._stuck < THREADS

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
            return state.fallback.instead(self._blank(state.ruling, asked, at), asked, "sticky")
        made = state.ruling.answer(asked, at)
        if state.ruling.slow:
            one = Single(row, moment, values)
            self.quiet.later(Waiting(state.past, frozenset(state.ruling.slow), 1, lambda: self._of_one(state, one)))
        if made.score is None and made.release:
            self.sticky.hold(unit, at)
            return state.fallback.instead(made, asked, "error")
        return made

    def _blank(self, ruling: Ruling, asked: Asked, at: int) -> Row:
        """A row that no model was asked for, routed as ever."""
        return Row(*asked[:5], None, None, None, None, *ruling.routed(asked), None, False, at, False, ())

    def _of_one(self, state: State, one: Single) -> tuple[pl.DataFrame, pl.DataFrame]:
        """One row of the short way as a spine with its features."""
        spine = spine_of_rows(self.system, state.about.columns, state.about.needed, [_written(one.row)], one.moment)
        return spine, state.lookup.framed(spine["_id"], [one.values])

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
        return (await self.answered(rows, asked))[1]

    async def answered(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> tuple[About, list[Answer]]:
        """The same, with what answered."""
        if len(rows) > MOST_ROWS:
            raise FieldError(f"rows: there are more than {MOST_ROWS:,}", hint="send them in several requests")
        self.log.check()
        state, now = self.state, self.home.clock.now()
        if asked is not None and asked > now:
            raise FieldError("asked_at: it lies in the future", hint="leave it out to ask now")
        columns, wanted = state.about.columns, state.about.needed
        spine = await self._beside(len(rows), lambda: spine_of_rows(self.system, columns, wanted, rows, asked or now))
        known = await self._looked_up(state, spine)  # nothing, where that is too long ago
        made = await self._framed(state, spine, known, now)
        found = await self._beside(len(rows), lambda: _rows(made.predictions))
        done = self.log.add_frames(made)
        if done is not None:
            await done
        order = {row.id: self._answer(row) for row in found}
        return state.about, [order[name] for name in spine["_id"].to_list()]

    async def _beside(self, rows: int, work: Callable[[], Any]) -> Any:
        """Runs what takes time with the number of rows beside the loop, where there are many."""
        if rows <= BATCH:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._frames, work)

    async def _looked_up(self, state: State, spine: pl.DataFrame) -> pl.DataFrame | None:
        """The features of rows asked now; of many a part at a time, so that others are answered in between."""
        found, some = [], spine.height if state.lookup.store.plain is not None else BATCH
        for start in range(0, spine.height, some):
            part = state.lookup.frame(spine.slice(start, some))
            if part is None:
                return None
            found.append(part)
            if spine.height > BATCH:
                await asyncio.sleep(0)
        return pl.concat(found)

    async def _framed(self, state: State, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime) -> Frames:
        """The rows of the two tables, or the fallback's when the long way fails or is late."""
        try:
            made, values = await self._in_time(spine.height, lambda: self._scored(state, spine, known, now))
        except TimeoutError:
            return await self._instead(state, spine, known, now, "timeout")
        except DataFault as error:
            raise unfit() from error
        except NoriaError:
            raise
        except Exception as error:  # a model must not take the answer down with it
            self._said("a batch could not be scored", error)
            return await self._instead(state, spine, known, now, "error")
        if any(live.rollout is not None or live.guarded is not None for live in state.past.states):
            self.quiet.later(Waiting(state.past, None, spine.height, lambda: (spine, values)))
        mended: Frames = await self._beside(spine.height, lambda: self._mended(state, made, spine, micros(now)))
        return mended

    async def _in_time(self, rows: int, work: Callable[[], Any]) -> Any:
        """The result of what runs in a thread; ``TimeoutError`` when it is late, or when every thread is held by something late already."""
        if self._stuck >= THREADS:
            raise TimeoutError
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            async with asyncio.timeout(self._timeout * max(1.0, rows / BATCH)):
                return await asyncio.shield(running)
        except TimeoutError:
            if not running.done():
                self._stuck += 1
                running.add_done_callback(self._came_back)
            raise

    def _came_back(self, running: asyncio.Future[Any]) -> None:
        self._stuck -= 1
        if not running.cancelled():
            running.exception()  # nobody waits for it any more

    async def _instead(self, state: State, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime, why: str) -> Frames:
        made: Frames = await self._beside(spine.height, lambda: state.fallback.frames(spine, known, now, why))
        for unit in made.predictions["_unit"].to_list():
            self.sticky.hold(unit, micros(now))
        return made

    def _mended(self, state: State, made: Frames, spine: pl.DataFrame, at: int) -> Frames:
        """With the fallback's acts where a release did not answer, and for whoever keeps the fallback's answer."""
        refused, units = state.fallback.refused(made), made.predictions["_unit"].to_list()
        held = [self.sticky.holding() and self.sticky.holds(unit, at) for unit in units]
        if any(held):
            made = state.fallback.mended(made, spine, held, "sticky")
        fresh = [bad and not kept for bad, kept in zip(refused, held, strict=True)]
        for unit, bad in zip(units, fresh, strict=True):
            if bad:
                self.sticky.hold(unit, at)
        return state.fallback.mended(made, spine, fresh, "error")

    def _scored(
        self, state: State, spine: pl.DataFrame, known: pl.DataFrame | None, now: datetime
    ) -> tuple[Frames, pl.DataFrame]:
        values = known if known is not None else feature_room.compute(self.home, self.system, spine)
        made = logged(self.system, state.past, spine, values, bundles=self.bundles, now=now, quiet=False)
        return Frames(made.predictions, made.shadow, made.unknown), values

    def close(self) -> None:
        """Finishes the log and the threads; the home is the caller's."""
        self.quiet.close()
        self.log.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._frames.shutdown(wait=True)


def _written(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it was sent: times as text."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}


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
