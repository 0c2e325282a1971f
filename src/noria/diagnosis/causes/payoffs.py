"""What acting rightly brings and acting in vain costs, before the fault and since: apart from every model, and from who was acted on.

A decision between leaving alone and acting pays from the chance C / (B + C) on, where acting brings B where the label is true and costs C
where it is false (Elkan 2001, "The foundations of cost-sensitive learning"). Both are counted over all closed rows with known
outcomes, whatever was done to them, so that a handful of days is enough. When B + C is gone, a better score no longer brings more money: the
metric is misaligned. When C / (B + C) moved, the order of the rows is worth what it was, and the threshold is stale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noria import measure
from noria.core import Check, Estimate, NoriaError
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.causes.units import Moved, moved_columns
from noria.diagnosis.tested import check
from noria.records import ColumnDay

LEFT = 0.25
ODDS = 1.25
RESIZED = 0.2


@dataclass(frozen=True)
class Payoffs:
    """B and C before and since, in the value's currency a row, and by how much each moved."""

    brings: tuple[float, float]
    costs: tuple[float, float]
    brings_moved: Estimate
    costs_moved: Estimate

    @property
    def moved(self) -> bool:
        """Whether either moved beyond what it does from day to day."""
        return any(one.above(0.0) or one.below(0.0) for one in (self.brings_moved, self.costs_moved))

    @property
    def worth_of_order(self) -> tuple[float, float]:
        """B + C, before and since: what telling a true row from a false one is worth."""
        return self.brings[0] + self.costs[0], self.brings[1] + self.costs[1]

    @property
    def pays_from(self) -> tuple[float, float]:
        """The chance from which acting pays, before and since; 0 when it always does, 1 when it never does."""
        made = [_share(c, b + c) for b, c in zip(self.brings, self.costs, strict=True)]
        return made[0], made[1]

    @property
    def order_is_worthless(self) -> bool:
        before, since = self.worth_of_order
        return self.moved and before > 0 and since < LEFT * before

    @property
    def threshold_moved(self) -> bool:
        """Whether the odds from which acting pays changed by a quarter or more, and order is worth something still."""
        if not self.moved or self.order_is_worthless or self.worth_of_order[1] <= 0:
            return False
        odds = [one / max(1 - one, 1e-9) for one in self.pays_from]
        return max(odds) > ODDS * max(min(odds), 1e-9)

    @property
    def says(self) -> str:
        (b, new_b), (c, new_c), (old, new) = self.brings, self.costs, self.pays_from
        return (
            f"acting on a true row is worth {new_b:.4g} (before {b:.4g}; moved by {self.brings_moved}), acting in vain costs {new_c:.4g} "
            f"(before {c:.4g}; moved by {self.costs_moved}): acting pays from a chance of {new:.3g} on, {old:.3g} before"
        )


def _share(part: float, whole: float) -> float:
    if whole <= 0:
        return 0.0 if part < 0 else 1.0
    return float(min(max(part / whole, 0.0), 1.0))


def payoffs(case: Case) -> Payoffs | None:
    """The payoffs before and since; ``None`` without two acts, a value that reads columns, or rows on either side."""
    return streams.once(case, "payoffs", lambda: _payoffs(case))


def _payoffs(case: Case) -> Payoffs | None:
    both = case.compared
    if both is None or len(case.system.decide.acts) != 2 or measure.numeric_act(case.system):
        return None
    if not measure.columns_read(case.system.objective.value.sql):
        return None
    before, since = cells(case, both.before), cells(case, both.recent)
    if before is None or since is None:
        return None
    (b, c), (new_b, new_c) = before, since
    if not all(np.isfinite(one).any() for one in (b, c, new_b, new_c)):
        return None
    return Payoffs(
        (float(np.nanmean(b)), float(np.nanmean(new_b))),
        (float(np.nanmean(c)), float(np.nanmean(new_c))),
        both.difference(b, new_b),
        both.difference(c, new_c),
    )


def cells(case: Case, sample: Sample) -> tuple[Floats, Floats] | None:
    """For each row what acting would bring were its label true, and cost were it false; ``None`` when the value reads what was not logged."""
    frame = sample.table
    no, yes = np.zeros(sample.n), np.ones(sample.n)
    try:
        rows = [
            measure.value(case.home.engine, case.system, frame, act, label, sample.score)
            for act, label in ((yes, yes), (no, yes), (no, no), (yes, no))
        ]
    except NoriaError:
        return None
    return rows[0] - rows[1], rows[2] - rows[3]


def priced_columns(case: Case) -> list[Moved]:
    """The columns that nothing but the value reads, by way of a declared outcome, and that jumped to another level or range since a day."""
    return streams.once(
        case, "priced columns", lambda: [m for m in moved_columns(case)[0] if streams.only_priced(case, m.stream.name, m.column)]
    )


def jumped(case: Case, *, turned: bool) -> list[Check]:
    """What a priced column's jump says before its rows are closed: whether amounts turned their sign (``turned``), or are of another size."""
    name = "what decisions bring or cost keeps its sign" if turned else "what decisions bring or cost keeps its size"
    made = []
    for one in priced_columns(case):
        days = [(day.day > one.at.at, cell) for day, cell in one.stream.of(one.column) if cell.mean is not None]
        past, new = ([cell for since, cell in days if since is flag] for flag in (False, True))
        if not past or not new or _turned(past, new) is not turned:
            continue
        before, after = (float(np.median([cell.mean for cell in some])) for some in (past, new))
        if abs(after - before) <= RESIZED * abs(before):
            continue
        subject = f"{one.stream.name}.{one.column}"
        said = f"{subject}, which only the value reads, is {after:.4g} on average since {one.at.at:%Y-%m-%d}, {before:.4g} before"
        made.append(check(name, True, subject=subject, size=Estimate(after - before, n=one.at.days), bound=0.0, detail=said))
    return made


def _turned(past: list[ColumnDay], new: list[ColumnDay]) -> bool:
    """Whether amounts that all had one sign have the other on most days since."""
    positive = all((cell.low or 0.0) >= 0 for cell in past)
    negative = all((cell.high or 0.0) <= 0 for cell in past)
    below = sum((cell.low or 0.0) < 0 for cell in new)
    above = sum((cell.high or 0.0) > 0 for cell in new)
    return (positive and below > len(new) / 2) or (negative and above > len(new) / 2)
