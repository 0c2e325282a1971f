"""``noria up``: a worker that turns the wheel beside the service, and keeps the report's page fresh."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from noria.cli.common import check_owner, day, home_path, load_system, show
from noria.core import NoriaError, SystemClock
from noria.monitoring.outbox import deliver, prepare
from noria.settings import Settings
from noria.store import Home
from noria.system import System

if TYPE_CHECKING:
    from noria.monitoring.channels import Channel


def work(file: Path, home: Path | None, pause: float, settings: Settings, *, as_json: bool) -> int:
    """Turns every ``pause`` seconds in one thread and serves in this one, until SIGINT or SIGTERM.

    The lease is held for a turn at a time, so that a person can approve or roll back in between. The worker ends with its turn.
    """
    from noria import deployment
    from noria.monitoring.channels import channels

    system = load_system(file)
    given = channels(settings.alerts, json=as_json)
    path = home_path(system, home, settings)
    page = path / "report.html"
    stop = threading.Event()
    with Home.open(path, settings, SystemClock()) as made:  # made here once, so that the service finds it
        check_owner(made, system)
    url = f"http://{settings.host}:{settings.port}"
    worker = threading.Thread(target=_turn_until, args=(stop, path, system, settings, pause, given), name="noria-worker")
    show(
        {"url": url, "home": str(path), "report": str(page)},
        lambda: f"{system.name}: serving at {url}; the token is in {path / 'service' / 'token'}; the report is {page}",
        as_json=as_json,
    )
    sys.stdout.flush()
    worker.start()
    try:
        deployment.serve(path, declared(file), settings)
    finally:
        stop.set()
        worker.join()
    return 0


def declared(file: Path) -> Callable[[], System]:
    """What reads the declaration again in a worker's own process."""
    return partial(load_system, file.resolve())


def _turn_until(  # noqa: PLR0917  what a thread is started with comes in order
    stop: threading.Event, path: Path, system: System, settings: Settings, pause: float, given: Sequence[Channel]
) -> None:
    """Turns until told to stop, and sends alerts. What goes wrong is said, and the next turn tries again."""
    said, unsent, page = "", "", path / "report.html"
    with Home.open(path, settings, SystemClock()) as home:
        while not stop.is_set():
            try:
                prepare(home, given)
                said = _once(home, system, page, said)
                unsent = _say(
                    "; ".join(f"an alert could not be sent ({wrong})" for wrong in deliver(home, system, given)), unsent
                )
            except NoriaError as error:
                said = _say(f"the turn failed: {error.message}" + (f" ({error.hint})" if error.hint else ""), said)
            stop.wait(pause)


def _once(home: Home, system: System, page: Path, said: str) -> str:
    """One turn, and the report when the turn did something or there is none yet."""
    from noria import loop
    from noria.web import report

    with home.hold("up"):
        done = loop.turn(home, system)
    if done.did or not page.exists():
        part = page.with_suffix(".part")
        part.write_text(report(home, system), encoding="utf-8")
        part.replace(page)
    if done.stopped:
        return _say(f"stopped at {done.stopped}: {done.reason} ({done.hint})", said)
    if done.did:
        print(f"{day(done.at)}  {', '.join(done.did)}", file=sys.stderr, flush=True)
    return ""


def _say(text: str, before: str) -> str:
    """Says a thing once while it stays the same."""
    if text and text != before:
        print(text, file=sys.stderr, flush=True)
    return text
