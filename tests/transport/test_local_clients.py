import asyncio
import os
import random
import threading

import pytest
from aiokafka.partitioner import DefaultPartitioner

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.transport import Address, Outgoing, TopicSpec, open_admin, open_producer, open_reader
from streamapp.transport.local import engine

SPEC = TopicSpec("t", 2, 1000)


@pytest.fixture
async def clients(url):
    opened = open_admin(url), open_producer(url), open_reader(url)
    for client in opened:
        await client.start()
    await opened[0].create(SPEC)
    yield opened
    for client in opened:
        await client.stop()


async def test_what_is_sent_is_read_with_everything(clients):
    _, producer, reader = clients
    pairs = (("h", b"1"), ("h", b"2"), ("a", b""))
    sent = [
        Outgoing(b"v", b"k", pairs, partition=1, timestamp_ms=123),
        Outgoing(None, None, (), partition=1),
        Outgoing(b"", b"", (), partition=0),
    ]
    assert await producer.send("t", sent) == [
        Address("t", 1, 0), Address("t", 1, 1), Address("t", 0, 0),
    ]  # fmt: skip
    read = await reader.read("t", 1, 0)
    assert read.range == OffsetRange("t", 1, 0, 2)
    assert tuple(read.records[0])[:5] == (0, 123, b"k", b"v", pairs)
    assert tuple(read.records[1])[2:5] == (None, None, ())
    assert (await reader.read("t", 1, 0, records_max=1)).range.next == 1
    assert (await reader.read("t", 0, 0)).records[0].value == b""


async def test_keys_go_where_kafka_would_send_them_and_keyless_records_are_spread(clients, url):
    admin, producer, _ = clients
    await admin.create(TopicSpec("many", 7, 1000))
    keys = [f"key-{number}".encode() for number in range(50)]
    addresses = await producer.send("many", [Outgoing(b"", key) for key in keys])
    kafka = DefaultPartitioner()
    assert [a.partition for a in addresses] == [kafka(key, list(range(7)), []) for key in keys]
    keyless = [await producer.send("many", [Outgoing(b"")] * 3) for _ in range(7)]
    assert {len({a.partition for a in call}) for call in keyless} == {1}
    assert {call[0].partition for call in keyless} == set(range(7))


async def test_a_record_too_large_rejects_the_call_and_appends_nothing(clients):
    _, producer, reader = clients
    with pytest.raises(Reject) as rejected:
        await producer.send("t", [Outgoing(b"ok", b"k"), Outgoing(b"x" * 900, b"k" * 101)])
    assert rejected.value.code == "record.too_large"
    assert await reader.bounds("t", 0) == await reader.bounds("t", 1) == (0, 0)
    await producer.send("t", [Outgoing(b"x" * 900, b"k" * 100)])


async def test_unknown_topics_and_partitions_are_refused(clients):
    _, producer, reader = clients
    for call in (
        producer.send("none", [Outgoing(b"")]),
        producer.send("t", [Outgoing(b"", partition=2)]),
        producer.send("../t", [Outgoing(b"")]),
        reader.read("t", 5, 0),
        reader.bounds("none", 0),
        reader.read("t", 0, -1),
    ):
        with pytest.raises(Refuse):
            await call


async def test_an_empty_read_ends_and_a_waiting_one_is_woken_by_another_client(clients, url):
    _, producer, reader = clients
    empty = await reader.read("t", 0, 0, wait_ms_max=1)
    assert empty.range == OffsetRange("t", 0, 0, 0)
    waiting = asyncio.create_task(reader.read("t", 0, 0, wait_ms_max=60_000))
    await asyncio.sleep(0)
    await producer.send("t", [Outgoing(b"news", partition=0)])
    assert (await waiting).records[0].value == b"news"


async def test_concurrent_sends_keep_each_call_together_and_in_order(clients):
    _, producer, reader = clients
    calls = await asyncio.gather(
        *(
            producer.send("t", [Outgoing(b"%d" % n, partition=0) for n in range(5)])
            for _ in range(40)
        )
    )
    for addresses in calls:
        first = addresses[0].offset
        assert [a.offset for a in addresses] == list(range(first, first + 5))
    records = (await reader.read("t", 0, 0)).records
    assert [r.value for r in records] == [b"%d" % n for n in range(5)] * 40


async def test_a_full_queue_makes_callers_wait_and_loses_nothing(clients, monkeypatch):
    _, producer, reader = clients
    monkeypatch.setattr(engine, "QUEUE_BYTES_MAX", 1)
    await asyncio.gather(*(producer.send("t", [Outgoing(b"v", partition=0)]) for _ in range(50)))
    assert await reader.bounds("t", 0) == (0, 50)


def log_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("log-")]


async def test_stop_finishes_what_was_accepted(url, clients):
    _, _, reader = clients
    threads = log_threads()
    producer = open_producer(url)
    await producer.start()
    sends = [
        asyncio.create_task(producer.send("t", [Outgoing(b"", partition=0)])) for _ in range(9)
    ]
    await asyncio.sleep(0)
    await producer.stop()
    assert [(await send)[0].offset for send in sends] == list(range(9))
    assert log_threads() == threads
    with pytest.raises(Halt, match="not open"):
        await producer.send("t", [Outgoing(b"")])
    assert await reader.bounds("t", 0) == (0, 9)


