"""A model behind BentoML: ``bentoml serve bentoml_app:Service``. ``MODEL`` names the model's file."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class Service:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, features: list[float]) -> float:
        return float(self.model.predict_proba(np.array([features]))[0, 1])

    @bentoml.api
    def predict_many(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict_proba(np.array(rows))[:, 1].tolist()
