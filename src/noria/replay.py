"""Replay: history through the production code, under a simulated clock.

Nothing below this module knows that the clock is simulated. A replay that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from noria.core import Conflict, SettingsError, SimulatedClock
from noria.deployment import Bundles
from noria.loop import Turn, turn
from noria.settings import Settings
from noria.store import Home
from noria.system import System


def moments(start: datetime, end: datetime, every: timedelta) -> list[datetime]:
    """The times of the turns: ``start + every``, … up to ``end``.

    >>> from datetime import UTC
    >>> [m.day for m in moments(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 4, tzinfo=UTC), timedelta(days=1))]
    [2, 3, 4]
    """
    if end <= start:
        raise SettingsError(
            f"a replay cannot end at {end:%Y-%m-%d %H:%M}, as it begins at {start:%Y-%m-%d %H:%M}",
            hint="--to must lie after --from",
        )
    if every <= timedelta(0) or end - start < every:
        raise SettingsError(
            f"a replay from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} is shorter than one turn",
            hint="make --every shorter than that",
        )
    return [start + every * k for k in range(1, (end - start) // every + 1)]


def replay(
    path: Path,
    system: System,
    start: datetime,
    end: datetime,
    every: timedelta,
    *,
    settings: Settings,
    on_turn: Callable[[Home, Turn], None] | None = None,
) -> Home:
    """Turns the wheel over ``start..end`` and returns the home, open for reading; the caller closes it.

    ``on_turn`` is called after each turn. A data fault stops that turn only: the next one tries again, as it would in
    production. Raises ``Conflict`` when the home already holds something later than ``end``.
    """
    todo = moments(start, end, every)
    clock = SimulatedClock(start)
    home = Home.open(path, settings, clock)
    try:
        newest = home.ledger.read(newest=1)
        reached = newest[-1].at if newest else start
        if reached > end:
            raise Conflict(
                f"{path} already stands at {reached:%Y-%m-%d %H:%M}, later than {end:%Y-%m-%d %H:%M}",
                hint="replay into another --home, or to a later --to",
            )
        bundles = Bundles(home)
        with home.hold("replay"):
            for moment in todo:
                if moment < reached:
                    continue
                clock.move(moment)
                done = turn(home, system, bundles=bundles)
                if on_turn is not None:
                    on_turn(home, done)
    except BaseException:
        home.close()
        raise
    return home
