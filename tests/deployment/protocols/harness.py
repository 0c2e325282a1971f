"""A stand-in for what answers, for tests of the handlers alone: it keeps which rows were understood, and can be unable to answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from noria.core import Unavailable
from noria.deployment.service.contract import About, Answer, Call, Limits, Reply
from noria.deployment.service.rows import FieldError

TIME = pl.Datetime("us", "UTC")
MIXED = About(
    name="late-flights",
    number=7,
    release="sha-of-7",
    task="binary",
    columns={
        "carrier": pl.String(),
        "distance": pl.Int64(),
        "delay": pl.Float64(),
        "sunny": pl.Boolean(),
        "planned": TIME,
        "note": pl.String(),
    },
    needed=frozenset({"carrier", "distance", "delay", "sunny", "planned"}),
)
NUMBERS = About(
    name="demand",
    number=1,
    release="sha-of-1",
    task="multiclass",
    columns={"a": pl.Float64(), "spare": pl.String(), "b": pl.Int64(), "c": pl.Float32()},
    needed=frozenset({"a", "b", "c"}),
    classes=("low", "middle", "high"),
    acts=("wait", "buy", "sell"),
)


class Fake:
    """Answers by a rule: the score is a squashed sum over what the row says. Every third row waits for a person."""

    def __init__(self, about: About = MIXED) -> None:
        self.says = about
        self.able = True
        self.asked: list[Mapping[str, Any]] = []

    def about(self) -> About:
        return self.says

    def ready(self) -> bool:
        return self.able

    async def answer(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> list[Answer]:
        if not self.able:
            raise Unavailable("there is no release", hint="promote one")
        for index, row in enumerate(rows):
            self._check(row, index)
        self.asked = list(rows)
        return [self.one(row, index) for index, row in enumerate(rows)]

    async def answered(self, rows: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> tuple[About, list[Answer]]:
        return self.says, await self.answer(rows, asked)

    def one(self, row: Mapping[str, Any], index: int) -> Answer:
        score = 1 / (1 + math.exp(-math.fsum(weight(value) for value in row.values())))
        scores = (score / 2, 1 - score, score / 2) if self.says.classes else None
        waits = index % 3 == 2
        act = self.says.acts[int(score > 0.5)] if self.says.acts else score
        return Answer(
            id=f"é{index}@20240101T000000Z",
            score=score,
            scores=scores,
            act=None if waits else act,
            act_propensity=1.0,
            variant="champion",
            variant_propensity=1.0,
            release=self.says.release,
            fallback="timeout" if index % 2 else "",
            review=waits,
        )

    def _check(self, row: Mapping[str, Any], index: int) -> None:
        place = f"rows[{index}]"
        for name in row:
            if name not in self.says.columns:
                raise FieldError(f"{place}.{name if name.isidentifier() else '…'}: there is no such field")
        for name, kind in self.says.columns.items():
            if name in row and not fits(row[name], kind):
                raise FieldError(f"{place}.{name}: it is not a {kind}")
            if name in self.says.needed and name not in row:
                raise FieldError(f"{place}.{name}: it is missing")


def weight(value: Any) -> float:
    """What a value adds to the score."""
    if isinstance(value, str):
        return sum(value.encode()) % 7 / 7
    return math.atan(float(value)) / 3


def fits(value: Any, kind: pl.DataType) -> bool:
    if kind == pl.String:
        return isinstance(value, str)
    if kind == pl.Boolean:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind.is_integer():
        return isinstance(value, int) and -(2**63) <= value < 2**63
    if kind.is_numeric():
        return isinstance(value, int | float) and abs(value) <= 1.7976931348623157e308
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def call(body: bytes = b"", *, limits: Limits | None = None, headers: Mapping[str, str] | None = None, **params: str) -> Call:
    """A call as the door would hand it over, without a door."""
    return Call("POST", "/", "", headers or {}, body, params, limits or Limits())


def said(reply: Reply) -> Any:
    return json.loads(reply.body)


__all__ = ["MIXED", "NUMBERS", "Fake", "Limits", "call", "said"]
