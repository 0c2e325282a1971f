"""A model behind LitServe: ``python litserve_app.py PORT``. ``MODEL`` names the model's file, ``BATCH=1`` collects requests for 2 ms."""

import os
import sys
from typing import Any

import joblib
import litserve
import numpy as np


class Api(litserve.LitAPI):
    """One row (a list of numbers) or many (a list of lists)."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request) -> Any:  # its annotation would say what FastAPI parses the body as
        return request["features"]

    def predict(self, x: Any) -> Any:
        p = self.model.predict_proba(np.array(x, ndmin=2))[:, 1].tolist()
        return p if isinstance(x[0], list) else p[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"p": output}


class Batching(Api):
    """One row a request; those that arrive together are predicted together."""

    def batch(self, inputs: list[Any]) -> Any:
        return np.array(inputs)

    def predict(self, x: Any) -> Any:
        return self.model.predict_proba(x)[:, 1].tolist()

    def unbatch(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Batching(max_batch_size=32, batch_timeout=0.002) if os.environ.get("BATCH") else Api()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error")
