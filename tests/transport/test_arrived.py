"""What is taken of a fetch equals what aiokafka itself reads from the same bytes."""

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.transport.kafka.arrived import Arrived

CONTROL = 1 << 5


def batch(base, records, skipped=0, control=False, codec=0):
    """Bytes of one record batch; ``skipped`` offsets behind it are gone by compaction."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for index, (key, value, headers) in enumerate(records):
        builder.append(index, 1_700_000_000_000 + index, key, value, headers)
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    data[22] |= CONTROL if control else 0  # attributes, low byte
    last = len(records) - 1 + skipped
    data[23:27] = last.to_bytes(4, "big")
    from aiokafka.record.util import calc_crc32c

    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def source(data, position):
    return PartitionRecords(
        TopicPartition("t", 0), MemoryRecords(data), [], position, None, None, True, 0
    )


headers = st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2)
record = st.tuples(st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=9), headers)
batches = st.lists(
    st.tuples(
        st.lists(record, min_size=1, max_size=6),
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from([0, 1]),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=200)
@given(batches, st.integers(0, 4), st.integers(1, 8), st.integers(1, 40))
def test_everything_is_taken_once_in_order_within_the_limits(parts, into, records_max, bytes_max):
    data, base = b"", 0
    for records, skipped, control, codec in parts:
        data += batch(base, records, skipped, control, codec)
        base += len(records) + skipped
    # A broker sends whole batches, the first with the position in it.
    position = min(into, len(parts[0][0]) - 1) if parts else 0
    theirs = source(data, position)
    expected = list(theirs)
    arrived, found, at = Arrived(MemoryRecords(data), position, check_crcs=True), [], position
    while not arrived.is_empty:
        piece = arrived.take(records_max, bytes_max)
        assert piece.position == at
        assert len(piece.records) <= records_max
        sizes = [len(r.value or b"") + len(r.key or b"") for r in piece.records]
        assert piece.size_bytes == sum(sizes)
        assert sum(sizes[:-1]) < bytes_max
        found += piece.records
        at = piece.next
    assert at == max(theirs.next_fetch_offset, position)
    assert [(r.offset, r.timestamp, r.key, r.value) for r in found] == [
        (r.offset, r.timestamp, r.key, r.value) for r in expected
    ]
    assert [list(r.headers) for r in found] == [
        [(name, value or b"") for name, value in r.headers] for r in expected
    ]


def test_a_batch_whose_checksum_is_wrong_is_refused():
    good = batch(0, [(None, b"a", [])])
    bad = bytearray(batch(1, [(None, b"value", [])]))
    bad[-3] ^= 1
    arrived = Arrived(MemoryRecords(good + bytes(bad)), 0, check_crcs=True)
    assert arrived.take(1, 100).next == 1
    with pytest.raises(CorruptRecordException, match="offset 1"):
        arrived.take(1, 100)
    trusting = Arrived(MemoryRecords(good + bytes(bad)), 0, check_crcs=False)
    assert trusting.take(9, 100).next == 2
