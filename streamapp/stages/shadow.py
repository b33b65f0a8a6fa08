"""A second embedding model beside the first, to be compared before it may take its place.

Vectors of two models lie in two spaces: what can be compared is who is near whom.  The query is in
docs/models.md.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamapp.plugin import (
    BaseStage,
    Batch,
    Columns,
    Embedder,
    Halt,
    ModelRef,
    Models,
    Refuse,
    float32_vector,
    sticky_place,
    vector_column,
)

_log = logging.getLogger("streamapp.models")


class Shadow(BaseStage):
    """Texts to the vectors of another model.

    Writes ``shadow_embedding``; null without text, outside of the share, and where the model fails:
    nothing that it does keeps an event.  Options: ``model``; ``percent`` of the conversations
    (default 100), always the same ones; ``kind`` as for ``embed``.
    """

    name = "shadow"
    reads = ("text", "conversation", "id")
    accepts: Mapping[str, type] = {"model": str, "percent": float, "kind": str}

    _embedder: Embedder

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._percent = float(self.options.get("percent", 100.0))
        if "model" not in self.options or not 0 <= self._percent <= 100:
            raise Refuse(
                "stage.option",
                "stage 'shadow' takes a model, and a percent of 0 to 100",
                'write [stages.shadow] model = "embed/NAME"',
            )

    def declare(self, models: Models) -> None:
        dim = models.embedding_dim(self.options["model"])
        self.writes = {"shadow_embedding": float32_vector(dim)}

    def open(self, models: Models) -> None:
        self._embedder = models.embedder(self.options["model"])
        self.models: tuple[ModelRef, ...] = (self._embedder.ref,)

    def enrich(self, batch: Batch) -> Columns:
        keys = zip(batch.strings("conversation"), batch.strings("id"), strict=True)
        texts = [
            text if text and text.strip() and self._is_in(conversation or id_ or "") else None
            for text, (conversation, id_) in zip(batch.strings("text"), keys, strict=True)
        ]
        self.models = (self._embedder.ref,)
        try:
            vectors, _ = self._embedder.embed(texts, self.options.get("kind", "query"))
        except Halt:
            raise
        except Exception as error:  # noqa: BLE001  # nobody is answered by it
            _log.warning("stage shadow: %s failed: %s", self._embedder.ref, error)
            vectors = np.full((len(batch), self._embedder.dim), np.nan, np.float32)
        return {"shadow_embedding": vector_column(vectors)}

    def _is_in(self, key: str) -> bool:
        return sticky_place(key, "shadow") * 100 < self._percent
