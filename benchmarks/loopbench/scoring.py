"""From what runs left to figures: detected or not, after how many windows, the right cause and step or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from loopbench.faults import FAULTS

DAY = timedelta(days=1)
COARSE = {
    "bad data": (
        "source late",
        "source missing",
        "source truncated",
        "schema changed",
        "unit changed",
        "category renamed",
        "duplicates",
        "time zone shifted",
        "join broken",
    ),
    "late or missing labels": ("label delay changed", "labels missing"),
    "software": ("training-serving skew", "constant predictor", "fallback storm", "software fault", "stale features"),
    "concept change": ("sudden concept change", "gradual concept change", "recurring concept change"),
    "metric misaligned with value": ("metric misaligned",),
}
MATURITY = {"flights": 2, "elec2": 2}


@dataclass(frozen=True)
class Score:
    """What came out of one faulted run. ``delay`` counts windows, the first in which the fault could be seen as 1."""

    fault: str
    size: str
    history: str
    detected: bool
    delay: float | None
    by: str
    first: bool
    three: bool
    step: bool
    weight: float | None
    coarse: bool
    early: bool
    named: str


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def alarms(result: dict[str, Any]) -> list[tuple[datetime, str]]:
    """Everything that told of a fault: alerts as they opened, sources that could not be taken in, failed verifications."""
    found = [(when(a["at"]), f"{a['name']} {a['subject']}".strip()) for a in result["alerts"] if a["state"] == "open"]
    found += [(when(b["at"]), f"blocked {b['source']}") for b in result["blocked"]]
    seen: set[tuple[str, str]] = set()
    for one in result["verified"]:
        checks = [(check["name"], check["subject"]) for check in one["checks"]]
        new = [f"{name} {subject}".strip() for name, subject in checks if (one["source"], f"{name}/{subject}") not in seen]
        seen |= {(one["source"], f"{name}/{subject}") for name, subject in checks}
        if new:
            found.append((when(one["at"]), f"verification {one['source']}: {', '.join(new)}"))
    gate = result.get("gate", {})
    if gate.get("verdict") == "fail":
        found.append((when(gate["at"]), "the gate refused"))
    return sorted(found)


def reference(result: dict[str, Any]) -> datetime:
    """The turn before the first that can see the fault: the fault's start, or for labels the day before its first cohort closes."""
    spec, start = result["spec"], when(result["start"])
    if FAULTS[spec["fault"]].gate:
        return when(result["gate"]["at"] or result["end"]) - DAY
    if FAULTS[spec["fault"]].seen == "traffic":
        return when(result.get("arrives", result["start"]))
    return start + MATURITY[spec["history"]] * DAY


def right(name: str, causes: Sequence[str]) -> bool:
    return name in causes


def roughly(name: str, causes: Sequence[str]) -> bool:
    """Whether a name is right, or is that of the family which a right one belongs to."""
    return name in causes or bool(set(COARSE.get(name, ())) & set(causes))


Twin = tuple[list[tuple[datetime, str]], set[str]]
NEAR = 2 * DAY


def twins(results: Iterable[dict[str, Any]]) -> dict[tuple[str, str, int, int], Twin]:
    """What the clean runs alarmed of, and the symptoms that they diagnosed, by (split, history, seed, draw)."""
    found = {}
    for one in results:
        if not one["spec"]["fault"]:
            found[same(one)] = (alarms(one), {symptom for made in one["diagnosed"] for symptom in made["symptoms"]})
    return found


def same(result: dict[str, Any]) -> tuple[str, str, int, int]:
    """What a faulted run and its twin have in common."""
    spec = result["spec"]
    return spec["split"], spec["history"], spec["seed"], spec["draw"]


def own(result: dict[str, Any], twin: Twin | None) -> tuple[list[tuple[datetime, str]], list[dict[str, Any]]]:
    """The alarms and diagnoses after a fault's start that the same days without it do not raise within two days."""
    start = when(result["start"])
    others, symptoms = twin or ([], set())
    found = [
        (at, by)
        for at, by in alarms(result)
        if at > start and not any(by == other and abs(at - then) <= NEAR for then, other in others)
    ]
    made = [one for one in result["diagnosed"] if when(one["at"]) > start and not set(one["symptoms"]) <= symptoms]
    return found, made


def score(result: dict[str, Any], twin: Twin | None = None) -> Score:
    """The figures of one faulted run; the diagnosis is the last one made of what its ``twin`` does not show, ``early`` speaks of the first."""
    spec = result["spec"]
    fault = FAULTS[spec["fault"]]
    after, made = own(result, twin)
    if fault.gate:
        after = [(at, by) for at, by in after if by == "the gate refused"]
        made = [one for one in made if any(symptom.startswith("gated/") for symptom in one["symptoms"])]
    last, first = (made[-1], made[0]) if made else (None, None)
    found = [c for c in last["causes"] if c["verdict"] == "fail"] if last else []
    soon = [c for c in first["causes"] if c["verdict"] == "fail"] if first else []
    return Score(
        fault=fault.name,
        size=spec["size"],
        history=spec["history"],
        detected=bool(after),
        delay=(after[0][0] - reference(result)) / DAY if after else None,
        by=after[0][1] if after else "",
        first=bool(found) and right(found[0]["name"], fault.causes),
        three=any(right(c["name"], fault.causes) for c in found[:3]),
        step=bool(found) and found[0]["step"] in fault.steps,
        weight=found[0]["weight"] if found else None,
        coarse=bool(found) and roughly(found[0]["name"], fault.causes),
        early=bool(soon) and roughly(soon[0]["name"], fault.causes),
        named=", ".join(c["name"] for c in found[:3]) or ("nothing found" if last else "no diagnosis"),
    )


