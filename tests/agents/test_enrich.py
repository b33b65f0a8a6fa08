"""The enrich agent on a log in memory: nothing is skipped, lost unheard, or stopped for by a Retry."""

import asyncio
import gc
import warnings

import pytest
from enrich_worker import WAIT_S, Event, Plan, Worker

from streamapp.core.errors import Halt, Retry
from streamapp.topics.catalogue import RAW

pytestmark = pytest.mark.usefixtures("ended")


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


async def test_a_model_whose_server_is_away_at_the_start_is_waited_for():
    class Far(Plan):
        is_open, tries = False, 0

        def open(self):
            self.tries += 1
            if self.tries < 3:
                raise Retry("models.remote", "the server does not answer")
            self.is_open = True

    plan = Far()
    async with Worker(plan) as worker:
        await worker.finished(Event(0, [0, 1]))
        assert plan.tries == 3
        waits = worker.metrics.registry.get_sample_value(
            "streamapp_retries_total", {"what": "models"}
        )
        assert waits == 2


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


async def test_a_slice_that_was_never_delivered_halts_before_anything_is_covered(ended):
    async with Worker(Plan()) as worker:
        late = Event(5, [5])
        await worker.stream.queue.put(late)
        async with asyncio.timeout(WAIT_S):
            while not ended:
                await asyncio.sleep(0.01)
        assert isinstance(ended[0], Halt)
        assert ended[0].code == "enrich.gap"
        assert worker.log.covers() == []
        assert not late.acked.is_set()


async def test_a_snapshot_too_large_for_its_topic_is_counted_and_work_goes_on():
    limits = {"snapshot_records": 1, "record_bytes_max": 12_000, "conversations_max": 2000}
    async with Worker(Plan(), **limits) as worker:
        await worker.finished(*(Event(n * 50, list(range(n * 50, n * 50 + 50))) for n in range(30)))
        assert worker.value("streamapp_snapshots_too_large_total") > 0
        assert worker.log.covers()[-1].next == 1500


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


async def test_a_partition_that_is_revoked_at_once_leaves_no_loose_ends():
    """Two rebalances follow each other before the first one's tasks have begun."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        async with Worker(Plan()) as worker:
            for generation in (2, 3):
                worker.generation = generation
                await worker.agent.start_positions([(RAW, 0)])
            await worker.finished(Event(0, [0], generation=3))
        gc.collect()
    assert not [str(one.message) for one in said]
