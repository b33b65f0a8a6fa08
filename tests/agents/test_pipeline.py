"""Steps that overlap, outcomes in order: whatever the log does and whenever the worker dies."""

import asyncio
import json
import random
import threading
from collections import OrderedDict

import pyarrow as pa
import pytest
from enrich_worker import WAIT_S, Event, Log, Plan, Worker
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.agents import outcome, pipeline
from streamapp.core.errors import Retry
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics.catalogue import DEAD, ENRICHED, RAW
from streamapp.topics.enriched import decode
from streamapp.transport.clients import Outgoing

CAP = 4  # small, so that eviction is at work


class Counting(Plan):
    """A stateful stage: the how manieth event of its conversation is it?"""

    def run(self, batch, state, raw):
        self.before(batch)
        overlay = state.overlay()
        view, counts = overlay.view("counting"), []
        for offset, key in zip(
            batch.offsets().tolist(), batch.strings("conversation"), strict=True
        ):
            counts.append((view.get("count", key) or 0) + 1)
            view.put("count", key, offset, counts[-1])
        overlay.commit()
        return batch.with_columns({"count": pa.array(counts, pa.int32())}), overlay.changes


class Shaky(Log):
    """Answers late, asks for another try before or after it has the records, or sees the worker die."""

    def __init__(self, fates):
        super().__init__()
        self.fates = iter(fates)
        self.killed = asyncio.Event()

    async def send(self, topic, records):
        fate = next(self.fates, 0)
        for _ in range(fate if isinstance(fate, int) else 0):
            await asyncio.sleep(0)
        if fate == "retry before":
            raise Retry("log.busy", "try again")
        sent = [] if fate == "killed before" else await super().send(topic, records)
        if fate == "retry after":
            raise Retry("log.busy", "try again")
        if str(fate).startswith("killed"):
            self.killed.set()
            await asyncio.Future()
        return sent


class Delivered(Event):
    """Checks when it is acknowledged that it may be."""

    def __init__(self, records, generation, worker, acked):
        super().__init__(0, [0], generation)
        first, next_ = records[0].offset, records[-1].offset + 1
        self.value = Slice(OffsetRange(RAW, 0, first, next_), records)
        self.worker, self.order = worker, acked

    def ack(self):
        assert max(cover.next for cover in self.worker.log.covers()) >= self.value.range.next
        self.order.append(self.value.range)
        super().ack()


@pytest.fixture(autouse=True)
def never_ended(ended, monkeypatch):
    """Tries follow at once, and nothing ends the process."""
    monkeypatch.setattr(outcome, "WAIT_S_FIRST", 0.0)
    yield
    assert not ended


async def kill(worker):
    """Nothing is finished, as after kill -9."""
    worker.body.cancel()
    tasks = [worker.body]
    for one in worker.agent._partitions.values():
        one.drop()
        tasks += one._tasks
    await asyncio.gather(*tasks, return_exceptions=True)
    for executor in (worker.agent._decoding, worker.agent._inference):
        executor.shutdown()


def expected(records):
    """What one event at a time gives, in memory."""
    counts, window, rows = OrderedDict(), [], []
    for record in records:
        try:
            event = json.loads(record.value)
        except ValueError:
            continue
        if event["id"] in window[-CAP:]:
            continue
        window.append(event["id"])
        key = event["conversation"]
        counts[key] = counts.get(key, 0) + 1
        counts.move_to_end(key)
        if len(counts) > CAP:
            counts.popitem(last=False)
        rows.append((record.offset, event["id"], counts[key]))
    return rows


def published(log):
    """Every row of the enriched topic, first-wins by source offset, as a view of it keeps them."""
    covered, rows = 0, []
    for record in map(decode, log.records[ENRICHED]):
        assert record.cover.first <= covered, "a hole"
        rows += [
            (row["source_offset"], row["id"], row["count"])
            for row in record.rows.to_pylist()
            if row["source_offset"] >= covered
        ]
        covered = max(covered, record.cover.next)
    return rows, covered


