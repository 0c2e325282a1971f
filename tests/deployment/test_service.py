from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

import noria as nr
from noria import deployment
from noria.core import Conflict, Refused, SettingsError
from noria.deployment.service.guard import is_loopback, token_of
from noria.deployment.service.rows import decode
from noria.settings import Settings

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
REQUEST = nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR", "n": "BIGINT"}, key="unit")


class Client:
    """Calls an application in this process, as a client at 127.0.0.1 with the token would."""

    def __init__(self, world: Any, **settings: Any) -> None:
        self.app = deployment.make_app(world.home, world.system, Settings(**settings))
        self.token = token_of(world.home.path / "service", Settings(**settings))

    def __call__(self, method: str, path: str, *, headers: dict[str, str] | None = None, **given: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(
                    method, path, headers={"authorization": f"Bearer {self.token}"} | (headers or {}), **given
                )

        return asyncio.run(call())

    def predict(self, row: Any, **more: Any) -> httpx.Response:
        return self("POST", "/v1/predict", json={"row": row, **more})


@pytest.fixture
def served(world: Callable[..., Any]) -> Any:
    """A world with a release."""
    w = world(decide=nr.Decide(explore=0.2))
    w.score(START + DAY * 2)
    deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
    return w


@pytest.fixture
def asking(world: Callable[..., Any]) -> Any:
    """A world that is asked by request only, with a release."""
    w = world(predict=REQUEST, features=[nr.Source("asks", key="unit", time="asked_at").columns("x", "z", "shop")])
    deployment.promote(w.home, w.system, w.bundle("x"), by="ada")
    w.clock.move(START + timedelta(hours=5))
    return w


GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}


def test_single_rows_get_what_the_batch_got(served: Any) -> None:
    end = START + DAY * 3
    served.score(end)
    batch = served.home.lake.read("predictions", _time=(end - DAY, end))
    ask = Client(served)
    for row in batch.head(25).iter_rows(named=True):
        said = ask.predict({name: row[name] for name in GOOD}, asked_at=row["_time"].isoformat()).json()
        assert said["id"] == row["_id"]
        assert (said["score"], said["release"], said["variant"]) == (row["_score"], row["_release"], row["_variant"])
        assert (float(said["act"]), said["act_propensity"]) == (row["_act"], row["_act_propensity"])
    assert deployment.sweep(served.home, served.system) is None  # the source brings these rows to the lake
    assert served.home.lake.read("predictions", _time=(end - DAY, end)).height == batch.height


def test_every_answer_is_on_the_disk_first(served: Any) -> None:
    assert Client(served).predict(GOOD).status_code == 200
    (file,) = (served.home.path / "service").glob("predictions-*.db")
    assert file.stat().st_mode & 0o077 == 0
    with sqlite3.connect(file) as connection:
        assert connection.execute("select count(*) from predictions").fetchone() == (1,)
    connection.close()


def test_before_a_release_the_answer_is_that_nothing_is_done(world: Any) -> None:
    said = Client(world()).predict(GOOD).json()
    assert (said["score"], said["act"], said["release"], said["variant"]) == (None, None, "", "champion")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({k: v for k, v in GOOD.items() if k != "x"}, "row.x"),
        (GOOD | {"more": 1}, "row.more"),
        (GOOD | {"x": None}, "row.x"),
        (GOOD | {"x": "0.9"}, "row.x"),
        (GOOD | {"x": True}, "row.x"),
        (GOOD | {"shop": 3}, "row.shop"),
        ([], "row"),
        (GOOD | {"x": 10**400}, "row.x"),
    ],
)
def test_a_wrong_field_is_named(served: Any, row: Any, field: str) -> None:
    answer = Client(served).predict(row)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "kind", "hint"}
    assert answer.json()["error"].startswith(f"{field}:")


