"""Loads a bundle in a clean process: ``python -m noria.model.verify FILE [SHA256]``.

Prints one line of JSON, ``{"ok": true, "rows": 64, "difference": 0.0}`` or ``{"ok": false, "error": "…"}``, and ends with 0 or 1. The
gate runs it before a bundle may be released.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from noria.core import NoriaError, Refused

SECONDS = 120


def verify(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Loads the bundle in this process; see the module."""
    from noria.model.bundle import load

    try:
        bundle = load(path.read_bytes(), sha256)
    except NoriaError as error:
        return {"ok": False, **error.as_json()}
    except OSError as error:
        return {"ok": False, "error": f"{path.name} cannot be read: {error.strerror}", "kind": "NotFound", "hint": ""}
    return {"ok": True, "rows": len(bundle.golden.scores), "difference": bundle.difference(), "candidate": bundle.spec.candidate}


def verify_apart(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Loads the bundle in a process of its own, and says what that found. A crash there is an answer here."""
    command = [sys.executable, "-m", "noria.model.verify", str(path), *([sha256] if sha256 else [])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        return dict(msgspec.json.decode(done.stdout))
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"it did not load within {SECONDS} s", "kind": Refused.__name__, "hint": ""}
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = last[0] if last else f"the process ended with {done.returncode}"
        return {"ok": False, "error": f"it did not load: {why}", "kind": Refused.__name__, "hint": ""}


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print("usage: python -m noria.model.verify FILE [SHA256]", file=sys.stderr)
        return 2
    answer = verify(Path(arguments[0]), arguments[1] if len(arguments) == 2 else None)
    print(msgspec.json.encode(answer).decode())
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
