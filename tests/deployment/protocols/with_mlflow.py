"""Run by the clients' own Python: asks a service by MLflow's scoring client, and prints what it understood.

Usage: ``python with_mlflow.py url token < {"rows": [{column: value}], "lists": [[value]] or null}``
"""

import json
import sys
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from requests.structures import CaseInsensitiveDict

headers = requests.sessions.default_headers


def main():
    url, token = sys.argv[1:]
    # The client has no way to be told a token.
    requests.sessions.default_headers = lambda: CaseInsensitiveDict(headers(), Authorization=f"Bearer {token}")
    given = json.load(sys.stdin)
    at = urlsplit(url)
    client = ScoringServerClient(at.hostname, at.port)
    client.ping()
    frame = pd.DataFrame(given["rows"])
    said = {
        "version": client.get_version(),
        "frame": client.invoke(frame).get_predictions().to_numpy().tolist(),
        "records": client.invoke(given["rows"]).get_predictions().to_numpy().tolist(),
        "full": client.invoke(frame, params={"full": True}).get_predictions()["id"].tolist(),
    }
    if given["lists"] is not None:
        said["lists"] = client.invoke(np.array(given["lists"])).get_predictions().to_numpy().tolist()
    try:
        client.invoke(frame.iloc[:, 1:])
    except Exception as error:
        said["refusal"] = str(error)
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
