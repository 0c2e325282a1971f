"""How predicted rows and the rows of labels find each other."""

from __future__ import annotations

from collections.abc import Mapping

from noria.system import Every, Label, Outcome, Request, System


def by_pairs(found: Label | Outcome, keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(column of the predicted row, column of the source) as declared; without any, the predicted row's key under its own names."""
    by = found.by
    if by is None:
        return tuple((key, key) for key in keys)
    if isinstance(by, str):
        return ((by, by),)
    return tuple(by.items()) if isinstance(by, Mapping) else tuple((name, name) for name in by)


def predicted_keys(system: System) -> tuple[str, ...]:
    """The columns that tell predicted entities apart."""
    asked = system.predict
    if isinstance(asked, Request):
        return (asked.key,) if isinstance(asked.key, str) else tuple(asked.key)
    return asked.of.keys if isinstance(asked, Every) else asked.keys
