"""Reference numbers for the expected metrics: NannyML's CBPE on a seeded data set, as the test of ``stats.expected`` reads them.

    python benchmarks/peers/nannyml_cbpe.py > tests/stats/nannyml_cbpe.json     # in an environment with nannyml

The scores are drawn so that they are calibrated, and rounded, so that the numbers are the same everywhere.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

METRICS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1", "roc_auc": "auc"}
ROWS = 2000
SEED = 20
THRESHOLD = 0.4


def data() -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the reference, and of three windows of the same size: four windows one after the other."""
    random = np.random.default_rng(SEED)
    score = np.round(random.beta([[2.0], [2.0], [1.2], [4.0]], 3.0, (4, ROWS)), 4).ravel()
    return score, (random.random(len(score)) < score).astype(int)


def main() -> None:
    import nannyml
    import pandas as pd

    warnings.filterwarnings("ignore")
    score, label = data()
    frame = pd.DataFrame({"score": score, "said": (score >= THRESHOLD).astype(int), "label": label})
    estimator = nannyml.CBPE(
        y_pred_proba="score",
        y_pred="said",
        y_true="label",
        problem_type="classification_binary",
        metrics=list(METRICS),
        chunk_size=ROWS,
    )
    estimator.fit(frame.iloc[:ROWS])
    made = estimator.estimate(frame.iloc[ROWS:].drop(columns="label")).to_df()
    found = {ours: [float(x) for x in made[(theirs, "value")]] for theirs, ours in METRICS.items()}
    json.dump({"nannyml": nannyml.__version__, "metrics": found}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
