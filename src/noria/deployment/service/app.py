"""The service: one prediction over HTTP, from the same bundle, features and code as batch scoring.

``GET /v2/health/live``, ``GET /v2/health/ready``, ``GET /v2/models/{name}`` in the form of the Open Inference Protocol, and
``POST /v1/predict`` with ``{"row": {…}, "asked_at": "2013-01-31T06:00:00Z"}`` (the time may be left out: now).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from noria import features as feature_room
from noria.core import Conflict, NoriaError, NotFound, Unavailable, canonical
from noria.deployment.bundles import Bundles
from noria.deployment.live import history, state
from noria.deployment.log import PredictionLog, sweep
from noria.deployment.routing import randomised
from noria.deployment.scoring import logged
from noria.deployment.service.guard import Guard, guarded, token_of
from noria.deployment.service.rows import FieldError, asked_at, decode, row_schema, spine_of
from noria.settings import Settings
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

__all__ = ["Predictor", "make_app", "serve", "sweep"]

_logger = logging.getLogger("noria.service")
_STATUS: tuple[tuple[type[NoriaError], int], ...] = ((FieldError, 422), (NotFound, 404), (Unavailable, 503))
_V2_TYPES = {pl.String: "BYTES", pl.Boolean: "BOOL", pl.Float64: "FP64", pl.Int64: "INT64"}


class Predictor:
    """Answers single rows from a home: features, release in force, act, log. Calls wait for each other."""

    def __init__(self, home: Home, system: System) -> None:
        self.home = home
        self.system = system
        self._bundles = Bundles(home)
        self._log = PredictionLog(home.path / "service")
        self._lock = threading.Lock()

    def predict(self, body: bytes) -> dict[str, Any]:
        """From a request's body to the answer; it is on the disk when this returns. Raises ``FieldError`` for a wrong field."""
        given = decode(body)
        for name in given:
            if name not in ("row", "asked_at"):
                raise FieldError("the body has a field besides row and asked_at", hint='send {"row": {…}, "asked_at": "…"}')
        if "row" not in given:
            raise FieldError("row: it is missing", hint='send {"row": {…}}')
        with self._lock:
            now = self.home.clock.now()
            asked = asked_at(given.get("asked_at"), now)
            spine = spine_of(self.system, row_schema(self.home, self.system), given["row"], asked)
            features = feature_room.compute(self.home, self.system, spine)
            made = logged(self.system, history(self.home), spine, features, bundles=self._bundles, now=now)
            self._log.append(made, now)
        return self._answer(made.predictions.row(0, named=True))

    def _answer(self, row: dict[str, Any]) -> dict[str, Any]:
        act = row["_act"]
        if act is not None and randomised(self.system.decide):
            act = self.system.decide.acts[int(act)]
        return {
            "id": row["_id"],
            "score": row["_score"],
            "scores": row["_scores"],
            "act": act,
            "act_propensity": row["_act_propensity"],
            "variant": row["_variant"],
            "variant_propensity": row["_variant_propensity"],
            "release": row["_release"],
        }

    def ready(self) -> bool:
        """Whether the champion can answer; with no release yet, doing nothing can."""
        with self._lock:
            try:
                champion = state(self.home).champion
                if champion is not None:
                    self._bundles.get(champion)
            except NoriaError:
                return False
        return True

    def model(self, name: str) -> dict[str, Any]:
        """What the Open Inference Protocol says of a model; raises ``NotFound``."""
        if name != self.system.name:
            raise NotFound("there is no such model", hint=f"this service answers for {self.system.name}")
        with self._lock:
            live = state(self.home)
            schema = row_schema(self.home, self.system)
        inputs = [
            {"name": column, "datatype": _V2_TYPES.get(type(kind), "BYTES"), "shape": [-1, 1]} for column, kind in schema.items()
        ]
        outputs = [{"name": "score", "datatype": "FP64", "shape": [-1, 1]}]
        return {"name": name, "versions": [str(live.number)], "platform": "noria", "inputs": inputs, "outputs": outputs}

    def close(self) -> None:
        """Closes the log; the home is the caller's."""
        self._log.close()


def make_app(home: Home, system: System, settings: Settings | None = None) -> Guard:
    """The whole service as an ASGI application, its door included. ``settings`` default to the home's."""
    settings = settings or home.settings
    predictor = Predictor(home, system)

    async def live(_: HttpRequest) -> Response:
        return _json({"live": True})

    async def ready(_: HttpRequest) -> Response:
        able = await run_in_threadpool(predictor.ready)
        return _json({"ready": able, "live": True}, 200 if able else 503)

    async def model(request: HttpRequest) -> Response:
        return _json(await run_in_threadpool(predictor.model, request.path_params["name"]))

    async def predict(request: HttpRequest) -> Response:
        return _json(await run_in_threadpool(predictor.predict, await request.body()))

    routes = [
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/{name}", model),
        Route("/v1/predict", predict, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {NoriaError: _known_error, HTTPException: _http_error, Exception: _unknown_error}
    return guarded(Starlette(routes=routes, exception_handlers=handlers), settings, token_of(home.path / "service", settings))


def serve(home: Home, system: System, settings: Settings | None = None) -> None:
    """Serves until SIGINT or SIGTERM; requests under way are finished. Raises ``Conflict`` when the port is taken."""
    settings = settings or home.settings
    app = make_app(home, system, settings)
    _check_free(settings)
    asyncio.run(_run(app, settings))


async def _run(app: Guard, settings: Settings) -> None:
    from granian.constants import Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    server = Server(
        app,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=65_536),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


def _check_free(settings: Settings) -> None:
    """The server would share a port with another process in silence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Conflict(
                f"{settings.host}:{settings.port} cannot be listened at: {error.strerror}", hint="choose another --port"
            ) from None


def _json(content: Any, status: int = 200) -> Response:
    return Response(canonical(content), status, media_type="application/json", headers={"cache-control": "no-store"})


async def _known_error(_: HttpRequest, error: NoriaError) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status == 500:  # what went wrong inside is for the operator, and may hold data
        return _unknown(error)
    return _json(error.as_json() | ({"kind": "DataFault"} if status == 422 else {}), status)


async def _http_error(_: HttpRequest, error: HTTPException) -> Response:
    said = {404: "there is no such page", 405: "this page takes another method"}.get(error.status_code, "this cannot be done")
    found = NotFound(said, hint="see /v2/models/{name} and POST /v1/predict")
    return _json(found.as_json(), error.status_code)


async def _unknown_error(_: HttpRequest, error: Exception) -> Response:
    return _unknown(error)


def _unknown(error: Exception) -> Response:
    _logger.error("a request failed", exc_info=error)
    return _json(NoriaError("the service could not answer", hint="its log says more").as_json(), 500)
