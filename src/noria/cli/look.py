"""``status``, ``report``, ``diagnose``, ``labels``, ``trace``: the commands that only read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, FileArgument, FileOption, HomeOption, JsonOption, day, opened, show
from noria.core import SettingsError, Unavailable, Window, parse_time
from noria.records import Diagnosed, Entry

if TYPE_CHECKING:
    from noria.web import facts
    from noria.web.period import Period

_MARK = {"good": "[green]●[/]", "bad": "[red]●[/]", "unsure": "[yellow]●[/]", "waiting": "[dim]○[/]"}


def status(file: FileArgument = DEFAULT_FILE, /, *, home: HomeOption = None, json: JsonOption = False) -> int:
    """Shows the wheel: each step's state and since when, open alerts, and the arrow back when a diagnosis stands."""
    from noria.web import facts
    from noria.web.service import served

    with opened(file, home) as (store, system):
        state = facts.wheel(store, system)
        alerts = facts.open_alerts(store)
        service = served(store, system)
    data = {
        "wheel": state,
        "service": service,
        "alerts": [
            {
                "alert": a.record.alert,
                "message": a.record.message,
                "since": a.record.since,
                "harm": a.record.harm,
                "state": a.record.state,
            }
            for a in alerts
        ],
    }
    show(data, lambda: _status(state, alerts, service.lines() if service else []), as_json=json)
    return 0


def _status(state: facts.Wheel, alerts: list[Any], service: list[str]) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"{state.system} at {day(state.at)}", title_justify="left", title_style="bold")
    for name in ("", "step", "since", "state"):
        table.add_column(name, overflow="fold", header_style="dim")
    for spoke in state.spokes:
        arrow = " [yellow]◀ back to here[/]" if state.back and state.back.to == spoke.step else ""
        table.add_row(_MARK[spoke.state], spoke.step, day(spoke.since) if spoke.since else "", escape(spoke.says) + arrow)
    parts: list[Any] = [table]
    if state.back:
        parts.append(
            f"\n[yellow]Go back to {state.back.to}[/] (since {day(state.back.since)}): {escape(state.back.cause)}. {escape(state.back.act)}"
        )
    if alerts:
        parts.append("\n[bold]Open alerts[/]")
        parts += [
            f"  {'[red]harm[/] ' if a.record.harm else ''}{escape(a.record.message)} [dim]since {day(a.record.since)}, {escape(a.record.alert)}[/]"
            for a in alerts
        ]
    if service:
        parts.append("\n[bold]Service[/]")
        parts += [f"  {escape(line)}" for line in service]
    return Group(*parts)


