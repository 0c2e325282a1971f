"""Numbers with their uncertainty, and verdicts with their evidence."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec


class Estimate(msgspec.Struct, frozen=True):
    """A number, the interval it lies in, and how many independent observations (blocks, units) stand behind it.

    ``low`` and ``high`` bound the value with the confidence that the maker states (95 % unless it says otherwise). They
    are ``None`` when the data cannot give an interval; such an estimate decides nothing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def known(self) -> bool:
        """Whether there is a value and a finite interval around it."""
        return all(x is not None and math.isfinite(x) for x in (self.value, self.low, self.high))

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above ``bound``."""
        return self.known and self.low is not None and self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below ``bound``."""
        return self.known and self.high is not None and self.high < bound

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        if not self.known:
            return f"{self.value:.4g} (no interval, n={self.n})"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class Verdict(StrEnum):
    """The answer of a check. ``NOT_ENOUGH_DATA`` is never a pass.

    ``NOT_MEASURED`` is for what this run could not measure at all (a latency under a simulated clock): it is shown, it
    is not a pass, and it decides nothing.
    """

    PASS = "pass"
    FAIL = "fail"
    NOT_ENOUGH_DATA = "not enough data"
    NOT_MEASURED = "not measured"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One test that was made: what was looked at, what came out, what was allowed, and the verdict.

    ``name`` is the test's own name (``"superior to baseline"``), ``subject`` what it was applied to (a column, a slice, a
    baseline), ``bound`` the threshold in the units of ``estimate``, ``detail`` one sentence for a person.
    """

    name: str
    verdict: Verdict
    subject: str = ""
    estimate: Estimate | None = None
    bound: float | None = None
    detail: str = ""


def overall(checks: tuple[Check, ...] | list[Check]) -> Verdict:
    """The verdict of several checks together: any failure fails; else anything unknown is not enough data.

    >>> overall([Check("a", Verdict.PASS), Check("b", Verdict.NOT_ENOUGH_DATA)])
    <Verdict.NOT_ENOUGH_DATA: 'not enough data'>
    """
    verdicts = {check.verdict for check in checks} - {Verdict.NOT_MEASURED}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if Verdict.NOT_ENOUGH_DATA in verdicts or not verdicts:
        return Verdict.NOT_ENOUGH_DATA
    return Verdict.PASS
