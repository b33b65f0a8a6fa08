"""Faust apps on the local log, each in a process of its own."""

import asyncio
import json

import pytest
from clients import opened

from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader

COUNTING = """
words = app.topic("words", key_type=str, value_type=int)
counts = app.Table("counts", default=int)

@app.agent(words)
async def count(stream):
    async for key, value in stream.items():
        counts[key] += 1
        say("COUNT", key, counts[key], value)
"""


@pytest.fixture
async def log(url):
    async with opened(url, open_admin, open_producer, open_reader) as clients:
        yield Log(*clients)


class Log:
    def __init__(self, admin, producer, reader):
        self.admin, self.producer, self.reader = admin, producer, reader

    async def create(self, topic, partitions=2):
        await self.admin.create(TopicSpec(topic, partitions, 1 << 20))

    async def send(self, topic, numbers, key=None, partition=None):
        records = [
            Outgoing(json.dumps(n).encode(), key and key(n), partition=partition) for n in numbers
        ]
        await self.producer.send(topic, records)

    async def lag(self, topic, partitions=2):
        committed = await self.admin.committed("tested")
        return sum(
            [
                (await self.reader.bounds(topic, p))[1] - committed.get((topic, p), 0)
                for p in range(partitions)
            ]
        )

    async def until_committed(self, topic):
        async with asyncio.timeout(60):
            while await self.lag(topic):
                await self.reader.read(topic, 0, 1 << 40, wait_ms_max=20)  # another process commits


async def off_loop(call, *arguments):
    return await asyncio.to_thread(call, *arguments)


def one_key(_number):
    return b"k"


async def test_counts_recover_over_restarts_and_a_kill(app, log):
    worker_of = app(COUNTING)
    await log.create("words")
    seen = 0
    for ending in ("terminate", "kill", "terminate"):
        worker = await off_loop(worker_of("worker").ready)
        await log.send("words", range(5), one_key)
        await log.until_committed("words")
        counts = [int(count) for _, count, _ in worker.lines("COUNT")]
        assert counts == list(range(seen + 1, seen + 6))
        seen += 5
        if ending == "kill":
            worker.kill()
        else:
            assert await off_loop(worker.terminate) == 0


async def test_a_kill_under_load_processes_everything_at_least_once(app, log):
    worker_of = app(COUNTING)
    await log.create("words")
    keyed = lambda n: b"key%d" % (n % 10)  # noqa: E731
    await log.send("words", range(3000), keyed)
    values = set()
    for enough in (500, 1500):
        worker = worker_of("worker")
        await off_loop(worker.wait_for, lambda w, n=enough: len(w.lines("COUNT")) > n, "counts")
        await off_loop(worker.kill)
        values |= {int(line[2]) for line in worker.lines("COUNT") if len(line) == 3}
        committed = await log.admin.committed("tested")
        assert sum(o for (topic, _), o in committed.items() if topic == "words") <= len(values)
    worker = await off_loop(worker_of("worker").ready)
    await log.until_committed("words")
    assert await off_loop(worker.terminate) == 0
    lines = worker.lines("COUNT")
    values |= {int(value) for _, _, value in lines}
    assert values == set(range(3000))
    last = {key: int(count) for key, count, _ in lines}
    assert all(count >= 300 for count in last.values())


async def test_sigterm_under_load_commits_what_was_processed_and_exits_0(app, log):
    worker_of = app(COUNTING)
    await log.create("words")
    seen = []
    keyed = lambda n: b"key%d" % (n % 10)  # noqa: E731
    await log.send("words", range(4000), keyed)
    for enough in (300, 300):
        worker = await off_loop(worker_of("worker").ready)
        await off_loop(worker.wait_for, lambda w, n=enough: len(w.lines("COUNT")) > n, "counts")
        assert await off_loop(worker.terminate) == 0
        seen += [int(value) for _, _, value in worker.lines("COUNT")]
        assert await log.lag("words") == 4000 - len(seen)
    worker = await off_loop(worker_of("worker").ready)
    await log.until_committed("words")
    assert await off_loop(worker.terminate) == 0
    seen += [int(value) for _, _, value in worker.lines("COUNT")]
    assert sorted(seen) == list(range(4000))  # not one lost, not one twice


async def test_fausts_own_commands_work(app, log):
    command = app(COUNTING)
    send = command("send", "words", "7", "-k", "a")
    assert await off_loop(send.ended) == 0, send.text()
    assert json.loads(send.text().splitlines()[-1])["offset"] == 0
    send = command("send", "@count", "8", "-k", "a", "--repeat", "2")
    assert await off_loop(send.ended) == 0, send.text()
    for verb, expected in (("agents", "@count"), ("tables", "counts")):
        listing = command(verb)
        assert await off_loop(listing.ended) == 0
        assert expected in listing.text()
    worker = await off_loop(command("worker").ready)
    await off_loop(worker.wait_for, lambda w: len(w.lines("COUNT")) == 3, "three counts")
    assert await off_loop(worker.terminate) == 0


async def test_group_by_repartitions_through_the_log(app, log):
    worker_of = app(
        """
words = app.topic("words", value_type=int)
parity = app.Table("parity", default=int)

@app.agent(words)
async def count(stream):
    async for value in stream.group_by(lambda v: str(v % 2), name="parity"):
        parity[str(value % 2)] += 1
        say("PARITY", value % 2, parity[str(value % 2)])
"""
    )
    await log.create("words")
    await log.send("words", range(20))
    worker = worker_of("worker")
    wanted = lambda w: {("0", "10"), ("1", "10")} <= set(map(tuple, w.lines("PARITY")))  # noqa: E731
    await off_loop(worker.wait_for, wanted, "both parities")
    assert await off_loop(worker.terminate) == 0


