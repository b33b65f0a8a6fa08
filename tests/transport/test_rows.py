"""Rows that are made and read in C are those that msgspec and Python make of the same records."""

import gc
import sqlite3
import sys

import msgspec
import numpy as np
import pytest
from batches import bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse, Reject
from streamapp.core.packed import PLACE, Packed, Part
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader
from streamapp.transport.bundle import Bundle
from streamapp.transport.kafka.departing import partitions_of
from streamapp.transport.local.log import TopicLog, create_topic
from streamapp.transport.local.rows import STRIDE, BundledRows, Row, Rows, pack_headers, packed

NOW_MS, ROOMY = 1_795_336_200_123, 1 << 40

texts = st.none() | st.binary(max_size=40)
#: Each of another size in Kafka's form, or of another head in msgpack.
sizes = st.sampled_from([0, 1, 31, 32, 63, 64, 255, 256, 8191, 8192, 65535, 65536])
names = st.text(max_size=4) | sizes.map("n".__mul__)
headers = st.lists(st.tuples(names, st.binary(max_size=4) | sizes.map(bytes)), max_size=3)
many_headers = st.sampled_from([15, 16, 17]).map(lambda count: [("n", b"v")] * count)
plain = st.builds(Outgoing, texts, texts, headers | many_headers)
records_ = st.lists(plain, min_size=1, max_size=6)


def split(sent):
    """A bundle of two parts."""
    middle = len(sent) // 2
    return Bundle(bundle(sent[:middle]).packed + bundle(sent[middle:]).packed)


def by_row(columns):
    rows = [tuple(columns[at : at + 5]) for at in range(0, len(columns), 5)]
    return sorted(rows, key=lambda row: row[0])


@given(records_, st.integers(1, 3))
def test_a_bundle_is_stored_as_a_list_is(sent, partitions):
    made = split(sent)
    to = partitions_of(made, partitions, 0)
    ends = {n: 7 * n for n in range(partitions)}
    moved = dict(ends)
    offsets, columns = BundledRows(made, to, NOW_MS).placed(moved)
    its_ends = dict(ends)
    rows = Rows(
        [
            Row(partition, NOW_MS, key, value, pack_headers(headers))
            for partition, (value, key, headers, *_) in zip(to.tolist(), sent, strict=True)
        ]
    )
    its_offsets, its_columns = rows.placed(its_ends)
    assert (offsets, moved) == (its_offsets, its_ends)
    assert by_row(columns) == by_row(its_columns)
    positions = zip(to.tolist(), offsets, strict=True)
    assert sorted(partition * STRIDE + offset for partition, offset in positions) == [
        row[0] for row in by_row(columns)
    ]


@given(records_)
def test_rows_are_read_as_they_were_written(sent):
    rows = [
        (n, NOW_MS + n, key, value, pack_headers(headers))
        for n, (value, key, headers, *_) in enumerate(sent)
    ]
    read, size = packed(rows, ROOMY)
    assert [record[:5] for record in read] == [
        (n, NOW_MS + n, key, value, tuple(headers))
        for n, (value, key, headers, *_) in enumerate(sent)
    ]
    assert size == int(read.sizes().sum())


@pytest.mark.parametrize(
    ("bytes_max", "count"), [(0, 1), (3, 1), (4, 2), (6, 2), (7, 4), (8, 4), (99, 4)]
)
def test_no_more_rows_once_they_have_enough_bytes(bytes_max, count):
    rows = [(n, 0, key, value, None) for n, (key, value) in enumerate(
        [(b"k", b"vv"), (None, b"vvv"), (None, None), (b"", b"v")]
    )]  # fmt: skip
    read, size = packed(rows, bytes_max)
    assert (len(read), size) == (count, [0, 3, 6, 6, 7][count])


def test_no_row_is_read_that_is_not_given():
    """However small those before it are: rows of a megabyte would fill the memory."""
    rows = iter([(n, 0, None, b"v" * 100, None) for n in range(99)])
    read, _ = packed(rows, 1_000)
    assert (len(read), next(rows)[0]) == (10, 10)


def test_headers_count_for_what_is_read_at_once():
    many = pack_headers([("n", bytes(100))])
    read, size = packed([(n, 0, None, b"v", many) for n in range(99)], 1_000)
    assert (len(read), size) == (10, 10)


good = msgspec.msgpack.encode([("name", b"value")])
wrong = [
    b"",
    good[:-1],
    good + b"\0",
    b"\x91\x93" + good[2:],
    msgspec.msgpack.encode({"name": b"value"}),
    msgspec.msgpack.encode([("name", "value")]),
    msgspec.msgpack.encode([(b"name", b"value")]),
    msgspec.msgpack.encode([("name", None)]),
    b"\x91\x92\xa1n\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
]


