"""`noria check` names every mistake at once, each with its place, and lets the sound declarations pass."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria import data

ROOT = Path(__file__).resolve().parents[2]
DECLARATIONS = ROOT / "tests" / "declarations"


@pytest.mark.parametrize("name", ["clicks", "churn", "demand"])
def test_sound_declarations_pass(name: str) -> None:
    made = runpy.run_path(str(DECLARATIONS / f"{name}.py"))["system"]
    assert [str(problem) for problem in data.check(made, DECLARATIONS)] == []


@pytest.mark.parametrize(("name", "task"), [("clicks", "binary"), ("churn", "binary"), ("demand", "regression")])
def test_declarations_are_data(name: str, task: str) -> None:
    first, second = (runpy.run_path(str(DECLARATIONS / f"{name}.py"))["system"] for _ in range(2))
    assert first.id == second.id
    assert first.task == task


def test_the_wrong_declaration_is_answered_whole() -> None:
    made = runpy.run_path(str(DECLARATIONS / "wrong.py"))["system"]
    found = data.check(made, DECLARATIONS)
    places = {
        "every",
        "sources.shops.owner",
        "sources.visits.data",
        "label.within",
        "label.expression",
        "label.otherwise",
        "label.by",
        "decide.policy",
        "decide.explore",
        "objective.problem",
        "objective.metric",
        "objective.value.sql",
        "objective.guardrails[0]",
        "objective.slices",
        "candidates",
        "parts.test",
        "gate.confidence",
        "rollout.canary",
        "rollout.unit",
        "rollout.style",
        "rollout.switchback",
        "rollout.covariate",
        "retrain.state",
        "alerts.false_alarms",
        "alerts.per",
        "alerts.severe",
        "alerts.runbooks.decay",
        "costs.training",
        "serve.degree",
        "serve.confidence",
        "serve.fallback",
        "serve.timeout",
        "retrain.on",
    }
    assert {problem.place for problem in found} >= places
    features = [problem for problem in found if problem.place.startswith("features[")]
    assert len(features) >= 3
    assert all(problem.message for problem in found)
    assert sum(bool(problem.hint) for problem in found) >= len(found) - 2
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"name": "Bad Name"}, "name"),
        ({"predict": 3}, "predict"),
        ({"predict": nr.Request({"a": "WORD"}, key="b", group="c")}, "predict.columns"),
        ({"predict": nr.Request({"a": "WORD"}, key="b", group="c")}, "predict.key"),
        ({"predict": nr.Request({"a": "WORD"}, key="b", group="c")}, "predict.group"),
        ({"decide": nr.Decide(acts=(1,))}, "decide.acts"),
        ({"decide": nr.Decide("quantile 0.5")}, "decide.policy"),
        ({"decide": nr.Decide(holdout=2)}, "decide.holdout"),
        ({"candidates": [nr.Prior(), object()]}, "candidates[1] (object)"),
        ({"candidates": [nr.Prior(), nr.Seasonal("1 week", by="z")]}, "candidates[1] (seasonal).period"),
        ({"candidates": [nr.Prior(), nr.Last(by="z")]}, "candidates[1] (last).by"),
        ({"candidates": [nr.Prior(), nr.Rule("nowhere > 1")]}, "candidates[1] (rule).expression"),
        ({"parts": nr.Parts(train="7d", least="28d")}, "parts.train"),
        ({"gate": nr.Gate(blocks=1)}, "gate.blocks"),
        ({"gate": nr.Gate(margin=-1)}, "gate.margin"),
        ({"rollout": nr.Rollout(patience="1d")}, "rollout.patience"),
        ({"rollout": nr.Rollout(style="slowly")}, "rollout.style"),
        ({"rollout": nr.Rollout(style="bandit", canary=(0.1,))}, "rollout.canary"),
        ({"rollout": nr.Rollout(switchback="a while")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(covariate="n +")}, "rollout.covariate"),
        ({"rollout": nr.Rollout(covariate="nowhere + 1")}, "rollout.covariate"),
        ({"rollout": nr.Rollout(covariate="score + n")}, "rollout.covariate"),
        ({"retrain": nr.Retrain(budget=0)}, "retrain.budget"),
        ({"rollout": nr.Rollout(style="rainbow")}, "rollout.style"),
        ({"rollout": nr.Rollout(style="bandit", canary=(0.2,))}, "rollout.canary"),
        ({"rollout": nr.Rollout(style="blue-green", switchback="2h")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(style="blue-green", covariate="n")}, "rollout.covariate"),
        ({"rollout": nr.Rollout(switchback="2h", unit="id")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(switchback="two hours")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(switchback="0h")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(switchback="7h", step="7d")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(switchback="3d", step="3d")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(switchback="2d", step="3d")}, "rollout.switchback"),
        ({"rollout": nr.Rollout(covariate="nowhere * 2")}, "rollout.covariate"),
        ({"rollout": nr.Rollout(covariate="id")}, "rollout.covariate"),
        ({"rollout": nr.Rollout(covariate="sum(n)")}, "rollout.covariate"),
        ({"serve": nr.Serve(degree="some")}, "serve.degree"),
        ({"serve": nr.Serve(degree="partial", confidence=1.5)}, "serve.confidence"),
        ({"serve": nr.Serve(degree="partial", confidence="high")}, "serve.confidence"),
        ({"serve": nr.Serve(degree="partial")}, "serve.confidence"),
        ({"serve": nr.Serve(confidence=0.8)}, "serve.confidence"),
        ({"serve": nr.Serve(fallback="guess")}, "serve.fallback"),
        ({"serve": nr.Serve(fallback=nr.Rule("nowhere > 1"))}, "serve.fallback (rule).expression"),
        ({"serve": nr.Serve(fallback=nr.Rule("random()"))}, "serve.fallback (rule).expression"),
        ({"serve": nr.Serve(timeout="soon")}, "serve.timeout"),
        ({"serve": nr.Serve(timeout="0s")}, "serve.timeout"),
        ({"serve": nr.Serve(sticky="1y")}, "serve.sticky"),
        ({"serve": nr.Serve(fallback=[1])}, "serve.fallback"),
        ({"outcomes": {"label": nr.Outcome(nr.Source("came", key="id", time="at"), "1", within="6h")}}, "outcomes.label"),
        ({"outcomes": {"p": nr.Outcome(nr.Source("came", key="id", time="at"), "1", within="9h")}}, "outcomes.p.within"),
    ],
)
def test_each_mistake_has_its_place(declare: Any, tmp_path: Path, parts: dict[str, Any], place: str) -> None:
    assert place in [problem.place for problem in data.check(declare(**sources(), **parts), tmp_path)]


@pytest.mark.parametrize(
    ("rollout", "place"),
    [
        (nr.Rollout(style="blue-green"), "rollout.style"),  # no arms, and nothing else could decide
        (nr.Rollout(canary=()), "rollout.canary"),
        (nr.Rollout(style="bandit", switchback="6h", covariate="n * 2"), None),
    ],
)
def test_where_acting_changes_the_label_a_rollout_needs_arms(
    declare: Any, tmp_path: Path, rollout: nr.Rollout, place: str | None
) -> None:
    made = sources()
    label = nr.Label(made["came"], "x > 0", within="6h", otherwise=False, affected_by_action=True)
    found = data.check(declare(asked=made["asked"], label=label, rollout=rollout), tmp_path)
    assert [problem.place for problem in found] == ([] if place is None else [place])


def test_without_a_mistake_there_is_nothing_to_say(declare: Any, tmp_path: Path) -> None:
    assert data.check(declare(**sources()), tmp_path) == []


@pytest.mark.parametrize(
    "parts",
    [
        {"rollout": nr.Rollout(style="bandit", canary=(0.1, 0.5), covariate="n * 2.0")},
        {"rollout": nr.Rollout(style="blue-green")},
        {"rollout": nr.Rollout(switchback="6h", step="1d")},
        {"rollout": nr.Rollout(switchback="2d", step="4d")},
        {"serve": nr.Serve("partial", confidence=0.8, fallback="previous", timeout="250ms", sticky="0s")},
        {"serve": nr.Serve("assist", fallback=nr.Rule("case when n > 3 then 0.9 else 0.1 end"))},
    ],
)
def test_sound_ways_of_going_live_pass(declare: Any, tmp_path: Path, parts: dict[str, Any]) -> None:
    assert data.check(declare(**sources(), **parts), tmp_path) == []


def test_what_does_not_fit_the_label(declare: Any, tmp_path: Path) -> None:
    made = sources()
    number = nr.Label(made["came"], "x", within="6h", task="regression")
    changed = nr.Label(made["came"], "x > 0", within="6h", otherwise=False, affected_by_action=True)
    found = data.check(
        declare(asked=made["asked"], label=number, serve=nr.Serve("partial", confidence=0.8), decide=nr.Decide("score")), tmp_path
    )
    assert "serve.degree" in [problem.place for problem in found]
    found = data.check(declare(asked=made["asked"], label=changed, rollout=nr.Rollout(style="blue-green")), tmp_path)
    assert [problem.place for problem in found] == ["rollout.style"]


@pytest.mark.parametrize("name", ["_labels", "_x", "Asked", "a/b", "a..b"])
def test_names_of_sources_that_are_refused(declare: Any, tmp_path: Path, name: str) -> None:
    """Names that begin with an underscore are Noria's own: given labels come as events of ``_labels``."""
    made = sources()
    other = nr.Source(name, made["came"].data, key="id", time="at", owner="us")
    assert [problem.place for problem in data.check(declare(asked=made["asked"], came=other), tmp_path)] == [f"sources.{name}"]


