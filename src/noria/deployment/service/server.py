"""Starting and stopping: Granian's processes, each with an ``App`` of its own.

The process that is started watches over the workers: one that dies is started again. SIGTERM and SIGINT let requests under way finish.
"""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from noria.core import Conflict, SystemClock
from noria.deployment.service import metrics
from noria.deployment.service.door import token_of
from noria.deployment.service.parent import end_with_parent
from noria.settings import Settings
from noria.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from noria.deployment.service.app import App

_logger = logging.getLogger("noria.service")
HEADER_MILLISECONDS = 10_000
STOP_SECONDS = 15
SWITCH_SECONDS = 0.001
PAUSE_SECONDS = 5.0
COLLECT = (50_000, 20, 50)


def make_app(path: Path, system: System, settings: Settings) -> App:
    """One worker's application on the home at ``path``."""
    from noria.deployment.service.app import App
    from noria.store import Home

    home = Home.open(path, settings, SystemClock(), create=False, write=False)
    return App(home, system, settings, token_of(path / "service", settings), close=home.close)


def serve(path: Path, load: Callable[[], System], settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM; requests under way are finished. Raises ``Conflict`` when the port is taken.

    ``load`` gives the declaration in each worker; it has to be picklable.
    """
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.server import Server

    (path / "service").mkdir(mode=0o700, exist_ok=True)
    token_of(path / "service", settings)  # made once, before workers race for it
    _check_free(settings)
    metrics.begin(path / "service" / "metrics")  # only once nobody else serves here: the counts are theirs
    # a fork would copy the locks of other threads in whatever state they are
    multiprocessing.set_start_method("spawn", force=True)
    while True:
        server = Server(
            "noria",
            address=settings.host,
            port=settings.port,
            interface=Interfaces.RSGI,
            workers=settings.workers,
            loop=Loops.auto,
            http=HTTPModes.http1,  # HTTP/2 has no limits of its own on slow or many streams
            websockets=False,
            log_enabled=False,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_SECONDS,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS, max_buffer_size=65_536),
        )
        with suppress(SystemExit):  # its way to say that a worker ended badly
            server.serve(target_loader=Loader(path, load, settings), wrap_loader=False)
        if server.interrupt_signal:
            return
        _logger.error("the workers ended one after the other; starting again in %g s", PAUSE_SECONDS)
        threading.Event().wait(PAUSE_SECONDS)


class Loader:
    """What makes the application in a worker's process."""

    def __init__(self, path: Path, load: Callable[[], System], settings: Settings) -> None:
        self._path, self._load, self._settings = path, load, settings

    def __call__(self) -> Any:
        atexit.register(_hush)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the watching process says when to stop
        sys.setswitchinterval(SWITCH_SECONDS)  # the log's thread gets its turn soon, also under load
        end_with_parent()
        app = make_app(self._path, self._load(), self._settings)
        gc.collect()
        gc.freeze()  # what is here now stays: looking it over again and again would stop every answer for some 50 ms
        gc.set_threshold(*COLLECT)
        return app


def _hush() -> None:
    """At a worker's very end: the server still holds the application then, and the SQL engine would list what that keeps alive."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _check_free(settings: Settings) -> None:
    """The server would share a port with another process in silence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Conflict(
                f"{settings.host}:{settings.port} cannot be listened at: {error.strerror}", hint="choose another --port"
            ) from None
