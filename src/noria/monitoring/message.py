"""What is said of an alert when it is sent: a short subject, then what, since when, how large, where, what it costs, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from noria.core import Estimate
from noria.records import Alerted, Entry
from noria.system import System


@dataclass(frozen=True)
class Message:
    """One message. ``id`` is that of the alert's entry: who gets it twice can tell."""

    id: str
    severity: str
    subject: str
    text: str
    data: dict[str, Any]
    date: str

    def mail(self, sender: str, receivers: Sequence[str]) -> EmailMessage:
        """The message as an e-mail, whose Message-ID is made from ``id``."""
        made = EmailMessage()
        made["Subject"] = " ".join(self.subject.split())
        made["From"], made["To"] = sender, ", ".join(receivers)
        made["Date"], made["Message-ID"] = self.date, f"<{self.id[:32]}@noria>"
        made["Auto-Submitted"] = "auto-generated"
        made.set_content(self.text)
        return made


def message(system: System, entry: Entry[Alerted]) -> Message:
    """What is said of an alert's entry."""
    alert = entry.record
    severity = alert.severity or ("page" if alert.harm else "note")
    head = "resolved" if alert.state == "resolved" else severity
    subject = f"[{head}] {system.name}: {alert.name} ({alert.subject}) since {alert.since:%Y-%m-%d %H:%M}"
    lines = [alert.message, ""]
    lines += [f"{word + ':':<10}{said}" for word, said in _facts(system, alert) if said]
    data = {
        "id": entry.id,
        "system": system.name,
        "subject": subject,
        "text": "\n".join([subject, *lines]),
        "alert": alert.alert,
        "name": alert.name,
        "about": alert.subject,
        "state": alert.state,
        "severity": severity,
        "harm": alert.harm,
        "since": alert.since.isoformat(),
        "at": entry.at.isoformat(),
        "size": _plain(alert.size),
        "bound": alert.bound,
        "slice": alert.slice,
        "cost": None if alert.cost is None else {**_plain(alert.cost), "currency": system.objective.value.currency},
        "with": list(alert.with_it),
        "runbook": alert.runbook,
    }
    return Message(entry.id, severity, subject, "\n".join(lines) + "\n", data, format_datetime(entry.at))


def cost_text(system: System, cost: Estimate) -> str:
    """What an alert costs, for a person.

    >>> from types import SimpleNamespace
    >>> value = SimpleNamespace(value=SimpleNamespace(currency="USD"))
    >>> cost_text(SimpleNamespace(every="1d", objective=value), Estimate(120.0, 80.0, 160.0, 7))
    '120 [80, 160] USD per 1d'
    """
    return f"{cost} {system.objective.value.currency} per {system.every}"


def _facts(system: System, alert: Alerted) -> list[tuple[str, str]]:
    bound = "" if alert.bound is None else f"; the bound is {alert.bound:.4g}"
    made = [
        ("since", f"{alert.since:%Y-%m-%d %H:%M} UTC"),
        ("size", "" if alert.size.value is None else f"{alert.size}{bound}"),
        ("slice", alert.slice),
        ("cost", "" if alert.cost is None or alert.cost.value is None else cost_text(system, alert.cost)),
        ("with it", ", ".join(alert.with_it)),
    ]
    if alert.state != "resolved":
        made += [("runbook", alert.runbook), ("seen it?", f'noria ack "{alert.alert}" --note "…" [--mute 7d]')]
    return made


def _plain(size: Estimate) -> dict[str, float | int | None]:
    return {"value": size.value, "low": size.low, "high": size.high, "n": size.n}
