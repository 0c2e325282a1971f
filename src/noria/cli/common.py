"""What every command shares: its options, opening a declaration and its home, and printing."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.core import (
    Clock,
    Conflict,
    DeclarationError,
    NotFound,
    Problem,
    SimulatedClock,
    SystemClock,
    canonical,
    check_name,
    duration,
    parse_time,
)
from noria.records import Declared
from noria.settings import Settings, read_settings
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home

FileArgument = Annotated[Path, Parameter(help="The declaration: a Python file that makes a `system`.")]
FileOption = Annotated[Path, Parameter(name="--file", help="The declaration: a Python file that makes a `system`.")]
HomeOption = Annotated[
    Path | None, Parameter(name="--home", help="Where everything of the system is kept. Default: .noria/NAME beside FILE.")
]
JsonOption = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="Print one JSON document instead of text.")
]
AtOption = Annotated[
    str | None, Parameter(name="--at", help="The moment to act as of, for example 2013-03-01T06:00, or now. Default: now.")
]
ByOption = Annotated[str | None, Parameter(name="--by", help="Who decides. Default: the name you are logged in with.")]
NoteOption = Annotated[str, Parameter(name="--note", help="Why.")]

DEFAULT_FILE = Path("system.py")
NOW = "now"
FAR = timedelta(days=14)
"""A home that stands so long before now is probably one of history: what is written there needs ``--at``."""


def load_system(file: Path) -> System:
    """Runs a declaration's file and returns its ``system``, with relative paths of sources starting at the file's folder.

    Raises ``NotFound`` when there is no such file and ``DeclarationError`` (with the line) when it does not run or has no system.
    """
    if not file.is_file():
        raise NotFound(f"there is no declaration {file}", hint="name the file, or write one with `noria init`")
    file = file.resolve()
    name = f"declaration_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise _wrong(file.name, "is not a Python file", "a declaration ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _wrong(_place(error, file), f"{type(error).__name__}: {error}", "") from error
    finally:
        sys.path.remove(str(file.parent))
    system = getattr(module, "system", None)
    if not isinstance(system, System):
        raise _wrong(file.name, "does not make a `system`", "write `system = noria.System(...)`")
    check_name(system.name, "system's name")
    return replace(system, folder=file.parent)


def _wrong(place: str, message: str, hint: str) -> DeclarationError:
    return DeclarationError([Problem(place, message, hint)])


def _place(error: Exception, file: Path) -> str:
    """File and line where a declaration went wrong, in the declaration's own file when it can be found."""
    if isinstance(error, SyntaxError):
        return f"{file.name}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file.name}:{frames[-1].lineno}" if frames else file.name


def home_path(system: System, home: Path | None, settings: Settings) -> Path:
    """``--home``, or ``NORIA_HOME``, or ``.noria/NAME`` beside the declaration."""
    if home is not None:
        return home
    if settings.home != Settings().home:
        return settings.home
    return system.folder / ".noria" / system.name


@contextmanager
def opened(
    file: Path, home: Path | None, *, at: str | None = None, owner: str = "", create: bool = False, computes: bool = False
) -> Iterator[tuple[Home, System]]:
    """A declaration and its home, to read; with ``owner`` to write, holding the lease so that nobody else writes meanwhile.

    With ``computes`` the numbers follow from the declaration: when another one is in force, that is said.

    Raises ``NotFound`` for a home that does not exist yet, unless it may be made (``create``), and ``Conflict`` when ``owner`` wants
    to write at a time before what is already recorded, or without ``at`` in a home that stands far before now (unless it turns the wheel).
    """
    from noria.store import Home

    system, settings = load_system(file), read_settings()
    path = home_path(system, home, settings)
    if not create and not path.is_dir():
        raise NotFound(
            f"there is nothing of {system.name} yet: {path} does not exist", hint="run `noria turn` or `noria replay` first"
        )
    clock: Clock = SystemClock() if at is None or at == NOW else SimulatedClock(parse_time(at))
    with Home.open(path, settings, clock, create=create, write=bool(owner)) as store:
        check_owner(store, system)
        if computes:
            warn_of_another(store, system, file)
        if not owner:
            yield store, system
            return
        if at is None and owner != "turn":
            check_near(store, system)
        with store.hold(owner):
            newest = store.ledger.read(newest=1)
            if newest and clock.now() < newest[-1].at:
                raise Conflict(f"{path} already stands at {day(newest[-1].at)}", hint="give a later --at")
            yield store, system


