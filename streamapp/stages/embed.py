"""What a text means, as a unit vector."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import (
    Allocate,
    BaseStage,
    Batch,
    Columns,
    Embedder,
    Models,
    float32_vector,
    vector_column,
)


class Embed(BaseStage):
    """Texts to vectors.

    Writes ``embedding`` (FixedSizeList<float32>[dim], unit length) and ``truncated``; null without
    text.  Options: ``model``, the routed default when absent; ``kind``, ``query`` (default) or
    ``passage``.
    """

    name = "embed"
    reads = ("text",)
    accepts: Mapping[str, type] = {"model": str, "kind": str}

    #: Gives the memory that a batch's vectors are written to: the ring's own in direct mode.
    allocate: Allocate

    _embedder: Embedder

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self.allocate = _new

    def declare(self, models: Models) -> None:
        dim = models.embedding_dim(self.options.get("model"))
        self.writes = {"embedding": float32_vector(dim), "truncated": pa.bool_()}

    def open(self, models: Models) -> None:
        self._embedder = models.embedder(self.options.get("model"))
        self.models = (self._embedder.ref,)

    def enrich(self, batch: Batch) -> Columns:
        texts = [text if text and text.strip() else None for text in batch.strings("text")]
        out = self.allocate(len(texts), self._embedder.dim)
        kind = self.options.get("kind", "query")
        vectors, truncated = self._embedder.embed(texts, kind, out)
        missing = np.isnan(vectors[:, 0])
        return {
            "embedding": vector_column(vectors),
            "truncated": pa.array(truncated, mask=missing),
        }


def _new(rows: int, dim: int) -> npt.NDArray[np.float32]:
    return np.empty((rows, dim), np.float32)
