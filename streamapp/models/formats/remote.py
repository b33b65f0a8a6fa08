"""Models on servers as Sessions: Open Inference Protocol v2, and OpenAI's embeddings."""

import base64
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.model import ModelRef
from streamapp.models.formats import v2
from streamapp.models.formats.http import Answer, Pool
from streamapp.models.manifest import Manifest, RemoteSpec
from streamapp.models.session import (
    STRING,
    Array,
    Feeds,
    Session,
    Tensor,
    checked_feeds,
    chosen_outputs,
    fits,
    parse_signature,
)

#: Texts of one request to an OpenAI-compatible server.
TEXTS_MAX = 256
TEXT, EMBEDDING = "text", "embedding"
Decoded = TypeVar("Decoded")
_JSON = {"Content-Type": "application/json"}


class _Server(msgspec.Struct, frozen=True):
    """``GET /v2``."""

    extensions: list[str] = []


class _Outputs(msgspec.Struct, frozen=True):
    outputs: list[v2.Entry]


class _Vector(msgspec.Struct, frozen=True):
    """Of an answer; the embedding is numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]


class V2Session:
    """A Session on a model of an Open Inference Protocol server.

    Tensors go as binary data where the server says that it takes them.

    Raises:
        Refuse: the model has a tensor of a type that we do not have.
        Retry: the server is away, or has no such model.
    """

    memory_bytes = 0

    def __init__(self, ref: ModelRef, remote: RemoteSpec) -> None:
        self.ref = ref
        base = remote.url.rstrip("/").removesuffix("/v2")
        self._pool = Pool(msgspec.structs.replace(remote, url=base), str(ref))
        self._path = f"/v2/models/{remote.model or ref.name}"
        try:
            server = _decoded(self._pool, self._pool.get("/v2").body, _Server)
            metadata = _decoded(self._pool, self._pool.get(self._path).body, v2.Metadata)
            self.inputs = tuple(described.tensor() for described in metadata.inputs)
            self.outputs = tuple(described.tensor() for described in metadata.outputs)
        except Reject as error:
            self._pool.close()
            raise Refuse(error.code, f"{ref}: {error.message}", error.fix) from None
        except BaseException:
            self._pool.close()
            raise
        self._binary = v2.EXTENSION in server.extensions

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``."""
        names = chosen_outputs(self.ref, self.outputs, outputs)
        given = checked_feeds(self.ref, self.inputs, feeds)
        entries, blob = v2.encode(given, binary=self._binary)
        parameters = {"binary_data": self._binary}
        request = {
            "inputs": entries,
            "outputs": [
                {"name": name, **({"parameters": parameters} if self._binary else {})}
                for name in names
            ],
        }
        body = msgspec.json.encode(request)
        headers = dict(_JSON)
        if blob:
            headers = {"Content-Type": v2.BINARY, v2.JSON_LENGTH: str(len(body))}
        answer = self._pool.post(f"{self._path}/infer", body + blob, headers)
        return self._taken(answer, names)

    def garbled(self, why: str) -> Retry:
        """As ``Remote.garbled``."""
        return self._pool.garbled(why)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _taken(self, answer: Answer, names: Sequence[str]) -> dict[str, Array]:
        """The outputs of an answer, held to what the model declares."""
        try:
            text, blob = v2.split(answer.body, answer.headers.get(v2.JSON_LENGTH.lower()))
            found = v2.decode(_decoded(self._pool, text, _Outputs).outputs, blob)
        except Reject as error:
            raise self._pool.garbled(error.message) from None
        for tensor in self.outputs:
            if tensor.name not in names:
                continue
            if tensor.name not in found:
                raise self._pool.garbled(f"no output {tensor.name!r}")
            if not fits(tensor, found[tensor.name]):
                raise self._pool.garbled(f"output {tensor.name!r} is no {tensor}")
        return {name: found[name] for name in names}


class OpenaiSession:
    """A Session on ``POST /embeddings``: ``text``, string[n], to ``embedding``, float32[n,dim].

    Args:
        ref: who it is.
        remote: the server; ``url`` ends before ``/embeddings``, mostly with ``/v1``.
        dim: how many numbers a vector has; -1 when the manifest does not say.
    """

    memory_bytes = 0

    def __init__(self, ref: ModelRef, remote: RemoteSpec, dim: int = -1) -> None:
        self.ref = ref
        self.inputs = (Tensor(TEXT, STRING, (-1,)),)
        self.outputs = (Tensor(EMBEDDING, "float32", (-1, dim)),)
        self._model = remote.model or ref.name
        self._pool = Pool(remote, str(ref))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``; many texts are several requests."""
        names = chosen_outputs(self.ref, self.outputs, outputs)
        texts = [str(text) for text in checked_feeds(self.ref, self.inputs, feeds)[TEXT]]
        parts = [
            self._asked(texts[first : first + TEXTS_MAX])
            for first in range(0, len(texts), TEXTS_MAX)
        ]
        dim = self.outputs[0].shape[1]
        if not parts:
            parts = [np.empty((0, max(dim, 0)), np.float32)]
        if len({part.shape[1] for part in parts}) > 1:
            raise self._pool.garbled("vectors of different lengths")
        vectors = np.concatenate(parts)
        if not fits(self.outputs[0], vectors):
            raise self._pool.garbled(f"vectors of {vectors.shape[1]} numbers, not {dim}")
        if not np.isfinite(vectors).all():
            raise self._pool.garbled("vectors with numbers that are none, or too large")
        return dict.fromkeys(names, vectors)

    def garbled(self, why: str) -> Retry:
        """As ``Remote.garbled``."""
        return self._pool.garbled(why)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _asked(self, texts: list[str]) -> Array:
        request = {"model": self._model, "input": texts, "encoding_format": "float"}
        answer = self._pool.post("/embeddings", msgspec.json.encode(request), _JSON)
        found = sorted(_decoded(self._pool, answer.body, _Vectors).data, key=lambda one: one.index)
        if [one.index for one in found] != list(range(len(texts))):
            raise self._pool.garbled(f"{len(found)} vectors for {len(texts)} texts")
        try:
            with np.errstate(over="ignore"):  # infinite, which is looked for
                return np.stack([_numbers(one) for one in found])
        except ValueError as error:
            raise self._pool.garbled(str(error)) from None


def open_remote(ref: ModelRef, manifest: Manifest, remote: RemoteSpec) -> Session:
    """The session of a manifest whose format is a protocol."""
    if manifest.format == "v2":
        return V2Session(ref, remote)
    if manifest.task != "embed":
        raise Refuse(
            "models.format",
            f"{manifest.full_name}: format 'openai' is a session for embed only",
            "ask for it by what it does",
        )
    declared = parse_signature(manifest.outputs)
    dim = getattr(manifest, "dim", -1) if not declared else declared[0].shape[-1]
    return OpenaiSession(ref, remote, dim)


def _decoded(pool: Pool, body: bytes | memoryview, kind: type[Decoded]) -> Decoded:
    """What an answer says."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise pool.garbled(str(error)) from None


def _numbers(vector: _Vector) -> Array:
    if isinstance(vector.embedding, str):
        return np.frombuffer(base64.b64decode(vector.embedding, validate=True), "<f4")
    return np.asarray(vector.embedding, np.float32)
