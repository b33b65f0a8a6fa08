"""multiprocessing.shared_memory and NumPy, as a careful user would do it: a seqlock for every slot.

Right on x86 only, where stores become visible in program order; no wake-up, no recovery after a
kill, no check of what is mapped, no count of frames across restarts.
"""

import time
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
from ring.rows import RECORD_BYTES, Shape

_HEAD_BYTES = 128
_POLL_S = 0.000_05
_made_here: set[str] = set()


class Mapped:
    """The arrays of both sides."""

    def __init__(self, name: str, shape: Shape, *, create: bool) -> None:
        vectors_at = -(-(_HEAD_BYTES + shape.capacity * (RECORD_BYTES + 8)) // 4096) * 4096
        size = vectors_at + shape.capacity * shape.vector_bytes
        self.memory = shared_memory.SharedMemory(name, create, size)
        if create:
            _made_here.add(name)
            np.ndarray((size,), "u1", self.memory.buf)[::4096] = (
                0  # the pages are there from now on
            )
        elif name not in _made_here:  # or our end takes the writer's memory away (cpython#82300)
            resource_tracker.unregister(f"/{name}", "shared_memory")
        buffer, n = self.memory.buf, shape.capacity
        self.capacity, self.dim = n, shape.dim
        self.head: Any = np.ndarray((1,), "<u8", buffer)
        self.stamps: Any = np.ndarray((n,), "<u8", buffer, _HEAD_BYTES)
        self.records: Any = np.ndarray((n, RECORD_BYTES), "u1", buffer, _HEAD_BYTES + 8 * n)
        self.vectors: Any = np.ndarray((n, shape.dim), "<f4", buffer, vectors_at)
        self.ids = np.arange(max(n, shape.batch), dtype=np.uint64)

    def close(self) -> None:
        for name in ("head", "stamps", "records", "vectors"):
            delattr(self, name)
        self.memory.close()


class SeqlockWriter:
    """Odd stamp, data, even stamp, head; a batch in at most two pieces."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.at = Mapped(name, shape, create=True)
        self._next = 0

    def write(self, records: Any, vectors: Any) -> None:
        at, first, n = self.at, self._next, len(vectors)
        slot = first & (at.capacity - 1)
        if n == 1:
            at.stamps[slot] = 2 * first + 1
            at.records[slot] = records.view("u1")
            at.vectors[slot] = vectors[0]
            at.stamps[slot] = 2 * first + 2
        else:
            cut = min(n, at.capacity - slot)
            self._piece(slot, first, records[:cut], vectors[:cut])
            if cut < n:
                self._piece(0, first + cut, records[cut:], vectors[cut:])
        self._next = first + n
        at.head[0] = first + n

    def _piece(self, slot: int, first: int, records: Any, vectors: Any) -> None:
        at, n = self.at, len(vectors)
        place, writing = slice(slot, slot + n), 2 * (at.ids[:n] + np.uint64(first)) + 1
        at.stamps[place] = writing
        at.records[place] = records.view("u1").reshape(n, RECORD_BYTES)
        at.vectors[place] = vectors
        at.stamps[place] = writing + 1

    def close(self) -> None:
        memory = self.at.memory
        self.at.close()
        memory.unlink()


class SeqlockReader:
    """Stamps before, copy, stamps after; rows whose stamps are not both even and theirs are lost."""

    def __init__(self, name: str, shape: Shape, poll_s: float = _POLL_S) -> None:
        self.at = Mapped(name, shape, create=False)
        self._want, self._batch, self._poll_s = int(self.at.head[0]), shape.batch, poll_s
        self.lost = 0

    def read(self) -> tuple[Any, Any] | None:
        at, head = self.at, int(self.at.head[0])
        if head == self._want:
            return None
        if head - self._want > at.capacity:
            # Not the oldest: the writer would overtake it again before it is copied.
            self.lost += head - at.capacity // 2 - self._want
            self._want = head - at.capacity // 2
        first, slot = self._want, self._want & (at.capacity - 1)
        if self._batch == 1:
            before = int(at.stamps[slot])
            records, vectors = (
                at.records[slot : slot + 1].copy(),
                at.vectors[slot : slot + 1].copy(),
            )
            good = before == 2 * first + 2 and int(at.stamps[slot]) == before
            self._want, self.lost = first + 1, self.lost + (not good)
            return (records, vectors) if good else None
        n = min(self._batch, head - first, at.capacity - slot)
        place, valid = slice(slot, slot + n), 2 * (at.ids[:n] + np.uint64(first)) + 2
        before = at.stamps[place] == valid
        records, vectors = at.records[place].copy(), at.vectors[place].copy()
        kept = before & (at.stamps[place] == valid)
        self._want = first + n
        if kept.all():
            return records, vectors
        self.lost += n - int(kept.sum())
        return (records[kept], vectors[kept]) if kept.any() else None

    def wait(self, timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        while int(self.at.head[0]) == self._want and time.monotonic() < end_s:
            time.sleep(self._poll_s)

    def close(self) -> None:
        self.at.close()
