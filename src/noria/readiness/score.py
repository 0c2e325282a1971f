"""The score: each test's points, the sections' sums, and the least of them, which is what counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from noria.core import NotFound, SettingsError
from noria.readiness.evidence import Look
from noria.readiness.tests import SECTIONS, TESTS
from noria.records import Entry, Stated
from noria.store import Home
from noria.system import System

MOST = timedelta(days=365)
How = Literal["evidence", "statement", "lapsed", "missing"]
LEVELS = (
    (0.0, "a research project rather than a product"),
    (1.0, "not wholly untested, with serious holes likely"),
    (2.0, "a first pass at productionising; more work is likely to be needed"),
    (3.0, "reasonably tested; more of it could be automatic"),
    (5.0, "strongly tested and monitored"),
    (7.0, "exceptionally well tested and monitored"),
)


class Answer(msgspec.Struct, frozen=True):
    """One test: its points (1 shown by evidence, 0.5 stated by a person), how, what was found, the keys behind it, and what to do for more."""

    id: str
    asks: str
    points: float
    how: How
    says: str
    records: tuple[str, ...] = ()
    todo: str = ""
    until: datetime | None = None


class Score(msgspec.Struct, frozen=True):
    """All answers, each section's sum (of 7), the least of the sums, what that means, and the test to work on next."""

    at: datetime
    answers: tuple[Answer, ...]
    sections: dict[str, float]
    total: float
    means: str
    next: str


def score(home: Home, system: System, now: datetime) -> Score:
    """The ML Test Score as the ledger shows it at ``now``."""
    look = Look(home, system, now)
    answers = []
    for test in TESTS:
        shown = test.ask(look)
        if shown.shown and shown.records:
            answers.append(Answer(test.id, test.asks, 1.0, "evidence", shown.says, shown.records))
            continue
        stated = home.ledger.latest(Stated, prefix=f"stated/{test.id}/")
        if stated is not None and stated.record.until > now:
            says = f"stated by {stated.record.by}: {stated.record.note}"
            todo = test.todo if test.machine else ""
            answers.append(Answer(test.id, test.asks, 0.5, "statement", says, (stated.key,), todo, stated.record.until))
            continue
        how: How = "missing" if stated is None else "lapsed"
        says = shown.says if stated is None else f"a statement by {stated.record.by} lapsed on {stated.record.until:%Y-%m-%d}"
        answers.append(Answer(test.id, test.asks, 0.0, how, says, (), test.todo))
    sections = {name: sum(a.points for a in answers if a.id.startswith(f"{name}.")) for name in SECTIONS}
    total = min(sections.values())
    return Score(now, tuple(answers), sections, total, meaning(total), _next(answers, sections))


def meaning(total: float) -> str:
    """What a score says of a system.

    >>> meaning(0.0), meaning(2.5)
    ('a research project rather than a product', 'reasonably tested; more of it could be automatic')
    """
    return next((text for bound, text in LEVELS if total <= bound), LEVELS[-1][1])


def _next(answers: list[Answer], sections: dict[str, float]) -> str:
    """The next point is in the weakest section: there the first test without points, else the first that is only stated."""
    weakest = min(SECTIONS, key=lambda name: (sections[name], SECTIONS.index(name)))
    mine = [a for a in answers if a.id.startswith(f"{weakest}.") and a.points < 1.0 and a.todo]
    if not mine:
        return ""
    first = min(mine, key=lambda a: a.points)
    return f"{first.id}: {first.todo}"


def state(home: Home, test: str, *, by: str, note: str, until: datetime) -> Entry[Stated]:
    """Records a person's statement that a test is done by hand and documented. It counts half a point until it lapses.

    Raises ``NotFound`` for a test that does not exist, and ``SettingsError`` without a note, for a time that has passed, and for one more than 365
    days away.
    """
    if test not in {one.id for one in TESTS}:
        raise NotFound(f"there is no test {test!r}", hint=f"the tests are {', '.join(one.id for one in TESTS)}")
    if not note.strip():
        raise SettingsError("a statement needs a note", hint="say what was done and where it is written down (--note)")
    now = home.clock.now()
    if until <= now:
        raise SettingsError(f"{until:%Y-%m-%d} has passed", hint="a statement counts for some time: give a later --until")
    if until - now > MOST:
        raise SettingsError(
            f"{until:%Y-%m-%d} is {(until - now) // timedelta(days=1)} days away; a statement counts for {MOST.days} days at most",
            hint="give an earlier --until, and state it again when it lapses",
        )
    return home.commit(Stated(test=test, by=by, note=note, until=until), key=f"stated/{test}/{now.isoformat()}")
