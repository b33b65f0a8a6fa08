"""The enrich agent on a log in memory: nothing is skipped, lost unheard, or stopped for by a Retry."""

import asyncio
import json

import pytest

from streamapp.agents import enrich, outcome
from streamapp.agents.enrich import EnrichAgent, EnrichConfig
from streamapp.core.errors import Halt, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import decode
from streamapp.transport.clients import Address

WAIT_S = 10


class Log:
    """Topics in memory; `begin` of the raw one is set by the test, as retention would."""

    def __init__(self):
        self.records = {ENRICHED: []}
        self.begin = 0
        self.stopped = 0

    async def start(self):
        pass

    async def stop(self):
        self.stopped += 1

    async def send(self, topic, records):
        kept = self.records.setdefault(topic, [])
        first = len(kept)
        kept += [Record(first + i, 0, r.key, r.value, r.headers) for i, r in enumerate(records)]
        return [Address(topic, 0, first + i) for i in range(len(records))]

    async def bounds(self, topic, partition):
        return (self.begin, 10**6) if topic == RAW else (0, len(self.records[topic]))

    async def read(self, topic, partition, offset, **_limits):
        found = self.records[topic][offset:]
        return Slice(OffsetRange(topic, partition, offset, offset + len(found)), found)

    def covers(self):
        return [decode(record).cover for record in self.records[ENRICHED]]


class Plan:
    """Adds nothing; `before` is called with each batch in the inference thread."""

    is_open = True

    def __init__(self, before=lambda batch: None):
        self.before = before

    def close(self):
        self.is_open = False

    def provenance(self):
        return "[]"

    def run(self, batch, state, raw):
        self.before(batch)
        return batch, []


class Event:
    """A Slice as Faust hands it over."""

    def __init__(self, first, offsets, generation=1):
        values = [json.dumps({"message": "m", "id": f"e{o}"}).encode() for o in offsets]
        records = [Record(o, 0, None, v) for o, v in zip(offsets, values, strict=True)]
        self.value = Slice(OffsetRange(RAW, 0, first, offsets[-1] + 1), records)
        self.generation_id = generation
        self.message = self
        self.acked = asyncio.Event()

    def ack(self):
        self.acked.set()


class Stream:
    def __init__(self):
        self.queue = asyncio.Queue()

    def noack(self):
        return self

    async def events(self):
        while True:
            yield await self.queue.get()


class Worker:
    """An agent that runs, on partition 0 of the raw topic."""

    def __init__(self, plan, **config):
        self.log, self.stream, self.metrics, self.generation = Log(), Stream(), Metrics(), 1
        limits = {
            "record_bytes_max": 1 << 20,
            "event_bytes_max": 1 << 20,
            "snapshot_records": 1000,
            "snapshot_s": 10**9,
            "conversations_max": 1000,
        }
        self.agent = EnrichAgent(
            plan,
            self.log,
            self.log,
            EnrichConfig(**{**limits, **config}),
            self.metrics,
            lambda: self.generation,
        )

    async def __aenter__(self):
        await self.agent.start_positions([(RAW, 0)])
        self.body = asyncio.create_task(self.agent.run(self.stream))
        return self

    async def __aexit__(self, *_):
        self.body.cancel()
        if not self.log.stopped:
            await self.agent.stop()

    async def finished(self, *events):
        for event in events:
            await self.stream.queue.put(event)
        async with asyncio.timeout(WAIT_S):
            for event in events:
                await event.acked.wait()

    def value(self, name):
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture(autouse=True)
def no_exit(monkeypatch):
    """What would end the process raises where the test sees it."""
    said = []

    def stop(error):
        said.append(error)
        raise asyncio.CancelledError

    monkeypatch.setattr(outcome, "stop_process", stop)
    monkeypatch.setattr(enrich, "stop_process", stop)
    return said


