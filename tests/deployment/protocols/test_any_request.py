"""Whatever is sent, the service answers it or refuses it in its one shape, repeats nothing of it, and goes on answering."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.deployment.service.app import routes

SECRET = "sEcReT-4111-1111"
FROM_BELOW = (400, 413, 414, 431)
"""What the HTTP server itself refuses, with nothing in the body, before the application sees it."""
REFUSED = (400, 401, 403, 404, 405, 413, 415, 421, 422)
MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

PLACES = {"name": "late-flights", "version": "1", "source": "weather"}
PATHS = sorted(pattern.format(**PLACES) for pattern in routes())
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "CONNECT", "post", "X-Y"]
TEXTS = st.sampled_from(
    ["", SECRET, f"<{SECRET}>", "é\x00", "x" * 600, "2024-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "UA", "a@1"]
)
NUMBERS = st.sampled_from([0, 1, -1, 0.5, 1e308, -1e308, 2**53 + 1, 2**63, -(2**63) - 1, 10**25, 1e-320])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6)
ROW = {"carrier": "UA", "distance": 5, "delay": 0.25, "sunny": True, "planned": "2024-01-01T00:00:00Z"}
TENSORS = [
    {"name": name, "datatype": kind, "shape": [1], "data": [value]}
    for (name, value), kind in zip(ROW.items(), ("BYTES", "INT64", "FP64", "BOOL", "BYTES"), strict=True)
]
RIGHT: list[tuple[str, Any]] = [
    ("/v1/predict", {"row": ROW, "asked_at": "2024-05-01T00:00:00Z"}),
    ("/v1/predict", {"rows": [ROW, ROW]}),
    ("/v1/events/weather", {"events": [{"id": "e", "station": "JFK", "hour": "2024-05-01T00:00:00Z", "temp": 1.5, "gusts": 3}]}),
    (
        "/v1/outcomes",
        {"outcomes": [{"id": "a@1", "label": True}, {"key": {"carrier": "UA"}, "label": 1, "at": "2024-05-01T00:00Z"}]},
    ),
    ("/v1/reviews", {"id": "a@1", "act": True, "by": "ada", "label": False}),
    ("/invocations", {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}),
    ("/invocations", {"instances": [ROW], "params": {"full": True}}),
    ("/v2/models/late-flights/infer", {"id": "1", "inputs": TENSORS, "outputs": [{"name": "score"}]}),
]


@st.composite
def almost(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request that is right but for what was put in a few places; or its bytes with some that were changed."""
    path, whole = draw(st.sampled_from(RIGHT))
    whole = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = whole
        while True:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            if isinstance(at, dict) and draw(st.integers(0, 4)) == 0:
                at[draw(TEXTS)] = at.pop(key)
            else:
                at[key] = draw(VALUES)
            break
    body = json.dumps(whole).encode()
    if draw(st.integers(0, 3)) == 0:
        begin = draw(st.integers(0, len(body)))
        body = body[:begin] + draw(st.binary(max_size=6)) + body[begin + draw(st.integers(0, 4)) :]
    return path, body


HEADERS = st.lists(
    st.sampled_from(
        [
            ("Content-Type", "text/csv"),
            ("Content-Type", "application/octet-stream"),
            ("Content-Type", SECRET),
            ("Content-Encoding", "gzip"),
            ("Content-Encoding", SECRET),
            ("Accept-Encoding", "gzip;q=1, *"),
            ("Inference-Header-Content-Length", "5"),
            ("Inference-Header-Content-Length", SECRET),
            ("Origin", f"http://{SECRET}"),
            ("X-Forwarded-Host", SECRET),
            ("X-HTTP-Method-Override", "DELETE"),
            ("Expect", SECRET),
            ("Traceparent", SECRET),
            ("Cookie", SECRET),
        ]
    ),
    max_size=2,
)
ENDS = st.sampled_from(["", "/", "//", "?", f"?{SECRET}", "%00", "%ff", "%2e%2e", "/..", f"/{SECRET}", ";x", "%", "a" * 9000])
ANYWHERE = st.binary(max_size=30).map(quote) | st.text(max_size=20).map(lambda text: quote(text, safe="/%?#&")) | st.just(SECRET)
TARGETS = (
    st.tuples(st.sampled_from(PATHS), ENDS).map("".join) | ANYWHERE.map(lambda text: f"/{text}") | st.just(f"http://{SECRET}/")
)


class Sent(NamedTuple):
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


def judged(wire: ModuleType, served: Any, sent: Sent) -> None:
    """Sends one request, and a right one after it."""
    method, body = sent.method, sent.body
    at = wire.At(served.running.port, route=sent.target, body=body, token=served.token, patience=20.0)
    names = {name for name, _ in sent.headers}
    kept = at.head(sent.headers, method=method, without="Content-Type" if "Content-Type" in names else "")
    with wire.line(at) as line:
        line.send(kept[:-2] + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        line.see(until_closed=True)
        head, _, said = bytes(line.received).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (200, *REFUSED, *FROM_BELOW), (status, said)
    if status != 200:
        assert SECRET.encode() not in head + said
        if method != "HEAD" and (said or status not in FROM_BELOW):
            assert b"content-type: application/json" in head
            assert set(json.loads(said)) == {"error", "kind", "hint"}
    status, _, said = served.get("/v1/predict", json.dumps({"row": ROW}).encode())
    assert (status, json.loads(said)["score"]) == (200, served.home.expected([ROW])[0]["score"])


BYTES = st.binary(max_size=60) | VALUES.map(json.dumps).map(str.encode)


@MANY
@given(sent=st.builds(Sent, st.sampled_from(METHODS), TARGETS, HEADERS, BYTES))
def test_any_method_path_and_bytes(wire: ModuleType, served: Any, sent: Sent) -> None:
    judged(wire, served, sent)


@MANY
@given(request=almost(), headers=HEADERS)
def test_requests_that_are_almost_right(wire: ModuleType, served: Any, request: tuple[str, bytes], headers: Any) -> None:
    judged(wire, served, Sent("POST", request[0], headers, request[1]))


def test_the_right_requests_are_right(served: Any) -> None:
    """Otherwise those that are almost right would say nothing."""
    for path, whole in RIGHT:
        status, _, said = served.get(path, json.dumps(whole).encode())
        assert status == 200, said


def test_nothing_was_a_fault_of_the_service(served: Any) -> None:
    """Every test before has asked the same service: none of their requests was answered with a 500."""
    counts = served.running.app.service.metrics.counts["requests"]
    assert sum(counts.values()) > 0
    assert not [(route, status) for route, status in counts if status >= "500"]
