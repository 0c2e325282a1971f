"""The Open Inference Protocol, version 2, over REST: what the clients of Triton and KServe speak.

Health, metadata and inference as the protocol has them, with the binary tensor data extension and compressed bodies. A row is asked by
one input for each column, of shape ``[n]`` or ``[n, 1]``; when every needed column is a number, one FP32 or FP64 input ``[n, k]`` with
the needed columns in the order of the metadata does too. What is answered is in the outputs ``score``, ``act`` (``decided`` says whether
there is one), ``id``, ``release``, ``variant``, ``fallback`` and ``review``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

import noria
from noria.core import NotFound
from noria.deployment.service.contract import JSON, About, Answering, Call, Reply, Route
from noria.deployment.service.rows import FieldError
from noria.deployment.service.tensors import Tensor, as_bytes, datatype, output_types, outputs_of, read, rows_of
from noria.deployment.service.wire import Unsupported, fields, loads, media_type, packed, replied, settled, typed, unpacked

LENGTH = "inference-header-content-length"
EXTENSION = "binary_tensor_data"
BINARY = (("content-type", "application/octet-stream"), ("cache-control", "no-store"))
_TAKEN = ("", "application/json", "application/octet-stream")
ELSEWHERE = ("classification", "shared_memory_region")
"""Parameters of an output that other servers know, and that would change what comes back."""


@settled
async def server(_service: Answering, _call: Call) -> Reply:
    """What this server is."""
    return replied({"name": "noria", "version": noria.__version__, "extensions": [EXTENSION]})


@settled
async def live(_service: Answering, _call: Call) -> Reply:
    """That the process answers at all."""
    return replied({"live": True})


@settled
async def ready(service: Answering, _call: Call) -> Reply:
    """Whether predictions can be answered: 200, or 503."""
    able = service.ready()
    return replied({"ready": able, "live": True}, 200 if able else 503)


@settled
async def model_ready(service: Answering, call: Call) -> Reply:
    """Whether this model can answer: 200, or 503."""
    about = _model(service, call)
    able = service.ready()
    return replied({"name": about.name, "ready": able}, 200 if able else 503)


@settled
async def model(service: Answering, call: Call) -> Reply:
    """The inputs and outputs of a model."""
    return packed(replied(metadata(_model(service, call))), call)


@settled
async def infer(service: Answering, call: Call) -> Reply:
    """Answers rows: tensors in, tensors out."""
    about = _model(service, call)
    if media_type(call) not in _TAKEN:
        raise Unsupported("content-type: tensors are not sent so", hint="send application/json or application/octet-stream")
    header, binary = _split(unpacked(call), call)
    request = fields(
        loads(header, "the JSON of the body"), "", ("id", "model_name", "parameters", "inputs", "outputs"), ("inputs",)
    )
    if request.get("model_name", about.name) != about.name:
        raise FieldError("model_name: it is not the model of the address", hint="leave it out")
    known = typed(request["id"], str, "id", "text") if "id" in request else None
    wanted = _wanted(request, about)
    tensors = read(request["inputs"], binary, limits=call.limits, widest=max(len(about.columns), 1))
    rows = rows_of(tensors, about)
    about, answers = await service.answered(rows)
    return packed(_answered(outputs_of(answers, about), wanted, about, known), call)


def metadata(about: About) -> dict[str, Any]:
    """What the protocol says of a model; a multiclass score names its classes."""
    outputs: list[dict[str, Any]] = [
        {"name": name, "datatype": kind, "shape": [-1, width]} for name, (kind, width) in output_types(about).items()
    ]
    if about.classes:
        outputs[0]["parameters"] = {"classes": list(about.classes)}
    return {
        "name": about.name,
        "versions": [str(about.number)],
        "platform": "noria",
        "inputs": [{"name": name, "datatype": datatype(kind), "shape": [-1, 1]} for name, kind in about.columns.items()],
        "outputs": outputs,
    }


def _model(service: Answering, call: Call) -> About:
    """What the address names; raises ``NotFound`` for another model or version."""
    about = service.about()
    if call.params["name"] != about.name:
        raise NotFound("there is no such model", hint=f"this service answers for {about.name}")
    if call.params.get("version", str(about.number)) != str(about.number):
        raise NotFound("there is no such version", hint=f"version {about.number} answers now")
    return about


def _split(body: bytes, call: Call) -> tuple[bytes, bytes]:
    """The JSON and the bytes after it. Without the header, all of it is JSON."""
    said = call.headers.get(LENGTH)
    if said is None:
        return body, b""
    if not (said.isascii() and said.isdecimal()) or len(said) > 18 or int(said) > len(body):
        raise FieldError(f"{LENGTH}: it is not the length of a part of the body", hint="send the bytes of the JSON")
    return body[: int(said)], body[int(said) :]


def _wanted(request: Mapping[str, Any], about: About) -> dict[str, bool]:
    """The outputs asked for, each with whether as bytes; all of them when the request names none."""
    parameters = typed(request.get("parameters", {}), dict, "parameters", "an object")
    binary = typed(parameters.get("binary_data_output", False), bool, "parameters.binary_data_output", "a boolean")
    names = output_types(about)
    asked = typed(request.get("outputs", []), list, "outputs", "a list")
    if not asked:
        return dict.fromkeys(names, binary)
    found: dict[str, bool] = {}
    for index, given in enumerate(asked):
        place = f"outputs[{index}]"
        one = fields(given, place, ("name", "parameters"), ("name",))
        name = typed(one["name"], str, f"{place}.name", "text")
        if name not in names:
            raise FieldError(f"{place}.name: there is no such output", hint=f"outputs are {', '.join(names)}")
        if name in found:
            raise FieldError(f"{place}.name: the output comes twice", hint="ask for each output once")
        own = typed(one.get("parameters", {}), dict, f"{place}.parameters", "an object")
        for foreign in ELSEWHERE:
            if foreign in own:
                raise FieldError(f"{place}.parameters.{foreign}: it is not supported", hint="leave it out")
        found[name] = typed(own.get("binary_data", binary), bool, f"{place}.parameters.binary_data", "a boolean")
    return found


def _answered(outputs: Mapping[str, Tensor], wanted: Mapping[str, bool], about: About, known: str | None) -> Reply:
    said: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in wanted.items():
        tensor = outputs[name]
        one: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary:
            parts.append(as_bytes(tensor))
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = tensor.values
        said.append(one)
    head: dict[str, Any] = {"model_name": about.name, "model_version": str(about.number)}
    if known is not None:
        head["id"] = known
    text = msgspec.json.encode(head | {"outputs": said})
    if not parts:
        return Reply(200, text, JSON)
    return Reply(200, b"".join((text, *parts)), (*BINARY, (LENGTH, str(len(text)))))


_ONE = "/v2/models/{name}"
_VERSION = _ONE + "/versions/{version}"
ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2", server, "what this server is"),
    Route("GET", "/v2/health/live", live, "that the process answers"),
    Route("GET", "/v2/health/ready", ready, "whether predictions can be answered"),
    Route("GET", _ONE, model, "inputs and outputs of the model"),
    Route("GET", _VERSION, model, "inputs and outputs of the model, by version"),
    Route("GET", f"{_ONE}/ready", model_ready, "whether the model can answer"),
    Route("GET", f"{_VERSION}/ready", model_ready, "whether this version of the model can answer"),
    Route("POST", f"{_ONE}/infer", infer, "predictions: tensors in, tensors out"),
    Route("POST", f"{_VERSION}/infer", infer, "predictions by this version: tensors in, tensors out"),
)