def clean_windows(results: Iterable[dict[str, Any]]) -> tuple[int, list[tuple[Any, ...]]]:
    """The number of windows without a fault (clean runs, and the days before a fault; the same day once), and the alarms in them."""
    windows: set[tuple[Any, ...]] = set()
    false: set[tuple[Any, ...]] = set()
    for result in results:
        if "gate" in result:
            continue
        begin = when(result["from"])
        end = when(result["start"]) if result["spec"]["fault"] else when(result["end"])
        windows |= {(*same(result), k) for k in range(round((end - begin) / DAY))}
        false |= {(*same(result), (at - begin) // DAY, by) for at, by in alarms(result) if begin < at <= end}
    return len(windows), sorted(false)


def reliability(pairs: Sequence[tuple[float, bool]], bins: int = 5) -> tuple[float, float]:
    """Brier score, and expected calibration error over equal bins, of the first cause's weight as the probability that it is right.

    >>> reliability([(1.0, True), (0.0, False)])
    (0.0, 0.0)
    """
    if not pairs:
        return math.nan, math.nan
    brier = math.fsum((weight - hit) ** 2 for weight, hit in pairs) / len(pairs)
    error = 0.0
    for k in range(bins):
        here = [(w, hit) for w, hit in pairs if min(int(w * bins), bins - 1) == k]
        if here:
            error += abs(math.fsum(w for w, _ in here) - sum(hit for _, hit in here)) / len(pairs)
    return brier, error


# ------------------------------------------------------------------------------------------------------------------ texts


def line(result: dict[str, Any]) -> str:
    """A run in one line."""
    if result.get("error"):
        return f"{result['key']}: {result['error']}"
    if not result["spec"]["fault"]:
        found = [by for _, by in alarms(result)]
        return f"{result['key']}: {len(found)} false alarms {found[:4]} ({result['seconds']} s)"
    one = score(result)
    seen = f"seen after {one.delay:g} by {one.by}" if one.detected else "not seen"
    return f"{result['key']}: {seen}; {'RIGHT' if one.first else 'near' if one.coarse else 'wrong'}: {one.named} ({result['seconds']} s)"


def shown(result: dict[str, Any]) -> str:
    """A run's alerts and diagnoses with their evidence, for a person."""
    if result.get("error"):
        return str(result.get("trace", result["error"]))
    lines = [f"== {result['key']}  fault from {result['start'][:10]}"]
    lines += [f"  {at:%m-%d} {by}" for at, by in alarms(result)]
    lines += [f"  {a['at'][5:10]} {a['state']} {a['name']} {a['subject']}: {a['message']}" for a in result["alerts"]]
    for one in result["diagnosed"]:
        lines.append(f"  {one['at'][5:10]} DIAGNOSIS back to {one['back_to']} of {', '.join(one['symptoms'])[:200]}")
        for cause in one["causes"]:
            if cause["verdict"] == "fail":
                lines.append(f"      {cause['weight']:.2f} {cause['name']} -> {cause['step']}")
                lines += [
                    f"           {e['verdict']} {e['name']} {e['subject']}: {e['detail']}"
                    for e in cause["evidence"]
                    if e["verdict"] == "fail"
                ]
        unsure = [cause["name"] for cause in one["causes"] if cause["verdict"] not in ("fail", "pass")]
        lines.append(f"      not enough data: {', '.join(unsure) or 'none'}")
    return "\n".join(lines)


def table(results: Sequence[dict[str, Any]]) -> str:
    """By fault: runs, detected, median delay, right first, in the first three, right step; then the totals and the false alarms."""
    good = [one for one in results if not one.get("error")]
    clean = twins(good)
    scores = [score(one, clean.get(same(one))) for one in good if one["spec"]["fault"]]
    lines = ["fault                        n  seen  delay  first  three  step  near"]
    for name in FAULTS:
        lines += _row(name, [one for one in scores if one.fault == name])
    for size in ("small", "medium", "large"):
        lines += _row(size.upper(), [one for one in scores if one.size == size])
    lines += _row("ALL", scores)
    windows, false = clean_windows(good)
    rate = 100 * len(false) / windows if windows else math.nan
    lines.append(f"false alarms: {len(false)} in {windows} clean windows ({rate:.1f} per 100)")
    pairs = [(one.weight, one.first) for one in scores if one.weight is not None]
    brier, error = reliability(pairs)
    lines.append(f"first cause's probability: Brier {brier:.3f}, calibration error {error:.3f}, of {len(pairs)}")
    failed = [one["key"] for one in results if one.get("error")]
    lines.append(
        f"seconds a run: {median([one['seconds'] for one in good]) if good else math.nan:.1f}; failed runs: {len(failed)} {failed[:5]}"
    )
    return "\n".join(lines)


def _row(name: str, some: Sequence[Score]) -> list[str]:
    if not some:
        return []
    n, delays = len(some), [one.delay for one in some if one.delay is not None]
    share = [100 * sum(getattr(one, what) for one in some) / n for what in ("detected", "first", "three", "step", "coarse")]
    delay = f"{median(delays):5.1f}" if delays else "    -"
    return [
        f"{name:<26} {n:>3} {share[0]:>4.0f}%  {delay}  {share[1]:>4.0f}%  {share[2]:>4.0f}% {share[3]:>4.0f}% {share[4]:>4.0f}%"
    ]
