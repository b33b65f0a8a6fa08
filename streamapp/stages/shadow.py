"""A second embedding model beside the first, to be compared before it may take its place.

Vectors of two models lie in two spaces: what can be compared is who is near whom.  The query is in
docs/models.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.plugin import (
    BaseStage,
    Batch,
    Beside,
    Columns,
    Embedder,
    ModelRef,
    Models,
    Refuse,
    float32_vector,
    sticky_place,
    vector_column,
)

#: Milliseconds that a batch waits, unless it is told.
WAIT_MS_MAX = 2_000.0


class Shadow(BaseStage):
    """Texts to the vectors of another model.

    Writes ``shadow_embedding``; null without text, outside of the share, and where the model fails
    or is late: nothing that it does keeps an event.  Options: ``model``; ``percent`` of the
    conversations (default 100), always the same ones; ``kind`` as for ``embed``; ``wait_ms_max``,
    how long a batch waits for its vectors (default 2000).
    """

    name = "shadow"
    reads = ("text", "conversation", "id")
    accepts: Mapping[str, type] = {
        "model": str,
        "percent": float,
        "kind": str,
        "wait_ms_max": float,
    }

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
        self._wait_ms_max = float(self.options.get("wait_ms_max", WAIT_MS_MAX))
        if not 0 <= self._wait_ms_max <= 60_000:
            raise Refuse(
                "stage.option",
                f"stage 'shadow': wait_ms_max is {self._wait_ms_max:g}",
                "give milliseconds, 0 to 60000",
            )
        self._beside: Beside[npt.NDArray[np.float32]] = Beside(
            f"stage shadow: {self.options['model']}", "raise wait_ms_max, or lower percent"
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
        return {"shadow_embedding": vector_column(self._vectors(texts))}

    def _vectors(self, texts: Sequence[str | None]) -> npt.NDArray[np.float32]:
        """Vectors (n, dim); NaN where there are none in time."""
        dim, embed = self._embedder.dim, self._embedder.embed
        kind = self.options.get("kind", "query")
        rows = sum(text is not None for text in texts)
        asked = rows > 0 and self._beside.ask(lambda: embed(texts, kind)[0], rows)
        found = self._beside.answer(self._wait_ms_max / 1000) if asked else None
        return np.full((len(texts), dim), np.nan, np.float32) if found is None else found

    def _is_in(self, key: str) -> bool:
        return sticky_place(key, "shadow") * 100 < self._percent
