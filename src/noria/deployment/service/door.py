"""What stands before every route of the service: host, origin, token and size. One door, so no route can be without it.

In this order: the ``Host`` has to be ours (a page elsewhere may have pointed its name at this machine), an ``Origin`` on an unsafe method has to
be the host itself, the bearer token has to be right, and the body has to keep to its limit, by its declared length and while it is read.
Every refusal is ``NoriaError.as_json`` and repeats nothing of the request.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.core import NoriaError, Refused, SettingsError, canonical
from noria.deployment.service.contract import JSON, Reply
from noria.settings import Settings

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SHORTEST_TOKEN = 16
BODY_SECONDS = 10.0
DRAINED = 1_048_576
LONGEST_LENGTH = 18
ONCE = (
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "authorization",
    "origin",
    "sec-fetch-site",
    "inference-header-content-length",
)
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(:[0-9]{0,5})?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(.{1,300})", re.IGNORECASE)


class Stop(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, error: NoriaError) -> None:
        super().__init__(error.message)
        self.reply = refusal(status, error)


class Door:
    """Decides whether a request may come in, and reads its body."""

    def __init__(self, settings: Settings, token: str) -> None:
        self._bearer = f"Bearer {token}".encode()
        self._hosts = LOCAL | {_plain(name.strip()) for name in (settings.host, *settings.hosts.split(",")) if name.strip()}
        self._addresses = not is_loopback(settings.host)
        self._limit = settings.body_limit_bytes
        self._ours: dict[str, bool] = {}
        self._reading: dict[asyncio.Task[Any], float] = {}

    def headers(self, given: Any) -> dict[str, str]:
        """The headers by lower-case name. Raises ``Stop`` for one that may come once and came twice."""
        items = given.items()
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            for name in ONCE:
                if names.count(name) > 1:
                    raise Stop(400, Refused(f"the request has two {name} headers"))
        return found

    def check(self, method: str, headers: Mapping[str, str], authority: str | None = None) -> None:
        """Raises ``Stop`` for whoever may not come in. ``authority`` is the host of a whole URL in the request's first line."""
        host = headers.get("host", "")
        if not self._ours.get(host):
            self._check_host(host)
        if authority is not None and not self._ours.get(authority):
            self._check_host(authority)
        if method not in SAFE and ("origin" in headers or "sec-fetch-site" in headers):
            self._check_origin(headers, host)
        if not hmac.compare_digest(headers.get("authorization", "").encode("utf-8", "replace"), self._bearer):
            self._check_token(headers.get("authorization", ""))

    def _check_host(self, host: str) -> None:
        form = _HOST.fullmatch(host)
        if form is None:
            raise Stop(400, Refused("the request names no host", hint="send a Host header"))
        name = _plain(form[1])
        if name not in self._hosts and not (self._addresses and _is_address(name)):
            raise Stop(421, Refused("this service does not answer to that host", hint="use the address it listens at"))
        if len(self._ours) < 64:
            self._ours[host] = True

    def _check_origin(self, headers: Mapping[str, str], host: str) -> None:
        origin = headers.get("origin")
        form = _ORIGIN.fullmatch(origin) if origin is not None else None
        if origin is not None and (form is None or form[1].lower() != host.lower()):
            raise Stop(403, Refused("a page of another origin may not do this", hint="call the service without a browser"))
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Stop(403, Refused("a page of another site may not do this", hint="call the service without a browser"))

    def _check_token(self, given: str) -> None:
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            b"Bearer " + token.strip().encode("utf-8", "replace"), self._bearer
        ):
            hint = "send `Authorization: Bearer …`; the token is in the home, service/token"
            raise Stop(401, Refused("the token is missing or wrong", hint=hint))

    async def body(self, headers: Mapping[str, str], protocol: Any) -> bytes:
        """The request's body. Raises ``Stop`` when it is too large, too slow, or states its length in two ways."""
        said = headers.get("content-length")
        if said is not None:
            if "transfer-encoding" in headers:
                hint = "send Content-Length or Transfer-Encoding"
                raise Stop(400, Refused("the request states its length in two ways", hint=hint))
            if not said.isdecimal():
                raise Stop(400, Refused("Content-Length is not a number"))
            if len(said) > LONGEST_LENGTH or int(said) > self._limit:
                raise self._too_large()
        elif "transfer-encoding" not in headers:
            return b""
        elif headers["transfer-encoding"].lower() != "chunked":
            raise Stop(400, Refused("the body comes in a coding that is not known", hint="send Content-Length, or chunked"))
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = task.get_loop().time()
        try:
            if said is not None:
                body: bytes = await protocol()
                return body
            return await self._pieces(protocol)
        except asyncio.CancelledError:
            if self._reading.get(task) != -1.0:
                raise
            raise Stop(408, Refused(f"the body did not come within {BODY_SECONDS:g} s")) from None
        except RuntimeError:  # the caller has gone, or what came is no HTTP
            raise _broken_off() from None
        finally:
            del self._reading[task]

    async def _pieces(self, protocol: Any) -> bytes:
        """A body in pieces. Granian ends each with an empty one, and says by another that the rest did not come (or came with trailers)."""
        whole, size, ends = bytearray(), 0, 0
        async for piece in protocol:
            size += len(piece)
            ends += not piece
            if size <= self._limit:
                whole += piece
            elif size > self._limit + DRAINED:
                raise self._too_large()
        if size > self._limit:  # read to its end without keeping it: a caller who is still sending would miss the refusal
            raise self._too_large()
        if ends > 1:
            raise _broken_off()
        return bytes(whole)

    def hurry(self, now: float) -> None:
        """Gives up the bodies that have been coming for too long; called about once a second with the loop's time."""
        for task, begun in list(self._reading.items()):
            if 0 <= begun <= now - BODY_SECONDS:
                self._reading[task] = -1.0
                task.cancel()

    def _too_large(self) -> Stop:
        hint = "send fewer rows, or raise NORIA_BODY_LIMIT_BYTES"
        return Stop(413, Refused(f"the body is larger than {self._limit} bytes", hint=hint))


def refusal(status: int, error: NoriaError) -> Reply:
    """An error as a reply."""
    more = (("www-authenticate", "Bearer"),) if status == 401 else (("retry-after", "1"),) if status == 503 else ()
    return Reply(status, canonical(error.as_json()), (*JSON, *more))


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


def _broken_off() -> Stop:
    return Stop(400, Refused("the body did not come to its end", hint="send it whole, without trailers"))


def _plain(host: str) -> str:
    """A host's name in lower case; an address in its shortest form, without brackets.

    >>> _plain("[0:0:0:0:0:0:0:1]"), _plain("LocalHost")
    ('::1', 'localhost')
    """
    name = host.lower().strip("[]")
    return str(ipaddress.ip_address(name)) if _is_address(name) else name


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
