"""Who may come in: tricks with hosts, origins, tokens, lengths and first lines, on raw sockets against the real service."""

from __future__ import annotations

import json
import logging
from types import ModuleType
from typing import Any

import pytest

from noria.deployment.service.door import Door, Stop
from noria.settings import Settings

TOKEN = "a-token-of-sixteen-or-more"
LIVE = "/v2/health/live"


@pytest.fixture
def at(wire: ModuleType, numbers: Any) -> Any:
    """The service, and a right request to it."""
    body = json.dumps({"row": {"a": 0.5, "b": 1, "c": 0.5}}).encode()
    return wire.At(numbers.running.port, body=body, token=numbers.token, patience=10.0)


def get(wire: ModuleType, at: Any, target: str, *headers: tuple[str, str], without: str = "", method: str = "GET") -> Any:
    """What a request without a body is answered: (status, the error's JSON or what else was said)."""
    seen = wire.once(at, wire.replace(at, route=target).head(headers, without=without, method=method))
    said = seen.bodies[0] if seen.bodies else b""
    return seen.status, json.loads(said) if said else None


def host(wire: ModuleType, at: Any, value: str, target: str = LIVE) -> Any:
    status, said = get(wire, at, target, ("Host", value), without="Host")
    assert status == 200 or set(said) == {"error", "kind", "hint"}
    return status


@pytest.mark.parametrize(
    "value", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:", "[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]:80", "[0::1]"]
)
def test_this_machines_own_names_are_taken(wire: ModuleType, at: Any, value: str) -> None:
    assert host(wire, at, value) == 200


@pytest.mark.parametrize(
    "value",
    [
        *("evil.example", "localhost.", "127.0.0.1.", "127.0.0.1.evil.example", "localhost.evil.example", "127.1", "2130706433"),
        *("0x7f.0.0.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::2]", "192.168.1.5", "0.0.0.0", "-", "xn--localhost"),
    ],
)
def test_other_names_are_not(wire: ModuleType, at: Any, value: str) -> None:
    assert host(wire, at, value) == 421


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            ":80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1%25lo]",
            "127.0.0.1:x",
            "127.0.0.1:123456",
            "127.0.0.1:1:2",
            "u@127.0.0.1",
        ),
        *("127.0.0.1/x", "127.0.0.1?x", "127.0.0.1#x", "evil.example\\@127.0.0.1", "evil.example#@127.0.0.1", "127.0.0.1 evil"),
        *("127.0.0.1,evil.example", "http://127.0.0.1", "127.0.0.1%00", "é", "localhost\xa0", "a" * 300),
    ],
)
def test_what_is_no_host_is_no_host(wire: ModuleType, at: Any, value: str) -> None:
    assert host(wire, at, value) == 400


def test_a_whole_url_in_the_first_line_names_the_host(wire: ModuleType, at: Any) -> None:
    assert get(wire, at, f"http://127.0.0.1:{at.port}{LIVE}")[0] == 200
    for url in ("http://evil.example", "https://evil.example:80", "ftp://evil.example"):
        assert get(wire, at, url + LIVE)[0] == 421
    assert get(wire, at, f"http://127.0.0.1@evil.example{LIVE}")[0] == 400
    assert get(wire, at, "evil.example:443", method="CONNECT")[0] == 421
    assert get(wire, at, f"127.0.0.1:{at.port}", method="CONNECT")[0] in (404, 405)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Authorization", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Origin"),
        *("Sec-Fetch-Site", "Inference-Header-Content-Length"),
    ],
)
def test_what_may_come_once_comes_once(wire: ModuleType, at: Any, name: str) -> None:
    given = {
        "Host": f"127.0.0.1:{at.port}",
        "Authorization": f"Bearer {at.token}",
        "Content-Type": "application/json",
        "Content-Length": str(len(at.body)),
        "Transfer-Encoding": "chunked",
        "Origin": f"http://127.0.0.1:{at.port}",
        "Sec-Fetch-Site": "none",
    }
    value = given.get(name, "2")
    twice = [(name, value)] if name in at.headers else [(name, value), (name.lower(), value)]
    body = b"" if name == "Transfer-Encoding" else at.body
    length = [] if name in ("Content-Length", "Transfer-Encoding") else [("Content-Length", str(len(body)))]
    seen = wire.once(at, at.head([*twice, *length]) + (body or b"2\r\n{}\r\n0\r\n\r\n"))
    assert seen.status == 400 or (name == "Content-Length" and seen.status == 200)  # the same length twice is one length


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "gzip"])
def test_codings_of_the_transfer_other_than_chunked_are_refused(wire: ModuleType, at: Any, coding: str) -> None:
    assert wire.once(at, at.head([("Transfer-Encoding", coding)]) + b"2\r\n{}\r\n0\r\n\r\n").status == 400


