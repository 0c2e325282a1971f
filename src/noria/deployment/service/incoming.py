"""What comes in besides questions: events of sources, outcomes of predictions, people's decisions. On the disk when it is acknowledged."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from noria.core import DataFault, NotFound, digest, duration, micros
from noria.deployment.service.contract import Feed
from noria.deployment.service.rows import FieldError, key_of, keys_of, moment_of
from noria.measure.given import FIELDS, LONGEST, given, plain
from noria.records import SchemaFrozen
from noria.store.events import LABELS_SOURCE, Appended, EventLog, NewEvent
from noria.store.rows import EARLIEST, delay_of, fitted, known_of, time_of
from noria.system import Source, System

if TYPE_CHECKING:
    from noria.store import Home

_OUTCOME = (*FIELDS, "at", "outcome_id")
_MICRO = timedelta(microseconds=1)
_GREATEST = sys.float_info.max


class Incoming:
    """Checks what comes and appends it to the log of events. Called from one thread."""

    def __init__(self, home: Home, system: System) -> None:
        self._home, self._system = home, system
        self._log = EventLog(home.path / "service" / "events.db", durable=home.settings.durable)
        self._every = duration(system.every) // _MICRO

    def close(self) -> None:
        """Closes the log."""
        self._log.close()

    # ------------------------------------------------------------------------------------------------------------ events

    def events(self, name: str, some: Sequence[Any]) -> tuple[str, Appended]:
        """Appends events of a source that is fed by HTTP. Raises ``FieldError`` for one that does not fit; then none was taken."""
        source = self._system.sources.get(name)
        if source is None:
            raise NotFound("there is no such source", hint=f"the sources are {', '.join(sorted(self._system.sources))}")
        if source.data is not None:
            raise FieldError("this source is fed by files", hint="events are taken for sources that are declared without data")
        now = micros(self._home.clock.now())
        columns = self._frozen(source)
        return name, self._log.append(name, [self._event(source, columns, some, place, now) for place in range(len(some))])

    def _event(self, source: Source, columns: Mapping[str, str], some: Sequence[Any], number: int, now: int) -> NewEvent:
        place, event = f"events[{number}]", some[number]
        if not isinstance(event, dict):
            raise FieldError(f"{place}: it has to be an object")
        own = _own_id(source, columns)
        row = {name: value for name, value in event.items() if name != "id" or own}
        found = fitted(source, columns, row, now)
        if found.reason:
            column = found.column if found.column.isidentifier() and len(found.column) < 64 else "…"
            raise FieldError(f"{place}.{column}: {found.reason}", hint=found.why)
        row = {name: _within(value) for name, value in row.items()}
        time = time_of(source, row)
        assert time is not None  # it fits
        said = None if own else event.get("id")
        if type(said) is int:
            said = str(said)
        if said is not None:
            said = self._id(place, said)
        return NewEvent(said or digest(row)[:32], time, known_of(source, row, time, now), row)

    def feeds(self) -> list[Feed]:
        """The sources that are fed by HTTP, by name."""
        found = []
        for name, source in sorted(self._system.sources.items()):
            if source.data is None:
                delay = delay_of(source)
                times = (source.time, delay) if isinstance(delay, str) else (source.time,)
                columns = self._frozen(source)
                needed = tuple(dict.fromkeys((*source.keys, *times)))
                found.append(Feed(name, columns, needed, times, _own_id(source, columns)))
        return found

    def _frozen(self, source: Source) -> Mapping[str, str]:
        entry = self._home.ledger.latest(SchemaFrozen, prefix=f"schema/{source.name}/")
        return entry.record.columns if entry is not None else {}

    # ---------------------------------------------------------------------------------------------------------- outcomes

    def outcomes(self, some: Sequence[Any]) -> tuple[str, Appended]:
        """Appends labels of predictions, by their id or by the entity's key. Raises ``FieldError``; then none was taken.

        What is sent twice for an ``id``, for a ``key`` with ``at``, or for a ``key`` within one cohort (``every``) is a duplicate, or a conflict when it
        says something else; ``outcome_id`` tells apart what this would not.
        """
        now = micros(self._home.clock.now())
        return "outcomes", self._log.append(
            LABELS_SOURCE, [self._outcome(f"outcomes[{n}]", one, now) for n, one in enumerate(some)]
        )

    def _outcome(self, place: str, said: Any, now: int) -> NewEvent:
        if not isinstance(said, dict):
            raise FieldError(f"{place}: it has to be an object", hint='send {"id": …, "label": …}')
        if extra := sorted(set(said) - set(_OUTCOME)):
            name = extra[0] if extra[0].isidentifier() and len(extra[0]) < 64 else "…"
            raise FieldError(f"{place}.{name}: there is no such field", hint=f"the fields are {', '.join(_OUTCOME)}")
        row = self._given(place, {name: said[name] for name in FIELDS if name in said})
        time = self._time(place, said.get("at"), now)
        if "outcome_id" in said:
            name = self._id(place, said["outcome_id"], "outcome_id")
        else:
            name = f"{self._about(row, time if said.get('at') else None, now)}/{'label' if 'label' in row else 'act'}"
        return NewEvent(name, time, now, row) if said.get("at") else self._as_first(NewEvent(name, time, now, row))

    def _given(self, place: str, fields: dict[str, Any]) -> dict[str, Any]:
        """What was given as it is written down, by the rules by which the turn reads it."""
        for name, value in fields.items():
            if value is None:
                raise FieldError(f"{place}.{name}: it is null", hint="leave it out, or say what it is")
        if not isinstance(fields.get("key", ""), str):
            fields["key"] = self._key(place, fields["key"])
        try:
            return plain(self._system, given(self._system, fields))
        except DataFault as fault:
            own = fault.message.partition(":")[0] in FIELDS
            raise FieldError(f"{place}{'.' if own else ': '}{fault.message}", hint=fault.hint) from None

    def _about(self, row: Mapping[str, Any], at: int | None, now: int) -> str:
        """What a label is about: a prediction; or an entity at a time, or else in the cohort that is open now, by its end."""
        cohort = -(-now // self._every) * self._every
        return str(row["id"] if "id" in row else f"{row['key']}@{f'..{cohort}' if at is None else at}")

    def _as_first(self, event: NewEvent) -> NewEvent:
        """The event with the time under which the same was taken first, so that sending it again is a duplicate and no conflict."""
        return event._replace(time=self._log.time_of(LABELS_SOURCE, event.id) or event.time)

    def _key(self, place: str, said: Any) -> str:
        """The key as it stands in an id, from its columns."""
        names = keys_of(self._system)
        if not isinstance(said, dict) or set(said) != set(names):
            raise FieldError(f"{place}.key: it has to have the key's columns", hint=f"they are {', '.join(names)}")
        if not all(isinstance(said[name], str | int | float | bool) for name in names):
            raise FieldError(f"{place}.key: its columns are texts, numbers or truth values")
        return key_of(self._system, said)

    def _id(self, place: str, said: Any, name: str = "id") -> str:
        if not isinstance(said, str) or not 0 < len(said) <= LONGEST:
            raise FieldError(f"{place}.{name}: it has to be a text of at most {LONGEST} characters")
        return said

    def _time(self, place: str, said: Any, now: int) -> int:
        if said is None:
            return now
        if not isinstance(said, str):
            raise FieldError(f"{place}.at: it is not a time", hint="write for example 2013-01-31T06:00:00Z")
        time = micros(moment_of(said, f"{place}.at"))
        if time > now:
            raise FieldError(f"{place}.at: it lies in the future")
        if time < micros(EARLIEST):
            raise FieldError(f"{place}.at: it lies too far back", hint=f"times begin at {EARLIEST:%Y-%m-%d}")
        return time

    # ----------------------------------------------------------------------------------------------------------- reviews

    def review(self, said: Mapping[str, Any]) -> tuple[str, Appended]:
        """A person's decision on a prediction: ``{"id", "act", "by", "label"?}``, which are there."""
        now = micros(self._home.clock.now())
        event = self._outcome("review", dict(said), now)
        return "reviews", self._log.append(LABELS_SOURCE, [self._as_first(event._replace(id=f"{said['id']}/review"))])


def _own_id(source: Source, columns: Mapping[str, str]) -> bool:
    """Whether ``id`` is a column of the source, and not what tells its events apart."""
    return "id" in columns or "id" in (*source.keys, source.time, source.known)


def _within(value: Any) -> Any:
    """A whole number of more than 64 bits as the number that it stands for; the rest as it is."""
    return float(value) if type(value) is int and not -(2**63) <= value < 2**63 and abs(value) <= _GREATEST else value
