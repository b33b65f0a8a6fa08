"""Offsets that are done: half-open ranges, sets of them, and the Ledger of many partitions.

One type serves everyone who must know what was already handled: the transports' acknowledgement,
the store's exactly-once filter, the mirror's restart and the enrich agent's replay.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class OffsetRange(NamedTuple):
    """Offsets ``first <= offset < next`` of one partition of one topic."""

    topic: str
    partition: int
    first: int
    next: int

    @property
    def size(self) -> int:
        """How many offsets."""
        return self.next - self.first

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}[{self.first},{self.next})"


class RangeSet:
    """A set of non-negative integers held as sorted, disjoint, non-touching half-open ranges.

    ``add`` at the end (the usual case) is O(1); anywhere else O(ranges).
    """

    __slots__ = ("_first", "_next")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._next: list[int] = []
        for first, next_ in ranges:
            self.add(first, next_)

    def add(self, first: int, next_: int) -> None:
        """Add ``[first, next_)``, joined with what it touches; an empty range is ignored."""
        if next_ <= first:
            return
        if not self._next or first > self._next[-1]:
            self._first.append(first)
            self._next.append(next_)
            return
        low = bisect_left(self._next, first)
        high = bisect_right(self._first, next_)
        if low < high:
            first = min(first, self._first[low])
            next_ = max(next_, self._next[high - 1])
        self._first[low:high] = [first]
        self._next[low:high] = [next_]

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._first, offset) - 1
        return index >= 0 and offset < self._next[index]

    def covers(self, first: int, next_: int) -> bool:
        """True when every offset of ``[first, next_)`` is in the set."""
        index = bisect_right(self._first, first) - 1
        return next_ <= first or (index >= 0 and next_ <= self._next[index])

    def missing(self, first: int, next_: int) -> list[tuple[int, int]]:
        """The parts of ``[first, next_)`` that are not in the set, in order."""
        holes: list[tuple[int, int]] = []
        at = first
        for index in range(bisect_right(self._next, first), len(self._first)):
            if self._first[index] >= next_:
                break
            if self._first[index] > at:
                holes.append((at, self._first[index]))
            at = max(at, self._next[index])
        if at < next_:
            holes.append((at, next_))
        return holes

    def prefix_end(self, start: int) -> int:
        """The first offset at or after ``start`` that is not in the set: what a commit may say."""
        index = bisect_right(self._first, start) - 1
        return max(start, self._next[index]) if index >= 0 else start

    def mask(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """For each offset (any shape, any order): is it in the set?"""
        if not self._first:
            return np.zeros(offsets.shape, np.bool_)
        index = np.searchsorted(np.asarray(self._first, np.int64), offsets, side="right") - 1
        ends = np.asarray(self._next, np.int64)[np.maximum(index, 0)]
        return (index >= 0) & (offsets < ends)

    @property
    def end(self) -> int:
        """One past the largest offset; 0 for the empty set."""
        return self._next[-1] if self._next else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._first, self._next, strict=True))

    def __len__(self) -> int:
        """Number of disjoint ranges (not of offsets)."""
        return len(self._first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"


class Ledger:
    """One RangeSet per (topic, partition): the source offsets already stored or mirrored."""

    __slots__ = ("_sets",)

    def __init__(self, ranges: Iterable[OffsetRange] = ()) -> None:
        self._sets: dict[tuple[str, int], RangeSet] = {}
        for range_ in ranges:
            self.add(range_)

    def of(self, topic: str, partition: int) -> RangeSet:
        """The (live, mutable) set of one partition; empty and kept when it was unknown."""
        return self._sets.setdefault((topic, partition), RangeSet())

    def add(self, range_: OffsetRange) -> None:
        """Add one range."""
        self.of(range_.topic, range_.partition).add(range_.first, range_.next)

    def holes(self) -> list[OffsetRange]:
        """Ranges between covered ranges, which a later record may still fill."""
        return [
            OffsetRange(topic, partition, first, next_)
            for (topic, partition), done in sorted(self._sets.items())
            if len(done)
            for first, next_ in done.missing(next(iter(done))[0], done.end)
        ]

    def __iter__(self) -> Iterator[OffsetRange]:
        for (topic, partition), done in sorted(self._sets.items()):
            for first, next_ in done:
                yield OffsetRange(topic, partition, first, next_)