@pytest.mark.parametrize("headers", wrong)
def test_headers_that_are_none_are_said(headers, folder):
    with pytest.raises(ValueError, match="headers are none"):
        packed([(0, 0, b"k", b"v", headers)], ROOMY)
    folder.mkdir()
    create_topic(folder, TopicSpec("t", 1, 1 << 20))
    log = TopicLog(folder, "t")
    log.append(Rows([Row(0, 0, b"k", b"v", headers)]))
    with pytest.raises(Refuse, match=r"t\.db is damaged.*\n?.*restore it"):
        log.read(0, 0, 1, ROOMY)
    log.close()


@pytest.mark.parametrize("column", ["timestamp", "key", "value", "headers"])
def test_a_column_of_another_kind_is_said(column, folder):
    folder.mkdir()
    create_topic(folder, TopicSpec("t", 1, 1 << 20))
    log = TopicLog(folder, "t")
    log.append(Rows([Row(0, 0, b"k", b"v", good)]))
    log.db.execute(f"UPDATE records SET {column} = 'text'")
    with pytest.raises(Refuse, match=r"t\.db is damaged.*\n?.*restore it"):
        log.read(0, 0, 1, ROOMY)
    log.close()


@given(st.binary(max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_headers_or_are_said(data):
    decode = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode
    try:
        (read,), _ = packed([(0, 0, None, None, data)], ROOMY)
    except ValueError:
        return
    try:
        assert read.headers == decode(data)
    except msgspec.DecodeError:  # a name that is not UTF-8 is shown as Kafka's clients show it
        assert any("\ufffd" in name for name, _ in read.headers)


@pytest.mark.parametrize("row", [(), (0, 0, "key", b"", b""), ("0", 0, b"", b"", b""), None])
def test_what_is_no_row_is_said(row):
    with pytest.raises(TypeError):
        packed([row], ROOMY)


@pytest.mark.parametrize("at", [(-1, 1), (0, 4), (3, 1), (1 << 30, 1)])
def test_a_place_outside_its_buffer_is_refused(at):
    places = np.array([(0, 0, 0, 0, -1, *at, 0, 0, 0)], PLACE)
    outside = Bundle(Packed([Part(memoryview(b"abc"), places)]))
    with pytest.raises(ValueError, match="not in its buffer"):
        BundledRows(outside, np.zeros(1, np.int32), 0).placed({0: 0})


def test_nothing_is_held():
    records = [Outgoing(b"value", b"key", [("name", b"header")]), Outgoing(None)]
    made, row = bundle(records), (1 << 40, 1 << 41, b"key", b"value", good)
    to = np.zeros(2, np.int32)
    held = [made.packed.parts[0].places, *row]
    gc.collect()
    before = [sys.getrefcount(one) for one in held]
    for _ in range(2_000):
        BundledRows(made, to, NOW_MS).placed({0: 0})
        Rows([Row(0, *row[1:])]).placed({0: 0})
        packed([row], ROOMY)
        with pytest.raises(ValueError, match="none"):
            packed([row, (*row[:4], b"no")], ROOMY)
    after = [sys.getrefcount(one) for one in held]
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) < 10


async def test_a_bundle_is_read_as_the_records_it_has(url):
    sent = [
        Outgoing(b"v%d" % n, b"k%d" % (n % 5), [("ce_id", b"%d" % n), ("n", b"")])
        for n in range(600)
    ]
    producer, reader, admin = open_producer(url), open_reader(url), open_admin(url)
    for client in (admin, producer, reader):
        await client.start()
    await admin.create(TopicSpec("t", 3, 1000))
    await producer.send("t", sent[:10])
    addresses = await producer.send("t", split(sent[10:]))
    with pytest.raises(Reject, match="1003 bytes"):
        await producer.send("t", bundle([*sent[:3], Outgoing(b"v" * 1000, b"big")]))
    found = {}
    for partition in range(3):
        read = await reader.read("t", partition, 0)
        assert [record.offset for record in read.records] == list(range(len(read)))
        for record in read.records:
            found[partition, record.offset] = record
    for record, address in zip(sent[10:], addresses, strict=True):
        one = found[address.partition, address.offset]
        assert (one.value, one.key, list(one.headers)) == (record.value, record.key, record.headers)
    assert len(found) == 600
    for client in (admin, producer, reader):
        await client.stop()


def test_a_file_of_before_is_read(folder):
    """Written as the versions before ``Rows`` wrote it: the file is the same."""
    folder.mkdir()
    create_topic(folder, TopicSpec("t", 1, 1 << 20))
    pairs = (("h", b"1"), ("h", b"2"))
    with sqlite3.connect(folder / "t.db") as db:
        insert = "INSERT INTO records VALUES (?, ?, ?, ?, ?)"
        db.execute(insert, (0, 5, b"k", b"v", msgspec.msgpack.encode(list(pairs))))
        db.execute(insert, (1, 6, None, None, None))
        db.execute("INSERT OR REPLACE INTO partitions VALUES (0, 2)")
    db.close()
    log = TopicLog(folder, "t")
    assert [record[:5] for record in log.read(0, 0, 9, ROOMY)[0]] == [
        (0, 5, b"k", b"v", pairs),
        (1, 6, None, None, ()),
    ]
    assert log.append(Rows([Row(0, 7, None, b"w", None)])) == [[2]]
    log.close()
