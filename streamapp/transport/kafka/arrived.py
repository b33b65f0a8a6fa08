"""What one fetch brought of one partition, taken as aiokafka's C parser makes it.

``aiokafka.consumer.fetcher.PartitionRecords`` yields record by record through Python and builds a
dataclass for each.  Whole record batches (https://kafka.apache.org/documentation/#recordbatch) are
taken here, and their records stay what the parser made of them.
"""

from itertools import accumulate
from typing import Any

from aiokafka.errors import CorruptRecordException

from streamapp.core.slice import Record, RecordLike
from streamapp.transport.gather import Fetched


class Arrived:
    """Record batches that a fetch brought, for whom reads uncommitted, as Faust does.

    Args:
        batches: aiokafka's ``MemoryRecords``.
        position: the offset that was asked for; the first batch may begin below it.
        check_crcs: whether the batches' checksums are checked.
    """

    def __init__(self, batches: Any, position: int, *, check_crcs: bool) -> None:
        self._batches = batches
        self._check_crcs = check_crcs
        self._position = position
        #: Records of the last batch that there was no room for, and the offset after that batch.
        self._left: list[Any] = []
        self._after = self._position

    @property
    def is_empty(self) -> bool:
        """True when all was taken."""
        return not self._left and not self._batches.has_next()

    def take(self, records_max: int, bytes_max: int) -> Fetched:
        """The next records: at most so many, and none more once they have so many bytes.

        Raises:
            CorruptRecordException: a batch whose checksum is wrong.
        """
        first = self._position
        records: list[RecordLike] = []
        size = 0
        while len(records) < records_max and size < bytes_max and not self.is_empty:
            chunk = self._left or self._next_batch()
            chunk, size = _up_to(chunk, records_max - len(records), bytes_max, size)
            self._left = self._left[len(chunk) :]
            records += [r if not r.headers else _without_nulls(r) for r in chunk]
            self._position = chunk[-1].offset + 1 if self._left else self._after
        return Fetched(first, records, self._position, size)

    def _next_batch(self) -> list[Any]:
        batch = self._batches.next_batch()
        if self._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"wrong checksum at offset {batch.base_offset}")
        self._after = max(batch.next_offset, self._position)
        # Markers of transactions are no records; the first batch may begin below the position.
        found = [] if batch.is_control_batch else list(batch)
        if found and found[0].offset < self._position:
            found = [record for record in found if record.offset >= self._position]
        self._left = found
        return found


def _up_to(chunk: list[Any], count: int, bytes_max: int, size: int) -> tuple[list[Any], int]:
    """The records that there is room for, at least one if there is one, and the new size."""
    chunk = chunk[:count]
    sizes = [len(record.value or b"") + len(record.key or b"") for record in chunk]
    total = size + sum(sizes)
    if total < bytes_max:
        return chunk, total
    totals = list(accumulate(sizes, initial=size))[1:]
    fits = next(index for index, reached in enumerate(totals) if reached >= bytes_max) + 1
    return chunk[:fits], totals[fits - 1]


def _without_nulls(record: Any) -> RecordLike:
    """The record itself; one with a header without a value as another, where that is empty."""
    if any(value is None for _, value in record.headers):
        headers = tuple((name, value or b"") for name, value in record.headers)
        return Record(record.offset, record.timestamp, record.key, record.value, headers)
    same: RecordLike = record
    return same