async def live(worker, records, chance):
    """Deliver everything from where the worker stands until it is done or dead; ranges acknowledged."""
    acked, events = [], []
    at = (await worker.agent.start_positions([(RAW, 0)]))[RAW, 0]
    worker.body = asyncio.create_task(worker.agent.run(worker.stream))
    while at < len(records):
        size = chance.randint(1, 6)
        events.append(Delivered(records[at : at + size], worker.generation, worker, acked))
        worker.stream.queue.put_nowait(events[-1])
        at += size
    ends = [asyncio.ensure_future(one.wait()) for one in (events[-1].acked, worker.log.killed)]
    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await kill(worker)
    assert acked == [event.value.range for event in events][: len(acked)]


def record(offset, conversation, identity, size):
    event = {"message": random.Random(offset).randbytes(size).hex(), "id": f"e{identity}"}
    return Record(
        offset, 0, None, json.dumps(event | {"conversation": f"c{conversation}"}).encode()
    )


bodies = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 15), st.sampled_from([1, 400])),
    min_size=1,
    max_size=40,
)
fates = st.lists(
    st.integers(0, 9)
    | st.sampled_from(["retry before", "retry after", "killed before", "killed after"]),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(bodies, fates, st.integers(1, 4), st.sampled_from([1 << 20, 12_000]), st.integers(0, 99))
async def test_every_enrichment_equals_an_uninterrupted_run(
    events, fates, snapshots, bytes_max, seed
):
    """Killed before or after any record, dead letter or snapshot is in the log; and again."""
    records = [record(at, *event) for at, event in enumerate(events)]
    for at in range(0, len(records), 7):
        records[at] = Record(at, 0, None, b"no event")
    log, chance = Shaky(fates), random.Random(seed)
    limits = {
        "conversations_max": CAP, "snapshot_records": snapshots, "record_bytes_max": bytes_max,
    }  # fmt: skip
    generation = 0
    while published(log)[1] < len(records):
        generation += 1
        log.killed.clear()
        await live(Worker(Counting(), log, generation=generation, **limits), records, chance)
    assert published(log) == (expected(records), len(records))
    bad = {at for at, one in enumerate(records) if one.value == b"no event"}
    assert {int(dict(r.headers)["__connect.errors.offset"]) for r in log.records[DEAD]} == bad


async def test_a_slow_log_does_not_keep_the_next_from_being_decoded_and_inferred():
    answer = asyncio.Event()

    class Slow(Log):
        async def send(self, topic, records):
            await answer.wait()
            return await super().send(topic, records)

    seen = []
    async with Worker(Plan(lambda batch: seen.append(batch.range.first)), Slow()) as worker:
        events = [Event(at, [at]) for at in range(9)]
        for event in events:
            worker.stream.queue.put_nowait(event)
        async with asyncio.timeout(WAIT_S):
            while len(seen) < 3 or not worker.stream.queue.qsize():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)  # what would go too far has time to
        # One is being published, one waits for that, one is made and waits for its place.
        assert seen == [0, 1, 2]
        assert not any(event.acked.is_set() for event in events)
        answer.set()
        await worker.finished()
        async with asyncio.timeout(WAIT_S):
            await events[-1].acked.wait()
        assert [(c.first, c.next) for c in worker.log.covers()] == [(at, at + 1) for at in range(9)]


async def test_bytes_in_work_are_bounded_but_a_large_slice_goes_through(monkeypatch):
    monkeypatch.setattr(pipeline, "IN_WORK_BYTES_MAX", 10)  # less than any
    at_once = []

    class Watching(Log):
        async def send(self, topic, records):
            at_once.append(worker.agent._partitions[RAW, 0]._room._taken)
            return await super().send(topic, records)

    async with Worker(Plan(), Watching()) as worker:
        events = [Event(at, [at]) for at in range(5)]
        await worker.finished(*events)
        sizes = [len(event.value.records[0].value) for event in events]
        assert at_once == sizes


@pytest.mark.parametrize("where", ["decoding", "inference", "publication"])
async def test_what_was_revoked_on_its_way_is_neither_published_nor_acknowledged(
    where, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_):
        begun.set()
        assert go_on.wait(WAIT_S)

    class Held(Log):
        async def send(self, topic, records):
            if where == "publication" and not begun.is_set():
                begun.set()
                await asyncio.to_thread(go_on.wait, WAIT_S)
                raise Retry("log.busy", "nothing was appended")
            return await super().send(topic, records)

    if where == "decoding":
        first = iter([hold])
        decode_slice = pipeline.decode_slice

        def held_decode(*args, **options):
            next(first, lambda: None)()
            return decode_slice(*args, **options)

        monkeypatch.setattr(pipeline, "decode_slice", held_decode)

    def hold_first(_batch):
        if where == "inference" and not begun.is_set():
            hold()

    async with Worker(Plan(hold_first), Held()) as worker:
        old = [Event(at, [at]) for at in range(4)]
        for event in old:
            worker.stream.queue.put_nowait(event)
        await asyncio.to_thread(begun.wait, WAIT_S)
        worker.generation = 2
        assert await worker.agent.start_positions([(RAW, 0)]) == {(RAW, 0): 0}
        go_on.set()
        await worker.finished(Event(0, [0, 1, 2, 3], generation=2))
        assert not any(event.acked.is_set() for event in old)
        assert [(c.first, c.next) for c in worker.log.covers()] == [(0, 4)]


