"""Releases and rollouts: begun by a passed gate, moved by evidence or by hand, and always found in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from noria.core import Conflict, Refused, Verdict, duration
from noria.deployment.bundles import Bundles
from noria.deployment.live import Live, Rollout, state
from noria.deployment.rollout.evidence import gather, terms
from noria.deployment.rollout.rules import Move, next_move
from noria.deployment.scoring import guarded_until
from noria.measure import closed_until
from noria.records import CohortClosed, Entry, Gated, Record, Released, RolloutMoved, Scored, Turned
from noria.system import System

if TYPE_CHECKING:
    from noria.store import Home


def begin(home: Home, system: System, bundle: str, gated: Entry[Gated]) -> Entry[RolloutMoved]:  # noqa: ARG001
    """Takes a bundle that passed the gate into shadow, from the next prediction on.

    A rollout of this bundle that is under way is returned as it is. A bundle that is the champion already has nothing to show: its
    rollout is recorded as withdrawn. Raises ``Refused`` when the gate did not pass it, ``Conflict`` while another rollout is
    under way.
    """
    if gated.record.verdict is not Verdict.PASS or gated.record.bundle != bundle:
        raise Refused(
            f"the gate's verdict {gated.key} on {gated.record.bundle[:12]} is {gated.record.verdict}: {bundle[:12]} is not rolled out",
            hint="only a bundle that passed the gate is rolled out; `noria promote` overrides that by hand",
        )
    live = state(home)
    if live.rollout is not None:
        if live.rollout.challenger == bundle:
            return home.ledger.get(live.rollout.entry)  # type: ignore[return-value]  # the id is that of a move
        raise Conflict(
            f"rollout {live.rollout.number} of {live.rollout.challenger[:12]} is under way ({live.rollout.stage})",
            hint="wait for its end, or stop it with `noria rollback`",
        )
    same = bundle == live.champion
    record = RolloutMoved(
        rollout=live.rollouts + 1,
        stage="withdrawn" if same else "shadow",
        share=0.0,
        step=0,
        challenger=bundle,
        champion=live.champion,
        verdict=Verdict.PASS,
        checks=(),
        reason="it is the champion already" if same else f"passed the gate {gated.key}",
    )
    parents = [gated.id, *live.parents]
    return _first(home, record, parents)


def _first(home: Home, record: RolloutMoved, parents: Sequence[str]) -> Entry[RolloutMoved]:
    return home.commit(record, key=f"rollout/{record.rollout:04d}/00", parents=parents)


def advance(
    home: Home, system: System, now: datetime, *, bundles: Bundles | None = None
) -> Entry[RolloutMoved] | Entry[Released] | None:
    """Moves the rollout that is under way by at most one stage, or rolls back the newest release when it does harm.

    Looks only when something was scored or closed since the last finished turn, and never twice at the same logical time.
    Returns the newest entry that it wrote, ``None`` when nothing moved.
    """
    live = state(home)
    rollout = live.rollout or live.guarded
    if rollout is None or rollout.moved >= now or not _news(home):
        return None
    known = closed_until(home) or rollout.moved
    if rollout.stage == "full" and known > guarded_until(system, rollout) + duration(system.every):
        return None
    bundles = bundles or Bundles(home)
    seen = gather(home, system, rollout, known, bundles)
    move = next_move(terms(system, bundles, rollout), rollout, seen)
    return None if move is None else _write(home, live, rollout, move)


def _news(home: Home) -> bool:
    turned = home.ledger.latest(Turned)
    if turned is None:
        return True
    newest = (home.ledger.latest(CohortClosed), home.ledger.latest(Scored))
    return any(entry is not None and entry.seq > turned.seq for entry in newest)


def promote(home: Home, system: System, bundle: str, *, by: str, note: str = "") -> Entry[Released]:  # noqa: ARG001
    """Makes ``bundle`` the champion by hand, from the next prediction on.

    A rollout of it becomes full, any other is withdrawn. The bundle is loaded and checked first: raises ``NotFound``, ``Corrupt`` or
    ``Refused`` when it cannot answer, ``Conflict`` when it is the champion already or another release came first.
    """
    _signed(by)
    live = state(home)
    if live.champion == bundle:
        raise Conflict(f"{bundle[:12]} is the champion already, since release {live.number}")
    Bundles(home).get(bundle)
    reason = _by_hand("promoted", note)
    items: list[tuple[Record, str, Sequence[str]]] = []
    if live.rollout is not None:
        own = live.rollout.challenger == bundle
        move = Move("full" if own else "withdrawn", float(own), live.rollout.step, Verdict.NOT_MEASURED, (), f"{reason}, by {by}")
        items.append(_moved(live.rollout, move))
    items.append(_released(live, bundle, reason, by))
    return home.commit_all(items)[-1]  # type: ignore[return-value]  # the last item is the release


def rollback(home: Home, system: System, *, by: str, note: str = "") -> Entry[RolloutMoved] | Entry[Released]:  # noqa: ARG001
    """Stops the rollout that is under way; without one, goes back to the champion before, or to doing nothing.

    Raises ``Conflict`` when there is nothing to go back from.
    """
    _signed(by)
    live = state(home)
    reason = _by_hand("rolled back", note)
    if live.rollout is not None:
        return _write(
            home, live, live.rollout, Move("rolled back", 0.0, live.rollout.step, Verdict.NOT_MEASURED, (), f"{reason}, by {by}")
        )
    if live.champion is None:
        raise Conflict("there is no release and no rollout to go back from", hint="`noria status` shows what is live")
    record, key, parents = _released(live, live.previous or "", reason, by)
    return home.commit(record, key=key, parents=parents)  # type: ignore[return-value]  # the record is a release


def _signed(by: str) -> None:
    if not by.strip():
        raise Refused("a release by hand needs a name", hint="say who with by=…")


def _by_hand(did: str, note: str) -> str:
    return f"{did} by hand: {note}" if note else f"{did} by hand"


def _write(home: Home, live: Live, rollout: Rollout, move: Move) -> Entry[RolloutMoved] | Entry[Released]:
    """Records a move and, when it changes the champion, the release, in one transaction."""
    items: list[tuple[Record, str, Sequence[str]]] = [_moved(rollout, move)]
    if move.stage == "full":
        items.append(_released(live, rollout.challenger, f"promotion: {move.reason}", ""))
    elif rollout.stage == "full":
        items.append(_released(live, rollout.champion or "", f"rollback: {move.reason}", ""))
    return home.commit_all(items)[-1]  # type: ignore[return-value]  # a move or a release


def _moved(rollout: Rollout, move: Move) -> tuple[Record, str, Sequence[str]]:
    record = RolloutMoved(
        rollout=rollout.number,
        stage=move.stage,
        share=move.share,
        step=move.step,
        challenger=rollout.challenger,
        champion=rollout.champion,
        verdict=move.verdict,
        checks=move.checks,
        reason=move.reason,
    )
    return record, f"rollout/{rollout.number:04d}/{rollout.moves:02d}", [rollout.entry]


def _released(live: Live, bundle: str, reason: str, by: str) -> tuple[Record, str, Sequence[str]]:
    record = Released(number=live.number + 1, bundle=bundle, previous=live.champion, reason=reason, by=by)
    return record, f"release/{live.number + 1:04d}", list(live.parents)
