"""Clients that do not behave: raw sockets that say wrong things to an HTTP/1.1 server, slowly, in parts, or without end.

Each function does one wrong thing at one server, whichever it is, and returns what the server did (``Seen``). None of them judges: that is
the test's. ``At`` says where the server is and how a right request to it looks; a wrong one differs from that in one place only.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from noria.core import stopwatch

END = b"\r\n"
BLOCK = 65_536


@dataclass(frozen=True)
class At:
    """A server and a right request to it. ``patience`` is how many seconds its answer is waited for."""

    port: int
    host: str = "127.0.0.1"
    route: str = "/v1/predict"
    body: bytes = b"{}"
    token: str = ""
    patience: float = 15.0

    @property
    def headers(self) -> dict[str, str]:
        """Those of a right request, without its length."""
        allowed = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Host": f"{self.host}:{self.port}", "Content-Type": "application/json", **allowed}

    def head(self, more: Iterable[tuple[str, str]] = (), *, without: str = "", method: str = "POST") -> bytes:
        """The head of a request: its own headers except ``without``, and ``more``; the empty line is part of it."""
        pairs = [(name, value) for name, value in self.headers.items() if name != without]
        lines = [f"{method} {self.route} HTTP/1.1", *(f"{name}: {value}" for name, value in [*pairs, *more])]
        return "\r\n".join(lines).encode("latin-1") + 2 * END

    def request(self, more: Iterable[tuple[str, str]] = (), *, without: str = "") -> bytes:
        """A whole request with its length."""
        return self.head([*more, ("Content-Length", str(len(self.body)))], without=without) + self.body


@dataclass(frozen=True)
class Seen:
    """What a server did with one connection.

    Parameters
    ----------
    statuses, bodies:
        Of every complete answer, in order. Interim answers (1xx) are not among them.
    closed:
        Whether the server ended the connection.
    seconds:
        From the first byte until the connection ended or the waiting did.
    taken:
        Bytes of the request that were handed over before the server stopped taking them.
    """

    statuses: tuple[int, ...]
    bodies: tuple[bytes, ...]
    closed: bool
    seconds: float
    taken: int

    @property
    def status(self) -> int | None:
        """The first answer's, ``None`` when there was none."""
        return self.statuses[0] if self.statuses else None

    @property
    def refused(self) -> bool:
        """No answer but a refusal: a 4xx, or the connection ended without any."""
        return all(400 <= status < 500 for status in self.statuses) and (self.closed or bool(self.statuses))


@dataclass
class Line:
    """A connection: what was sent, and what came back."""

    at: At
    socket: socket.socket
    begun: float = field(default_factory=stopwatch)
    received: bytearray = field(default_factory=bytearray)
    taken: int = 0
    closed: bool = False

    def send(self, data: bytes) -> bool:
        """Hands over ``data`` as far as the server takes it; ``False`` when it has answered or gone before the end."""
        view = memoryview(data)
        while view:
            readable, writable, _ = select.select([self.socket], [self.socket], [], self.at.patience)
            if readable and not self._read():
                return False
            if readable and self.answers():
                return False
            if not readable and not writable:
                return False
            if writable:
                try:
                    count = self.socket.send(view[:BLOCK])
                except OSError:
                    self.closed = True
                    return False
                self.taken += count
                view = view[count:]
        return True

    def quiet(self, seconds: float) -> bool:
        """Waits; ``False`` as soon as the server has answered or gone."""
        readable, _, _ = select.select([self.socket], [], [], seconds)
        return not readable or (self._read() and not self.answers())

    def answers(self) -> list[tuple[int, bytes]]:
        """Every complete answer so far."""
        return list(_answers(bytes(self.received)))

    def see(self, count: int = 1, *, until_closed: bool = False, patience: float | None = None) -> Seen:
        """Waits for ``count`` answers (or the end of the connection) as long as the patience lasts."""
        end = stopwatch() + (self.at.patience if patience is None else patience)
        while not self.closed and (until_closed or len(self.answers()) < count):
            left = end - stopwatch()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                break
            self._read()
        found = self.answers()
        return Seen(
            tuple(status for status, _ in found),
            tuple(body for _, body in found),
            self.closed,
            stopwatch() - self.begun,
            self.taken,
        )

    def _read(self) -> bool:
        try:
            data = self.socket.recv(BLOCK)
        except OSError:
            data = b""
        self.received += data
        self.closed = self.closed or not data
        return bool(data)