def test_a_body_with_two_lengths_ends_the_connection(wire: ModuleType, at: Any) -> None:
    """The chunks count and nothing after them is read: there is no second request that another server would not see."""
    with wire.line(at) as line:
        chunks = f"{len(at.body):x}\r\n".encode() + at.body + b"\r\n0\r\n\r\n"
        line.send(at.head([("Content-Length", "6"), ("Transfer-Encoding", "chunked")]) + chunks + at.request())
        seen = line.see(2, until_closed=True)
    assert (len(seen.statuses), seen.closed) == (1, True)


@pytest.mark.parametrize("end", ["zz\r\n", "", "5\r\n2,2", "0\r\nX: 1\r\n\r\n"], ids=["no size", "gone", "too short", "trailers"])
def test_a_body_that_does_not_come_to_its_end_is_not_taken(wire: ModuleType, at: Any, numbers: Any, end: str) -> None:
    """Half of a CSV is a CSV: what was cut must not be scored as if it were whole."""
    rows = "a,b,c\n1.5,1,2\n"
    chunk = f"{len(rows):x}\r\n{rows}\r\n{end}".encode()
    before = numbers.running.app.service.log.acknowledged
    headers = [("Content-Type", "text/csv"), ("Transfer-Encoding", "chunked")]
    with wire.line(wire.replace(at, route="/invocations")) as line:
        line.send(line.at.head(headers, without="Content-Type") + chunk)
        line.socket.shutdown(1)
        assert line.see(until_closed=True).statuses in ((), (400,))
    assert wire.right(at).status == 200  # one worker: whatever came before has been done
    assert numbers.running.app.service.log.acknowledged == before + 1


def test_callers_who_go_away_are_no_fault_of_the_service(
    wire: ModuleType, at: Any, numbers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "noria.service"):
        wire.broken_off(at)
        wire.bad_chunk(at)
        wire.gone(at)
        assert wire.right(at).status == 200
    assert caplog.records == []
    assert not any(status == "500" for _, status in numbers.running.app.service.metrics.counts["requests"])


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "null",
            "",
            "http://",
            "http://[",
            "http://evil.example",
            "http://127.0.0.1:1",
            "127.0.0.1:{port}",
            "//127.0.0.1:{port}",
        ),
        *(
            "file://127.0.0.1:{port}",
            "chrome-extension://127.0.0.1:{port}",
            "http://x@127.0.0.1:{port}",
            "http://127.0.0.1:{port}/x",
        ),
        *("http://127.0.0.1:{port} http://evil.example", "http://localhost:{port}"),
    ],
)
def test_pages_of_other_origins_are_refused(wire: ModuleType, at: Any, origin: str) -> None:
    given = ("Origin", origin.replace("{port}", str(at.port)))
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        assert get(wire, at, "/v1/outcomes", given, method=method)[0] == 403
    assert wire.once(at, at.request([given])).status == 403


def test_the_services_own_origin_is_taken(wire: ModuleType, at: Any) -> None:
    own = ("Origin", f"HTTP://127.0.0.1:{at.port}")
    assert wire.once(at, at.request([own, ("Sec-Fetch-Site", "same-origin")])).status == 200
    for site in ("same-site", "cross-site", "Same-Origin", "what", ""):
        assert wire.once(at, at.request([("Sec-Fetch-Site", site)])).status == 403


@pytest.mark.parametrize(("given", "status"), [("bearer {}", 200), ("BEARER  {} ", 200), ("Bearer {}\t", 200)])
def test_the_tokens_scheme_has_no_case(wire: ModuleType, at: Any, given: str, status: int) -> None:
    assert get(wire, at, LIVE, ("Authorization", given.format(at.token)), without="Authorization")[0] == status


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "{}",
        "Bearer {}x",
        "Bearer x{}",
        "Bearer {}, x",
        "Bearer {} {}",
        "Bearer\t{}",
        "Basic {}",
        "Bearer é",
    ],
)
def test_no_other_token_is_one(wire: ModuleType, at: Any, given: str) -> None:
    status, said = get(wire, at, LIVE, ("Authorization", given.replace("{}", at.token)), without="Authorization")
    assert (status, said["error"]) == (401, "the token is missing or wrong")
    for place in (f"{LIVE}?token={at.token}", f"{LIVE}?access_token={at.token}"):
        assert get(wire, at, place, ("Cookie", f"token={at.token}"), without="Authorization")[0] == 401