def test_an_error_repeats_no_data(served: Any) -> None:
    ask = Client(served)
    secret = "4111-1111"
    for body in (
        {"row": GOOD | {"x": secret}},
        {"row": GOOD | {f"<{secret}>": 1}},
        {secret: 1},
        {"row": GOOD, "asked_at": secret},
    ):
        answer = ask("POST", "/v1/predict", json=body)
        assert answer.status_code == 422
        assert secret not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"row": {"x": NaN}}',
        b'{"row": {"x": Infinity}}',
        b'{"row": {"unit": "u", "x": 1e999, "z": 0.1, "shop": "a"}}',
        b'{"row": {"x": 1, "x": 2}}',
        b'{"row": {"shop": "\xff"}}',
        b"[" * 100_000,
        b'{"row": ' + b'{"a":' * 50_000,
        b'{"row": {"x": ' + b"9" * 5000 + b"}}",
        b"",
        b"[]",
        b"null",
        b"{}",
    ],
)
def test_what_is_no_row_is_refused(served: Any, body: bytes) -> None:
    answer = Client(served)("POST", "/v1/predict", content=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "kind", "hint"}


def test_the_time_of_asking_has_a_zone_and_has_come(served: Any) -> None:
    ask = Client(served)
    for wrong in ("2024-01-02T00:00:00", "yesterday", 5, "2034-01-02T00:00:00Z"):
        answer = ask.predict(GOOD, asked_at=wrong)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("asked_at:")
    assert ask.predict(GOOD, asked_at="2024-01-02T02:00:00+02:00").json()["id"] == "u@20240102T000000Z"


def routes(client: Client) -> list[tuple[str, str]]:
    found = [
        (method, route.path.replace("{name}", "small-world")) for route in client.app._app.routes for method in route.methods
    ]
    assert len(found) == 7  # three pages that answer GET and HEAD, one that takes POST
    return found


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}])
def test_no_route_answers_without_the_token(served: Any, headers: dict[str, str]) -> None:
    ask = Client(served)
    for method, path in [
        *routes(ask),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/v1/predict"),
        ("TRACE", "/v2/health/live"),
    ]:
        answer = ask(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_no_route_answers_to_another_host(served: Any) -> None:
    ask = Client(served)
    for method, path in routes(ask):
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.5"):
            assert ask(method, path, headers={"host": host}).status_code == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert ask("GET", "/v2/health/live", headers={"host": host}).status_code == 200


def test_pages_of_other_origins_cannot_ask(served: Any) -> None:
    ask = Client(served)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:9"},
    ):
        assert ask("POST", "/v1/predict", json={"row": GOOD}, headers=headers).status_code == 403
    assert ask("POST", "/v1/predict", json={"row": GOOD}, headers={"origin": "http://127.0.0.1:8000"}).status_code == 200


def test_large_bodies_are_stopped_by_their_length_and_while_they_come(served: Any) -> None:
    ask = Client(served, body_limit_bytes=1000)
    assert ask("POST", "/v1/predict", content=b"x" * 1001).status_code == 413
    assert ask("POST", "/v1/predict", content=b"{}", headers={"content-length": "9" * 5000}).status_code == 413
    sent = 0

    async def stream() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b"x" * 100

    assert ask("POST", "/v1/predict", content=stream()).status_code == 413
    assert sent <= 1200
    assert (
        ask("POST", "/v1/predict", content=b"{}", headers={"content-length": "2", "transfer-encoding": "chunked"}).status_code
        == 400
    )


def test_health_and_model_pages(served: Any) -> None:
    ask = Client(served)
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json() == {"live": True, "ready": True}
    page = ask("GET", "/v2/models/small-world").json()
    assert (page["name"], page["versions"], page["platform"]) == ("small-world", ["1"], "noria")
    assert {"name": "x", "datatype": "FP64", "shape": [-1, 1]} in page["inputs"]
    for path, status in (("/v2/models/other", 404), ("/nowhere", 404)):
        assert ask("GET", path).status_code == status
        assert set(ask("GET", path).json()) == {"error", "kind", "hint"}
    assert ask("GET", "/v1/predict").status_code == 405


