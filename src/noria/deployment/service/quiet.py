"""What the bundles say that answer nobody: found out after the reply, in a thread of its own, so that a slow or broken one costs no one time.

What waits is bounded; beyond that rows go unasked and are counted, and a comparison has fewer rows, which is no harm but less evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from noria.core import NoriaError
from noria.deployment.bundles import Bundles
from noria.deployment.live import History
from noria.deployment.log import Frames, PredictionLog
from noria.deployment.scoring import whispered
from noria.system import System
from noria.tables import PREDICTIONS

MOST = 20_000


class Waiting(NamedTuple):
    """Rows to be asked about: as a spine with its features, or as rows that ``framed`` makes into them."""

    past: History
    only: Container[str] | None
    rows: int
    framed: Callable[[], tuple[pl.DataFrame, pl.DataFrame]]


class Single(NamedTuple):
    """One row of the short way."""

    row: Mapping[str, Any]
    moment: datetime
    values: Sequence[Any]


class Quiet:
    """Asks the bundles that answer nobody."""

    def __init__(self, system: System, bundles: Bundles, log: PredictionLog, dropped: Callable[[int], None]) -> None:
        self._system, self._bundles, self._log, self._dropped = system, bundles, log, dropped
        self._waiting: list[Waiting] = []
        self._rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noria-quiet")

    def later(self, waiting: Waiting) -> None:
        """Takes rows to be asked about once there is time."""
        if self._rows + waiting.rows > MOST:
            self._dropped(waiting.rows)
            return
        self._rows += waiting.rows
        self._waiting.append(waiting)

    async def ask(self) -> None:
        """Asks about everything that waits, and logs it."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            some, self._waiting = self._waiting, []
            for waiting in some:
                try:
                    said = await loop.run_in_executor(self._thread, self._asked, waiting)
                except NoriaError:
                    self._dropped(waiting.rows)
                    continue
                finally:
                    self._rows -= waiting.rows
                if not said.is_empty():
                    with suppress(NoriaError):  # the log says itself that it cannot be written
                        done = self._log.add_frames(Frames(pl.DataFrame(schema=PREDICTIONS.columns), said, 0))
                        if done is not None:
                            await done

    def _asked(self, waiting: Waiting) -> pl.DataFrame:
        spine, values = waiting.framed()
        return whispered(self._system, waiting.past, spine, values, bundles=self._bundles, only=waiting.only)

    def close(self) -> None:
        """Gives up what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)
