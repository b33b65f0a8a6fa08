"""The log in memory: the clients' contract, and what only a test asks of a log."""

import asyncio
import threading

import pytest

from streamapp.core.errors import Halt, Refuse, Retry
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


async def test_a_record_without_a_time_has_the_clock_s(log, streamapp_clock):
    log.append("t", [Outgoing(b"v")])
    assert log.read("t", 0, 0).records[0].timestamp == streamapp_clock.now_ms()


async def test_admin_tells_what_groups_committed_and_what_a_topic_takes(clients, log):
    admin, _, _ = clients
    log.commit("group", {("t", 0): 5})
    assert await admin.committed("group") == {("t", 0): 5}
    assert await admin.groups() == ["group"]
    log.append("t", [Outgoing(b"1234", b"k", [("h", b"1")], partition=1)])
    log.create(TopicSpec("other", 1, 50))
    assert (await admin.bytes_kept("t"), await admin.bytes_kept("other")) == (7, 0)


@pytest.mark.parametrize("spec", [SPEC._replace(name="u", partitions=0), TopicSpec("u", 1, 0)])
def test_a_topic_that_cannot_be_is_refused(log, spec):
    with pytest.raises(Refuse):
        log.create(spec)


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
