"""Noria's own pages: predictions by named columns, events, outcomes, the review queue, status and counts."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from noria.core import canonical
from noria.deployment.service import metrics, openapi
from noria.deployment.service.contract import JSON, Call, Reply, Route
from noria.deployment.service.reviews import waiting
from noria.deployment.service.rows import FieldError, asked_at
from noria.deployment.service.wire import fields, loads, typed, unpacked

if TYPE_CHECKING:
    from noria.deployment.service.app import App

encode = msgspec.json.encode
TEXT = (("content-type", "text/plain; version=0.0.4; charset=utf-8"), ("cache-control", "no-store"))


async def predict(app: App, call: Call) -> Reply:
    """``{"row": {…}}`` or ``{"rows": [{…}, …]}``, each with ``asked_at`` if it is not now."""
    given = fields(_read(call), "", ("row", "rows", "asked_at"))
    if ("row" in given) == ("rows" in given):
        raise FieldError(
            "row: it is missing" if "row" not in given else "rows: one of row and rows is enough", hint='send {"row": {…}}'
        )
    now = app.service.home.clock.now()
    asked = asked_at(given["asked_at"], now) if given.get("asked_at") is not None else None
    if "row" in given:
        (answer,) = await app.service.answer([given["row"]], asked)
        if app.trace is not None:
            app.trace.said(answer)
        return Reply(200, encode(answer))
    rows = _few(given["rows"], "rows", call)
    return Reply(200, encode({"answers": await app.service.answer(rows, asked)}))


async def events(app: App, call: Call) -> Reply:
    """Events of a source that is fed by HTTP: on the disk when this replies, each id once."""
    return await _taken(app, partial(app.incoming.events, call.params["source"], _one_or_many(call, "events")))


async def outcomes(app: App, call: Call) -> Reply:
    """Labels that became known, for predictions by id or by key."""
    return await _taken(app, partial(app.incoming.outcomes, _one_or_many(call, "outcomes")))


def _read(call: Call) -> Any:
    return loads(unpacked(call))


def _one_or_many(call: Call, name: str) -> list[Any]:
    """The things of a body that is one of them, or ``{name: [...]}``."""
    given = typed(_read(call), dict, "the body", "an object")
    return _few(given[name], name, call) if set(given) == {name} else [given]


def _few(given: Any, name: str, call: Call) -> list[Any]:
    found: list[Any] = typed(given, list, name, "a list")
    if not found:
        raise FieldError(f"{name}: it is empty", hint="send at least one")
    if len(found) > call.limits.rows:
        raise FieldError(f"{name}: there are more than {call.limits.rows}", hint="send them in several requests")
    return found


async def _taken(app: App, work: Any) -> Reply:
    source, appended = await app.in_writer(work)
    counts = {"accepted": appended.accepted, "duplicates": appended.duplicates, "conflicts": list(appended.conflicts)}
    for name, n in counts.items():
        app.service.metrics.add("events", source, name, n=n if isinstance(n, int) else len(n))
    return Reply(200, encode(counts))


async def reviews(app: App, _call: Call) -> Reply:
    """The predictions that wait for a person, oldest first."""
    found = await asyncio.to_thread(waiting, app.service.home, app.service.system)
    return Reply(200, canonical({"reviews": found}))


async def review(app: App, call: Call) -> Reply:
    """A person's answer: the decision, and the label where it is known."""
    given = fields(_read(call), "", ("id", "act", "by", "label"), ("id", "act", "by"))
    return await _taken(app, partial(app.incoming.review, given))


async def status(app: App, _call: Call) -> Reply:
    """What answers, and how far the log and the store are."""
    service = app.service
    live, about = service.state.live, service.about()
    rollout = live.rollout
    said = {
        "system": about.name,
        "release": about.number,
        "bundle": about.release,
        "rollout": None if rollout is None else {"number": rollout.number, "stage": rollout.stage, "share": rollout.share},
        "degree": service.system.serve.degree,
        "short_way": service.state.ruling is not None,
        "log": {
            "mode": service.home.settings.log,
            "acknowledged": service.log.acknowledged,
            "on_disk": service.log.committed,
            "fault": service.log.fault,
        },
    }
    return Reply(200, canonical(said))


async def counts(app: App, _call: Call) -> Reply:
    """Prometheus's text format, all workers together."""
    app.measure()
    return Reply(200, await asyncio.to_thread(metrics.text, app.service.metrics, app.folder / "metrics"), TEXT)


async def document(app: App, _call: Call) -> Reply:
    """The OpenAPI document of the service."""
    feeds = await asyncio.to_thread(app.incoming.feeds)
    return Reply(200, canonical(openapi.document(app.service.about(), app.limits, feeds)), JSON)


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/predict", predict, "predictions by named columns"),  # type: ignore[arg-type]  # ours take the whole app
    Route("POST", "/v1/events/{source}", events, "events of a source that is fed by HTTP"),  # type: ignore[arg-type]
    Route("POST", "/v1/outcomes", outcomes, "labels by prediction or by key"),  # type: ignore[arg-type]
    Route("GET", "/v1/reviews", reviews, "predictions that wait for a person"),  # type: ignore[arg-type]
    Route("POST", "/v1/reviews", review, "a person's decision"),  # type: ignore[arg-type]
    Route("GET", "/v1/status", status, "what answers, and how far the log is"),  # type: ignore[arg-type]
    Route("GET", "/metrics", counts, "counts and times for Prometheus"),  # type: ignore[arg-type]
    Route("GET", "/openapi.json", document, "the OpenAPI document"),  # type: ignore[arg-type]
)