@contextlib.contextmanager
def line(at: At) -> Iterator[Line]:
    """A connection to the server, closed afterwards."""
    with socket.create_connection((at.host, at.port), timeout=at.patience) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Line(at, connection)


def _answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The complete answers in what came; the final ones only."""
    while (end := data.find(2 * END)) >= 0:
        first, *rest = data[:end].split(END)
        status = int(first.split()[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (item.partition(b":") for item in rest)}
        body = data[end + 4 :]
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            whole = _unchunked(body)
            if whole is None:
                return
            content, data = whole
        else:
            length = 0 if status < 200 or status in (204, 304) else int(headers.get(b"content-length", b"0"))
            if len(body) < length:
                return
            content, data = body[:length], body[length:]
        if status >= 200:
            yield status, content


def _unchunked(data: bytes) -> tuple[bytes, bytes] | None:
    """A chunked body and what follows it; ``None`` while it is not complete."""
    content = b""
    while (end := data.find(END)) >= 0:
        size = int(data[:end].split(b";")[0], 16)
        if len(data) < end + 2 + size + 2:
            return None
        content += data[end + 2 : end + 2 + size]
        data = data[end + 2 + size + 2 :]
        if size == 0:
            return content, data
    return None


def once(at: At, data: bytes, *, count: int = 1) -> Seen:
    """Sends ``data`` and waits for ``count`` answers."""
    with line(at) as connection:
        connection.send(data)
        return connection.see(count)


def right(at: At) -> Seen:
    """A request as it should be."""
    return once(at, at.request())


# -------------------------------------------------------------------------------------------------------------------- slow


def slow_headers(at: At, *, pace: float = 0.2, longest: float = 15.0) -> Seen:
    """A request whose head grows by a byte every ``pace`` seconds and never ends, for ``longest`` seconds at most."""
    with line(at) as connection:
        connection.send(at.head()[: -len(END)])
        return _drip(connection, b"X-Slow: " + b"a" * 10_000, pace, longest)


def slow_body(at: At, *, pace: float = 0.2, longest: float = 15.0) -> Seen:
    """A request whose body comes a byte every ``pace`` seconds and is never complete."""
    with line(at) as connection:
        connection.send(at.head([("Content-Length", "10000")]))
        return _drip(connection, b" " * 9_999, pace, longest)


def silent(at: At, *, longest: float = 15.0) -> Seen:
    """A connection on which nothing is ever said."""
    with line(at) as connection:
        return connection.see(until_closed=True, patience=longest)


def _drip(connection: Line, data: bytes, pace: float, longest: float) -> Seen:
    for byte in data:
        if stopwatch() - connection.begun > longest or not connection.send(bytes([byte])) or not connection.quiet(pace):
            break
    return connection.see(until_closed=True, patience=max(0.0, longest - (stopwatch() - connection.begun)))


# ----------------------------------------------------------------------------------------------------------------- framing


def both_lengths(at: At) -> Seen:
    """``Content-Length`` and ``Transfer-Encoding`` in one request: two servers in a row could read two different requests."""
    chunks = f"{len(at.body):x}".encode() + END + at.body + END + b"0" + 2 * END
    return once(at, at.head([("Content-Length", str(len(at.body))), ("Transfer-Encoding", "chunked")]) + chunks)


def two_lengths(at: At, *, same: bool = False) -> Seen:
    """Two ``Content-Length`` headers that differ, or (``same``) agree."""
    lengths = (len(at.body), len(at.body) + (0 if same else 5))
    return once(at, at.head([("Content-Length", str(length)) for length in lengths]) + at.body)


def odd_length(at: At, length: str) -> Seen:
    """A ``Content-Length`` that is no number of bytes, such as ``-1`` or ``+5``."""
    return once(at, at.head([("Content-Length", length)]) + at.body)


def bad_chunk(at: At) -> Seen:
    """A chunk whose size is no number."""
    return once(at, at.head([("Transfer-Encoding", "chunked")]) + b"zz" + END + at.body + END)


def no_host(at: At) -> Seen:
    """No ``Host`` header."""
    return once(at, at.request(without="Host"))


def wrong_host(at: At, name: str = "elsewhere.example") -> Seen:
    """A ``Host`` that is not the server's: what a browser sends when a page's name was pointed at this machine."""
    return once(at, at.request([("Host", name)], without="Host"))


def two_hosts(at: At, name: str = "elsewhere.example") -> Seen:
    """The right ``Host`` and another."""
    return once(at, at.request([("Host", name)]))


def not_http(at: At) -> Seen:
    """Bytes that are no HTTP at all."""
    return once(at, bytes(range(256)) * 4 + 2 * END)


def huge_header(at: At, size: int = 1_000_000) -> Seen:
    """One header of a megabyte."""
    return once(at, at.request([("X-Huge", "a" * size)]))


# ------------------------------------------------------------------------------------------------------------------- large


def large_declared(at: At, size: int = 100_000_000) -> Seen:
    """A body of ``size`` bytes, as its length says from the start. It is sent on for as long as the server takes it."""
    with line(at) as connection:
        if connection.send(at.head([("Content-Length", str(size))])):
            _stream(connection, size, lambda block: block)
        return connection.see()


def large_promised(at: At, size: int = 100_000_000) -> Seen:
    """A length of ``size`` bytes, and then nothing until the server has answered: it can refuse before reading."""
    with line(at) as connection:
        connection.send(at.head([("Content-Length", str(size))]))
        return connection.see()


def large_chunked(at: At, size: int = 100_000_000) -> Seen:
    """The same body in chunks, so that no length is declared."""
    with line(at) as connection:
        if connection.send(at.head([("Transfer-Encoding", "chunked")])) and _stream(connection, size, _chunk):
            connection.send(b"0" + 2 * END)
        return connection.see()


def gzip_bomb(at: At, size: int = 100_000_000) -> Seen:
    """A small body that becomes ``size`` bytes of JSON for whoever unpacks it."""
    packed = gzip.compress(b'{"row": "' + b" " * size + b'"}')
    return once(at, _with(at, packed).request([("Content-Encoding", "gzip")]))


def _chunk(block: bytes) -> bytes:
    return f"{len(block):x}".encode() + END + block + END


def _stream(connection: Line, size: int, wrap: Any) -> bool:
    block = b'"' + b"a" * (BLOCK - 1)
    left = size
    while left:
        part = block[: min(left, BLOCK)]
        if not connection.send(wrap(part)):
            return False
        left -= len(part)
    return True


# -------------------------------------------------------------------------------------------------------------------- JSON


def deep_nesting(at: At, depth: int = 100_000) -> Seen:
    """JSON that is nested deeper than a parser's stack."""
    return right(_with(at, b'{"row": ' + b"[" * depth + b"]" * depth + b"}"))


