"""The mirror on a ring of its own: what comes again is neither written twice nor a reason to stop."""

import asyncio

import pytest

from streamapp.agents.mirror import MirrorAgent
from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.ring import RingReader, RingSpec, RingWriter, unpack_source
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.wire import decode_slice

WAIT_S = 10


def enriched(offset, first, next_):
    """The enriched record at `offset` that covers raw [first, next_)."""
    raw = [Record(o, 1, None, b'{"message": "m"}') for o in range(first, next_)]
    batch = decode_slice(Slice(OffsetRange(RAW, 0, first, next_), raw), event_bytes_max=1000)
    stand = Standpoint(None, "[]")
    [out], _ = enriched_records(batch, (), stand, {r.offset: r for r in raw}, 1 << 20)
    return Record(offset, 1, None, out.value, out.headers)


RECORDS = [enriched(0, 0, 3), enriched(1, 3, 5), enriched(2, 5, 6)]


class Event:
    generation_id = 1

    def __init__(self, *records):
        first, next_ = records[0].offset, records[-1].offset + 1
        self.value = Slice(OffsetRange(ENRICHED, 0, first, next_), records)
        self.message = self
        self.acked = asyncio.Event()

    def ack(self):
        self.acked.set()


class Log:
    """The enriched topic that the events are from."""

    async def start(self): ...
    async def stop(self): ...

    async def bounds(self, topic, partition):
        return 0, len(RECORDS)

    async def read(self, topic, partition, offset, **_limits):
        found = RECORDS[offset : offset + 1]
        return Slice(OffsetRange(topic, partition, offset, offset + len(found)), found)


class Stream:
    def __init__(self, events):
        self.all = events

    def noack(self):
        return self

    async def events(self):
        for event in self.all:
            yield event
        await asyncio.Event().wait()


@pytest.fixture
def ring(tmp_path):
    return tmp_path / "test.ring"


async def mirror(ring, *events):
    """Run a mirror over the events; where it then stands, and the source offsets of its frames."""
    agent = MirrorAgent(
        lambda: RingWriter.open(ring, RingSpec(4, 64), engine="twin"), Log(), Metrics(), lambda: 1
    )
    await agent.start_positions([(ENRICHED, 0)])
    body = asyncio.create_task(agent.run(Stream(events)))
    async with asyncio.timeout(WAIT_S):
        for event in events:
            await event.acked.wait()
    positions = await agent.start_positions([(ENRICHED, 0)])
    body.cancel()
    await agent.stop()
    with RingReader.open(ring) as reader:
        offsets = unpack_source(reader.latest(64).source_offset)[1].tolist()
    return positions[ENRICHED, 0], offsets


async def test_records_that_come_again_after_a_seek_back_are_skipped(ring):
    zero, one, two = RECORDS
    position, offsets = await mirror(ring, Event(zero, one), Event(zero), Event(one, two))
    assert position == 3
    assert offsets == list(range(6))


async def test_a_restart_goes_on_where_the_ring_stands(ring):
    assert await mirror(ring, Event(RECORDS[0])) == (1, [0, 1, 2])
    assert await mirror(ring, Event(enriched(1, 2, 5))) == (2, [0, 1, 2, 3, 4])
