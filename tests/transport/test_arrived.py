"""What is taken of a fetch equals what aiokafka itself reads from the same bytes."""

import gc
import weakref

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from batches import CODECS, CONTROL, LOG_APPEND_TIME, TRANSACTIONAL, batch, sealed
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.packed import Packed
from streamapp.transport.kafka._arrived import crc32c, read_batches
from streamapp.transport.kafka.arrived import Arrived

ALL = 1 << 40
MS = 1_700_000_000_000


def theirs(data, position, *, check_crcs=True):
    """aiokafka's own iterator, for whom reads uncommitted."""
    return PartitionRecords(
        TopicPartition("t", 0), MemoryRecords(data), [], position, None, None, check_crcs, 0
    )


def take_all(data, position=0, *, check_crcs=True):
    return Arrived(data, position, check_crcs=check_crcs).take(ALL, ALL)


def facts(records):
    """Of records by either reader; a header without a value has an empty one in ours."""
    return [
        (
            r.offset,
            r.timestamp,
            r.timestamp_type,
            r.key,
            r.value,
            [(name, value or b"") for name, value in r.headers],
        )
        for r in records
    ]


headers = st.lists(
    st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2
) | st.just([("n" * 200, b"v" * 300)])
record = st.tuples(
    st.integers(1, 3),  # after the one before it: 2 and more are compaction's
    st.sampled_from([0, 1, -5, MS, MS - 1, 2**62]),
    st.none() | st.binary(max_size=4),
    st.none() | st.binary(max_size=9) | st.just(b"x" * 9000),
    headers,
)
one_batch = st.tuples(
    st.lists(record, min_size=1, max_size=6),
    st.integers(0, 3),
    st.sampled_from([0, CONTROL, TRANSACTIONAL, TRANSACTIONAL | CONTROL, LOG_APPEND_TIME]),
    st.sampled_from(sorted(CODECS.values())),
)
batches = st.lists(one_batch, max_size=5)


def made(parts, base=0):
    data = b""
    for records, skipped, attributes, codec in parts:
        rows, delta = [], -1
        for step, *rest in records:
            delta += step
            rows.append((delta, *rest))
        data += batch(rows, base, codec=codec, attributes=attributes, skipped=skipped)
        base += delta + 1 + skipped
    return data


@settings(deadline=None, max_examples=300)
@given(batches, st.integers(0, 4), st.integers(1, 8), st.integers(1, 40), st.binary(max_size=70))
def test_everything_is_taken_once_in_order_within_the_limits(
    parts, into, records_max, bytes_max, torn
):
    data, base = made(parts, 7), 7
    data += made([([(1, 0, None, b"torn" * 30, [])], 0, 0, 0)], 1000)[: len(torn)]  # not whole
    # A broker sends whole batches, the first with the position in it.
    last = sum(row[0] for row in parts[0][0]) - 1 + parts[0][1] if parts else 0
    position = base + min(into, last)
    source = theirs(data, position)
    expected = list(source)
    arrived, found, at = Arrived(data, position, check_crcs=True), [], position
    end = arrived.end()
    while not arrived.is_empty:
        piece = arrived.take(records_max, bytes_max)
        assert piece.position == at
        assert len(piece.records) <= records_max
        sizes = [len(r.value or b"") + len(r.key or b"") for r in piece.records]
        assert piece.size_bytes == sum(sizes)
        assert sum(sizes[:-1]) < bytes_max
        assert all(at <= r.offset < piece.next for r in piece.records)
        found += piece.records
        at = piece.next
    assert at == max(source.next_fetch_offset, position) == end
    assert facts(found) == facts(expected)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("attributes", [0, LOG_APPEND_TIME, TRANSACTIONAL])
def test_every_compression_and_both_kinds_of_time(codec, attributes):
    rows = [(n, MS + 3 * n, b"k%d" % n, b"v" * n, [("h", b"%d" % n)]) for n in range(200)]
    data = batch(rows, 40, codec=codec, attributes=attributes)
    piece = take_all(data, 41)
    assert facts(piece.records) == facts(theirs(data, 41))
    assert (piece.records[0].offset, piece.next) == (41, 240)
    assert {r.timestamp_type for r in piece.records} == {int(attributes == LOG_APPEND_TIME)}


def test_an_empty_batch_moves_the_position():
    """Compaction leaves one when it took all records."""
    data = bytearray(batch([(4, MS, None, b"", [])], 10)[:61])
    data[8:12] = (49).to_bytes(4, "big")
    data[57:61] = bytes(4)
    piece = take_all(sealed(data), 12)
    assert (list(piece.records), piece.position, piece.next) == ([], 12, 15)


