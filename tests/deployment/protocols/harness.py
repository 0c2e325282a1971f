"""A service to speak the protocols to: a rule that anyone can compute, behind a real server on a real port of this machine."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import polars as pl
from granian.constants import Interfaces
from granian.server.embed import Server

from noria.core import Unavailable
from noria.deployment.service import invocations, oip
from noria.deployment.service.contract import About, Answer, Call, Limits, Reply
from noria.deployment.service.openapi import document
from noria.deployment.service.rows import FieldError
from noria.deployment.service.wire import replied

ROUTES = (*oip.ROUTES, *invocations.ROUTES)
TOKEN = "a-token-for-the-protocols"
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


class Application:
    """The smallest router and door that there can be: a token, the routes, and one shape of error."""

    def __init__(self, service: Fake, limits: Limits) -> None:
        self.service = service
        self.limits = limits
        self.routes = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.pattern)), route) for route in ROUTES]

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        body = await protocol()
        reply = await self._reply(scope, body)
        protocol.response_bytes(reply.status, list(reply.headers), reply.body)

    async def _reply(self, scope: Any, body: bytes) -> Reply:
        headers = dict(scope.headers.items())
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return replied({"error": "the token is missing or wrong"}, 401)
        if scope.path == "/openapi.json" and scope.method == "GET":
            return replied(document(self.service.about(), self.limits))
        found = [(match, route) for pattern, route in self.routes if (match := pattern.fullmatch(scope.path))]
        for match, route in found:
            if route.method == scope.method:
                params = {name: unquote(text) for name, text in match.groupdict().items()}
                call = Call(scope.method, scope.path, scope.query_string, headers, body, params, self.limits)
                return await route.handler(self.service, call)
        said = replied({"error": "this page takes another method" if found else "there is no such page"}, 405 if found else 404)
        allow = (("allow", ", ".join(sorted({route.method for _, route in found}))),) if found else ()
        return Reply(said.status, said.body, (*said.headers, *allow))


class Served(NamedTuple):
    """Where a service is listening, and what it answers with."""

    url: str
    token: str
    service: Fake

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        said = {"authorization": f"Bearer {self.token}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        asked = urllib.request.Request(self.url + path, body, said)
        try:
            with urllib.request.urlopen(asked, timeout=10) as found:
                return found.status, {name.lower(): text for name, text in found.headers.items()}, found.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {name.lower(): text for name, text in error.headers.items()}, error.read()


class Running:
    """A server in a thread of its own, from ``with`` to its end."""

    def __init__(self, service: Fake, limits: Limits | None = None) -> None:
        self.service = service
        self.limits = limits or Limits()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        self._server = Server(
            Application(self.service, self.limits),
            address="127.0.0.1",
            port=self.port,
            interface=Interfaces.RSGI,
            websockets=False,
            log_enabled=False,
        )
        asyncio.run(main())

    def __enter__(self) -> Served:
        self._thread.start()
        while self._thread.is_alive():
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.05).close()
                break
            except OSError:
                self._thread.join(0.01)
        return Served(f"http://127.0.0.1:{self.port}", TOKEN, self.service)

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(10)


def call(body: bytes = b"", *, limits: Limits | None = None, headers: Mapping[str, str] | None = None, **params: str) -> Call:
    """A call as the door would hand it over, without a door."""
    return Call("POST", "/", "", headers or {}, body, params, limits or Limits())


def said(reply: Reply) -> Any:
    return json.loads(reply.body)


__all__ = ["MIXED", "NUMBERS", "Fake", "Limits", "Running", "Served", "call", "said"]
