"""A packaged model: everything that answering needs, in one archive, and nothing that runs code.

Members: ``spec.json`` (what it is), ``encoder.json``, the predictor (``.json`` plain numbers, ``.trees`` Treelite, ``.skops``) and
``golden.json``: up to 64 rows with the scores they had when the model was packed. ``load`` computes those again, and refuses a bundle
that gives other scores here (another library version, another machine).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import Corrupt, Refused, canonical, digest_bytes
from noria.model import archive
from noria.model.blend import Blend, Weights
from noria.model.calibration import Calibration
from noria.model.design import Design
from noria.model.encoder import Column, Encoder, as_text, numbers
from noria.model.predictors import Constant, Linear, Link, Passthrough, Plain, Predictor, Rule, Trees

if TYPE_CHECKING:
    import polars as pl

GOLDEN_ROWS = 64
Task = Literal["binary", "multiclass", "regression"]
_LIBRARIES = ("numpy", "scikit-learn", "treelite", "skops", "duckdb", "polars")


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is.

    ``classes`` are the labels of a multiclass score, in order. ``columns`` are the columns that a frame to be predicted must have.
    ``decision`` is the decision policy as chosen on the validation part; ``reference`` what monitoring compares with;
    ``hashes`` name the training set, the feature plan, the declaration and the code of user-given callables.
    """

    system: str
    candidate: str
    recipe: str
    task: Task
    baseline: bool = False
    cost: int = 0
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    decision: dict[str, Any] = {}
    calibration: Calibration = Calibration()
    reference: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    versions: dict[str, str] = {}


class Golden(msgspec.Struct, frozen=True):
    """Rows by column, and the scores they had."""

    rows: dict[str, list[Any]]
    scores: list[Any]


class _Head(msgspec.Struct, frozen=True):
    """How a predictor that is not plain JSON is to be read."""

    kind: Literal["trees", "skops"]
    link: Link
    design: Design | None = None


