"""Traces, where OpenTelemetry is installed and set up: one span a request, continued from the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from noria.deployment.service.contract import Call, Reply, Route


class Tracer:
    """Makes the spans. ``api`` is OpenTelemetry's, so that nothing of it is imported where it is not used."""

    def __init__(self, trace: Any, propagate: Any) -> None:
        self._tracer = trace.get_tracer("noria.service")
        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER

    def short(self, work: Callable[[bytes], Any], body: bytes, headers: Mapping[str, str]) -> Any:
        """The short way, in a span that names the prediction, its release and variant."""
        with self._tracer.start_as_current_span("POST /v1/predict", self._extract(headers), self._kind) as span:
            made = work(body)
            if made is not None:
                answer = made[0]
                span.set_attribute("noria.prediction", answer.id)
                span.set_attribute("noria.release", answer.release)
                span.set_attribute("noria.variant", answer.variant)
                span.set_attribute("noria.fallback", answer.fallback)
            return made

    async def long(self, route: Route, owner: Any, call: Call) -> Reply:
        """Any other route, in a span that names it."""
        with self._tracer.start_as_current_span(
            f"{route.method} {route.pattern}", self._extract(call.headers), self._kind
        ) as span:
            reply = await route.handler(owner, call)
            span.set_attribute("http.response.status_code", reply.status)
            return reply


def tracer() -> Tracer | None:
    """The tracer, or ``None`` where OpenTelemetry is not installed or nobody has set up where spans go."""
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return Tracer(trace, propagate)
