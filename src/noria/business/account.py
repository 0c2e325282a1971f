"""The books: one record of value for each closed cohort, and again for each revision of it."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure
from noria.business.incremental import policies_by_propensity
from noria.business.link import linked
from noria.core import Estimate
from noria.records import CohortClosed, Entry, Monitored, Standing, Turned, Valued
from noria.store import Home
from noria.system import System

Floats = NDArray[np.float64]


def account(home: Home, system: System, now: datetime) -> list[Entry[Valued]]:  # noqa: ARG001
    """Values every closed cohort (and revision of one) that has not been valued yet, and estimates the metric link once a week; returns the new books.

    Writes nothing when nothing closed. One query a cohort, whatever the length of the history.
    """
    made = []
    for cohort in unvalued(home):
        record = valued(home, system, cohort.record)
        window = cohort.record.window
        made.append(home.commit(record, key=f"valued/{window.end.isoformat()}/{record.revision}", parents=[cohort.id]))
    if _watched_since_last_turn(
        home
    ):  # not ``made``: a turn that was killed after the last of the books comes back here with none to make
        linked(home, system)
    return made


def _watched_since_last_turn(home: Home) -> bool:
    watched, turned = home.ledger.latest(Monitored), home.ledger.latest(Turned)
    return watched is not None and (turned is None or watched.seq > turned.seq)


def unvalued(home: Home) -> list[Entry[CohortClosed]]:
    """The cohorts closed after the last one that was valued; of several revisions of one window only the newest."""
    last = home.ledger.latest(Valued)
    done = home.ledger.get(last.parents[0]).seq if last is not None else 0
    newest: dict[datetime, Entry[CohortClosed]] = {}
    for cohort in home.ledger.read(CohortClosed, after=done):
        newest[cohort.record.window.end] = cohort
    return sorted(newest.values(), key=lambda cohort: cohort.seq)


def valued(home: Home, system: System, cohort: CohortClosed) -> Valued:
    """The value of one closed cohort.

    Rows that were decided by nobody (before the first release) count as not acted on. A row without a label has no value and does
    not count. A day is one block: its rows share their weather, so its mean gets no interval of its own; ``summary`` gives
    intervals over days.
    """
    known = home.lake.schema("predictions") or {}
    wanted = ("_score", "_act", "_act_propensity", "_release", *measure.columns_read(system.objective.value.sql))
    frame = measure.closed(home, system, cohort.window, columns=[name for name in wanted if name in known])
    value, policies = realised(home, system, frame)
    release = frame["_release"].fill_null("").to_numpy() if len(frame) else np.array([], dtype=object)
    keep = np.isfinite(value)
    sums = {str(name): _sums(value, policies, keep & (release == name)) for name in sorted(set(release[keep].tolist()))}
    totals = _sums(value, policies, keep)
    return Valued(
        window=cohort.window,
        n=int(keep.sum()),
        currency=system.objective.value.currency,
        total=totals["value"],
        per_prediction=_mean(totals, "value"),
        releases=tuple(Standing(name, value=_mean(part, "value")) for name, part in sums.items()),
        policies=tuple(Standing(name, value=_mean(totals, name)) for name in policies),
        revision=cohort.revision,
        sums=sums,
    )


def realised(home: Home, system: System, frame: pl.DataFrame) -> tuple[Floats, dict[str, Floats]]:
    """The value of each row under the logged acts, and under each reference policy (NaN where it is not known).

    Nothing was done for a row without an act, unless a person was to decide: then what was done is not known. Where acting changes
    the label, what another act would have brought was not seen: the reference policies are estimated from the rows on which
    chance chose that act (``incremental``), and ``perfect`` is not known.
    """
    if frame.is_empty():
        return np.empty(0), {}
    label = frame["_class"].to_numpy() if system.task == "multiclass" else measure.numbers_of(frame["_label"])
    act = measure.numbers_of(frame["_act"])
    released = (frame["_release"].fill_null("") != "").to_numpy()
    by_hand = released & (system.decide.policy.strip() == "human")
    act = np.where(np.isnan(act) & ~by_hand, 0.0, act)
    value = measure.value(home.engine, system, frame, act, label, measure.numbers_of(frame["_score"]))
    if system.label.affected_by_action:
        return value, policies_by_propensity(frame, system.decide, act, value)
    return value, measure.policies(home.engine, system, frame, label)


def _sums(value: Floats, policies: dict[str, Floats], rows: NDArray[np.bool_]) -> dict[str, float]:
    sums = {"n": float(rows.sum()), "value": _total(value[rows])}
    return sums | {name: _total(each[rows]) for name, each in policies.items() if np.isfinite(each[rows]).all()}


def _total(values: Floats) -> float:
    return float(f"{values.sum():.12g}")


def _mean(sums: dict[str, float], name: str) -> Estimate:
    n = sums["n"]
    if n == 0 or name not in sums:
        return Estimate(None, n=0)
    return Estimate(float(f"{sums[name] / n:.12g}"), n=1)
