"""The gateway while Kafka is down, and while it only stands still."""

import asyncio
import signal
from uuid import uuid4

import pytest
from machine import stop

from streamapp.transport.kafka.connection import Connection

pytestmark = pytest.mark.timeout(300)
PARTITIONS = range(4)


@pytest.fixture
def impatient(monkeypatch):
    """Requests hear of a silence after a second instead of fifteen."""
    monkeypatch.setattr(Connection.persist, "__defaults__", (1.0,))


class Sent:
    """Events of this test alone, on a log that other tests write to as well."""

    def __init__(self, rest):
        self.rest = rest
        self.prefix = uuid4().hex

    async def begin(self):
        self.first = [(await self.rest.reader.bounds("events.raw", p))[1] for p in PARTITIONS]
        return self

    async def post(self, name, path="/ingest"):
        """Status, and what the answer's headers say of the time to come back."""
        status, _ = await self.rest.call(
            "POST", path, {"id": f"{self.prefix}{name}"}, Content_Type="application/json"
        )
        return status, self.rest.last.get("Retry-After")

    async def names(self):
        """Of those that are in the log."""
        found = set()
        for partition, first in zip(PARTITIONS, self.first, strict=True):
            slice_ = await self.rest.reader.read("events.raw", partition, first, wait_ms_max=1_000)
            ids = [dict(record.headers)["ce_id"].decode() for record in slice_.records]
            found |= {id_.removeprefix(self.prefix) for id_ in ids if id_.startswith(self.prefix)}
        return found


async def until(condition):
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


async def away(rest, kafka, seconds):
    """Down for so long, and asked all the time; what was accepted meanwhile is there afterwards."""
    sent = await Sent(rest).begin()
    assert await sent.post("before") == (200, None)
    await asyncio.to_thread(kafka.kill)
    end_s, accepted = asyncio.get_running_loop().time() + seconds, []
    while asyncio.get_running_loop().time() < end_s or len(accepted) < 3:
        assert await sent.post("refused") == (503, "1")
        name = f"accepted-{len(accepted)}"
        assert await sent.post(name, "/v1/events?wait=accepted") == (202, None)
        accepted.append(name)
    assert (await rest.call("GET", "/readyz"))[0] == 503
    assert rest.gateway.delivery.pending == len(accepted)
    await asyncio.to_thread(kafka.start)
    await until(lambda: not rest.gateway.delivery.pending)
    assert {"before", *accepted} <= await sent.names()
    assert await sent.post("after") == (200, None)
    assert rest.gateway.budget.events == 0


async def test_kafka_is_down_for_a_while(serve_rest, kafka, impatient):
    await away(await serve_rest(kafka.url), kafka, 0)


@pytest.mark.soak
async def test_kafka_is_down_for_a_minute(serve_rest, kafka):
    await away(await serve_rest(kafka.url), kafka, 60)


async def test_kafka_stands_still(serve_rest, kafka):
    """What waits is bounded, everybody else is told to come back, and nothing that waits is lost."""
    rest = await serve_rest(kafka.url, inflight_events_max=20)
    sent = await Sent(rest).begin()
    stop(kafka.pid)
    try:
        waiting = [asyncio.create_task(sent.post(str(n))) for n in range(20)]
        await until(lambda: rest.gateway.budget.events == 20)
        for n in range(100):
            assert await sent.post(f"too-many-{n}") == (429, "1")
        assert rest.gateway.budget.events == 20
        assert not any(task.done() for task in waiting)
    finally:
        kafka.signal(signal.SIGCONT)
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    assert await sent.names() == {str(n) for n in range(20)}
