"""Artifacts: bytes (bundles, profiles, reports) kept under the hash of their content."""

from __future__ import annotations

import re
from pathlib import Path

from noria.core import Corrupt, NotFound, Refused, digest_bytes
from noria.store.files import make_folder, write_file

_SHA = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """A folder of bytes by sha256; the same bytes are kept once.

    >>> import tempfile
    >>> artifacts = Artifacts(Path(tempfile.mkdtemp()), durable=False)
    >>> artifacts.get(artifacts.put(b"a bundle"))
    b'a bundle'
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._folder = folder
        self._durable = durable

    def put(self, data: bytes) -> str:
        """Keeps bytes; gives their sha256. Raises ``Unavailable`` when there is no room."""
        sha256 = digest_bytes(data)
        place = self.path(sha256)
        if place.exists() and place.read_bytes() == data:
            return sha256
        make_folder(place.parent, self._durable)
        write_file(place, data, durable=self._durable)
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes, verified; raises ``NotFound``, and ``Corrupt`` when they are not what was put."""
        place = self.path(sha256)
        try:
            data = place.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no artifact {sha256}", hint="restore the home's artifacts folder from a backup") from None
        except OSError as error:
            raise Corrupt(f"{place} cannot be read: {error.strerror or error}", hint="restore it from a backup") from error
        if digest_bytes(data) != sha256:
            raise Corrupt(
                f"{place} is not what was stored: its sha256 differs from its name",
                hint="restore it from a backup, or train again",
            )
        return data

    def path(self, sha256: str) -> Path:
        """Where the bytes lie (or would); raises ``Refused`` for anything that is not a sha256."""
        if not _SHA.fullmatch(sha256):
            raise Refused(f"{sha256[:80]!r} is not a sha256", hint="artifacts are named by 64 hexadecimal digits")
        return self._folder / sha256[:2] / sha256
