"""Care of the lake's files: joining small ones, removing what nothing refers to, checking, and repairing.

Nothing here changes what a table says, except an accepted loss. What the manifest can give again (the Delta log) and what its
origins can give again (files joined lately) is repaired; rows that nothing else holds are reported as lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from noria.core import Unavailable, quoted
from noria.store import delta, manifest
from noria.store.engine import Scan
from noria.store.files import sync_folder
from noria.store.lake import Fault, Lake, order_of
from noria.store.manifest import Change, FileInfo, Row, TableState

_SMALL_BYTES = 64 * 1024 * 1024
_JOINED_ROWS = 500_000
_NEWEST_ENTRIES = 8


def upkeep(lake: Lake) -> None:
    """See ``Lake.upkeep``. Files that are joined now stay until a later upkeep, for readers that still have them."""
    states = lake.current().tables
    for table in sorted(lake.untidy):
        _sweep(lake, table, states.get(table) or TableState())
    for table, state in sorted(states.items()):
        for group in list(_due(state, lake.compact_after)):
            _join(lake, table, state, group)
            lake.untidy.add(table)
        if state.newest is not None and state.newest.kind == "compact" and table in lake.untidy:
            _checkpoint(lake.folder / table, durable=lake.durable)


def _sweep(lake: Lake, table: str, state: TableState) -> None:
    """Removes the files of a table that nothing refers to: abandoned ones, and those joined before the last joins.

    A worker that lost its lease unnoticed does not know what came after it: files of a later epoch are not its to remove.
    """
    keep = state.files.keys() | {info.path for origins in state.origins.values() for info in origins}
    epoch = lake.held().epoch
    for path in [*(lake.folder / table).glob("*.parquet"), *(lake.folder / table).glob(".*.part")]:
        made_in = path.name.removeprefix(".").partition("-")[0]
        if path.name not in keep and not (made_in.isdecimal() and int(made_in) > epoch):
            path.unlink(missing_ok=True)
    lake.untidy.discard(table)


def _due(state: TableState, after: int) -> Iterator[list[FileInfo]]:
    levels: dict[int, list[FileInfo]] = {}
    for info in state.files.values():
        if info.size < _SMALL_BYTES:
            levels.setdefault(info.level, []).append(info)
    for _, files in sorted(levels.items()):
        if len(files) < after:
            continue
        group: list[FileInfo] = []
        for info in files:
            if group and sum(other.rows for other in group) + info.rows > _JOINED_ROWS:
                yield group
                group = []
            group.append(info)
        yield group


def _join(lake: Lake, table: str, state: TableState, group: list[FileInfo]) -> None:
    if len(group) > 1:
        _republish(lake, table, state, tuple(info.path for info in group), _joined(lake, table, state, group))


def _joined(lake: Lake, table: str, state: TableState, group: list[FileInfo]) -> FileInfo:
    for info in group:
        lake.verify(lake.folder / table / info.path, info)
    scan = Scan(
        tuple(lake.folder / table / info.path for info in group), dict(state.schema), tuple(info.columns for info in group)
    )
    order = ", ".join(quoted(name) for name in order_of(table) if name in state.schema)
    frame = lake.engine.sql("select * from t" + (f" order by {order}" if order else ""), t=scan)
    frame = frame.select(list(state.schema)).cast(dict(state.schema))  # type: ignore[arg-type]  # names to types, as it takes
    return lake.store_file(table, frame, level=max(info.level for info in group) + 1)


def _republish(lake: Lake, table: str, state: TableState, removed: tuple[str, ...], made: FileInfo) -> None:
    version = state.version + 1
    change = Change((made,), removed)
    at = state.newest.at if state.newest else 0
    lake.publish_now(Row(table, version, f"compact/{version}", "compact", at, "", state.head, change, lake.held().epoch))


def _checkpoint(folder: Path, *, durable: bool) -> None:
    """Sums up the Delta log for other readers. It can be made again at any time, so a disk that refuses it is no fault."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        DeltaTable(folder).create_checkpoint()
    except (DeltaError, OSError):
        return
    if durable:
        log = delta.log_folder(folder)
        for path in [*log.glob("*.checkpoint*.parquet"), log / "_last_checkpoint"]:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(log)


# ------------------------------------------------------------------------------------------------------ check and repair


def check(lake: Lake, *, deep: bool) -> list[Fault]:
    """See ``Lake.check``."""
    faults: list[Fault] = []
    for table, state in sorted(lake.current().tables.items()):
        faults += _check_files(lake, table, state, deep=deep)
        faults += _check_log(lake, table, state, deep=deep)
    return faults


