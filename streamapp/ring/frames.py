"""What a reader gets: rows copied out of the ring, by column or one by one."""

from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from streamapp.ring.layout import FLOATS_DTYPE, RECORD_DTYPE, Array

_NAMES = frozenset(RECORD_DTYPE.names or ())


class Frame:
    """One row: ``semantic`` of shape (dim,), and every record field as an attribute."""

    __slots__ = ("_record", "semantic")

    def __init__(self, record: np.void, semantic: Array) -> None:
        self._record = record
        self.semantic = semantic

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"a frame has no field {name!r}")
        value = self._record[name]
        return value if isinstance(value, np.ndarray) else value.item()

    def __repr__(self) -> str:
        return f"Frame({self.frame_id})"


class Frames:
    """Rows in order of ``frame_id``, and how many the reader did not get.

    Every record field is an attribute of shape (n,) (``frames.sentiment``), ``spin`` of shape (n,
    4).  The arrays are the reader's own: keep them, change them, hand them to torch.

    Attributes:
        records: (n,) of RECORD_DTYPE.
        semantic: (n, dim), C-contiguous.
        lost: rows overwritten before this read came to them.
        void: rows that a killed writer never finished.
    """

    __slots__ = ("lost", "records", "semantic", "void")

    def __init__(self, records: Array, semantic: Array, lost: int = 0, void: int = 0) -> None:
        self.records = records
        self.semantic = semantic
        self.lost = lost
        self.void = void

    @property
    def floats(self) -> npt.NDArray[np.float32]:
        """View (n, 12) of the float fields in order, ``delta_time`` to ``attractor_pull``."""
        block: npt.NDArray[np.float32] = self.records.view(FLOATS_DTYPE)["floats"]
        return block

    def __getattr__(self, name: str) -> Array:
        if name not in _NAMES:
            raise AttributeError(f"frames have no field {name!r}")
        column: Array = self.records[name]
        return column

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "Frames": ...
    def __getitem__(self, index: int | slice) -> "Frame | Frames":
        if isinstance(index, slice):
            return Frames(self.records[index], self.semantic[index])
        return Frame(self.records[index], self.semantic[index])

    def __iter__(self) -> Iterator[Frame]:
        for record, vector in zip(self.records, self.semantic, strict=True):
            yield Frame(record, vector)

    def __repr__(self) -> str:
        return f"Frames({len(self)} rows, {self.lost} lost, {self.void} void)"
