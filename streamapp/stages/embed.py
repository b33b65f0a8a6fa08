"""What a text means, as a unit vector."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from streamapp.plugin import (
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

    _embedder: Embedder

    def declare(self, models: Models) -> None:
        dim = models.embedding_dim(self.options.get("model"))
        self.writes = {"embedding": float32_vector(dim), "truncated": pa.bool_()}

    def open(self, models: Models) -> None:
        self._embedder = models.embedder(self.options.get("model"))
        self.models = (self._embedder.ref,)

    def enrich(self, batch: Batch) -> Columns:
        texts = batch.strings("text")
        rows = [row for row, text in enumerate(texts) if text and text.strip()]
        vectors = np.full((len(texts), self._embedder.dim), np.nan, np.float32)
        truncated = np.zeros(len(texts), np.bool_)
        vectors[rows], truncated[rows] = self._embedder.embed(
            [texts[row] or "" for row in rows], self.options.get("kind", "query")
        )
        missing = np.isnan(vectors[:, 0])
        return {
            "embedding": vector_column(vectors),
            "truncated": pa.array(truncated, mask=missing),
        }