async def test_an_agent_is_asked_from_another_process(app, log, run):
    worker_of = app(
        """
app.conf.reply_create_topic = True

@app.agent(app.topic("questions", value_type=int))
async def double(stream):
    async for value in stream:
        yield value * 2

async def ask():
    await app.start_client()
    say("ANSWER", await double.ask(21))
    await app.stop()

if __name__ == "__main__":
    asyncio.run(ask())
"""
    )
    worker = await off_loop(worker_of("worker").ready)
    client = run("-m", "tested")
    assert await off_loop(client.ended) == 0, client.text()
    assert client.lines("ANSWER") == [["42"]]
    assert await off_loop(worker.terminate) == 0


async def test_exactly_once_is_refused(app):
    worker = app('app.conf.processing_guarantee = "exactly_once"' + COUNTING)("worker")
    assert await off_loop(worker.ended) != 0
    assert "leave processing_guarantee at 'at_least_once'" in worker.text()


SLICES = """
async def start_positions(tps):
    say("ASKED", *sorted(f"{tp.topic}-{tp.partition}" for tp in tps))
    return {tp: int(os.environ["START"]) for tp in tps if tp.partition == 1}

transport.configure(
    app, coalesce={"raw"}, batch_events_max=100,
    start_positions=start_positions if "START" in os.environ else None,
)

@app.agent(transport.slice_topic(app, "raw"))
async def take(stream):
    async for event in stream.noack().events():
        piece = event.value
        say("SLICE", *piece.range[1:], len(piece), piece.records[0].value.decode())
        event.ack()
"""


async def test_a_coalesced_agent_receives_slices_without_holes(app, log):
    worker_of = app(SLICES)
    await log.create("raw")
    await log.send("raw", range(1050), partition=0)
    await log.send("raw", range(30), partition=1)
    worker = worker_of("worker")
    await log.until_committed("raw")
    assert await off_loop(worker.terminate) == 0
    slices = [tuple(map(int, line)) for line in worker.lines("SLICE")]
    for partition, end in ((0, 1050), (1, 30)):
        position = 0
        for _, first, next_, count, value in (s for s in slices if s[0] == partition):
            assert first == position == value
            assert next_ - first == count <= 100
            position = next_
        assert position == end


async def test_work_starts_where_start_positions_says(app, log):
    worker_of = app(SLICES)
    await log.create("raw")
    await log.send("raw", range(10), partition=0)
    await log.send("raw", range(10), partition=1)
    worker = worker_of("worker", START="4")
    await log.until_committed("raw")
    assert await off_loop(worker.terminate) == 0
    assert worker.lines("ASKED") == [["raw-0", "raw-1"]]
    assert sorted(line[:3] for line in worker.lines("SLICE")) == [
        ["0", "0", "10"],
        ["1", "4", "10"],
    ]
    worker = worker_of("worker", START="9")  # again, against what was committed
    await off_loop(worker.wait_for, lambda w: w.lines("SLICE"), "a slice")
    assert await off_loop(worker.terminate) == 0
    assert [line[:3] for line in worker.lines("SLICE")] == [["1", "9", "10"]]


async def test_a_start_beyond_the_logs_end_stops_the_worker(app, log):
    worker_of = app(SLICES)
    await log.create("raw")
    worker = worker_of("worker", START="1")
    assert await off_loop(worker.ended) != 0
    assert "raw-1 ends at 0, but work is to go on at 1" in worker.text()


async def test_a_commit_never_passes_an_unprocessed_record(app, log):
    worker_of = app(
        """
@app.agent(app.topic("words", value_type=int))
async def hold(stream):
    held = []
    async for event in stream.noack().events():
        held.append(event)
        if len(held) < 10:
            continue
        for number in (9, 5, 6, 1, 0, 2, 3, 8, 7, 4):
            held[number].ack()
            await app.consumer.commit()
            committed = await app.transport.log.committed("tested")
            say("COMMITTED", number, committed.get(("words", 0), 0))
"""
    )
    await log.create("words", 1)
    await log.send("words", range(10))
    worker = worker_of("worker")
    await off_loop(worker.wait_for, lambda w: len(w.lines("COMMITTED")) == 10, "ten commits")
    assert await off_loop(worker.terminate) == 0
    committed = [int(line[1]) for line in worker.lines("COMMITTED")]
    assert committed == [0, 0, 0, 0, 2, 3, 4, 4, 4, 10]


async def test_a_new_topic_at_run_time_rebalances_without_loss(app, log):
    worker_of = app(
        COUNTING
        + """
app.topics._resubscribe_sleep_lock_seconds = 0.1
more = app.topic("more", value_type=int)

@app.task
async def late():
    while not counts.get("k"):
        await asyncio.sleep(0.05)
    async for value in more.stream():
        say("MORE", value)
"""
    )
    await log.create("words")
    worker = await off_loop(worker_of("worker").ready)
    await log.send("words", range(50), one_key)
    await log.create("more")
    await log.send("more", range(10))
    await off_loop(worker.wait_for, lambda w: len(w.lines("MORE")) >= 10, "ten more")
    await log.send("words", range(50, 100), one_key)
    await log.until_committed("words")
    assert await off_loop(worker.terminate) == 0
    assert {int(value) for _, _, value in worker.lines("COUNT")} == set(range(100))
    assert sorted(int(value) for [value] in worker.lines("MORE")) == list(range(10))
