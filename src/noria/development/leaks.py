"""Columns that know the answer: the gate's form of ``features.suspects``.

No honest feature tells the label almost for certain. One that does was filled in after the fact, like a tail number that is missing
only where a flight was cancelled.
"""

from __future__ import annotations

import msgspec

from noria import features
from noria.core import Check, Verdict
from noria.development.frames import Rows
from noria.system import System

LEAST = 100
BOUND, OF_NUMBERS = 0.95, 0.98


def leaks(system: System, rows: Rows, columns: tuple[str, ...]) -> list[Check]:
    """One failed check for each column that tells the label by itself, the worst first; one passed check when there is none."""
    names = [name for name in columns if name in rows.frame.columns]
    if not names or rows.n < LEAST:
        return []
    label = "_class" if system.task == "multiclass" else "_label"
    gate = system.gate
    bound = OF_NUMBERS if system.task == "regression" else BOUND  # a number may honestly follow another closely
    suspected = features.suspects(rows.known().frame, label, names, block=gate.block, bound=bound, least=gate.blocks)
    worst = {check.subject: check for check in reversed(suspected) if check.verdict is Verdict.FAIL}
    if not worst:
        return [Check("no leak", Verdict.PASS, detail=f"none of {len(names)} columns tells the label by itself")]
    return [msgspec.structs.replace(check, name="no leak") for check in suspected if worst.get(check.subject) is check]