def bad_utf8(at: At) -> Seen:
    """Bytes in a text that are no UTF-8."""
    return right(_with(at, b'{"row": {"name": "\xff\xfe\xc3"}}'))


def duplicate_keys(at: At, name: str = "row") -> Seen:
    """The request's own body with one key twice, the second time with the same value: parsers disagree on which one counts."""
    given = json.loads(at.body)
    pairs = [*given.items(), (name, given.get(name))] if name in given else [(name, None), (name, None)]
    text = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    return right(_with(at, f"{{{text}}}".encode()))


def not_finite(at: At, number: str) -> Seen:
    """A number that JSON does not have, or that no float holds: ``NaN``, ``Infinity``, ``1e999``."""
    return right(_with(at, f'{{"row": {{"x": {number}}}}}'.encode()))


def _with(at: At, body: bytes) -> At:
    return replace(at, body=body)


# -------------------------------------------------------------------------------------------------------------- connections


def pipelined(at: At, count: int = 20) -> Seen:
    """Several requests sent at once, before any answer."""
    return once(at, at.request() * count, count=count)


def pipelined_bodies(at: At, bodies: Iterable[bytes]) -> Seen:
    """The same with a body each: the answers have to come in the requests' order."""
    asked = list(bodies)
    return once(at, b"".join(_with(at, body).request() for body in asked), count=len(asked))


def half_closed(at: At) -> Seen:
    """A whole request, after which the client says that it will send no more but waits for the answer."""
    with line(at) as connection:
        connection.send(at.request())
        connection.socket.shutdown(socket.SHUT_WR)
        return connection.see(until_closed=True)


def broken_off(at: At) -> Seen:
    """Half a body, and then the client will send no more."""
    with line(at) as connection:
        connection.send(at.head([("Content-Length", str(len(at.body) + 100))]) + at.body)
        connection.socket.shutdown(socket.SHUT_WR)
        return connection.see(until_closed=True)


def gone(at: At) -> Seen:
    """A client that resets its connection in mid-answer; what is returned is a right request's, by another client afterwards."""
    with line(at) as connection:
        connection.send(at.request())
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return right(at)


def byte_by_byte(at: At) -> Seen:
    """A right request in segments of one byte: it is right all the same."""
    with line(at) as connection:
        for byte in at.request():
            if not connection.send(bytes([byte])):
                break
        return connection.see()
