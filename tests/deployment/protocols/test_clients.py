"""Clients that others wrote understand this service: Triton's, KServe's and MLflow's tools, and schemathesis."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROWS = [
    {
        "carrier": carrier,
        "distance": 100 * index,
        "delay": index / 3,
        "sunny": index % 2 == 0,
        "planned": f"2024-01-0{index}T06:00:00Z",
    }
    for index, carrier in enumerate(("UA", "né", "日本", "", "B6", "a" * 300), start=1)
]
MATRIX = [{"a": index / 7, "b": index, "c": index / 4} for index in range(1, 8)]
OUTPUTS = ["score", "act", "decided", "id", "release", "variant", "fallback", "review"]


def run(python: Path, script: str, served: Any, given: dict[str, Any]) -> Any:
    done = subprocess.run(
        [python, HERE / script, served.url, served.token], input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mixed(rows: list[dict[str, Any]], shape: list[int]) -> list[list[Any]]:
    kinds = {"carrier": "BYTES", "distance": "INT64", "delay": "FP64", "sunny": "BOOL", "planned": "BYTES"}
    return [[name, kind, shape, [row[name] for row in rows]] for name, kind in kinds.items()]


def expected(served: Any, rows: list[dict[str, Any]], absent: Any) -> dict[str, list[Any]]:
    """Every output as the bundle and the policy have it. ``absent`` is what stands for an act that is not there."""
    answers = served.home.expected(rows)
    scores = [score for answer in answers for score in answer["scores"] or (answer["score"],)]
    return {
        "score": scores,
        "act": [absent if answer["act"] is None else answer["act"] for answer in answers],
        "decided": [answer["act"] is not None for answer in answers],
        **{name: [answer[name] for answer in answers] for name in ("id", "release", "variant", "fallback", "review")},
    }


@pytest.mark.parametrize("shape", [[len(ROWS)], [len(ROWS), 1]], ids=str)
def test_triton_client(served: Any, clients: Path, shape: list[int]) -> None:
    given = {"model": "late-flights", "version": "1", "inputs": mixed(ROWS, shape), "outputs": OUTPUTS}
    found = run(clients / "python", "with_triton.py", served, given)
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")] == [True] * 4 + [False]
    assert found["server"]["extensions"] == ["binary_tensor_data"]
    assert [one["name"] for one in found["metadata"]["inputs"]] == list(served.home.columns)
    want = expected(served, ROWS, False)
    assert len(found["infer"]) == 2 * 4 * 3  # inputs, outputs (the client's default too), packing
    for combination, one in found["infer"].items():
        assert one["outputs"] == want, combination
        assert (one["id"], one["model"]) == ("request-é", ["late-flights", "1"])
        form = combination.split()[1]
        said = {"json": [False] * 8, "binary": [True] * 8, "default": [True] * 8, "mixed": [True, False] * 4}
        assert one["forms"] == said[form]
        assert set(map(tuple, one["shapes"].values())) == {(len(ROWS), 1)}
    status = {name: code for name, (code, _) in found["refusals"].items()}
    assert status == {"model": "404", "version": "404", "column": "422", "output": "422"}
    assert found["refusals"]["model"][1] == "there is no such model"
    assert "rows[0].carrier" in found["refusals"]["column"][1]


def test_triton_client_sends_a_matrix(numbers: Any, clients: Path) -> None:
    data = [[row["a"], row["b"], row["c"]] for row in MATRIX]
    given = {"model": "demand", "version": "", "inputs": [["input", "FP64", [len(MATRIX), 3], data]], "outputs": OUTPUTS}
    found = run(clients / "python", "with_triton.py", numbers, given)
    want = expected(numbers, MATRIX, "")
    for combination, one in found["infer"].items():
        assert one["outputs"] == want, combination
        assert one["shapes"]["score"] == [len(MATRIX), 3]


def test_kserve_client(served: Any, clients: Path) -> None:
    given = {"model": "late-flights", "inputs": mixed(ROWS, [len(ROWS), 1]), "outputs": OUTPUTS}
    found = run(clients / "python", "with_kserve.py", served, given)
    assert [found[name] for name in ("live", "ready", "model_ready", "other_ready")] == [True, True, True, False]
    want = expected(served, ROWS, False)
    assert len(found["infer"]) == 6
    for combination, one in found["infer"].items():
        assert one["outputs"] == want, combination
        assert (one["id"], one["model"]) == ("request-é", "late-flights")
    assert found["refusals"]["model"][0] == 404
    assert "there is no such model" in found["refusals"]["model"][1]
    assert found["refusals"]["column"][0] == 422


@pytest.mark.parametrize("which", ["served", "numbers"])
def test_mlflow_client(request: pytest.FixtureRequest, clients: Path, which: str) -> None:
    service = request.getfixturevalue(which)
    rows = ROWS if which == "served" else MATRIX
    lists = None if which == "served" else [[row["a"], row["b"], row["c"]] for row in MATRIX]
    found = run(clients / "python", "with_mlflow.py", service, {"rows": rows, "lists": lists})
    answers = service.home.expected(rows)
    want = [answer["scores"] or [answer["score"]] for answer in answers]
    assert found["version"] == "0.1.0"
    assert found["frame"] == found["records"] == found.get("lists", want) == want
    assert found["full"] == [answer["id"] for answer in answers]
    assert "error code 422" in found["refusal"]
    assert "rows[0]." in found["refusal"]


@pytest.mark.parametrize("which", ["served", "numbers"])
def test_schemathesis(request: pytest.FixtureRequest, clients: Path, tmp_path: Path, which: str) -> None:
    """What the document allows is never a fault, what it does not allow is refused, and every answer is as it says."""
    service = request.getfixturevalue(which)
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    done = subprocess.run(
        [
            *(clients / "python", "-m", "schemathesis.cli", "--config-file", tmp_path / "schemathesis.toml"),
            *("run", f"{service.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {service.token}", "--seed", "1", "--max-examples", "15", "--no-color"),
            *("--phases", "examples,coverage,fuzzing"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "passed" in done.stdout


SCHEMATHESIS = """
[[operations]]
include-path-regex = "/infer$|^/invocations$|^/v1/(predict|outcomes|events/.*)$"
# JSON Schema cannot say that shapes and data agree, that columns are equally long, or that a time has come: such requests are refused with 422.
checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]
checks.negative_data_rejection.expected-statuses = ["400", "404", "415", "422"]
"""


def test_the_document_is_openapi(served: Any, clients: Path, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(served.get("/openapi.json")[2])
    done = subprocess.run(
        [clients / "python", "-m", "openapi_spec_validator", tmp_path / "openapi.json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_expected_is_not_empty(served: Any) -> None:
    """The model tells rows apart and every kind of decision is there: otherwise the comparisons above would say nothing."""
    want = expected(served, ROWS, False)
    assert len(set(want["score"])) == len(ROWS)
    assert all(0 < score < 1 and math.isfinite(score) for score in want["score"])
    assert set(want["act"]) == set(want["decided"]) == {True, False}
