"""``diagnose``: what was found wrong, why, and the step to return to; or the account of a period."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, FileArgument, HomeOption, JsonOption, day, opened, show
from noria.core import Check, SettingsError, Verdict, Window, parse_time
from noria.records import Alerted, Blocked, Cause, Diagnosed, Entry, Gated, RolloutMoved, Verified

if TYPE_CHECKING:
    from noria.store import Home
    from noria.web.period import Period

LEAST = 0.005
AllOption = Annotated[
    bool,
    Parameter(name="--all", negative="", show_default=False, help="Show every cause with its evidence, not only those found."),
]


def diagnose(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    newest: Annotated[int | None, Parameter(help="How many diagnoses to show, at least 1. Default: 1. Not with --since.")] = None,
    since: Annotated[str | None, Parameter(help="Explain the time from here on instead, for example 2013-06-01.")] = None,
    until: Annotated[
        str | None, Parameter(help="Where that time ends, at most the newest record. Default: the newest record.")
    ] = None,
    everything: AllOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows what was found wrong, the causes found at work with their evidence, and the step to return to; with --since, explains a period."""
    if newest is not None and newest < 1:
        raise SettingsError(f"--newest {newest} shows nothing", hint="at least 1")
    if since is None:
        if until is not None:
            raise SettingsError("--until without --since", hint="say where the time begins: --since 2013-06-01")
        with opened(file, home) as (store, _):
            entries = store.ledger.read(Diagnosed, newest=newest or 1)
            names = {entry.id: symptoms(store, entry.record) for entry in entries}
        show(entries, lambda: _diagnoses(entries, names, everything), as_json=json)
        return 0
    if newest is not None:
        raise SettingsError("--newest together with --since", hint="--since shows all of a period: leave --newest out")
    start, end = parse_time(since), parse_time(until) if until else None
    if end is not None and end <= start:
        raise SettingsError(
            f"--since {day(start)} is not before --until {day(end)}", hint="give an earlier --since or a later --until"
        )
    from noria.web.period import period

    with opened(file, home, computes=True) as (store, system):
        last = store.ledger.read(newest=1)
        if not last or last[-1].at <= start:
            stands = f"it stands at {day(last[-1].at)}" if last else "it is empty"
            raise SettingsError(f"nothing is recorded after {day(start)}: {stands}", hint="name an earlier time with --since")
        made = period(store, system, Window(start, min(end or last[-1].at, last[-1].at)))
        keys = [*made.diagnosis.symptoms, *(fault.symptom for fault in made.faults)]
        named = {key: _named(store, key) for key in keys}
    cut = end is not None and end > made.window.end
    show(made, lambda: _period(made, named, everything, cut), as_json=json)
    return 0


