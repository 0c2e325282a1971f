"""The service described for machines: an OpenAPI 3.1 document of every page, with the predicted row's own columns.

A request that the document allows is never a fault of the service, and one that it does not allow is refused. What JSON Schema cannot
say (that a shape and its data agree, that columns are equally long) is said in words and checked by the service alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

import noria
from noria.deployment.service import invocations, oip
from noria.deployment.service.contract import About, Feed, Limits
from noria.deployment.service.tensors import DTYPES, datatype, output_types

Schema = dict[str, Any]
LARGEST = 1.7976931348623157e308
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
BOOLEAN: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
DAY: Schema = {"type": "string", "format": "date"}
WHOLE: Schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
ID: Schema = {"type": "string", "minLength": 1, "maxLength": 512}
SCALAR: Schema = {"anyOf": [TEXT, NUMBER, BOOLEAN]}
ERROR: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": TEXT, "kind": TEXT, "hint": TEXT},
        "required": ["error"],
        "description": "what happened and where, the kind of error, and what to do",
    }
}
_NEW_COLUMN = "^[^_\\x00-\\x1f\\x7f][^\\x00-\\x1f\\x7f]{0,127}$"
_OF_SQL: dict[str, Schema] = {
    "VARCHAR": TEXT,
    "BOOLEAN": BOOLEAN,
    "BIGINT": WHOLE,
    "DOUBLE": NUMBER,
    "DATE": DAY,
    "TIMESTAMP": TEXT | {"description": "a time without a zone, such as 2013-01-31T06:00:00"},
}
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_REFUSALS = {
    "401": "the token is missing or wrong",
    "404": "it is not there",
    "413": "more bytes than the limit",
    "415": "a form of body that is not understood",
    "422": "a field is wrong; the error names it and never repeats its content",
    "503": "nothing can be answered now; nothing was lost",
}


def document(about: About, limits: Limits, feeds: Sequence[Feed] = ()) -> dict[str, Any]:
    """Every page of the service, as an OpenAPI 3.1 document; ``/v1/events/{source}`` as one page for each source that is fed by HTTP."""
    paths: dict[str, dict[str, Any]] = {}
    for method, pattern, operation in [*_own(feeds), *_open_inference(about), *_mlflow()]:
        paths.setdefault(pattern, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": about.name,
            "version": noria.__version__,
            "description": f"Predictions of {about.name}. A body has at most {limits.body} bytes, a request at most {limits.rows} rows.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": _row_schemas(about, limits)
            | _given_schemas(about, limits)
            | _feed_schemas(feeds, limits)
            | _tensor_schemas(about, limits)
            | ERROR,
        },
    }


def example(about: About) -> dict[str, Any]:
    """A row that the service takes, by the types of its needed columns alone."""
    found: dict[str, Any] = {}
    for name, kind in about.columns.items():
        if name in about.needed:
            schema = column(kind)
            of_type = {"boolean": True, "integer": 1, "number": 0.5, "string": "a"}
            said = {"date-time": "2024-01-01T00:00:00Z", "date": "2024-01-01"}
            found[name] = said.get(schema.get("format", "")) or of_type[schema["type"]]
    return found


def column(kind: pl.DataType) -> Schema:
    """What JSON a column takes.

    >>> column(pl.Int8())
    {'type': 'integer', 'minimum': -128, 'maximum': 127}
    """
    if kind == pl.Boolean:
        return BOOLEAN
    if kind in _INTEGERS:
        bits = int("".join(filter(str.isdigit, str(kind))))
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind.is_signed_integer() else (0, 2**bits - 1)
        return {"type": "integer", "minimum": low, "maximum": min(high, 2**63 - 1)}
    if kind.is_numeric():
        return NUMBER
    if kind == pl.Date:
        return DAY
    return TIME if kind.is_temporal() else TEXT


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(fields: dict[str, Schema], *optional: str, more: Schema | bool = False) -> Schema:
    """An object with these fields, all needed but the ``optional`` ones."""
    needed = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "additionalProperties": more} | ({"required": needed} if needed else {})


def _many(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    found: Schema = {"type": "array", "items": items}
    return found | ({"minItems": least} if least else {}) | ({"maxItems": most} if most is not None else {})


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _row_schemas(about: About, limits: Limits) -> dict[str, Schema]:
    """A row, what is asked of it and what is answered."""
    columns = {name: column(kind) for name, kind in about.columns.items()}
    needed = [name for name in columns if name in about.needed]
    unnamed = {"type": "array", "prefixItems": [columns[name] for name in needed], "items": False, "minItems": len(needed)}
    rows, lists = _many(_ref("Row"), 1, limits.rows), _many(_ref("UnnamedRow"), 1, limits.rows)
    params = {"params": _object({"full": BOOLEAN}, "full")}
    split = _object({"columns": _many(TEXT), "data": _many(_many({}), 1, limits.rows), "index": _many({})}, "index")
    wide = {
        "type": "object",
        "properties": {name: _many(schema, 1, limits.rows) for name, schema in columns.items()},
        "required": needed,
        "additionalProperties": False,
        "minProperties": 1,
        "description": "a list for each column, all equally long",
    }
    forms: dict[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": rows,
        "instances": {"anyOf": [rows, lists]},
        "inputs": {"anyOf": [rows, lists, wide]},
    }
    scores = _many(_or_null(NUMBER))
    return {
        "Row": {"type": "object", "properties": columns, "required": needed, "additionalProperties": False},
        "UnnamedRow": unnamed | {"description": f"the needed columns in their order: {', '.join(needed)}"},
        "Ask": {
            "examples": [{"row": example(about)}, {"rows": [example(about)]}],
            "oneOf": [
                _object({"row": _ref("Row"), "asked_at": _or_null(TIME)}, "asked_at"),
                _object({"rows": rows, "asked_at": _or_null(TIME)}, "asked_at"),
            ],
        },
        "Answer": _object(
            {
                "id": TEXT,
                "score": _or_null(NUMBER),
                "scores": _or_null(scores),
                "act": _or_null(SCALAR),
                "act_propensity": _or_null(NUMBER),
                "variant": TEXT,
                "variant_propensity": _or_null(NUMBER),
                "release": TEXT,
                "fallback": TEXT,
                "review": BOOLEAN,
            }
        ),
        "Answers": _object({"answers": _many(_ref("Answer"))}),
        "Invocation": {
            "examples": [{"dataframe_records": [example(about)]}, {"instances": [list(example(about).values())]}],
            "oneOf": [_object({form: schema} | params, "params") for form, schema in forms.items()],
        },
        "Predictions": _object({"predictions": _many({"anyOf": [_or_null(NUMBER), scores, _ref("Answer")]})}),
    }


def _given_schemas(about: About, limits: Limits) -> dict[str, Schema]:
    """Outcomes and reviews."""
    truths = [0, 1] if len(about.acts) == 2 and all(isinstance(act, bool) for act in about.acts) else []
    act: Schema = {"enum": [*about.acts, *truths]} if about.acts else NUMBER
    label: Schema = {"binary": {"enum": [True, False, 0, 1]}, "multiclass": ID, "regression": NUMBER}[about.task]
    said: dict[str, Schema] = {"label": label, "act": act, "by": ID, "at": _or_null(TIME), "outcome_id": ID}
    either: Schema = {"anyOf": [{"required": ["label"]}, {"required": ["act"]}]}
    key: Schema = {"anyOf": [ID, _object(dict.fromkeys(about.keys, SCALAR))]}
    outcome: Schema = {"oneOf": [_object({"id": ID} | said, *said) | either, _object({"key": key} | said, *said) | either]}
    waiting: dict[str, Schema] = {
        "id": TEXT,
        "asked_at": TIME,
        "score": _or_null(NUMBER),
        "scores": _or_null(_many(_or_null(NUMBER))),
        "release": TEXT,
        "row": {"type": "object"},
    }
    return {
        "Outcome": outcome,
        "Outcomes": _object({"outcomes": _many(_ref("Outcome"), 1, limits.rows)}),
        "Counts": _object({"accepted": {"type": "integer"}, "duplicates": {"type": "integer"}, "conflicts": _many(TEXT)}),
        "Review": _object({"id": ID, "act": act, "label": label, "by": ID}, "label"),
        "Waiting": _object({"reviews": _many(_object(waiting))}),
        "Status": _status(),
    }


def _status() -> Schema:
    whole: Schema = {"type": "integer", "minimum": 0}
    rollout = _object({"number": whole, "stage": TEXT, "share": NUMBER})
    log = _object({"mode": TEXT, "acknowledged": whole, "on_disk": whole, "fault": TEXT})
    return _object(
        {
            "system": TEXT,
            "release": whole,
            "bundle": TEXT,
            "rollout": _or_null(rollout),
            "degree": TEXT,
            "short_way": BOOLEAN,
            "log": log,
        }
    )


def _feed_schemas(feeds: Sequence[Feed], limits: Limits) -> dict[str, Schema]:
    """An event of each source. Columns that are not frozen yet may come: they hold a text, a number or a truth value."""
    found: dict[str, Schema] = {}
    for feed in feeds:
        time: Schema = {"anyOf": [TIME, WHOLE], "description": "ISO 8601 with a zone, or microseconds since 1970 in UTC"}
        columns = {name: time if kind.startswith("TIMESTAMP WITH") else _of_sql(kind) for name, kind in feed.columns.items()}
        columns |= dict.fromkeys(feed.times, time)
        columns = {name: schema if name in feed.needed else _or_null(schema) for name, schema in columns.items()}
        columns |= {name: SCALAR for name in feed.needed if name not in columns}
        if not feed.own_id:
            said = "what tells events apart; without it, all that an event says does"
            columns["id"] = _or_null({"anyOf": [ID, {"type": "integer"}], "description": said})
        optional = [name for name in columns if name not in feed.needed]
        event = _object(columns, *optional, more=_or_null(SCALAR)) | {"propertyNames": {"pattern": _NEW_COLUMN}}
        found[f"Event.{feed.name}"] = event
        found[f"Events.{feed.name}"] = _object({"events": _many(_ref(f"Event.{feed.name}"), 1, limits.rows)})
    return found


def _of_sql(kind: str) -> Schema:
    """A column's schema by its SQL type; ``null`` alone for one that cannot come as JSON."""
    return NUMBER if kind.startswith("DECIMAL") else _OF_SQL.get(kind, {"type": "null"})


