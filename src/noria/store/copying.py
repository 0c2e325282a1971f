"""A home copied beside itself, to try something on: the copy can be written to, and the home never notices."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from noria.core import Unavailable
from noria.store.events import log_path
from noria.store.files import no_room

if TYPE_CHECKING:
    from noria.store.home import Home

_FOLDERS = ("lake", "artifacts")


def copy_home(home: Home, folder: Path) -> Path:
    """Copies what answers depend on into ``folder``, which is there and empty: ledger, lake, artifacts and the events that came over HTTP.

    The databases are copied as of one moment each; files, which are never changed once they are written, are linked where the disk allows it, so
    that the copy costs no room. The caller holds the lease, so that no turn moves events while this runs. Raises ``Unavailable`` when the ledger is
    not in the home, or for want of room.
    """
    if home.settings.ledger:
        raise Unavailable("the ledger is not in the home, so the home cannot be copied", hint="this needs a ledger in SQLite")
    try:
        _copy_database(home.path / "ledger.db", folder / "ledger.db")
        for name in _FOLDERS:
            if (home.path / name).is_dir():
                shutil.copytree(home.path / name, folder / name, copy_function=_link)
        if log_path(home.path).exists():
            log_path(folder).parent.mkdir(mode=0o700)
            _copy_database(log_path(home.path), log_path(folder))
    except OSError as error:
        raise no_room(error, folder) from error
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as copy:
        copy.execute("update leases set token = ''")  # whoever holds the home does not hold its copy
    return folder


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as given, closing(sqlite3.connect(target)) as made:
        given.backup(made)
    target.chmod(0o600)


def _link(source: str, target: str) -> None:
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
