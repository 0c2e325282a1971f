"""Runs inside a peer's own environment: its default monitors over the windows of the runs named on the command line.

    python peer_watch.py evidently|nannyml JOBS.json OUT.jsonl

``JOBS.json`` is a list of {key, windows (a Parquet file), from, categories, numbers}. The reference is what the champion answered before
``from``; every day after it is a window. One line a run goes to ``OUT.jsonl``: for each of the peer's flags, the days on which it was up.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
warnings.filterwarnings("ignore")
DAY = timedelta(days=1)
LEAST = 20


def windows(frame: pd.DataFrame, begin: datetime) -> list[tuple[str, pd.DataFrame]]:
    """Each day's rows under the end of the day, as Noria names windows: a row at midnight belongs to the day before."""
    late = frame[frame["_time"] > begin]
    ends = (late["_time"] - pd.Timedelta(microseconds=1)).dt.floor("D") + pd.Timedelta(days=1)
    return [(end.isoformat(), rows) for end, rows in late.groupby(ends) if len(rows) >= LEAST]


def evidently(job: dict[str, Any], before: pd.DataFrame, after: list[tuple[str, pd.DataFrame]]) -> dict[str, list[str]]:
    """``DataDriftPreset`` as it comes: dataset drift is half of the columns drifted; ``any column`` is up when one did."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [*job["numbers"], *job["categories"]]
    definition = DataDefinition(numerical_columns=job["numbers"], categorical_columns=job["categories"])
    reference = Dataset.from_pandas(before[columns], data_definition=definition)
    found: dict[str, list[str]] = {"dataset drift": [], "any column": []}
    for end, rows in after:
        try:
            made = Report([DataDriftPreset()]).run(Dataset.from_pandas(rows[columns], data_definition=definition), reference)
        except ValueError as error:  # a column that is empty in a window ends the report
            found.setdefault("failed", []).append(f"{end}: {type(error).__name__}: {str(error)[:120]}")
            continue
        drifted = next(
            m["value"] for m in made.dict()["metrics"] if "DriftedColumnsCount" in str(m.get("metric_name", m.get("metric_id")))
        )
        if drifted["share"] >= 0.5:
            found["dataset drift"].append(end)
        if drifted["count"] > 0:
            found["any column"].append(end)
    return found


def nannyml(job: dict[str, Any], before: pd.DataFrame, after: list[tuple[str, pd.DataFrame]]) -> dict[str, list[str]]:
    """The univariate, domain-of-reconstruction, estimated and realised performance calculators as they come, a chunk a day."""
    import nannyml as nml

    found: dict[str, list[str]] = {
        "univariate drift": [],
        "reconstruction": [],
        "estimated performance": [],
        "realised performance": [],
    }
    if not after:
        return found
    columns = [*job["numbers"], *job["categories"]]
    rows = pd.concat([rows.assign(_end=end) for end, rows in after])
    before = before.assign(_end="")
    for frame in (before, rows):
        frame["_shown"] = (frame["_score"] > 0.5).astype(int)
    before = before.dropna(subset=["_label", "_score"])
    names = {"timestamp_column_name": "_stamp", "chunk_period": "D"}
    both = [frame.assign(_stamp=(frame["_time"] - pd.Timedelta(microseconds=1)).dt.tz_localize(None)) for frame in (before, rows)]

    def up(flag: str, make: Any, reference: pd.DataFrame, current: pd.DataFrame) -> None:
        try:
            calculator = make()
            calculator.fit(reference)
            result = calculator.estimate(current) if hasattr(calculator, "estimate") else calculator.calculate(current)
            table = result.filter(period="analysis").to_df()
        except Exception as error:
            found.setdefault("failed", []).append(f"{flag}: {type(error).__name__}: {str(error)[:120]}")
            return
        alerts = table.xs("alert", axis=1, level=table.columns.nlevels - 1).any(axis=1)
        keys = next(column for column in table.columns if column[-1] == "end_date")
        found[flag] = [
            (pd.Timestamp(end).ceil("D")).isoformat() + "+00:00" for end, alert in zip(table[keys], alerts, strict=True) if alert
        ]

    model = {
        "y_pred_proba": "_score",
        "y_pred": "_shown",
        "y_true": "_label",
        "problem_type": "classification_binary",
        "metrics": ["roc_auc"],
    }
    univariate = lambda: nml.UnivariateDriftCalculator(column_names=columns, treat_as_categorical=job["categories"], **names)  # noqa: E731
    up("univariate drift", univariate, *both)
    up(
        "reconstruction",
        lambda: nml.DataReconstructionDriftCalculator(column_names=[c for c in columns if c != "_score"], **names),
        *both,
    )
    scored = both[1].dropna(subset=["_score"])
    up("estimated performance", lambda: nml.CBPE(**model, **names), both[0], scored)
    up("realised performance", lambda: nml.PerformanceCalculator(**model, **names), both[0], scored.dropna(subset=["_label"]))
    return found


def main() -> None:
    peer, jobs, out = sys.argv[1:]
    watch = {"evidently": evidently, "nannyml": nannyml}[peer]
    with open(jobs) as file, open(out, "a") as lines:
        for job in json.load(file):
            frame = pd.read_parquet(job["windows"])
            begin = datetime.fromisoformat(job["from"])
            for name in job["categories"]:
                frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
            for name in (*job["numbers"], "_score"):
                frame[name] = frame[name].astype(float)
            said = watch(job, frame[frame["_time"] <= begin].copy(), windows(frame, begin))
            lines.write(json.dumps({"key": job["key"], "code": job["code"], "peer": peer, "flags": said}) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
