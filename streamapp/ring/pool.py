"""Arrays that reads fill, used again once nobody holds anything of what was handed out.

Making them anew would cost more than the copy: NumPy takes a microsecond for an array of a
structured type with 27 fields, and the system clears the pages of large ones.  Arrays count who
holds them, a name, a view, a tensor; where nobody but the pool does, nobody can see them change.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamapp.ring.layout import RECORD_DTYPE, Array, RingSpec

#: Larger ones are not kept: their pages cost little beside their copies, and would be missed.
_BYTES_MAX = 8 << 20


class Pool:
    """The arrays of one reader, in one thread: some in its caller's hands, some to fill.

    Args:
        spec: the ring's shape.
        spare: :meth:`streamapp.ring.engine.Operations.spare`.
    """

    def __init__(self, spec: RingSpec, spare: Callable[[list[Any], int], bool]) -> None:
        self._columns = [(column.dim, np.dtype(column.dtype)) for column in spec.columns]
        row_bytes = RECORD_DTYPE.itemsize + sum(column.row_bytes for column in spec.columns)
        self._rows_max = _BYTES_MAX // row_bytes
        self._spare = spare
        # Two in turn: a loop holds what it works on while the next is read.
        self._kept, self._next = self._new(0), self._new(0)

    def take(self, n: int) -> tuple[Array, tuple[Array, ...]]:
        """Records and columns of n rows that nobody else holds; what is in them is of no use."""
        kept = self._next
        self._next, self._kept = self._kept, kept
        if not self._spare(kept, n):
            new = self._new(n)
            if n > self._rows_max:
                return new[0], new[1]
            kept[:] = new
        return kept[0], kept[1]

    def _new(self, n: int) -> list[Any]:
        columns = tuple(np.empty((n, dim), dtype) for dim, dtype in self._columns)
        return [np.empty(n, RECORD_DTYPE), columns]
