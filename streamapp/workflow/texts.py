"""Texts as the workflow embeds them, for who searches among its vectors."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.ranges import OffsetRange
from streamapp.plugin import Models, Stage, Turning
from streamapp.workflow.blame import blamed

#: Texts to vectors, (n, dim), float32; NaN for a text that the stage gives none.
EmbedTexts = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def text_embedder(stages: Sequence[Stage], models: Models) -> EmbedTexts | None:
    """What embeds a text as the stage that writes ``embedding`` does: the same stage.

    Its model is loaded when it is first called, and stays.  None when no stage writes that column
    from the text alone.
    """
    for stage in stages:
        if "embedding" in stage.writes and [*stage.reads] == ["text"]:
            return _Texts(stage, models)
    return None


class _Texts:
    def __init__(self, stage: Stage, models: Models) -> None:
        self._stage = stage
        self._models = models
        self._lock = threading.Lock()
        self._is_open = False

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        with self._lock:
            if not self._is_open:
                with blamed(self._stage.name, "open"):
                    self._stage.open(self._models)
                self._is_open = True
            if isinstance(self._models, Turning):
                self._models.turn()
            rows = pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.string())})
            batch = Batch(rows, OffsetRange("", 0, 0, len(texts)))
            return batch.with_columns(self._stage.enrich(batch)).vectors("embedding")
