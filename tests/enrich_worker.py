"""An enrich agent on a log in memory, without Faust, for its tests."""

import asyncio
import json

from streamapp.agents.enrich import EnrichAgent, EnrichConfig
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

    def __init__(self, plan, log=None, twin=None, generation=1, direct=None, **config):
        self.log, self.stream, self.metrics = log or Log(), Stream(), Metrics()
        self.generation = generation
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
            twin,
            direct,
        )

    async def __aenter__(self):
        await self.agent.open()
        self.positions = await self.agent.start_positions([(RAW, 0)])
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
