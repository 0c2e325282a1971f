"""One turn of the wheel.

``turn`` looks at the ledger and the world and does whatever is due, in the order of the process. It keeps no state of its own:
what is finished is found in the ledger by its key, what is not is done again. So it may be killed at any instruction, and
be called by the built-in worker, by cron or by a workflow server alike.

What a turn at T releases acts on what is asked after T.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from noria import business, data, deployment, development, diagnosis, features, monitoring, scoping
from noria.core import DataFault, Verdict, Window
from noria.core.window import EPOCH
from noria.deployment import Bundles
from noria.records import (
    Alerted,
    Approved,
    Charter,
    Declared,
    Diagnosed,
    Entry,
    Gated,
    Retraining,
    RolloutMoved,
    Scored,
    Turned,
)
from noria.store import Home
from noria.system import System


@dataclass
class Turn:
    """What one turn did: the steps that wrote something, in their order, and where it stopped (with the reason) if it did."""

    at: datetime
    did: tuple[str, ...] = ()
    stopped: str = ""
    reason: str = ""
    hint: str = ""


def turn(home: Home, system: System, *, bundles: Bundles | None = None) -> Turn:
    """Does what is due at ``home.clock.now()``; the caller holds the lease (``home.hold``).

    ``bundles`` keeps loaded models between turns; without it they are loaded anew.

    A fault in the data stops the turn where it is found: it is recorded and diagnosed, and nothing after it is done. A turn that finds
    nothing to do writes nothing.
    """
    now = home.clock.now()
    done = Turn(now)
    bundles = bundles or Bundles(home)
    declare(home, system)
    try:
        with home.measurements.span("turn.data.ingest"):
            data.ingest(home, system, now)
        with home.measurements.span("turn.data.verify"):
            data.verify(home, system, now)
    except DataFault as fault:
        done.stopped, done.reason, done.hint = "data", fault.message, fault.hint
    else:
        _serve_and_learn(home, system, now, bundles)
    with home.measurements.span("turn.diagnosis"):
        diagnosis.diagnose(home, system, now)
    if not done.stopped:
        _improve(home, system, now)
    done.did = steps_at(home, now)
    key = f"turn/{now.isoformat()}"
    if done.did and home.ledger.find(key) is None:
        home.commit(Turned(did=done.did, stopped=done.stopped, reason=done.reason), key=key)
        home.lake.upkeep()
    return done


def steps_at(home: Home, now: datetime) -> tuple[str, ...]:
    """The steps that have written records at this time since the last turn ended: a turn that was killed and begun again did them all."""
    last = home.ledger.latest(Turned)
    made = home.ledger.read(after=last.seq if last else 0)
    return tuple(dict.fromkeys(entry.record.STEP for entry in made if entry.at >= now))


def declare(home: Home, system: System) -> Entry[Declared] | None:
    """Records that this declaration is in force, when it was not already."""
    last = home.ledger.latest(Declared)
    if last is not None and last.record.declaration == system.id:
        return None
    number = home.ledger.count(Declared)
    record = Declared(
        system=system.name,
        declaration=system.id,
        spec=system.spec(),
        previous=last.record.declaration if last else None,
    )
    return home.commit(record, key=f"declared/{number:04d}", parents=[last.id] if last else [])


def _serve_and_learn(home: Home, system: System, now: datetime, bundles: Bundles) -> None:
    """Scores what was asked, closes what has become known, watches, accounts, and moves the rollout."""
    with home.measurements.span("turn.deployment.score"):
        deployment.sweep(home, system)
        score(home, system, now, bundles)
    with home.measurements.span("turn.data.close"):
        data.close(home, system, now)
    with home.measurements.span("turn.monitoring"):
        monitoring.watch(home, system, now)
        monitoring.alert(home, system, now)
    with home.measurements.span("turn.business"):
        business.account(home, system, now)
    with home.measurements.span("turn.deployment.rollout"):
        deployment.advance(home, system, now, bundles=bundles)
    with home.measurements.span("turn.scoping"):
        if scoping.due(home, system, now):
            scoping.charter(home, system, now)


def score(home: Home, system: System, now: datetime, bundles: Bundles) -> Entry[Scored] | None:
    """Scores and logs the rows that could be asked since the last time, each as of its own time."""
    last = home.ledger.latest(Scored, prefix="score/")
    window = Window(last.record.window.end if last else EPOCH, now)
    if window.start >= now:
        return None
    spine = data.spine(home, system, window)
    if spine.is_empty():
        return None
    return deployment.score(home, system, window, spine, features.compute(home, system, spine), bundles=bundles)


def _improve(home: Home, system: System, now: datetime) -> None:
    """Trains when the policy says so, gates, and starts the rollout of what passed."""
    if not chartered(home, system):
        return
    with home.measurements.span("turn.monitoring.retraining"):
        asked = pending(home)
        if asked is None:
            asked = monitoring.retraining(home, system, now, blocking(home))
    if asked is None or asked.record.decision == "blocked":
        return
    gated = train(home, system, asked)
    if gated is not None and gated.record.verdict is Verdict.PASS and approved(home, system, gated):
        with home.measurements.span("turn.deployment.rollout"):
            deployment.begin(home, system, gated.record.bundle, gated)
    if gated is not None and gated.at >= now:
        with home.measurements.span("turn.diagnosis"):
            diagnosis.diagnose(home, system, now)


def chartered(home: Home, system: System) -> bool:
    """Whether the charter lets the system train. A no-go stands until a person signs against it, or the data says otherwise."""
    charter = home.ledger.latest(Charter, prefix=f"charter/{system.id}")
    if charter is None or charter.record.decision != "no-go":
        return charter is not None
    signature = home.ledger.latest(Approved, prefix=f"approved/{charter.key}")
    return signature is not None and signature.record.granted


def pending(home: Home) -> Entry[Retraining] | None:
    """The last order that has not led to a rollout or a refusal yet. One that could not be met, at once or for weeks, is given up."""
    last = monitoring.last_order(home)
    if last is None or monitoring.given_up(home, last, home.clock.now()):
        return None
    gated = home.ledger.find(monitoring.gate_key(last))
    if not isinstance(gated, Entry) or not isinstance(gated.record, Gated):
        return last
    if gated.record.verdict is not Verdict.PASS:
        return None
    begun = [child for child in home.ledger.children(gated.id) if isinstance(child.record, RolloutMoved)]
    refused = home.ledger.latest(Approved, prefix=f"approved/{gated.key}")
    return None if begun or (refused is not None and not refused.record.granted) else last


def blocking(home: Home) -> Entry[Diagnosed] | None:
    """The newest diagnosis of an open fault, when what it found must be mended before anything is trained on.

    A harmless fact that is diagnosed later does not lift it; a second look at the same fault that finds another cause does.
    """
    faults = diagnosis.open_faults(home, home.clock.now())
    return next((fault for fault in reversed(faults) if fault.record.blocks_retraining), None)


def approved(home: Home, system: System, gated: Entry[Gated]) -> bool:
    """Whether a passed gate may be rolled out: always, unless the declaration asks for a signature."""
    if not system.gate.approval:
        return True
    signature = home.ledger.latest(Approved, prefix=f"approved/{gated.key}")
    return signature is not None and signature.record.granted


def train(home: Home, system: System, asked: Entry[Retraining]) -> Entry[Gated] | None:
    """From an order to the gate's verdict. Everything is keyed by the order, so that it can be taken up again."""
    key = monitoring.gate_key(asked)
    known = home.ledger.find(key)
    if known is not None and isinstance(known.record, Gated):
        return known  # type: ignore[return-value]  # the record's type was looked at
    if asked.record.decision == "recalibrate":
        return _recalibrate(home, system, asked, key)
    with home.measurements.span("turn.data.training_set"):
        made = data.training_set(home, system, asked.at)
        if made is None:
            return None
        training, frames = made
    live = deployment.state(home)
    with home.measurements.span("turn.development.train"):
        trained = development.train(home, system, training, frames, tune=asked.record.tune, champion=live.champion)
    with home.measurements.span("turn.development.evaluate"):
        for entry in trained:
            development.evaluate(home, system, entry, frames, "validate")
        chosen = development.choose(home, system, trained)
    if chosen is None:
        return None
    with home.measurements.span("turn.development.analyse"):
        development.analyse(home, system, chosen, frames)
    with home.measurements.span("turn.development.gate"):
        return development.gate(home, system, chosen, frames, live.champion, key=key)


def _recalibrate(home: Home, system: System, asked: Entry[Retraining], key: str) -> Entry[Gated] | None:
    """Calibrates the champion anew on what closed since the fault that the order's first parent found; what cannot be done is said once."""
    fault = home.ledger.get(asked.parents[0]).record
    champion = deployment.state(home).champion
    if champion is None or not isinstance(fault, Alerted):
        monitoring.unmet(home, asked, "there is no release whose scores could be calibrated anew")
        return None
    with home.measurements.span("turn.data.training_set"):
        made = data.recalibration_set(home, system, asked.at, fault.since)
    if made is None:  # it is made as of the order's time: it would be none in the next turn as well
        reason = f"too little closed between {fault.since:%Y-%m-%d} and the order to calibrate on one half and judge on the other"
        monitoring.unmet(home, asked, reason)
        return None
    with home.measurements.span("turn.development.recalibrate"):
        return development.recalibrate(home, system, *made, champion, key=key)
