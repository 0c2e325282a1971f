"""What is live: folded from the records of releases and rollouts, never kept anywhere else.

After a crash the state is what the ledger says, so a canary whose controller died is exactly as far as it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.records import Entry, Released, RolloutMoved, Stage

if TYPE_CHECKING:
    from noria.store import Home

RUNNING = ("shadow", "canary")


@dataclass(frozen=True)
class Rollout:
    """A rollout as far as it has come. ``began`` is when it went into shadow, ``entered`` when it came into its stage.

    ``moved`` is when it came to its present share, ``moves`` counts its records, ``entry`` is the id of the last. ``champion`` is ``None``
    when it runs against doing nothing.
    """

    number: int
    stage: Stage
    share: float
    step: int
    challenger: str
    champion: str | None
    began: datetime
    moved: datetime
    moves: int
    entry: str
    entered: datetime


@dataclass(frozen=True)
class Live:
    """The champion (``None``: doing nothing), and the rollout that is under way, if one is.

    ``line`` are the champions one after the other up to this one, without those that were rolled back. ``number`` counts releases and
    ``release`` is the id of the last one's entry. ``guarded`` is the rollout that made the champion, while nothing came after
    it: its harm can still be undone by itself.
    """

    line: tuple[str, ...] = ()
    number: int = 0
    release: str | None = None
    rollout: Rollout | None = None
    guarded: Rollout | None = None
    rollouts: int = 0

    @property
    def champion(self) -> str | None:
        """The bundle that answers whatever a challenger does not."""
        return self.line[-1] if self.line else None

    @property
    def previous(self) -> str | None:
        """The champion to go back to, ``None`` for doing nothing."""
        return self.line[-2] if len(self.line) > 1 else None

    @property
    def parents(self) -> tuple[str, ...]:
        """The ids of the entries that made this state."""
        found = (self.release, self.rollout.entry if self.rollout else None)
        return tuple(entry for entry in found if entry is not None)


def after(live: Live, entry: Entry[Any]) -> Live:
    """The state once ``entry`` is in force."""
    record = entry.record
    if isinstance(record, Released):
        guarded = live.guarded if live.guarded is not None and live.guarded.challenger == record.bundle else None
        line = live.line
        if record.bundle in line:
            line = line[: line.index(record.bundle) + 1]
        else:
            line = (*line, record.bundle) if record.bundle else ()
        return replace(live, line=line, number=record.number, release=entry.id, guarded=guarded)
    if not isinstance(record, RolloutMoved):
        return live
    before = live.rollout or live.guarded
    same = before is not None and before.number == record.rollout
    rollout = Rollout(
        number=record.rollout,
        stage=record.stage,
        share=record.share,
        step=record.step,
        challenger=record.challenger,
        champion=record.champion,
        began=before.began if same and before else entry.at,
        moved=entry.at,
        moves=before.moves + 1 if same and before else 1,
        entry=entry.id,
        entered=before.entered if same and before and before.stage == record.stage else entry.at,
    )
    return replace(
        live,
        rollout=rollout if record.stage in RUNNING else None,
        guarded=rollout if record.stage == "full" else None,
        rollouts=max(live.rollouts, record.rollout),
    )


def fold(entries: Iterable[Entry[Any]]) -> Live:
    """The state after all of ``entries``, which are in the ledger's order."""
    live = Live()
    for entry in entries:
        live = after(live, entry)
    return live


@dataclass(frozen=True)
class History:
    """Every state there has been. ``states[i]`` is in force for what is asked after ``since[i - 1]`` and up to ``since[i]``."""

    since: tuple[datetime, ...]
    states: tuple[Live, ...]

    @property
    def now(self) -> Live:
        """The state with everything recorded so far."""
        return self.states[-1]

    def place(self, moment: datetime) -> int:
        """The number of the state in force for what is asked at ``moment``: a release acts *after* its own time."""
        return bisect_left(self.since, moment)

    def at(self, moment: datetime) -> Live:
        """The state in force for what is asked at ``moment``."""
        return self.states[self.place(moment)]


def moves(home: Home) -> list[Entry[Any]]:
    """The entries of releases and rollouts in the ledger's order. They are few: some per release."""
    return sorted([*home.ledger.read(Released), *home.ledger.read(RolloutMoved)], key=lambda entry: entry.seq)


def history(home: Home) -> History:
    """Every state there has been, folded from the ledger."""
    states, since = [Live()], list[datetime]()
    for entry in moves(home):
        made = after(states[-1], entry)
        if since and since[-1] == entry.at:
            states[-1] = made
        else:
            since.append(entry.at)
            states.append(made)
    return History(tuple(since), tuple(states))


def state(home: Home) -> Live:
    """What is live now: the champion and the rollout under way."""
    return fold(moves(home))
