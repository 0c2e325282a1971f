"""The monitors people would use instead, as they come, on the same windows as Noria saw.

    python benchmarks/loopbench/peers.py --results .cache/loopbench/tune.jsonl [--limit N] [--only evidently]

Each runs in an environment of its own (``.cache/peers``). A run is finished when its line is there. They see what was logged (features, score,
and the label once it was closed) and no source, so a fault that stops the turns leaves them without windows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

import polars as pl
from environments import MONITORS, environment

from loopbench.results import load

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "loopbench"
APART = ("_id", "_time", "_label", "_score")


def jobs(results: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What a peer is told of each run."""
    made = []
    for one in results:
        path = folder / str(one.get("windows", "none"))
        if one.get("error") or not path.is_file():
            continue
        schema = pl.read_parquet_schema(path)
        categories = [name for name, kind in schema.items() if kind == pl.String and name not in APART]
        numbers = [name for name, kind in schema.items() if kind.is_numeric() and name not in APART]
        job = {"key": one["key"], "code": one["code"], "windows": str(path), "from": one["from"]}
        made.append(job | {"categories": categories, "numbers": [*numbers, "_score"]})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=CACHE / "tune.jsonl")
    parser.add_argument("--folder", type=Path, default=CACHE / "windows")
    parser.add_argument("--only", nargs="*", default=list(MONITORS), choices=list(MONITORS))
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    newest = {one["key"]: one for one in load(given.results)}
    wanted = jobs(list(newest.values()), given.folder)[: given.limit]
    out = given.results.with_suffix(".peers.jsonl")
    done = {(one["peer"], one["key"], one["code"]) for one in load(out)}
    for peer in given.only:
        todo = [job for job in wanted if (peer, job["key"], job["code"]) not in done]
        print(f"{peer}: {len(todo)} runs to watch", file=sys.stderr)
        if not todo:
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(todo, file)
            file.flush()
            subprocess.run(
                [str(environment(peer) / "python"), str(HERE / "peer_watch.py"), peer, file.name, str(out)], check=True
            )


if __name__ == "__main__":
    main()
