"""Draws by hashing: the same name always draws the same number, so that what was drawn can be told again from the log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def uniforms(names: Sequence[str], salt: str, *, draw: int = 0) -> Floats:
    """One number in [0, 1) a name: 53 bits of sha256(salt, name). ``draw`` (0 to 3) takes other bits of the same hash.

    >>> bool(uniforms(["a"], "s")[0] == uniforms(["a"], "s")[0])
    True
    """
    start = hashlib.sha256(f"{salt}\x1f".encode())
    at = slice(8 * draw, 8 * draw + 8)
    raw = bytearray()
    for name in names:
        hashed = start.copy()
        hashed.update(name.encode())
        raw += hashed.digest()[at]
    return (np.frombuffer(bytes(raw), ">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def held_out(system: str, units: Sequence[str], share: float) -> Flags:
    """Which units are never acted on, whoever answers: the draw is salted by the system's name alone.

    >>> tenth = held_out("s", ["a", "b", "c"], 0.1)
    >>> bool((tenth <= held_out("s", ["a", "b", "c"], 0.5)).all())
    True
    """
    if share <= 0:
        return np.zeros(len(units), bool)
    return uniforms(units, f"holdout\x1f{system}") < share
