"""Records that stay where they arrived: buffers, and where in them the parts of each record are.

A Python object per record would cost more than the rest of its way through a transport.  So here
are none until somebody asks for a record; who reads many (``topics.columns``) reads the buffers.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from streamapp.core.slice import Headers, RecordLike

#: A row of :attr:`Part.places`, as ``struct packed_place`` of ``_packed.h``; a size of -1 means
#: that there is none, ``timestamp_type`` is Kafka's.
PLACE = np.dtype(
    [
        ("offset", np.int64),
        ("timestamp", np.int64),
        ("timestamp_type", np.int32),
        ("key_at", np.int32),
        ("key_size", np.int32),
        ("value_at", np.int32),
        ("value_size", np.int32),
        ("headers_at", np.int32),
        ("headers_size", np.int32),
        ("unused", np.int32),
    ]
)


class PackedRecord(NamedTuple):
    """A record that was asked for; ``timestamp_type`` is 1 when the log set the timestamp."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_type: int


class Part(NamedTuple):
    """Some records of one buffer: their :data:`PLACE` rows, in offset order."""

    data: memoryview
    places: npt.NDArray[np.void]


class Packed(Sequence[PackedRecord]):
    """Records in offset order, in the buffers of one or more fetches; immutable."""

    __slots__ = ("_ends", "parts")

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts = tuple(part for part in parts if len(part.places))
        self._ends = list(accumulate(len(part.places) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> PackedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PackedRecord]: ...
    def __getitem__(self, index: int | slice) -> PackedRecord | Sequence[PackedRecord]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return (
                self.cut(start, stop) if step == 1 else [self[n] for n in range(start, stop, step)]
            )
        at = range(len(self))[index]
        number = bisect_right(self._ends, at)
        part = self.parts[number]
        return _record(part.data, part.places[at - self._ends[number]].item())

    def __iter__(self) -> Iterator[PackedRecord]:
        for part in self.parts:
            for place in part.places.tolist():
                yield _record(part.data, place)

    def __add__(self, other: "Packed") -> Self:
        return type(self)(self.parts + other.parts)

    def __repr__(self) -> str:
        return f"Packed({len(self)} records)"

    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each record's key and value."""
        keys, values = self.column("key_size"), self.column("value_size")
        sizes: npt.NDArray[np.int64] = np.add(
            np.maximum(keys, 0), np.maximum(values, 0), dtype=np.int64
        )
        return sizes

    def column(self, name: str) -> npt.NDArray[Any]:
        """One field of :data:`PLACE`, of all records."""
        return np.concatenate([np.empty(0, PLACE[name]), *(p.places[name] for p in self.parts)])

    def cut(self, start: int, stop: int) -> Self:
        """The records from place ``start`` to before ``stop``, as far as there are any."""
        parts, first = [], 0
        for part, end in zip(self.parts, self._ends, strict=True):
            parts.append(Part(part.data, part.places[max(start - first, 0) : max(stop - first, 0)]))
            first = end
        return type(self)(parts)


def value_bytes(records: Sequence[RecordLike]) -> int:
    """Bytes of all values together."""
    if isinstance(records, Packed):
        return int(np.maximum(records.column("value_size"), 0).sum(dtype=np.int64))
    return sum(len(record.value or b"") for record in records)


def _record(data: memoryview, place: tuple[int, ...]) -> PackedRecord:
    offset, timestamp, kind, key_at, key_size, value_at, value_size, at, size, _ = place
    return PackedRecord(
        offset,
        timestamp,
        None if key_size < 0 else bytes(data[key_at : key_at + key_size]),
        None if value_size < 0 else bytes(data[value_at : value_at + value_size]),
        tuple(_headers(bytes(data[at : at + size]))) if size else (),
        kind,
    )


def pack_headers(headers: Headers) -> bytes:
    """Headers as they are behind their count in a record of Kafka's."""
    packed = bytearray()
    for name, value in headers:
        for text in (name.encode(), value):
            packed += _sized(len(text)) + text
    return bytes(packed)


def _sized(size: int) -> bytes:
    """A size as a zigzag varint."""
    bits, data = size << 1, bytearray()
    while bits >= 0x80:
        data.append(bits & 0x7F | 0x80)
        bits >>= 7
    data.append(bits)
    return bytes(data)


def _headers(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A header without a value (Kafka has them) has an empty one here."""
    texts, at = [], 0
    while at < len(data):
        size = data[at]
        if size & 0x81:  # more than this byte, or less than none
            size, at = _varint(data, at)
            size = max(size, 0)
        else:  # as most are
            size, at = size >> 1, at + 1
        end = at + size
        texts.append(data[at:end])
        at = end
    names = [name.decode(errors="replace") for name in texts[::2]]  # as Kafka's own clients do
    return zip(names, texts[1::2], strict=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    bits = shift = 0
    while True:
        byte = data[at]
        at += 1
        bits |= (byte & 0x7F) << shift
        if byte < 0x80:  # no byte follows
            return bits >> 1 ^ -(bits & 1), at
        shift += 7
