"""Diversity: does what is shown or acted on become narrower? A loop that learns from its own choices does that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from noria import measure, stats
from noria.core import Verdict
from noria.measure import numeric_act
from noria.monitoring.windows import found, judged, number, value_of
from noria.records import Monitored, Signal
from noria.system import System

NAME = "diversity"
LEAST = 30
ROWS = 30
ACTED = 15
MOST = 6
SCORES = np.linspace(0.05, 0.95, 19)


def diversity(system: System, frame: pl.DataFrame, past: Sequence[Monitored], error: float) -> list[Signal]:
    """Of the release's own rows; ``past`` are its own windows before, the newest last.

    ``acts``: how evenly the declared acts are taken (entropy over its largest value). ``score``: the same over twenty bins of a score between 0
    and 1. For each category among the features: the effective number of its values among the rows acted on over that among
    all rows, so that a change of what is asked does not count. ``top share`` is the share of the most frequent value among the
    rows acted on. The bound is what the release's first 30 windows rarely stay below: a slow narrowing adds up against it.
    """
    made: list[Signal] = []
    act = measure.numbers_of(frame["_act"])
    if frame.height < ROWS:
        return []
    values: dict[str, float] = {}
    if not numeric_act(system):
        taken = act[np.isfinite(act)].astype(int)
        values["acts"] = stats.evenness(np.bincount(taken, minlength=len(system.decide.acts)).astype(float))
    if system.task == "binary":
        score = measure.numbers_of(frame["_score"])
        bins = np.searchsorted(SCORES, score[np.isfinite(score)])
        values["score"] = stats.evenness(np.bincount(bins, minlength=len(SCORES) + 1).astype(float))
    acted = frame.filter(pl.Series(np.nan_to_num(act) > 0))
    if not numeric_act(system) and acted.height >= ACTED:
        for column in _categories(system, frame):
            counts = frame[column].cast(pl.String).value_counts().rename({column: "value"})
            shown = dict(acted[column].cast(pl.String).value_counts().iter_rows())
            inside = np.array([shown.get(value, 0) for value in counts["value"].to_list()], float)
            values[column] = stats.coverage(inside, counts["count"].to_numpy().astype(float))
            top = number(float(inside.max() / inside.sum()))
            made.append(Signal("top share", column, "prediction", top, None, Verdict.NOT_MEASURED))
    kept = {name: value for name, value in values.items() if np.isfinite(value)}
    signals = [_signal(name, value, past, error / max(len(kept), 1)) for name, value in kept.items()]
    return [*signals, *made, *_exploration(system, frame, error)]


def _categories(system: System, frame: pl.DataFrame) -> list[str]:
    names = [f.name for f in system.flat_features if f.name in frame.columns and frame[f.name].dtype == pl.String]
    return names[:MOST]


def _signal(name: str, value: float, past: Sequence[Monitored], error: float) -> Signal:
    last = next((s for record in reversed(past) if (s := found(record.signals, NAME, name)) is not None), None)
    bound = last.bound if last is not None else None
    if bound is None:
        seen = [v for record in past if (v := value_of(record, NAME, name)) is not None]
        rarely = -stats.ordinary(-np.array(seen[:LEAST]), error, least=LEAST) if len(seen) >= LEAST else float("nan")
        bound = number(rarely)
    kept = number(value)
    note = "" if bound is not None else f"the release has answered for fewer than {LEAST} windows"
    return Signal(NAME, name, "prediction", kept, bound, judged(kept, low=bound), note=note)


def _exploration(system: System, frame: pl.DataFrame, error: float) -> list[Signal]:
    """The share of rows whose act was drawn against the policy, where exploration is declared: below what its chance allows it has stopped."""
    if not system.decide.explore:
        return []
    chance = frame["_act_propensity"].cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    if len(chance) < ROWS:
        return []
    drawn = int((chance < 0.5).sum())
    due = system.decide.explore * (1 - 1 / len(system.decide.acts))
    made = stats.proportion(drawn, len(chance), 1 - 2 * error)
    verdict = Verdict.FAIL if made.below(due) else Verdict.PASS
    said = stats.proportion(drawn, len(chance))
    low, high = number(said.low), number(said.high)
    return [Signal("exploration", "acts", "prediction", number(said.value), number(due), verdict, low=low, high=high)]