def test_a_damaged_champion_is_not_ready_and_does_not_act(served: Any) -> None:
    served.home.artifacts.path(deployment.state(served.home).champion).write_bytes(b"the disk forgot")
    ask = Client(served)
    answer = ask("GET", "/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"live": True, "ready": False})
    assert ask.predict(GOOD).json()["score"] is None


def test_what_goes_wrong_inside_is_not_told(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Client(served)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret")

    monkeypatch.setattr("noria.deployment.service.app.history", fail)
    answer = ask.predict(GOOD)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert set(answer.json()) == {"error", "kind", "hint"}


def test_requests_are_sealed_into_the_lake_once(asking: Any) -> None:
    ask = Client(asking)
    for i in range(5):
        assert ask.predict(GOOD | {"unit": f"u{i}", "x": i / 4, "n": i}).status_code == 200
    ask.predict(GOOD | {"unit": "u0", "x": 1.0, "n": 1})  # the same moment and key again: the first answer stands
    entry = deployment.sweep(asking.home, asking.system)
    assert entry is not None
    assert entry.record.n == 5
    assert deployment.sweep(asking.home, asking.system) is None
    frame = asking.home.lake.read("predictions")
    assert frame["_id"].to_list() == [f"u{i}@20240101T050000Z" for i in range(5)]
    assert frame["_score"].to_list() == [i / 4 for i in range(5)]
    asking.clock.move(asking.clock.now() + timedelta(minutes=1))
    ask.predict(GOOD | {"unit": "late", "n": 7})
    assert deployment.sweep(asking.home, asking.system).record.n == 1
    assert asking.home.lake.read("predictions").height == 6


def test_a_sweep_that_was_killed_seals_once(asking: Any) -> None:
    ask = Client(asking)
    ask.predict(GOOD | {"n": 1})
    commit = asking.home.commit

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    asking.home.commit = die  # between the table's file and the record
    with pytest.raises(KeyboardInterrupt):
        deployment.sweep(asking.home, asking.system)
    asking.home.commit = commit
    asking.home.lake.abandon()
    assert deployment.sweep(asking.home, asking.system).record.n == 1
    assert asking.home.lake.read("predictions").height == 1


def test_settled_files_go_when_everything_in_them_is_sealed(asking: Any) -> None:
    Client(asking).predict(GOOD | {"n": 1})
    folder = asking.home.path / "service"
    deployment.sweep(asking.home, asking.system)
    assert list(folder.glob("predictions-*.db"))  # its hour is not over
    asking.clock.move(asking.clock.now() + timedelta(hours=3))
    assert deployment.sweep(asking.home, asking.system) is None
    assert not list(folder.glob("predictions-*"))
    assert asking.home.lake.read("predictions").height == 1


def test_the_token_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    made = token_of(folder, Settings())
    assert len(made) >= 32
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert token_of(folder, Settings()) == made
    assert token_of(folder, Settings(token="a-token-of-my-own")) == "a-token-of-my-own"
    with pytest.raises(SettingsError):
        token_of(folder, Settings(token="short"))
    (folder / "token").chmod(0o644)
    with pytest.raises(Refused, match="others can read"):
        token_of(folder, Settings())


def test_loopback_is_known() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example.com")] == [
        True
    ] * 3 + [False] * 3


def test_numbers_are_read_as_they_are() -> None:
    assert decode(b'{"row": {"x": 0.1, "n": 9007199254740993}}') == {"row": {"x": 0.1, "n": 9007199254740993}}


SERVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import world
from noria import deployment
from noria.core import SystemClock
from noria.settings import Settings
from noria.store import Home
settings = Settings(port=int(sys.argv[3]))
with Home.open(Path(sys.argv[2]), settings, SystemClock(), write=False) as home:
    deployment.serve(home, world.system_of(), settings)
"""


def test_granian_serves_and_stops(served: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = token_of(served.home.path / "service", Settings())
    command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(served.home.path), str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        answer = _ask_when_up(server, port, token)
        assert answer["score"] == 0.9
        with pytest.raises(Conflict, match="cannot be listened at"):
            deployment.serve(served.home, served.system, Settings(port=port))
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert b" 421 " in raw.makefile("rb").readline()
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()
    (file,) = (served.home.path / "service").glob(f"predictions-{server.pid}-*.db")
    with sqlite3.connect(file) as connection:
        (stored,) = connection.execute("select row from predictions").fetchone()
    connection.close()
    assert pl.read_ipc(stored)["_score"].to_list() == [0.9]


def _ask_when_up(server: subprocess.Popen[bytes], port: int, token: str) -> Any:
    body = json.dumps({"row": GOOD}).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/predict", body, headers)
    while server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()) from None
        except urllib.error.URLError:
            continue
    raise AssertionError(server.stderr.read() if server.stderr else "")
