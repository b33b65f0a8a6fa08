"""``async for frames in reader``: prompt, cancelled cleanly, and idle while nothing comes."""

import asyncio
import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt
from streamapp.ring import RingReader, RingSpec, RingWriter
from streamapp.ring.arrivals import Watch

DIM = 2


def write(writer, n, at=0):
    keys = np.arange(at, at + n)
    writer.write(ring_content.records(keys), ring_content.vectors(keys, writer.spec.dim))


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "ring-watch"]


async def until(true, told):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)
    assert true(), told


@pytest.fixture
def writer(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 64), engine=engine) as ring:
        yield ring


@pytest.fixture
def reader(writer, engine):
    with RingReader.open(writer.path, engine=engine) as ring:
        yield ring


async def test_frames_come_as_they_are_written(writer, reader):
    ids = []

    async def read():
        async for frames in reader:
            ids.extend(frames.frame_id.tolist())
            if len(ids) >= 30:
                return

    task = asyncio.create_task(read())
    for start in range(0, 30, 3):
        write(writer, 3, start)
        await until(lambda start=start: len(ids) == start + 3, "what was written")
    async with asyncio.timeout(60):
        await task
    assert ids == list(range(30))
    assert len(watchers()) == 1, "one thread, whatever comes"


async def test_losses_come_too(writer, reader):
    write(writer, 32)
    assert len(reader.read()) == 32
    for start in range(32, 192, 32):
        write(writer, 32, start)
    frames = await anext(aiter(reader))
    assert (frames.lost, frames.frame_id.tolist()) == (96, list(range(128, 192)))
    assert reader.lost == 96


async def test_a_ring_with_frames_starves_nobody(writer, reader):
    """Batches that are there already do not keep the loop to themselves."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    write(writer, 32)
    async for _frames in reader:
        reader.position = 0
        if turns >= 20:
            break
    task.cancel()


async def test_while_nothing_comes_nothing_runs(writer, reader, monkeypatch):
    """A look every slice of the wait; a busy loop would look thousands of times."""
    looks = 0
    look = RingReader.read

    def counted(self, *args):
        nonlocal looks
        looks += 1
        return look(self, *args)

    monkeypatch.setattr(RingReader, "read", counted)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(aiter(reader)), 0.5)
    assert 1 <= looks <= 10


async def test_the_same_while_a_file_is_retired_and_none_took_its_place(
    writer, reader, monkeypatch
):
    writer._map.ops.retire()
    await test_while_nothing_comes_nothing_runs(writer, reader, monkeypatch)


async def test_a_cancelled_wait_goes_on_where_it_was(writer, reader):
    arrivals = aiter(reader)
    for turn in range(5):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(arrivals), 0.01)
        write(writer, 2, 2 * turn)
        async with asyncio.timeout(60):
            frames = await anext(arrivals)
        assert frames.frame_id.tolist() == [2 * turn, 2 * turn + 1]
    assert len(watchers()) == 1


async def test_a_cancelled_task_ends(writer, reader):
    async def read():
        async for _ in reader:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    write(writer, 1)
    async for frames in reader:
        assert len(frames) == 1
        break


async def test_closing_ends_the_loop_and_the_thread(writer, reader):
    async def read():
        return [frames async for frames in reader]

    task = asyncio.create_task(read())
    write(writer, 1)
    await until(lambda: reader.position == 1, "its frame")
    reader.close()
    async with asyncio.timeout(60):
        assert len(await task) == 1
    await until(lambda: not watchers(), "no thread")
    assert [frames async for frames in reader] == []


async def test_a_dropped_reader_ends_the_thread(writer, engine):
    write(writer, 1)
    reader = RingReader.open(writer.path, engine=engine)
    await anext(aiter(reader))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(aiter(reader)), 0.01)
    assert watchers()
    del reader
    gc.collect()
    await until(lambda: not watchers(), "no thread")


async def test_two_tasks_on_one_reader_are_told(writer, reader):
    first = asyncio.create_task(anext(aiter(reader)))
    await asyncio.sleep(0.01)
    with pytest.raises(Halt, match="two tasks") as caught:
        await anext(aiter(reader))
    assert caught.value.code == "ring.reader"
    write(writer, 1)
    async with asyncio.timeout(60):
        assert len(await first) == 1


def test_one_reader_in_one_loop_after_the_other(writer, reader):
    for turn in range(3):

        async def read(turn=turn):
            task = asyncio.create_task(anext(aiter(reader)))
            await asyncio.sleep(0.01)
            write(writer, 1, turn)
            async with asyncio.timeout(60):
                return await task

        assert asyncio.run(read()).frame_id.tolist() == [turn]


async def test_another_shape_is_followed(writer, reader, shm, engine):
    task = asyncio.create_task(anext(aiter(reader)))
    await asyncio.sleep(0.01)
    writer.close()
    with RingWriter.open(shm / "ring", RingSpec(DIM + 1, 64), engine=engine) as writer:
        write(writer, 1)
        async with asyncio.timeout(60):
            assert (await task).semantic.shape == (1, DIM + 1)


def test_no_news_are_missed(shm):
    """Each frame is written when the one before was read: a missed wake would cost a slice, 0.1 s.

    A loaded machine may be late now and then.
    """
    rounds, late = 2000, 0

    async def read(reader, writer):
        nonlocal late
        loop = asyncio.get_running_loop()
        write(writer, 1)
        begin, came = loop.time(), 0
        async for frames in reader:
            late += loop.time() - begin > 0.09
            came += len(frames)
            if came == rounds:
                return
            begin = loop.time()
            write(writer, 1, came)

    with RingWriter.open(shm / "ring", RingSpec(DIM, 64)) as writer:
        reader = RingReader.open(shm / "ring")
        asyncio.run(asyncio.wait_for(read(reader, writer), 100))
    assert late <= rounds // 200
    assert (reader.lost, reader.void) == (0, 0)


def test_a_process_that_waits_ends_at_once(shm):
    """No thread keeps the interpreter, and none of them crashes it."""
    code = """
import asyncio, sys
from streamapp.ring import RingReader
async def main():
    reader = RingReader.open(sys.argv[1])
    task = asyncio.create_task(anext(aiter(reader)))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    with RingWriter.open(shm / "ring", RingSpec(DIM, 64)):
        command = [sys.executable, "-X", "dev", "-c", code, str(shm / "ring")]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    # On a busy machine asyncio's debug mode remarks that a step took long.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing ")]
    assert (done.returncode, said) == (0, [])


def test_a_forked_child_has_a_thread_of_its_own(shm):
    code = """
import asyncio, os, sys
from streamapp.ring import RingReader
reader = RingReader.open(sys.argv[1])
async def one():
    async with asyncio.timeout(30):
        return await anext(aiter(reader))
async def none():
    await asyncio.wait_for(anext(aiter(reader)), 0.05)
assert len(asyncio.run(one())) == 1
try:
    asyncio.run(none())
except TimeoutError:
    pass
async def later():
    asyncio.get_running_loop().call_later(0.3, lambda: print("ready", flush=True))
    return await one()
if os.fork() == 0:
    assert len(asyncio.run(later())) == 1
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    with RingWriter.open(shm / "ring", RingSpec(DIM, 64)) as writer:
        write(writer, 1)
        command = [sys.executable, "-c", code, str(shm / "ring")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            write(writer, 1, 1)
            assert process.wait(60) == 0


def test_a_watch_that_was_never_needed_has_no_thread():
    before = len(watchers())
    watch = Watch()
    watch.stop()
    assert len(watchers()) == before
