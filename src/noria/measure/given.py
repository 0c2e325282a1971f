"""A label or a decision that somebody gives outright: what it may say, checked at the door and again when it is taken in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from noria.core import DataFault
from noria.measure.value import numeric_act
from noria.system import System

FIELDS = ("id", "key", "label", "act", "by")
LONGEST = 512
"""How many characters an id, a key, a class or a name may have."""


class Given(NamedTuple):
    """What was given: for the prediction ``id``, or for the entity whose key, as it stands in an id, is ``key``.

    ``label`` is 0 or 1, or a number; ``name`` the class of a multiclass label; ``act`` as the tables have it: a number, or an index into the
    declared acts. ``by`` says who.
    """

    id: str | None
    key: str | None
    label: float | None
    name: str | None
    act: float | None
    by: str | None


def given(system: System, row: Mapping[str, Any]) -> Given:
    """Reads a given label; raises ``DataFault`` that names the field and does not repeat its value.

    ``label`` is true or false (or 1 and 0), a number, or a class, as the task is; ``act`` one of the declared acts, or a number where acts are
    numbers. One of ``id`` and ``key`` is needed, and one of ``label`` and ``act``.
    """
    extra = [name for name in row if name not in FIELDS]
    if extra:
        raise _wrong("a field is not known", f"the fields are {', '.join(FIELDS)}")
    texts = {name: _text(name, row.get(name)) for name in ("id", "key", "by")}
    if (texts["id"] is None) == (texts["key"] is None):
        raise _wrong("id: one of id and key is needed", "id names a prediction, key an entity")
    if row.get("label") is None and row.get("act") is None:
        raise _wrong("label: one of label and act is needed", "say what became of it, or what was decided")
    label = None if row.get("label") is None else _label(system, row["label"])
    act = None if row.get("act") is None else _act(system, row["act"])
    number, name = (None, label) if isinstance(label, str) else (label, None)
    return Given(texts["id"], texts["key"], number, name, act, texts["by"])


def plain(system: System, one: Given) -> dict[str, Any]:
    """What was given as a plain row, from which ``given`` reads the same: one way of writing for all that mean it."""
    label: Any = one.name if one.label is None else bool(one.label) if system.task == "binary" else one.label
    act: Any = one.act if one.act is None or numeric_act(system) else system.decide.acts[int(one.act)]
    row = {"id": one.id, "key": one.key, "label": label, "act": act, "by": one.by}
    return {name: value for name, value in row.items() if value is not None}


def _wrong(what: str, hint: str) -> DataFault:
    return DataFault(what, hint=hint)


def _text(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value or len(value) > LONGEST):
        raise _wrong(f"{name}: it is not a text of 1 to {LONGEST} characters", "write for example a@20130131T060000Z")
    return value


def _label(system: System, value: Any) -> float | str:
    match system.task:
        case "multiclass":
            if isinstance(value, str) and 0 < len(value) <= LONGEST:
                return value
            raise _wrong("label: it is not a class", f"write the class as a text of at most {LONGEST} characters")
        case "binary":
            if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
                return float(value)
            raise _wrong("label: it is neither true nor false", "write true or false")
        case _:
            return _number("label", value)


def _act(system: System, value: Any) -> float:
    if numeric_act(system):
        return _number("act", value)
    acts = system.decide.acts
    for place, act in enumerate(acts):
        if act == value and isinstance(act, bool) == isinstance(value, bool):
            return float(place)
    if len(acts) == 2 and all(isinstance(act, bool) for act in acts) and isinstance(value, int | float) and value in (0, 1):
        return float(acts.index(bool(value)))
    raise _wrong("act: it is none of the declared acts", f"one of {', '.join(map(str, acts))}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _wrong(f"{name}: it is not a finite number", "write a number")