def sources() -> dict[str, nr.Source]:
    stamp = pl.lit("2024-01-01T00:00:00Z").str.to_datetime(time_zone="UTC").alias("at")
    asked = pl.DataFrame({"id": ["a"], "n": [1]}).with_columns(stamp)
    return {
        "asked": nr.Source("asked", asked, key="id", time="at", owner="us"),
        "came": nr.Source("came", asked.rename({"n": "x"}), key="id", time="at", owner="us"),
    }


@pytest.mark.parametrize(
    ("label", "place"),
    [
        ({"expression": "x >"}, "label.expression"),
        ({"expression": "missing > 0"}, "label.expression"),
        ({"expression": "sum(x) > 0"}, "label.expression"),
        ({"expression": "'text'"}, "label.expression"),
        ({"how": "most"}, "label.how"),
        ({"how": "any", "otherwise": None}, "label.otherwise"),
        ({"how": "count", "task": "binary"}, "label.how"),
        ({"horizon": "soon"}, "label.horizon"),
        ({"censored_when": "x"}, "label.censored_when"),
        ({"observed_when": "bought"}, "label.observed_when"),
        ({"by": {"id": "nowhere"}}, "label.by"),
        ({"by": {"n": "id"}}, "label.by"),
        ({"within": "0h"}, "label.within"),
    ],
)
def test_mistakes_of_labels(declare: Any, tmp_path: Path, label: dict[str, Any], place: str) -> None:
    made = sources()
    sound: dict[str, Any] = {"expression": "x > 0", "within": "6h", "otherwise": False}
    found = data.check(declare(asked=made["asked"], label=nr.Label(made["came"], **{**sound, **label})), tmp_path)
    assert place in [problem.place for problem in found]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,at,x\na,2024-01-01 00:00,1\n", "no time zone"),
        ("id,day,x\na,2024-01-01,1\n", "there is no column 'at'"),
        ("id,at,x\na\n", "cannot be read as CSV"),
    ],
)
def test_sources_that_cannot_be_used(declare: Any, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "came.csv").write_text(text)
    made = declare(came=nr.Source("came", "came.csv", key="id", time="at", owner="us"))
    [found] = [problem for problem in data.check(made, tmp_path) if problem.place == "sources.came.data"]
    assert says in found.message
    assert found.hint
