"""What was fetched ahead of the work: aiokafka's own bookkeeping, and nobody who fetches."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from batches import batch
from faust.types import TP

from streamapp.transport.fetching import Room
from streamapp.transport.kafka.consumer import ConsumerThread
from streamapp.transport.kafka.uncopied import Batches

KEYS = P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)
TWO = Room(2, 1 << 20)


class Fetcher:
    """What the thread uses of aiokafka's; the test says what the broker ``brings``."""

    def __init__(self):
        self._records, self._wait_consume_future, self.asked_on = {}, None, 0
        self._subscriptions = SubscriptionState()
        self._subscriptions.subscribe({"t"})
        self.assign()

    def assign(self, at=0):
        self._subscriptions.assign_from_subscribed(set(KEYS))
        for key in KEYS:
            self.state(key).reset_to(at)

    def state(self, key):
        return self._subscriptions.subscription.assignment.state_value(key)

    def _notify(self, _):
        self.asked_on += 1

    def brings(self, key, count, *, break_at=None):
        """Batches of two records from the position on, perhaps one with a wrong checksum."""
        first = self.state(key).position
        data = b""
        for base in range(first, first + count, 2):
            made = bytearray(batch([(n, 0, None, b"v", []) for n in range(2)], base))
            made[-1] ^= base == break_at
            data += made
        self._records[key] = FetchResult(
            key,
            assignment=self._subscriptions.subscription.assignment,
            partition_records=PartitionRecords(key, Batches(data), [], first, None, None, True, 0),
            backoff=0,
        )


@pytest.fixture
async def fetcher():
    return Fetcher()


@pytest.fixture
def thread(fetcher):
    thread = ConsumerThread.__new__(ConsumerThread)
    thread._ahead = {}
    options = SimpleNamespace(coalesce=frozenset({"t"}))
    thread.consumer = SimpleNamespace(flow_active=True, options=options)
    return thread


@pytest.fixture
def drain(thread, fetcher):
    def drain(*keys, room=TWO):
        found = thread._drain(fetcher, {TP(*key): room for key in keys or KEYS})
        return {tp.partition: [r.offset for r in piece.records] for tp, piece in found.items()}

    return drain


async def test_the_next_fetch_may_begin_while_this_one_is_in_work(fetcher, drain):
    fetcher.brings(P0, 4)
    assert drain() == {0: [0, 1]}
    assert fetcher._records == {}  # aiokafka asks for a partition when it has nothing of it
    assert (fetcher.state(P0).position, fetcher.asked_on) == (4, 1)  # and from here on
    fetcher.brings(P0, 4)
    assert drain() == {0: [2, 3]}
    assert drain() == {0: [4, 5]}
    assert drain() == {0: [6, 7]}
    assert drain() == {}


async def test_at_most_two_fetches_of_a_partition_are_there(fetcher, thread, drain):
    fetcher.brings(P0, 4)
    drain()
    fetcher.brings(P0, 4)
    drain(P0, room=Room(0, 0))  # there is no room: nothing is taken
    assert list(thread._ahead) == list(fetcher._records) == [P0]


async def test_a_partition_that_is_not_wanted_keeps_what_came_of_it(fetcher, drain):
    fetcher.brings(P0, 4)
    fetcher.brings(P1, 4)
    assert drain() == {0: [0, 1], 1: [0, 1]}
    assert drain(P1) == {1: [2, 3]}
    assert drain() == {0: [2, 3]}


async def test_after_a_rebalance_the_new_position_holds(fetcher, drain):
    fetcher.brings(P0, 4)
    drain()
    fetcher.assign(at=2)
    fetcher.brings(P0, 2)
    assert drain() == {0: [2, 3]}
    assert drain() == {}


async def test_what_came_of_a_partition_that_was_lost_goes(fetcher, thread, drain):
    fetcher.brings(P0, 4)
    drain()
    fetcher._subscriptions.assign_from_subscribed({P1})
    drain(P1)
    assert not thread._ahead


async def test_a_position_that_is_set_drops_what_was_there(fetcher, thread, drain):
    async def committed():
        fetcher.state(P0).seek(0)
        return {P0: 0}

    def seek(key, offset):
        fetcher.state(key).seek(offset)

    async def position(key):
        return fetcher.state(key).position

    consumer = SimpleNamespace(
        seek=seek, position=position, seek_to_committed=committed, assignment=lambda: set(KEYS)
    )
    thread._ensure_consumer = lambda: consumer
    thread.log = SimpleNamespace(dev=lambda *_: None)
    thread.consumer._read_offset = {}
    thread.app = SimpleNamespace(conf=SimpleNamespace(broker_request_timeout=1))
    for move in [
        lambda: thread._seek_if_ours(TP(*P0), 0),
        lambda: thread._seek_wait(consumer, {TP(*P0): 0}),
        thread._seek_to_committed,
    ]:
        fetcher.assign()
        fetcher.brings(P0, 4)
        assert drain() == {0: [0, 1]}
        await move()
        assert drain() == {}
        fetcher.brings(P0, 2)
        assert drain() == {0: [0, 1]}
        await move()


async def test_what_came_from_another_position_is_not_taken(fetcher, thread, drain):
    fetcher.brings(P0, 4)
    fetcher.state(P0).seek(9)
    assert drain() == {}
    assert (fetcher._records, thread._ahead, fetcher.state(P0).position) == ({}, {}, 9)


async def test_what_is_broken_is_said_after_what_is_whole(fetcher, drain):
    fetcher.brings(P0, 4, break_at=2)
    assert drain() == {0: [0, 1]}
    for _ in range(2):  # it does not go away by asking again
        with pytest.raises(CorruptRecordException, match="at offset 2 has a wrong checksum"):
            drain()


async def test_an_error_of_a_partition_waits_for_what_came_before_it(fetcher, drain):
    fetcher.brings(P0, 4)
    drain()
    error = TopicAuthorizationFailedError("t")
    fetcher._records[P0] = FetchError(error=error, backoff=0)
    assert drain() == {0: [2, 3]}
    with pytest.raises(TopicAuthorizationFailedError):
        drain()
    assert drain() == {}


async def test_a_format_that_only_reading_can_tell_stays_with_aiokafka(fetcher, thread, drain):
    fetcher.brings(P0, 4)
    records = fetcher._records[P0]._partition_records._records
    data = bytearray(records.data)
    data[16] = 1
    records.data = memoryview(data)
    thread._take_over(fetcher, P0)
    assert (list(fetcher._records), thread._ahead) == ([P0], {})
