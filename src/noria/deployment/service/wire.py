"""What every protocol does with bytes: undo and do compression, read JSON that means one thing, and say errors in one shape."""

from __future__ import annotations

import re
import zlib
from functools import wraps
from typing import Any

import msgspec

from noria.core import NoriaError, NotFound, Unavailable
from noria.deployment.service.contract import Answering, Call, Handler, Reply
from noria.deployment.service.door import refusal
from noria.deployment.service.rows import FieldError

TEXT = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))
_WORTH = 1_024
"""Bytes from which a reply is compressed: below, the headers cost more than is saved."""
_GZIP, _ZLIB, _BARE = 31, 15, -15
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class TooLarge(FieldError):
    """A body of more bytes than the limit, as sent or when unpacked."""


class Unsupported(FieldError):
    """A form of body that is not understood here."""


STATUS: tuple[tuple[type[NoriaError], int], ...] = (
    (TooLarge, 413),
    (Unsupported, 415),
    (FieldError, 422),
    (NotFound, 404),
    (Unavailable, 503),
)


def failed(error: NoriaError) -> Reply | None:
    """The reply that says what went wrong; ``None`` for what went wrong inside, which is not for the one who asked.

    >>> failed(FieldError("rows[3].distance: it is missing")).body
    b'{"error":"rows[3].distance: it is missing","hint":"","kind":"DataFault"}'
    """
    status = next((code for kind, code in STATUS if isinstance(error, kind)), None)
    return None if status is None else refusal(status, error)


def settled(handler: Handler) -> Handler:
    """``handler``, with the errors that the one who asked can mend as replies. Others are raised."""

    @wraps(handler)
    async def inner(service: Answering, call: Call) -> Reply:
        try:
            return await handler(service, call)
        except NoriaError as error:
            reply = failed(error)
            if reply is None:
                raise
            return reply

    return inner


def replied(value: Any, status: int = 200) -> Reply:
    """``value`` as JSON. A number that is none (NaN) is written as null."""
    return Reply(status, msgspec.json.encode(value))


def media_type(call: Call) -> str:
    """The kind of the body, in lower case and without parameters; empty when the request does not say."""
    return call.headers.get("content-type", "").partition(";")[0].strip().lower()


def unpacked(call: Call) -> bytes:
    """The body with ``content-encoding`` undone. Stops at the limit: what a bomb would become is never made.

    Raises ``Unsupported`` for an unknown or a repeated coding, ``TooLarge``, and ``FieldError`` for what was not packed so.
    """
    coding = call.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return _bounded(call.body, call)
    if coding in ("gzip", "x-gzip"):
        window = _GZIP
    elif coding == "deflate":
        window = _ZLIB if _has_zlib_header(call.body) else _BARE
    else:
        raise Unsupported("content-encoding: it is not known here", hint="send the body as it is, or gzip or deflate")
    machine = zlib.decompressobj(window)
    try:
        found = machine.decompress(call.body, call.limits.body + 1)
    except zlib.error:
        raise FieldError("the body is not what its content-encoding says", hint=f"pack it as {coding}") from None
    _bounded(found, call)
    if not machine.eof:
        raise FieldError("the body ends too early for its content-encoding", hint="send all of it")
    if machine.unused_data:
        raise FieldError("the body goes on after its compressed part", hint="compress the body as one piece")
    return found


def _bounded(body: bytes, call: Call) -> bytes:
    if len(body) > call.limits.body:
        raise TooLarge(f"the body is larger than {call.limits.body} bytes", hint="send fewer rows")
    return body


def _has_zlib_header(body: bytes) -> bool:
    """Both forms are called deflate in the wild; the one with a header says so in its first two bytes."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def packed(reply: Reply, call: Call) -> Reply:
    """``reply`` compressed when the caller takes gzip or deflate and it is large enough to be worth it."""
    if len(reply.body) < _WORTH:
        return reply
    taken = _accepted(call.headers.get("accept-encoding", ""))
    if "gzip" in taken or "*" in taken:
        coding, window = "gzip", _GZIP
    elif "deflate" in taken:
        coding, window = "deflate", _ZLIB
    else:
        return reply
    machine = zlib.compressobj(1, zlib.DEFLATED, window)
    body = machine.compress(reply.body) + machine.flush()
    return Reply(reply.status, body, (*reply.headers, ("content-encoding", coding), ("vary", "accept-encoding")))


def _accepted(header: str) -> set[str]:
    """The codings that a caller takes; one with weight 0 is refused by it."""
    found = set()
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight):
            found.add(name.strip())
    return found


def loads(body: bytes, what: str = "the body") -> Any:
    """JSON that means one thing: UTF-8, each key once, numbers that are numbers, whole characters. Raises ``FieldError``.

    >>> loads(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        found = msgspec.json.decode(body)
    except msgspec.ValidationError:
        raise FieldError(f"{what} holds a number that is too large to be one", hint="send numbers below 1.8e308") from None
    except (ValueError, RecursionError):  # not JSON (NaN is not), not UTF-8, half a character, or too deep
        raise FieldError(f"{what} is not JSON", hint="send JSON as UTF-8, without NaN") from None
    members = _members(found)
    if body.count(b":") != members and _STRING.sub(b"", body).count(b":") != members:
        raise FieldError("a key comes twice in the JSON", hint="send each key once")
    return found


def _members(found: Any) -> int:
    """How many keys there are. Each stands before a colon; where there are more colons than keys, a key came twice."""
    count = 0
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            count += len(one)
            one = one.values()
        elif type(one) is not list:
            continue
        waiting += [inner for inner in one if type(inner) is dict or type(inner) is list]
    return count


def typed(value: Any, kind: type, place: str, said: str) -> Any:
    """``value``, when it is a ``kind`` (a boolean is no number here); raises ``FieldError`` that names the place."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FieldError(f"{place}: it is not {said}", hint=f"{said} is needed")
    return value


def fields(value: Any, place: str, allowed: tuple[str, ...], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """``value``, when it is an object with these fields and no others. ``place`` is empty for the body."""
    found: dict[str, Any] = typed(value, dict, place or "the body", "an object")
    dot = f"{place}." if place else ""
    extra = [name for name in found if name not in allowed]
    if extra:
        shown = extra[0] if re.fullmatch(r"\w{1,63}", extra[0]) else "…"
        raise FieldError(f"{dot}{shown}: there is no such field", hint=f"the fields are {', '.join(allowed)}")
    for name in needed:
        if name not in found:
            raise FieldError(f"{dot}{name}: it is missing", hint=f"needed are {', '.join(needed)}")
    return found
