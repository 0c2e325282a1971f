"""What happened to the business, in a few lines of text: the end of a replay."""

from __future__ import annotations

from noria.records import Alerted, Diagnosed, Gated, Released, RolloutMoved
from noria.store import Home
from noria.system import System
from noria.web import facts

_ORDER = ("do nothing", "always act", "perfect")
_SAID = {"perfect": "knowing the outcome"}


def business_text(home: Home, system: System) -> str:
    """Money made, against what the trivial policies would have made of the same predictions; and what the wheel did for it.

    Everything is from closed cohorts; a label that is still open counts nowhere.
    """
    whole = facts.totals(home, system)
    if whole is None:
        return f"{system.name}: nothing is closed yet, so there is nothing to count"
    acting = facts.totals(home, system, released=True)
    head = f"{system.name}, {whole.window.start:%Y-%m-%d} to {whole.window.end:%Y-%m-%d}: {whole.n:,} predictions whose outcome is closed"
    columns = [("whole time", whole)] + ([(f"since release 1 ({acting.window.start:%Y-%m-%d})", acting)] if acting else [])
    lines = [head, "", *_table(columns, whole.currency), "", *_gain(acting, system.gate.confidence), *_wheel(home)]
    return "\n".join(lines)


def _table(columns: list[tuple[str, facts.Money]], currency: str) -> list[str]:
    names = ["this system", *(name for name in _ORDER if any(name in money.policies for _, money in columns))]
    rows = [["", *(f"{title}, {currency}" if currency else title for title, _ in columns)]]
    for name in names:
        sums = [money.total if name == "this system" else money.policies.get(name) for _, money in columns]
        rows.append([_SAID.get(name, name), *("" if value is None else facts.amount(value) for value in sums)])
    wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join([f"{row[0]:<{wide[0]}}", *(f"{cell:>{size}}" for cell, size in zip(row[1:], wide[1:], strict=True))])
        for row in rows
    ]


def _gain(money: facts.Money | None, confidence: float) -> list[str]:
    """Since the first release, the difference to the best policy that needs no model, with its interval, and what that advises."""
    if money is None:
        return ["  nothing was released: nothing has acted"]
    trivial = {name: value for name, value in money.policies.items() if name in ("do nothing", "always act")}
    if not trivial:
        return [f"  {money.advice}"]
    best = max(trivial, key=lambda name: trivial[name])
    found = money.gain(best)
    text = (
        f"  {facts.amount(money.total - trivial[best], money.currency, sign=True)} against the best that needs no model ({best})"
    )
    if found.known and found.low is not None and found.high is not None:
        text += f", {facts.amount(found.low)} to {facts.amount(found.high)} with {confidence:.0%} confidence"
    return [text, f"  {money.advice}"]


def _wheel(home: Home) -> list[str]:
    ledger = home.ledger
    releases = ledger.count(Released)
    back = sum(1 for move in ledger.read(RolloutMoved) if move.record.stage == "rolled back")
    alerts = {entry.record.alert for entry in ledger.read(Alerted)}
    counts = [
        f"{ledger.count(Gated)} gates",
        f"{releases} releases",
        f"{back} rolled back",
        f"{len(alerts)} alerts ({len(facts.open_alerts(home))} open)",
        f"{ledger.count(Diagnosed)} diagnoses",
    ]
    return [f"  {', '.join(counts)}"]
