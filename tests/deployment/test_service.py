from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria import deployment
from noria.core import Corrupt, Refused, SettingsError
from noria.deployment import log, seal
from noria.deployment.service.app import routes
from noria.deployment.service.door import is_loopback, token_of
from noria.deployment.service.wire import loads
from noria.settings import Settings

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
REQUEST = nr.Request({"unit": "VARCHAR", "x": "DOUBLE", "z": "DOUBLE", "shop": "VARCHAR", "n": "BIGINT"}, key="unit")


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


def settle(ask: Any) -> None:
    """Waits until everything that was answered is on the disk."""
    while ask.app.service.log.committed < ask.app.service.log.acknowledged:
        ask("GET", "/v2/health/live")


GOOD = {"unit": "u", "x": 0.9, "z": 0.1, "shop": "a"}


def test_single_rows_get_what_the_batch_got(running: Any, served: Any) -> None:
    end = START + DAY * 3
    served.score(end)
    batch = served.home.lake.read("predictions", _time=(end - DAY, end))
    ask = running(served)
    for row in batch.head(25).iter_rows(named=True):
        said = ask.predict({name: row[name] for name in GOOD}, asked_at=row["_time"].isoformat()).json()
        assert said["id"] == row["_id"]
        assert (said["score"], said["release"], said["variant"]) == (row["_score"], row["_release"], row["_variant"])
        assert (float(said["act"]), said["act_propensity"]) == (row["_act"], row["_act_propensity"])
    ask.stop()
    assert deployment.sweep(served.home, served.system) is None  # the source has brought these rows to the lake
    assert served.home.lake.read("predictions", _time=(end - DAY, end)).height == batch.height


def test_in_durable_mode_every_answer_is_on_the_disk_first(running: Any, served: Any) -> None:
    ask = running(served, log="durable", durable=True)
    for number in range(1, 4):
        assert ask.predict(GOOD | {"x": number / 4}).status_code == 200
        (file,) = (served.home.path / "service").glob("predictions-*.db")
        assert file.stat().st_mode & 0o077 == 0
        connection = log.connect(file)
        assert sum(len(group.rows) for group in log.groups(connection, file, most=100)) == number
        connection.close()


def test_what_a_system_with_a_source_answers_is_sealed_too_and_not_scored_again(running: Any, served: Any) -> None:
    end = START + DAY * 3
    spine = served.spine(end)
    served.clock.move(end)
    ask = running(served)
    row = spine.row(0, named=True)
    said = ask.predict({name: row[name] for name in GOOD}, asked_at=row["_time"].isoformat()).json()
    now = ask.predict(GOOD | {"unit": "by the way"}).json()
    ask.stop()
    sealed = deployment.sweep(served.home, served.system)
    assert sealed.record.n == 2
    assert sealed.key.startswith("requests/")
    served.score(end)
    batch = served.home.lake.read("predictions", _time=(end - DAY, end))
    assert batch["_id"].is_unique().all()
    assert batch.height == spine.height + 1
    kept = batch.filter(pl.col("_id") == said["id"])
    assert kept["_score"].to_list() == [said["score"]]
    assert now["id"] in batch["_id"].to_list()


def test_before_a_release_the_answer_is_that_nothing_is_done(running: Any, world: Any) -> None:
    said = running(world()).predict(GOOD).json()
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
def test_a_wrong_field_is_named(running: Any, served: Any, row: Any, field: str) -> None:
    answer = running(served).predict(row)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "kind", "hint"}
    assert answer.json()["error"].startswith(f"{field}:")


def test_an_error_repeats_no_data(running: Any, served: Any) -> None:
    ask = running(served)
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
def test_what_is_no_row_is_refused(running: Any, served: Any, body: bytes) -> None:
    answer = running(served)("POST", "/v1/predict", content=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "kind", "hint"}


