"""Bytes from outside: what is compressed, what is JSON, and that nothing outside our errors comes of any of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import NoriaError, NotFound, Unavailable
from noria.deployment.service.contract import Limits, Reply
from noria.deployment.service.rows import FieldError
from noria.deployment.service.wire import TooLarge, Unsupported, failed, loads, packed, settled, unpacked


def bare(data: bytes) -> bytes:
    machine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return machine.compress(data) + machine.flush()


PACKERS = {
    "gzip": gzip.compress,
    "X-Gzip": gzip.compress,
    "deflate": zlib.compress,
    " Deflate": bare,
    "identity": bytes,
    "": bytes,
}


@given(data=st.binary(max_size=2_000), coding=st.sampled_from(sorted(PACKERS)))
def test_bodies_are_unpacked(harness: Any, data: bytes, coding: str) -> None:
    assert unpacked(harness.call(PACKERS[coding](data), headers={"content-encoding": coding})) == data


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
def test_the_limit_is_of_what_comes_out(harness: Any, coding: str) -> None:
    limits = Limits(body=1_000)
    at = PACKERS[coding](b"x" * 1_000)
    assert len(unpacked(harness.call(at, headers={"content-encoding": coding}, limits=limits))) == 1_000
    with pytest.raises(TooLarge, match="1000 bytes"):
        unpacked(harness.call(PACKERS[coding](b"x" * 1_001), headers={"content-encoding": coding}, limits=limits))


def test_a_bomb_is_never_unpacked(harness: Any) -> None:
    bomb = gzip.compress(bytes(60_000_000), 9)
    asked = harness.call(bomb, headers={"content-encoding": "gzip"})
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpacked(asked)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * 1_048_576


@pytest.mark.parametrize(
    ("body", "coding", "kind"),
    [
        (gzip.compress(b"hello", mtime=0)[:-1], "gzip", FieldError),
        (gzip.compress(b"hello", mtime=0) + b"!", "gzip", FieldError),
        (gzip.compress(b"a", mtime=0) * 1_000, "gzip", FieldError),  # many small members
        (b"", "gzip", FieldError),
        (b"hello", "gzip", FieldError),
        (b"hello", "br", Unsupported),
        (gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0), "gzip, gzip", Unsupported),
    ],
)
def test_what_is_not_packed_as_said_is_refused(harness: Any, body: bytes, coding: str, kind: type[NoriaError]) -> None:
    with pytest.raises(kind) as raised:
        unpacked(harness.call(body, headers={"content-encoding": coding}))
    assert "hello" not in str(raised.value)


@given(body=st.binary(max_size=200), coding=st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_unpacked_or_refused(harness: Any, body: bytes, coding: str) -> None:
    with suppress(FieldError):
        unpacked(harness.call(body, headers={"content-encoding": coding}))


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate, gzip;q=0", "deflate"),
        ("GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("br", None),
        ("gzip;q=0.000", None),
        ("", None),
    ],
)
def test_replies_are_compressed_as_the_caller_takes_them(harness: Any, accepts: str, coding: str | None) -> None:
    reply = Reply(200, b"abc" * 1_000)
    found = packed(reply, harness.call(headers={"accept-encoding": accepts}))
    headers = dict(found.headers)
    assert headers.get("content-encoding") == coding
    back = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding](found.body)
    assert back == reply.body
    assert headers["content-type"] == "application/json"
    assert packed(Reply(200, b"short"), harness.call(headers={"accept-encoding": accepts})).body == b"short"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'[{"a": {"b": 1, "b": 1}}]',
        b"[NaN]",
        b"[-Infinity]",
        b"[1e999]",
        b"[-1.5E+0400]",
        b"[" + b"9" * 400 + b".0]",
        b"[" + b"9" * 5_000 + b"]",
        b'["\\ud800"]',
        b'{"\\uDC00": 1}',
        b'"\xff"',
        "[1]".encode("utf-16"),
        b"\xef\xbb\xbf[1]",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"[1,]",
        b"",
        b"[1] [2]",
    ],
)
def test_json_that_does_not_mean_one_thing_is_refused(body: bytes) -> None:
    with pytest.raises(FieldError):
        loads(body)


@pytest.mark.parametrize("text", ['["\\ud83d\\ude00", 1e10]', "[1e300, 1.5E-400]", '["e999"]', "[1" + "0" * 310 + "]"])
def test_json_that_only_looks_special_is_read(text: str) -> None:
    assert loads(text.encode()) == json.loads(text)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    assert loads(json.dumps(value).encode()) == value
    assert loads(json.dumps(value, ensure_ascii=False).encode()) == value


def strictly(body: bytes) -> Any:
    """The same by Python's own reader: raises ``ValueError`` for what does not mean one thing."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    found = json.loads(body.decode(), object_pairs_hook=once)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # raises for infinite numbers and half characters
    return found


TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"a"',
    '"b:"',
    '"\\"":"',
    '"\\\\"',
    "1",
    "-0",
    "1e999",
    "1.5",
    "true",
    "null",
    "NaN",
    " ",
    '"',
    '"\\ud800"',
]


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join) | st.text(alphabet='{}[]",:0e.-a \\u', max_size=20))
def test_json_is_read_or_refused_as_by_another_reader(text: str) -> None:
    try:
        want = strictly(text.encode())
    except ValueError:
        with pytest.raises(FieldError):
            loads(text.encode())
    else:
        assert repr(loads(text.encode())) == repr(want)


@given(PLAIN, st.data())
def test_a_key_that_comes_twice_is_seen_anywhere(value: Any, data: st.DataObject) -> None:
    """``value`` under a key that comes twice, as deep as it likes, among texts that look like keys."""
    key = json.dumps(data.draw(st.text(max_size=3)))
    twice = f"{{{key}: {json.dumps(value)}, {key}: 1}}"
    for _ in range(data.draw(st.integers(0, 3))):
        twice = data.draw(st.sampled_from(['[1, %s, "a:b"]', '{"x:": %s, "\\":": 2}'])) % twice
    with pytest.raises(FieldError, match="twice"):
        loads(twice.encode())


@given(st.binary(max_size=100))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    with suppress(FieldError):
        json.dumps(loads(body), allow_nan=False).encode()


def test_errors_have_one_shape_and_inner_ones_are_not_told(harness: Any) -> None:
    for error, status, kind in (
        (FieldError("rows[3].x: it is missing", hint="send it"), 422, "DataFault"),
        (TooLarge("large"), 413, "DataFault"),
        (Unsupported("strange"), 415, "DataFault"),
        (NotFound("gone"), 404, "NotFound"),
        (Unavailable("full"), 503, "Unavailable"),
    ):
        reply = failed(error)
        assert reply is not None
        assert (reply.status, dict(reply.headers)["content-type"]) == (status, "application/json")
        assert json.loads(reply.body) == {"error": error.message, "kind": kind, "hint": error.hint}
    assert failed(NoriaError("a secret")) is None

    @settled
    async def breaks(service: Any, call: Any) -> Reply:
        raise NoriaError("a secret")

    with pytest.raises(NoriaError, match="a secret"):
        asyncio.run(breaks(harness.Fake(), harness.call()))
