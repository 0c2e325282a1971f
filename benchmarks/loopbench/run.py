"""LoopBench: runs what is planned, two at a time, and keeps one line a run; what is finished is not run again.

    python benchmarks/loopbench/run.py --split tune [--only flights] [--fault "unit changed"] [--sizes large] [--limit N] [--show]

``--show`` prints each run's alerts and diagnoses; ``--list`` the faults. A change of code makes all runs new; ``--old-ground`` goes on from a
champion that other code made (quicker, for looking at a change of monitoring or diagnosis).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import argparse
import json
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loopbench import harness, scoring
from loopbench.faults import FAULTS, SIZES
from loopbench.plan import Spec, planned
from loopbench.results import load

CACHE = harness.ROOT / ".cache" / "loopbench"


def main() -> None:
    given = arguments()
    if given.list:
        for fault in FAULTS.values():
            print(
                f"{fault.name:<28} {fault.about}\n{'':<28} right: {', '.join(fault.causes)}; back to {' or '.join(fault.steps)}"
            )
        return
    specs = planned(given.split, only=given.only, faults=given.fault, sizes=given.sizes, seeds=given.seed)[: given.limit]
    out = given.out or CACHE / f"{given.split}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    code = os.environ["LOOPBENCH_CODE"] = harness.code()  # the processes are of the same code, whatever is edited meanwhile
    done = {one["key"] for one in load(out) if one.get("code") == code and not one.get("error")}
    todo = [spec for spec in specs if given.again or spec.key not in done]
    print(f"{len(specs)} runs planned, {len(todo)} to do; results in {out}", file=sys.stderr)
    with out.open("a") as file:
        for number, result in enumerate(results(todo, given), 1):
            file.write(json.dumps(result, separators=(",", ":")) + "\n")
            file.flush()
            print(f"[{number}/{len(todo)}] {scoring.line(result)}", file=sys.stderr, flush=True)
            if given.show:
                print(scoring.shown(result), flush=True)
    if not given.quiet:
        wanted = {spec.key for spec in specs}
        newest = {one["key"]: one for one in load(out) if one["key"] in wanted and (one.get("code") == code or given.again)}
        print(scoring.table(list(newest.values())))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--split", choices=("tune", "report"), default="tune")
    parser.add_argument("--only", nargs="*", default=[], help="histories")
    parser.add_argument("--fault", nargs="*", default=[], help="names of faults, or clean")
    parser.add_argument("--sizes", nargs="*", default=[], choices=SIZES)
    parser.add_argument("--seed", nargs="*", default=[], type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", action="store_true", help="run what is finished once more")
    parser.add_argument("--old-ground", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the runs' homes")
    parser.add_argument("--quiet", action="store_true", help="no table at the end")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def results(todo: list[Spec], given: argparse.Namespace) -> Any:
    """Every run's result as it comes; first the grounds they stand on."""
    if not todo:
        return
    standing = [spec for spec in todo if not (spec.fault and FAULTS[spec.fault].gate)]
    grounds = list({(spec.history, spec.days, spec.seed): spec for spec in standing}.values())
    if given.jobs <= 1:
        yield from (one(spec, given.old_ground, given.keep) for spec in todo)
        return
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for ready in as_completed([pool.submit(prepared, spec, given.old_ground) for spec in grounds]):
            print(ready.result(), file=sys.stderr, flush=True)
        for made in as_completed([pool.submit(one, spec, given.old_ground, given.keep) for spec in todo]):
            yield made.result()


def prepared(spec: Spec, any_code: bool) -> str:
    made = harness.ground(spec, CACHE, any_code=any_code)
    return f"ground {made.folder.name}: {made.seconds:.1f} s"


def one(spec: Spec, any_code: bool, keep: bool) -> dict[str, Any]:
    """One result; what went wrong is kept as such."""
    try:
        return harness.run(spec, CACHE, any_code=any_code, keep=keep)
    except Exception as error:
        said = traceback.format_exc()
        return {
            "key": spec.key,
            "spec": spec.as_dict(),
            "code": harness.code(),
            "error": f"{type(error).__name__}: {error}",
            "trace": said,
        }


if __name__ == "__main__":
    main()
