"""What comes in besides questions: events of sources, outcomes of predictions, people's decisions. On the disk when it is acknowledged."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from noria.core import NotFound, digest, micros
from noria.deployment.service.contract import Feed
from noria.deployment.service.rows import FieldError, key_of, keys_of, moment_of
from noria.measure import numeric_act
from noria.records import SchemaFrozen
from noria.store.events import LABELS_SOURCE, Appended, EventLog, NewEvent
from noria.store.rows import EARLIEST, delay_of, fitted, known_of, time_of
from noria.system import Source, System

if TYPE_CHECKING:
    from noria.store import Home

_OUTCOME = ("id", "key", "label", "act", "by", "at", "outcome_id")
_LONGEST = 512
_GREATEST = sys.float_info.max


class Incoming:
    """Checks what comes and appends it to the log of events. Called from one thread."""

    def __init__(self, home: Home, system: System) -> None:
        self._home, self._system = home, system
        self._log = EventLog(home.path / "service" / "events.db", durable=home.settings.durable)
        self._columns: dict[str, Mapping[str, str]] = {}

    def close(self) -> None:
        """Closes the log."""
        self._log.close()

    # ------------------------------------------------------------------------------------------------------------ events

    def events(self, name: str, given: Sequence[Any]) -> tuple[str, Appended]:
        """Appends events of a source that is fed by HTTP. Raises ``FieldError`` for one that does not fit; then none was taken."""
        source = self._system.sources.get(name)
        if source is None:
            raise NotFound("there is no such source", hint=f"the sources are {', '.join(sorted(self._system.sources))}")
        if source.data is not None:
            raise FieldError("this source is fed by files", hint="events are taken for sources that are declared without data")
        now = micros(self._home.clock.now())
        columns = self._frozen(source)
        return name, self._log.append(name, [self._event(source, columns, given, place, now) for place in range(len(given))])

    def _event(self, source: Source, columns: Mapping[str, str], given: Sequence[Any], number: int, now: int) -> NewEvent:
        place, event = f"events[{number}]", given[number]
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

    def outcomes(self, given: Sequence[Any]) -> tuple[str, Appended]:
        """Appends labels of predictions, by their id or by the entity's key. Raises ``FieldError``; then none was taken."""
        now = micros(self._home.clock.now())
        return "outcomes", self._log.append(
            LABELS_SOURCE, [self._outcome(f"outcomes[{n}]", one, now) for n, one in enumerate(given)]
        )

    def _outcome(self, place: str, given: Any, now: int) -> NewEvent:
        if not isinstance(given, dict):
            raise FieldError(f"{place}: it has to be an object", hint='send {"id": …, "label": …}')
        if extra := sorted(set(given) - set(_OUTCOME)):
            name = extra[0] if extra[0].isidentifier() and len(extra[0]) < 64 else "…"
            raise FieldError(f"{place}.{name}: there is no such field", hint=f"the fields are {', '.join(_OUTCOME)}")
        if ("id" in given) == ("key" in given):
            raise FieldError(
                f"{place}: either id or key is needed", hint="id is a prediction's, key has the columns of the entity's key"
            )
        if "label" not in given and "act" not in given:
            raise FieldError(f"{place}.label: it is missing")
        row: dict[str, Any] = {"key": self._key(place, given["key"])} if "key" in given else {"id": self._id(place, given["id"])}
        if "label" in given:
            row["label"] = self._label(place, given["label"])
        if "act" in given:
            row["act"] = self._act(place, given["act"])
        if "by" in given:
            row["by"] = self._id(place, given["by"], "by")
        time = self._time(place, given.get("at"), now)
        if "outcome_id" in given:
            name = self._id(place, given["outcome_id"], "outcome_id")
        else:
            about = row.get("id") or f"{row['key']}@{time if given.get('at') else ''}"
            name = f"{about}/{'label' if 'label' in row else 'act'}"
        return NewEvent(name, time, now, row) if given.get("at") else self._as_first(NewEvent(name, time, now, row))

    def _as_first(self, event: NewEvent) -> NewEvent:
        """The event with the time under which the same was taken first, so that sending it again is a duplicate and no conflict."""
        return event._replace(time=self._log.time_of(LABELS_SOURCE, event.id) or event.time)

    def _key(self, place: str, given: Any) -> str:
        names = keys_of(self._system)
        if isinstance(given, str) and given and len(given) <= _LONGEST:
            return given
        if not isinstance(given, dict) or set(given) != set(names):
            raise FieldError(f"{place}.key: it has to have the key's columns", hint=f"they are {', '.join(names)}")
        if not all(isinstance(given[name], str | int | float | bool) for name in names):
            raise FieldError(f"{place}.key: its columns are texts, numbers or truth values")
        key = key_of(self._system, given)
        if len(key) > _LONGEST:
            raise FieldError(f"{place}.key: it has more than {_LONGEST} characters")
        return key

    def _id(self, place: str, given: Any, name: str = "id") -> str:
        if not isinstance(given, str) or not 0 < len(given) <= _LONGEST:
            raise FieldError(f"{place}.{name}: it has to be a text of at most {_LONGEST} characters")
        return given

    def _label(self, place: str, given: Any) -> Any:
        task = self._system.task
        fits = {
            "binary": isinstance(given, bool) or (isinstance(given, int | float) and given in (0, 1)),
            "multiclass": isinstance(given, str) and 0 < len(given) <= _LONGEST,
            "regression": _is_number(given),
        }[task]
        if not fits:
            said = {"binary": "true or false", "multiclass": "the name of a class", "regression": "a number"}[task]
            raise FieldError(f"{place}.label: it is not {said}", hint=f"the task is {task}: {said} is needed")
        return bool(given) if task == "binary" else _within(given)

    def _act(self, place: str, given: Any) -> float:
        acts = self._system.decide.acts
        if numeric_act(self._system):
            if not _is_number(given):
                raise FieldError(f"{place}.act: it is not a number", hint="the act is an amount")
            return float(given)
        for number, act in enumerate(acts):
            if given == act and isinstance(given, bool) == isinstance(act, bool):
                return float(number)
        raise FieldError(f"{place}.act: it is not one of the declared acts", hint=f"the acts are {', '.join(map(str, acts))}")

    def _time(self, place: str, given: Any, now: int) -> int:
        if given is None:
            return now
        if not isinstance(given, str):
            raise FieldError(f"{place}.at: it is not a time", hint="write for example 2013-01-31T06:00:00Z")
        time = micros(moment_of(given, f"{place}.at"))
        if time > now:
            raise FieldError(f"{place}.at: it lies in the future")
        if time < micros(EARLIEST):
            raise FieldError(f"{place}.at: it lies too far back", hint=f"times begin at {EARLIEST:%Y-%m-%d}")
        return time

    # ----------------------------------------------------------------------------------------------------------- reviews

    def review(self, given: Mapping[str, Any]) -> tuple[str, Appended]:
        """A person's decision on a prediction: ``{"id", "act", "by", "label"?}``, which are there."""
        now = micros(self._home.clock.now())
        event = self._outcome("review", dict(given), now)
        return "reviews", self._log.append(LABELS_SOURCE, [self._as_first(event._replace(id=f"{given['id']}/review"))])


def _own_id(source: Source, columns: Mapping[str, str]) -> bool:
    """Whether ``id`` is a column of the source, and not what tells its events apart."""
    return "id" in columns or "id" in (*source.keys, source.time, source.known)


def _within(value: Any) -> Any:
    """A whole number of more than 64 bits as the number that it stands for; the rest as it is."""
    return float(value) if type(value) is int and not -(2**63) <= value < 2**63 and abs(value) <= _GREATEST else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _GREATEST