async def test_stopping_does_not_wait_for_a_log_that_does_not_answer():
    class Silent(Log):
        asked = asyncio.Event()

        async def send(self, topic, records):
            self.asked.set()
            raise Retry("log.unreachable", "nobody there")

    async with Worker(Plan(), Silent()) as worker:
        events = [Event(at, [at]) for at in range(4)]
        for event in events:
            worker.stream.queue.put_nowait(event)
        await worker.log.asked.wait()
        async with asyncio.timeout(WAIT_S):
            await worker.agent.stop()
        assert not any(event.acked.is_set() for event in events)
        assert worker.log.stopped


async def test_a_step_that_ends_lets_go_the_ones_behind_it():
    """The group moves on while a Slice is published and two more are on their way; then a SIGTERM."""
    sent, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Log):
        async def send(self, topic, records):
            sent.set()
            await go_on.wait()
            return await super().send(topic, records)

    async with Worker(Plan(), Slow()) as worker:
        for at in range(5):
            worker.stream.queue.put_nowait(Event(at, [at]))
        await sent.wait()
        way = worker.agent._partitions[RAW, 0]
        async with asyncio.timeout(WAIT_S):
            while not way._made._putters:  # the models' step waits for the publishing one
                await asyncio.sleep(0)
        worker.generation = 2
        go_on.set()
        async with asyncio.timeout(WAIT_S):
            await worker.agent.stop()


async def test_a_generation_that_is_over_publishes_nothing_even_before_it_is_told():
    """The group has moved on, and the new assignment has not come yet."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_batch):
        begun.set()
        assert go_on.wait(WAIT_S)

    async with Worker(Plan(hold)) as worker:
        old = Event(0, [0])
        worker.stream.queue.put_nowait(old)
        await asyncio.to_thread(begun.wait, WAIT_S)
        worker.generation = 2
        go_on.set()
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait(worker.agent._partitions[RAW, 0]._tasks[2:])
        assert worker.log.covers() == []
        assert not old.acked.is_set()


async def test_the_twin_is_in_the_log_before_its_batch_and_without_what_was_rejected():
    order = []

    class Ordered(Log):
        async def send(self, topic, records):
            order.append(topic)
            return await super().send(topic, records)

    def twin(batch):
        return [("twin", [Outgoing(text.encode()) for text in batch.strings("id")])]

    async with Worker(Plan(), Ordered(), twin, record_bytes_max=12_000) as worker:
        event = Event(0, [0, 1, 2])
        large = {"message": random.Random(1).randbytes(9000).hex(), "id": "large"}
        event.value.records[1] = Record(1, 0, None, json.dumps(large).encode())
        await worker.finished(event)
        assert [r.value for r in worker.log.records["twin"]] == [b"e0", b"e2"]
        assert order == [DEAD, "twin", ENRICHED]


async def test_an_event_too_large_to_publish_may_come_again_also_after_a_takeover():
    """It did not go through, and what a new owner reads says so."""
    large = {"message": random.Random(1).randbytes(9000).hex(), "id": "e9"}
    log, records = Log(), [Record(0, 0, None, json.dumps(large).encode())]
    async with Worker(Plan(), log, record_bytes_max=12_000) as worker:
        event = Event(0, [0])
        event.value.records[:] = records
        await worker.finished(event, Event(1, [9], generation=1))
        assert [c.rows for c in log.covers()][-1] == 1
    log.stopped = 0
    async with Worker(Plan(), log, generation=2) as second:
        assert second.positions == {(RAW, 0): 10}
        await second.finished(Event(10, [10], generation=2))
        assert [c.rows for c in log.covers()][-1] == 1
