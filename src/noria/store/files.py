"""Bytes that stay: files written so that a loss of power after the call cannot take them away.

Every file is written beside its place, flushed to the disk, and then given its name, so that a reader never sees a part of
it; then the folder that holds the name is flushed too. ``durable=False`` leaves out the waiting for the disk, never the order.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from noria.core import Corrupt, Unavailable

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_folder(folder: Path) -> None:
    """Flushes a folder's list of names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, durable: bool) -> None:
    """Makes a folder and its parents, each name flushed to the disk when ``durable``; raises ``Unavailable`` when it cannot."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent, durable)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if durable:
            sync_folder(folder.parent)
    except OSError as error:
        raise no_room(error, folder) from error


def write_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Writes a whole file or nothing.

    ``durable`` waits until bytes and name are on the disk. Raises ``Unavailable`` when there is no room or the disk refuses;
    nothing is left behind then, and a file that was at ``path`` before is as it was.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "a"
    >>> write_file(place, b"water", durable=True)
    >>> place.read_bytes()
    b'water'
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        _write_all(beside, data, durable)
        beside.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise no_room(error, path) from error


def _write_all(path: Path, data: bytes, durable: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = memoryview(data)
        while rest:  # a write may take less than it was given, without an error
            rest = rest[os.write(handle, rest) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def no_room(error: OSError, path: Path) -> Unavailable:
    """The error of the disk as one of ours."""
    if error.errno in _NO_ROOM:
        return Unavailable(
            f"no room on the disk to write {path}", hint="free some space and run again; what was there before is intact"
        )
    return Unavailable(
        f"cannot write {path}: {error.strerror or error}", hint="check the disk and its permissions, then run again"
    )


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits; raises ``Corrupt`` when it is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Corrupt(f"{path} cannot be read: {error.strerror or error}", hint="run `noria repair`") from error
