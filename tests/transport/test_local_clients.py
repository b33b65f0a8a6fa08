import asyncio
import os
import random
import threading

import pytest
from clients import opened

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader
from streamapp.transport.local import engine

SPEC = TopicSpec("t", 2, 1000)


@pytest.fixture
async def clients(url):
    async with opened(url, open_admin, open_producer, open_reader) as made:
        await made[0].create(SPEC)
        yield made


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


async def test_a_stopped_client_leaves_no_thread_and_says_that_it_is_not_open(url, clients):
    threads = log_threads()
    producer = open_producer(url)
    await producer.start()
    await producer.send("t", [Outgoing(b"")])
    assert log_threads() != threads
    await producer.stop()
    assert log_threads() == threads
    with pytest.raises(Halt, match="not open"):
        await producer.send("t", [Outgoing(b"")])


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
