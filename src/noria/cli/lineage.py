"""From a prediction or a record back to the raw files, along the records' parents."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from noria.cli.declare import find
from noria.core import NotFound
from noria.records import Entry, Gated, Ingested, Record, Released, Scored, Snapshot, Trained, TrainingSet
from noria.store import Home
from noria.web import facts


class Node(msgspec.Struct):
    """One thing on the way back: what it is, when, in words, and what it was made from."""

    what: str
    id: str
    at: datetime | None
    says: str
    made_from: list[Node] = []

    def render(self) -> Any:
        """The way back as a tree."""
        from rich.tree import Tree

        tree = Tree(self._line())
        self._grow(tree)
        return tree

    def _line(self) -> str:
        from rich.markup import escape

        when = f" [dim]{self.at:%Y-%m-%d %H:%M}[/]" if self.at else ""
        short = self.id if not _is_hash(self.id) else self.id[:12]
        return f"[bold]{self.what}[/] {escape(short)}{when} {escape(self.says)}".rstrip()

    def _grow(self, tree: Any) -> None:
        for node in self.made_from:
            node._grow(tree.add(node._line()))


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def trace_record(home: Home, what: str) -> Node:
    """The way back from ``what``: a prediction's id, or a record's id, beginning of an id, or key."""
    if "@" in what and home.ledger.find(what) is None:
        return _prediction(home, what)
    return _record(home, find(home, what), set())


def _prediction(home: Home, id: str) -> Node:
    row = prediction(home, id)
    release = str(row["_release"] or "")
    node = Node("prediction", id, row["_time"], _scored(row))
    node.made_from += [_scoring(home, entry) for entry in home.ledger.read(Scored) if row["_time"] in entry.record.window]
    if release:
        node.made_from.append(_bundle(home, release, row["_time"]))
    return node


def prediction(home: Home, id: str) -> dict[str, Any]:
    """The logged row of a prediction. Raises ``NotFound``."""
    missing = NotFound(
        f"there is no prediction {id}", hint="an id is KEY@TIME, as the table of predictions has it: order-17@20130201T081500Z"
    )
    try:
        stamp = id.rsplit("@", 1)[1]
        asked = datetime.strptime(stamp, "%Y%m%dT%H%M%S.%f%z" if "." in stamp else "%Y%m%dT%H%M%S%z")
    except ValueError:
        raise missing from None
    if home.lake.schema("predictions") is None:
        raise missing
    rows = home.lake.read("predictions", _time=(asked - timedelta(seconds=1), asked + timedelta(seconds=1))).filter(
        pl.col("_id") == id
    )
    if rows.is_empty():
        raise missing
    return rows.row(0, named=True)


def _scored(row: dict[str, Any]) -> str:
    if row["_score"] is None:
        return "logged before the first release: no score, no act"
    act = {0.0: "did not act", 1.0: "acted"}.get(row["_act"], f"act {row['_act']}")
    return f"score {row['_score']:.4f}, {act} (propensity {row['_act_propensity']:.3f}), variant {row['_variant']} ({row['_variant_propensity']:.2f})"


def _scoring(home: Home, entry: Entry[Scored]) -> Node:
    """The pass that scored a prediction: its features came from what had been ingested by then."""
    says = f"{entry.record.n:,} predictions asked in {entry.record.window}"
    return Node("scored", entry.id, entry.at, says, _batches(home, entry.at))


def _bundle(home: Home, sha256: str, at: datetime) -> Node:
    made = facts.trained(home, sha256)
    node = Node("bundle", sha256, made.at if made else None, made.record.recipe if made else "")
    released = [entry for entry in home.ledger.read(Released) if entry.record.bundle == sha256 and entry.at <= at]
    if released:
        last = released[-1]
        node.made_from.append(Node("release", last.id, last.at, f"number {last.record.number}: {last.record.reason}"))
    gates = [entry for entry in home.ledger.read(Gated) if entry.record.bundle == sha256]
    node.made_from += [
        Node("gate", gate.id, gate.at, f"{gate.record.verdict}, {len(gate.record.checks)} checks") for gate in gates
    ]
    if made is not None:
        node.made_from.append(_record(home, made, set()))
    return node


def _record(home: Home, entry: Entry[Record], seen: set[str]) -> Node:
    seen.add(entry.id)
    node = Node(entry.kind, entry.id, entry.at, _about(entry.record))
    for parent in sorted(home.ledger.parents(entry.id), key=lambda e: e.seq):
        if parent.id in seen:
            node.made_from.append(Node(parent.kind, parent.id, parent.at, "(above)"))
        else:
            node.made_from.append(_record(home, parent, seen))
    if isinstance(entry.record, Snapshot):
        node.made_from += _batches(home, entry.at)
    if isinstance(entry.record, Ingested):
        node.made_from += [Node("file", file.sha256, None, file.name) for file in entry.record.files]
    return node


def _batches(home: Home, until: datetime) -> list[Node]:
    """The batches behind a snapshot, one node a source, with every raw file they came from."""
    sources: dict[str, list[Entry[Ingested]]] = {}
    for entry in home.ledger.read(Ingested, until=until):
        sources.setdefault(entry.record.source, []).append(entry)
    nodes = []
    for source, entries in sorted(sources.items()):
        accepted = sum(entry.record.accepted for entry in entries)
        quarantined = sum(entry.record.quarantined for entry in entries)
        says = f"{source}: {len(entries)} batches until {entries[-1].record.upto:%Y-%m-%d}, {accepted:,} rows accepted, {quarantined:,} quarantined"
        files = {file.sha256: file.name for entry in entries for file in entry.record.files}
        made_from = [Node("file", sha256, None, f"{name} sha256 {sha256}") for sha256, name in files.items()]
        nodes.append(Node("ingested", entries[-1].id, entries[-1].at, says, made_from))
    return nodes


def _about(record: Record) -> str:
    if isinstance(record, Trained):
        return f"{record.recipe}, trained until {record.trained_until:%Y-%m-%d}"
    if isinstance(record, TrainingSet):
        parts = ", ".join(f"{part.name} {part.n:,}" for part in record.parts)
        return f"{parts}; {len(record.columns)} features"
    if isinstance(record, Gated):
        return f"{record.verdict}, {len(record.checks)} checks"
    if isinstance(record, Released):
        return f"number {record.number}: {record.reason}"
    if isinstance(record, Snapshot):
        return f"{len(record.tables)} tables"
    if isinstance(record, Ingested):
        return f"{record.source}: {record.accepted:,} of {record.received:,} rows accepted"
    return ""