def _period(made: Period, names: dict[str, str], everything: bool, cut: bool = False) -> Any:
    """What was diagnosed at the time, what happened, the value by week, and what a look at all of it says."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    found = made.diagnosis
    title = f"[bold]{day(made.window.start)} to {day(made.window.end)}[/]" + (", where the records end" if cut else "")
    parts: list[Any] = [title]
    if made.faults:
        faults = Table(box=None, pad_edge=False, title="Diagnosed at the time", title_justify="left", title_style="bold")
        for name in ("from", "to", "first symptom", "cause", "back to"):
            faults.add_column(name, overflow="fold", header_style="dim")
        for fault in made.faults:
            cause = f"{fault.cause} ({fault.weight:.0%})" if fault.cause else "none found"
            faults.add_row(day(fault.start), day(fault.end), escape(names[fault.symptom]), escape(cause), fault.step)
        parts.append(faults)
    else:
        parts.append("Nothing was diagnosed at the time.")
    if made.events:
        events = Table(box=None, pad_edge=False, title="What happened", title_justify="left", title_style="bold")
        for name in ("when", "what", ""):
            events.add_column(name, overflow="fold", header_style="dim")
        for event in made.events:
            events.add_row(day(event.at), escape(event.title), escape(event.says))
        parts.append(events)
    if made.weeks:
        weeks = Table(box=None, pad_edge=False, title=f"Value by week, {made.currency}", title_justify="left", title_style="bold")
        for name in ("until", "decisions", "doing nothing"):
            weeks.add_column(name, justify="left" if name == "until" else "right", header_style="dim")
        for week in made.weeks:
            weeks.add_row(day(week.end), f"{week.value:,.0f}", "" if week.nothing is None else f"{week.nothing:,.0f}")
        parts.append(weeks)
    other = ", which may differ from what was said at the time" if made.faults else ""
    title = f"A look at all of it, as of {day(made.window.end)}{other}"
    symptomatic = [names[key] for key in found.symptoms]
    parts.append(diagnosis(title, found, symptomatic, everything=everything))
    return Group(*parts)


def _diagnoses(entries: Sequence[Entry[Diagnosed]], names: dict[str, list[str]], everything: bool) -> Any:
    if not entries:
        return "nothing was diagnosed: no gate failed, no alert opened, no rollout was rolled back"
    from rich.console import Group

    made = [
        diagnosis(f"{day(e.at)}: go back to {e.record.back_to}", e.record, names[e.id], everything=everything) for e in entries
    ]
    return Group(*(part for one in made for part in (one, "")))


def diagnosis(title: str, found: Diagnosed, names: Sequence[str], *, everything: bool = False) -> Any:
    """A diagnosis for a person: the causes found at work with their evidence, then those cleared, not tested, and the chance of none of these."""
    from rich.console import Group
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(f"[bold]{escape(title)}[/]" + f"\n{escape(found.account)}")
    if names:
        tree.add(escape("symptoms: " + "; ".join(names)))
    if found.blocks_retraining:
        tree.add("[yellow]no training until this is mended[/]")
    for cause in found.causes:
        if everything or cause.verdict is Verdict.FAIL:
            _branch(tree, cause)
    lines = []
    for word, verdicts in (
        ("Cleared", (Verdict.PASS,)),
        ("Not enough data", (Verdict.NOT_ENOUGH_DATA, Verdict.NOT_MEASURED)),
    ):
        those = [cause for cause in found.causes if cause.verdict in verdicts]
        share = sum(cause.weight for cause in those)
        if those:
            together = f" (together {share:.0%})" if share >= LEAST else ""
            lines.append(escape(f"{word}{together}: {', '.join(cause.name for cause in those)}"))
    lines.append(f"None of these: {max(0.0, 1 - sum(cause.weight for cause in found.causes)):.0%}")
    return Group(tree, *lines)


def _branch(tree: Any, cause: Cause) -> None:
    """A cause, what to do, where that is described, and each of its checks."""
    from rich.markup import escape

    found = cause.verdict is Verdict.FAIL
    says = f"[dim]{'' if found else f'{cause.verdict}, '}probability {cause.weight:.0%}[/]"
    branch = tree.add(f"{escape(cause.name)} {says} → {cause.step}" + (escape(f": {cause.act}") if found else ""))
    if found and cause.runbook:
        branch.add(escape(f"how: {cause.runbook}"))
    for check in cause.evidence:
        branch.add(escape(_evidence(check)))


def _evidence(check: Check) -> str:
    """One check in a line, without what it does not know."""
    size, many = check.estimate, ""
    if size is not None and size.value is not None:
        many = f" {size}" if size.known or size.n else f" {size.value:.4g}"
    says = f". {check.detail}" if check.detail else ""
    return f"{check.name} {check.subject}".strip() + f": {check.verdict}{many}{says}"


def symptoms(home: Home, found: Diagnosed) -> list[str]:
    """The symptoms of a diagnosis as a person would name them; by its key what the ledger has no more."""
    return [_named(home, key) for key in found.symptoms]


def _named(home: Home, key: str) -> str:
    entry = home.ledger.find(key)
    record = entry.record if entry is not None else None
    if isinstance(record, Alerted):
        about = f" of {record.subject}" if record.subject and record.subject not in ("label", record.name) else ""
        return f"alert {record.name}{about}, since {day(record.since)}"
    if entry is None or record is None:
        return key
    if isinstance(record, Gated):
        return f"gate failed, {day(entry.at)}"
    if isinstance(record, RolloutMoved):
        return f"rollout {record.rollout} {record.stage}, {day(entry.at)}"
    if isinstance(record, Blocked):
        return f"source {record.source} blocked, {day(entry.at)}"
    return f"verification of {record.source} failed, {day(entry.at)}" if isinstance(record, Verified) else key
