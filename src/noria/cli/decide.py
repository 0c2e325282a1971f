"""``approve``, ``promote``, ``rollback``, ``ack``, ``repair``: what a person decides. A decision is a record with a name under it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    AtOption,
    ByOption,
    FileArgument,
    FileOption,
    HomeOption,
    JsonOption,
    NoteOption,
    check_owner,
    day,
    home_path,
    load_system,
    opened,
    person,
    show,
)
from noria.core import Conflict, NotFound, SettingsError, SystemClock, Verdict, duration
from noria.records import Alerted, Approved, Entry, Gated, Record, Released, RolloutMoved
from noria.settings import read_settings


def approve(
    subject: Annotated[str | None, Parameter(help="The key of what is signed. Default: the passed gate that waits.")] = None,
    /,
    *,
    refuse: Annotated[bool, Parameter(negative="", show_default=False, help="Refuse it instead.")] = False,
    by: ByOption = None,
    note: NoteOption = "",
    at: AtOption = None,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Signs a release that waits for a person, or refuses it. The next turn acts on it."""
    with opened(file, home, at=at, owner="approve") as (store, _):
        signed = _waiting(store) if subject is None else store.ledger.find(subject)
        if signed is None:
            raise NotFound(f"there is no record with the key {subject}", hint="`noria gate` shows the key of the newest gate")
        number = store.ledger.count(Approved, prefix=f"approved/{signed.key}/")
        record = Approved(subject=signed.key, by=person(by), note=note, granted=not refuse)
        entry = store.commit(record, key=f"approved/{signed.key}/{number:04d}", parents=[signed.id])
    verb = "refused" if refuse else "approved"
    show(entry, lambda: f"{verb}: {record.subject}, by {record.by}", as_json=json)
    return 0


def _waiting(store: Any) -> Entry[Gated]:
    gated: Entry[Gated] | None = store.ledger.latest(Gated)
    if gated is None or gated.record.verdict is not Verdict.PASS:
        raise NotFound("no gate has passed that waits for a signature", hint="`noria gate` shows the newest verdict")
    if any(isinstance(child.record, RolloutMoved) for child in store.ledger.children(gated.id)):
        raise Conflict(
            "the newest passed gate is already rolled out",
            hint="use `noria promote` or `noria rollback` to change the release by hand",
        )
    return gated


