"""MLflow's scoring protocol: ``POST /invocations``, and the pages by which its tools see that a server is up.

The body is JSON with one of ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs``, or CSV with a header. Rows without
names are the needed columns of a row in their order. The answer is ``{"predictions": […]}`` with one element for each row: the score
(for several classes the list of scores), or with ``"params": {"full": true}`` the whole answer as ``/v1/predict`` gives it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

import noria
from noria.core import Unavailable
from noria.deployment.service.contract import About, Answer, Answering, Call, Limits, Reply, Route
from noria.deployment.service.rows import FieldError
from noria.deployment.service.tensors import EXACT
from noria.deployment.service.wire import (
    TEXT,
    Unsupported,
    fields,
    loads,
    media_type,
    packed,
    replied,
    settled,
    typed,
    unpacked,
)

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BOOLEANS = {"true": True, "false": False}


@settled
async def invocations(service: Answering, call: Call) -> Reply:
    """Answers rows in one of the forms that MLflow's clients send."""
    kind = media_type(call)
    if kind not in ("", "application/json", "text/csv"):
        raise Unsupported("content-type: rows are not sent so", hint="send application/json or text/csv")
    about = service.about()
    body = unpacked(call)
    full = False
    if kind == "text/csv":
        rows = _of_csv(body, about, call.limits)
    else:
        said = fields(loads(body), "", (*FORMS, "params"))
        forms = [name for name in FORMS if name in said]
        if len(forms) != 1:
            raise FieldError("the body does not have its rows in one form", hint=f"send one of {', '.join(FORMS)}")
        full = _full(said)
        rows = _of_form(forms[0], said[forms[0]], about, call.limits)
    answers = await service.answer(rows)
    return packed(replied({"predictions": answers if full else [_score(answer) for answer in answers]}), call)


@settled
async def ping(service: Answering, _call: Call) -> Reply:
    """Whether predictions can be answered: 200 with an empty line, or 503."""
    if not service.ready():
        raise Unavailable("no prediction can be answered yet", hint="see GET /v2/health/ready")
    return Reply(200, b"\n", TEXT)


@settled
async def version(_service: Answering, _call: Call) -> Reply:
    """The version of this server."""
    return Reply(200, noria.__version__.encode(), TEXT)


def _full(said: Mapping[str, Any]) -> bool:
    params = fields(said.get("params", {}), "params", ("full",))
    found: bool = typed(params.get("full", False), bool, "params.full", "a boolean")
    return found


def _score(answer: Answer) -> Any:
    return answer.score if answer.scores is None else answer.scores


def _of_form(form: str, given: Any, about: About, limits: Limits) -> list[dict[str, Any]]:
    if form == "dataframe_split":
        return _of_split(given, form, limits)
    if form == "inputs" and isinstance(given, dict):
        return _of_columns(given, form, limits)
    rows = _some(given, form, limits)
    if form == "dataframe_records" or isinstance(rows[0], dict):
        return [typed(row, dict, f"{form}[{index}]", "an object") for index, row in enumerate(rows)]
    found = _unnamed(rows, form, [name for name in about.columns if name in about.needed])
    whole = [name for name in found[0] if about.columns[name].is_integer()]
    for row in found:  # an array has one type: a whole number beside fractions comes as 1.0
        row.update({name: int(row[name]) for name in whole if _is_whole(row[name])})
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= EXACT


def _some(given: Any, place: str, limits: Limits) -> list[Any]:
    """A list of at least one row, and not more than the limit."""
    found: list[Any] = typed(given, list, place, "a list")
    if not found:
        raise FieldError(f"{place}: it is empty", hint="send at least one row")
    if len(found) > limits.rows:
        raise FieldError(f"{place}: there are more than {limits.rows} rows", hint="send fewer rows at once")
    return found


def _of_split(given: Any, form: str, limits: Limits) -> list[dict[str, Any]]:
    """The form that ``DataFrame.to_dict("split")`` writes; its index is not looked at."""
    frame = fields(given, form, ("columns", "data", "index"), ("columns", "data"))
    names = [
        typed(name, str, f"{form}.columns[{index}]", "text")
        for index, name in enumerate(typed(frame["columns"], list, f"{form}.columns", "a list"))
    ]
    if len(set(names)) != len(names):
        raise FieldError(f"{form}.columns: a column comes twice", hint="send each column once")
    typed(frame.get("index", []), list, f"{form}.index", "a list")
    return _unnamed(_some(frame["data"], f"{form}.data", limits), f"{form}.data", names)


def _unnamed(rows: list[Any], place: str, names: list[str]) -> list[dict[str, Any]]:
    found = []
    for index, row in enumerate(rows):
        if len(typed(row, list, f"{place}[{index}]", "a list")) != len(names):
            raise FieldError(f"{place}[{index}]: it does not have {len(names)} values", hint=f"they are {', '.join(names)}")
        found.append(dict(zip(names, row, strict=True)))
    return found


def _of_columns(given: dict[str, Any], form: str, limits: Limits) -> list[dict[str, Any]]:
    """``{"column": [value, …], …}``."""
    if not given:
        raise FieldError(f"{form}: it is empty", hint="send a list for each column")
    columns = [_some(values, f"{form}.{_shown(name)}", limits) for name, values in given.items()]
    for name, values in zip(given, columns, strict=True):
        if len(values) != len(columns[0]):
            raise FieldError(
                f"{form}.{_shown(name)}: it does not have {len(columns[0])} values", hint="every column has all rows"
            )
    return [dict(zip(given, values, strict=True)) for values in zip(*columns, strict=True)]


def _shown(name: str) -> str:
    return name if re.fullmatch(r"\w{1,63}", name) else "…"


def _of_csv(body: bytes, about: About, limits: Limits) -> list[dict[str, Any]]:
    """Rows of a CSV with a header, each text read as its column's type; an empty field is one that is not there."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (ValueError, csv.Error):
        raise FieldError("the body is not CSV", hint="send UTF-8 with a header, and quotes around text with commas") from None
    lines = [line for line in lines if line]
    if not lines:
        raise FieldError("the body is empty", hint="send a header and at least one row")
    names = lines[0]
    if len(set(names)) != len(names):
        raise FieldError("the header has a column twice", hint="send each column once")
    found = []
    for index, line in enumerate(_some(lines[1:], "rows", limits)):
        if len(line) != len(names):
            raise FieldError(f"rows[{index}]: it does not have {len(names)} fields", hint="every row is as long as the header")
        found.append({name: _read(text, about.columns.get(name)) for name, text in zip(names, line, strict=True) if text})
    return found


def _read(text: str, kind: pl.DataType | None) -> Any:
    """A field as a value, or as the text that it is: what does not fit is then named by whoever checks the row."""
    if kind == pl.Boolean:
        return _BOOLEANS.get(text.lower(), text)
    if kind is not None and kind.is_integer():
        return int(text) if _WHOLE.fullmatch(text) else text
    if kind is not None and kind.is_numeric():
        return float(text) if _NUMBER.fullmatch(text) else text
    return text


ROUTES: tuple[Route, ...] = (
    Route("POST", "/invocations", invocations, "predictions, in the forms of MLflow's scoring protocol"),
    Route("GET", "/ping", ping, "whether predictions can be answered"),
    Route("GET", "/health", ping, "whether predictions can be answered"),
    Route("GET", "/version", version, "the version of this server"),
)
