"""A mirror on a log in memory: enriched records as a worker makes them, and where they end up."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
from enrich_worker import Stream

from streamapp.agents.mirror import MirrorAgent
from streamapp.core.batch import vector_column
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.ring import RingReader, RingSpec, RingWriter, unpack_source
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import Cover, Enriched, encode
from streamapp.topics.wire import decode_slice

WAIT_S = 20
DIM = 4
SPEC = RingSpec(DIM, 64)


def raw(first, next_, ingest_ms=1):
    """Raw records; every one is taken by the log a millisecond after the one before."""
    return [
        Record(o, ingest_ms + o - first, None, b'{"message": "m"}') for o in range(first, next_)
    ]


def vector_of(offset, dim=DIM):
    """A vector that tells which source offset it belongs to."""
    return np.arange(dim, dtype=np.float32) + offset + 1


def enriched(offset, first, next_, *, partition=0, ingest_ms=1, dim=DIM, columns=None):
    """The enriched record at ``offset`` that covers raw [first, next_)."""
    records = raw(first, next_, ingest_ms)
    cover = Cover(topic=RAW, partition=partition, first=first, next=next_, rows=len(records))
    batch = decode_slice(
        Slice(OffsetRange(RAW, partition, first, next_), records), event_bytes_max=1000
    )
    if records:
        vectors = np.stack([vector_of(r.offset, dim) for r in records])
        batch = batch.with_columns({"embedding": vector_column(vectors), **(columns or {})})
    value, headers = encode(Enriched(cover, batch.rows))
    return Record(offset, ingest_ms, None, value, headers)


def floats(values, kind=pa.float32):
    return pa.array(values, kind())


class Log:
    """A log in memory: records by (topic, partition); the raw topic is as long as it must be."""

    def __init__(self, *records, partition=0):
        self.of = {(ENRICHED, partition): list(records)}
        self.begin = {}
        self.reads = []

    def add(self, partition, *records):
        self.of.setdefault((ENRICHED, partition), []).extend(records)

    async def start(self): ...
    async def stop(self): ...

    async def bounds(self, topic, partition):
        if topic == RAW:
            return 0, 1 << 40
        records = self.of.get((topic, partition), [])
        end = records[-1].offset + 1 if records else self.begin.get(partition, 0)
        return self.begin.get(partition, 0), end

    async def read(self, topic, partition, offset, *, records_max=4096, **_limits):
        if topic == RAW:
            taken = self.ingested(partition)
            found = [Record(offset, taken[offset], None, b"")] if offset in taken else []
            return Slice(OffsetRange(topic, partition, offset, offset + len(found)), found)
        self.reads.append((partition, offset))
        first = max(offset, self.begin.get(partition, 0))
        records = [r for r in self.of.get((topic, partition), []) if r.offset >= first]
        found = records[:records_max]
        next_ = found[-1].offset + 1 if found else first
        return Slice(OffsetRange(topic, partition, offset, next_), found)

    def ingested(self, partition):
        """When the raw log took which offset, as the enriched rows say."""
        from streamapp.topics.enriched import decode

        taken = {}
        for record in self.of.get((ENRICHED, partition), []):
            rows = decode(record).rows.to_pydict()
            pairs = zip(rows.get("source_offset", []), rows.get("ingest_time", []), strict=True)
            taken |= {offset: round(time.timestamp() * 1000) for offset, time in pairs}
        return taken


class Event:
    generation_id = 1

    def __init__(self, *records, partition=0):
        first, next_ = records[0].offset, records[-1].offset + 1
        self.value = Slice(OffsetRange(ENRICHED, partition, first, next_), records)
        self.message = self
        self.acked = asyncio.Event()

    def ack(self):
        self.acked.set()


class Mirror:
    """A running mirror agent."""

    def __init__(self, agent, stream, path):
        self.agent = agent
        self.path = path
        self._stream = stream

    async def feed(self, *events):
        """Deliver the events and wait until all are acknowledged."""
        for event in events:
            await self._stream.queue.put(event)
        async with asyncio.timeout(WAIT_S):
            for event in events:
                await event.acked.wait()

    async def until(self, condition, what):
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)
        assert condition(), what

    def frames(self):
        with RingReader.open(self.path) as reader:
            return reader.latest(reader.stat()["capacity"])

    def offsets(self, partition=None):
        """Source offsets of the ring's frames, oldest first; all, or of one partition."""
        with RingReader.open(self.path) as reader:
            sources = reader.stat()["sources"]
            indexes, offsets = unpack_source(reader.latest(1 << 20).source_offset)
        wanted = [i for i, s in enumerate(sources) if partition in {None, s.partition}]
        return offsets[np.isin(indexes, wanted)].tolist()

    async def positions(self, *partitions):
        starts = await self.agent.start_positions([(ENRICHED, p) for p in partitions or (0,)])
        return [starts[ENRICHED, p] for p in partitions or (0,)]


@asynccontextmanager
async def mirroring(path, log, *, partitions=(0,), spec=SPEC, engine="twin", metrics=None):
    """A mirror of these partitions of the log on the ring at ``path``."""
    agent = MirrorAgent(
        lambda: RingWriter.open(path, spec, engine=engine), log, metrics or Metrics(), lambda: 1
    )
    stream = Stream()
    await agent.open()
    mirror = Mirror(agent, stream, path)
    await mirror.positions(*partitions)
    body = asyncio.create_task(agent.run(stream))
    try:
        yield mirror
    finally:
        body.cancel()
        await agent.stop()
