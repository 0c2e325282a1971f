"""Identity: canonical JSON, content hashes, and names that cannot escape their folder."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from noria.core.errors import Refused

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes. Takes what msgspec takes."""
    return _encoder.encode(value)


def digest(value: Any) -> str:
    """The sha256 of ``canonical(value)``, as 64 hexadecimal digits.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_bytes(data: bytes) -> str:
    """The sha256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def quoted(name: str) -> str:
    """A name as a SQL identifier, whatever characters it has.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def check_name(name: str, what: str = "name") -> str:
    """Returns ``name`` when it is safe as a name; raises ``Refused`` otherwise.

    >>> check_name("late-flights")
    'late-flights'
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise Refused(
            f"the {what} {name!r} is not allowed",
            hint="use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit, without '..'",
        )
    return name
