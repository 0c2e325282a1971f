"""``noria up``: a worker that turns the wheel beside the service, and keeps the report's page fresh."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from noria.cli.common import check_owner, day, home_path, load_system, show
from noria.core import NoriaError, SystemClock
from noria.settings import Settings
from noria.store import Home
from noria.system import System


def work(file: Path, home: Path | None, pause: float, settings: Settings, *, as_json: bool) -> int:
    """Turns every ``pause`` seconds in one thread and serves in this one, until SIGINT or SIGTERM.

    The lease is held for a turn at a time, so that a person can approve or roll back in between. The worker ends with its turn.
    """
    from noria import deployment

    system = load_system(file)
    path = home_path(system, home, settings)
    page = path / "report.html"
    stop = threading.Event()
    with Home.open(path, settings, SystemClock()) as made:  # made here once, so that the service finds it
        check_owner(made, system)
    url = f"http://{settings.host}:{settings.port}"
    worker = threading.Thread(target=_turn_until, args=(stop, path, system, settings, pause), name="noria-worker")
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


def _turn_until(stop: threading.Event, path: Path, system: System, settings: Settings, pause: float) -> None:
    """Turns until told to stop. What goes wrong in a turn is said, and the next turn tries again."""
    said, page = "", path / "report.html"
    with Home.open(path, settings, SystemClock()) as home:
        while not stop.is_set():
            try:
                said = _once(home, system, page, said)
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
    if text != before:
        print(text, file=sys.stderr, flush=True)
    return text
