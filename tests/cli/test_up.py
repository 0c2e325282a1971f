"""``noria up``, as its own process: it turns, serves behind its token, keeps the report fresh, and ends cleanly."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, token: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """A request's status and JSON; waits up to 20 s for the service to listen."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(
        url, data=data, headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    )
    for _ in range(200):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except urllib.error.URLError:
            threading.Event().wait(0.1)
    pytest.fail(f"nothing answers at {url}")


def test_up_turns_serves_and_stops(turned: Path, tmp_path: Path) -> None:
    shutil.copytree(turned.parent, tmp_path / "shop")
    file, port = tmp_path / "shop" / "system.py", free_port()
    command = [
        sys.executable,
        "-c",
        "from noria.cli import main; main()",
        "up",
        str(file),
        "--port",
        str(port),
        "--every",
        "1h",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = json.loads(process.stdout.readline())
            assert said["url"] == f"http://127.0.0.1:{port}"
            assert "data" in process.stderr.readline()
            assert "A call costs money" in Path(said["report"]).read_text()
            token = (Path(said["home"]) / "service" / "token").read_text().strip()
            assert ask(f"{said['url']}/v2/health/ready", token) == (200, {"live": True, "ready": True})
            assert ask(f"{said['url']}/v2/health/ready", "wrong")[0] == 401
            row = {"visit": "new", "pages": 12, "country": "ch"}
            status, answer = ask(f"{said['url']}/v1/predict", token, {"row": row})
            assert status == 200
            assert 0 < answer["score"] < 1
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
