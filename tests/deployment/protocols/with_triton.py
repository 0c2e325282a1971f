"""Run by the clients' own Python: asks a service by tritonclient in every combination, and prints what it understood.

Usage: ``python with_triton.py url token < {"model", "version", "inputs": [[name, datatype, shape, data]], "outputs": [name]}``
"""

import json
import sys
from itertools import product

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

OUTPUT_FORMS = ("json", "binary", "mixed", "default")


def plain(array):
    """A list of plain values; bytes and what JSON decoded to text are the same text."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]


def asked(given, binary):
    found = []
    for name, datatype, shape, data in given["inputs"]:
        array = np.array(data, dtype=triton_to_np_dtype(datatype)).reshape(shape)
        found.append(triton.InferInput(name, shape, datatype).set_data_from_numpy(array, binary_data=binary))
    return found


def wanted(names, form):
    if form == "default":
        return None
    chosen = {"json": lambda _: False, "binary": lambda _: True, "mixed": lambda index: index % 2 == 0}[form]
    return [triton.InferRequestedOutput(name, binary_data=chosen(index)) for index, name in enumerate(names)]


def infer(client, given, headers):
    found = {}
    for binary, form, packing in product((False, True), OUTPUT_FORMS, (None, "gzip", "deflate")):
        result = client.infer(
            given["model"],
            asked(given, binary),
            model_version=given["version"],
            outputs=wanted(given["outputs"], form),
            request_id="request-é",
            headers=dict(headers),  # the client writes into them
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        response = result.get_response()
        found[f"{'binary' if binary else 'json'} {form} {packing}"] = {
            "id": response["id"],
            "model": [response["model_name"], response["model_version"]],
            "forms": ["data" not in output for output in response["outputs"]],
            "shapes": {output["name"]: output["shape"] for output in response["outputs"]},
            "outputs": {name: plain(result.as_numpy(name)) for name in given["outputs"]},
        }
    return found


def refusals(client, given, headers):
    """What the client makes of errors: (status, message)."""
    found = {}
    wrong = asked(given, True)[1:]
    unknown = [triton.InferRequestedOutput("nothing")]
    for name, ask in {
        "model": lambda: client.infer("nobody", asked(given, True), headers=dict(headers)),
        "version": lambda: client.get_model_metadata(given["model"], "999", headers=headers),
        "column": lambda: client.infer(given["model"], wrong, headers=dict(headers)),
        "output": lambda: client.infer(given["model"], asked(given, False), outputs=unknown, headers=dict(headers)),
    }.items():
        try:
            ask()
        except InferenceServerException as error:
            found[name] = [error.status(), error.message()]
    return found


def main():
    url, token = sys.argv[1:]
    given = json.load(sys.stdin)
    headers = {"Authorization": f"Bearer {token}"}
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    said = {
        "live": client.is_server_live(headers=headers),
        "ready": client.is_server_ready(headers=headers),
        "model_ready": client.is_model_ready(given["model"], headers=headers),
        "version_ready": client.is_model_ready(given["model"], given["version"], headers=headers),
        "other_ready": client.is_model_ready("nobody", headers=headers),
        "server": client.get_server_metadata(headers=headers),
        "metadata": client.get_model_metadata(given["model"], given["version"], headers=headers),
        "infer": infer(client, given, headers),
        "refusals": refusals(client, given, headers),
    }
    client.close()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
