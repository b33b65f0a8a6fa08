"""Several members of one group on the local log: no record lost, no partition with two holders."""

import asyncio
import json
import signal
import sqlite3
from contextlib import closing, suppress

import pytest
from clients import opened
from machine import freeze

from streamapp.core.errors import Retry
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader
from streamapp.transport.local.groups import FOLDER

SHARING = """
words = app.topic("words", value_type=int)

@app.on_partitions_assigned.connect
async def assigned(_app, tps, **_):
    say("HAS", app.consumer_generation_id, *sorted(t.partition for t in tps if t.topic == "words"))

@app.agent(words)
async def count(stream):
    async for event in stream.events():
        say("SEEN", event.message.partition, event.message.offset, event.value)
"""


@pytest.fixture
async def log(url):
    async with opened(url, open_admin, open_producer, open_reader) as clients:
        yield Log(*clients)


class Log:
    def __init__(self, admin, producer, reader):
        self.admin, self.producer, self.reader = admin, producer, reader

    async def create(self, partitions):
        self.partitions = partitions
        await self.admin.create(TopicSpec("words", partitions, 1 << 20))

    async def send(self, numbers):
        """Each number to partition ``number % partitions``."""
        await self.producer.send(
            "words",
            [
                Outgoing(json.dumps(n).encode(), b"%d" % n, partition=n % self.partitions)
                for n in numbers
            ],
        )

    async def until_committed(self):
        async with asyncio.timeout(60):
            while True:
                committed = await self.admin.committed("tested")
                ends = [(await self.reader.bounds("words", p))[1] for p in range(self.partitions)]
                if [committed.get(("words", p), 0) for p in range(self.partitions)] == ends:
                    return
                await self.reader.read("words", 0, 1 << 40, wait_ms_max=20)


async def until(worker, condition, what):
    await asyncio.to_thread(worker.wait_for, condition, what)


async def terminated(worker):
    return await asyncio.to_thread(worker.terminate)


def part(worker):
    """The partitions a worker has now."""
    lines = worker.lines("HAS")
    return set(map(int, lines[-1][1:])) if lines else None


