"""The log in memory: the clients' contract, and what only a test asks of a log."""

import asyncio
import threading

import pytest
from aiokafka.partitioner import DefaultPartitioner

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.testing import FakeClock, MemoryLog
from streamapp.transport import Address, Outgoing, TopicSpec

SPEC = TopicSpec("t", 2, 1000)


@pytest.fixture
def log(streamapp_log):
    streamapp_log.create(SPEC)
    return streamapp_log


@pytest.fixture
async def clients(log):
    opened = log.admin(), log.producer(), log.reader()
    for client in opened:
        await client.start()
    yield opened
    for client in opened:
        await client.stop()


async def test_what_is_sent_is_read_with_everything(clients, streamapp_clock):
    _, producer, reader = clients
    pairs = (("h", b"1"), ("h", b"2"), ("a", b""))
    sent = [
        Outgoing(b"v", b"k", list(pairs), partition=1, timestamp_ms=123),
        Outgoing(None, None, (), partition=1),
        Outgoing(b"", b"", (), partition=0),
    ]
    assert await producer.send("t", sent) == [
        Address("t", 1, 0), Address("t", 1, 1), Address("t", 0, 0),
    ]  # fmt: skip
    read = await reader.read("t", 1, 0)
    assert read.range == OffsetRange("t", 1, 0, 2)
    assert tuple(read.records[0]) == (0, 123, b"k", b"v", pairs)
    assert tuple(read.records[1]) == (1, streamapp_clock.now_ms(), None, None, ())
    assert (await reader.read("t", 0, 0)).records[0].value == b""
    assert await producer.send("t", []) == []


async def test_a_read_ends_by_records_and_by_bytes_but_moves(clients):
    _, producer, reader = clients
    await producer.send("t", [Outgoing(b"x" * 100, partition=0)] * 10)
    assert len(await reader.read("t", 0, 3, records_max=2)) == 2
    assert len(await reader.read("t", 0, 0, bytes_max=250)) == 3
    assert (await reader.read("t", 0, 9, bytes_max=1)).range == OffsetRange("t", 0, 9, 10)


async def test_keys_go_where_kafka_would_send_them_and_keyless_records_are_spread(clients):
    admin, producer, _ = clients
    await admin.create(TopicSpec("many", 7, 1000))
    keys = [f"key-{number}".encode() for number in range(50)]
    addresses = await producer.send("many", [Outgoing(b"", key) for key in keys])
    kafka = DefaultPartitioner()
    assert [a.partition for a in addresses] == [kafka(key, list(range(7)), []) for key in keys]
    calls = [await producer.send("many", [Outgoing(b"")] * 3) for _ in range(7)]
    assert {len({a.partition for a in call}) for call in calls} == {1}
    assert {call[0].partition for call in calls} == set(range(7))


async def test_a_record_too_large_rejects_the_call_and_appends_nothing(clients):
    _, producer, reader = clients
    with pytest.raises(Reject) as rejected:
        await producer.send("t", [Outgoing(b"ok", b"k"), Outgoing(b"x" * 900, b"k" * 101)])
    assert rejected.value.code == "record.too_large"
    assert await reader.bounds("t", 0) == await reader.bounds("t", 1) == (0, 0)
    await producer.send("t", [Outgoing(b"x" * 900, b"k" * 100)])


async def test_unknown_topics_partitions_and_offsets_are_refused(clients):
    admin, producer, reader = clients
    for call in (
        producer.send("none", [Outgoing(b"")]),
        producer.send("t", [Outgoing(b"", partition=2)]),
        reader.read("t", 5, 0),
        reader.bounds("none", 0),
        reader.read("t", 0, -1),
        reader.read("t", 0, 0, records_max=0),
        admin.create(TopicSpec("../t", 1, 1000)),
        admin.create(TopicSpec("u", 0, 1000)),
        admin.create(TopicSpec("u", 1, 0)),
    ):
        with pytest.raises(Refuse):
            await call
    assert await reader.bounds("t", 0) == (0, 0)