class Model:
    """Encoder, predictor and calibration together: what scores rows. A bundle is a model with its papers."""

    def __init__(self, encoder: Encoder, predictor: Predictor, calibration: Calibration | None = None) -> None:
        self.encoder = encoder
        self.predictor = predictor
        self.calibration = calibration or Calibration()

    @property
    def tolerance(self) -> float:
        """How far a score may lie from the golden one: rounding only."""
        return 1e-12 if isinstance(self.predictor, Constant | Passthrough | Trees) else 1e-9

    def predict(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """Scores of a frame's rows: (n,), or (n, classes) for multiclass. Extra columns and their order do not matter."""
        if isinstance(self.predictor, Rule):
            return self.calibration.apply(self.predictor.of_frame(frame, self.encoder))
        return self.predict_matrix(self.encoder.encode(frame))

    def predict_rows(self, rows: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """The same for plain columns of values, without a frame: the short way for single rows."""
        if isinstance(self.predictor, Rule):
            return self.predict(_frame(rows, self.encoder))
        return self.predict_matrix(self.encoder.encode_rows(rows))

    def predict_matrix(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for what the encoder made."""
        return self.calibration.apply(self.predictor.predict(matrix))


class Bundle:
    """A loaded bundle. ``sha256`` is its name among the artifacts, ``spec`` what it is."""

    def __init__(self, sha256: str, spec: Spec, model: Model, golden: Golden) -> None:
        self.sha256 = sha256
        self.spec = spec
        self.model = model
        self.golden = golden

    def predict(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """Scores: (n,) for binary and regression, (n, classes) for multiclass. Columns are found by name."""
        return self.model.predict(frame)

    def predict_rows(self, rows: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Scores of plain columns of values, such as ``{"carrier": ["UA"], "distance": [719.0]}``."""
        return self.model.predict_rows(rows)

    def unknown(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """Which rows hold a category that the training never saw."""
        return self.model.encoder.unknown(frame)

    def difference(self) -> float:
        """The largest difference between the golden scores and those computed now."""
        if not self.golden.scores:
            return 0.0
        return _apart(np.array(self.golden.scores, dtype=np.float64), _golden_scores(self.model, self.golden.rows))


def pack(spec: Spec, model: Model, golden: pl.DataFrame) -> bytes:
    """The archive of a model. ``golden`` are rows like those to be predicted; the first ``GOLDEN_ROWS`` are taken.

    Equal arguments give equal bytes. Raises ``Refused`` when a score of a golden row is not finite.
    """
    kept = golden.head(GOLDEN_ROWS).select(model.encoder.names)
    rows = {column.name: _values(kept, column) for column in model.encoder.columns}
    scores = _golden_scores(model, rows)
    if not np.isfinite(scores).all():
        raise Refused(
            f"the model {spec.candidate} gives scores that are not finite", hint="look at its training data and settings"
        )
    whole = msgspec.structs.replace(spec, columns=model.encoder.names, calibration=model.calibration, versions=_versions())
    members = {
        "spec.json": canonical(whole),
        "encoder.json": canonical(model.encoder),
        "golden.json": canonical(Golden(rows, scores.tolist())),
    }
    return archive.write(members | _predictor_members(model.predictor))


def load(data: bytes, sha256: str | None = None) -> Bundle:
    """Reads a bundle and lets it answer its golden rows.

    ``sha256`` is the name under which it was stored; with it the bytes are checked first. Raises ``Corrupt`` when the bytes are not
    what was written, ``Refused`` when they hold something that does not belong in a bundle or the golden scores differ.
    """
    name = digest_bytes(data)
    where = f"the bundle {name[:12]}"
    if sha256 is not None and name != sha256:
        raise Corrupt(
            f"the bundle {sha256[:12]} is not what was written: its bytes hash to {name[:12]}", hint="restore it from a backup"
        )
    members = archive.read(data, where=where)
    try:
        spec = msgspec.json.decode(members["spec.json"], type=Spec)
        encoder = msgspec.json.decode(members["encoder.json"], type=Encoder)
        golden = msgspec.json.decode(members["golden.json"], type=Golden)
        predictor = _read_predictor(members)
    except KeyError as error:
        raise Corrupt(f"{where} has no {error.args[0]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{where} holds what this Noria does not know: {error}", hint="use the Noria that wrote it") from None
    bundle = Bundle(name, spec, Model(encoder, predictor, spec.calibration), golden)
    apart = bundle.difference()
    if not apart <= bundle.model.tolerance:
        raise Refused(
            f"{where} gives other scores here than when it was packed: they differ by {apart:.3g}",
            hint=f"it was packed with {_listed(spec.versions)}; here are {_listed(_versions())}: train again",
        )
    return bundle


def check_parity(trained: NDArray[np.float64], compiled: NDArray[np.float64], tolerance: float, what: str) -> float:
    """The largest difference between a trained model's scores and its compiled form's; ``Refused`` above ``tolerance``."""
    apart = _apart(trained, compiled)
    if not apart <= tolerance:
        raise Refused(
            f"the compiled form of {what} differs from the trained one by {apart:.3g}; {tolerance:.3g} is allowed",
            hint="this model cannot be packed with these libraries",
        )
    return apart


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max(initial=0.0)) if np.isfinite(b).all() else float("inf")


def _golden_scores(model: Model, rows: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
    # a model that reads no column says the same for every row: one row shows it
    return model.predict_rows(rows) if rows else model.predict_matrix(np.zeros((1, 0)))


def _predictor_members(predictor: Predictor) -> dict[str, bytes]:
    if isinstance(predictor, Blend):
        members = _predictor_members(predictor.main)
        for place, part in enumerate(predictor.parts.values()):
            members |= {f"part{place}.{name.partition('.')[2]}": data for name, data in _predictor_members(part).items()}
        return members | {"weights.json": canonical(predictor.papers)}
    if isinstance(predictor, Trees):
        return {"predictor.json": canonical(_Head("trees", predictor.link)), "predictor.trees": predictor.data}
    if isinstance(predictor, Constant | Passthrough | Linear | Rule):
        return {"predictor.json": canonical(predictor)}
    from noria.model.foreign import Foreign

    if isinstance(predictor, Foreign):
        return {"predictor.json": canonical(_Head("skops", predictor.link, predictor.design)), "predictor.skops": predictor.data}
    raise Refused(f"a {type(predictor).__name__} cannot be packed into a bundle")


def _read_predictor(members: dict[str, bytes]) -> Predictor:
    if "weights.json" in members:
        papers = msgspec.json.decode(members["weights.json"], type=Weights)
        plain_members = {name: data for name, data in members.items() if name != "weights.json"}
        parts = {name: _read_predictor(_renamed(members, f"part{place}")) for place, name in enumerate(papers.names)}
        weights = dict(zip(papers.names, papers.weights, strict=True))
        return Blend(_read_predictor(plain_members), papers.calibration, parts, weights)
    data = members["predictor.json"]
    if "predictor.trees" not in members and "predictor.skops" not in members:
        plain: Predictor = msgspec.json.decode(data, type=Plain)
        return plain
    head = msgspec.json.decode(data, type=_Head)
    if head.kind == "trees":
        return Trees(members["predictor.trees"], head.link)
    from noria.model.foreign import Foreign

    if head.design is None:
        raise Corrupt("an estimator without its design matrix cannot be used")
    return Foreign(members["predictor.skops"], head.design, head.link)


def _renamed(members: dict[str, bytes], part: str) -> dict[str, bytes]:
    """A part's members under the names of a predictor's."""
    own = {name: data for name, data in members.items() if name.startswith(f"{part}.")}
    return {f"predictor.{name.partition('.')[2]}": data for name, data in own.items()}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _values(frame: pl.DataFrame, column: Column) -> list[Any]:
    """A column's values as JSON has them: numbers, or texts, or nothing."""
    series = frame.get_column(column.name)
    if column.kind == "text":
        return as_text(series).to_list()
    return [None if np.isnan(value) else value for value in numbers(series).tolist()]


def _frame(rows: Mapping[str, Sequence[Any]], encoder: Encoder) -> pl.DataFrame:
    import polars as pl

    kinds = {column.name: pl.Float64 if column.kind == "number" else pl.String for column in encoder.columns}
    return pl.DataFrame({name: pl.Series(rows[name], dtype=kind, strict=False) for name, kind in kinds.items()})