def promote(
    bundle: Annotated[
        str | None,
        Parameter(
            help="The bundle's sha256, or 8 digits or more of its beginning. Default: the one that passed the newest gate."
        ),
    ] = None,
    /,
    *,
    by: ByOption = None,
    note: NoteOption = "",
    at: AtOption = None,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Makes a bundle the champion by hand, from the next prediction on. It is recorded with your name."""
    from noria import deployment

    with opened(file, home, at=at, owner="promote") as (store, system):
        chosen = _passed(store) if bundle is None else bundle_named(store, bundle)
        entry = deployment.promote(store, system, chosen, by=person(by), note=note)
    show(entry, lambda: f"release {entry.record.number} is {entry.record.bundle[:12]} since {day(entry.at)}", as_json=json)
    return 0


def _passed(store: Any) -> str:
    gated: Entry[Gated] | None = store.ledger.latest(Gated)
    if gated is None or gated.record.verdict is not Verdict.PASS:
        raise NotFound(
            "the newest gate has not passed a bundle", hint="`noria gate` shows its verdict; name a bundle to override it"
        )
    return gated.record.bundle


def rollback(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    by: ByOption = None,
    note: NoteOption = "",
    at: AtOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Stops the rollout that is under way, or goes back to the champion before. It is recorded with your name."""
    from noria import deployment

    with opened(file, home, at=at, owner="rollback") as (store, system):
        entry = deployment.rollback(store, system, by=person(by), note=note)
    show(entry, lambda: _rolled(entry), as_json=json)
    return 0


def _rolled(entry: Entry[Record]) -> str:
    record = entry.record
    if isinstance(record, RolloutMoved):
        return f"rollout {record.rollout} is {record.stage} since {day(entry.at)}"
    assert isinstance(record, Released)
    now = record.bundle[:12] or "doing nothing"
    return f"release {record.number} is {now} since {day(entry.at)}"


def ack(
    alert: Annotated[
        str,
        Parameter(help="The alert, as `noria status` shows it, with or without `alert/`, or a part that no other open one has."),
    ],
    /,
    *,
    by: ByOption = None,
    note: NoteOption = "",
    mute: Annotated[str | None, Parameter(help="Send nothing of it for so long, for example 7d, unless it becomes harm.")] = None,
    at: AtOption = None,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Acknowledges an open alert: somebody has seen it. The next turn notes it; it stays until its cause is gone."""
    from noria.web import facts

    length = duration(mute) if mute is not None else None
    if length is not None and length <= timedelta(0):
        raise SettingsError(f"--mute {mute} is no length of time", hint='write for example "7d"')
    with opened(file, home, at=at, owner="ack") as (store, _):
        found = _alert_named(facts.open_alerts(store), alert)
        last = found.record
        until = store.clock.now() + length if length is not None else None
        signed = Approved(subject=last.alert, by=person(by), note=note, until=until)
        number = store.ledger.count(Approved, prefix=f"approved/{last.alert}/")
        entry = store.commit(signed, key=f"approved/{last.alert}/{number:04d}", parents=[found.id])
    done = f"muted until {day(signed.until)}" if signed.until is not None else "acknowledged"
    show(entry, lambda: f"{done} by {signed.by}: {last.message}", as_json=json)
    return 0


def _alert_named(opened: list[Entry[Alerted]], text: str) -> Entry[Alerted]:
    """The open alert of this name, or the one that has ``text`` in its name. Raises ``NotFound``, ``Conflict`` when several have."""
    if not opened:
        raise NotFound("there is no open alert", hint="`noria status` shows what is open")
    wanted = text.casefold()
    names = [entry.record.alert for entry in opened]
    short = ", ".join(f'"{_short(name, names)}"' for name in names)
    for entry in opened:
        if entry.record.alert.casefold() in (wanted, f"alert/{wanted}"):
            return entry
    found = [entry for entry in opened if wanted in entry.record.alert.casefold()] if wanted else []
    if not found:
        raise NotFound(f"no open alert has {text!r} in its name", hint=f"open are: {short}")
    if len(found) > 1:
        several = ", ".join(f'"{_short(entry.record.alert, names)}"' for entry in found)
        raise Conflict(f"{len(found)} open alerts have {text!r} in their names", hint=f"name one of them: {several}")
    return found[0]


def _short(name: str, names: list[str]) -> str:
    """As much of an alert's name as tells it from the others: without the time where that is enough.

    >>> names = ["alert/drift/age/2020-01-01", "alert/skew/age/2020-01-01", "alert/skew/age/2020-03-01"]
    >>> _short(names[0], names), _short(names[2], names)
    ('drift/age', 'skew/age/2020-03-01')
    """
    whole = name.removeprefix("alert/")
    part = whole.rpartition("/")[0]
    return part if part and sum(part.casefold() in other.casefold() for other in names) == 1 else whole


def repair(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    accept_loss: Annotated[
        bool, Parameter(negative="", show_default=False, help="Go on without rows that cannot be made again.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Compares every stored file with what was written, makes again what can be made again, and says what it did."""
    from noria.store import Home

    system, settings = load_system(file), read_settings()
    path = home_path(system, home, settings)
    with Home.open(path, settings, SystemClock(), create=False) as store, store.hold("repair", check=False):
        check_owner(store, system)
        found = [str(fault) for fault in store.lake.check()]
        did = store.lake.repair(accept_loss=accept_loss) if found else []
        left = [str(fault) for fault in store.lake.check()] if found else []
    show({"found": found, "did": did, "left": left}, lambda: _repaired(found, did, left), as_json=json)
    return 1 if left else 0


def _repaired(found: list[str], did: list[str], left: list[str]) -> str:
    if not found:
        return "every stored file is what was written"
    lines = [f"found: {fault}" for fault in found] + [f"did: {line}" for line in did]
    return "\n".join(lines + [f"left: {fault}" for fault in left])


def bundle_named(store: Any, text: str) -> str:
    """The sha256 of the one trained bundle that ``text`` begins. Raises ``NotFound``, ``Conflict`` when several match."""
    from noria.records import Trained

    bundles = {entry.record.bundle for entry in store.ledger.read(Trained)}
    matches: list[str] = sorted(bundle for bundle in bundles if bundle.startswith(text))
    if len(matches) > 1:
        raise Conflict(f"{len(matches)} bundles begin with {text}", hint="give more of the sha256")
    if not matches:
        raise NotFound(f"no trained bundle begins with {text}", hint="`noria gate` shows the newest candidate's bundle")
    return matches[0]
