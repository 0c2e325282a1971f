"""The Delta log of a table, made from the manifest, so that anybody's reader can open the lake.

Version *n* of a table's Delta log is a pure function of row *n* of its manifest: the entry is written after the row was published,
it can be compared byte by byte, and it can be made again. Nothing unpublished is ever in it, and a worker that lost its
lease cannot write to it. (The protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md. The library's own writer would
commit before the ledger does, and does not wait for the disk.)
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from noria.core import canonical, digest, from_micros
from noria.store.content import Schema, field_json, type_of
from noria.store.manifest import FileInfo, Row

_NTZ = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]}
_PLAIN = {"minReaderVersion": 1, "minWriterVersion": 2}


def log_folder(folder: Path) -> Path:
    """Where a table's Delta log lies."""
    return folder / "_delta_log"


def log_path(folder: Path, version: int) -> Path:
    """The file of one version."""
    return log_folder(folder) / f"{version:020d}.json"


def entry(row: Row) -> bytes:
    """The bytes of the log entry of one manifest row."""
    millis = row.at // 1000
    actions: list[dict[str, Any]] = [
        {
            "commitInfo": {
                "timestamp": millis,
                "operation": "WRITE" if row.kind == "append" else "OPTIMIZE",
                "operationParameters": {},
                "noria": row.key,
            }
        }
    ]
    if row.change.columns:
        schema = {name: type_of(kind) for name, kind in row.change.columns}
        actions += [{"protocol": _protocol(schema)}, {"metaData": _metadata(row, schema)}]
    data_change = row.kind != "compact"
    actions += [
        {"remove": {"path": quote(path), "deletionTimestamp": millis, "dataChange": data_change}} for path in row.change.removed
    ]
    for info in row.change.added:
        stats = canonical(_stats(info)).decode()
        add = {
            "path": quote(info.path),
            "partitionValues": {},
            "size": info.size,
            "modificationTime": millis,
            "dataChange": data_change,
        }
        actions.append({"add": {**add, "stats": stats}})
    return b"\n".join(msgspec.json.encode(action) for action in actions) + b"\n"


def _protocol(schema: Schema) -> dict[str, Any]:
    return _NTZ if any("timestamp_ntz" in str(field_json(name, kind)) for name, kind in schema.items()) else _PLAIN


def _metadata(row: Row, schema: Schema) -> dict[str, Any]:
    fields = [field_json(name, kind) for name, kind in schema.items()]
    return {
        "id": str(uuid.UUID(digest(["table", row.table])[:32])),
        "name": row.table,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": msgspec.json.encode({"type": "struct", "fields": fields}).decode(),
        "partitionColumns": [],
        "configuration": {"delta.enableExpiredLogCleanup": "false"},
        "createdTime": row.at // 1000,
    }


def _stats(info: FileInfo) -> dict[str, Any]:
    low = {name: _millis(span[0]) for name, span in info.span.items()}
    high = {name: _millis(span[1] + 999) for name, span in info.span.items()}
    return {"numRecords": info.rows, "minValues": low, "maxValues": high, "nullCount": dict.fromkeys(info.span, 0)}


def _millis(micros: int) -> str:
    moment = from_micros(micros - micros % 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
