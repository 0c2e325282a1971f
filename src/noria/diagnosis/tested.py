"""The outcome of testing one cause."""

from __future__ import annotations

import re
from dataclasses import dataclass

from noria.core import Check, Estimate, Verdict
from noria.records import Step


@dataclass(frozen=True)
class Tested:
    """A cause and what its tests found.

    ``strength`` (0 to 1) says how much of the symptom it explains when it was found: 1 when the symptom could not have come about
    without it. ``blocks`` marks causes that training would learn.
    """

    name: str
    step: Step
    act: str
    evidence: tuple[Check, ...]
    strength: float = 0.0
    blocks: bool = False

    @property
    def runbook(self) -> str:
        """The section of the docs that says what to do, by the cause's name.

        >>> Tested("label noise", "data", "relabel", ()).runbook
        'docs/diagnosis.md#label-noise'
        """
        return f"docs/diagnosis.md#{re.sub('[^a-z0-9]+', '-', self.name)}"

    @property
    def verdict(self) -> Verdict:
        """FAIL when any of the tests found the cause at work, PASS when all cleared it, otherwise not enough data."""
        verdicts = {check.verdict for check in self.evidence}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.NOT_ENOUGH_DATA


def check(
    name: str,
    found: bool | None,
    *,
    subject: str = "",
    size: Estimate | None = None,
    bound: float | None = None,
    detail: str = "",
) -> Check:
    """A test of a cause: ``found`` is ``None`` when there was not enough data."""
    verdict = Verdict.NOT_ENOUGH_DATA if found is None else Verdict.FAIL if found else Verdict.PASS
    return Check(name, verdict, subject, rounded(size), None if bound is None else number(bound), detail)


def rounded(size: Estimate | None) -> Estimate | None:
    """The estimate with 9 significant digits: sums over threads may differ in the last ones."""
    if size is None:
        return None
    value, low, high = (None if x is None else number(x) for x in (size.value, size.low, size.high))
    return Estimate(value, low, high, size.n)


def number(value: float) -> float:
    """Nine significant digits."""
    return float(f"{value:.9g}")
