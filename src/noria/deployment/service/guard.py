"""What stands before every route of the service: host, origin, token and size. One door, so no route can be without it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noria.core import NoriaError, Refused, SettingsError, canonical
from noria.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SHORTEST_TOKEN = 16
BODY_SECONDS = 10.0
LONGEST_LENGTH = 18


class _Stop(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, error: NoriaError) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


class Guard:
    """An ASGI application around another one: whatever is not allowed never reaches it.

    In this order: the ``Host`` has to be ours (a page elsewhere may have pointed its name at this machine), an ``Origin`` on an
    unsafe method has to be the host itself, the bearer token has to be right, and the body has to keep to its limit, by its declared
    length and while it is read. Every refusal is ``NoriaError.as_json`` and repeats nothing of the request.
    """

    def __init__(self, app: App, *, token: str, hosts: frozenset[str], addresses: bool, body_limit: int) -> None:
        """``hosts`` are the names this service answers to, ``addresses`` whether bare IP addresses are such names too."""
        self._app = app
        self._token = token.encode()
        self._hosts = hosts
        self._addresses = addresses
        self._limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            headers = _headers(scope)
            self._check_host(headers)
            self._check_origin(scope, headers)
            self._check_token(headers)
            body = await self._body(headers, receive)
        except _Stop as stop:
            await refuse(send, stop.status, stop.error)
            return
        await self._app(scope, _replay(body, receive), send)

    def _check_host(self, headers: dict[str, str]) -> None:
        name = _hostname("//" + headers.get("host", ""))
        if not name:
            raise _Stop(400, Refused("the request names no host", hint="send a Host header"))
        if name not in self._hosts and not (self._addresses and _is_address(name)):
            raise _Stop(421, Refused("this service does not answer to that host", hint="use the address it listens at"))

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        if scope["method"] in SAFE:
            return
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers["host"]:
            raise _Stop(403, Refused("a page of another origin may not do this", hint="call the service without a browser"))
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _Stop(403, Refused("a page of another site may not do this", hint="call the service without a browser"))

    def _check_token(self, headers: dict[str, str]) -> None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            raise _Stop(
                401,
                Refused(
                    "the token is missing or wrong",
                    hint="send `Authorization: Bearer …`; the token is in the home, service/token",
                ),
            )

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        said = headers.get("content-length")
        if said is not None and "transfer-encoding" in headers:
            raise _Stop(
                400, Refused("the request states its length in two ways", hint="send Content-Length or Transfer-Encoding")
            )
        if said is not None and not said.isdecimal():
            raise _Stop(400, Refused("Content-Length is not a number"))
        if said is not None and (len(said) > LONGEST_LENGTH or int(said) > self._limit):
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Stop(400, Refused("the request broke off"))
                    body += message.get("body", b"")
                    if len(body) > self._limit:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise _Stop(408, Refused(f"the body did not come within {BODY_SECONDS:g} s")) from None

    def _too_large(self) -> _Stop:
        return _Stop(
            413, Refused(f"the body is larger than {self._limit} bytes", hint="send fewer rows, or raise NORIA_BODY_LIMIT_BYTES")
        )


def guarded(app: App, settings: Settings, token: str) -> Guard:
    """``app`` behind the door that ``settings`` ask for."""
    return Guard(
        app,
        token=token,
        hosts=LOCAL | {settings.host},
        addresses=not is_loopback(settings.host),
        body_limit=settings.body_limit_bytes,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def token_of(folder: Path, settings: Settings) -> str:
    """The token: from the settings, or random, made at the first start in ``folder/token`` that only its owner can read.

    Raises ``SettingsError`` for a short one, ``Refused`` when others can read the file.
    """
    if settings.token:
        if len(settings.token) < SHORTEST_TOKEN:
            raise SettingsError(f"NORIA_TOKEN has fewer than {SHORTEST_TOKEN} characters", hint="leave it empty and one is made")
        return settings.token
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "token"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
    if path.stat().st_mode & 0o077:
        raise Refused(f"others can read {path}", hint=f"chmod 600 {path}, or delete it and a new token is made")
    found = path.read_text().strip()
    if len(found) < SHORTEST_TOKEN:
        raise Refused(f"{path} holds no token", hint="delete it and a new token is made")
    return found


async def refuse(send: Send, status: int, error: NoriaError) -> None:
    """Answers with an error as JSON."""
    body = canonical(error.as_json())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "content-length", "authorization", "origin"):
            raise _Stop(400, Refused(f"the request has two {key} headers"))
        found[key] = value.decode("latin-1")
    return found


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str | None:
    """A URL's host and port; ``None`` when it is no URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the inner application the body that was read, and then whatever comes (the disconnect)."""
    sent = False

    async def inner() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return inner
