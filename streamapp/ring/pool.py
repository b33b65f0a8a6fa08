"""Frames that reads fill, used again once nobody holds anything of what was handed out.

Making them anew would cost more than the copy: NumPy takes a microsecond for an array of a
structured type with 27 fields, and the system clears the pages of large ones.  Objects count who
holds them, a name, a view, a tensor; where nobody but the pool does, nobody can see them change.
"""

from sys import getrefcount

import numpy as np

from streamapp.ring.frames import Frames
from streamapp.ring.layout import RECORD_DTYPE, RingSpec

#: Larger ones are not kept: their pages cost little beside their copies, and would be missed.
_FRAMES_BYTES_MAX = 8 << 20


def _holders(frames: Frames) -> int:
    count = getrefcount(frames) + getrefcount(frames.records) + getrefcount(frames.arrays)
    for array in frames.arrays:
        count += getrefcount(array)
    return count


class Pool:
    """The frames of one reader, in one thread: some in its caller's hands, some to fill."""

    def __init__(self, spec: RingSpec) -> None:
        self._names = tuple(column.name for column in spec.columns)
        self._columns = [(column.dim, np.dtype(column.dtype)) for column in spec.columns]
        row_bytes = RECORD_DTYPE.itemsize + sum(column.row_bytes for column in spec.columns)
        self._rows_max = _FRAMES_BYTES_MAX // row_bytes
        self._kept = [self._new(0), self._new(0)]
        self._rows = [0, 0]
        self._alone = _holders(self._kept[0])  # held by the list and by nobody else
        self._turn = 0

    def take(self, n: int) -> Frames:
        """Frames of exactly n rows that nobody else holds; what is in them is of no use."""
        self._turn = turn = self._turn ^ 1
        if self._rows[turn] == n and _holders(self._kept[turn]) == self._alone:
            return self._kept[turn]
        frames = self._new(n)
        if n <= self._rows_max:
            self._kept[turn], self._rows[turn] = frames, n
        return frames

    def _new(self, n: int) -> Frames:
        columns = tuple(np.empty((n, dim), dtype) for dim, dtype in self._columns)
        return Frames(np.empty(n, RECORD_DTYPE), self._names, columns)
