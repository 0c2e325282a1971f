"""The least a Granian worker can do: take the body, send it back. What every other figure is compared with."""

from __future__ import annotations

from typing import Any

HEADERS = [("content-type", "application/json")]


async def app(_: Any, protocol: Any) -> None:
    protocol.response_bytes(200, HEADERS, await protocol())
