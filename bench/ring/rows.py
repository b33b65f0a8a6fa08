"""What every contender moves: rows of a 128-byte record and one vector of float32."""

from typing import Any, NamedTuple

import numpy as np

from streamapp.ring import RECORD_DTYPE

RECORD_BYTES = 128
#: Where a record has its time, in words of eight bytes.
_TIME_WORD = 2


class Shape(NamedTuple):
    """Rows in the ring, values in a vector, rows in a batch."""

    capacity: int = 8192
    dim: int = 384
    batch: int = 1

    @property
    def vector_bytes(self) -> int:
        return 4 * self.dim

    @property
    def row_bytes(self) -> int:
        return RECORD_BYTES + self.vector_bytes

    @property
    def ring_bytes(self) -> int:
        return self.capacity * self.row_bytes


def batch_of(shape: Shape) -> tuple[Any, Any]:
    """Records and vectors that a writer writes again and again."""
    dice = np.random.default_rng(7)
    records = np.zeros(shape.batch, RECORD_DTYPE)
    return records, dice.standard_normal((shape.batch, shape.dim), np.float32)


def stamp(records: Any, now_ns: int) -> None:
    """Write into the first record when it was sent."""
    records.view("<i8")[_TIME_WORD] = now_ns


def sent_ns(records: Any) -> int:
    """What :func:`stamp` wrote."""
    return int(records.reshape(-1).view("<i8")[_TIME_WORD])
