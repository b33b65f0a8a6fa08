"""The store agent: what comes while it writes is its next transaction; nothing is lost or early."""

import asyncio
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from enrich_worker import Stream
from mirroring import Event, enriched

from streamapp.agents import outcome
from streamapp.agents.gather import Gather
from streamapp.agents.store import StoreAgent
from streamapp.core.errors import Halt, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.slice import Record
from streamapp.sink import Store

WAIT_S = 20


class Gate:
    """A store whose writes wait until they are let through; it may be told what to raise."""

    def __init__(self, store):
        self._store = store
        self.groups = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.raises = []

    def write(self, records):
        self.groups.append([record.enriched.cover.first for record in records])
        self.entered.release()
        assert self.go.acquire(timeout=WAIT_S)
        if self.raises:
            raise self.raises.pop(0)
        return self._store.write(records)

    def __getattr__(self, name):
        return getattr(self._store, name)


@asynccontextmanager
async def running(sink, *, rows=2048, wait_ms=1):
    now = SimpleNamespace(generation=1)
    agent = StoreAgent(
        lambda: sink, lambda _: lambda: None, Metrics(), lambda: now.generation,
        flush_rows=rows, flush_ms_max=wait_ms,
    )  # fmt: skip
    stream = Stream()
    await agent.open()
    body = asyncio.create_task(agent.run(stream))
    try:
        yield SimpleNamespace(agent=agent, put=stream.queue.put_nowait, now=now)
    finally:
        body.cancel()
        await agent.stop()


async def entered(gate):
    assert await asyncio.to_thread(gate.entered.acquire, timeout=WAIT_S)


async def acked(*events):
    async with asyncio.timeout(WAIT_S):
        for event in events:
            await event.acked.wait()


@pytest.fixture
def store():
    with Store.open(":memory:", columns={}) as store:
        yield store


def stored(store):
    return [(r.first, r.next) for r in store.ledger]


def events(count):
    return [Event(enriched(n, 3 * n, 3 * n + 3)) for n in range(count)]


async def test_what_comes_while_one_is_written_is_one_transaction(store):
    gate, (first, *others) = Gate(store), events(6)
    async with running(gate) as run:
        run.put(first)
        await entered(gate)
        for event in others:
            run.put(event)
        async with asyncio.timeout(WAIT_S):  # decoded while the first is being written
            while len(run.agent._gather._waiting) < len(others):
                await asyncio.sleep(0)
        gate.go.release(2)
        await acked(first, *others)
    assert gate.groups == [[0], [3, 6, 9, 12, 15]]
    assert stored(store) == [(0, 18)]


async def test_nothing_is_acknowledged_before_it_is_stored(store):
    gate, (first, second) = Gate(store), events(2)
    async with running(gate) as run:
        run.put(first)
        await entered(gate)
        run.put(second)
        assert not first.acked.is_set()
        gate.go.release()
        await entered(gate)
        assert first.acked.is_set()
        assert not second.acked.is_set()
        gate.go.release()
        await acked(second)


async def test_what_was_decoded_before_a_rebalance_is_dropped(store):
    gate, (first, second) = Gate(store), events(2)
    async with running(gate) as run:
        run.put(first)
        await entered(gate)
        run.put(second)
        async with asyncio.timeout(WAIT_S):
            while not run.agent._gather._waiting:
                await asyncio.sleep(0)
        run.now.generation = 2
        again = Event(enriched(1, 3, 6))
        again.generation_id = 2
        run.put(again)
        gate.go.release(2)
        await acked(again)
        assert not second.acked.is_set()
    assert gate.groups == [[0], [3]]


async def test_a_retry_comes_again_with_the_same_records(store, monkeypatch):
    monkeypatch.setattr(outcome, "WAIT_S_FIRST", 0.001)
    gate, (event,) = Gate(store), events(1)
    gate.raises = [Retry("store.write", "full", "wait")]
    gate.go.release(2)
    async with running(gate) as run:
        run.put(event)
        await acked(event)
    assert gate.groups == [[0], [0]]
    assert stored(store) == [(0, 3)]


async def test_a_record_that_is_none_of_ours_ends_the_process_and_is_not_acknowledged(
    store, monkeypatch
):
    ended = asyncio.get_running_loop().create_future()

    def end(error):
        ended.set_result(error)
        raise asyncio.CancelledError

    monkeypatch.setattr(outcome, "stop_process", end)
    event = Event(Record(0, 1, None, b"what is this", []))
    async with running(store) as run:
        run.put(event)
        async with asyncio.timeout(WAIT_S):
            assert isinstance(await ended, Halt)
        assert not event.acked.is_set()
    assert stored(store) == []


def piece(rows, size_bytes=1):
    return SimpleNamespace(rows=rows, size_bytes=size_bytes)


async def test_rows_or_bytes_are_enough_without_waiting():
    for enough in (piece(10), piece(1, 100)):
        gather = Gather(rows_enough=10, bytes_enough=100, wait_s=3600)
        await gather.put(piece(1))
        await gather.put(enough)
        async with asyncio.timeout(WAIT_S):
            assert len(await gather.take()) == 2


async def test_no_more_is_let_in_than_is_enough():
    gather = Gather(rows_enough=10, bytes_enough=100, wait_s=3600)
    await gather.put(piece(50))
    waiting = asyncio.create_task(gather.put(piece(10)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert [one.rows for one in await gather.take()] == [50]
    async with asyncio.timeout(WAIT_S):
        await waiting
        assert [one.rows for one in await gather.take()] == [10]


async def test_the_first_waits_no_longer_than_it_may():
    gather = Gather(rows_enough=10, bytes_enough=100, wait_s=0)
    await gather.put(piece(1))
    async with asyncio.timeout(WAIT_S):
        assert len(await gather.take()) == 1
