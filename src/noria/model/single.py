"""One row at a time, without frames or arrays where that is possible: the same scores as a batch, in microseconds.

``single`` gives a function from a row's feature values to its score, or ``None`` for a predictor that has no short way (a rule in SQL, a
foreign estimator): those are asked through ``Bundle.predict``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan, nan
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from noria.model.bundle import Bundle
from noria.model.calibration import Calibration
from noria.model.design import CLIP
from noria.model.encoder import Column
from noria.model.predictors import Constant, Linear, Link, Passthrough, Trees

Values: TypeAlias = Sequence[Any]
Score: TypeAlias = float | tuple[float, ...]


def single(bundle: Bundle, names: Sequence[str]) -> Callable[[Values], Score] | None:
    """Scores of single rows: ``scorer(values)``, where ``values`` are in the order of ``names``, ``None`` where one is missing.

    Numbers are numbers or booleans, texts are texts. The score is a number, or one a class. Raises ``KeyError`` when the bundle reads a
    column that is not in ``names``.
    """
    places = {name: place for place, name in enumerate(names)}
    encode = _encoder(bundle.model.encoder.columns, places)
    predict = _predict(bundle.model.predictor)
    if predict is None:
        return None
    repair = _repaired(bundle.model.calibration)
    if repair is None:
        return lambda values: predict(encode(values))
    return lambda values: repair(predict(encode(values)))


def unseen(bundle: Bundle, names: Sequence[str]) -> Callable[[Values], bool]:
    """Whether a row holds a category that the training never saw: ``Encoder.unknown`` for one row."""
    places = {name: place for place, name in enumerate(names)}
    texts = [(places[column.name], column.seen) for column in bundle.model.encoder.columns if column.kind == "text"]
    return lambda values: any(values[place] not in seen for place, seen in texts)


def _encoder(columns: Sequence[Column], places: Mapping[str, int]) -> Callable[[Values], list[float]]:
    """From a row's values to what the predictor reads; what is no finite number is NaN."""
    chosen = [places[column.name] for column in columns]
    texts = [(slot, column.codes) for slot, column in enumerate(columns) if column.kind == "text"]
    if not chosen:
        return lambda _values: []
    pick = itemgetter(*chosen) if len(chosen) > 1 else lambda values: (values[chosen[0]],)

    def numbers(values: Values) -> list[float]:
        return [value if value is not None and -inf < value < inf else nan for value in pick(values)]

    def mixed(values: Values) -> list[float]:
        made = list(pick(values))
        for slot, codes in texts:
            made[slot] = codes.get(made[slot], 0.0)
        return [value if value is not None and -inf < value < inf else nan for value in made]

    return mixed if texts else numbers


def _predict(predictor: object) -> Callable[[list[float]], Score] | None:
    if isinstance(predictor, Constant):
        said = predictor.score[0] if len(predictor.score) == 1 else predictor.score
        return lambda _row: said
    if isinstance(predictor, Passthrough):
        return _passthrough(predictor)
    if isinstance(predictor, Linear):
        return _linear(predictor)
    if isinstance(predictor, Trees):
        return _trees(predictor)
    return None


def _passthrough(predictor: Passthrough) -> Callable[[list[float]], Score]:
    low = -np.inf if predictor.low is None else predictor.low
    high = np.inf if predictor.high is None else predictor.high
    if not predictor.table:
        return lambda row: min(max(predictor.fallback if isnan(row[0]) else row[0], low), high)
    shift, last = 0 if predictor.coded else 1, len(predictor.table) - 1
    rows = [entry[0] if len(entry) == 1 else entry for entry in predictor.table]

    def looked_up(row: list[float]) -> Score:
        place = 0 if isnan(row[0]) else int(row[0] + shift)
        return rows[min(max(place, 0), last)]

    return looked_up


def _linear(predictor: Linear) -> Callable[[list[float]], Score]:
    """The sums in the order in which ``Linear.predict`` makes them, so that the bits are the same."""
    design, outputs = predictor.design, range(len(predictor.intercept))
    link = _linked(predictor.link)
    by_output = [
        (
            predictor.intercept[k],
            [
                (place, design.mean[j], design.scale[j], predictor.number[j][k], predictor.missing[j][k])
                for j, place in enumerate(design.numbers)
            ],
            [(place, [row[k] for row in table]) for place, table in zip(design.texts, predictor.tables, strict=True)],
        )
        for k in outputs
    ]

    def margin(row: list[float], k: int) -> float:
        total, numbers, texts = by_output[k]
        for place, mean, scale, weight, missing in numbers:
            standard = (row[place] - mean) / scale
            if -CLIP <= standard <= CLIP:
                total += standard * weight
            elif standard > CLIP:
                total += CLIP * weight
            elif standard < -CLIP:
                total -= CLIP * weight
            else:
                total += missing
        for place, table in texts:
            total += table[int(row[place])]
        return total

    if len(outputs) == 1 and predictor.link != "softmax":
        return lambda row: link(margin(row, 0))
    return lambda row: link([margin(row, k) for k in outputs])


def _trees(predictor: Trees) -> Callable[[list[float]], Score]:
    """Treelite's own library called with buffers that are kept: its Python wrapper costs more than the trees do."""
    from treelite.core import _LIB, _check_call
    from treelite.gtil.gtil import GTILConfig
    from treelite.util import c_str

    model, width, outputs = predictor._model, predictor.width, predictor.outputs
    config = GTILConfig(nthread=1, predict_type="raw")
    given, made = (ctypes.c_double * width)(), (ctypes.c_double * outputs)()
    call, handle, kind, one, settings = (
        _LIB.TreeliteGTILPredict,
        model.handle,
        c_str("float64"),
        ctypes.c_uint64(1),
        config.handle,
    )
    link = _linked(predictor.link)
    two = outputs == 1 and predictor.link == "softmax"  # two classes have one margin: that of the second
    several = predictor.link == "softmax"

    def predict(row: list[float], _alive: object = config) -> Score:  # the library keeps no reference to its settings
        given[:] = row  # type: ignore[assignment]  # ctypes takes floats
        _check_call(call(handle, given, kind, one, made, settings))
        if several:
            return link([0.0, made[0]] if two else list(made))
        return link(made[0])

    return predict


def _linked(link: Link) -> Callable[[Any], Score]:
    if link == "softmax":
        return _softmax
    return _sigmoid if link == "logit" else float


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + float(np.exp(-min(max(x, -700.0), 700.0))))


def _softmax(margins: Sequence[float]) -> tuple[float, ...]:
    from noria.model.calibration import softmax

    return tuple(softmax(np.array(margins, dtype=np.float64)).tolist())


def _repaired(calibration: Calibration) -> Callable[[Score], Score] | None:
    """The repair for one score: through the very arrays that a batch goes through, where there is more than nothing to do."""
    if calibration.kind == "none":
        return None
    if calibration.kind == "isotonic":
        x, y = np.array(calibration.x), np.array(calibration.y)
        return lambda score: float(np.interp(score, x, y))

    def applied(score: Score) -> Score:
        found = calibration.apply(np.atleast_1d(np.asarray(score, dtype=np.float64)))
        return tuple(found.tolist()) if isinstance(score, tuple) else float(found[0])

    return applied
