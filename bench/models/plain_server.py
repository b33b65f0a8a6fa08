"""What one writes first: aiohttp, onnxruntime as it comes, a call for each request in a thread.

python -m models.plain_server MODEL.onnx

It speaks the JSON of the Open Inference Protocol, so that one client asks both.  The URL is the
first line on stdout.
"""

import asyncio
import gc
import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from aiohttp import web

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Infers:
    """Answers a request with what the model gives for its one tensor."""

    def __init__(self, path: str) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    async def __call__(self, request: web.Request) -> web.Response:
        given = _decode(await request.read())["inputs"][0]
        values = np.array(given["data"], np.float32).reshape(given["shape"])
        found = await asyncio.to_thread(self._session.run, None, {self._input: values})
        output: dict[str, Any] = {
            "name": self._output,
            "datatype": "FP32",
            "shape": list(found[0].shape),
            "data": found[0].ravel().tolist(),
        }
        said = _encode({"model_name": "layers", "outputs": [output]})
        return web.Response(body=said, content_type="application/json")


async def serve(path: str) -> None:
    """Until somebody ends the process."""
    app = web.Application()
    app.router.add_post("/v2/models/{name}/infer", Infers(path).__call__)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
