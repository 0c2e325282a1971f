"""The tables of ``docs/loopbench.md`` from finished runs.

python benchmarks/loopbench/report.py --results .cache/loopbench/report.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loopbench import scoring
from loopbench.faults import FAULTS, SIZES
from loopbench.results import load
from loopbench.scoring import Score

ROOT = Path(__file__).resolve().parents[2]
DAY = timedelta(days=1)
SOON = 2


def share(hits: Sequence[bool]) -> str:
    return f"{100 * sum(hits) / len(hits):.0f} %" if hits else "–"


def row(name: str, some: Sequence[Score]) -> str:
    delays = [one.delay for one in some if one.delay is not None]
    cells = [
        name,
        str(len(some)),
        share([one.detected for one in some]),
        share([one.delay is not None and one.delay <= SOON for one in some]),
        f"{median(delays):g}" if delays else "–",
        share([one.first for one in some]),
        share([one.three for one in some]),
        share([one.step for one in some]),
    ]
    return "| " + " | ".join(cells) + " |"


def markdown(results: Sequence[dict[str, Any]], flags: Sequence[dict[str, Any]]) -> str:
    """By fault, by size, by history; false alarms; the reliability of the probabilities; the peers."""
    good = [one for one in results if not one.get("error")]
    clean = scoring.twins(good)
    scores = [scoring.score(one, clean.get(scoring.same(one))) for one in good if one["spec"]["fault"]]
    head = "| {} | n | detected | within 2 | median delay | first | first three | step |\n|---|---|---|---|---|---|---|---|"
    lines = [head.format("fault")]
    lines += [row(name, some) for name in FAULTS if (some := [s for s in scores if s.fault == name])]
    lines += ["", head.format("all")]
    lines += [row(size, [s for s in scores if s.size == size]) for size in SIZES]
    lines += [row(name, [s for s in scores if s.history == name]) for name in sorted({s.history for s in scores})]
    lines += [row("**all**", scores), ""]
    windows, false = scoring.clean_windows(good)
    sources = sum(by.startswith(("verification", "blocked")) for *_, by in false)
    rate = f"{100 * len(false) / windows:.1f}" if windows else "–"
    lines.append(
        f"False alarms: {len(false)} in {windows} clean windows, {rate} per 100; {sources} of them from the sources' verification."
    )
    pairs = [(s.weight, s.first) for s in scores if s.weight is not None]
    brier, error = scoring.reliability(pairs)
    lines += [
        f"The first cause's probability: Brier score {brier:.3f}, expected calibration error {error:.3f} ({len(pairs)} diagnoses).",
        "",
    ]
    lines += _peers(good, flags)
    seconds = [one["seconds"] for one in good]
    lines.append(f"A run took {median(seconds):.0f} s (median), {max(seconds):.0f} s at most." if seconds else "")
    return "\n".join(lines)


def _peers(results: Sequence[dict[str, Any]], flags: Sequence[dict[str, Any]]) -> list[str]:
    """Detection by the peers' flags and by Noria's on the runs that a peer has seen too; days that the twin flags do not count."""
    if not flags:
        return []
    known = {one["key"]: one for one in results}
    lines = [
        "| monitor | flag | runs | detected | without the twin's days | false alarms per 100 clean windows |",
        "|---|---|---|---|---|---|",
    ]
    newest = {(one["peer"], one["key"]): one for one in flags if one["key"] in known}
    for peer in sorted({peer for peer, _ in newest}):
        for flag in sorted({name for (p, _), one in newest.items() if p == peer for name in one["flags"] if name != "failed"}):
            mine = {key: set(one["flags"].get(flag, [])) for (p, key), one in newest.items() if p == peer}
            clean = {scoring.same(known[key]): days for key, days in mine.items() if not known[key]["spec"]["fault"]}
            hits: list[bool] = []
            pure: list[bool] = []
            windows, raised = 0, 0
            for key, days in mine.items():
                one = known[key]
                start = scoring.when(one["start"])
                if one["spec"]["fault"]:
                    late = {day for day in days if scoring.when(day) > start}
                    hits.append(bool(late))
                    pure.append(bool(late - clean.get(scoring.same(one), set())))
                else:
                    windows += round((scoring.when(one["end"]) - scoring.when(one["from"])) / DAY)
                    raised += len(days)
            rate = f"{100 * raised / windows:.1f}" if windows else "–"
            lines.append(f"| {peer} | {flag} | {len(hits)} | {share(hits)} | {share(pure)} | {rate} |")
    twins = scoring.twins(results)
    seen = [known[key] for key in sorted({key for _, key in newest}) if known[key]["spec"]["fault"]]
    raw = [any(at > scoring.when(one["start"]) for at, _ in scoring.alarms(one)) for one in seen]
    own = [scoring.score(one, twins.get(scoring.same(one))).detected for one in seen]
    clean_days, false = scoring.clean_windows(results)
    rate = f"{100 * len(false) / clean_days:.1f}" if clean_days else "–"
    lines.append(f"| Noria | any alarm | {len(seen)} | {share(raw)} | {share(own)} | {rate} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / ".cache" / "loopbench" / "report.jsonl")
    given = parser.parse_args()
    newest = {one["key"]: one for one in load(given.results)}
    print(markdown(list(newest.values()), list(load(given.results.with_suffix(".peers.jsonl")))))


if __name__ == "__main__":
    main()
