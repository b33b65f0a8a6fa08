"""Faust's aiokafka consumer, delivering what one fetch returned.

The records of a coalesced topic stay in the bytes that arrived: no object per record is built on
the way.  This reads aiokafka's fetcher as Faust's own driver does, one level below its public
``getmany``, which builds a dataclass per record and knows no limit in bytes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
)
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from streamapp.core.errors import Halt, Retry
from streamapp.transport.fetching import BatchingConsumer, Room
from streamapp.transport.gather import Fetched
from streamapp.transport.kafka.arrived import Arrived
from streamapp.transport.kafka.rights import check_group, check_topics, refusals
from streamapp.transport.kafka.uncopied import connect_by_frames, keep_batches

_NO_LIMIT = 1 << 62

#: A request that takes longer is given up, so that it stands in nobody's way; it is said again.
ANSWER_S_MAX = 5.0

#: Pause before asking again.
RETRY_S = 1.0


class Consumer(BatchingConsumer, driver.Consumer):
    """A member of a Kafka consumer group."""

    _thread: "ConsumerThread"

    def _new_consumer_thread(self) -> "ConsumerThread":
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _fetch(self, wanted: Mapping[TP, Room], wait_s: float) -> Mapping[TP, Fetched]:
        with refusals(self.app):
            fetched: Mapping[TP, Fetched] = await self._thread.fetch(wanted, wait_s)
        return fetched

    def _nudge(self) -> None:
        self._thread.nudge()

    async def _seek(self, partition: TP, offset: int) -> None:
        await self._thread.seek_in_thread(partition, offset)

    async def _committed_positions(self, tps: set[TP]) -> dict[TP, int]:
        # Recovery positions changelogs itself.
        ours = {tp for tp in tps if self.app.topics.acks_enabled_for(tp.topic)}
        if not ours:
            return {}
        return await self._until_answered(lambda: self._thread.committed_positions(ours))

    async def _check_positions(self, positions: Mapping[TP, int]) -> None:
        if not positions:
            return
        ends = await self._until_answered(lambda: self.highwaters(*positions))
        for tp, offset in positions.items():
            if not 0 <= offset <= ends[tp]:
                raise Halt(
                    "position.outside",
                    f"{tp.topic}-{tp.partition} ends at {ends[tp]}, but work is to go on"
                    f" at {offset}: the topic was deleted and made again",
                    "restore the topic, or remove the state that was built from it",
                )

    async def _until_answered(
        self, ask: Callable[[], Awaitable[Mapping[TP, int]]]
    ) -> dict[TP, int]:
        """Ask until the broker answers; without that no partition can be read."""
        while True:
            try:
                with refusals(self.app):
                    return dict(await ask())
            except Retry as error:
                if self.should_stop:
                    raise
                self.log.warning("%s", error)
                await self.sleep(RETRY_S)

    @Service.task
    async def _ask_after_the_group(self) -> None:
        """As long as nothing is assigned nobody fetches, and would hear of it."""
        while not self.should_stop:
            await self.sleep(RETRY_S)
            with refusals(self.app):
                await self._thread.check_group()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Our own watchdog looks (Faust's compares a wall clock with a monotonic one)."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer on an event loop of its own, where heartbeats wait for nobody."""

    _waiting: asyncio.Future[None] | None = None
    _nudged = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: At most one fetch of each partition; the next one may be under way meanwhile.
        self._ahead: dict[TopicPartition, _Ahead] = {}

    async def on_start(self) -> None:
        await super().on_start()
        keep_batches(self._ensure_consumer()._fetcher)  # noqa: SLF001

    async def subscribe(self, topics: Iterable[str]) -> None:
        """As Faust's; aiokafka only logs which of them are hidden from us, and reads the others."""
        await super().subscribe(topics)
        with refusals(self.app):
            await self.call_thread(check_topics, self._ensure_consumer(), self.log, ANSWER_S_MAX)

    async def check_group(self) -> None:
        """See :func:`check_group`."""
        await self.call_thread(self._check_group)

    async def _check_group(self) -> None:
        check_group(self._ensure_consumer(), self.log)

    async def on_thread_stop(self) -> None:
        """Stop aiokafka's consumer; its fetcher raises the cancellation of its own requests."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            self.log.debug("aiokafka's requests were cancelled")

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        connect_by_frames(consumer._client)  # noqa: SLF001
        options = self.consumer.options
        if options.coalesce:  # a fetch is a Slice: let it be as large as one may be
            consumer._max_partition_fetch_bytes = max(  # noqa: SLF001
                consumer._max_partition_fetch_bytes,  # noqa: SLF001
                options.batch_bytes_max,
            )
        return consumer

    async def fetch(self, wanted: Mapping[TP, Room], wait_s: float) -> Mapping[TP, Fetched]:
        """See :meth:`BatchingConsumer._fetch`."""
        fetched: Mapping[TP, Fetched] = await self.call_thread(self._fetch, wanted, wait_s)
        return fetched

    def nudge(self) -> None:
        """End the wait of a fetch; called from any thread."""
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._nudged = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _fetch(self, wanted: Mapping[TP, Room], wait_s: float) -> dict[TP, Fetched]:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher  # noqa: SLF001
        if consumer._closed or fetcher._closed:  # noqa: SLF001
            raise ConsumerStoppedError
        check_group(consumer, self.log)
        subscriptions = fetcher._subscriptions  # noqa: SLF001
        with subscriptions.fetch_context():  # else aiokafka leaves the group after a while
            fetched = self._drain(fetcher, wanted)
            nudged, self._nudged = self._nudged, False
            if not fetched and not nudged and wait_s > 0:
                self._waiting = fetcher._create_fetch_waiter()  # noqa: SLF001
                try:
                    async with asyncio.timeout(wait_s):
                        await self._waiting  # raises what the broker refused us for good
                except TimeoutError:
                    pass
                finally:
                    self._waiting, self._nudged = None, False
                if not fetcher._closed:  # noqa: SLF001
                    fetched = self._drain(fetcher, wanted)
        return fetched

    def _drain(self, fetcher: Any, wanted: Mapping[TP, Room]) -> dict[TP, Fetched]:
        """Take what has arrived, as far as there is room; aiokafka fetches on when all is taken."""
        fetched: dict[TP, Fetched] = {}
        if not self.consumer.flow_active or fetcher._subscriptions.reassignment_in_progress:  # noqa: SLF001
            return fetched
        arrived, subscriptions = fetcher._records, fetcher._subscriptions  # noqa: SLF001
        for key in {**arrived, **self._ahead}:
            tp = TP(key.topic, key.partition)
            if tp not in wanted:
                if not subscriptions.is_assigned(key):
                    arrived.pop(key, None)
                    self._ahead.pop(key, None)
                continue
            piece = None
            if tp.topic in self.consumer.options.coalesce:
                self._take_over(fetcher, key)
                piece = self._from_ahead(key, wanted[tp])
                self._take_over(fetcher, key)
            if piece is None and key in arrived and key not in self._ahead:
                if fetched and not isinstance(arrived[key], FetchResult):
                    break  # the error is for the next call
                piece = self._from_aiokafka(fetcher, key, wanted[tp])
            if piece is not None:
                fetched[tp] = piece
        return fetched

    def _take_over(self, fetcher: Any, key: TopicPartition) -> None:
        """Take what arrived out of aiokafka's hands, so that it fetches on meanwhile."""
        subscription, ahead = fetcher._subscriptions.subscription, self._ahead.get(key)  # noqa: SLF001
        if ahead is not None and ahead.assignment is not getattr(subscription, "assignment", None):
            del self._ahead[key]  # of before a rebalance
        result = fetcher._records.get(key)  # noqa: SLF001
        if key in self._ahead or not isinstance(result, FetchResult):
            return
        if result.has_more() and result.check_assignment(key):
            source = result._partition_records  # noqa: SLF001
            found = _arrived_of(source)
            end = found.end()
            if end is None:  # of a format that only reading it can tell
                return
            source.next_fetch_offset = end
            result._update_position()  # noqa: SLF001
            self._ahead[key] = _Ahead(found, result._assignment)  # noqa: SLF001
        _let_go(fetcher, key)

    def _from_ahead(self, key: TopicPartition, room: Room) -> Fetched | None:
        """Of what was taken over as much as there is room for."""
        ahead = self._ahead.get(key)
        if ahead is None:
            return None
        piece = ahead.arrived.take(*(_NO_LIMIT if most is None else most for most in room))
        if ahead.arrived.is_empty:
            del self._ahead[key]
        return piece if piece.next > piece.position else None

    def _from_aiokafka(self, fetcher: Any, key: TopicPartition, room: Room) -> Fetched | None:
        """Of what is in aiokafka's hands as much as there is room for."""
        result = fetcher._records[key]  # noqa: SLF001
        if not isinstance(result, FetchResult):
            _let_go(fetcher, key)
            result.check_raise()
        raw = key.topic in self.consumer.options.coalesce
        piece = _take(result, key, room, raw=raw)
        if not result.has_more():
            _let_go(fetcher, key)
        return piece

    async def seek_to_committed(self) -> Mapping[TP, int]:
        positions: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return positions

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        positions: Mapping[TP, int] = await self._ensure_consumer().seek_to_committed()
        self._ahead.clear()
        return positions

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        for tp in partitions:
            self._ahead.pop(TopicPartition(tp.topic, tp.partition), None)
        await super()._seek_wait(consumer, partitions)

    async def seek_in_thread(self, tp: TP, offset: int) -> None:
        """Position a partition; nothing when it was revoked meanwhile."""
        await self.call_thread(self._seek_if_ours, tp, offset)

    async def _seek_if_ours(self, tp: TP, offset: int) -> None:
        consumer, key = self._ensure_consumer(), TopicPartition(tp.topic, tp.partition)
        self._ahead.pop(key, None)
        if key in consumer.assignment():
            consumer.seek(key, offset)

    async def committed_positions(self, tps: set[TP]) -> dict[TP, int]:
        """What the group committed, else where ``auto_offset_reset`` says."""
        positions: dict[TP, int] = await self.call_thread(self._committed_positions, tps)
        return positions

    async def _committed_positions(self, tps: set[TP]) -> dict[TP, int]:
        consumer = self._ensure_consumer()
        keys = [TopicPartition(tp.topic, tp.partition) for tp in tps]
        answer = await _answer(consumer._coordinator.fetch_committed_offsets(keys))  # noqa: SLF001
        positions = {
            TP(key.topic, key.partition): answer[key].offset
            for key in keys
            if key in answer and answer[key].offset >= 0
        }
        fresh = [TopicPartition(*tp) for tp in tps - positions.keys()]
        latest = self.app.conf.consumer_auto_offset_reset == "latest"
        bounds = consumer.end_offsets if latest else consumer.beginning_offsets
        reset = await _answer(bounds(fresh)) if fresh else {}
        return positions | {TP(key.topic, key.partition): at for key, at in reset.items()}

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        ends: Mapping[TP, int] = await _answer(super()._highwaters(partitions))
        return ends

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Tell the group; False when it is not ours to say any more, or nobody answers now."""
        consumer = self._ensure_consumer()
        known = consumer._client.cluster.partitions_for_topic  # noqa: SLF001
        # aiokafka would tell a topic's that was deleted again and again.
        ours = {key for key in consumer.assignment() if key.partition in (known(key.topic) or ())}
        keys = {TopicPartition(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
        told = {key: OffsetAndMetadata(at, "") for key, at in keys.items() if key in ours}
        if not told:
            return False
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                with refusals(self.app):
                    await consumer.commit(told)
        except TimeoutError:  # aiokafka would try for ever, and nothing could stop meanwhile
            self.log.warning("not committed: no answer within %.0f s", ANSWER_S_MAX)
            return False
        except (CommitFailedError, IllegalStateError) as error:
            why = type(error).__name__  # what aiokafka says is five lines on something else
            self.log.warning("not committed: the group went on without us (%s)", why)
            return False
        except KafkaError as error:
            if not error.retriable:
                raise
            self.log.warning("not committed: %r", error)
            return False
        return True


async def _answer(request: Awaitable[Any]) -> Any:
    """The broker's answer.

    Raises:
        Retry: there is none.
    """
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            return await request
    except (TimeoutError, KafkaError) as error:
        if isinstance(error, KafkaError) and not error.retriable:
            raise
        raise Retry(
            "log.unreachable",
            f"the broker did not answer within {ANSWER_S_MAX:.0f} s ({type(error).__name__})",
            "nothing is lost by waiting",
        ) from error


class _Ahead(NamedTuple):
    """What was taken over of a fetch, and the assignment that it was made for."""

    arrived: Arrived
    assignment: Any


def _let_go(fetcher: Any, key: TopicPartition) -> None:
    """Done with what arrived of a partition: the next fetch may begin."""
    del fetcher._records[key]  # noqa: SLF001
    fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001


def _arrived_of(source: Any) -> Arrived:
    """The records of aiokafka's ``PartitionRecords``, as far as they were not taken."""
    if not hasattr(source, "arrived"):
        source.arrived = Arrived(
            source._records.data,  # noqa: SLF001
            source.next_fetch_offset,
            check_crcs=source._check_crcs,  # noqa: SLF001
        )
    arrived: Arrived = source.arrived
    return arrived


def _take(result: Any, key: Any, room: Room, *, raw: bool) -> Fetched | None:
    """Records of one fetch, as many as there is room for; None when its position has moved."""
    if not result.has_more() or not result.check_assignment(key):
        return None
    source = result._partition_records  # noqa: SLF001
    if raw:
        arrived = _arrived_of(source)
        records_max, bytes_max = (_NO_LIMIT if most is None else most for most in room)
        piece = arrived.take(records_max, bytes_max)
        source.next_fetch_offset = piece.next
        is_empty = arrived.is_empty
    else:
        position, records = source.next_fetch_offset, list(islice(source, room.records_max))
        is_empty = room.records_max is None or len(records) < room.records_max
        piece = Fetched(position, records, source.next_fetch_offset, 0)
    result._update_position()  # noqa: SLF001
    if is_empty:
        result._partition_records = None  # noqa: SLF001  # has no more
    return piece if piece.next > piece.position else None
