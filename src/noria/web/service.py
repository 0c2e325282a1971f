"""What the service has done, for ``noria status``: answers, what is not in the lake yet, what people have to do."""

from __future__ import annotations

from datetime import datetime

import msgspec

from noria.deployment.seal import unsealed
from noria.deployment.service import reviews
from noria.records import Scored
from noria.store import LABELS_SOURCE, EventLog, Home
from noria.system import System
from noria.tables import LABELS


class Served(msgspec.Struct, frozen=True):
    """The service's doings, as far as a turn or its logs know them.

    ``unsealed`` predictions lie in the log and not in the lake yet; ``sealed_today`` were moved there since midnight (UTC).
    ``fallbacks`` counts those among both that the fallback answered. ``lost`` counts predictions that were acknowledged and lost, ever.
    ``reviews`` wait for a person. ``events`` counts, by source, the accepted events that are not in the lake yet, ``conflicts`` those that came
    again with another content; ``labels`` are given labels and decisions, ``labels_waiting`` those that no turn has taken in.
    """

    unsealed: int
    newest: datetime | None
    sealed_today: int
    fallbacks: int
    lost: int
    reviews: int
    events: dict[str, int]
    conflicts: dict[str, int]
    labels: int
    labels_waiting: int

    def lines(self) -> list[str]:
        """One line for each thing that there is to say."""
        found = []
        if self.unsealed or self.sealed_today:
            found.append(f"predictions: {self.unsealed:,} in the log, {self.sealed_today:,} moved to the lake today")
        if self.lost:
            found.append(f"lost: {self.lost:,} predictions that were acknowledged in mode fast and not written")
        if self.fallbacks:
            found.append(f"fallback: answered {self.fallbacks:,} of them")
        if self.reviews:
            found.append(f"reviews: {self.reviews:,} wait for a person (`noria review`)")
        if self.labels:
            found.append(f"labels given: {self.labels:,}, of them {self.labels_waiting:,} for the next turn")
        found += [f"events of {name}: {n:,} for the next turn" for name, n in self.events.items() if n]
        found += [f"conflicts of {name}: {n:,} came again with another content" for name, n in self.conflicts.items() if n]
        return found


def served(home: Home, system: System) -> Served | None:
    """What the service has done; ``None`` where none was ever started on this home."""
    folder = home.path / "service"
    if not folder.is_dir():
        return None
    frames = unsealed(home)
    midnight = home.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    today = [entry.record for entry in home.ledger.read(Scored, prefix="requests/", since=midnight)]
    moments = [moment for frame in frames if isinstance(moment := frame["_time"].max(), datetime)]
    lost = home.measurements.read("predictions_lost")["value"].sum()
    events, conflicts, waits = _events(home, system)
    taken = home.lake.read(LABELS.name, columns=["_id"]).height if home.lake.schema(LABELS.name) is not None else 0
    return Served(
        unsealed=sum(frame.height for frame in frames),
        newest=max(moments, default=None),
        sealed_today=sum(record.n for record in today),
        fallbacks=sum(frame["_fallback"].count() for frame in frames) + sum(record.fallbacks for record in today),
        lost=int(lost),
        reviews=reviews.count(home),
        events=events,
        conflicts=conflicts,
        labels=taken + waits,
        labels_waiting=waits,
    )


def _events(home: Home, system: System) -> tuple[dict[str, int], dict[str, int], int]:
    """Events that wait and conflicts, by source, and given labels that wait."""
    path = home.path / "service" / "events.db"
    if not path.exists():
        return {}, {}, 0
    names = [name for name, source in system.sources.items() if source.data is None]
    log = EventLog(path, durable=home.settings.durable)
    try:
        waits = {name: len(log.unsealed(name, 2**62)) for name in (*names, LABELS_SOURCE)}
        against = {name: len(log.conflicts(name)) for name in (*names, LABELS_SOURCE)}
    finally:
        log.close()
    labels = waits.pop(LABELS_SOURCE)
    return waits, {"labels" if name == LABELS_SOURCE else name: n for name, n in against.items()}, labels
