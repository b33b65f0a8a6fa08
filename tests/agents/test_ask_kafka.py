"""Asks on Apache Kafka: one asker takes over from another that was cut off, and none is left."""

import asyncio
from uuid import uuid4

import msgspec
import pytest
from clients import member_log, specs_of_asks

from streamapp.agents.asking.answers import rows_of
from streamapp.agents.asking.asker import Answering, Asker
from streamapp.agents.asking.asks import Ask
from streamapp.core.metrics import Metrics
from streamapp.models.llm import Answer
from streamapp.topics.catalogue import ANSWERS, ASK
from streamapp.transport.clients import Outgoing

pytestmark = pytest.mark.timeout(300)
COUNT = 40


class Model:
    """Answers at once, or, while ``held``, not at all."""

    def __init__(self):
        self.let = asyncio.Event()
        self.asked = 0

    async def ask(self, question):
        self.asked += 1
        await self.let.wait()
        return Answer(value={"intent": "refund", "confidence": 80}, model="m", mode="tool")


@pytest.fixture
async def log(kafka):
    """On the broker that tests share; nobody else uses these topics."""
    async with member_log(kafka.url, specs_of_asks()) as log:
        yield log


async def answered(log, mark):
    """Offsets that were answered, of asks of this test."""
    begin, end = await log.reader.bounds(ANSWERS, 0)
    found, at = [], begin
    while at < end:
        slice_ = await log.reader.read(ANSWERS, 0, at)
        found += [r["source_offset"] for r in rows_of(slice_).to_pylist() if r["id"] == mark]
        at = slice_.range.next
    return found


async def test_what_one_left_the_next_one_answers(log):
    mark, model = uuid4().hex, Model()
    asks = [
        Ask(kind="intent", topic="events.raw", partition=0, offset=n, id=mark, text=f"refund {n}")
        for n in range(COUNT)
    ]
    records = [Outgoing(msgspec.json.encode(ask), str(n).encode()) for n, ask in enumerate(asks)]
    await log.producer.send(ASK, records)
    first = Asker(log, Answering(model, {"refund": ()}, Metrics()), Metrics())
    running = asyncio.create_task(first.run())
    async with asyncio.timeout(90):
        while model.asked < COUNT:
            await asyncio.sleep(0.05)
    for _, task in first._lanes._lanes.values():  # as when its process is killed
        task.cancel()
    first._lanes._lanes = {}
    running.cancel()
    await first.stop(1)
    assert await answered(log, mark) == []
    model.let.set()
    second = Asker(log, Answering(model, {"refund": ()}, Metrics()), Metrics())
    running = asyncio.create_task(second.run())
    async with asyncio.timeout(90):
        while len(found := await answered(log, mark)) < COUNT:
            await asyncio.sleep(0.05)
    assert sorted(found) == list(range(COUNT))
    await second.stop(5)
    running.cancel()