def _tensor_schemas(about: About, limits: Limits) -> dict[str, Schema]:
    """What the Open Inference Protocol sends to and fro."""
    whole: Schema = {"type": "integer", "minimum": 0}
    parameters: Schema = {"type": "object", "additionalProperties": True}
    element: Schema = {"anyOf": [SCALAR, _many(SCALAR)]}
    size: Schema = {"type": "integer", "minimum": 1}
    sizes = [size | {"maximum": limits.rows}, size | {"maximum": max(len(about.columns), 1)}]
    shape: Schema = {"type": "array", "prefixItems": sizes, "items": False, "minItems": 1}
    kind: Schema = {"enum": [*DTYPES, "BYTES"]}
    tensor = {"name": TEXT, "datatype": kind, "shape": _many({"type": "integer"})}
    answered = _object(tensor | {"parameters": parameters, "data": _many(_or_null(SCALAR))}, "parameters", "data")
    sent = [
        {"name": name, "shape": [1, 1], "datatype": datatype(about.columns[name]), "data": [value]}
        for name, value in example(about).items()
    ]
    named = _object(
        {
            "name": {"enum": list(output_types(about))},
            "parameters": parameters | {"properties": {"binary_data": BOOLEAN} | dict.fromkeys(oip.ELSEWHERE, False)},
        },
        "parameters",
    )
    taken = _object(
        {
            "name": TEXT,
            "shape": shape,
            "datatype": kind,
            "parameters": parameters | {"properties": {"binary_data_size": whole, "shared_memory_region": False}},
            "data": _many(element),
        },
        "parameters",
        "data",
    )
    return {
        "Server": _object({"name": TEXT, "version": TEXT, "extensions": _many(TEXT)}),
        "Live": _object({"live": BOOLEAN}),
        "Ready": _object({"ready": BOOLEAN, "live": BOOLEAN}),
        "ModelReady": _object({"name": TEXT, "ready": BOOLEAN}),
        "Model": _object(
            {
                "name": TEXT,
                "versions": _many(TEXT),
                "platform": TEXT,
                "inputs": _many(_object(tensor)),
                "outputs": _many(_object(tensor | {"parameters": parameters}, "parameters")),
            }
        ),
        "InferRequest": _object(
            {
                "id": TEXT,
                "model_name": {"enum": [about.name]},
                "parameters": parameters | {"properties": {"binary_data_output": BOOLEAN}},
                "inputs": _many(taken, 1),
                "outputs": _many(named),
            },
            *("id", "model_name", "parameters", "outputs"),
        )
        | {"examples": [{"id": "1", "inputs": sent}]},
        "InferResponse": _object({"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": _many(answered)}, "id"),
    }


