"""What a message wants, without training: the label whose description means nearly the same.

Each label has descriptions in plain words, in any languages; a label's score is the cosine of the
nearest one. Embedding models put all short texts at similar cosines (e5: 0.8 to 0.9), so the
**margin** between the best two labels decides whether the answer is ``unknown``, not the cosine.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import (
    BaseStage,
    Batch,
    Columns,
    Halt,
    Models,
    Refuse,
    float32,
    int32,
    string,
)

UNKNOWN = "unknown"
SOURCE = "prototype"


class Intent(BaseStage):
    """The nearest label.

    Writes ``intent``, ``intent_id`` (the label's place, -1 for unknown), ``intent_confidence`` and
    ``intent_source``; null where there is no embedding.

    ``intent_confidence`` is the share of the best label in a softmax of the cosines divided by
    ``temperature``: comparable within one workflow, not a calibrated probability.

    Options: ``labels`` (name to descriptions, in order), ``margin_min``, ``temperature``, ``model``
        (the one that ``embed`` uses), ``kind`` (which prefix the descriptions get: ``query`` or
        ``passage``).
    """

    name = "intent"
    reads = ("embedding",)
    writes: Mapping[str, pa.DataType] = {
        "intent": string,
        "intent_id": int32,
        "intent_confidence": float32,
        "intent_source": string,
    }
    accepts: Mapping[str, type] = {
        "labels": dict,
        "margin_min": float,
        "temperature": float,
        "model": str,
        "kind": str,
    }

    _prototypes: npt.NDArray[np.float32]
    _first_of_label: npt.NDArray[np.intp]

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._descriptions = _checked(self.options.get("labels", {}))
        self._labels = np.array([*self._descriptions, UNKNOWN], object)
        self._margin_min = float(self.options.get("margin_min", 0.006))
        self._temperature = float(self.options.get("temperature", 0.01))
        if not self._temperature > 0:
            raise Refuse("stage.option", "stage 'intent': temperature is not above 0", "give 0.01")

    def open(self, models: Models) -> None:
        embedder = models.embedder(self.options.get("model"))
        self.models = (embedder.ref,)
        counts = [len(texts) for texts in self._descriptions.values()]
        texts = [text for texts in self._descriptions.values() for text in texts]
        self._prototypes, _ = embedder.embed(texts, self.options.get("kind", "query"))
        self._first_of_label = np.cumsum([0, *counts[:-1]])

    def enrich(self, batch: Batch) -> Columns:
        vectors = batch.vectors("embedding")
        if vectors.shape[1] != self._prototypes.shape[1]:
            raise Halt(
                "intent.model",
                f"stage 'intent' has vectors of {self._prototypes.shape[1]} numbers, "
                f"the column embedding of {vectors.shape[1]}",
                "give [stages.intent] and [stages.embed] the same model",
            )
        missing = np.isnan(vectors[:, 0])
        vectors = np.where(missing[:, None], np.float32(0), vectors)
        best, margin, share = self._decide(vectors)
        best[margin < self._margin_min] = len(self._descriptions)
        ids = np.where(best == len(self._descriptions), -1, best).astype(np.int32)
        sources = np.full(len(batch), SOURCE, object)
        return {
            "intent": pa.array(self._labels[best], string, mask=missing),
            "intent_id": pa.array(ids, int32, mask=missing),
            "intent_confidence": pa.array(share, float32, mask=missing),
            "intent_source": pa.array(sources, string, mask=missing),
        }

    def _decide(
        self, vectors: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Best label, its lead over the second, and its share, each (n,)."""
        cosines = vectors @ self._prototypes.T
        scores = np.maximum.reduceat(cosines, self._first_of_label, axis=1)
        best = scores.argmax(axis=1)
        two = np.partition(scores, -2, axis=1)[:, -2:]
        weights = np.exp((scores - two[:, 1:]) / np.float32(self._temperature))
        return best, two[:, 1] - two[:, 0], 1 / weights.sum(axis=1)


def _checked(labels: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label to descriptions; a single description may stand without a list."""
    if len(labels) < 2:
        raise Refuse(
            "stage.option",
            f"stage 'intent' has {len(labels)} labels",
            "name at least two in [stages.intent.labels]",
        )
    checked: dict[str, list[str]] = {}
    for name, texts in labels.items():
        checked[name] = [texts] if isinstance(texts, str) else texts
        good = checked[name] and all(isinstance(text, str) and text for text in checked[name])
        if name == UNKNOWN or not good:
            raise Refuse(
                "stage.option",
                f"stage 'intent': label {name!r} cannot be used",
                f"give it texts that describe it, and any name but {UNKNOWN!r}",
            )
    return checked
