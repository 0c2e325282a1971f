"""What the service's parts hand each other: a call, a reply, an answer, and what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec
import polars as pl

JSON = (("content-type", "application/json"), ("cache-control", "no-store"))


class Limits(msgspec.Struct, frozen=True):
    """What a request may ask for: bytes of a body, as sent and when unpacked, and rows."""

    body: int = 1_048_576
    rows: int = 10_000


class Call(msgspec.Struct, frozen=True):
    """A request that has passed the door. ``headers`` have lower-case names; ``params`` are the named parts of the path, decoded.

    ``body`` is as it was sent: what ``content-encoding`` did to it is undone by the protocol, within ``limits``.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, str]
    limits: Limits = Limits()


class Reply(msgspec.Struct, frozen=True):
    """What goes back."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON


class Answer(msgspec.Struct, frozen=True):
    """What is said to one predicted row.

    ``act`` is one of the declared acts, a number (``score`` and ``quantile`` policies), or ``None``: a person decides, or nothing is released.
    ``fallback`` says why the fallback answered (empty: the model did); ``review`` that a person is asked.
    """

    id: str
    score: float | None
    scores: tuple[float, ...] | None
    act: Any
    act_propensity: float | None
    variant: str
    variant_propensity: float | None
    release: str
    fallback: str = ""
    review: bool = False


class About(msgspec.Struct, frozen=True):
    """The model that answers: ``columns`` of a row with their types, the number of the release, and the classes of a multiclass score.

    ``acts`` are the declared acts; empty when an act is a number (``score`` and ``quantile`` policies). ``keys`` are the columns of a row's key.
    """

    name: str
    number: int
    release: str
    task: str
    columns: Mapping[str, pl.DataType]
    needed: frozenset[str]
    classes: tuple[str, ...] = ()
    acts: tuple[Any, ...] = (False, True)
    keys: tuple[str, ...] = ()


class Feed(NamedTuple):
    """A source whose events come by HTTP: its columns as they are frozen (name → SQL type, empty before the first rows), and what an event needs.

    ``times`` are those of the needed columns that hold times; ``own_id`` says that ``id`` is a column of the source: then events are told apart by
    all that they say.
    """

    name: str
    columns: Mapping[str, str]
    needed: tuple[str, ...]
    times: tuple[str, ...]
    own_id: bool


class Answering(Protocol):
    """What the protocols speak to: rows in, answers out, each validated, scored and logged."""

    def about(self) -> About:
        """What answers now."""
        ...

    def ready(self) -> bool:
        """Whether it can answer."""
        ...

    async def answer(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> list[Answer]:
        """Answers each row, in order, as of ``asked`` (``None``: now).

        A row is a mapping of column to a plain value: text, number, boolean, or a time as ISO text. Raises ``FieldError`` that names the row
        and the field (``rows[3].distance``) and then none of them was answered, ``Unavailable`` when the log cannot be written.
        """
        ...

    async def answered(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> tuple[About, list[Answer]]:
        """The same, with what it was that answered: a release may come while a request is under way."""
        ...


Handler = Callable[[Answering, Call], Awaitable[Reply]]


class Route(NamedTuple):
    """One page of the service: ``pattern`` names the open parts of the path as ``{name}``, ``about`` says what it does."""

    method: str
    pattern: str
    handler: Handler
    about: str
