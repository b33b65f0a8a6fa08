"""What one fetch brought of one partition: its records, where they arrived.

``aiokafka.consumer.fetcher.PartitionRecords`` yields record by record through Python and builds a
dataclass for each.  Record batches (https://kafka.apache.org/documentation/#recordbatch) are read
in C here, and no object is made for any of their records.  Those of an older format are left to
aiokafka.
"""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords
from typing_extensions import Buffer

from streamapp.core.errors import Refuse
from streamapp.core.packed import PLACE, Packed, Part
from streamapp.transport.gather import Fetched

try:
    from streamapp.transport.kafka import _arrived
except ImportError as error:
    raise Refuse(
        "transport.not_built",
        f"the C extension that reads record batches cannot be loaded: {error}",
        "build it with `pip install -e .` (needs gcc)",
    ) from None

#: Of a record batch: where it begins in the log, and the length of what follows.
_HEAD = struct.Struct(">qi")
_HEADER_BYTES = 61
_ATTRIBUTES_AT, _CODEC = 22, 0x07
_MAGIC_AT, _MAGIC = 16, 2
_LAST_DELTA_AT, _LAST_DELTA = 23, struct.Struct(">i")
_DECODERS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_NO_LIMIT = 1 << 62
_WRONG = {
    _arrived.BATCHES_CHECKSUM: "has a wrong checksum",
    _arrived.BATCHES_MALFORMED: "is malformed",
}


class Arrived:
    """Records that a fetch brought, for whom reads uncommitted, as Faust does.

    Args:
        data: record batches, the last perhaps in part; stays alive as long as its records.
        position: the offset that was asked for; the first batch may begin below it.
        check_crcs: whether the batches' checksums are checked.
    """

    def __init__(self, data: Buffer, position: int, *, check_crcs: bool) -> None:
        self._data = memoryview(data)
        self._check_crcs = check_crcs
        self._at = 0
        self._position = position
        #: Records that there was no room for, and the offset after all that were read.
        self._left = Packed()
        self._after = position

    @property
    def is_empty(self) -> bool:
        """True when all was taken."""
        return not self._left and not has_batch(self._data[self._at :])

    def end(self) -> int | None:
        """The offset after all that arrived; None when only reading it can tell."""
        end, rest = self._position, self._data
        while has_batch(rest):
            size = _size(rest)
            if size < _HEADER_BYTES or rest[_MAGIC_AT] != _MAGIC:
                return None
            base, _ = _HEAD.unpack_from(rest)
            end = max(end, base + _LAST_DELTA.unpack_from(rest, _LAST_DELTA_AT)[0] + 1)
            rest = rest[size:]
        return end

    def take(self, records_max: int, bytes_max: int) -> Fetched:
        """The next records: at most so many, and none more once they have so many bytes.

        Raises:
            CorruptRecordException: the next batch is malformed, or its checksum is wrong.
            UnsupportedCodecError: it is compressed in a way that nobody knows.
        """
        first = self._position
        while len(self._left) < records_max and has_batch(self._data[self._at :]):
            try:
                self._read(records_max - len(self._left))
            except KafkaError:
                if not self._left:
                    raise
                break  # what came before it is good
        fits, size = _fitting(self._left, records_max, bytes_max)
        taken, self._left = self._left.cut(0, fits), self._left.cut(fits, len(self._left))
        if not self._left:
            self._position = self._after
        elif taken:
            self._position = taken[-1].offset + 1
        return Fetched(first, taken, self._position, size)

    def _read(self, enough: int) -> None:
        """Read whole batches until there are enough records, or one batch of another kind."""
        self._at, why = self._read_plain(self._data, self._at, enough, check_crcs=self._check_crcs)
        if why not in (_arrived.BATCHES_COMPRESSED, _arrived.BATCHES_OLD):
            return
        batch = self._data[self._at :]
        batch = batch[: _size(batch)]
        if why == _arrived.BATCHES_OLD:
            self._read_old(batch)
        else:
            self._read_plain(memoryview(_inflated(batch)), 0, _NO_LIMIT, check_crcs=False)
        self._at += len(batch)

    def _read_plain(
        self, data: memoryview, at: int, enough: int, *, check_crcs: bool
    ) -> tuple[int, int]:
        """Where reading ended, and why."""
        found, end, self._after, why = _arrived.read_batches(
            data, at, self._after, enough, check_crcs
        )
        if why in _WRONG and not found:
            raise _corrupt(data[end:], _WRONG[why])
        self._left += Packed([Part(data, np.frombuffer(found, PLACE))])
        return end, why

    def _read_old(self, data: memoryview) -> None:
        """A batch of magic 0 or 1; Apache Kafka 4 has none."""
        batch = MemoryRecords(bytes(data)).next_batch()
        if self._check_crcs and not batch.validate_crc():
            raise _corrupt(data, _WRONG[_arrived.BATCHES_CHECKSUM])
        found = _packed(record for record in batch if record.offset >= self._after)
        self._left += found
        ends = (offset + 1 for offset in found.column("offset").tolist())
        self._after = max(batch.next_offset, self._after, *ends)


def has_batch(data: memoryview) -> bool:
    """Whether it begins with a whole batch."""
    return len(data) >= _HEAD.size and _size(data) <= len(data)


def _size(batch: memoryview) -> int:
    """As the batch says itself."""
    return _HEAD.size + int(_HEAD.unpack_from(batch)[1])


def _corrupt(batch: memoryview, what: str) -> CorruptRecordException:
    return CorruptRecordException(f"the batch at offset {_HEAD.unpack_from(batch)[0]} {what}")


def _inflated(batch: memoryview) -> bytes:
    """The same batch, not compressed; its checksum is no longer right."""
    head = bytearray(batch[:_HEADER_BYTES])
    codec = head[_ATTRIBUTES_AT] & _CODEC
    if codec not in _DECODERS:
        raise UnsupportedCodecError(f"no compression has the number {codec}")
    try:
        records: bytes = _DECODERS[codec](bytes(batch[_HEADER_BYTES:]))
    except Exception as error:  # each codec raises what it likes
        raise _corrupt(batch, f"cannot be decompressed: {error!r}") from error
    head[_ATTRIBUTES_AT] &= ~_CODEC
    base, _ = _HEAD.unpack_from(head)
    _HEAD.pack_into(head, 0, base, _HEADER_BYTES - _HEAD.size + len(records))
    return bytes(head) + records


def _packed(records: Iterable[Any]) -> Packed:
    """Records of the older formats: they have no headers, and in magic 0 no timestamp."""
    data, places = bytearray(), []
    for record in records:
        time = -1 if record.timestamp is None else record.timestamp
        place = [record.offset, time, record.timestamp_type or 0]
        for part in (record.key, record.value):
            place += [len(data), -1 if part is None else len(part)]
            data += part or b""
        places.append((*place, 0, 0, 0))
    return Packed([Part(memoryview(data), np.array(places, PLACE))])


def _fitting(records: Packed, records_max: int, bytes_max: int) -> tuple[int, int]:
    """How many of them there is room for, at least one if there is any, and their bytes."""
    totals = np.cumsum(records.sizes()[:records_max])
    if bytes_max <= 0 or not len(totals):
        return 0, 0
    fits = min(int(np.searchsorted(totals, bytes_max)) + 1, len(totals))
    return fits, int(totals[fits - 1])
