"""Scoring a file of rows into another: in pieces, so that it may be killed and begun again; each row once, in the file's order.

Every row is checked, looked up, scored and decided as the service would do it at the row's own time. The pieces lie beside the target until
all of them are there; then they are joined under a name of their own, which is given to the target last.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria.cli.scoring import time_column
from noria.core import DataFault, NotEnoughData, NotFound, SettingsError, digest
from noria.store import Home
from noria.system import System
from noria.tables import TIME

CHUNK = 10_000
_MICRO = timedelta(microseconds=1)
_REFUSED, _NOTHING = "the model refused the row", "nothing was released then"


class Task(msgspec.Struct, frozen=True):
    """What is being scored into what. ``moment`` is that of the rows that do not say when they are asked, kept from the first start on."""

    rows: str
    declaration: str
    at: str
    chunk: int
    moment: datetime

    @property
    def id(self) -> str:
        """Names the task: the same rows under the same declaration as of the same moment asked for."""
        return digest([self.rows, self.declaration, self.at, self.chunk])


class Batch(msgspec.Struct, frozen=True):
    """What a batch has done."""

    file: str
    rows: int
    scored: int
    reasons: dict[str, int]


def score_file(
    home: Home,
    system: System,
    source: Path,
    target: Path,
    *,
    at: str = "",
    chunk: int = CHUNK,
    on_rows: Callable[[int, int], None] = lambda _done, _all: None,
) -> Batch:
    """Scores the rows of ``source`` (Parquet, CSV, JSON) into ``target`` (``.parquet``, ``.csv``, ``.delta``).

    ``at`` is the moment that was asked for, empty for now; ``on_rows`` is told how many rows are done, of how many. Raises ``NotEnoughData`` while
    nothing is released, ``NotFound`` and ``DataFault`` for a file that is not there or cannot be read, ``SettingsError`` for another kind of target.
    """
    from noria.deployment.live import history
    from noria.store.files import sha256_of, write_file

    join = _joiner(target)
    given = _Given(source)
    past = history(home)
    if past.now.champion is None and past.now.rollout is None:
        raise NotEnoughData("nothing is released yet", hint="run `noria status`, or promote a bundle by hand")
    task = Task(sha256_of(source), system.id, at, chunk, home.clock.now())
    pieces = target.with_name(f".{target.name}.pieces")
    task = _taken_up(pieces, task)
    pieces.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(pieces / "task.json", msgspec.json.encode(task), durable=home.settings.durable)
    score = _Scorer(home, system, given, task.moment)
    files = []
    for number, start in enumerate(range(0, given.height, chunk)):
        file = pieces / f"{number:06d}.parquet"
        if not file.exists():
            part = file.with_suffix(".part")
            score(start, chunk).write_parquet(part)
            part.replace(file)
        files.append(file)
        on_rows(min(start + chunk, given.height), given.height)
    join(files, target)
    reasons = pl.concat([pl.read_parquet(file, columns=["reason"]) for file in files])["reason"].drop_nulls()
    counts = {_general(text): 0 for text in sorted(reasons.to_list())}
    for text in reasons.to_list():
        counts[_general(text)] += 1
    shutil.rmtree(pieces)
    return Batch(str(target), given.height, given.height - len(reasons), counts)


def _general(reason: str) -> str:
    return reason.removeprefix("row.")


def _taken_up(pieces: Path, task: Task) -> Task:
    """The same task as it was begun before; the pieces of another one are removed."""
    try:
        begun = msgspec.json.decode((pieces / "task.json").read_bytes(), type=Task)
    except (OSError, msgspec.DecodeError):
        begun = None
    if begun is not None and begun.id == task.id:
        return begun
    if pieces.exists():
        shutil.rmtree(pieces)
    return task


class _Given:
    """The rows of a file, piece by piece."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFound(f"there is no file {path}", hint="name a Parquet, CSV or JSON file with rows")
        try:
            self._lazy = self._opened(path)
            self.columns = self._lazy.collect_schema().names()
            self.height = int(self._lazy.select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, msgspec.DecodeError, TypeError) as error:
            raise DataFault(f"{path} cannot be read: {error}", hint="give a Parquet, CSV or JSON file with rows") from None
        if not self.height:
            raise DataFault(f"{path} has no rows", hint="give a file with rows")
        self._text = path.suffix == ".csv"

    def _opened(self, path: Path) -> pl.LazyFrame:
        if path.suffix == ".csv":
            return pl.read_csv(path, infer_schema=False).lazy()
        if path.suffix == ".json":
            return pl.DataFrame(msgspec.json.decode(path.read_bytes()), infer_schema_length=None).lazy()
        return pl.scan_parquet(path)

    def places(self, names: Sequence[str]) -> pl.Series:
        """For each row, how many rows with the same values in ``names`` come before it."""
        there = [name for name in names if name in self.columns]
        if not there:
            return pl.Series("n", range(self.height))
        return self._lazy.select(pl.int_range(pl.len()).over(there).alias("n")).collect()["n"]

    def rows(self, start: int, n: int, schema: Mapping[str, pl.DataType], time: str) -> list[dict[str, Any]]:
        """Rows of the columns in ``schema`` and the time of asking, as JSON would have them; cells without a value are left out."""
        names = [name for name in self.columns if name in schema or name == time]
        found = self._lazy.slice(start, n).select(names).collect()
        read = _from_text if self._text else _plain
        kinds = {name: schema.get(name, TIME) for name in names}
        return [
            {name: read(value, kinds[name]) for name, value in row.items() if value is not None}
            for row in found.iter_rows(named=True)
        ]


