"""The document names every page, and its examples and schemas agree with what the service takes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import polars as pl
import pytest

from noria.deployment.service import invocations, oip
from noria.deployment.service.contract import Limits
from noria.deployment.service.openapi import column, document, example

OWN = {
    ("post", "/v1/predict"),
    ("post", "/v1/events/{source}"),
    ("post", "/v1/outcomes"),
    ("get", "/v1/reviews"),
    ("post", "/v1/reviews"),
    ("get", "/v1/status"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
}


@pytest.fixture(params=["MIXED", "NUMBERS"])
def about(request: pytest.FixtureRequest, harness: Any) -> Any:
    return getattr(harness, request.param)


def accepts(found: dict[str, Any], schema: str, value: Any) -> bool:
    """Whether a validator that we did not write takes ``value`` for a schema of the document."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": found["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


def test_every_page_is_there(about: Any) -> None:
    paths = document(about, Limits())["paths"]
    listed = {(method, path) for path, operations in paths.items() for method in operations}
    assert listed == OWN | {(route.method.lower(), route.pattern) for route in (*oip.ROUTES, *invocations.ROUTES)}


def test_every_schema_is_one_and_every_reference_is_there(about: Any) -> None:
    found = document(about, Limits())
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(found)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas)
    assert set(schemas) - named == set()  # and none is left over


def test_every_page_has_the_one_error_and_is_behind_the_token(about: Any) -> None:
    found = document(about, Limits())
    assert found["security"] == [{"bearer": []}]
    for operations in found["paths"].values():
        for operation in operations.values():
            assert "security" not in operation
            assert {"401", "422", "503", "default"} <= set(operation["responses"])
            schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}


def test_examples_are_allowed_and_answered(harness: Any, about: Any) -> None:
    found = document(about, Limits())
    schemas = found["components"]["schemas"]
    for name in ("Ask", "Invocation", "InferRequest"):
        for one in schemas[name]["examples"]:
            assert accepts(found, name, one)
    for one in schemas["Invocation"]["examples"]:
        reply = asyncio.run(invocations.invocations(harness.Fake(about), harness.call(json.dumps(one).encode())))
        assert reply.status == 200
        assert accepts(found, "Predictions", json.loads(reply.body))
    for one in schemas["InferRequest"]["examples"]:
        reply = asyncio.run(oip.infer(harness.Fake(about), harness.call(json.dumps(one).encode(), name=about.name)))
        assert reply.status == 200
        assert accepts(found, "InferResponse", json.loads(reply.body))
    assert accepts(found, "Model", oip.metadata(about))


def test_rows_are_judged_as_the_service_judges_them(harness: Any) -> None:
    about = harness.MIXED
    found = document(about, Limits(rows=2))
    good = example(about)
    for change, fits in (
        ({}, True),
        ({"note": "x"}, True),
        ({"note": None}, False),
        ({"more": 1}, False),
        ({"distance": 1.5}, False),
        ({"distance": 2**63}, False),
        ({"distance": True}, False),
        ({"sunny": 1}, False),
        ({"delay": "1"}, False),
        ({"delay": 10**400}, False),
        ({"carrier": 3}, False),
    ):
        row = good | change
        assert accepts(found, "Row", row) is fits, change
        reply = asyncio.run(invocations.invocations(harness.Fake(), harness.call(json.dumps({"instances": [row]}).encode())))
        assert (reply.status == 200) is fits, change
    for name in good:
        assert not accepts(found, "Row", {key: value for key, value in good.items() if key != name})
    assert accepts(found, "Ask", {"rows": [good] * 2})
    for wrong in ({"rows": [good] * 3}, {"rows": []}, {"row": good, "rows": [good]}, {}, {"row": good, "x": 1}):
        assert not accepts(found, "Ask", wrong)


def test_what_is_given_is_described(harness: Any) -> None:
    found = document(harness.MIXED, Limits())
    assert accepts(found, "Outcome", {"id": "a@1", "label": True, "act": True, "by": "ada", "outcome_id": "o"})
    assert accepts(found, "Outcome", {"key": {"flight": "x"}, "label": 1.5})
    assert not accepts(found, "Outcome", {"id": "a@1", "key": {"flight": "x"}, "label": 1})
    assert not accepts(found, "Outcome", {"id": "a@1"})
    assert accepts(found, "Review", {"id": "a@1", "act": True, "by": "ada"})
    assert not accepts(found, "Review", {"id": "a@1", "act": 3, "by": "ada"})
    assert accepts(found, "Event", {"id": "e1", "station": "JFK", "temp": 3.5, "gone": None})
    assert not accepts(found, "Event", {"station": "JFK"})
    assert accepts(found, "Answer", _answer(harness))
    assert not accepts(found, "Answer", _answer(harness) | {"more": 1})


def _answer(harness: Any) -> Any:
    said = harness.call(json.dumps({"instances": [example(harness.MIXED)], "params": {"full": True}}).encode())
    return json.loads(asyncio.run(invocations.invocations(harness.Fake(), said)).body)["predictions"][0]


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(pl.Int64(), -(2**63), 2**63 - 1), (pl.UInt8(), 0, 255), (pl.UInt64(), 0, 2**63 - 1)]
)
def test_whole_numbers_have_their_range(kind: pl.DataType, low: int, high: int) -> None:
    assert column(kind) == {"type": "integer", "minimum": low, "maximum": high}
