"""Traces, where OpenTelemetry is installed and set up: one span a request, continued from the caller's. Spans hold no row and no message."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from noria.core import NoriaError
from noria.deployment.service.contract import Answer, Call, Reply, Route
from noria.deployment.service.wire import failed


class Tracer:
    """Makes the spans. ``trace`` and ``propagate`` are OpenTelemetry's, so that nothing of it is imported where it is not used."""

    def __init__(self, trace: Any, propagate: Any) -> None:
        self._trace = trace
        self._tracer = trace.get_tracer("noria.service")
        self._extract = propagate.extract

    def short(self, work: Callable[[bytes], Any], body: bytes, headers: Mapping[str, str]) -> Any:
        """The short way, in a span that names the prediction. There is no span when the request has to take the long way."""
        span = self._begun("POST", "/v1/predict", headers)
        try:
            with self._within(span):
                made = work(body)
        except BaseException as error:
            self._ended(span, error)
            raise
        if made is not None:
            self.said(made[0], span)
            self._ended(span, 200)
        return made

    async def long(self, route: Route, owner: Any, call: Call) -> Reply:
        """Any other route, in a span that names it."""
        span = self._begun(route.method, route.pattern, call.headers)
        try:
            with self._within(span):
                reply = await route.handler(owner, call)
        except BaseException as error:
            self._ended(span, error)
            raise
        self._ended(span, reply.status)
        return reply

    def said(self, answer: Answer, span: Any = None) -> None:
        """Names the prediction on its span, by default the one under way."""
        span = span or self._trace.get_current_span()
        span.set_attribute("noria.prediction", answer.id)
        span.set_attribute("noria.release", answer.release)
        span.set_attribute("noria.variant", answer.variant)
        span.set_attribute("noria.fallback", answer.fallback)

    def _begun(self, method: str, route: str, headers: Mapping[str, str]) -> Any:
        attributes = {"http.request.method": method, "http.route": route}
        kind = self._trace.SpanKind.SERVER
        return self._tracer.start_span(f"{method} {route}", self._extract(headers), kind, attributes)

    def _within(self, span: Any) -> Any:
        return self._trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def _ended(self, span: Any, how: int | BaseException) -> None:
        reply = failed(how) if isinstance(how, NoriaError) else None
        status = how if isinstance(how, int) else reply.status if reply is not None else 500
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        if not isinstance(how, int):
            span.set_attribute("error.type", type(how).__name__)
        span.end()


def tracer() -> Tracer | None:
    """The tracer, or ``None`` where nobody has set up OpenTelemetry: whoever does has imported it before the worker begins."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    from opentelemetry import propagate

    return Tracer(trace, propagate)
