"""The real service on a real port of this machine, in a thread of the test's own process, so that its clock can be a simulated one."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpx
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from noria.deployment.service.app import App
from noria.deployment.service.door import token_of
from noria.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """An application behind Granian, from ``start`` to ``stop``; called as a client with the token would call it."""

    def __init__(self, home: Any, system: Any, settings: Settings) -> None:
        self.token = token_of(home.path / "service", settings)
        self.app = App(home, system, settings, self.token)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=20, headers={"authorization": f"Bearer {self.token}"})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        self._server = Server(
            self.app,
            address="127.0.0.1",
            port=self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            http1_settings=HTTP1Settings(header_read_timeout=1_000, max_buffer_size=65_536),
        )
        asyncio.run(main())

    def start(self) -> Running:
        self._thread.start()
        while self._thread.is_alive():
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.05).close()
                break
            except OSError:
                self._thread.join(0.01)
        return self

    def stop(self) -> None:
        self.client.close()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self._thread.join(20)

    def __call__(self, method: str, path: str, *, headers: dict[str, str] | None = None, **given: Any) -> httpx.Response:
        return self.client.request(method, path, headers=headers, **given)

    def predict(self, row: Any, **more: Any) -> httpx.Response:
        return self("POST", "/v1/predict", json={"row": row, **more})
