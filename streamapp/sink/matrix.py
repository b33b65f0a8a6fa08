"""The newest embeddings as one matrix, so that nearest neighbours are one product."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Neighbours that one search gives at most.
K_MAX = 1000

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Hit(NamedTuple):
    """An event by its source address, and how near it is."""

    topic: str
    partition: int
    offset: int
    cosine: float


class Matrix:
    """The last ``rows_max`` vectors in the order they were stored, unit length.

    Memory is taken as rows come: what is not written yet has an address but no page.

    Args:
        rows_max: when there are more, the oldest go.
        dim: numbers of a vector.
        first_row: the row that reading begins with.
    """

    #: Bytes of a row beside its vector.
    ROW_BYTES = 8 + 8 + 4

    def __init__(self, rows_max: int, dim: int, first_row: int = 0) -> None:
        self.dim = dim
        #: Every vector of this row and later ones is here.
        self.first_row = first_row
        self._vectors: Vectors = np.empty((rows_max, dim), np.float32)
        self._rows: Rows = np.empty(rows_max, np.int64)
        self._offsets: Rows = np.empty(rows_max, np.int64)
        self._sources: npt.NDArray[np.int32] = np.empty(rows_max, np.int32)
        self._names: list[tuple[str, int]] = []  # topic and partition of each source
        self._count = 0  # vectors ever added; the next goes to this, modulo rows_max

    def __len__(self) -> int:
        return min(self._count, len(self._rows))

    def add(self, source: tuple[str, int], rows: Rows, offsets: Rows, vectors: Vectors) -> None:
        """Add rows of one source, whose numbers rise, with their vectors, (n, dim).

        A vector without a direction (zeros, NaN, infinity) is like none and is not added.
        """
        lengths = np.sqrt(
            np.einsum("ij,ij->i", vectors, vectors)
        )  # linalg.norm takes 40 times as long
        good = np.isfinite(lengths) & (lengths > 0)
        if not good.all():
            rows, offsets, vectors, lengths = (a[good] for a in (rows, offsets, vectors, lengths))
        if source not in self._names:
            self._names.append(source)
        size, first = len(self._rows), 0
        while first < len(rows):  # more than once where it goes over the end
            at = self._count % size
            count = min(size - at, len(rows) - first)
            here, part = slice(at, at + count), slice(first, first + count)
            np.divide(vectors[part], lengths[part, None], out=self._vectors[here])
            self._rows[here], self._offsets[here] = rows[part], offsets[part]
            self._sources[here] = self._names.index(source)
            self._count += count
            first += count
        if self._count > size:
            self.first_row = int(self._rows[self._count % size])

    def nearest(self, query: Vectors, k: int, last_row: int) -> list[Hit]:
        """The best k of the rows up to ``last_row``; ``query`` is (dim,) and of unit length."""
        away = self._vectors[: len(self)] @ query
        np.negative(away, out=away)
        away[self._rows[: len(self)] > last_row] = np.inf
        found = np.argpartition(away, k - 1)[:k] if k < len(away) else np.arange(len(away))
        found = found[np.isfinite(away[found])]
        return best([self._hit(at, -float(away[at])) for at in found.tolist()], k)

    def _hit(self, at: int, cosine: float) -> Hit:
        topic, partition = self._names[self._sources[at]]
        return Hit(topic, partition, int(self._offsets[at]), cosine)


def unit(vector: npt.ArrayLike) -> Vectors | None:
    """The vector at length 1, (dim,); None when it has no direction."""
    values = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(values))
    return values / np.float32(length) if np.isfinite(length) and length > 0 else None


def best(hits: Iterable[Hit], k: int) -> list[Hit]:
    """The best k, each event once."""
    ordered: Sequence[Hit] = sorted(hits, key=lambda hit: (-hit.cosine, hit[:3]))
    return list({hit[:3]: hit for hit in ordered[::-1]}.values())[::-1][:k]