async def test_admin_lists_topics_and_refuses_another_partition_count(clients):
    admin, _, _ = clients
    spec = TopicSpec("other", 3, 50, 1, 2, compacted=True)
    assert await admin.create(spec)
    assert not await admin.create(spec)
    assert await admin.topics() == {"t": SPEC, "other": spec}
    with pytest.raises(Refuse, match="has 3 partitions, not 4"):
        await admin.create(spec._replace(partitions=4))
    assert await admin.committed("nobody") == {}


async def test_a_folder_may_have_any_name(tmp_path):
    producer = open_producer(f"local://{tmp_path}/a b/ü")
    await producer.start()
    await producer.stop()
    assert (tmp_path / "a b" / "ü").is_dir()


def test_the_clients_load_without_faust(run):
    code = (
        "import sys, streamapp.transport, streamapp.transport.local; print('faust' in sys.modules)"
    )
    program = run("-c", code)
    assert program.ended() == 0
    assert program.text() == "False\n"


@pytest.mark.parametrize("open_", [open_producer, open_reader, open_admin])
def test_other_schemes_are_refused_with_those_that_work(open_):
    with pytest.raises(Refuse, match=r"'redis://x'.*local://"):
        open_("redis://x")


@pytest.mark.parametrize(
    "url", ["local://relative/path", "local:///", "local:///a?b", "local:///a#b"]
)
def test_only_absolute_folders_are_local_logs(url):
    with pytest.raises(Refuse, match="local:///absolute/path"):
        open_producer(url)


async def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refuse, match="file"):
        await open_producer(f"local://{tmp_path}/file").start()


WRITER = """
import asyncio, resource, sys
from streamapp.core.errors import Retry
from streamapp.transport import Outgoing, open_producer

async def main(url, name, groups, limit):
    producer = open_producer(url)
    await producer.start()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(groups):
        group = [Outgoing(b"%s %d %d" % (name, number, n), partition=0) for n in range(10)]
        try:
            await producer.send("t", group)
        except Retry as error:
            print("refused", number, error.code, flush=True)
            break
        print("acked", number, flush=True)
    await producer.stop()

asyncio.run(main(sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])))
"""


async def everything(reader):
    values, at = [], 0
    while read := await reader.read("t", 0, at):
        assert [r.offset for r in read.records] == list(range(at, read.range.next))
        values += [tuple(r.value.split()) for r in read.records]
        at = read.range.next
    return values


def assert_whole(values, name, acked):
    """Every acknowledged group is there, in order, and no group is there in part."""
    mine = [tuple(map(int, value[1:])) for value in values if value[0] == name]
    groups = len(mine) // 10
    assert mine == [(group, n) for group in range(groups) for n in range(10)]
    assert groups >= acked


async def test_two_processes_append_at_once(clients, url, run):
    _, _, reader = clients
    writers = [run("-c", WRITER, url, name, 100, 0) for name in ("one", "two")]
    for writer in writers:
        assert await asyncio.to_thread(writer.ended) == 0, writer.text()
    values = await everything(reader)
    assert len(values) == 2000
    for name in (b"one", b"two"):
        assert_whole(values, name, 100)


async def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_no_part(clients, url, run):
    _, producer, reader = clients
    chance = random.Random(20_261_122)
    for attempt in range(6):
        name = b"w%d" % attempt
        writer = run("-c", WRITER, url, name.decode(), 10**9, 0)
        await asyncio.to_thread(writer.wait_for, lambda w: w.lines("acked"), "a first group")
        await asyncio.sleep(chance.uniform(0, 0.3))  # a random moment, not a condition
        await asyncio.to_thread(writer.kill)
        assert_whole(await everything(reader), name, len(writer.lines("acked")))
        await producer.send("t", [Outgoing(b"between 0 0", partition=0)])
    values = await everything(reader)
    assert sum(value[0] == b"between" for value in values) == 6


async def test_a_file_that_may_not_grow_refuses_and_keeps_what_it_had(clients, url, run):
    _, producer, reader = clients
    writer = run("-c", WRITER, url, "w", 10**9, 400_000)
    assert await asyncio.to_thread(writer.ended) == 0, writer.text()
    [[number, code]] = writer.lines("refused")
    assert code == "log.io"
    values = await everything(reader)
    assert_whole(values, b"w", int(number))
    assert len(values) == int(number) * 10
    await producer.send("t", [Outgoing(b"w after 0", partition=0)])
    assert len(await everything(reader)) == len(values) + 1


async def test_a_full_disk_refuses_and_loses_nothing(small_disk):
    small_disk = small_disk("1m")
    url = f"local://{small_disk}"
    admin, producer, reader = open_admin(url), open_producer(url), open_reader(url)
    for client in (admin, producer, reader):
        await client.start()
    await admin.create(TopicSpec("t", 1, 1 << 20))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    value = os.urandom(10_000)
    acked = 0

    async def fill():
        nonlocal acked
        while True:
            await producer.send("t", [Outgoing(value)])
            acked += 1

    with pytest.raises(Retry, match="no space left"):
        await fill()
    assert await reader.bounds("t", 0) == (0, acked)
    with pytest.raises(Retry):
        await producer.send("t", [Outgoing(value)] * 20)
    ballast.unlink()
    assert (await producer.send("t", [Outgoing(value)]))[0].offset == acked
    for client in (admin, producer, reader):
        await client.stop()
