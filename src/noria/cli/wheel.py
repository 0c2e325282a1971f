"""``turn``, ``up``, ``serve``: the commands that turn the wheel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    AtOption,
    FileArgument,
    HomeOption,
    JsonOption,
    day,
    opened,
    show,
)
from noria.core import SettingsError, duration
from noria.settings import read_settings

if TYPE_CHECKING:
    from noria.loop import Turn


def turn(file: FileArgument = DEFAULT_FILE, /, *, at: AtOption = None, home: HomeOption = None, json: JsonOption = False) -> int:
    """Does what is due now, once: ingests, scores, closes cohorts, watches, accounts, trains and moves the rollout as needed."""
    from noria import loop
    from noria.monitoring.channels import channels
    from noria.monitoring.outbox import deliver, prepare

    given = channels(read_settings().alerts, json=json)
    with opened(file, home, at=at, owner="turn", create=True) as (store, system):
        prepare(store, given)
        done = loop.turn(store, system)
        for wrong in deliver(store, system, given):
            print(f"an alert could not be sent ({wrong}); the next turn tries again", file=sys.stderr)
    data = {"at": done.at, "did": done.did, "stopped": done.stopped, "reason": done.reason, "hint": done.hint}
    show(data, lambda: _turned(done), as_json=json)
    return 1 if done.stopped else 0


def _turned(done: Turn) -> str:
    did = ", ".join(done.did) or "nothing was due"
    if not done.stopped:
        return f"{day(done.at)}: {did}"
    return f"{day(done.at)}: {did}\nstopped at {done.stopped}: {done.reason}\n  what to do: {done.hint}"


def serve(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    host: Annotated[str | None, Parameter(help="Where to listen. Default: the machine itself only.")] = None,
    port: Annotated[int | None, Parameter(help="The port. Default: 8000.")] = None,
    workers: Annotated[int | None, Parameter(help="Processes that answer. Default: 1.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Serves predictions by HTTP with the champion, until it is stopped."""
    from noria.cli.worker import declared
    from noria.deployment import serve as run

    settings = read_settings(host=host, port=port, workers=workers)
    with opened(file, home) as (store, system):
        path, name = store.path, system.name
    url = f"http://{settings.host}:{settings.port}"
    show({"url": url}, lambda: f"serving {name} at {url}; the token is in {path / 'service' / 'token'}", as_json=json)
    sys.stdout.flush()
    run(path, declared(file), settings)
    return 0


def up(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    every: Annotated[str, Parameter(help="Time between two turns.")] = "1m",
    host: Annotated[str | None, Parameter(help="Where to listen. Default: the machine itself only.")] = None,
    port: Annotated[int | None, Parameter(help="The port. Default: 8000.")] = None,
    workers: Annotated[int | None, Parameter(help="Processes that answer. Default: 1.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Keeps turning the wheel, serves predictions and writes the report into the home, until it is stopped."""
    from noria.cli.worker import work

    pause = duration(every).total_seconds()
    if pause <= 0:
        raise SettingsError(f"--every {every} is not a time between two turns", hint='write for example "1m"')
    return work(file, home, pause, read_settings(host=host, port=port, workers=workers), as_json=json)
