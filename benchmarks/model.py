"""Predictions from a bundle beside scikit-learn's own, medians in milliseconds: one row, a thousand, and a hundred thousand.

Run: ``python benchmarks/model.py``. The same rows go through both, from a frame with texts and missing values to scores, and the scores are
compared before they are timed. scikit-learn encodes with its own ``OrdinalEncoder`` (boosting) or ``OneHotEncoder`` and imputer (logistic). On a
machine that does other work, read the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from noria.model import Bundle, Model, Spec, fit_design, fit_encoder, linear_from, load, pack, trees_from

TEXTS = ["carrier", "origin", "dest"]
NUMBERS = [f"x{k}" for k in range(10)]
ROWS = 100_000


def history() -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {name: rng.choice([f"{name}{k}" for k in range(size)], ROWS) for name, size in zip(TEXTS, (16, 3, 100), strict=True)}
        | {name: rng.normal(size=ROWS) for name in NUMBERS}
    )
    label = frame["x0"].to_numpy() + (frame["carrier"] == "carrier3").to_numpy() + rng.normal(size=ROWS) > 1
    return frame.with_columns(x1=pl.when(pl.col("x2") > 1.3).then(None).otherwise("x1")), label


def boosting(frame: pl.DataFrame, label: np.ndarray) -> tuple[Bundle, Callable[[pl.DataFrame], np.ndarray]]:
    encoder = fit_encoder(frame, TEXTS + NUMBERS)
    settings: dict[str, Any] = {"max_iter": 80, "max_leaf_nodes": 15, "categorical_features": [0, 1, 2], "random_state": 0}
    model = HistGradientBoostingClassifier(**settings).fit(encoder.encode(frame), label)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(frame.select(TEXTS).to_numpy())

    def theirs(rows: pl.DataFrame) -> np.ndarray:
        codes = ordinal.transform(rows.select(TEXTS).to_numpy()) + 1
        return np.asarray(model.predict_proba(np.hstack([codes, rows.select(NUMBERS).to_numpy()]))[:, 1])

    return packed(Model(encoder, trees_from(model, "logit")), frame), theirs


def logistic(frame: pl.DataFrame, label: np.ndarray) -> tuple[Bundle, Callable[[pl.DataFrame], np.ndarray]]:
    encoder = fit_encoder(frame, TEXTS + NUMBERS)
    matrix = encoder.encode(frame)
    design = fit_design(encoder, matrix)
    model = LogisticRegression(max_iter=30, tol=1e-2).fit(design.sparse(matrix), label)
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0, 1, 2]), (numbers, list(range(3, 13))))
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=30, tol=1e-2))
    pipeline.fit(frame.select(TEXTS + NUMBERS).to_pandas().to_numpy(dtype=object), label)

    def theirs(rows: pl.DataFrame) -> np.ndarray:
        return np.asarray(pipeline.predict_proba(rows.select(TEXTS + NUMBERS).to_pandas().to_numpy(dtype=object))[:, 1])

    return packed(Model(encoder, linear_from(design, "logit", model.coef_, model.intercept_)), frame), theirs


def packed(model: Model, frame: pl.DataFrame) -> Bundle:
    return load(pack(Spec(system="benchmark", candidate="x", recipe="x", task="binary"), model, frame))


def median(call: Callable[[], Any], times: int) -> float:
    """The median of ``times`` calls after one that is not counted, in milliseconds."""
    call()
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(found)


def main() -> None:
    frame, label = history()
    print(f"{'model':10} {'rows':>8} {'bundle':>10} {'library':>10} {'ratio':>7}")
    for name, make in (("boosting", boosting), ("logistic", logistic)):
        bundle, theirs = make(frame, label)
        apart = float(np.abs(bundle.predict(frame) - theirs(frame)).max())
        # the pipeline fits on its own imputation and stops early, as ours does: close, not equal
        assert apart < (1e-12 if name == "boosting" else 0.2), apart
        one = {column: [frame[column][5]] for column in bundle.spec.columns}
        first = frame[5:6]
        ours, other = median(lambda: bundle.predict_rows(one), 1000), median(lambda: theirs(first), 200)  # noqa: B023  called at once
        print(f"{name:10} {1:>8} {ours:>10.3f} {other:>10.3f} {other / ours:>6.1f}x")
        for rows, times in ((1000, 50), (ROWS, 5)):
            some = frame.head(rows)
            ours, other = median(lambda: bundle.predict(some), times), median(lambda: theirs(some), times)  # noqa: B023  called at once
            print(f"{name:10} {rows:>8} {ours:>10.3f} {other:>10.3f} {other / ours:>6.1f}x")


if __name__ == "__main__":
    main()
