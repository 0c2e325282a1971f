"""The document names every page, and its examples and schemas agree with what the real service takes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import polars as pl
import pytest

from noria.deployment.service.app import routes
from noria.deployment.service.openapi import column, example


@pytest.fixture(params=["served", "numbers"])
def service(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def document(service: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.get("/openapi.json")[2])
    return found


def accepts(found: dict[str, Any], schema: str, value: Any) -> bool:
    """Whether a validator that we did not write takes ``value`` for a schema of the document."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": found["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


def ask(service: Any, path: str, value: Any) -> tuple[int, Any]:
    status, _, body = service.get(path, json.dumps(value).encode())
    return status, json.loads(body)


def test_every_page_is_there(service: Any) -> None:
    paths = document(service)["paths"]
    listed = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    sources = {"served": ("flights", "landed", "weather"), "numbers": ("asks", "sold")}
    feeds = sources["served" if service.about.name == "late-flights" else "numbers"]
    pages = {(method, path) for path, methods in routes().items() for method in methods}
    own = pages - {("POST", "/v1/events/{source}")} | {("POST", f"/v1/events/{name}") for name in feeds}
    assert listed == own


def test_every_schema_is_one_and_every_reference_is_there(service: Any) -> None:
    found = document(service)
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    named = {part.split('"')[0] for part in json.dumps(found).split("#/components/schemas/")[1:]}
    assert named == set(schemas)  # none is missing, and none is left over


def test_every_page_has_the_one_error_and_is_behind_the_token(service: Any) -> None:
    found = document(service)
    assert found["security"] == [{"bearer": []}]
    for operations in found["paths"].values():
        for operation in operations.values():
            assert "security" not in operation
            assert {"401", "422", "503", "default"} <= set(operation["responses"])
            schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}


def test_examples_are_allowed_and_answered(service: Any) -> None:
    found = document(service)
    schemas = found["components"]["schemas"]
    for schema, path, answer in (
        ("Ask", "/v1/predict", None),
        ("Invocation", "/invocations", "Predictions"),
        ("InferRequest", f"/v2/models/{service.about.name}/infer", "InferResponse"),
    ):
        assert schemas[schema]["examples"]
        for one in schemas[schema]["examples"]:
            assert accepts(found, schema, one)
            status, said = ask(service, path, one)
            assert status == 200, said
            assert accepts(found, answer or ("Answer" if "row" in one else "Answers"), said)
    assert accepts(found, "Model", json.loads(service.get(f"/v2/models/{service.about.name}")[2]))
    assert accepts(found, "Status", json.loads(service.get("/v1/status")[2]))
    assert accepts(found, "Waiting", json.loads(service.get("/v1/reviews")[2]))


def test_rows_are_judged_as_the_service_judges_them(served: Any) -> None:
    found = document(served)
    good = example(served.about)
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
        for path, body in (
            ("/v1/predict", {"row": row}),
            ("/v1/predict", {"rows": [good, row]}),
            ("/invocations", {"instances": [row]}),
        ):
            assert (ask(served, path, body)[0] == 200) is fits, (change, path)
    for name in set(good) & served.about.needed:
        assert not accepts(found, "Row", {key: value for key, value in good.items() if key != name})
    for wrong in ({"rows": []}, {"row": good, "rows": [good]}, {}, {"row": good, "x": 1}):
        assert not accepts(found, "Ask", wrong)
        assert ask(served, "/v1/predict", wrong)[0] == 422


@pytest.mark.parametrize(
    ("schema", "path", "value", "fits"),
    [
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": True, "act": True, "by": "ada", "outcome_id": "o"}, True),
        ("Outcome", "/v1/outcomes", {"key": {"carrier": "x"}, "label": 1, "at": "2024-05-01T00:00:00Z"}, True),
        ("Outcome", "/v1/outcomes", {"key": "x", "act": False, "at": None}, True),
        ("Outcome", "/v1/outcomes", {"key": {"flight": "x"}, "label": 1}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "key": "x", "label": 1}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1"}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": 0.5}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": None}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": True, "by": ""}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": True, "outcome_id": {}}, False),
        ("Outcome", "/v1/outcomes", {"id": "a@1", "label": True, "at": 0}, False),
        ("Outcome", "/v1/outcomes", {"id": "a" * 513, "label": True}, False),
        ("Review", "/v1/reviews", {"id": "a@1", "act": True, "by": "ada"}, True),
        ("Review", "/v1/reviews", {"id": "a@2", "act": False, "by": "ada", "label": True}, True),
        ("Review", "/v1/reviews", {"id": "a@1", "act": 3, "by": "ada"}, False),
        ("Review", "/v1/reviews", {"id": "a@1", "act": True, "by": None}, False),
        ("Review", "/v1/reviews", {"id": "a@1", "act": True}, False),
        (
            "Event.weather",
            "/v1/events/weather",
            {"id": "e1", "station": "JFK", "hour": "2024-05-01T00:00:00Z", "temp": 3.5},
            True,
        ),
        ("Event.weather", "/v1/events/weather", {"station": "JFK", "hour": 0, "wet": None, "new": "x"}, True),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": "JFK"}, False),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": None, "hour": 0}, False),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": "JFK", "hour": 0, "temp": "3"}, False),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": "JFK", "hour": 0, "gusts": -(2**63) - 1}, False),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": "JFK", "hour": 0, "_new": 1}, False),
        ("Event.weather", "/v1/events/weather", {"id": "e2", "station": "JFK", "hour": 0, "new": []}, False),
        ("Event.weather", "/v1/events/weather", {"id": "", "station": "JFK", "hour": 0}, False),
        ("Event.landed", "/v1/events/landed", {"carrier": "UA", "at": "2024-05-01T00:00:00Z", "late": True}, True),
        ("Event.landed", "/v1/events/landed", {"carrier": "UA", "late": True}, False),
    ],
)
def test_what_is_given_is_judged_as_the_document_says(served: Any, schema: str, path: str, value: Any, fits: bool) -> None:
    assert accepts(document(served), schema, value) is fits
    status, said = ask(served, path, value)
    assert (status == 200) is fits, said
    assert not fits or accepts(document(served), "Counts", said)


def test_an_act_of_several_is_one_of_them(numbers: Any) -> None:
    found = document(numbers)
    for act, fits in (("buy", True), ("hold", False), (1, False), (None, False)):
        value = {"id": f"a@{act}", "act": act, "by": "ada"}
        assert accepts(found, "Review", value) is fits
        assert (ask(numbers, "/v1/reviews", value)[0] == 200) is fits


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(pl.Int64(), -(2**63), 2**63 - 1), (pl.UInt8(), 0, 255), (pl.UInt64(), 0, 2**63 - 1)]
)
def test_whole_numbers_have_their_range(kind: pl.DataType, low: int, high: int) -> None:
    assert column(kind) == {"type": "integer", "minimum": low, "maximum": high}
