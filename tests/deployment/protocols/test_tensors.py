"""Tensors there and back, and every way in which one can be wrong."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.deployment.service import oip
from noria.deployment.service.contract import About, Limits, Reply
from noria.deployment.service.rows import FieldError
from noria.deployment.service.tensors import DTYPES, Tensor, act_datatype, as_bytes, datatype, outputs_of, read

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


def elements(kind: str) -> st.SearchStrategy[Any]:
    if kind == "BYTES":
        return TEXTS
    if kind == "BOOL":
        return st.booleans()
    if kind.startswith("FP"):
        return st.floats(width=int(kind[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    info = np.iinfo(DTYPES[kind])
    return st.integers(int(info.min), int(info.max))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    kind = draw(st.sampled_from([*DTYPES, "BYTES"]))
    shape = draw(st.tuples(st.integers(1, 8)) | st.tuples(st.integers(1, 5), st.integers(1, 4)))
    count = int(np.prod(shape))
    return Tensor(draw(TEXTS), kind, shape, draw(st.lists(elements(kind), min_size=count, max_size=count)))


def as_input(tensor: Tensor, **more: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} | more


def read_one(given: dict[str, Any], binary: bytes = b"", limits: Limits | None = None) -> Tensor:
    (found,) = read([given], binary, limits=limits or Limits(), widest=4)
    return found


@given(tensors())
def test_random_tensors_round_trip(tensor: Tensor) -> None:
    """As bytes, as a flat list and as nested lists; through real JSON."""
    data = as_bytes(tensor)
    want = tensor._replace(place="inputs[0]")
    assert read_one(as_input(tensor, parameters={"binary_data_size": len(data)}), data) == want
    assert read_one(json.loads(json.dumps(as_input(tensor, data=tensor.values)))) == want
    if len(tensor.shape) == 2:
        width = tensor.shape[1]
        nested = [tensor.values[begin : begin + width] for begin in range(0, len(tensor.values), width)]
        assert read_one(as_input(tensor, data=nested)) == want


@given(tensors().filter(lambda tensor: tensor.datatype != "BYTES"))
def test_bytes_are_what_numpy_writes(tensor: Tensor) -> None:
    names = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    kind = names.get(tensor.datatype, tensor.datatype.lower())
    assert as_bytes(tensor) == np.array(tensor.values, dtype=kind).reshape(tensor.shape).tobytes()


@given(tensors(), st.data())
def test_cut_or_stretched_bytes_are_refused(tensor: Tensor, data: st.DataObject) -> None:
    whole = as_bytes(tensor)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for body, said in ((cut, len(cut)), (cut, len(whole)), (whole + b"\0", len(whole)), (whole + b"\0", len(whole) + 1)):
        with pytest.raises(FieldError):
            read_one(as_input(tensor, parameters={"binary_data_size": said}), body)


@given(st.binary(max_size=64), st.sampled_from([*DTYPES, "BYTES"]), st.lists(st.integers(-1, 5), max_size=3), st.integers(-1, 70))
def test_any_bytes_are_a_tensor_or_refused(body: bytes, kind: str, shape: list[int], size: int) -> None:
    with suppress(FieldError):
        found = read_one({"name": "x", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": size}}, body)
        assert as_bytes(found) == body


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def almost(draw: st.DrawFn) -> Any:
    """A request that is right but for what was put in a few places."""
    request: Any = {
        "id": "1",
        "parameters": {"binary_data_output": False},
        "inputs": [
            as_input(Tensor("b", "INT64", (2,), []), data=[1, 2]),
            as_input(Tensor("a", "FP64", (2, 1), []), data=[[1], [2]]),
        ],
        "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
    }
    for _ in range(draw(st.integers(1, 3))):
        at = request
        while True:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            at[key] = draw(ANY)
            break
    return request


SMALL = About("m", 1, "r", "binary", {"a": pl.Float64(), "b": pl.Int64()}, frozenset({"a", "b"}))


def ask(harness: Any, body: bytes, about: About = SMALL, name: str = "", **headers: str) -> Reply:
    said = {key.replace("_", "-"): value for key, value in headers.items()}
    call = harness.call(body, headers=said, name=name or about.name)
    reply: Reply = asyncio.run(oip.infer(harness.Fake(about), call))
    return reply


@given(almost())
def test_no_request_breaks_it(harness: Any, request: Any) -> None:
    reply = ask(harness, json.dumps(request).encode())
    assert reply.status in (200, 422)
    if reply.status == 422:
        assert set(json.loads(reply.body)) == {"error", "kind", "hint"}


@given(st.binary(max_size=300), st.sampled_from(["", "0", "5", "300", "-1", "1" * 30, "٣", "x"]))
def test_no_body_breaks_it(harness: Any, body: bytes, length: str) -> None:
    for sent in (body, b'{"inputs":[]}' + body):
        assert ask(harness, sent, inference_header_content_length=length).status == 422


GOOD = {"name": "a", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]}
OTHER = {"name": "b", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"shape": [10**18]}, "inputs[0].shape: there are more than 10000 rows"),
        ({"shape": [2, 10**18]}, "inputs[0].shape: there are more than 2 columns"),
        ({"shape": [0]}, "inputs[0].shape"),
        ({"shape": []}, "inputs[0].shape"),
        ({"shape": [True]}, "inputs[0].shape[0]"),
        ({"shape": [2.0]}, "inputs[0].shape[0]"),
        ({"shape": [1, 1, 1]}, "inputs[0].shape"),
        ({"shape": [3]}, "inputs[0].data: it does not have 3 elements"),
        ({"shape": [2, 1], "data": [[1, 2], [3]]}, "inputs[0].data[0]"),
        ({"data": [1, "secret"]}, "inputs[0].data[1]: it is not a number"),
        ({"data": [1, None]}, "inputs[0].data[1]"),
        ({"data": [True, 1]}, "inputs[0].data[0]"),
        ({"data": [1, 10**400]}, "inputs[0].data: a number is too large"),
        ({"data": [0, 1e39], "datatype": "FP32"}, "inputs[0].data[1]: it does not fit FP32"),
        ({"data": [0, 300], "datatype": "UINT8"}, "inputs[0].data[1]: it does not fit UINT8"),
        ({"data": [0, 1.0], "datatype": "INT8"}, "inputs[0].data[1]"),
        ({"data": ["x", "y"], "datatype": "BYTES"}, "inputs[0].datatype: the column cannot be read from it"),
        ({"datatype": "BF16"}, "inputs[0].datatype"),
        ({"name": "secret"}, "inputs[0].name: there is no such column"),
        ({"name": "b"}, "inputs[1].name: the column comes twice"),
        ({"shape": [1], "data": [1]}, "inputs[1].shape"),
        ({"more": 1}, "inputs[0].more: there is no such field"),
        ({"sec ret": 1}, "inputs[0].…: there is no such field"),
        ({"parameters": {"binary_data_size": 16}}, "inputs[0]: it has its data in two ways"),
        ({"parameters": {"shared_memory_region": "x"}}, "inputs[0].parameters: shared memory"),
        ({"name": "b", "data": [1.5, 2]}, "inputs[0].data[0]: it is not a whole number"),
    ],
)
def test_a_wrong_input_is_named(harness: Any, change: dict[str, Any], place: str) -> None:
    reply = ask(harness, msgspec.json.encode({"inputs": [GOOD | change, OTHER]}))
    assert reply.status == 422
    assert json.loads(reply.body)["error"].startswith(place)
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"inputs": []}, "inputs: it is empty"),
        ({"inputs": {}}, "inputs: it is not a list"),
        ({"inputs": [GOOD]}, "rows[0].b"),
        ({"id": 7}, "id"),
        ({"model_name": "another"}, "model_name"),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output"),
        ({"outputs": [{"name": "secret"}]}, "outputs[0].name: there is no such output"),
        ({"outputs": [{"name": "act"}, {"name": "act"}]}, "outputs[1].name: the output comes twice"),
        ({"outputs": [{"name": "act", "parameters": {"classification": 3}}]}, "outputs[0].parameters.classification"),
        ({"outputs": [{"name": "act", "parameters": {"binary_data": "yes"}}]}, "outputs[0].parameters.binary_data"),
        ({"outputs": ["act"]}, "outputs[0]"),
        ({"secret_field": 1}, "secret_field: there is no such field"),
    ],
)
def test_a_wrong_request_is_named(harness: Any, change: dict[str, Any], place: str) -> None:
    reply = ask(harness, json.dumps({"inputs": [GOOD, OTHER]} | change).encode())
    assert (reply.status, json.loads(reply.body)["error"].startswith(place)) == (422, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64"])
def test_bytes_of_no_number_are_refused(value: float, kind: str) -> None:
    data = np.array([1, value], dtype=DTYPES[kind]).tobytes()
    with pytest.raises(FieldError, match=r"inputs\[0\].data\[1\]: it is not a finite number"):
        read_one({"name": "a", "datatype": kind, "shape": [2], "parameters": {"binary_data_size": len(data)}}, data)


@pytest.mark.parametrize(
    ("kind", "data", "place"),
    [
        ("BOOL", b"\x01\x02", r"data\[1\]: it is not a boolean"),
        ("BYTES", struct.pack("<I", 2**32 - 1) + b"xxxx", r"data\[0\]: its bytes end too early"),
        ("BYTES", struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 0), r"data\[0\]: it is not UTF-8"),
        ("BYTES", b"\0" * 4, "cannot hold 2 texts"),
        ("BYTES", b"\0" * 12, "are not 2 texts"),
    ],
)
def test_wrong_bytes_are_named(kind: str, data: bytes, place: str) -> None:
    with pytest.raises(FieldError, match=place):
        read_one({"name": "a", "datatype": kind, "shape": [2], "parameters": {"binary_data_size": len(data)}}, data)


def test_json_and_binary_mean_the_same_number() -> None:
    """0.1 in 32 bits is another number than in 64, however it was sent."""
    data = np.array([0.1], dtype="<f4").tobytes()
    binary = read_one({"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}, data)
    assert read_one({"name": "a", "datatype": "FP32", "shape": [1], "data": [0.1]}) == binary
    assert binary.values != [0.1]


def test_a_matrix_is_the_needed_columns_in_order(harness: Any) -> None:
    sent = {"name": "whatever", "datatype": "FP64", "shape": [2, 3], "data": [[0.5, 2, 1], [0.25, 3, 7]]}
    fake = harness.Fake(harness.NUMBERS)
    reply = asyncio.run(oip.infer(fake, harness.call(json.dumps({"inputs": [sent]}).encode(), name="demand")))
    assert reply.status == 200
    assert fake.asked == [{"a": 0.5, "b": 2, "c": 1.0}, {"a": 0.25, "b": 3, "c": 7.0}]
    assert isinstance(fake.asked[0]["b"], int)
    for change, place in (
        ({"shape": [3, 2], "data": [1] * 6}, "inputs[0].shape: it does not have 3 columns"),
        ({"data": [0.5, 2.5, 1, 0, 0, 0]}, "inputs[0].data[1]: it is not a whole number"),
        ({"data": [0.5, 2, 1, 0, 1e300, 0]}, "inputs[0].data[4]"),
        ({"datatype": "INT64", "data": [0] * 6}, "inputs[0].name"),
    ):
        reply = ask(harness, json.dumps({"inputs": [sent | change]}).encode(), harness.NUMBERS)
        assert (reply.status, json.loads(reply.body)["error"][: len(place)]) == (422, place)
    reply = ask(harness, json.dumps({"inputs": [sent]}).encode(), harness.MIXED)
    assert "not every column of a row is a number" in json.loads(reply.body)["error"]


def test_outputs_say_what_is_not_there(harness: Any) -> None:
    """A row that waits for a person has no act; without a release there is no score either."""
    answer = harness.Fake(SMALL).one({"a": 1.0}, 0)
    nothing = msgspec.structs.replace(answer, score=None, act=None)
    found = outputs_of([answer, nothing], SMALL)
    assert found["decided"].values == [True, False]
    assert (found["act"].datatype, found["act"].values) == ("BOOL", [True, False])
    assert np.isnan(found["score"].values[1])
    assert np.isnan(np.frombuffer(as_bytes(found["score"]))[1])
    amounts = outputs_of([msgspec.structs.replace(nothing, act=2.5), nothing], msgspec.structs.replace(SMALL, acts=()))["act"]
    assert (amounts.datatype, amounts.values[0], np.isnan(amounts.values[1])) == ("FP64", 2.5, True)
    classes = outputs_of([msgspec.structs.replace(answer, scores=None)], harness.NUMBERS)["score"]
    assert (classes.shape, np.isnan(classes.values).all()) == ((1, 3), True)


@pytest.mark.parametrize(
    ("acts", "kind"),
    [((False, True), "BOOL"), ((0, 5), "INT64"), ((0, 0.5), "FP64"), ((), "FP64"), (("a", 1), "BYTES"), ((0, 2**70), "FP64")],
)
def test_acts_have_the_datatype_they_were_declared_in(acts: tuple[Any, ...], kind: str) -> None:
    assert act_datatype(acts) == kind


@pytest.mark.parametrize(
    ("kind", "want"),
    [(pl.Int8(), "INT8"), (pl.UInt64(), "UINT64"), (pl.Float32(), "FP32"), (pl.Date(), "BYTES"), (pl.Decimal(10, 2), "FP64")],
)
def test_columns_have_a_datatype(kind: pl.DataType, want: str) -> None:
    assert datatype(kind) == want


def test_models_and_versions_that_are_not_there(harness: Any) -> None:
    body = json.dumps({"inputs": [GOOD, OTHER]}).encode()
    fake = harness.Fake(SMALL)
    for params in ({"name": "x"}, {"name": "m", "version": "2"}, {"name": "m", "version": "01"}):
        for handler in (oip.infer, oip.model, oip.model_ready):
            reply = asyncio.run(handler(fake, harness.call(body, **params)))
            assert (reply.status, dict(reply.headers)["content-type"]) == (404, "application/json")
    assert asyncio.run(oip.infer(fake, harness.call(body, name="m", version="1"))).status == 200


def test_what_cannot_answer_says_so(harness: Any) -> None:
    fake = harness.Fake(SMALL)
    fake.able = False
    asked = harness.call(json.dumps({"inputs": [GOOD, OTHER]}).encode(), name="m")
    for handler, body in ((oip.ready, {"ready": False, "live": True}), (oip.model_ready, {"name": "m", "ready": False})):
        reply = asyncio.run(handler(fake, asked))
        assert (reply.status, json.loads(reply.body)) == (503, body)
    assert asyncio.run(oip.infer(fake, asked)).status == 503
    assert json.loads(asyncio.run(oip.live(fake, asked)).body) == {"live": True}
