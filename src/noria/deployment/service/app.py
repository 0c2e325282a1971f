"""The application that the HTTP server calls: the door, the routes, the short way, and what goes wrong.

Granian speaks RSGI to it: one coroutine a request. ``/v1/predict`` with one row is answered by the short way without another object in between;
every other route gets a ``Call`` and gives a ``Reply``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.core import NoriaError, NotFound, Refused, stopwatch
from noria.deployment.service import invocations, oip, tracing, v1
from noria.deployment.service.contract import JSON, Call, Limits, Reply, Route
from noria.deployment.service.door import Door, Stop, refusal
from noria.deployment.service.incoming import Incoming
from noria.deployment.service.service import Service
from noria.deployment.service.wire import failed
from noria.settings import Settings
from noria.store.minutes import leave_minute, minute_of
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

_logger = logging.getLogger("noria.service")
ROUTES: tuple[Route, ...] = (*v1.ROUTES, *oip.ROUTES, *invocations.ROUTES)
LOOK_SECONDS = 0.25
MEASURE_SECONDS = 1.0
WHISPER_SECONDS = 0.1
_PREDICT = "/v1/predict"
PREDICTING = frozenset(route.pattern for route in ROUTES if re.search("predict|infer|invocations", route.pattern))
_HEADERS = [*JSON]


class Router:
    """Which route a path is: whole paths by a look, the others by their pattern."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._whole: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        for route in routes:
            if "{" not in route.pattern:
                self._whole.setdefault(route.pattern, {})[route.method] = route
                continue
            text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(route.pattern))
            known = next((methods for pattern, methods in self._patterns if pattern.pattern == text), None)
            if known is None:
                known = {}
                self._patterns.append((re.compile(text), known))
            known[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the open parts of ``path``, which is decoded. Raises ``Stop`` with 404 or 405."""
        methods, params = self._whole.get(path), dict[str, str]()
        if methods is None:
            for pattern, some in self._patterns:
                if match := pattern.fullmatch(path):
                    methods, params = some, match.groupdict()
                    break
        if methods is None:
            raise Stop(404, NotFound("there is no such page", hint="GET /openapi.json lists the pages"))
        route = methods.get(method)
        if route is None:
            stop = Stop(405, Refused("this page takes another method", hint=f"it takes {', '.join(sorted(methods))}"))
            stop.reply = Reply(405, stop.reply.body, (*stop.reply.headers, ("allow", ", ".join(sorted(methods)))))
            raise stop
        return route, params


class App:
    """One worker of the service, as Granian calls it."""

    def __init__(
        self, home: Home, system: System, settings: Settings, token: str, *, close: Callable[[], None] | None = None
    ) -> None:
        """``close`` is called after everything else when the worker ends."""
        self.home, self.system = home, system
        self.folder: Path = home.path / "service"
        self.limits = Limits(body=settings.body_limit_bytes)
        self._lines = Lines()
        self.service = Service(home, system, said=self._lines.error)
        self.incoming = Incoming(home, system)
        self.door = Door(settings, token)
        self._router = Router(ROUTES)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="noria-writer")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="noria-look")
        self.trace = tracing.tracer()
        self._close = close
        self._tasks: list[asyncio.Task[None]] = []

    # ---------------------------------------------------------------------------------------------------- as the server calls

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tasks = [loop.create_task(some()) for some in (self._look, self._beat, self._whisper)]

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in self._tasks:
            task.cancel()
        self.close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(403)
            return
        begun = stopwatch()
        name, method, path = "door", scope.method, scope.path
        try:
            headers = self.door.headers(scope.headers)
            self.door.check(method, headers, scope.authority)
            body = await self.door.body(headers, protocol)
            if path == _PREDICT and method == "POST":
                name = _PREDICT
                made = self.service.one(body) if self.trace is None else self.trace.short(self.service.one, body, headers)
                if made is not None:
                    answer, done = made
                    if done is not None:
                        await done
                    protocol.response_bytes(200, _HEADERS, v1.encode(answer))
                    self._count(_PREDICT, 200, begun)
                    return
            route, params = self._router.find(method, path)
            name = route.pattern
            call = Call(method, path, scope.query_string, headers, body, params, self.limits)
            reply = await self._replied(route, call)
        except Stop as stop:
            reply = stop.reply
            self.service.metrics.add("refused", str(reply.status))
        except NoriaError as error:
            reply = self._known(error)
        except Exception as error:
            self._lines.error("a request failed", error)
            reply = refusal(500, NoriaError("the service could not answer", hint="its log says more"))
        protocol.response_bytes(reply.status, list(reply.headers), reply.body)
        self._count(name, reply.status, begun)

    async def _replied(self, route: Route, call: Call) -> Reply:
        owner: Any = self if route in v1.ROUTES else self.service
        if self.trace is None:
            return await route.handler(owner, call)
        return await self.trace.long(route, owner, call)

    def _known(self, error: NoriaError) -> Reply:
        reply = failed(error)
        if reply is None:  # what went wrong inside is for the operator, and may hold data
            self._lines.error("a request failed", error)
            return refusal(500, NoriaError("the service could not answer", hint="its log says more"))
        return reply

    def _count(self, route: str, status: int, begun: float) -> None:
        metrics = self.service.metrics
        metrics.add("requests", route, str(status))
        metrics.took(route, stopwatch() - begun)

    # -------------------------------------------------------------------------------------------------------- beside

    async def in_writer(self, work: Callable[[], Any]) -> Any:
        """Runs what writes to the log of events, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def _look(self) -> None:
        """Takes up releases and rows that turns have made since."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                found = await loop.run_in_executor(self._looker, self.service.refresh)
                if found is not None:
                    self.service.apply(found)
            except Exception as error:
                self._lines.error("what is new could not be taken up", error)

    async def _whisper(self) -> None:
        """Asks the bundles that answer nobody, after the replies."""
        while True:
            await asyncio.sleep(WHISPER_SECONDS)
            try:
                await self.service.quiet.ask()
            except Exception as error:
                self._lines.error("the bundles in shadow could not be asked", error)

    async def _beat(self) -> None:
        """Once a second: hurries slow bodies, and leaves the counts for other workers."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            self.door.hurry(loop.time())
            self.measure()
            try:
                await loop.run_in_executor(self._looker, self.service.metrics.leave, self.folder / "metrics")
                await loop.run_in_executor(self._looker, self._minute)
            except OSError as error:
                self._lines.error("the counts could not be left", error)

    def _minute(self) -> None:
        """Once a minute: leaves what was answered in it where monitoring finds it."""
        minute = self.service.metrics.minute(minute_of(self.home.clock.now()), PREDICTING)
        if minute is not None:
            leave_minute(self.folder / "minutes", minute)

    def measure(self) -> None:
        """Takes the gauges, and what the log has counted."""
        service, metrics = self.service, self.service.metrics
        metrics.counts["acknowledged"][()] = service.log.acknowledged
        metrics.counts["committed"][()] = service.log.committed
        metrics.counts["unwritable"][()] = service.log.unwritable
        metrics.counts["log_lines_dropped"][()] = self._lines.dropped
        metrics.gauges |= {
            "waiting": float(service.log.waiting()),
            "release": float(service.about().number),
            "ready": float(service.ready()),
            "keys": float(service.state.lookup.keys()),
        }

    def close(self) -> None:
        """Writes what waits and closes everything."""
        self.service.close()
        self._writer.shutdown(wait=True)
        self._looker.shutdown(wait=True)
        self.incoming.close()
        if self._close is not None:
            self._close()


class Lines:
    """The service's own log, at most ``MOST`` lines in ``SPAN`` seconds; what was dropped is counted and said."""

    MOST, SPAN = 20, 10.0

    def __init__(self) -> None:
        self._since, self._written = stopwatch(), 0
        self.dropped = 0

    def error(self, text: str, error: Exception) -> None:
        """Writes a line with the error's kind and trace."""
        now = stopwatch()
        if now - self._since > self.SPAN:
            if self._written > self.MOST:
                _logger.error("%d more lines like these were dropped", self._written - self.MOST)
            self._since, self._written = now, 0
        self._written += 1
        if self._written > self.MOST:
            self.dropped += 1
            return
        _logger.error(text, exc_info=error)


def routes() -> Mapping[str, tuple[str, ...]]:
    """Every page with its methods, for tests and documents."""
    found: dict[str, tuple[str, ...]] = {}
    for route in ROUTES:
        found[route.pattern] = (*found.get(route.pattern, ()), route.method)
    return found