def report(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    to: Annotated[Path, Parameter(help="The file to write.")] = Path("report.html"),
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Writes the report: one HTML page that needs no network, for a browser, a phone or paper."""
    from noria.web import report as render

    with opened(file, home) as (store, system):
        page = render(store, system)
    try:
        to.write_text(page, encoding="utf-8")
    except OSError as error:
        raise Unavailable(
            f"cannot write {to}: {error.strerror}", hint="name a file in a folder that is there with --to"
        ) from None
    show({"file": str(to.resolve())}, lambda: f"wrote {to.resolve()}; open it in a browser", as_json=json)
    return 0


def diagnose(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    newest: Annotated[int, Parameter(help="How many diagnoses to show.")] = 1,
    since: Annotated[str | None, Parameter(help="Explain the time from here on instead, for example 2013-06-01.")] = None,
    until: Annotated[str | None, Parameter(help="Where that time ends. Default: the newest record.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows what was found wrong, the ranked causes with their evidence, and the step to return to; with --since, explains a period."""
    if since is None:
        if until is not None:
            raise SettingsError("--until without --since", hint="say where the time begins: --since 2013-06-01")
        with opened(file, home) as (store, _):
            entries = store.ledger.read(Diagnosed, newest=newest)
        show(entries, lambda: _diagnoses(entries), as_json=json)
        return 0
    from noria.web.period import period

    with opened(file, home) as (store, system):
        last = store.ledger.read(newest=1)
        start, end = parse_time(since), parse_time(until) if until else last[-1].at if last else None
        if end is None or end <= start:
            raise SettingsError(
                f"nothing lies between {day(start)} and {day(end)}",
                hint="name a time with --since that is before the newest record",
            )
        made = period(store, system, Window(start, end))
    show(made, lambda: _period(made), as_json=json)
    return 0


def _period(made: Period) -> Any:
    """What happened, the value by week, and why."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    found = made.diagnosis
    parts: list[Any] = [f"[bold]{day(made.window.start)} to {day(made.window.end)}[/]", escape(found.account)]
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
    parts.append(_tree(day(made.window.end), found))
    return Group(*parts)


def _diagnoses(entries: list[Entry[Diagnosed]]) -> Any:
    if not entries:
        return "nothing was diagnosed: no gate failed, no alert opened, no rollout was rolled back"
    from rich.console import Group

    return Group(*(_tree(day(entry.at), entry.record) for entry in entries))


def _tree(when: str, found: Diagnosed) -> Any:
    """A diagnosis with its causes, each with its checks."""
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(f"[bold]{when}: go back to {found.back_to}[/]\n{escape(found.account)}")
    if found.symptoms:
        tree.add("symptoms: " + escape(", ".join(found.symptoms)))
    if found.blocks_retraining:
        tree.add("[yellow]no training until this is mended[/]")
    for cause in found.causes:
        branch = tree.add(
            f"{escape(cause.name)} [dim]{cause.verdict}, probability {cause.weight:.0%}[/] → {cause.step}: {escape(cause.act)}"
        )
        for check in cause.evidence:
            size = f" {check.estimate}" if check.estimate else ""
            branch.add(escape(f"{check.name} {check.subject}: {check.verdict}{size}. {check.detail}"))
    return tree


def labels(file: FileArgument = DEFAULT_FILE, /, *, home: HomeOption = None, json: JsonOption = False) -> int:
    """Shows how mature the labels are, month by month: asked, closed, labelled, by silence, and how late they came."""
    from noria.web import facts

    with opened(file, home) as (store, system):
        until = facts.closed_until(store)
        rows = facts.maturity(store)
    rule = {"within": system.label.within, "lateness": system.label.lateness, "cohort": system.every}
    show({"closed_until": until, "rule": rule, "months": rows}, lambda: _labels(until, rule, rows), as_json=json)
    return 0


def _labels(until: Any, rule: dict[str, str], rows: list[facts.Maturity]) -> Any:
    from rich.table import Table

    late = "" if rule["lateness"] == "0s" else f" + {rule['lateness']}"
    title = f"closed until {day(until)}; a cohort of {rule['cohort']} closes {rule['within']}{late} after its end"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="")
    quantiles = sorted({name for row in rows for name in row.delay})
    for name in (
        "asked in",
        "predictions",
        "open",
        "closed",
        "labelled",
        "by silence",
        "mean",
        *(f"delay {q} (h)" for q in quantiles),
    ):
        table.add_column(name, justify="left" if name == "asked in" else "right", header_style="dim")
    for row in rows:
        mean = "" if row.mean is None else f"{row.mean:.3f}"
        delays = [f"{row.delay[q]:.1f}" if q in row.delay else "" for q in quantiles]
        counts = (row.asked, row.asked - row.closed, row.closed, row.labelled, row.silent)
        table.add_row(f"{row.start:%Y-%m}", *(f"{count:,}" for count in counts), mean, *delays)
    return table


def trace(
    what: Annotated[str, Parameter(name="ID", help="A prediction's id (KEY@TIME), or a record's id or key.")],
    /,
    *,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Goes from a prediction to its release, bundle, gate, training set, snapshot, ingested batches and raw files."""
    from noria.cli.lineage import trace_record

    with opened(file, home) as (store, _):
        root = trace_record(store, what)
    show(root, root.render, as_json=json)
    return 0