def _operation(
    summary: str,
    found: Schema | str,
    *,
    takes: dict[str, Schema] | None = None,
    parameters: tuple[Schema, ...] = (),
    also: dict[str, Schema] | None = None,
) -> dict[str, Any]:
    """One page: ``found`` is what a 200 holds (a schema, or a media type of text), ``also`` more forms of it."""
    forms = {found: {"schema": TEXT}} if isinstance(found, str) else {"application/json": {"schema": found}}
    responses: dict[str, Any] = {"200": {"description": "done", "content": forms | (also or {})}}
    for status, why in _REFUSALS.items():
        responses[status] = {"description": why, "content": {"application/json": {"schema": _ref("Error")}}}
    responses["default"] = {"description": "it was not done", "content": {"application/json": {"schema": _ref("Error")}}}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": one} for kind, one in takes.items()}}
    return operation


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _own(feeds: Sequence[Feed]) -> list[tuple[str, str, dict[str, Any]]]:
    """The pages in the service's own form."""
    answers: Schema = {"oneOf": [_ref("Answer"), _ref("Answers")]}
    outcomes: Schema = {"oneOf": [_ref("Outcome"), _ref("Outcomes")]}
    pages: list[tuple[str, str, str, Schema | str, Schema | None]] = [
        ("POST", "/v1/predict", "answers one row or several, by the names of their columns", answers, _ref("Ask")),
        ("POST", "/v1/outcomes", "what became known of predictions, by id or key", _ref("Counts"), outcomes),
        ("GET", "/v1/reviews", "predictions that wait for a person", _ref("Waiting"), None),
        ("POST", "/v1/reviews", "what a person decided", _ref("Counts"), _ref("Review")),
        ("GET", "/v1/status", "what answers, and how it does", _ref("Status"), None),
        ("GET", "/metrics", "counters and times for Prometheus", "text/plain", None),
        ("GET", "/openapi.json", "this document", {"type": "object"}, None),
    ]
    for feed in feeds:
        body: Schema = {"oneOf": [_ref(f"Event.{feed.name}"), _ref(f"Events.{feed.name}")]}
        about = f"events of {feed.name}; the same event twice counts once"
        pages.append(("POST", f"/v1/events/{feed.name}", about, _ref("Counts"), body))
    return [
        (method, pattern, _operation(about, found, takes=None if takes is None else {"application/json": takes}))
        for method, pattern, about, found, takes in pages
    ]


