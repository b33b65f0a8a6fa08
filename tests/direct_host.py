"""A host in direct mode on a log in memory, without Faust: its worker, its terminal, its ring."""

import asyncio
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from enrich_worker import WAIT_S, Event, Log, Worker

from streamapp.agents.direct import DirectRing
from streamapp.agents.frames import ring_spec
from streamapp.agents.mirror import MirrorAgent
from streamapp.core.errors import Reject
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.plugin import BaseStage, float32_vector, vector_column
from streamapp.plugin.testing import HashModels
from streamapp.ring import RingReader, RingWriter, unpack_source
from streamapp.stages.embed import Embed
from streamapp.stages.kinetics import Kinetics
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.workflow import Plan, Workflow

CAPACITY = 64


class Early(BaseStage):
    """Rejects `early` before there are vectors."""

    name, reads, writes = "early", ("text",), {"early": pa.bool_()}

    def enrich(self, batch):
        return {"early": refused(batch, "early")}


class Late(BaseStage):
    """Rejects `late` and asks for another try at `again` once there are vectors."""

    name, reads = "late", ("text", "embedding")
    writes: Mapping[str, pa.DataType] = {"late": pa.bool_(), "twice": float32_vector(3)}

    def __init__(self, options=None):
        super().__init__(options)
        self.before = lambda _batch: None

    def enrich(self, batch):
        self.before(batch)
        vectors = batch.vectors("embedding")
        return {"late": refused(batch, "late"), "twice": vector_column(2 * vectors[:, :3])}


class Stubborn(BaseStage):
    """Writes vectors and takes no memory from anybody."""

    name, reads = "stubborn", ("text",)
    writes: Mapping[str, pa.DataType] = {
        "embedding": float32_vector(4),
        "truncated": pa.bool_(),
    }

    def enrich(self, batch):
        vectors = np.arange(4 * len(batch), dtype=np.float32).reshape(-1, 4)
        return {"embedding": vector_column(vectors), "truncated": pa.array([False] * len(batch))}


def refused(batch, word):
    texts = batch.strings("text")
    if any(word == text for text in texts):
        raise Reject(f"{word}.text", f"a text is {word}", "")
    return pa.array([False] * len(texts))


class Whole(Log):
    """A log with its raw topic, where the mirror and the worker read the same."""

    def __init__(self, texts=()):
        super().__init__()
        self.records[RAW] = []
        self.killed = asyncio.Event()
        self.fates = iter(())
        self.add(texts)

    def add(self, texts):
        at = len(self.records[RAW])
        for offset, text in enumerate(texts, at):
            event = {"id": f"e{offset}", "conversation": f"c{offset % 3}", "actor": "human"}
            event |= {"message": text} if text is not None else {"type": "note"}
            self.records[RAW].append(Record(offset, 1 + offset, None, json.dumps(event).encode()))

    async def bounds(self, topic, partition):
        begin, _ = await super().bounds(topic, partition)
        return begin, len(self.records[topic])

    async def read(self, topic, partition, offset, records_max=1 << 20, **_limits):
        found = self.records[topic][offset : offset + records_max]
        return Slice(OffsetRange(topic, partition, offset, offset + len(found)), found)

    async def send(self, topic, records):
        fate = next(self.fates, "")
        if fate == "killed before":
            return await self.end()
        sent = await super().send(topic, records)
        return await self.end() if fate == "killed after" else sent

    async def end(self):
        self.killed.set()
        await asyncio.Future()


class Reading:
    """A client of its own on that log."""

    def __init__(self, log):
        self.bounds, self.read = log.bounds, log.read

    async def start(self): ...
    async def stop(self): ...


class Delivery(Event):
    def __init__(self, log, first, next_, generation=1):
        super().__init__(first, [first], generation)
        records = log.records[RAW][max(first, log.begin) : next_]
        self.value = Slice(OffsetRange(RAW, 0, first, next_), records)


class Mirrored:
    """A Slice of the enriched topic, as Faust hands it over."""

    generation_id = 1

    def __init__(self, log, first):
        records = log.records[ENRICHED][first:]
        self.value = Slice(OffsetRange(ENRICHED, 0, first, first + len(records)), records)
        self.message = self
        self.acked = asyncio.Event()

    def ack(self):
        self.acked.set()


class Stream:
    def __init__(self, event):
        self.event = event

    def noack(self):
        return self

    async def events(self):
        if self.event.value.records:
            yield self.event
        await asyncio.Event().wait()


class Host:
    """A ring's path and what may write there."""

    def __init__(self, path, stages=("early", "embed", "late", "kinetics"), capacity=CAPACITY):
        self.path, self.capacity = path, capacity
        factories = {"early": Early, "embed": Embed, "late": Late, "stubborn": Stubborn}
        workflow = Workflow(path="test", stages=stages)
        self.plan = Plan(workflow, HashModels(8), {**factories, "kinetics": Kinetics})
        self.late = next((stage for stage in self.plan.stages if stage.name == "late"), None)

    def open_ring(self):
        return RingWriter.open(self.path, ring_spec(self.plan.columns(), self.capacity))

    def worker(self, log, generation=1, **limits):
        log.stopped = 0
        direct = DirectRing(self.open_ring, Reading(log), self.plan.stages, Metrics())
        made = Worker(self.plan, log, generation=generation, direct=direct, **limits)
        direct._metrics = made.metrics
        return made

    async def mirror(self, log):
        """Run a terminal until it has all that is enriched."""
        agent = MirrorAgent(self.open_ring, Reading(log), Metrics(), lambda: 1)
        first = (await agent.start_positions([(ENRICHED, 0)]))[ENRICHED, 0]
        body = asyncio.create_task(agent.run(Stream(Mirrored(log, first))))
        end = len(log.records[ENRICHED])
        try:
            async with asyncio.timeout(WAIT_S):
                while agent.positions().get((ENRICHED, 0), 0) < end:
                    await asyncio.sleep(0.005)
        finally:
            body.cancel()
            await agent.stop()

    def frames(self):
        with RingReader.open(self.path) as reader:
            return reader.read(self.capacity)

    def offsets(self):
        """Source offsets of all frames, in the ring's order."""
        return unpack_source(self.frames().source_offset)[1].tolist()

    def position(self):
        with self.open_ring() as ring:
            (source,) = ring.sources()
        return source.next_source_offset, source.next_enriched_offset
