"""Tensors of the Open Inference Protocol: read from JSON or from bytes, checked before anything is made of them, and written.

A tensor has a name, a datatype and a shape; its elements follow in row-major order, as JSON (flat or nested) or as little-endian
bytes after the JSON (the binary tensor data extension), where a text is its length in four bytes and then its UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from noria.core import NoriaError
from noria.deployment.service.contract import About, Answer, Limits
from noria.deployment.service.rows import FieldError
from noria.deployment.service.wire import fields, typed

DTYPES: dict[str, str] = {
    "BOOL": "|u1",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""The numpy type of each datatype of a fixed width; the other one is BYTES."""

_WIDTHS = {name: np.dtype(kind).itemsize for name, kind in DTYPES.items()}
_REALS = frozenset({"FP16", "FP32", "FP64"})
_WHOLES = frozenset(name for name in DTYPES if "INT" in name)
_TAKEN: dict[str, tuple[frozenset[type], str]] = {
    "BYTES": (frozenset({str}), "text"),
    "BOOL": (frozenset({bool}), "a boolean"),
    **dict.fromkeys(_WHOLES, (frozenset({int}), "a whole number")),
    **dict.fromkeys(_REALS, (frozenset({int, float}), "a number")),
}
"""What JSON gives for an element of each datatype, and how it is called."""
EXACT = 2**53
"""Up to here a whole number in an FP64 is the one that was meant."""
_KINDS: dict[Any, str] = {
    pl.Boolean: "BOOL",
    pl.UInt8: "UINT8",
    pl.UInt16: "UINT16",
    pl.UInt32: "UINT32",
    pl.UInt64: "UINT64",
    pl.Int8: "INT8",
    pl.Int16: "INT16",
    pl.Int32: "INT32",
    pl.Int64: "INT64",
    pl.Float32: "FP32",
    pl.Float64: "FP64",
}
_SHARED_MEMORY = "shared_memory_region"


