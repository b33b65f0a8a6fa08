"""A mapped ring: NumPy views of its parts, and the operations that one of two engines does on it.

Engine ``c`` is the extension ``_ring``: atomics, fences, futex.  Engine ``twin`` is the same in
NumPy: the oracle of the tests, right on x86 only (NumPy has no fences) and without wake-ups.
Nobody is switched from one to the other silently.
"""

import mmap
import os
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


class Operations(Protocol):
    """What an engine does; seqs and counts are plain ints, arrays are C-contiguous."""

    def write(self, records: Array, rows: Array, positions: Array, /) -> int:
        """Commit rows, then positions of shape (k, 3) u64; returns the first seq."""
        ...

    def read(self, want: int, records: Array, rows: Array, /) -> tuple[int, int, int, int]:
        """Copy rows from ``want`` on into the arrays; returns kept, next, lost, void."""
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


class Mapping:
    """A mapped file.  Every view owns a share of the mapping: it lives as long as the last of them.

    Attributes:
        ops: the engine's operations.
        header: 0-d view of the header page.
        sources: view (64,) of the sources page.
        records: view (capacity,) of the records.
        semantic: view (capacity, dim) of the column.
    """

    def __init__(self, fd: int, geometry: Geometry, *, writable: bool, engine: EngineName) -> None:
        self.geometry = geometry
        self.spec = spec = geometry.spec
        self.identity = os.fstat(fd).st_dev, os.fstat(fd).st_ino
        memory = _memory(fd, geometry, writable=writable, engine=engine)
        self.header: Array = np.ndarray((), HEADER_DTYPE, memory)
        self.sources: Array = np.ndarray((SOURCES_MAX,), SOURCE_DTYPE, memory, SOURCES_OFF)
        self.records: Array = np.ndarray((spec.capacity,), RECORD_DTYPE, memory, RECORD_OFF)
        shape = (spec.capacity, spec.dim)
        self.semantic: Array = np.ndarray(shape, spec.dtype, memory, geometry.column_off)
        self.ops: Operations = memory if engine == "c" else _twin(self)

    def word(self, name: str) -> int:
        """One number of the header page."""
        return int(self.header[name])


def _memory(fd: int, geometry: Geometry, *, writable: bool, engine: EngineName) -> Any:
    if engine == "twin":
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
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
    place = (spec.capacity, RECORD_OFF, geometry.column_off, spec.row_bytes)
    return Ring(fd, geometry.file_bytes, *place, writable)


def _twin(mapping: Mapping) -> Operations:
    from streamapp.ring.twin import Twin

    return Twin(mapping.header, mapping.sources, mapping.records, mapping.semantic)
