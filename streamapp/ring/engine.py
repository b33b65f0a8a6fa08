"""A mapped ring: NumPy views of its parts, and the operations that one of two engines does on it.

Engine ``c`` is the extension ``_ring``: atomics, fences, futex.  Engine ``twin`` is the same in
NumPy: the oracle of the tests, right on x86 only (NumPy has no fences) and without wake-ups.
Nobody is switched from one to the other silently.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.ring.layout import (
    HEADER_DTYPE,
    RECORD_DTYPE,
    RECORD_OFF,
    SOURCE_DTYPE,
    SOURCES_MAX,
    SOURCES_OFF,
    Array,
    Geometry,
)

EngineName = Literal["c", "twin"]
Arrays = tuple[Array, ...]


class Operations(Protocol):
    """What an engine does; seqs and counts are plain ints, arrays are C-contiguous.

    ``columns`` are arrays (n, dim), one for each column of the file, in its order and of its dtype.
    """

    def write(self, records: Array, columns: Arrays, positions: Array, /) -> int:
        """Commit rows, then positions of shape (k, 3) u64; returns the first seq."""
        ...

    def writer(self, instead: Callable[..., int], /) -> Callable[..., int]:
        """What commits ``(records, *columns)`` that need no check and no conversion.

        It calls ``instead`` with whatever else it gets.
        """
        ...

    def reserve(self, n: int, /) -> int:
        """Claim n rows, to be filled in place; returns the first seq."""
        ...

    def commit(self, records: Array, keep: Array | None, positions: Array, /) -> int:
        """Publish the reserved rows; those with ``keep`` (n,) u8 zero become void."""
        ...

    def abandon(self) -> int:
        """Let the reserved rows become void; returns the first seq."""
        ...

    def read(self, want: int, records: Array, columns: Arrays, /) -> tuple[int, int, int, int]:
        """Copy rows from ``want`` on into the arrays; returns kept, next, lost, void."""
        ...

    def spare(self, kept: list[Any], n: int, /) -> bool:
        """Can ``kept``, records and a tuple of columns, be filled with n rows again, unseen?"""
        ...

    def head(self) -> int:
        """First seq that is not committed."""
        ...

    def claim(self) -> int:
        """First seq not yet claimed, loaded after everything that was read before."""
        ...

    def wait(self, want: int, spin_ns: int, timeout_ns: int, /) -> int:
        """Wait until head > want, the file is retired, or the time is over; returns head."""
        ...

    def salvage(self) -> int:
        """First half of a writer's start; returns the number of rows that became void."""
        ...

    def go_live(self, voids: int, /) -> None:
        """Second half of a writer's start."""
        ...

    def retire(self) -> None:
        """Tell readers that another file is at the path."""
        ...

    def seal(self) -> None:
        """Write no more through this mapping: the file has another writer, or may have."""
        ...


class Mapping:
    """A mapped file.  Every view owns a share of the mapping: it lives as long as the last of them.

    Attributes:
        ops: the engine's operations.
        header: 0-d view of the header page.
        sources: view (64,) of the sources page.
        records: view (capacity,) of the records.
        columns: views (capacity, dim) by column name, in the file's order.
        semantic: the first of them.
    """

    def __init__(self, fd: int, geometry: Geometry, *, writable: bool, engine: EngineName) -> None:
        self.geometry = geometry
        self.spec = spec = geometry.spec
        self.identity = os.fstat(fd).st_dev, os.fstat(fd).st_ino
        self._memory = memory = _memory(fd, geometry, writable=writable, engine=engine)
        self._mirrors: dict[str, Array | None] = {}
        self.header: Array = np.ndarray((), HEADER_DTYPE, memory)
        self.sources: Array = np.ndarray((SOURCES_MAX,), SOURCE_DTYPE, memory, SOURCES_OFF)
        self.records: Array = np.ndarray((spec.capacity,), RECORD_DTYPE, memory, RECORD_OFF)
        self.columns: dict[str, Array] = {
            column.name: np.ndarray((spec.capacity, column.dim), column.dtype, memory, offset)
            for column, offset in zip(spec.columns, geometry.offsets, strict=True)
        }
        self.semantic: Array = self.columns["semantic"]
        self.ops: Operations = memory if engine == "c" else _twin(self)

    def word(self, name: str) -> int:
        """One number of the header page."""
        return int(self.header[name])

    def window(self, name: str, first: int, n: int) -> Array | None:
        """Rows ``first`` to ``first + n`` of a column as one view (n, dim), also over the wrap.

        There the column is mapped a second time, behind its own end.  None when that cannot be: its
        bytes are not whole pages, or the engine is the twin.
        """
        capacity = self.spec.capacity
        if n > capacity:
            raise ValueError(f"a window of {n} rows on a ring of {capacity}")
        slot = first & (capacity - 1)
        column = self.columns[name] if slot + n <= capacity else self._mirror(name)
        return None if column is None else column[slot : slot + n]

    def _mirror(self, name: str) -> Array | None:
        if name not in self._mirrors:
            self._mirrors[name] = self._map_twice(name)
        return self._mirrors[name]

    def _map_twice(self, name: str) -> Array | None:
        if isinstance(self._memory, mmap.mmap):
            return None
        column = self.columns[name]
        with _mapping(column.nbytes * 2):
            memory = self._memory.mirror(list(self.columns).index(name))
        shape = (2 * len(column), column.shape[1])
        return None if memory is None else np.ndarray(shape, column.dtype, memory)


@contextmanager
def _mapping(size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refuse(
            "ring.memory",
            f"cannot map {size} bytes of a ring: {os.strerror(error.errno or 0)}",
            "give the process more address space (ulimit -v), or choose a smaller ring",
        ) from None


def _memory(fd: int, geometry: Geometry, *, writable: bool, engine: EngineName) -> Any:
    if engine == "twin":
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        with _mapping(geometry.file_bytes):
            return mmap.mmap(fd, geometry.file_bytes, mmap.MAP_SHARED, access)
    if engine != "c":
        raise Refuse("ring.engine", f"there is no ring engine {engine!r}", "choose 'c' or 'twin'")
    try:
        from streamapp.ring._ring import Ring
    except ImportError as error:
        raise Refuse(
            "ring.not_built",
            f"the ring's C extension cannot be loaded: {error}",
            "build it with `pip install -e .` (needs gcc), or choose the slow engine 'twin'",
        ) from None
    spec = geometry.spec
    dtypes = tuple(np.dtype(column.dtype) for column in spec.columns)
    places = tuple(
        (offset, column.dim, dtype.itemsize)
        for offset, column, dtype in zip(geometry.offsets, spec.columns, dtypes, strict=True)
    )
    types = ((RECORD_DTYPE, *dtypes), np.ndarray)
    with _mapping(geometry.file_bytes):
        return Ring(fd, geometry.file_bytes, spec.capacity, RECORD_OFF, places, *types, writable)


def _twin(mapping: Mapping) -> Operations:
    from streamapp.ring.twin import Twin

    columns = tuple(mapping.columns.values())
    return Twin(mapping.header, mapping.sources, mapping.records, columns)
