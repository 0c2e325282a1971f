"""How long things take to become known: maturity of labels, the gap between the parts of a training set."""

from __future__ import annotations

from datetime import datetime, timedelta

from noria.core import duration
from noria.core.window import EPOCH
from noria.system import System

MONTH = "1mo"


def reach(system: System) -> timedelta:
    """How long after asking a label's row may still happen: horizon and ``within``."""
    return duration(system.label.horizon) + duration(system.label.within)


def maturity(system: System) -> timedelta:
    """How long after its end a cohort closes: horizon, ``within`` and lateness."""
    return reach(system) + duration(system.label.lateness)


def next_edge(moment: datetime, every: timedelta) -> datetime:
    """The first boundary of the grid ``every`` (counted from 1970) that is not before ``moment``: the end of its cohort.

    >>> from datetime import UTC
    >>> next_edge(datetime(2013, 1, 1, 6, tzinfo=UTC), timedelta(days=1)).isoformat()
    '2013-01-02T00:00:00+00:00'
    """
    return EPOCH - (EPOCH - moment) // every * every