async def test_admin_lists_topics_and_refuses_another_partition_count(clients, log):
    admin, _, _ = clients
    other = TopicSpec("other", 3, 50, 1, 2, compacted=True)
    assert await admin.create(other)
    assert not await admin.create(other)
    assert await admin.topics() == {"t": SPEC, "other": other}
    with pytest.raises(Refuse, match="has 3 partitions, not 4"):
        await admin.create(other._replace(partitions=4))
    assert await admin.committed("group") == {}
    log.commit("group", {("t", 0): 5})
    assert await admin.committed("group") == {("t", 0): 5}
    assert await admin.groups() == ["group"]
    log.append("t", [Outgoing(b"1234", b"k", [("h", b"1")], partition=1)])
    assert (await admin.bytes_kept("t"), await admin.bytes_kept("other")) == (7, 0)


async def test_an_empty_read_ends_and_a_waiting_one_is_woken(clients):
    _, producer, reader = clients
    assert (await reader.read("t", 0, 0, wait_ms_max=1)).range == OffsetRange("t", 0, 0, 0)
    waiting = asyncio.create_task(reader.read("t", 0, 0, wait_ms_max=60_000))
    await asyncio.sleep(0)
    await producer.send("t", [Outgoing(b"elsewhere", partition=1)])
    await asyncio.sleep(0)
    assert not waiting.done()
    await producer.send("t", [Outgoing(b"news", partition=0)])
    assert (await waiting).records[0].value == b"news"


async def test_a_waiting_read_is_woken_from_another_thread(clients, log):
    waiting = asyncio.create_task(clients[2].read("t", 0, 0, wait_ms_max=60_000))
    await asyncio.sleep(0)
    thread = threading.Thread(target=log.append, args=("t", [Outgoing(b"news", partition=0)]))
    thread.start()
    assert (await waiting).records[0].value == b"news"
    thread.join()


async def test_a_cancelled_wait_leaves_nothing_behind(clients, log):
    waiting = asyncio.create_task(clients[2].read("t", 0, 0, wait_ms_max=60_000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not log._waiting


async def test_a_client_that_is_not_open_says_so(log):
    producer = log.producer()
    with pytest.raises(Halt, match="not open"):
        await producer.send("t", [Outgoing(b"")])
    await producer.start()
    await producer.send("t", [Outgoing(b"")])
    await producer.stop()
    with pytest.raises(Halt, match="not open"):
        await producer.send("t", [Outgoing(b"")])


def test_a_full_log_refuses_for_now_and_appends_nothing():
    log = MemoryLog(bytes_max=10)
    log.create(TopicSpec("t", 1, 100, retention_bytes=4))
    log.append("t", [Outgoing(b"12345678")])
    with pytest.raises(Retry, match="takes 10, not 3 more") as full:
        log.append("t", [Outgoing(b"1"), Outgoing(b"22")])
    assert full.value.code == "log.full"
    assert log.bounds("t", 0) == (0, 1)
    log.trim()
    assert log.append("t", [Outgoing(b"1")]) == [Address("t", 0, 1)]


def test_retention_by_time_follows_the_clock():
    clock = FakeClock()
    log = MemoryLog(clock=clock)
    log.create(TopicSpec("t", 1, 100, retention_ms=60_000))
    for _ in range(3):
        log.append("t", [Outgoing(b"")])
        clock.advance(40)
    log.trim()  # 120, 80 and 40 seconds old
    assert log.bounds("t", 0) == (2, 3)
    read = log.read("t", 0, 0)
    assert read.range == OffsetRange("t", 0, 0, 3)
    assert [record.offset for record in read.records] == [2]
    clock.advance(100)
    log.trim()
    assert log.bounds("t", 0) == (3, 3)
    assert log.append("t", [Outgoing(b"")]) == [Address("t", 0, 3)]


def test_compaction_keeps_the_latest_of_a_key_and_leaves_gaps():
    log = MemoryLog()
    log.create(TopicSpec("t", 1, 100, compacted=True))
    values = [(b"1", b"a"), (b"2", b"b"), (b"3", None), (b"4", b"a"), (None, b"b")]
    log.append("t", [Outgoing(value, key) for value, key in values])
    log.trim()
    kept = [(record.offset, record.value) for record in log.read("t", 0, 1).records]
    assert kept == [(2, b"3"), (3, b"4"), (4, None)]
    assert log.bounds("t", 0) == (2, 5)
