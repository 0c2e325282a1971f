"""``review``: the predictions that were left to a person, and what the person decides. The decision is the act, and may be the label too."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, ByOption, FileArgument, HomeOption, JsonOption, day, opened, person, show
from noria.core import Conflict, NotFound, SettingsError
from noria.system import System


def review(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    id: Annotated[str | None, Parameter(help="The prediction to decide on. Default: list what waits.")] = None,
    act: Annotated[str | None, Parameter(help="What is done: one of the declared acts, or a number.")] = None,
    label: Annotated[str | None, Parameter(help="The truth, where you know it: true, false, a number or a class.")] = None,
    by: ByOption = None,
    newest: Annotated[int | None, Parameter(help="Show only so many of those asked last.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Lists what waits for a person, oldest first; with --id and --act decides on one. The decision is on the disk when this returns."""
    from noria.deployment.service import reviews

    if (id is None) != (act is None):
        raise SettingsError("a decision needs --id and --act", hint="`noria review` without them lists what waits")
    with opened(file, home) as (store, system):
        found = reviews.waiting(store, system, most=2**62)
        if id is None or act is None:
            shown = found if newest is None else found[max(0, len(found) - newest) :]
            data = {"waiting": len(found), "reviews": shown}
            show(data, lambda: _table(system, shown, len(found)), as_json=json)
            return 0
        if all(one["id"] != id for one in found) and id not in reviews.decided(store):
            raise NotFound(f"the prediction {id} does not wait for a person", hint="`noria review` lists what waits")
        given: dict[str, Any] = {"id": id, "act": _act(system, act), "by": person(by)}
        if label is not None:
            given["label"] = label if system.task == "multiclass" else _plain(label)
        said = _answered(store, system, given)
    show(said, lambda: f"{'decided' if said['accepted'] else 'decided so before'}: {id}, by {said['by']}", as_json=json)
    return 0


def _answered(store: Any, system: System, given: dict[str, Any]) -> dict[str, Any]:
    """Hands the decision to the log of events, as the service does. Raises ``Conflict`` when another was taken before."""
    from noria.deployment.service.incoming import Incoming

    incoming = Incoming(store, system)
    try:
        _, appended = incoming.review(given)
    finally:
        incoming.close()
    if appended.conflicts:
        raise Conflict(
            f"somebody has decided otherwise on {given['id']} before", hint="the first decision stands; the other is kept apart"
        )
    return {**given, "accepted": appended.accepted, "duplicates": appended.duplicates}


def _act(system: System, text: str) -> Any:
    """A declared act by its name; otherwise what the text says, for the log to judge."""
    return next((act for act in system.decide.acts if str(act).lower() == text.lower()), _plain(text))


def _plain(text: str) -> Any:
    """``true``, ``false`` and numbers as such; any other text as it is.

    >>> _plain("True"), _plain("2.5"), _plain("maybe")
    (True, 2.5, 'maybe')
    """
    try:
        return msgspec.json.decode(text.lower().encode())
    except msgspec.DecodeError:
        return text


def _table(system: System, shown: list[dict[str, Any]], waiting: int) -> Any:
    if not waiting:
        return "nothing waits for a person"
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    advised = any(one["score"] is not None for one in shown)
    for name in ("id", "asked at", *(("score",) if advised else ()), "row"):
        table.add_column(name, header_style="dim", overflow="fold", justify="right" if name == "score" else "left")
    for one in shown:
        row = ", ".join(f"{name}={_short(value)}" for name, value in one["row"].items() if value is not None)
        score = "" if one["score"] is None else f"{one['score']:.4f}"
        table.add_row(escape(one["id"]), day(one["asked_at"]), *((score,) if advised else ()), escape(row))
    acts = ", ".join(str(act).lower() for act in system.decide.acts)
    more = f"{waiting:,} wait" if len(shown) < waiting else f"{waiting:,} wait{'s' if waiting == 1 else ''}"
    return Group(table, f"{more}; decide with: noria review --id ID --act ACT (acts: {acts})")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
