"""What a reader gets: rows by column, or one by one."""

from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from streamapp.ring.layout import FLOATS_DTYPE, RECORD_DTYPE, Array

#: What picks rows: a slice (a view), a mask or row numbers (a copy).
Rows = slice | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]] | list[int]

_NAMES = frozenset(RECORD_DTYPE.names or ())


class Frame:
    """One row: every record field is an attribute, and every tensor column, of shape (dim,).

    It is a pair of a batch and a row number: cheap to make, and it keeps its batch alive.
    """

    __slots__ = ("_frames", "_row")

    def __init__(self, frames: "Frames", row: int) -> None:
        self._frames = frames
        self._row = row

    @property
    def semantic(self) -> Array:
        """The row's embedding, shape (dim,)."""
        vector: Array = self._frames.semantic[self._row]
        return vector

    @property
    def columns(self) -> dict[str, Array]:
        """The row of every tensor column, shape (dim,) each."""
        return {name: rows[self._row] for name, rows in self._frames.columns.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _NAMES:
            field = self._frames.records[name]
            return field.item(self._row) if field.ndim == 1 else field[self._row]
        if name in self._frames.columns:
            return self._frames.columns[name][self._row]
        raise AttributeError(f"a frame has no field {name!r}")

    def __dir__(self) -> list[str]:
        return dir(self._frames)

    def __repr__(self) -> str:
        return f"Frame({self.frame_id})"


class Frames:
    """Rows in order of ``frame_id``, and how many the reader did not get.

    Every record field is an attribute of shape (n,) (``frames.sentiment``), ``spin`` of shape (n,
    4), and every tensor column one of shape (n, dim) (``frames.semantic``).  Indexed by a number
    they give a :class:`Frame`, by a slice, mask or row numbers Frames, by a name a field or column.

    The arrays are the caller's own: keep them, change them, hand them to torch.  ``numpy.asarray``
    and ``from_dlpack`` of NumPy and torch take the frames themselves for ``semantic``, without a
    copy.

    Attributes:
        records: (n,) of RECORD_DTYPE.
        arrays: the tensor columns (n, dim) each, in the file's order.
        lost: rows overwritten before this read came to them.
        void: rows that were never finished.
    """

    __slots__ = ("_names", "arrays", "lost", "records", "void")

    def __init__(
        self,
        records: Array,
        names: tuple[str, ...],
        arrays: tuple[Array, ...],
        lost: int = 0,
        void: int = 0,
    ) -> None:
        self.records = records
        self._names = names
        self.arrays = arrays
        self.lost = lost
        self.void = void

    @property
    def semantic(self) -> Array:
        """The embeddings, shape (n, dim), C-contiguous; the first of the columns."""
        return self.arrays[0]

    @property
    def columns(self) -> dict[str, Array]:
        """Every tensor column by name, shape (n, dim) each, in the file's order."""
        return dict(zip(self._names, self.arrays, strict=True))

    @property
    def floats(self) -> npt.NDArray[np.float32]:
        """View (n, 12) of the float fields in order, ``delta_time`` to ``attractor_pull``."""
        block: npt.NDArray[np.float32] = self.records.view(FLOATS_DTYPE)["floats"]
        return block

    def __getattr__(self, name: str) -> Array:
        if name in _NAMES:
            field: Array = self.records[name]
            return field
        if not name.startswith("_") and name in self._names:
            return self.arrays[self._names.index(name)]
        raise AttributeError(f"frames have no field {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *_NAMES, *self._names})

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.semantic, dtype, copy=copy)

    def __dlpack__(self, **how: Any) -> Any:
        return self.semantic.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.semantic.__dlpack_device__()
        return device

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Frame: ...
    @overload
    def __getitem__(self, index: str) -> Array: ...
    @overload
    def __getitem__(self, index: Rows) -> "Frames": ...
    def __getitem__(self, index: int | np.integer[Any] | str | Rows) -> "Frame | Array | Frames":
        if isinstance(index, str):
            return self.columns[index] if index in self._names else self.records[index]
        if not isinstance(index, int | np.integer):
            return self._rows(index)
        row = int(index) if index >= 0 else int(index) + len(self.records)
        if not 0 <= row < len(self.records):
            raise IndexError(f"row {index} of {len(self.records)}")
        return Frame(self, row)

    def upto(self, n: int) -> "Frames":
        """The first n of these rows, with the counts."""
        return self._rows(slice(n), self.lost, self.void)

    def _rows(self, rows: Rows, lost: int = 0, void: int = 0) -> "Frames":
        arrays = tuple(array[rows] for array in self.arrays)
        return Frames(self.records[rows], self._names, arrays, lost, void)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self, row) for row in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows, {self.lost} lost, {self.void} void)"