def test_the_time_of_asking_has_a_zone_and_has_come(running: Any, served: Any) -> None:
    ask = running(served)
    for wrong in ("2024-01-02T00:00:00", "yesterday", 5, "2034-01-02T00:00:00Z"):
        answer = ask.predict(GOOD, asked_at=wrong)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("asked_at:")
    assert ask.predict(GOOD, asked_at="2024-01-02T02:00:00+02:00").json()["id"] == "u@20240102T000000Z"


def pages() -> list[tuple[str, str]]:
    """Every page with every method it takes."""
    parts = {"name": "small-world", "version": "1", "source": "facts"}
    found = [(method, pattern.format(**parts)) for pattern, methods in routes().items() for method in methods]
    assert len(found) == 21
    return found


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}])
def test_no_route_answers_without_the_token(running: Any, served: Any, headers: dict[str, str]) -> None:
    ask = running(served)
    for method, path in [
        *pages(),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/v1/predict"),
        ("TRACE", "/v2/health/live"),
    ]:
        answer = ask(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_no_route_answers_to_another_host(running: Any, served: Any) -> None:
    ask = running(served)
    for method, path in pages():
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.5"):
            assert ask(method, path, headers={"host": host}).status_code == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert ask("GET", "/v2/health/live", headers={"host": host}).status_code == 200


def test_pages_of_other_origins_cannot_ask(running: Any, served: Any) -> None:
    ask = running(served)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:9"},
    ):
        assert ask("POST", "/v1/predict", json={"row": GOOD}, headers=headers).status_code == 403
    assert ask("POST", "/v1/predict", json={"row": GOOD}, headers={"origin": ask.url}).status_code == 200


def test_large_bodies_are_stopped_by_their_length_and_while_they_come(running: Any, served: Any) -> None:
    ask = running(served, body_limit_bytes=1000)
    assert ask("POST", "/v1/predict", content=b"x" * 1001).status_code == 413

    def stream() -> Any:
        for _ in range(20):
            yield b"x" * 100

    assert ask("POST", "/v1/predict", content=stream()).status_code == 413
    assert ask.predict(GOOD).status_code == 200


def test_health_and_model_pages(running: Any, served: Any) -> None:
    ask = running(served)
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json() == {"live": True, "ready": True}
    page = ask("GET", "/v2/models/small-world").json()
    assert (page["name"], page["versions"], page["platform"]) == ("small-world", ["1"], "noria")
    assert {"name": "x", "datatype": "FP64", "shape": [-1, 1]} in page["inputs"]
    for path, status in (("/v2/models/other", 404), ("/nowhere", 404)):
        assert ask("GET", path).status_code == status
        assert set(ask("GET", path).json()) == {"error", "kind", "hint"}
    assert ask("GET", "/v1/predict").status_code == 405