def _open_inference(about: About) -> list[tuple[str, str, dict[str, Any]]]:
    name = _in_path("name", {"type": "string", "enum": [about.name]})
    version = _in_path("version", {"type": "string", "enum": [str(about.number)]})
    finds = {
        oip.server: "Server",
        oip.live: "Live",
        oip.ready: "Ready",
        oip.model: "Model",
        oip.model_ready: "ModelReady",
        oip.infer: "InferResponse",
    }
    binary: Schema = {"type": "string", "format": "binary", "description": f"JSON of {oip.LENGTH} bytes, then the tensors' bytes"}
    found = []
    for route in oip.ROUTES:
        posts = route.method == "POST"
        operation = _operation(
            route.about,
            _ref(finds[route.handler]),
            takes={"application/json": _ref("InferRequest"), "application/octet-stream": binary} if posts else None,
            parameters=tuple(one for one in (name, version) if f"{{{one['name']}}}" in route.pattern),
            also={"application/octet-stream": {"schema": binary}} if posts else None,
        )
        if route.handler in (oip.ready, oip.model_ready):
            operation["responses"]["503"] = {
                "description": "not yet",
                "content": {"application/json": {"schema": {"anyOf": [_ref(finds[route.handler]), _ref("Error")]}}},
            }
        found.append((route.method, route.pattern, operation))
    return found


def _mlflow() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (
            route.method,
            route.pattern,
            _operation(
                route.about,
                _ref("Predictions") if route.method == "POST" else "text/plain",
                takes={"application/json": _ref("Invocation"), "text/csv": TEXT} if route.method == "POST" else None,
            ),
        )
        for route in invocations.ROUTES
    ]
