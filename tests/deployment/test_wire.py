"""The clients that do not behave, tried on a server whose ways are known: Granian alone, sending back what it gets."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ECHO = """
async def app(_, protocol):
    protocol.response_bytes(200, [("content-type", "application/json")], await protocol())
"""
HEADER_MS = 1000


@pytest.fixture(scope="module")
def at(wire: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The echo, with a time-out for headers."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.py").write_text(ECHO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    granian = str(Path(sys.executable).with_name("granian"))
    options = ["--interface", "rsgi", "--http", "1", "--no-ws", "--http1-header-read-timeout", str(HEADER_MS), "--no-log"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(folder), "echo:app"]
    process = subprocess.Popen([granian, *options, *where])
    try:
        at = wire.At(port, body=b'{"row": {"x": 1}}', patience=10.0)
        while True:
            assert process.poll() is None
            try:
                wire.right(at)
            except ConnectionRefusedError:
                continue
            break
        yield at
    finally:
        process.terminate()
        process.wait()


def test_a_right_request(wire: ModuleType, at: Any) -> None:
    seen = wire.right(at)
    assert (seen.statuses, seen.bodies, seen.closed, seen.refused) == ((200,), (at.body,), False, False)
    assert seen.taken == len(at.request())


@pytest.mark.parametrize(
    ("client", "sent"),
    [
        ("bad_utf8", b'{"row": {"name": "\xff\xfe\xc3"}}'),
        ("duplicate_keys", b'{"row": {"x": 1}, "row": {"x": 1}}'),
        ("byte_by_byte", b'{"row": {"x": 1}}'),
        ("gone", b'{"row": {"x": 1}}'),
        ("wrong_host", b'{"row": {"x": 1}}'),
        ("both_lengths", b'{"row": {"x": 1}}'),
    ],
)
def test_what_the_echo_takes(wire: ModuleType, at: Any, client: str, sent: bytes) -> None:
    seen = getattr(wire, client)(at)
    assert (seen.statuses, seen.bodies) == ((200,), (sent,))


def test_large_bodies_are_sent_to_the_end(wire: ModuleType, at: Any) -> None:
    size = 3_000_000
    for client in (wire.large_declared, wire.large_chunked):
        seen = client(at, size)
        assert (seen.status, len(seen.bodies[0])) == (200, size)
        assert seen.taken > size
    assert wire.deep_nesting(at, 1000).bodies == (b'{"row": ' + b"[" * 1000 + b"]" * 1000 + b"}",)
    assert len(gzip.decompress(wire.gzip_bomb(at, size).bodies[0])) > size
    assert wire.not_finite(at, "1e999").bodies == (b'{"row": {"x": 1e999}}',)


def test_answers_come_in_the_order_of_the_requests(wire: ModuleType, at: Any) -> None:
    assert wire.pipelined(at, 30).statuses == (200,) * 30
    bodies = [f'{{"row": {number}}}'.encode() * (number + 1) for number in range(10)]
    assert wire.pipelined_bodies(at, bodies).bodies == tuple(bodies)


def test_framing_that_no_server_takes(wire: ModuleType, at: Any) -> None:
    found = [
        wire.two_lengths(at),
        wire.odd_length(at, "-1"),
        wire.not_http(at),
        wire.huge_header(at),
    ]
    assert all(seen.refused for seen in found), found
    assert wire.bad_chunk(at).status == 500  # the body's error is the application's, and the echo does not catch it
    assert not wire.bad_chunk(at).refused


def test_slow_headers_end_and_slow_bodies_do_not(wire: ModuleType, at: Any) -> None:
    seen = wire.slow_headers(at, pace=0.05, longest=8.0)
    assert (seen.closed, seen.refused) == (True, True)
    assert HEADER_MS / 2000 < seen.seconds < 8.0
    slow = wire.slow_body(at, pace=0.05, longest=1.5)
    assert (slow.statuses, slow.closed) == ((), False)
    assert not slow.refused
    kept = wire.large_promised(wire.replace(at, patience=0.5))
    assert (kept.status, kept.closed) == (None, False)


def test_clients_that_stop_sending(wire: ModuleType, at: Any) -> None:
    seen = wire.broken_off(at)
    assert seen.closed
    assert at.body not in seen.bodies
    half = wire.half_closed(
        at
    )  # Granian takes the end of the requests for the end of the connection, unless the answer is out by then
    assert half.closed
    assert half.bodies in ((), (at.body,))
    assert wire.right(at).status == 200
    silent = wire.silent(at, longest=8.0)
    assert (silent.statuses, silent.closed) == ((), True)


def test_an_answer_is_complete_or_not_there(wire: ModuleType) -> None:
    chunked = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    )
    plain = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"
    whole = chunked + plain
    expected = {len(chunked): 1, len(whole): 2}
    for end in range(len(whole) + 1):
        found = list(wire._answers(whole[:end]))
        assert found == [(200, b"abcde"), (404, b"no")][: sum(end >= place for place in expected)]
