"""Watching: one record for each window of traffic as soon as it is scored, one for its outcomes once they are closed."""

from __future__ import annotations

from datetime import datetime

from noria.monitoring.outcomes import PAST as OUTCOMES
from noria.monitoring.outcomes import outcomes
from noria.monitoring.traffic import MEMORY as TRAFFIC
from noria.monitoring.traffic import traffic
from noria.monitoring.windows import key, outcomes_due, recent, traffic_due
from noria.records import Entry, Monitored
from noria.store import Home
from noria.system import System


def watch(home: Home, system: System, now: datetime) -> list[Entry[Monitored]]:  # noqa: ARG001  what is due is seen from the records
    """Records every window that is due: its traffic, and the outcomes of every cohort closed or revised since the last time.

    A window costs one scan, whatever the length of the history. Before the first release there is nothing to compare with:
    such windows keep volume and labels only.
    """
    made: list[Entry[Monitored]] = []
    due = traffic_due(home, system)
    past = recent(home, "traffic", TRAFFIC) if due else []
    for window in due:
        record = traffic(home, system, window, past)
        made.append(home.commit(record, key=key("traffic", window)))
        past = [*past, record][-TRAFFIC:]
    closed = outcomes_due(home)
    past = recent(home, "outcomes", OUTCOMES + 1) if closed else []
    for cohort in closed:
        window = cohort.record.window
        late = bool(past) and window.end <= past[-1].window.end
        before = recent(home, "outcomes", OUTCOMES, before=window) if late else past
        record = outcomes(home, system, cohort.record, before)
        made.append(home.commit(record, key=key("outcomes", record.window, record.revision), parents=[cohort.id]))
        past = sorted([*(r for r in past if r.window != record.window), record], key=lambda r: r.window)[-OUTCOMES - 1 :]
    return made
