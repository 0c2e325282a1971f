"""Makes MLflow's own folder of a model: ``python mlflow_save.py MODEL FOLDER``. It answers probabilities, as the others do.

MLflow's default format, skops, does not trust scikit-learn's boosting; of the others, cloudpickle is the one it has always used.
"""

from __future__ import annotations

import sys

import joblib
import mlflow

if __name__ == "__main__":
    mlflow.sklearn.save_model(
        joblib.load(sys.argv[1]), sys.argv[2], pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle"
    )
