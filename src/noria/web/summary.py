"""What happened to the business, in a few lines of text: the end of a replay."""

from __future__ import annotations

from noria.records import Alerted, Diagnosed, Gated, Released, RolloutMoved
from noria.store import Home
from noria.system import System
from noria.web import facts

_ORDER = ("do nothing", "always act", "perfect")


def business_text(home: Home, system: System) -> str:
    """Money made, against what the trivial policies would have made of the same predictions; and what the wheel did for it.

    Everything is from closed cohorts; a label that is still open counts nowhere.
    """
    money = facts.totals(home, system)
    if money is None:
        return f"{system.name}: nothing is closed yet, so there is nothing to count"
    head = f"{system.name}, {money.window.start:%Y-%m-%d} to {money.window.end:%Y-%m-%d}: {money.n:,} decisions whose outcome is known"
    rows = [("this system", money.total)] + [(name, money.policies[name]) for name in _ORDER if name in money.policies]
    names = {"perfect": "knowing the outcome"}
    wide = max(len(names.get(name, name)) for name, _ in rows)
    sums = [facts.amount(value, money.currency) for _, value in rows]
    right = max(len(text) for text in sums)
    lines = [head, ""]
    lines += [f"  {names.get(name, name):<{wide}}  {text:>{right}}" for (name, _), text in zip(rows, sums, strict=True)]
    lines += ["", *_gain(money, system.gate.confidence), *_wheel(home)]
    return "\n".join(lines)


def _gain(money: facts.Money, confidence: float) -> list[str]:
    trivial = {name: value for name, value in money.policies.items() if name in ("do nothing", "always act")}
    if not trivial:
        return []
    best = max(trivial, key=lambda name: trivial[name])
    found = money.gain(best)
    text = (
        f"  {facts.amount(money.total - trivial[best], money.currency, sign=True)} against the best that needs no model ({best})"
    )
    if found.known and found.low is not None and found.high is not None:
        text += f": {facts.amount(found.low, money.currency)} to {facts.amount(found.high, money.currency)} with {confidence:.0%} confidence"
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
