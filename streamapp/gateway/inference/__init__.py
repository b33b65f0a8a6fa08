"""Open Inference Protocol v2 over HTTP, so that Triton's clients run the registry's models.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
with Triton's extensions ``binary_tensor_data`` and, of ``model_repository``, the index.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web

from streamapp.core.errors import Reject
from streamapp.gateway.body import defer_continue, read_body
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.inference import wire
from streamapp.gateway.inference.hosted import PLATFORMS, Hosted
from streamapp.gateway.problem import SERVER, json_response
from streamapp.models.formats import v2
from streamapp.models.manifest import Manifest
from streamapp.models.session import Array

#: One name, or task and name, an alias behind it; what follows a model's path is no name.
_NAME = r"[\w.@%-]+(?:/(?!(?:infer|ready|versions)(?:/|$))[\w.@%-]+)?"
_MODEL = "/v2/models/{model:" + _NAME + "}"
_VERSION = "/versions/{version:[0-9]{1,9}}"
#: Larger bodies are decoded, and answers encoded, in a thread.
INLINE_BYTES_MAX = 65_536
T = TypeVar("T")
_request = msgspec.json.Decoder(wire.InferenceRequest)


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The protocol's routes; models are opened when they are first asked for."""
    hosted = Hosted(gateway.models, gateway.config.models_bytes_max, gateway.metrics, gateway.clock)
    gateway.closing.append(hosted.close)
    inference = Inference(gateway, hosted)
    found = [
        web.get("/v2", inference.server),
        web.get("/v2/health/live", inference.live),
        web.get("/v2/health/ready", inference.ready),
        web.post("/v2/repository/index", inference.index, expect_handler=defer_continue),
    ]
    for path in (_MODEL + _VERSION, _MODEL):  # the longer first: a name may have a slash
        found += [
            web.get(f"{path}/ready", inference.model_ready),
            web.post(f"{path}/infer", inference.infer, expect_handler=defer_continue),
        ]
    return [*found, *(web.get(p, inference.model) for p in (_MODEL + _VERSION, _MODEL))]


class Inference:
    """The handlers."""

    def __init__(self, gateway: Gateway, hosted: Hosted) -> None:
        self._gateway = gateway
        self._hosted = hosted

    async def server(self, _: web.Request) -> web.Response:
        """Who answers."""
        extensions = [v2.EXTENSION, "model_repository"]
        return json_response(wire.ServerMetadata("streamapp", version("streamapp"), extensions))

    async def live(self, _: web.Request) -> web.Response:
        """200 while the event loop turns."""
        return json_response(wire.ServerState(live=True))

    async def ready(self, _: web.Request) -> web.Response:
        """200 while requests are taken, else 503."""
        ready = not self._gateway.life.draining
        return json_response(wire.ServerState(ready=ready), 200 if ready else 503)

    async def index(self, request: web.Request) -> web.Response:
        """Every version of every model."""
        with self._gateway.budget.lease() as lease:  # clients may send options; we know none
            await read_body(request, self._gateway.config, lease)
        return json_response(
            [
                wire.IndexEntry(name, version, "UNAVAILABLE" if why else "READY", why)
                for name, version, why in await self._hosted.index()
            ]
        )

    async def model(self, request: web.Request) -> web.Response:
        """A model's signature."""
        manifest = await self._manifest(request)
        inputs, outputs = await self._hosted.signature(manifest)
        versions = await self._hosted.versions(manifest)
        described = [
            [v2.Described(each.name, v2.DATATYPES[each.dtype], list(each.shape)) for each in side]
            for side in (inputs, outputs)
        ]
        return json_response(
            wire.ModelMetadata(
                f"{manifest.task}/{manifest.name}",
                [str(each.version) for each in versions],
                PLATFORMS.get(manifest.format, manifest.format),
                *described,
            )
        )

    async def model_ready(self, request: web.Request) -> web.Response:
        """200 when a model's files are here, else 503."""
        manifest = await self._manifest(request)
        ready = await self._hosted.is_ready(manifest)
        name = f"{manifest.task}/{manifest.name}"
        return json_response(wire.ModelState(name, ready), 200 if ready else 503)

    async def infer(self, request: web.Request) -> web.Response:
        """Run a model."""
        manifest = await self._manifest(request)
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease)
            asked, feeds = await _in_turn(
                len(body), lambda: _decoded(body, request.headers.get(v2.JSON_LENGTH))
            )
            wanted = [output.name for output in asked.outputs] or None
            found = await self._hosted.run(manifest, feeds, wanted)
            size = sum(array.nbytes for array in found.values())
            lease.take(nbytes=size)
            return await _in_turn(size, lambda: _answer(manifest, asked, found))

    async def _manifest(self, request: web.Request) -> Manifest:
        match = request.match_info
        return await self._hosted.manifest(match["model"], match.get("version", ""))


async def _in_turn(size: int, work: Callable[[], T]) -> T:
    """Small work here; large work in a thread, so that others are answered meanwhile."""
    return work() if size <= INLINE_BYTES_MAX else await asyncio.to_thread(work)


def _decoded(
    body: bytes, json_length: str | None
) -> tuple[wire.InferenceRequest, dict[str, Array]]:
    """A request and its tensors.

    Raises:
        Reject: the body is not what the protocol says.
    """
    text, blob = v2.split(body, json_length)
    try:
        asked = _request.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject(
            "inference.json", f"not an inference request: {error}", "see /docs for what is taken"
        ) from None
    said = [(each.name, each.parameters) for each in asked.inputs]
    said += [(each.name, each.parameters) for each in asked.outputs]
    for tensor, parameters in said:
        for name in parameters:
            if name.startswith("shared_memory") or name == "classification":
                raise Reject(
                    "inference.parameter",
                    f"tensor {tensor[:80]!r} asks for {name}, which is not known here",
                    "send its values, and take the output as it is",
                )
    names = [each.name for each in asked.inputs]
    if len(set(names)) < len(names):
        raise Reject("inference.twice", "an input is there twice", "send each once")
    return asked, v2.decode(asked.inputs, blob)


def _answer(
    manifest: Manifest, asked: wire.InferenceRequest, found: Mapping[str, Array]
) -> web.Response:
    """The outputs, as JSON or, where that was asked for, as binary data behind it."""
    default = asked.parameters.get("binary_data_output", False)
    binary = {each.name: each.parameters.get("binary_data", default) for each in asked.outputs}
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, array in found.items():
        entry, blob = v2.encode({name: array}, binary=binary.get(name, default) is True)
        entries += entry
        blobs.append(blob)
    answer = {
        "model_name": f"{manifest.task}/{manifest.name}",
        "model_version": str(manifest.version),
        **({"id": asked.id} if asked.id else {}),
        "outputs": entries,
    }
    text, blob = msgspec.json.encode(answer), b"".join(blobs)
    headers = {**SERVER, hdrs.CONTENT_TYPE: v2.BINARY if blob else "application/json"}
    if blob:
        headers[v2.JSON_LENGTH] = str(len(text))
    return web.Response(body=text + blob, headers=headers)
