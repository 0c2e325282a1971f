"""A worker's look-up sees every event that was accepted, whenever it was accepted and whatever goes wrong in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import SimulatedClock, micros
from noria.deployment.service.lookup import Lookup
from noria.features.online import Online
from noria.settings import Settings
from noria.store import EventLog, Home, NewEvent
from noria.store.events import log_path

NOW = datetime(2024, 1, 1, tzinfo=UTC)
AT = micros(NOW)
SCHEMA = {"card": pl.String(), "amount": pl.Float64()}


@pytest.fixture
def system() -> nr.System:
    """Requests, with two sources whose events come by HTTP."""
    asked = nr.Request({"card": "VARCHAR", "amount": "DOUBLE"}, key="card")
    some = [nr.Source(name, key="card", time="at", owner="us") for name in ("declines", "complaints")]
    return nr.System(
        name="cards",
        predict=asked,
        label=nr.Label(some[1], "true", within="1h", otherwise=False),
        features=[source.window("1h", every="5m", by="card").count().named(source.name) for source in some],
        objective=nr.Objective("Which?", nr.Value("0"), "log_loss"),
        candidates=[nr.Prior()],
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with closing(Home.open(tmp_path / "home", Settings(durable=False), SimulatedClock(NOW))) as made:
        yield made


@pytest.fixture
def log(home: Home) -> Iterator[EventLog]:
    with closing(EventLog(log_path(home.path), durable=False)) as made:
        yield made


def came(name: str, minutes: float = 1) -> NewEvent:
    at = NOW - timedelta(minutes=minutes)
    return NewEvent(name, micros(at), micros(at), {"card": "c", "at": at.isoformat()})


def asked(lookup: Lookup) -> tuple[Any, ...] | None:
    return lookup.values({"card": "c", "amount": 1.0}, AT)


def patched(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, instead: Callable[..., Any]) -> None:
    was = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *given: instead(was, self, *given))


def test_an_event_accepted_between_two_looks_at_the_start_is_seen(
    home: Home, system: nr.System, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(was: Any, self: EventLog, source: str, upto: int) -> Any:
        found = was(self, source, upto)
        if not looked:
            for name in system.sources:
                log.append(name, [came("meanwhile")])
        looked.append(source)
        return found

    patched(monkeypatch, EventLog, "unsealed", look)
    lookup = Lookup(home, system, SCHEMA)
    assert sorted(looked) == ["complaints", "declines"]
    assert asked(lookup) == (1.0, 1.0)


def test_what_is_in_the_lake_already_is_not_read_again(
    home: Home, system: nr.System, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append("declines", [came(f"e{n}", n) for n in range(20)])
    log.seal([event.seq for event in log.since(0)])
    read: list[int] = []
    patched(monkeypatch, EventLog, "since", lambda was, self, seq: read.append(len(made := was(self, seq))) or made)
    lookup = Lookup(home, system, SCHEMA)
    assert asked(lookup) is not None
    assert read == [0]
    log.append("declines", [came("new")])
    assert asked(lookup) == (1.0, 0.0)


def test_events_that_could_not_be_taken_are_taken_at_the_next_look(
    home: Home, system: nr.System, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = Lookup(home, system, SCHEMA)
    assert asked(lookup) == (0.0, 0.0)
    log.append("declines", [came("a"), came("b")])
    log.append("complaints", [came("a")])
    with monkeypatch.context() as broken:
        broken.setattr(Online, "_learn", _fail)
        with pytest.raises(MemoryError):
            asked(lookup)
    assert asked(lookup) == (2.0, 1.0)


def _fail(*_: Any) -> None:
    raise MemoryError


def test_a_look_up_that_is_let_go_closes_the_log(home: Home, system: nr.System) -> None:
    def held() -> int:
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        own = home.path / "service" / "events.db"  # other tests of this process have logs of their own
        return sum(link.readlink() == own for link in links if link.is_symlink())

    for _ in range(5):
        lookup = Lookup(home, system, SCHEMA)
    assert asked(lookup) == (0.0, 0.0)
    assert held() <= 4, "one is made before the other goes"
    del lookup
    assert held() == 0