def _plain(value: Any, kind: pl.DataType) -> Any:
    """What a cell of a file says; a column of whole numbers that has gaps is often written as one of fractions."""
    if isinstance(value, float) and kind.is_integer() and value.is_integer():
        return int(value)
    return value.isoformat() if kind.is_temporal() and hasattr(value, "isoformat") else value


def _from_text(text: str, kind: pl.DataType) -> Any:
    """What a cell of text says; where it does not say a value of its column, the text, to be refused by name."""
    try:
        if kind.is_integer():
            return int(text)
        if kind.is_numeric():
            return float(text)
    except ValueError:
        return text
    if kind == pl.Boolean:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


class _Scorer:
    """Scores pieces, all under the same history of releases."""

    def __init__(self, home: Home, system: System, given: _Given, moment: datetime) -> None:
        from noria.deployment.bundles import Bundles
        from noria.deployment.live import history
        from noria.deployment.service.rows import keys_of, needed, row_schema

        self._home, self._system, self._given, self._moment = home, system, given, moment
        self._past, self._bundles = history(home), Bundles(home)
        self._schema = row_schema(home, system)
        self._wanted = frozenset(needed(system, self._schema))
        self._keys, self._time = keys_of(system), time_column(system)
        self._places = given.places([*self._keys, self._time])

    def __call__(self, start: int, n: int) -> pl.DataFrame:
        rows = self._given.rows(start, n, self._schema, self._time)
        moments, reasons = self._asked(rows, start)
        good = [place for place, reason in enumerate(reasons) if reason is None]
        keys = {name: _column([row.get(name) for row in rows], self._schema[name]) for name in self._keys}
        head = pl.DataFrame(
            {
                "row": pl.Series(range(start, start + len(rows)), dtype=pl.Int64),
                **keys,
                "reason": pl.Series(reasons, dtype=pl.String),
            }
        )
        made = self._scored([rows[place] for place in good], [moments[place] for place in good])
        made = made.with_columns(row=pl.Series([start + place for place in good], dtype=pl.Int64))
        found = head.join(made, on="row", how="left", maintain_order="left")
        silent = pl.col("score").is_null() & pl.col("reason").is_null()
        why = pl.when(pl.col("release") == "").then(pl.lit(_NOTHING)).otherwise(pl.lit(_REFUSED))
        reason = pl.when(silent).then(why).otherwise(pl.col("reason")).alias("reason")
        return found.with_columns(reason).select(*found.drop("reason").columns, "reason")

    def _asked(self, rows: list[dict[str, Any]], start: int) -> tuple[list[datetime], list[str | None]]:
        """When each row is asked, and why a row cannot be scored."""
        from noria.deployment.service.rows import FieldError, asked_at

        moments, reasons = [], list[str | None]()
        own = self._time in self._schema
        for place, row in enumerate(rows):
            said, moment, reason = row.get(self._time), self._moment, None
            if not own:
                row.pop(self._time, None)
            try:
                moment = asked_at(said, self._moment)
            except FieldError as error:
                reason = error.message
            moments.append(moment + self._places[start + place] * _MICRO)
            reasons.append(reason)
        wrong = self._wrong([row for row, reason in zip(rows, reasons, strict=True) if reason is None])
        found = iter(wrong)
        return moments, [next(found) if reason is None else reason for reason in reasons]

    def _wrong(self, rows: list[dict[str, Any]]) -> list[str | None]:
        """What the service would say against each row; all are looked at together first."""
        from noria.deployment.service.rows import FieldError, spine_of_rows

        def said(some: list[dict[str, Any]]) -> str | None:
            try:
                spine_of_rows(self._system, self._schema, self._wanted, some, self._moment)
            except FieldError as error:
                return error.message
            return None

        if not rows or said(rows) is None:
            return [None] * len(rows)
        return [said([row]) for row in rows]

    def _scored(self, rows: list[dict[str, Any]], moments: list[datetime]) -> pl.DataFrame:
        from noria import features
        from noria.deployment.scoring import logged
        from noria.deployment.service.rows import spine_of_rows

        if not rows:
            return pl.DataFrame(schema=self._columns())
        spine = spine_of_rows(self._system, self._schema, self._wanted, rows, moments)
        made = logged(
            self._system,
            self._past,
            spine,
            features.compute(self._home, self._system, spine),
            bundles=self._bundles,
            now=self._moment,
        ).predictions
        said = spine.select("_id").join(made, on="_id", how="left", maintain_order="left")
        named = said.select(pl.col(f"_{'time' if name == 'asked_at' else name}").alias(name) for name in self._columns())
        return named.with_columns(self._acts(named["act"]))

    def _columns(self) -> dict[str, Any]:
        texts = {"id": pl.String, "asked_at": TIME}
        numbers = {"score": pl.Float64, "scores": pl.List(pl.Float64), "act": self._act_kind(), "act_propensity": pl.Float64}
        return {
            **texts,
            **numbers,
            "variant": pl.String,
            "variant_propensity": pl.Float64,
            "release": pl.String,
            "review": pl.Boolean,
        }

    def _declared(self) -> tuple[Any, ...]:
        from noria.deployment.routing import randomised

        return tuple(self._system.decide.acts) if randomised(self._system.decide) else ()

    def _act_kind(self) -> Any:
        acts = self._declared()
        if acts and all(isinstance(act, bool) for act in acts):
            return pl.Boolean
        return pl.String if any(isinstance(act, str) for act in acts) else pl.Float64

    def _acts(self, acts: pl.Series) -> pl.Series:
        """The log has the place of a declared act; the file says the act."""
        declared, kind = self._declared(), self._act_kind()
        if not declared:
            return acts
        found = [None if act is None else declared[int(act)] for act in acts.to_list()]
        return pl.Series("act", [None if act is None else str(act) for act in found] if kind == pl.String else found, dtype=kind)