def check_owner(store: Home, system: System) -> None:
    """Raises ``Conflict`` when the home holds another system than this one: nothing of it is read as ours, and nothing written to it."""
    last = store.ledger.latest(Declared)
    if last is not None and last.record.system != system.name:
        raise Conflict(
            f"{store.path} is the home of {last.record.system}, not of {system.name}",
            hint="give another --home, or the file that declares that system",
        )


def warn_of_another(store: Home, system: System, file: Path) -> None:
    """Says in one line on standard error when another declaration than this one is in force in the home."""
    last = store.ledger.latest(Declared)
    if last is not None and last.record.declaration != system.id:
        print(
            f"warning: {file} is not the declaration in force since {day(last.at)}, and the numbers here follow {file}; "
            f"`noria diff --file {file} --home {store.path}` shows what differs: give the file in force, or put this one in force with "
            "the next `noria turn`",
            file=sys.stderr,
        )


def check_near(store: Home, system: System) -> None:
    """Raises ``Conflict`` when the home stands far before now: one record of now, and nothing can be written before now any more."""
    newest, now = store.ledger.read(newest=1), store.clock.now()
    if newest and now - newest[-1].at > max(FAR, 2 * duration(system.every)):
        raise Conflict(
            f"{store.path} stands at {day(newest[-1].at)}, long before now: nothing was written",
            hint=f"add --at {_option(newest[-1].at)} to act as of then, or --at now to go on from now (then there is no way back)",
        )


def _option(moment: datetime) -> str:
    """A moment as ``--at`` takes it, exactly.

    >>> _option(parse_time("2013-02-01T06:30:00.5"))
    '2013-02-01T06:30:00.500000'
    >>> _option(parse_time("2013-02-01"))
    '2013-02-01'
    """
    text = moment.replace(tzinfo=None).isoformat()
    return text.removesuffix("T00:00:00").removesuffix(":00") if moment.second == 0 and moment.microsecond == 0 else text


def show(data: Any, render: Callable[[], Any], *, as_json: bool) -> None:
    """Prints ``data`` as one JSON document, or what ``render`` returns (text or a rich renderable) for a person."""
    if as_json:
        sys.stdout.write(canonical(data).decode() + "\n")
        return
    made = render()
    if isinstance(made, str):
        print(made)
    elif made is not None:
        console().print(made, crop=False)  # a table that has to be whole may be wider than the terminal


def console() -> Any:
    """The terminal, without guessing at highlights; where there is none, lines are as long as a table needs."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=140)


class Bar:
    """Progress of long work, on a terminal; nothing elsewhere.

    >>> with Bar("rows", quiet=True) as bar:
    ...     bar.move(1, 10)
    """

    def __init__(self, unit: str, *, quiet: bool) -> None:
        self._unit, self._quiet = unit, quiet
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        out = console()
        if not self._quiet and out.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(self._unit), TimeRemainingColumn())
            self._progress = Progress(*columns, console=out)
            self._progress.start()
            self._task = self._progress.add_task("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def move(self, done: int, of: int) -> None:
        """``done`` of ``of`` are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=of)


def day(moment: datetime | None) -> str:
    """A moment for a person, to the minute, in UTC.

    >>> day(parse_time("2013-02-01T06:30"))
    '2013-02-01 06:30'
    """
    if moment is None:
        return "never"
    return f"{moment:%Y-%m-%d %H:%M}" if (moment.hour, moment.minute) != (0, 0) else f"{moment:%Y-%m-%d}"


def person(by: str | None) -> str:
    """Who decides: what was given, or the name of the login."""
    if by:
        return by
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
