"""A Slice: the raw records that one fetch returned for one partition, with their range."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from streamapp.core.ranges import OffsetRange

Headers = Sequence[tuple[str, bytes]]


class RecordLike(Protocol):
    """What we read of a log record; ``aiokafka.ConsumerRecord`` and :class:`Record` both fit."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Record(NamedTuple):
    """One record of a log.

    ``timestamp`` is Unix time in milliseconds (Kafka's unit); a ``value`` of None is a tombstone.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


_OFFSET = attrgetter("offset")


class ByOffset(Mapping[int, RecordLike]):
    """Records in offset order, each found by its offset; no other is made."""

    def __init__(self, records: Sequence[RecordLike]) -> None:
        self._records = records

    def __getitem__(self, offset: int) -> RecordLike:
        at = bisect_left(self._records, offset, key=_OFFSET)
        if at < len(self._records) and (found := self._records[at]).offset == offset:
            return found
        raise KeyError(offset)

    def __iter__(self) -> Iterator[int]:
        return map(_OFFSET, self._records)

    def __len__(self) -> int:
        return len(self._records)


class Slice:
    """Records of one partition in offset order, with the range they stand for.

    ``range.first`` is the position that was asked for and ``range.next`` the position after the
    last record, so the range covers offsets that the log skips (compaction, transaction markers).
    It is the unit that a transport delivers and the unit that is acknowledged.
    """

    __slots__ = ("range", "records")

    def __init__(self, range_: OffsetRange, records: Sequence[RecordLike]) -> None:
        self.range = range_
        self.records = records

    @property
    def offset(self) -> int:
        """First offset of the range; Faust names the message by it."""
        return self.range.first

    def since(self, position: int) -> "Slice":
        """What of it is at or after ``position``, where its range then begins."""
        topic, partition, _, next_ = self.range
        at = bisect_left(self.records, position, key=_OFFSET)
        return Slice(OffsetRange(topic, partition, position, next_), self.records[at:])

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Slice({self.range}, {len(self.records)} records)"
