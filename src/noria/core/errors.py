"""Every error that Noria raises, as one tree.

::

    NoriaError
    ├── DeclarationError      the user's file is wrong; carries every Problem found
    ├── SettingsError         a setting or a command-line option is wrong
    ├── NotFound              a record, table, artifact or home is not there
    ├── NotEnoughData         a question that the closed data cannot answer yet
    ├── DataFault             the data that came in cannot be used; the turn stops at verification
    ├── Conflict              the same key with another content; a race that the other one won
    │   └── LeaseLost         another worker holds the home now; nothing was written
    ├── Corrupt               stored bytes are not what was written; names the file and the repair
    ├── Refused               something unsafe was asked for (a name, a bundle, an artifact)
    └── Unavailable           a store did not answer in time, or the disk is full; nothing was lost

A message says what happened and where; ``hint`` says what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class NoriaError(Exception):
    """The root: ``str(error)`` is what and where, ``error.hint`` is what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, str]:
        """The one shape of an error on the wire: ``{"error", "kind", "hint"}``."""
        return {"error": self.message, "kind": type(self).__name__, "hint": self.hint}


class Problem(msgspec.Struct, frozen=True):
    """One mistake in a declaration: where it is, what is wrong, what would be right."""

    place: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {self.message}{tail}"


class DeclarationError(NoriaError):
    """A declaration has mistakes. All of them are in ``problems``, each with its place."""

    def __init__(self, problems: Sequence[Problem], *, where: str = "the declaration") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__(f"{where} has {count} {noun}:\n{lines}", hint="mend them and run `noria check` again")


class SettingsError(NoriaError):
    """A setting or an option has a value that is not allowed."""


class NotFound(NoriaError):
    """What was named is not there."""


class NotEnoughData(NoriaError):
    """The closed data cannot answer this yet."""


class DataFault(NoriaError):
    """Data came that cannot be used. Nothing of it was taken in."""


class Conflict(NoriaError):
    """The same key came with another content, or somebody else was first."""


class LeaseLost(Conflict):
    """Another worker holds this home. Nothing was written."""


class Corrupt(NoriaError):
    """Stored bytes differ from what was written."""


class Refused(NoriaError):
    """Something unsafe was asked for, and not done."""


class Unavailable(NoriaError):
    """A store did not answer, or has no room. Nothing acknowledged was lost."""