def _check_files(lake: Lake, table: str, state: TableState, *, deep: bool) -> Iterator[Fault]:
    for info in state.files.values():
        path = lake.folder / table / info.path
        what = lake.fault(path, info, deep=deep, again=deep)
        if what:
            yield Fault(table, path, what, _origins(lake, table, state, info) is not None)


def _origins(lake: Lake, table: str, state: TableState, info: FileInfo) -> list[FileInfo] | None:
    found = state.origins.get(info.path, ())
    whole = bool(found) and not any(lake.fault(lake.folder / table / origin.path, origin) for origin in found)
    return list(found) if whole else None


def _check_log(lake: Lake, table: str, state: TableState, *, deep: bool) -> Iterator[Fault]:
    try:
        lake.follow(table)  # a commit that was killed before its entry is not a fault
    except Unavailable as error:
        yield Fault(table, lake.folder / table, f"its Delta log is behind: {error}", True)
        return
    with lake.ledger.reading() as connection:
        rows = manifest.history(connection, table, -1 if deep else state.version - _NEWEST_ENTRIES)
    for row in rows:
        path = delta.log_path(lake.folder / table, row.version)
        what = _entry_fault(path, row)
        if what:
            yield Fault(table, path, what, True)
    strays = 0
    while (path := delta.log_path(lake.folder / table, state.version + 1 + strays)).exists():
        yield Fault(table, path, "this log entry is not of this ledger", True)
        strays += 1
    if deep and not strays and (what := _reader_fault(lake.folder / table, state)):
        yield Fault(table, delta.log_folder(lake.folder / table), what, True)


def _entry_fault(path: Path, row: Row) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"the log entry cannot be read ({error.strerror})"
    if not data:
        return "the log entry is empty"
    return "" if data == delta.entry(row) else "the log entry is not what was written"


def _reader_fault(folder: Path, state: TableState) -> str:
    """What another reader of the Delta table sees otherwise than we do, or nothing."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(folder)
        seen = {Path(uri).name for uri in table.file_uris()}
    except (DeltaError, OSError) as error:
        return f"the Delta table cannot be opened: {error}"
    if table.version() != state.version or seen != set(state.files):
        return f"the Delta table shows version {table.version()} with {len(seen)} files instead of {state.version} with {len(state.files)}"
    return ""


def repair(lake: Lake, *, accept_loss: bool) -> list[str]:
    """See ``Lake.repair``."""
    lake.held()
    done: list[str] = []
    for table, state in sorted(lake.current().tables.items()):
        for _ in range(2):  # what other readers see can be judged only once the entries are right
            done += [_repair_log(lake, table, state, fault) for fault in list(_check_log(lake, table, state, deep=True))]
        for info in list(state.files.values()):
            path = lake.folder / table / info.path
            what = lake.fault(path, info, again=True)
            if what:
                done.append(_repair_file(lake, table, state, info, what, accept_loss=accept_loss))
    return done


def _repair_log(lake: Lake, table: str, state: TableState, fault: Fault) -> str:
    path = fault.path
    if path.name.endswith(".json"):
        version = int(path.stem)
        if version > state.version:
            aside = path.with_suffix(".stray")
            path.replace(aside)
            return f"{fault}; put aside as {aside.name}"
        with lake.ledger.reading() as connection:
            lake.write_log(next(row for row in manifest.history(connection, table, version - 1) if row.version == version))
        return f"{fault}; written again from the ledger"
    log = delta.log_folder(lake.folder / table)
    for other in [*log.glob("*.checkpoint*"), *log.glob("_last_checkpoint")]:
        other.unlink()
    return f"{fault}; its checkpoints were removed, the entries say the same"


def _repair_file(lake: Lake, table: str, state: TableState, info: FileInfo, what: str, *, accept_loss: bool) -> str:
    path = lake.folder / table / info.path
    origins = _origins(lake, table, state, info)
    if origins is not None:
        _republish(lake, table, state, (info.path,), _joined(lake, table, state, origins))
        _aside(path)
        return f"{path}: {what}; made again from the {len(origins)} files that it had been joined from"
    if not accept_loss:
        return (
            f"{path}: {what}; LOST: nothing else holds these rows. Put the file back from a backup (its sha256 is {info.sha256}), "
            "or run `noria repair --accept-loss` to go on without them"
        )
    version = state.version + 1
    at = state.newest.at if state.newest else 0
    key = f"lost/{version}"
    head = manifest.next_head(state.head, key, info.sha256)
    lake.publish_now(Row(table, version, key, "lost", at, info.sha256, head, Change((), (info.path,)), lake.held().epoch))
    _aside(path)
    return f"{path}: {what}; the table goes on without its {info.rows} rows, and its head says so"


def _aside(path: Path) -> None:
    if path.exists():
        path.replace(path.with_suffix(".damaged"))