class Tensor(NamedTuple):
    """One tensor: its elements in row-major order as plain values. ``place`` is where it stands in the request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]
    place: str = ""


def datatype(kind: pl.DataType) -> str:
    """The datatype that a column is best sent in; a time is sent as text.

    >>> datatype(pl.Int64()), datatype(pl.String()), datatype(pl.Datetime("us", "UTC"))
    ('INT64', 'BYTES', 'BYTES')
    """
    return _KINDS.get(kind.base_type(), "FP64" if kind.is_numeric() else "BYTES")


def read(inputs: Any, binary: bytes, *, limits: Limits, widest: int) -> list[Tensor]:
    """The input tensors of a request, whose binary parts are ``binary``. ``widest`` is the most columns that a tensor may have.

    Shapes, counts and sizes are checked against each other and the limits first; nothing is as large as a request only says it is.
    Raises ``FieldError`` that names the place.
    """
    found: list[Tensor] = []
    offset = 0
    for index, given in enumerate(typed(inputs, list, "inputs", "a list")):
        place = f"inputs[{index}]"
        one = fields(given, place, ("name", "shape", "datatype", "parameters", "data"), ("name", "shape", "datatype"))
        name = typed(one["name"], str, f"{place}.name", "text")
        kind = typed(one["datatype"], str, f"{place}.datatype", "text")
        if kind not in DTYPES and kind != "BYTES":
            raise FieldError(f"{place}.datatype: it is not known here", hint=f"known are {', '.join(DTYPES)}, BYTES")
        shape = _shape(one["shape"], f"{place}.shape", limits, widest)
        parameters = typed(one.get("parameters", {}), dict, f"{place}.parameters", "an object")
        if _SHARED_MEMORY in parameters:
            raise FieldError(f"{place}.parameters: shared memory is not supported", hint="send the data in the body")
        if "binary_data_size" in parameters:
            if "data" in one:
                raise FieldError(f"{place}: it has its data in two ways", hint="send data or binary_data_size")
            size = typed(parameters["binary_data_size"], int, f"{place}.parameters.binary_data_size", "a whole number")
            if not 0 <= size <= len(binary) - offset:
                raise FieldError(f"{place}: the body has fewer bytes than its binary_data_size", hint="send all of the body")
            values = _of_bytes(binary[offset : offset + size], kind, math.prod(shape), place)
            offset += size
        elif "data" in one:
            values = _of_json(one["data"], kind, shape, place)
        else:
            raise FieldError(f"{place}.data: it is missing", hint="send data, or binary_data_size and the bytes")
        found.append(Tensor(name, kind, shape, values, place))
    if offset != len(binary):
        raise FieldError("the body has more bytes than its tensors", hint="binary_data_size has to add up to what is sent")
    return found


def _shape(given: Any, place: str, limits: Limits, widest: int) -> tuple[int, ...]:
    sizes = tuple(typed(size, int, f"{place}[{axis}]", "a whole number") for axis, size in enumerate(_list(given, place)))
    if len(sizes) not in (1, 2) or sizes[0] < 1 or sizes[-1] < 1:
        raise FieldError(f"{place}: it is not [rows] or [rows, columns]", hint="a column of n rows has the shape [n] or [n, 1]")
    if sizes[0] > limits.rows:
        raise FieldError(f"{place}: there are more than {limits.rows} rows", hint="send fewer rows at once")
    if len(sizes) == 2 and sizes[1] > widest:
        raise FieldError(f"{place}: there are more than {widest} columns", hint="see the metadata of the model")
    return sizes


def _list(given: Any, place: str) -> list[Any]:
    found: list[Any] = typed(given, list, place, "a list")
    return found


def _of_bytes(data: bytes, kind: str, count: int, place: str) -> list[Any]:
    """``count`` elements of ``data``, which has to hold these and nothing else."""
    if kind == "BYTES":
        return _texts(data, count, place)
    width = _WIDTHS[kind]
    if len(data) != count * width:
        raise FieldError(f"{place}: its bytes are not {count} elements of {width}", hint="shape, datatype and size have to agree")
    array = np.frombuffer(data, dtype=DTYPES[kind])
    if kind in _REALS:
        _all_finite(array, place)
    elif kind == "BOOL":
        if (array > 1).any():
            raise FieldError(f"{place}.data[{int((array > 1).argmax())}]: it is not a boolean", hint="one byte each, 0 or 1")
        array = array.astype(bool)
    values: list[Any] = array.tolist()
    return values


def _texts(data: bytes, count: int, place: str) -> list[str]:
    if count * 4 > len(data):
        raise FieldError(
            f"{place}: its bytes cannot hold {count} texts", hint="each text is its length in 4 bytes, and then itself"
        )
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) < count:
        begin = at + 4
        at = begin + (struct.unpack_from("<I", data, at)[0] if begin <= len(data) else 0)
        if at > len(data):
            raise FieldError(
                f"{place}.data[{len(found)}]: its bytes end too early", hint="each text is its length, and then itself"
            )
        try:
            found.append(data[begin:at].decode())
        except UnicodeDecodeError:
            raise FieldError(f"{place}.data[{len(found)}]: it is not UTF-8", hint="send text as UTF-8") from None
    if len(found) != count or at != len(data):
        raise FieldError(f"{place}: its bytes are not {count} texts", hint="shape and size have to agree")
    return found


def _all_finite(array: np.ndarray[Any, Any], place: str) -> None:
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise FieldError(f"{place}.data[{int(wrong.argmax())}]: it is not a finite number", hint="leave out what is not known")


def _of_json(data: Any, kind: str, shape: tuple[int, ...], place: str) -> list[Any]:
    place = f"{place}.data"
    flat = _list(data, place)
    if len(shape) == 2 and flat and type(flat[0]) is list:
        flat = _flattened(flat, shape[1], place)
    if len(flat) != math.prod(shape):
        raise FieldError(f"{place}: it does not have {math.prod(shape)} elements", hint="shape and data have to agree")
    taken, said = _TAKEN[kind]
    if not taken.issuperset(map(type, flat)):
        index = next(index for index, value in enumerate(flat) if type(value) not in taken)
        raise FieldError(f"{place}[{index}]: it is not {said}", hint=f"{said} is needed")
    if kind in _WHOLES:
        return _wholes(flat, kind, place)
    return _reals(flat, kind, place) if kind in _REALS else flat


def _flattened(rows: list[Any], width: int, place: str) -> list[Any]:
    for index, row in enumerate(rows):
        if type(row) is not list or len(row) != width:
            raise FieldError(f"{place}[{index}]: it does not have {width} elements", hint="shape and data have to agree")
    return list(chain.from_iterable(rows))


def _wholes(flat: list[int], kind: str, place: str) -> list[int]:
    info = np.iinfo(DTYPES[kind])
    low, high = int(info.min), int(info.max)
    if not (low <= min(flat) and max(flat) <= high):
        index = next(index for index, value in enumerate(flat) if not low <= value <= high)
        raise FieldError(f"{place}[{index}]: it does not fit {kind}", hint=f"{kind} holds {low} to {high}")
    return flat


def _reals(flat: list[Any], kind: str, place: str) -> list[float]:
    """As numbers of the width that was declared: JSON and binary then mean the same."""
    try:
        values = list(map(float, flat))
    except OverflowError:
        raise FieldError(f"{place}: a number is too large to be one", hint="send numbers below 1.8e308") from None
    if kind == "FP64":
        return values  # JSON has no other numbers than finite ones
    with np.errstate(over="ignore"):
        array = np.array(values).astype(DTYPES[kind])
    if not np.isfinite(array).all():
        raise FieldError(f"{place}[{int((~np.isfinite(array)).argmax())}]: it does not fit {kind}", hint="send FP64")
    narrow: list[float] = array.tolist()
    return narrow


def rows_of(tensors: Sequence[Tensor], about: About) -> list[dict[str, Any]]:
    """The rows that input tensors say: one tensor a column, or one matrix of all needed columns in the order of the metadata."""
    if not tensors:
        raise FieldError("inputs: it is empty", hint="send one tensor for each column")
    needed = [name for name in about.columns if name in about.needed]
    first = tensors[0]
    if _is_matrix(tensors, about, needed):
        width = len(needed)
        columns = {
            name: _column(first._replace(values=first.values[index::width]), about.columns[name], step=(width, index))
            for index, name in enumerate(needed)
        }
    else:
        columns = {}
        for tensor in tensors:
            if tensor.name not in about.columns:
                raise FieldError(f"{tensor.place}.name: there is no such column", hint=f"columns are {', '.join(about.columns)}")
            if tensor.name in columns:
                raise FieldError(f"{tensor.place}.name: the column comes twice", hint="send each column once")
            if tensor.shape[0] != first.shape[0] or tensor.shape[1:] not in ((), (1,)):
                raise FieldError(
                    f"{tensor.place}.shape: it is not one column of {first.shape[0]} rows", hint="every input has the same rows"
                )
            columns[tensor.name] = _column(tensor, about.columns[tensor.name])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _is_matrix(tensors: Sequence[Tensor], about: About, needed: list[str]) -> bool:
    """Whether the one tensor is all needed columns side by side. Raises ``FieldError`` when it can only be meant so, and is not."""
    first = tensors[0]
    if len(tensors) > 1 or len(first.shape) != 2 or first.datatype not in ("FP32", "FP64"):
        return False
    if first.name in about.columns and first.shape[1] == 1:
        return False
    if not all(about.columns[name].is_numeric() for name in needed):
        raise FieldError(
            f"{first.place}: not every column of a row is a number, so they cannot be one tensor", hint="send one for each column"
        )
    if first.shape[1] != len(needed):
        raise FieldError(f"{first.place}.shape: it does not have {len(needed)} columns", hint=f"they are {', '.join(needed)}")
    return True


def _column(tensor: Tensor, kind: pl.DataType, step: tuple[int, int] = (1, 0)) -> list[Any]:
    """The values of a tensor as a column takes them; ``step`` is how the column lies in the tensor (stride, begin)."""
    given = tensor.datatype
    if kind == pl.Boolean:
        fits = given == "BOOL"
    elif kind.is_numeric():
        fits = given in _WHOLES or given in _REALS
    else:
        fits = given == "BYTES"
    if not fits:
        raise FieldError(f"{tensor.place}.datatype: the column cannot be read from it", hint=f"send {datatype(kind)}")
    if not (kind.is_integer() and given in _REALS):
        return tensor.values
    for index, value in enumerate(tensor.values):
        if not value.is_integer() or abs(value) > EXACT:
            at = index * step[0] + step[1]
            raise FieldError(f"{tensor.place}.data[{at}]: it is not a whole number", hint=f"send {datatype(kind)}")
    return [int(value) for value in tensor.values]


def act_datatype(acts: Sequence[Any]) -> str:
    """The datatype of an act, by what was declared: no declared acts are numbers.

    >>> act_datatype((False, True)), act_datatype((0, 10)), act_datatype(()), act_datatype(("call", "mail"))
    ('BOOL', 'INT64', 'FP64', 'BYTES')
    """
    kinds = {type(act) for act in acts}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int} and all(-(2**63) <= act < 2**63 for act in acts):
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"


def output_types(about: About) -> dict[str, tuple[str, int]]:
    """Every output with its datatype and its columns."""
    return {
        "score": ("FP64", max(len(about.classes), 1)),
        "act": (act_datatype(about.acts), 1),
        "decided": ("BOOL", 1),
        "id": ("BYTES", 1),
        "release": ("BYTES", 1),
        "variant": ("BYTES", 1),
        "fallback": ("BYTES", 1),
        "review": ("BOOL", 1),
    }


def outputs_of(answers: Sequence[Answer], about: About) -> dict[str, Tensor]:
    """The outputs that answers are, by name.

    A score that is not there is NaN (null in JSON). An act that is not there is NaN among numbers, and otherwise false, 0 or empty:
    ``decided`` says of each row whether there is one.
    """
    types = output_types(about)
    width = types["score"][1]
    scores: list[float] = []
    for answer in answers:
        given = answer.scores if about.classes else (answer.score,)
        one = [math.nan if score is None else score for score in given] if given else [math.nan] * width
        if len(one) != width:
            raise NoriaError("a score does not have one number for each class", hint="the release has other classes")
        scores += one
    columns: Mapping[str, list[Any]] = {
        "score": scores,
        "act": [_act(answer.act, types["act"][0]) for answer in answers],
        "decided": [answer.act is not None for answer in answers],
        "id": [answer.id for answer in answers],
        "release": [answer.release for answer in answers],
        "variant": [answer.variant for answer in answers],
        "fallback": [answer.fallback for answer in answers],
        "review": [answer.review for answer in answers],
    }
    return {name: Tensor(name, kind, (len(answers), columns_of), columns[name]) for name, (kind, columns_of) in types.items()}


def _act(act: Any, kind: str) -> Any:
    if kind == "FP64":
        return math.nan if act is None else float(act)
    if kind == "BYTES":
        return "" if act is None else str(act)
    return (bool if kind == "BOOL" else int)(act or 0)


def as_bytes(tensor: Tensor) -> bytes:
    """A tensor's elements as the binary extension has them.

    >>> as_bytes(Tensor("id", "BYTES", (1, 1), ["né"]))
    b'\\x03\\x00\\x00\\x00n\\xc3\\xa9'
    """
    if tensor.datatype == "BYTES":
        texts = [text.encode() for text in tensor.values]
        return b"".join(chain.from_iterable((struct.pack("<I", len(text)), text) for text in texts))
    return np.array(tensor.values, dtype=DTYPES[tensor.datatype]).tobytes()
