"""``status``, ``report``, ``trace``: commands that only read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, FileArgument, FileOption, HomeOption, JsonOption, day, opened, show
from noria.core import Unavailable
from noria.records import Alerted, Entry
from noria.settings import read_settings

if TYPE_CHECKING:
    from noria.monitoring.outbox import Standing
    from noria.web import facts

_MARK = {"good": "[green]●[/]", "bad": "[red]●[/]", "unsure": "[yellow]●[/]", "waiting": "[dim]○[/]"}


def status(file: FileArgument = DEFAULT_FILE, /, *, home: HomeOption = None, json: JsonOption = False) -> int:
    """Shows the wheel: each step's state and since when, open alerts, and the arrow back when a diagnosis stands; what has moved since the release."""
    from noria.monitoring.channels import channels
    from noria.monitoring.outbox import standings
    from noria.web import facts
    from noria.web.service import served

    with opened(file, home) as (store, system):
        state = facts.wheel(store, system)
        alerts = facts.open_alerts(store)
        signed = {a.id: facts.signed(store, a) for a in alerts}
        moved = facts.moved(store)
        service = served(store, system)
        sending = standings(store, channels(read_settings().alerts))
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
                "severity": a.record.severity,
                "slice": a.record.slice,
                "cost": a.record.cost,
                "with": a.record.with_it,
                "runbook": a.record.runbook,
                "muted_until": a.record.muted_until,
                "signed": signed[a.id],
            }
            for a in alerts
        ],
        "moved_since_release": [{"column": name, "js": distance} for name, distance in moved.items()],
        "sending": [
            {"to": s.name, "sent": s.sent, "waiting": s.waiting, "error": s.error, "given_up": s.given_up, "refusal": s.refusal}
            for s in sending
        ],
    }
    show(
        data,
        lambda: _status(state, _alerts(alerts, signed), moved, service.lines() if service else [], _sending(sending)),
        as_json=json,
    )
    return 0


def _sending(sending: list[Standing]) -> list[str]:
    """One line for each channel that something waits for, or that refused something for good."""
    waits = [f"{one.waiting} wait for {one.name}" + (f": {one.error}" if one.error else "") for one in sending if one.waiting]
    return waits + [f"{one.given_up} given up: {one.name} refused them ({one.refusal})" for one in sending if one.given_up]


def _alerts(alerts: list[Entry[Alerted]], signed: dict[str, str]) -> list[str]:
    return [_alert(alert.record, signed[alert.id]) for alert in alerts]


def _alert(record: Alerted, signed: str) -> str:
    """One open alert: how urgent, what it says, who has seen it, what it costs, and how it is called."""
    from rich.markup import escape

    mark = {"page": "[red]page[/] ", "ticket": "[yellow]ticket[/] ", "": "[red]harm[/] " if record.harm else ""}.get(
        record.severity, ""
    )
    extra = [f"on {record.slice}"] if record.slice else []
    extra += [f"costs {record.cost.value:.4g} a window"] if record.cost is not None and record.cost.value is not None else []
    extra += [f"with {', '.join(record.with_it)}"] if record.with_it else []
    extra += [f"since {day(record.since)}", record.alert]
    seen = f" [cyan]({escape(signed)})[/]" if signed else ""
    return f"  {mark}{escape(record.message)}{seen} [dim]{escape(', '.join(extra))}[/]"


def _status(state: facts.Wheel, alerts: list[str], moved: dict[str, float], service: list[str], sending: list[str]) -> Any:
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
        parts += alerts
    if moved:
        furthest = ", ".join(f"{name} {distance:.3f}" for name, distance in moved.items())
        parts.append(f"\nFurthest from the training time since the release (Jensen-Shannon distance): {escape(furthest)}")
    if sending:
        parts.append("\n[bold]Alerts that could not be sent[/]")
        parts += [f"  {escape(line)}" for line in sending]
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
