"""Faults of what answers: fallbacks, latency, and scores that are not the model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import river as rivers

import noria as nr
from noria.core import Estimate, Verdict, Window
from noria.diagnosis.case import Case
from noria.diagnosis.causes.software import parity
from noria.model import Constant, Model, Spec, fit_encoder, pack
from noria.records import Alerted, Monitored, Released, Scored, Signal


def answered(
    begin: Any, told: Any, *, share: float, why: str = "error", latency: float | None = None, guard: bool = False
) -> Case:
    """Thirty ordinary windows and six in which the fallback answered ``share`` of the rows, and 99 of 100 answers took ``latency`` ms."""
    objective = nr.Objective(problem="tests", value=nr.Value("case when act and label then 4 when act then -1 else 0 end", "USD"), metric="log_loss", guardrails=[nr.AtMost("latency_p99_ms", 20)])  # fmt: skip
    story = begin(told.declaration(objective=objective)) if guard else begin()
    story.tell(told.World(), 2)
    story.release(told.World())
    rows = 100
    for day in range(36):
        window = Window(story.now + day * told.DAY, story.now + (day + 1) * told.DAY)
        story.clock.move(max(window.end, story.clock.now()))
        k = int(share * rows) if day >= 30 else 0
        frame = story._rows(told.World(rows=rows), np.random.default_rng(day), window.start, rows)
        held = pl.int_range(pl.len())
        reason = (
            pl.when(held < k // 2).then(pl.lit(f"{why}: nothing")).when(held < k).then(pl.lit("sticky: nothing")).otherwise(None)
        )
        frame = frame.drop("_label", "_known").with_columns(reason.cast(pl.String).alias("_fallback"))
        commit = story.home.lake.write("predictions", frame, key=f"live/{day}")
        scored = Scored(window=window, n=rows, rows="r", variants={"champion": rows}, acts={}, fallbacks=k)
        story.home.commit(scored, key=f"live/{window.end.isoformat()}", tables=[commit])
        if latency is not None:
            value = latency if day >= 30 else 8.0
            signal = Signal("latency p99 ms", "service", "operation", value)
            seen = Monitored(window=window, about="traffic", release=story.bundle, n=rows, signals=(signal,))
            story.home.commit(seen, key=f"monitored/traffic/{window.end.isoformat()}")
    now = story.now + 36 * told.DAY
    record = Alerted(
        alert="alert/planted", name="fallbacks", subject="planted", state="open", since=now - 6 * told.DAY, harm=True, size=Estimate(None),
        bound=None, message="the fallback answers", level="operation",
    )  # fmt: skip
    return Case(story.home, story.system, now, (story.home.commit(record, key="alert/planted/open"),))


def strengths(case: Case) -> dict[str, float]:
    return {
        name: weight for name, weight in rivers.found(case).items() if name in ("latency", "fallback storm", "software fault")
    }


def test_a_storm_of_failures_is_software(begin: Any, told: Any) -> None:
    case = answered(begin, told, share=0.4)
    made = rivers.look(case, "fallback storm")
    assert made.verdict is Verdict.FAIL
    assert "the fallback gives 40.0% of the answers" in made.evidence[0].detail
    assert "(error 100%)" in made.evidence[0].detail
    assert made.step == "deployment"
    assert set(strengths(case)) == {"fallback storm", "software fault"}


def test_a_storm_of_timeouts_is_latency(begin: Any, told: Any) -> None:
    found = strengths(answered(begin, told, share=0.4, why="timeout"))
    assert max(found, key=found.__getitem__) == "latency"
    assert "software fault" not in found


def test_a_few_fallbacks_are_no_storm(begin: Any, told: Any) -> None:
    case = answered(begin, told, share=0.02)
    assert strengths(case) == {}
    assert rivers.look(case, "fallback storm").verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("latency", "guard", "verdict"),
    [(55.0, False, Verdict.FAIL), (9.0, False, Verdict.PASS), (25.0, True, Verdict.FAIL), (12.0, True, Verdict.PASS)],
)
def test_answers_that_take_too_long(begin: Any, told: Any, latency: float, guard: bool, verdict: Verdict) -> None:
    case = answered(begin, told, share=0.0, latency=latency, guard=guard)
    assert rivers.look(case, "latency").verdict is verdict


def test_latency_is_not_measured_in_history(begin: Any, told: Any) -> None:
    assert rivers.look(answered(begin, told, share=0.0), "latency").verdict is Verdict.NOT_ENOUGH_DATA


@pytest.mark.parametrize(("apart", "differing"), [(0.0, 0), (1e-6, 300), (1e-12, 0)])
def test_scores_are_computed_again(begin: Any, told: Any, apart: float, differing: int) -> None:
    """The release that answers says 0.2000005 of every row; what was logged in its name is that, or another number."""
    said = 0.2000005
    flat = told.World(score=lambda x: np.full(len(x), said + apart))
    story = begin()
    story.tell(flat, 2)
    spec = Spec(system="story", candidate="c", recipe="linear", task="binary", decision={"kind": "threshold", "threshold": 0.1})
    frame = story.frame()
    story.bundle = story.home.artifacts.put(pack(spec, Model(fit_encoder(frame, ["x", "kind", "y"]), Constant((said,))), frame))
    story.home.commit(Released(number=1, bundle=story.bundle, previous=None, reason="promotion"), key="released/1")
    story.tell(flat, 12)
    made = parity(Case(story.home, story.system, story.now, ()))
    assert made.verdict is (Verdict.FAIL if differing else Verdict.PASS)
    assert f"{differing} of 300 scores differ" in made.detail
