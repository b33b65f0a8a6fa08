"""What a text means, as a unit vector."""

from collections.abc import Mapping, Sequence
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
    Halt,
    ModelRef,
    Models,
    Refuse,
    SparseEmbedder,
    as_sparse,
    float32,
    float32_vector,
    string,
    vector_column,
)

WEIGHT = pa.struct([("token", string), ("weight", float32)])
#: Tokens of a text that are kept; the others of a long one weigh little.
SPARSE_MAX = 256

Weights = Sequence[Mapping[str, float] | None]


class Embed(BaseStage):
    """Texts to vectors.

    Writes ``embedding`` (FixedSizeList<float32>[dim], unit length) and ``truncated``; null without
    text.  Options: ``model``, the routed default when absent; ``kind``, ``query`` (default) or
    ``passage``; ``sparse``: write ``sparse`` too, a list of {token, weight} in the order of the
    text, the ``sparse_max`` (256) heaviest.
    """

    name = "embed"
    reads = ("text",)
    accepts: Mapping[str, type] = {"model": str, "kind": str, "sparse": bool, "sparse_max": int}

    #: Gives the memory that a batch's vectors are written to: the ring's own in direct mode.
    allocate: Allocate

    _embedder: Embedder

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self.allocate = _new
        if self.options.get("sparse_max", SPARSE_MAX) < 1:
            raise Refuse("stage.option", "stage 'embed': sparse_max is below 1", "give 1 or more")

    @property
    def vectors_of(self) -> ModelRef | None:
        return self._embedder.ref

    def declare(self, models: Models) -> None:
        dim = models.embedding_dim(self.options.get("model"))
        self.writes = {"embedding": float32_vector(dim), "truncated": pa.bool_()}
        if self.options.get("sparse"):
            self.writes["sparse"] = pa.list_(WEIGHT)

    def open(self, models: Models) -> None:
        self._embedder = models.embedder(self.options.get("model"))
        self.models = (self._embedder.ref,)
        if "sparse" in self.writes:
            self._sparse(Refuse)

    def enrich(self, batch: Batch) -> Columns:
        texts = [text if text and text.strip() else None for text in batch.strings("text")]
        out = self.allocate(len(texts), self._embedder.dim)
        kind = self.options.get("kind", "query")
        weights: Weights = ()
        if "sparse" in self.writes:
            vectors, truncated, weights = self._sparse(Halt).embed_sparse(texts, kind, out)
        else:
            vectors, truncated = self._embedder.embed(texts, kind, out)
        self.models = (self._embedder.ref,)  # it may be another than at the batch before
        missing = np.isnan(vectors[:, 0])
        columns = {
            "embedding": vector_column(vectors),
            "truncated": pa.array(truncated, mask=missing),
        }
        if "sparse" in self.writes:
            columns["sparse"] = _column(weights, self.options.get("sparse_max", SPARSE_MAX))
        return columns

    def _sparse(self, wrong: type[Refuse | Halt]) -> SparseEmbedder:
        """The embedder, or ``wrong``: another may have taken the place of one that could."""
        found = as_sparse(self._embedder)
        if found is None:
            raise wrong(
                "stage.option",
                f"stage 'embed' has sparse = true, and {self._embedder.ref} weighs no tokens",
                "name a model that does, such as BGE-M3, or remove sparse",
            )
        return found


def _column(weights: Weights, most: int) -> pa.Array:
    """The ``most`` heaviest tokens of each text, in the order of the text."""
    rows = [None if given is None else _heaviest(given, most) for given in weights]
    return pa.array(rows, pa.list_(WEIGHT))


def _heaviest(weights: Mapping[str, float], most: int) -> list[dict[str, Any]]:
    kept = set(sorted(weights, key=weights.__getitem__, reverse=True)[:most])
    return [{"token": token, "weight": weights[token]} for token in weights if token in kept]


def _new(rows: int, dim: int) -> npt.NDArray[np.float32]:
    return np.empty((rows, dim), np.float32)