async def test_a_retry_of_a_stage_waits_and_keeps_the_batch():
    tries = []

    def twice(batch):
        tries.append(len(batch))
        if len(tries) < 3:
            raise Retry("model.remote", "the model does not answer")

    async with Worker(Plan(twice)) as worker:
        await worker.finished(Event(0, [0, 1]))
        assert tries == [2, 2, 2]
        assert [cover.rows for cover in worker.log.covers()] == [2]


async def test_loss_while_running_is_counted():
    """Retention overtook a worker that was behind: the log answers with later records."""
    async with Worker(Plan()) as worker:
        await worker.finished(Event(0, [0, 1]))
        worker.log.begin = 7
        await worker.finished(Event(2, [7, 8]))
        assert [(c.first, c.next, c.lost) for c in worker.log.covers()] == [
            (0, 2, 0),
            (2, 7, 5),
            (7, 9, 0),
        ]
        assert worker.value("streamapp_lost_events_total") == 5


async def test_offsets_that_the_log_skips_are_covered_and_no_loss():
    async with Worker(Plan()) as worker:
        await worker.finished(Event(0, [3, 4]))
        assert [(c.first, c.next, c.lost) for c in worker.log.covers()] == [(0, 5, 0)]


async def test_a_slice_that_comes_again_is_acknowledged_and_published_once():
    async with Worker(Plan()) as worker:
        await worker.finished(Event(0, [0, 1]), Event(0, [0, 1]), Event(1, [1, 2, 3]))
        assert [(c.first, c.next) for c in worker.log.covers()] == [(0, 2), (2, 4)]


async def test_a_slice_that_was_never_delivered_halts_before_anything_is_covered(no_exit):
    async with Worker(Plan()) as worker:
        late = Event(5, [5])
        await worker.stream.queue.put(late)
        async with asyncio.timeout(WAIT_S):
            while not no_exit:
                await asyncio.sleep(0.01)
        assert isinstance(no_exit[0], Halt)
        assert no_exit[0].code == "enrich.gap"
        assert worker.log.covers() == []
        assert not late.acked.is_set()


async def test_a_snapshot_too_large_for_its_topic_is_counted_and_work_goes_on():
    limits = {"snapshot_records": 1, "record_bytes_max": 12_000}
    async with Worker(Plan(), **limits) as worker:
        await worker.finished(*(Event(n * 50, list(range(n * 50, n * 50 + 50))) for n in range(9)))
        assert worker.value("streamapp_snapshots_too_large_total") > 0
        assert worker.log.covers()[-1].next == 450


async def test_stopping_finishes_the_slice_in_work_and_leaves_the_others():
    import threading

    begun, go_on = threading.Event(), threading.Event()

    def hold(_batch):
        begun.set()
        assert go_on.wait(WAIT_S)

    async with Worker(Plan(hold)) as worker:
        events = [Event(0, [0]), Event(1, [1]), Event(2, [2])]
        for event in events:
            await worker.stream.queue.put(event)
        await asyncio.to_thread(begun.wait, WAIT_S)
        stop = asyncio.create_task(worker.agent.stop())
        await asyncio.sleep(0)
        go_on.set()
        await stop
        assert [event.acked.is_set() for event in events] == [True, False, False]
        assert [(c.first, c.next) for c in worker.log.covers()] == [(0, 1)]
        assert worker.log.stopped == 2  # the producer and the reader


async def test_a_revoked_partition_publishes_and_acknowledges_nothing_more():
    import threading

    begun, go_on = threading.Event(), threading.Event()

    def hold(_batch):
        begun.set()
        assert go_on.wait(WAIT_S)

    async with Worker(Plan(hold)) as worker:
        old, again = Event(0, [0]), Event(0, [0], generation=2)
        await worker.stream.queue.put(old)
        await asyncio.to_thread(begun.wait, WAIT_S)
        worker.generation = 2
        assert await worker.agent.start_positions([(RAW, 0)]) == {(RAW, 0): 0}
        go_on.set()
        await worker.finished(again)
        assert not old.acked.is_set()
        assert [(c.first, c.next) for c in worker.log.covers()] == [(0, 1)]
