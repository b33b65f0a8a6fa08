"""What a test of a stage needs: a Batch out of a few columns, and models without weights."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Batch
from streamapp.core.model import ModelRef
from streamapp.core.ranges import OffsetRange

_EPOCH_US = 1_700_000_000_000_000
_SECOND_US = 1_000_000


def batch_of(first: int = 0, **columns: Any) -> Batch:
    """A Batch of the given columns; the event's other columns get plain values.

    Args:
        first: source offset of the first row; the others follow.
        columns: name to list or Arrow array, all of one length; a name that is no column of the
            event becomes one, as if an earlier stage had written it.
    """
    rows = len(next(iter(columns.values()))) if columns else 0
    offsets = list(range(first, first + rows))
    times = [_EPOCH_US + _SECOND_US * offset for offset in offsets]
    plain: dict[str, list[Any]] = {
        "source_offset": offsets,
        "id": [str(offset) for offset in offsets],
        "type": ["message"] * rows,
        "source": ["test"] * rows,
        "conversation": [None] * rows,
        "actor": [None] * rows,
        "time": times,
        "ingest_time": times,
        "text": [None] * rows,
        "duration_ms": [0.0] * rows,
        "payload": ["{}"] * rows,
        "attachments": [None] * rows,
    }
    arrays = [_array(columns.get(field.name, plain[field.name]), field) for field in EVENT_SCHEMA]
    added = {name: pa.array(columns[name]) for name in columns if name not in EVENT_SCHEMA.names}
    batch = Batch(
        pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA),
        OffsetRange("events.raw", 0, first, first + rows),
    )
    return batch.with_columns(added)


def _array(values: Any, field: pa.Field) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, field.type)


class HashEmbedder:
    """Bags of hashed words: texts with equal words get near unit vectors."""

    ref = ModelRef("embed", "hashed-words", 1, hashlib.sha256(b"hashed-words").hexdigest())

    def __init__(self, dim: int = 16) -> None:
        self.dim = dim

    def embed(
        self,
        texts: Sequence[str | None],
        kind: str = "query",  # noqa: ARG002  # the contract's
        out: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """As ``Embedder.embed``; nothing is ever truncated."""
        vectors = np.empty((len(texts), self.dim), np.float32) if out is None else out
        for row, text in enumerate(texts):
            vectors[row] = np.nan if text is None else 0
            for word in [] if text is None else text.lower().split() or [""]:
                digest = hashlib.sha256(word.encode()).digest()
                for place in range(self.dim):
                    vectors[row, place] += digest[place % len(digest)] - 127.5
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors, np.zeros(len(texts), np.bool_)


class HashModels:
    """A ``Models`` whose every embedder is a HashEmbedder."""

    def __init__(self, dim: int = 16) -> None:
        self._embedder = HashEmbedder(dim)

    def embedder(self, name: str | None = None) -> HashEmbedder:  # noqa: ARG002  # any will do
        """The one embedder there is."""
        return self._embedder

    def embedding_dim(self, name: str | None = None) -> int:  # noqa: ARG002  # any will do
        """Length of its vectors."""
        return self._embedder.dim
