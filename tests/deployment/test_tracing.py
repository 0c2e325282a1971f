"""Traces: one span a request, continued from the caller's, and nothing of OpenTelemetry where nobody has set it up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from noria import deployment
from noria.deployment.service import tracing

START = datetime(2024, 1, 1, tzinfo=UTC)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported. The provider is set for this test alone: OpenTelemetry itself lets it be set but once in a process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture
def ask(world: Callable[..., Any], running: Callable[..., Any], spans: InMemorySpanExporter) -> Any:
    """The service with a release, made after OpenTelemetry was set up."""
    made = world()
    made.score(START + timedelta(days=2))
    deployment.promote(made.home, made.system, made.bundle("x"), by="ada")
    made.clock.move(START + timedelta(days=2, hours=1))
    return running(made)


def only(spans: InMemorySpanExporter) -> Any:
    (span,) = spans.get_finished_spans()
    spans.clear()
    return span


@pytest.mark.parametrize(
    "body", [{"row": GOOD}, {"row": GOOD, "asked_at": "2024-01-03T00:30:00Z"}], ids=["short way", "long way"]
)
def test_a_request_is_one_span_of_the_callers_trace(ask: Any, spans: InMemorySpanExporter, body: Any) -> None:
    said = ask("POST", "/v1/predict", json=body, headers=CALLER).json()
    span = only(spans)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert (span.name, span.kind) == ("POST /v1/predict", trace.SpanKind.SERVER)
    assert said["release"]
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "noria.prediction": said["id"],
        "noria.release": said["release"],
        "noria.variant": "champion",
        "noria.fallback": "",
    }


def test_other_routes_and_refusals_are_one_span_each(ask: Any, spans: InMemorySpanExporter) -> None:
    for method, path, body, route, status in (
        ("GET", "/v2/models/small-world", None, "/v2/models/{name}", 200),
        ("GET", "/v2/models/other", None, "/v2/models/{name}", 404),
        ("POST", "/v1/predict", {"row": GOOD | {"x": "secret"}}, "/v1/predict", 422),
        ("POST", "/v1/predict", {"rows": [GOOD, GOOD]}, "/v1/predict", 200),
    ):
        assert ask(method, path, content=json.dumps(body) if body else None, headers=CALLER).status_code == status
        span = only(spans)
        assert (span.name, span.attributes["http.response.status_code"]) == (f"{method} {route}", status)
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.status.status_code is trace.StatusCode.UNSET  # what a caller did wrong is no fault of the service
        assert "secret" not in span.to_json()


def test_a_fault_is_marked_and_not_told(ask: Any, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret")

    monkeypatch.setattr(ask.app.service, "one", fail)
    assert ask.predict(GOOD).status_code == 500
    span = only(spans)
    assert (span.status.status_code, span.attributes["error.type"]) == (trace.StatusCode.ERROR, "RuntimeError")
    assert "secret" not in span.to_json()
    assert span.parent is None  # nobody has begun a trace before


@pytest.mark.parametrize("given", ["", "x", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "a" * 5000])
def test_a_trace_that_is_none_begins_anew(ask: Any, spans: InMemorySpanExporter, given: str) -> None:
    assert ask("GET", "/v2/health/live", headers={"traceparent": given, "tracestate": "=,=;" * 20}).status_code == 200
    span = only(spans)
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


def test_who_may_not_come_in_makes_no_span(ask: Any, spans: InMemorySpanExporter) -> None:
    assert ask("GET", "/v1/status", headers={"authorization": "Bearer no"} | CALLER).status_code == 401
    assert ask("GET", "/nowhere", headers=CALLER).status_code == 404
    assert spans.get_finished_spans() == ()


def test_there_is_no_tracer_where_nobody_has_set_one_up() -> None:
    assert tracing.tracer() is None


def test_nothing_is_imported_for_it() -> None:
    program = (
        "import sys; from noria.deployment.service import app, server, tracing; assert tracing.tracer() is None;"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'opentelemetry']"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
