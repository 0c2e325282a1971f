"""Run by the clients' own Python: asks a service by KServe's client, and prints what it understood.

Usage: ``python with_kserve.py url token < {"model", "inputs": [[name, datatype, shape, data]], "outputs": [name]}``
"""

import asyncio
import json
import sys
from itertools import product

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype


def plain(output):
    values = output.as_numpy().reshape(-1).tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def asked(given, binary):
    found = []
    for name, datatype, shape, data in given["inputs"]:
        one = InferInput(name, shape, datatype)
        one.set_data_from_numpy(np.array(data, dtype=to_np_dtype(datatype)).reshape(shape), binary_data=binary)
        found.append(one)
    return found


def wanted(names, form):
    if form == "default":
        return None
    return [RequestedOutput(name, {"binary_data": form == "binary" or index % 2 == 0}) for index, name in enumerate(names)]


async def refusals(client, url, given, headers):
    found = {}
    for name, model, inputs in (("model", "nobody", asked(given, True)), ("column", given["model"], asked(given, False)[1:])):
        try:
            await client.infer(url, InferRequest(model, inputs), model_name=model, headers=dict(headers))
        except httpx.HTTPStatusError as error:
            found[name] = [error.response.status_code, str(error)]
    return found


async def main():
    url, token = sys.argv[1:]
    given = json.load(sys.stdin)
    headers = {"Authorization": f"Bearer {token}"}
    found = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for binary, form in product((False, True), ("default", "binary", "mixed")):
            request = InferRequest(
                given["model"], asked(given, binary), request_id="request-é", request_outputs=wanted(given["outputs"], form)
            )
            response = await client.infer(url, request, model_name=given["model"], headers=dict(headers))
            found[f"{'binary' if binary else 'json'} {form}"] = {
                "id": response.id,
                "model": response.model_name,
                "outputs": {name: plain(response.get_output_by_name(name)) for name in given["outputs"]},
            }
        said = {
            "live": await client.is_server_live(url, headers=headers),
            "ready": await client.is_server_ready(url, headers=headers),
            "model_ready": await client.is_model_ready(url, given["model"], headers=headers),
            "other_ready": await client.is_model_ready(url, "nobody", headers=headers),
            "infer": found,
            "refusals": await refusals(client, url, given, headers),
        }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