def test_http_2_is_not_spoken(wire: ModuleType, at: Any) -> None:
    seen = wire.once(at, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert seen.refused


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("//v2/health/live", 404), ("/v2/health/live/", 404), ("/v2/health/live;x", 404), ("/v2/health/%6cive", 200)),
        *(("/v2/health/../health/live", 404), ("/v2/%2e%2e/v2/health/live", 404), ("/v2%2fhealth%2flive", 200)),
        *(("/v2/health/live%00", 404), ("/v2/health/live%", 404), ("/v2/health/live%zz", 404), ("/v2/health/%ff", 404)),
        *(
            ("/V2/HEALTH/LIVE", 404),
            ("/v2/health/live#x", 200),
            ("/v2/health/live?%00&a=b&a=%ff", 200),
            ("/" + "a" * 60_000, 404),
        ),
        *(
            ("/v2/models/%64emand", 200),
            ("/v2/models/%2564emand", 404),
            ("/v2/models/demand%2fready", 200),
            ("/v2/models/..", 404),
        ),
        *(("/v2/models//ready", 404), ("/v1/events/..%2f..%2fetc", 404), ("*", 404), ("/../../etc/passwd", 404)),
    ],
)
def test_a_path_is_what_it_decodes_to_once(wire: ModuleType, at: Any, path: str, status: int) -> None:
    found, said = get(wire, at, path)
    assert found == status
    assert status == 200 or set(said) == {"error", "kind", "hint"}


def test_a_source_is_a_name_and_never_a_path(wire: ModuleType, at: Any) -> None:
    for name in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "asks%00", "_labels", "ASKS", "a" * 5000):
        seen = wire.once(at, wire.replace(at, route=f"/v1/events/{name}", body=b'{"b": 1, "asked_at": 0}').request())
        assert (seen.status, json.loads(seen.bodies[0])["kind"]) == (404, "NotFound"), name


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "get", "WHATEVER", "M" * 5000])
def test_other_methods_are_told_which_there_are(wire: ModuleType, at: Any, method: str) -> None:
    with wire.line(at) as line:
        line.send(wire.replace(at, route="/v1/reviews").head([("Connection", "close")], method=method))
        line.see(until_closed=True)
        head, _, body = bytes(line.received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: GET, POST" in head
    assert body == b"" if method == "HEAD" else json.loads(body)["hint"] == "it takes GET, POST"


def entering(where: str, name: str, **headers: str) -> int:
    """The status with which a door of a service that listens at ``where`` refuses a request to ``name``; 200 when it does not."""
    door = Door(Settings(host=where), TOKEN)
    try:
        door.check("POST", {"host": name, "authorization": f"Bearer {TOKEN}"} | headers)
    except Stop as stop:
        return stop.reply.status
    return 200


@pytest.mark.parametrize(
    ("where", "name", "status"),
    [
        ("0.0.0.0", "192.168.1.5:8000", 200),  # an address cannot be pointed elsewhere by a name server
        ("::", "[fe80::1]:8000", 200),
        ("0.0.0.0", "evil.example", 421),
        ("Service.Example", "service.example:8000", 200),
        ("Service.Example", "SERVICE.EXAMPLE", 200),
        ("0:0:0:0:0:0:0:1", "[::1]", 200),
        ("127.0.0.1", "192.168.1.5", 421),
        ("127.0.0.2", "127.0.0.3", 421),
        ("127.0.0.2", "127.0.0.2", 200),
    ],
)
def test_a_service_answers_to_the_name_that_it_was_given(where: str, name: str, status: int) -> None:
    assert entering(where, name) == status


def test_a_door_remembers_few_hosts() -> None:
    door = Door(Settings(), TOKEN)
    for port in range(10_000):
        door.check("GET", {"host": f"127.0.0.1:{port}", "authorization": f"Bearer {TOKEN}"})
    assert len(door._ours) == 64