async def until_shared(workers, partitions):
    """Each partition has one holder, at one generation, and nobody has more than its share."""
    share = -(-partitions // len(workers))

    def shared():
        parts = [part(worker) for worker in workers]
        if any(p is None or len(p) > share for p in parts):
            return False
        generations = {worker.lines("HAS")[-1][0] for worker in workers}
        return len(generations) == 1 and sorted(n for p in parts for n in p) == list(
            range(partitions)
        )

    await until(workers[0], lambda _: shared(), f"shares of {share}")


def seen(*workers):
    return [int(line[2]) for worker in workers for line in worker.lines("SEEN") if len(line) == 3]


async def test_members_that_come_and_go_cleanly_process_each_record_once(app, log):
    start = app(SHARING)
    await log.create(4)
    numbers = iter(range(100_000))

    async def load():
        while True:
            await log.send([next(numbers) for _ in range(20)])
            await asyncio.sleep(0.01)

    loading = asyncio.create_task(load())
    workers = [start("worker")]
    await until(workers[0], seen, "the first to work")
    workers.append(start("worker"))
    await until_shared(workers, 4)
    await until(workers[1], seen, "the second to work")
    assert await terminated(workers[0]) == 0
    await until_shared(workers[1:], 4)
    workers.append(start("worker"))
    await until_shared(workers[1:], 4)
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    sent = next(numbers)
    await log.until_committed()
    for worker in workers[1:]:
        assert await terminated(worker) == 0
    assert sorted(seen(*workers)) == list(range(sent))
    generations = [int(line[0]) for worker in workers for line in worker.lines("HAS")]
    assert generations[0] < generations[-1]
    for worker in workers:
        its = [int(line[0]) for line in worker.lines("HAS")]
        assert its == sorted(set(its))


async def test_what_a_killed_member_had_goes_to_the_other(app, log):
    start = app(SHARING)
    await log.create(4)
    workers = [start("worker"), start("worker")]
    await until_shared(workers, 4)
    await log.send(range(2000))
    await until(workers[1], lambda w: len(seen(w)) > 100, "some work")
    await asyncio.to_thread(workers[1].kill)
    await log.send(range(2000, 3000))
    await log.until_committed()
    assert set(seen(*workers)) == set(range(3000))
    assert f"put process {workers[1].process.pid} out" in workers[0].text()
    assert part(workers[0]) == {0, 1, 2, 3}
    assert await terminated(workers[0]) == 0


async def test_a_stopped_member_is_fenced_and_comes_back_as_another(app, log, folder):
    start = app(SHARING)
    await log.create(2)
    workers = [start("worker"), start("worker")]
    await until_shared(workers, 2)
    stopped = workers[1]
    theirs = part(stopped)
    await log.send(range(1000))
    await until(stopped, lambda w: len(seen(w)) > 50, "some work")
    freeze(stopped.process, folder)
    try:
        await log.send(range(1000, 1200))
        await until(workers[0], lambda w: part(w) == {0, 1}, "the other to take over")
        await log.until_committed()
    finally:
        stopped.process.send_signal(signal.SIGCONT)
    before = await log.admin.committed("tested")
    await until(stopped, lambda w: "others have its partitions" in w.text(), "it to notice")
    await until_shared(workers, 2)
    assert await log.admin.committed("tested") == before  # not one commit of the stopped one
    await log.send(range(1200, 1400))
    await log.until_committed()
    for worker in workers:
        assert await terminated(worker) == 0
    assert set(seen(*workers)) == set(range(1400))
    late = [int(line[2]) for line in stopped.lines("SEEN") if int(line[2]) >= 1000]
    new = {n for n in late if n < 1200}
    assert not new, f"delivered what was sent while it was stopped: {new} (it had {theirs})"


HOLDING = SHARING.replace(
    'say("SEEN"',
    """if os.environ.get("HOLD"):
            say("HOLDING", event.value)
            await asyncio.sleep(3600)
        say("SEEN\"""",
)


async def test_the_oldest_killed_while_the_others_wait_for_it_costs_nothing(app, log, folder):
    start = app(HOLDING)
    await log.create(4)
    oldest = start("worker", HOLD="1")
    await until(oldest, part, "the oldest to have all")
    await log.send(range(100))
    await until(oldest, lambda w: w.lines("HOLDING"), "work that does not end")
    workers = [start("worker"), start("worker")]
    with closing(sqlite3.connect(folder / FOLDER / "groups.db", check_same_thread=False)) as db:
        ready = "SELECT count(*) FROM members JOIN groups ON name = consumer_group AND ready = generation"
        waiting = lambda _: db.execute(ready).fetchone() == (2,)  # noqa: E731
        await until(oldest, waiting, "the oldest to hold up the others")
    assert [part(worker) for worker in workers] == [None, None]
    await asyncio.to_thread(oldest.kill)
    await until_shared(workers, 4)
    await log.until_committed()
    assert sorted(seen(*workers)) == list(range(100))
    for worker in workers:
        assert await terminated(worker) == 0


async def test_three_members_share_four_partitions_and_a_fifth_waits_for_its_chance(app, log):
    start = app(SHARING)
    await log.create(4)
    workers = [start("worker") for _ in range(3)]
    await until_shared(workers, 4)
    workers += [start("worker") for _ in range(2)]
    idle = lambda: [worker for worker in workers if part(worker) == set()]  # noqa: E731
    await until_shared(workers, 4)
    assert len(idle()) == 1
    await log.send(range(400))
    await log.until_committed()
    spare = idle()[0]
    assert not seen(spare)
    for worker in workers:
        if worker is not spare:
            await asyncio.to_thread(worker.kill)
    await until_shared([spare], 4)
    await log.send(range(400, 500))
    await log.until_committed()
    assert set(seen(spare)) >= set(range(400, 500))
    assert await terminated(spare) == 0


COUNTING = """
words = app.topic("words", key_type=str, value_type=int)
counts = app.Table("counts", default=int, partitions=4)

@app.on_partitions_assigned.connect
async def assigned(_app, tps, **_):
    say("HAS", app.consumer_generation_id, *sorted(t.partition for t in tps if t.topic == "words"))

@app.agent(words)
async def count(stream):
    async for key, value in stream.items():
        counts[key] += 1
        say("COUNT", key, counts[key])
"""


async def test_a_table_moves_with_its_partitions(app, log):
    start = app(COUNTING)
    await log.create(4)
    keys = [f"k{number}".encode() for number in range(40)]
    sent = 0

    async def one_each():
        nonlocal sent
        sent += 1
        await log.producer.send("words", [Outgoing(b"1", key) for key in keys])
        await log.until_committed()

    def counted():
        last = {}
        for worker in workers:
            for key, count in worker.lines("COUNT"):
                last[key] = max(int(count), last.get(key, 0))
        return last

    workers = [start("worker")]
    await until(workers[0], part, "the first to have all")
    for change in ("join", "join", "leave", "kill", "join"):
        await one_each()
        assert counted() == {key.decode(): sent for key in keys}
        alive = [worker for worker in workers if worker.process.poll() is None]
        if change == "join":
            workers.append(start("worker"))
            await until_shared([*alive, workers[-1]], 4)
        elif change == "leave":
            assert await terminated(alive[0]) == 0
            await until_shared(alive[1:], 4)
        else:
            await asyncio.to_thread(alive[0].kill)
            await until_shared(alive[1:], 4)
    await one_each()
    assert counted() == {key.decode(): sent for key in keys}
    for worker in workers:
        if worker.process.poll() is None:
            assert await terminated(worker) == 0


async def test_a_full_disk_holds_a_group_up_and_costs_it_nothing(app, run, small_disk, tmp_path):
    disk = small_disk("4m")
    (disk / "log").mkdir()
    (tmp_path / "log").symlink_to(disk / "log")
    url = f"local://{tmp_path}/log"
    log = Log(open_admin(url), open_producer(url), open_reader(url))
    for client in (log.admin, log.producer, log.reader):
        await client.start()
    start = app(SHARING)
    await log.create(2)
    workers = [start("worker"), start("worker")]
    await until_shared(workers, 2)
    await log.send(range(10))
    await log.until_committed()
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    sent = 10
    with suppress(Retry):
        while True:
            await log.send(range(sent, sent + 10))
            sent += 10
    waits = lambda w: "no space left" in w.text()  # noqa: E731
    newcomer = start("worker")
    await until(newcomer, waits, "a newcomer to wait for space")
    ballast.unlink()
    await log.send(range(sent, sent + 100))
    await log.until_committed()
    assert set(seen(*workers, newcomer)) == set(range(sent + 100))
    for worker in (*workers, newcomer):
        assert await terminated(worker) == 0
    for client in (log.admin, log.producer, log.reader):
        await client.stop()