def _column(values: list[Any], kind: pl.DataType) -> pl.Series:
    """Values of the right kind; a wrong one is null, and its row has a reason."""
    try:
        return pl.Series(values, dtype=kind, strict=False)
    except (pl.exceptions.PolarsError, TypeError):
        return pl.Series([None] * len(values), dtype=kind)


# ----------------------------------------------------------------------------------------------------------- the target

Joiner = Callable[[Sequence[Path], Path], None]


def _joiner(target: Path) -> Joiner:
    found: dict[str, Joiner] = {".parquet": _to_parquet, ".csv": _to_csv, ".delta": _to_delta}
    if target.suffix not in found:
        raise SettingsError(f"{target} is no kind of file that is known", hint="name a .parquet, a .csv or a .delta with --to")
    if not target.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {target.parent}", hint="make it first")
    return found[target.suffix]


def _to_parquet(files: Sequence[Path], target: Path) -> None:
    import pyarrow.parquet as pq

    part = target.with_name(f".{target.name}.part")
    with pq.ParquetWriter(part, pq.read_schema(files[0])) as writer:
        for table in _tables(files):
            writer.write_table(table)
    part.replace(target)


def _tables(files: Sequence[Path]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    return (pq.read_table(file) for file in files)


def _to_csv(files: Sequence[Path], target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as out:
        for number, file in enumerate(files):
            frame = pl.read_parquet(file)
            scores = ["" if row is None else " ".join(map(repr, row)) for row in frame["scores"].to_list()]
            frame = frame.with_columns(scores=pl.Series(scores, dtype=pl.String))
            frame.write_csv(out, include_header=number == 0, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
    part.replace(target)


def _to_delta(files: Sequence[Path], target: Path) -> None:
    """One version of the table, with the hash of what it says in its history: where the newest says just that, nothing is written.

    So whoever was killed after writing writes no second version, and a later run, whose rows say otherwise, does.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake

    from noria.store.files import sha256_of

    content = digest([sha256_of(file) for file in files])
    if DeltaTable.is_deltatable(str(target)) and DeltaTable(target).history(1)[0].get("noria") == content:
        return
    frame = pl.concat([pl.read_parquet(file) for file in files])
    write_deltalake(
        target,
        frame.to_arrow(),
        mode="overwrite",
        schema_mode="overwrite",
        commit_properties=CommitProperties(custom_metadata={"noria": content}),
    )
