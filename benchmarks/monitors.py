"""The drift of 25 columns and a million rows: Noria, a polars scan, Evidently and NannyML, in one run on one machine; medians of rounds.

Run ``python benchmarks/monitors.py [rows]`` (``--markdown`` for the table of the docs; ``--quick`` without the peers; ``--only`` with
the peers named after the rows, as "nannyml JS"). Twenty columns of numbers
(normal, lognormal, gamma), five of categories (3 to 50 values); three numbers and one category are moved. The reference has as many rows.

- *file*: reading the bytes of the Parquet file that the window is in (uncompressed pages are in the page cache): nothing can be faster.
- *decode*: polars reads the file into memory.
- *scan*: what a data quality check would ask, from the file, by polars' streaming engine: count of nulls, least, largest and (numbers) mean.
- *Noria*: the window's profile over the stored reference's bins (counts, nulls, extremes, moments, unseen) from the file, and
  every distance of every column. *in memory*: the same with the frame read already, beside the scan of that frame.
- *Noria, with the reference*: the reference's profile made as well, which is done once for a release.
- *NannyML*: ``calculate`` of the univariate calculator (Jensen-Shannon) after ``fit``, the frame in memory; default chunks (ten). Its fit is given beside.
- *Evidently*: ``DataDriftPreset`` of window and reference, frames in memory; PSI, which is its cheapest here, and its default. It keeps no
  reference, so it is compared with both lines of Noria's. A method that needs more than 120 s is stopped and said.

The seconds of the processor (of all threads) are what can be compared on a machine that does other work as well.

Peers have an environment of their own under ``.cache/peers``, made at the first run, and may use all cores. Their times are without reading.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from environments import environment

HERE = Path(__file__).resolve()
NUMBERS = [f"n{k}" for k in range(20)]
CATEGORIES = [f"c{k}" for k in range(5)]
ROUNDS, PEER_ROUNDS, LIMIT = 7, 3, 120.0
SMALL = 100_000


# ---------------------------------------------------------------------------------------------- in a peer's environment


def evidently(method: str, reference: Any, window: Any) -> Callable[[], Any]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    asked = {} if method == "default" else {"method": method}

    def way() -> Any:
        of = [Dataset.from_pandas(frame, data_definition=definition) for frame in (window, reference)]
        return Report([DataDriftPreset(**asked)]).run(*of).dict()["metrics"][0]["value"]

    return way


def nannyml(reference: Any, window: Any) -> tuple[Callable[[], Any], float]:
    import nannyml as peer

    made = peer.UnivariateDriftCalculator(
        column_names=NUMBERS + CATEGORIES,
        treat_as_categorical=CATEGORIES,
        continuous_methods=["jensen_shannon"],
        categorical_methods=["jensen_shannon"],
    )
    start = time.perf_counter()
    made.fit(reference)
    spent = time.perf_counter() - start
    return lambda: float(made.calculate(window).to_df()[("n1", "jensen_shannon", "value")].tail(10).mean()), spent


def child(peer: str, method: str, folder: Path) -> None:
    """Times one call in this process and prints it as JSON."""
    import logging
    import warnings

    import pandas

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    reference, window = (pandas.read_parquet(folder / f"{name}.parquet") for name in ("reference", "window"))
    fit = 0.0
    if peer == "evidently":
        way = evidently(method, reference, window)
    else:
        way, fit = nannyml(reference, window)
    start, worked = time.perf_counter(), time.process_time()
    said = way()
    spent = {"seconds": time.perf_counter() - start, "processor": time.process_time() - worked}
    print(json.dumps(spent | {"fit": fit, "said": str(said)[:60]}))


def asked(peer: str, method: str, folder: Path) -> dict[str, Any] | None:
    """One timed call in a process of its own; ``None`` when it took too long."""
    quiet = dict(os.environ) | {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
    command = [str(environment(peer) / "python"), str(HERE), "--child", peer, method, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT + 30, env=quiet, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{peer} failed: {done.stderr.strip().splitlines()[-1:]}")
    made: dict[str, Any] = json.loads(lines[-1])
    return made


# ----------------------------------------------------------------------------------------------------------------- ours


def table(rows: int, seed: int) -> Any:
    import numpy as np
    import polars as pl

    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for k, name in enumerate(NUMBERS):
        drawn = (random.standard_normal, lambda n: random.lognormal(0, 0.7, n), lambda n: random.gamma(2, 2, n))[k % 3](rows)
        columns[name] = drawn + (0.1 * (k + 1) if seed and k < 3 else 0.0)
    for k, name in enumerate(CATEGORIES):
        many = (3, 5, 10, 20, 50)[k]
        share = 1 / np.arange(1, many + 1)
        share = 0.8 * share + 0.2 * share[::-1] if seed and k == 2 else share
        columns[name] = np.array([f"v{j}" for j in range(many)])[random.choice(many, rows, p=share / share.sum())]
    return pl.DataFrame(columns)


def scan(frame: Any) -> Any:
    import polars as pl

    asked = [getattr(pl.col(*NUMBERS), what)().name.suffix(f" {what}") for what in ("null_count", "min", "max", "mean")]
    asked += [getattr(pl.col(*CATEGORIES), what)().name.suffix(f" {what}") for what in ("null_count", "min", "max")]
    return frame.select(asked).collect(engine="streaming")


def ways(folder: Path) -> dict[str, Callable[[], Any]]:
    import polars as pl

    from noria import measure

    path = folder / "window.parquet"
    reference, window = pl.read_parquet(folder / "reference.parquet"), pl.read_parquet(path)
    stored = measure.Profile.from_json(measure.profile(reference, NUMBERS + CATEGORIES).to_json())
    found = measure.distance(stored, measure.against(stored, window))
    moved = sorted(found, key=lambda name: -found[name]["js"])[:4]
    if sorted(moved) != ["c2", "n0", "n1", "n2"]:
        raise SystemExit(f"the moved columns were not found: {moved}")
    return {
        "file": path.read_bytes,
        "decode": lambda: pl.read_parquet(path),
        "scan": lambda: scan(pl.scan_parquet(path)),
        "Noria": lambda: measure.distance(stored, measure.against(stored, pl.scan_parquet(path))),
        "scan, in memory": lambda: scan(window.lazy()),
        "Noria, in memory": lambda: measure.distance(stored, measure.against(stored, window)),
        "Noria, with the reference": lambda: _whole(reference, window),
    }


def _whole(reference: Any, window: Any) -> Any:
    from noria import measure

    made = measure.profile(reference, NUMBERS + CATEGORIES)
    return measure.distance(made, measure.against(made, window))


Spent = dict[str, list[float] | None]


def measured(rows: int, peers: list[tuple[str, str]]) -> tuple[Spent, dict[str, list[float]]]:
    """The seconds of every way and those of the processor, rounds interleaved; ``None`` for a peer that took too long."""
    spent: Spent = {}
    processor: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, what in enumerate(("reference", "window")):
            table(rows, seed).write_parquet(folder / f"{what}.parquet", compression="uncompressed")
        ours = ways(folder)
        for turn in range(ROUNDS):
            for label, way in ours.items():
                start, worked = time.perf_counter(), time.process_time()
                way()
                spent.setdefault(label, []).append(time.perf_counter() - start)  # type: ignore[union-attr]
                processor.setdefault(label, []).append(time.process_time() - worked)
            for peer, method in peers if turn < PEER_ROUNDS else ():
                label = f"{peer} {method}".strip()
                if spent.get(label, []) is None:
                    continue
                said = asked(peer, method, folder)
                if said is None:
                    spent[label] = None
                    continue
                spent.setdefault(label, []).append(said["seconds"])  # type: ignore[union-attr]
                processor.setdefault(label, []).append(said["processor"])
                if said["fit"]:
                    spent.setdefault(f"{label} (fit)", []).append(said["fit"])  # type: ignore[union-attr]
    return spent, processor


def show(rows: int, measures: tuple[Spent, dict[str, list[float]]], markdown: bool) -> None:
    spent, processor = measures
    middle = {name: statistics.median(times) if times else None for name, times in spent.items()}
    head = ("way", f"seconds, {rows:,} rows", "of the scan", "of Noria", "of Noria with the reference", "seconds of processor")
    lines = []
    for name, seconds in middle.items():
        worked = f"{statistics.median(processor[name]):.3f}" if name in processor else ""
        if seconds is None:
            lines.append((name, f"more than {LIMIT:.0f}", *(f"> {LIMIT / (middle[of] or 1):.0f}" for of in COMPARED), worked))
        else:
            lines.append((name, f"{seconds:.3f}", *(f"{seconds / (middle[of] or 1):.2f}" for of in COMPARED), worked))
    if markdown:
        print("| " + " | ".join(head) + " |\n|---|" + "---:|" * (len(head) - 1))
        print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    else:
        wide = [max(len(line[k]) for line in [head, *lines]) for k in range(len(head))]
        for line in [head, *lines]:
            print(
                "  ".join(part.ljust(w) if not k else part.rjust(w) for k, (part, w) in enumerate(zip(line, wide, strict=True)))
            )
    print()


COMPARED = ("scan", "Noria", "Noria, with the reference")


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--child" in sys.argv:
        child(words[0], words[1], Path(words[2]))
        return
    rows = int(words[0]) if words else 1_000_000
    markdown, quick = "--markdown" in sys.argv, "--quick" in sys.argv
    everything = [("nannyml", "JS"), ("evidently", "psi"), ("evidently", "default")]
    everything = [one for one in everything if "--only" not in sys.argv or " ".join(one) in words[1:]]
    show(rows, measured(rows, [] if quick else everything), markdown)
    if not quick and rows > SMALL:
        show(SMALL, measured(SMALL, everything), markdown)


if __name__ == "__main__":
    main()
