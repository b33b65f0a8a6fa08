"""The file itself as NumPy arrays: no copy, and therefore a check after use."""

from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.frames import Frames
from streamapp.ring.layout import Array, State
from streamapp.ring.opening import Closed, map_readable, oldest


class Window(Frames):
    """Rows where they lie.  The writer may overwrite them: ask :meth:`valid` after using them.

    ``semantic`` and the other tensor columns are read-only views of the file, contiguous and
    without a copy; ``records`` is a copy (128 bytes a row) with the stamps from before the use.

    Attributes:
        first: frame id of row 0.
    """

    __slots__ = ("_map", "first")

    def __init__(self, mapping: Mapping, first: int, n: int) -> None:
        slots = np.arange(first, first + n, dtype=np.uint64) & np.uint64(mapping.spec.capacity - 1)
        records = mapping.records[slots]  # before the columns: its stamps are the ones that count
        rows = {name: mapping.window(name, first, n) for name in mapping.columns}
        views = tuple(view for view in rows.values() if view is not None)
        super().__init__(records, tuple(rows), views)
        self.first = first
        self._map = mapping

    def valid(self) -> npt.NDArray[np.bool_]:
        """Which rows (n,) were whole all the time from the making of this window until now.

        What was computed from a row holds if its entry is True.  False: the writer came by, or a
        killed writer never finished the row.
        """
        claim = self._map.ops.claim()  # with the fence that orders it after the use
        ids = np.arange(self.first, self.first + len(self), dtype=np.uint64)
        whole: npt.NDArray[np.bool_] = self.records["stamp"] == 2 * ids + 2
        there: npt.NDArray[np.bool_] = ids + np.uint64(self._map.spec.capacity) >= claim
        return whole & there


class Ring:
    """A ring's file as read-only NumPy arrays.  Row ``frame_id`` is at ``frame_id % capacity``.

    The arrays own their mapping: they stay usable when the ring is closed or removed.  For reading
    in order there is :class:`streamapp.ring.RingReader`; this is for computing on rows in place,
    or for sending them to a device without a copy on the way.

    Attributes:
        path: the ring's file.
        capacity: rows.
    """

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self.path = path
        self.capacity = mapping.spec.capacity
        self._map = mapping

    @classmethod
    def open(cls, path: Path | str, *, engine: EngineName = "c") -> Self:
        """Map the ring at ``path``.

        Raises:
            Refuse: as :meth:`streamapp.ring.RingReader.open`.
        """
        path = Path(path)
        return cls(path, map_readable(path, engine))

    @property
    def records(self) -> Array:
        """The records, (capacity,) of RECORD_DTYPE."""
        return self._map.records

    @property
    def columns(self) -> dict[str, Array]:
        """Every tensor column by name, (capacity, dim) each."""
        return dict(self._map.columns)

    @property
    def semantic(self) -> Array:
        """The first of the columns."""
        return self._map.semantic

    def head(self) -> int:
        """The frame id that comes next; rows below it are there."""
        return self._map.ops.head()

    def claim(self) -> int:
        """The first frame id that the writer has not begun; rows below it - capacity are gone.

        The load is ordered after every read before the call, on every CPU.
        """
        return self._map.ops.claim()

    @property
    def retired(self) -> bool:
        """Is another file at the path now?  Nothing comes to this one any more: open it again."""
        return self._map.word("state") == State.RETIRED

    def window(self, first: int, n: int) -> Window:
        """The rows that are there of frame ids ``first`` to ``first + n``, without a copy.

        It begins later where rows were overwritten, ends earlier at the newest, and also at the
        end of the file when a column cannot be mapped twice in a row (its bytes are no multiple
        of a page; every ring of 4,096 frames or more can).  Go on at ``first + len(window)``.
        """
        end = min(first + n, self.head())  # before the oldest, so that it is not a lap ahead of it
        first = max(first, oldest(self._map))
        if end > first and any(
            self._map.window(name, first, end - first) is None for name in self._map.columns
        ):
            end = (first // self.capacity + 1) * self.capacity
        return Window(self._map, first, max(0, end - first))

    def latest(self, n: int = 1) -> Window:
        """The newest ``n`` rows, or as many of them as lie in one piece."""
        head = self.head()
        window = self.window(head - n, n)
        end = window.first + len(window)
        return window if end == head else self.window(end, head - end)

    def close(self) -> None:
        """Let go of the arrays; the mapping ends with the last that anybody holds."""
        self._map = cast("Any", Closed(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