def test_nothing_is_taken_where_there_is_no_room():
    arrived = Arrived(batch([(0, MS, None, b"a", [])]), 0, check_crcs=True)
    for records_max, bytes_max in [(0, ALL), (ALL, 0), (ALL, -3)]:
        piece = arrived.take(records_max, bytes_max)
        assert (len(piece.records), piece.next, piece.size_bytes) == (0, 0, 0)
    assert arrived.take(1, 1).next == 1
    assert arrived.is_empty


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2])
def test_older_formats_are_read_by_aiokafka(magic, codec):
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for n in range(3):
        builder.append(n, MS + n, None if n == 1 else b"k", None if n == 2 else b"v%d" % n)
    old, new = bytes(builder.build()), batch([(0, MS, b"new", None, [("h", b"")])], 3)
    if codec:  # a broker gives the outer message the last offset
        old = (2).to_bytes(8, "big") + old[8:]
    inner = facts(theirs(old, 1))
    assert [fact[0] for fact in inner] == [1, 2]
    expected = [(o, MS + o if t else -1, *r) for o, t, _, *r in inner]  # magic 0 has no time
    piece = take_all(old + new, 1)
    found = [(o, t, *r) for o, t, _, *r in facts(piece.records)]
    assert found == expected + [(o, t, *r) for o, t, _, *r in facts(theirs(new, 1))]
    assert (piece.position, piece.next) == (1, 4)
    bad = bytearray(old)
    bad[12] ^= 1
    with pytest.raises(CorruptRecordException, match="checksum"):
        take_all(bytes(bad), 1)


# -- damage


def test_a_batch_whose_checksum_is_wrong_is_refused_after_those_before_it():
    good = batch([(0, MS, None, b"a", [])])
    bad = bytearray(batch([(0, MS, None, b"value", [])], 1))
    bad[-3] ^= 1
    arrived = Arrived(good + bytes(bad), 0, check_crcs=True)
    assert arrived.take(9, 100).next == 1
    for _ in range(2):
        with pytest.raises(CorruptRecordException, match="offset 1 has a wrong checksum"):
            arrived.take(1, 100)
    assert take_all(good + bytes(bad), check_crcs=False).next == 2


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (8, b"\xff\xff\xff\xff", CorruptRecordException),  # a length below zero
        (8, (40).to_bytes(4, "big"), CorruptRecordException),  # no room for the header
        (16, b"\x03", CorruptRecordException),  # a format that nobody knows
        (0, b"\xff" * 8, CorruptRecordException),  # a base offset below zero
        (0, b"\x7f" + b"\xff" * 7, CorruptRecordException),  # there is nothing behind it
        (23, b"\x80\0\0\0", CorruptRecordException),  # ends before it begins
        (57, b"\x7f\xff\xff\xff", CorruptRecordException),  # more records than bytes
        (57, b"\xff\xff\xff\xff", CorruptRecordException),
        (57, b"\0\0\0\1", CorruptRecordException),  # fewer than there are
        (22, b"\1", CorruptRecordException),  # compressed, it says
        (22, b"\4", CorruptRecordException),
        (22, b"\7", UnsupportedCodecError),
    ],
)
def test_a_header_that_cannot_be_is_refused(at, value, error):
    data = bytearray(batch([(n, MS, b"k", b"v", []) for n in range(2)]))
    data[at : at + len(value)] = value
    data = bytes(data) if at < 17 else sealed(data)
    with pytest.raises(error):
        take_all(data)


@settings(deadline=None, max_examples=400)
@given(one_batch, st.randoms(use_true_random=False))
def test_damage_is_refused_or_read_as_aiokafka_reads_it(part, dice):
    """Checksums are not looked at, so that all of it comes to be parsed."""
    data = bytearray(made([part]))
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] = dice.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
    data = bytes(data[: dice.choice([len(data), dice.randrange(len(data) + 1)])])
    source, arrived = theirs(data, 0, check_crcs=False), Arrived(data, 0, check_crcs=False)
    found = []
    try:
        while not arrived.is_empty:
            found += arrived.take(2, ALL).records
    except KafkaError:
        return
    try:
        expected = list(source)
    except (UnicodeDecodeError, CorruptRecordException):
        expected = None
    if expected is not None:
        assert facts(found) == facts(expected)


def test_a_header_name_that_is_no_text_costs_nobody_the_record():
    """Kafka's own clients replace what is not UTF-8; aiokafka would never get past it."""
    data = batch([(0, MS, None, b"v", [("name", b"x")])])
    data = sealed(data.replace(b"name", b"n\xff\xfee"))
    [found] = take_all(data).records
    assert found.headers == (("n\ufffd\ufffde", b"x"),)


@pytest.mark.parametrize(
    "arguments", [(-1, 0, 1), (4, 0, 1), (0, -1, 1), (0, 0, -1)], ids=["before", "behind", "o", "n"]
)
def test_the_extension_refuses_a_place_outside_its_buffer(arguments):
    at, position, enough = arguments
    with pytest.raises(ValueError, match="a place within it"):
        read_batches(b"abc", at, position, enough, True)


@given(st.binary(max_size=100), st.integers(0, 9))
def test_the_checksum_is_crc32c_by_instruction_and_by_table(data, start):
    data = memoryview(data)[start:]  # wherever it begins
    assert crc32c(data) == (calc_crc32c(bytes(data)),) * 2


# -- memory


def test_records_keep_the_bytes_and_nothing_else_does():
    pages = np.frombuffer(bytearray(batch([(n, MS, None, b"v", []) for n in range(9)])), np.uint8)
    gone = weakref.ref(pages)
    arrived = Arrived(pages, 0, check_crcs=True)
    first, second = arrived.take(5, ALL).records, arrived.take(5, ALL).records
    del pages, arrived, first
    gc.collect()
    assert gone() is not None
    assert [r.offset for r in second] == [5, 6, 7, 8]
    joined = Packed() + second[1:]
    del second
    assert [r.value for r in joined] == [b"v"] * 3
    del joined
    gc.collect()
    assert gone() is None
