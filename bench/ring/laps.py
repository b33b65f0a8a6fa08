"""Our writer and reader from Python beside memcpy of the same bytes to the same places, in turns.

memcpy is ``np.copyto`` of contiguous bytes: for each batch one of the records and one of the
vectors.  The two go round half a ring apart and change turns, so that each finds its slots as long
ago touched.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ring.copies import ring_file, summary
from ring.measured import main
from ring.rows import RECORD_BYTES, Shape, batch_of

from streamapp.ring import RingReader, RingSpec, RingWriter

#: Does something with so many rows from a first one on.
Take = Callable[[int, int], None]


def measure(task: Any) -> dict[str, float]:
    """Medians of what chunks cost, ns a row, and of the ratios to memcpy chunk by chunk."""
    shape = Shape(*task["shape"])
    records, vectors = batch_of(shape)
    with ring_file(shape) as place:
        spec, plain = RingSpec(shape.dim, shape.capacity), Memcpy(place, shape, records, vectors)
        with RingWriter.open(place.path, spec) as writer, RingReader.open(place.path) as reader:

            def write(_: int, rows: int) -> None:
                put = writer.write
                for _ in range(0, rows, shape.batch):
                    put(records, vectors)

            def read(first: int, rows: int) -> None:
                if first % shape.capacity == 0:
                    reader.position = writer.next_frame_id - shape.capacity
                take = reader.read
                for _ in range(0, rows, shape.batch):
                    take(shape.batch)

            for take in (plain.into, write, read):  # the pages are in every mapping from now on
                take(0, shape.capacity)
            found = in_turns("write", "memcpy in", write, plain.into, task)
            write(0, shape.capacity)
            found |= in_turns("read", "memcpy out", read, plain.out, task)
            if reader.lag or reader.lost:
                raise AssertionError("nobody wrote meanwhile: every row was there")
    return found


def in_turns(name: str, memcpy: str, ours: Take, plain: Take, task: Any) -> dict[str, float]:
    """Of one against the other, half a ring apart."""
    shape, chunk, pairs = Shape(*task["shape"]), task["chunk"], []
    for turn, first in enumerate(range(0, task["laps"] * shape.capacity, chunk)):
        places = {plain: first + shape.capacity // 2, ours: first}
        order = (ours, plain) if turn % 2 else (plain, ours)
        spent = {take: ns_a_row(take, places[take], chunk) for take in order}
        pairs.append((spent[plain], spent[ours]))
    return summary(name, memcpy, pairs)


class Memcpy:
    """Into the ring and out of it, by a mapping of its own."""

    def __init__(self, place: Any, shape: Shape, records: Any, vectors: Any) -> None:
        whole: Any = np.memmap(place.path, np.uint8, "r+").view(
            np.ndarray
        )  # slices of that are dear
        n = shape.capacity
        ends = place.record_off + n * RECORD_BYTES
        self._records = whole[place.record_off : ends].reshape(n, RECORD_BYTES)
        ends = place.column_off + n * shape.vector_bytes
        self._vectors = whole[place.column_off : ends].reshape(n, shape.vector_bytes)
        self._given = records.view("u1").reshape(-1, RECORD_BYTES), vectors.view("u1")
        self._taken = self._given[0].copy(), self._given[1].copy()
        self._shape = shape

    def into(self, first: int, rows: int) -> None:
        for slots in self._slots(first, rows):
            np.copyto(self._records[slots], self._given[0])
            np.copyto(self._vectors[slots], self._given[1])

    def out(self, first: int, rows: int) -> None:
        for slots in self._slots(first, rows):
            np.copyto(self._taken[0], self._records[slots])
            np.copyto(self._taken[1], self._vectors[slots])

    def _slots(self, first: int, rows: int) -> Iterator[slice]:
        batch, capacity = self._shape.batch, self._shape.capacity
        for at in range(first, first + rows, batch):
            yield slice(at % capacity, at % capacity + batch)


def ns_a_row(take: Take, first: int, rows: int) -> float:
    """Of so many rows from ``first`` on."""
    started = time.perf_counter_ns()
    take(first, rows)
    return (time.perf_counter_ns() - started) / rows


if __name__ == "__main__":
    main(measure)