def test_a_damaged_champion_is_not_ready_and_does_not_act(running: Any, served: Any) -> None:
    served.home.artifacts.path(deployment.state(served.home).champion).write_bytes(b"the disk forgot")
    ask = running(served)
    answer = ask("GET", "/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"live": True, "ready": False})
    assert ask.predict(GOOD).json()["score"] is None


def test_what_goes_wrong_inside_is_not_told(running: Any, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = running(served)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret")

    monkeypatch.setattr(ask.app.service, "one", fail)
    answer = ask.predict(GOOD)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert set(answer.json()) == {"error", "kind", "hint"}


def test_requests_are_sealed_into_the_lake_once(running: Any, asking: Any) -> None:
    ask = running(asking)
    for i in range(5):
        assert ask.predict(GOOD | {"unit": f"u{i}", "x": i / 4, "n": i}).status_code == 200
    ask.predict(GOOD | {"unit": "u0", "x": 1.0, "n": 1})  # the same moment and key again: the first answer stands
    settle(ask)
    entry = deployment.sweep(asking.home, asking.system)
    assert entry is not None
    assert entry.record.n == 5
    assert deployment.sweep(asking.home, asking.system) is None
    frame = asking.home.lake.read("predictions")
    assert frame["_id"].to_list() == [f"u{i}@20240101T050000Z" for i in range(5)]
    assert frame["_score"].to_list() == [i / 4 for i in range(5)]
    asking.clock.move(asking.clock.now() + timedelta(minutes=1))
    ask.predict(GOOD | {"unit": "late", "n": 7})
    settle(ask)
    assert deployment.sweep(asking.home, asking.system).record.n == 1
    assert asking.home.lake.read("predictions").height == 6


def same_ids(home: Any) -> float:
    """How many answers were counted that have another's id and say something else."""
    return float(home.measurements.read("predictions_same_id")["value"].sum())


def test_another_answer_of_the_same_id_is_counted(running: Any, asking: Any) -> None:
    ask = running(asking)
    for given in ({"x": 0.5}, {"x": 1.0}, {"x": 0.5}):  # the second says something else, the third the same
        ask.predict(GOOD | given | {"n": 1})
    ask.predict(GOOD | {"unit": "other", "n": 1})
    ask.stop()
    assert deployment.sweep(asking.home, asking.system).record.n == 2
    assert same_ids(asking.home) == 1
    again = running(asking)  # another process, as a second worker is
    again.predict(GOOD | {"x": 0.5, "n": 1})
    again.predict(GOOD | {"unit": "other", "n": 1, "shop": "b"})
    again.stop()
    assert deployment.sweep(asking.home, asking.system) is None
    assert same_ids(asking.home) == 2
    assert asking.home.lake.read("predictions").height == 2


def test_all_that_is_not_sealed_is_seen_however_many(running: Any, asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "AT_ONCE", 2)
    ask = running(asking, log="durable")  # each answer is a commit of its own
    for i in range(7):
        ask.predict(GOOD | {"unit": f"u{i}", "n": 1})
    assert sum(frame.height for frame in seal.unsealed(asking.home)) == 7
    assert sum(frame.height for frame in seal.unsealed(asking.home)) == 7  # looking marks nothing
    deployment.sweep(asking.home, asking.system)
    assert seal.unsealed(asking.home) == []


def test_a_damaged_page_names_its_file(running: Any, asking: Any) -> None:
    ask = running(asking)
    for i in range(3):
        ask.predict(GOOD | {"unit": f"u{i}", "n": 1})
    ask.stop()
    (file,) = (asking.home.path / "service").glob("predictions-*.db")
    connection = log.connect(file)
    connection.execute("pragma wal_checkpoint(truncate)")
    (page,) = connection.execute("select rootpage from sqlite_master where name = 'groups'").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    connection.close()
    with file.open("r+b") as handle:
        handle.seek((page - 1) * size)
        handle.write(b"\xff" * size)
    with pytest.raises(Corrupt, match=re.escape(str(file))):
        deployment.sweep(asking.home, asking.system)
    with pytest.raises(Corrupt, match=re.escape(str(file))):
        seal.unsealed(asking.home)


def test_a_sweep_that_was_killed_seals_once(running: Any, asking: Any) -> None:
    ask = running(asking)
    ask.predict(GOOD | {"n": 1})
    ask.stop()
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
    (file,) = (asking.home.path / "service").glob("predictions-*.db")
    connection = log.connect(file)
    connection.execute("delete from sealed")  # killed between the record and the mark
    connection.close()
    assert deployment.sweep(asking.home, asking.system) is None
    assert same_ids(asking.home) == 0  # it is the same answer


def test_settled_files_go_when_everything_in_them_is_sealed(running: Any, asking: Any) -> None:
    ask = running(asking)
    ask.predict(GOOD | {"n": 1})
    ask.stop()
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
    assert loads(b'{"row": {"x": 0.1, "n": 9007199254740993}}') == {"row": {"x": 0.1, "n": 9007199254740993}}
