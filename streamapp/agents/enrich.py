"""The enrich agent: Slices of raw events in, enriched records out, in order per partition.

Each partition has one bounded FIFO and one task: decode, run the Plan, publish, acknowledge.
Partitions overlap, so while one publishes another infers.  A source range is acknowledged only
after its enriched record is durable.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamapp.agents.outcome import guarded, persist, stop_process
from streamapp.agents.publish import (
    RECORD_OVERHEAD_BYTES,
    Standpoint,
    dead_letter,
    enriched_records,
    lost_record,
    snapshot_record,
)
from streamapp.agents.recovery import Standing, recover
from streamapp.agents.repeats import remember, without_repeats
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.batch import Rejected
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import Halt
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Slice
from streamapp.topics.catalogue import DEAD, ENRICHED
from streamapp.topics.wire import decode_slice
from streamapp.transport.clients import Outgoing, Producer, Reader
from streamapp.workflow import PartitionState, Plan

logger = logging.getLogger("streamapp")

#: Slices that may wait per partition; the transport's own buffer comes on top.
QUEUE_SLICES_MAX = 2


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """Limits of the agent; names as in Settings."""

    record_bytes_max: int
    event_bytes_max: int
    snapshot_records: int
    snapshot_s: float
    conversations_max: int


@dataclass(slots=True)
class _Partition:
    """One source partition while it is ours."""

    generation: int
    standing: Standing
    queue: asyncio.Queue[SliceEvent] = field(
        default_factory=lambda: asyncio.Queue(QUEUE_SLICES_MAX)
    )
    #: Held while a Slice is in work: between decoding and acknowledgement.
    at_work: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None
    snapshot_at_s: float = field(default_factory=monotonic_s)


class _Made(NamedTuple):
    """What a Slice became."""

    records: Sequence[Outgoing]
    rejects: Sequence[Rejected]
    events: int
    repeats: int


class EnrichAgent:
    """The agent's body and its partitions.

    Args:
        plan: opened before the first Slice.
        producer: publishes enriched records and dead letters.
        reader: reads the enriched topic when a partition is taken over.
        generation: the consumer group's current generation.
    """

    def __init__(
        self,
        plan: Plan,
        producer: Producer,
        reader: Reader,
        config: EnrichConfig,
        metrics: Metrics,
        generation: Callable[[], int],
    ) -> None:
        self._plan = plan
        self._producer = producer
        self._reader = reader
        self._config = config
        self._metrics = metrics
        self._generation = generation
        self._partitions: dict[tuple[str, int], _Partition] = {}
        # One thread: onnxruntime spreads a call over the cores itself.
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="streamapp-inference")
        self._started = asyncio.Lock()
        self._stopping = False
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body: hand each Slice to its partition, wait when that is full."""
        async for event in slice_events(stream):
            partition = self._partitions.get((event.value.range.topic, event.value.range.partition))
            if partition is not None and partition.generation == event.message.generation_id:
                await partition.queue.put(event)

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where to read each source partition from; asked on assignment and on seeking back."""
        return await guarded(self._start_positions(list(tps)))

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next source offset of each partition that is not enriched yet."""
        held = self._partitions.items()
        return {key: p.standing.next for key, p in held if p.standing.next is not None}

    async def stop(self) -> None:
        """Finish the Slices in work and free the models.

        What only waits in a queue is not acknowledged, so the next owner gets it: a drain takes as
        long as one Slice of each partition, however many were delivered.
        """
        self._stopping = True
        for key, partition in list(self._partitions.items()):
            async with partition.at_work:
                self._drop(key)
        await asyncio.get_running_loop().run_in_executor(self._inference, self._plan.close)
        self._inference.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: Sequence[tuple[str, int]]) -> Mapping[Any, int]:
        await self._open()
        generation = self._generation()
        for key in [key for key, p in self._partitions.items() if p.generation != generation]:
            self._drop(key)
        positions: dict[Any, int] = {}
        for tp in tps:
            key = (tp[0], tp[1])
            if key not in self._partitions:
                await self._take_over(key, generation)
            position = self._partitions[key].standing.next
            if position is not None:
                positions[tp] = position
        self.ready = True
        return positions

    async def _open(self) -> None:
        async with self._started:
            if not self._plan.is_open:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._inference, self._plan.open)
                await self._producer.start()
                await self._reader.start()

    async def _take_over(self, key: tuple[str, int], generation: int) -> None:
        state = PartitionState(self._config.conversations_max)
        standing = await persist(
            "recovery", lambda: recover(self._reader, ENRICHED, key[1], state), self._metrics
        )
        assert standing is not None  # noqa: S101  # persist without still_ours always returns
        if standing.next is None:
            standing.next, _ = await self._bounds(key)
        await self._count_loss(key, standing)
        partition = _Partition(generation, standing)
        partition.task = asyncio.create_task(guarded(self._work(key, partition)))
        self._partitions[key] = partition

    async def _count_loss(self, key: tuple[str, int], standing: Standing) -> None:
        """A position below the log's beginning is loss by retention: publish, count, go on."""
        position = _known(standing.next)
        begin, _ = await self._bounds(key)
        if position >= begin:
            return
        lost = OffsetRange(*key, position, begin)
        record = lost_record(lost, Standpoint(standing.snapshot, self._plan.provenance()))
        await persist("publish", lambda: self._producer.send(ENRICHED, [record]), self._metrics)
        self._metrics.lost.inc(lost.size)
        standing.next = begin
        standing.since_snapshot += 1

    async def _bounds(self, key: tuple[str, int]) -> tuple[int, int]:
        bounds = await persist("bounds", lambda: self._reader.bounds(*key), self._metrics)
        assert bounds is not None  # noqa: S101  # persist without still_ours always returns
        return bounds

    def _drop(self, key: tuple[str, int]) -> None:
        partition = self._partitions.pop(key)
        if partition.task is not None:
            partition.task.cancel()
        while not partition.queue.empty():  # lets go a body that waits for a place
            partition.queue.get_nowait()

    async def _work(self, key: tuple[str, int], partition: _Partition) -> None:
        while True:
            event = await partition.queue.get()
            async with partition.at_work:
                if self._stopping or not await self._finish(key, partition, event):
                    return

    async def _finish(self, key: tuple[str, int], partition: _Partition, event: SliceEvent) -> bool:
        """One Slice to its acknowledgement.  False when the partition was revoked meanwhile."""
        standing = partition.standing
        fresh = _from(event.value, _known(standing.next))
        if fresh is not None and fresh.records[0].offset > fresh.range.first:
            await self._count_loss(key, standing)  # retention may have overtaken us
            fresh = _from(event.value, _known(standing.next))
        if fresh is not None and not await self._enrich(partition, fresh):
            return False  # a later owner reads what we published and goes on from there
        if partition.generation != self._generation():
            return False
        event.ack()
        await self._snapshot_when_due(key, partition)
        return True

    async def _enrich(self, partition: _Partition, slice_: Slice) -> bool:
        """One Slice, published.  False when the partition was revoked meanwhile."""
        standing = partition.standing
        loop = asyncio.get_running_loop()
        made = await persist(
            "stages",
            lambda: loop.run_in_executor(self._inference, self._make, slice_, standing),
            self._metrics,
            lambda: partition.generation == self._generation(),
        )
        if made is None or not await self._publish(
            partition, slice_.range, made.records, made.rejects
        ):
            return False
        standing.next = slice_.range.next
        standing.since_snapshot += len(made.records)
        self._count(made, slice_)
        return True

    def _make(self, slice_: Slice, standing: Standing) -> _Made:
        """In the inference thread: decode, run every stage, encode."""
        raw = {record.offset: record for record in slice_.records}
        decoded = decode_slice(slice_, event_bytes_max=self._config.event_bytes_max)
        events, repeats = without_repeats(decoded, standing.state)
        batch, changes = self._plan.run(events, standing.state, raw)
        states = [*changes, *remember(batch, standing.state)]
        standpoint = Standpoint(standing.snapshot, self._plan.provenance())
        records, rejects = enriched_records(
            batch, states, standpoint, raw, self._config.record_bytes_max
        )
        return _Made(records, rejects, len(batch), repeats)

    async def _publish(
        self,
        partition: _Partition,
        range_: OffsetRange,
        records: Sequence[Any],
        rejects: Sequence[Rejected],
    ) -> bool:
        def still_ours() -> bool:
            return partition.generation == self._generation()

        # Dead letters first: a crash in between repeats them, the other order would lose them.
        if rejects:
            letters = [dead_letter(range_, reject) for reject in rejects]
            if (
                await persist(
                    "dead letters",
                    lambda: self._producer.send(DEAD, letters),
                    self._metrics,
                    still_ours,
                )
                is None
            ):
                return False
        sent = await persist(
            "publish", lambda: self._producer.send(ENRICHED, records), self._metrics, still_ours
        )
        return sent is not None

    async def _snapshot_when_due(self, key: tuple[str, int], partition: _Partition) -> None:
        standing = partition.standing
        waited_s = monotonic_s() - partition.snapshot_at_s
        due = standing.since_snapshot >= self._config.snapshot_records or (
            standing.since_snapshot and waited_s >= self._config.snapshot_s
        )
        if not due:
            return
        standing.since_snapshot = 0
        partition.snapshot_at_s = monotonic_s()
        at = OffsetRange(*key, _known(standing.next), _known(standing.next))
        record = await asyncio.get_running_loop().run_in_executor(
            self._inference,
            lambda: snapshot_record(at, standing.state.snapshot(), self._plan.provenance()),
        )
        if len(record.value or b"") + RECORD_OVERHEAD_BYTES > self._config.record_bytes_max:
            self._metrics.snapshots_too_large.inc()
            logger.warning(
                "the state snapshot of %s has %d bytes, %s takes %d: taking this partition over "
                "will read all records since the last one (lower STREAMAPP_CONVERSATIONS_MAX)",
                *(at, len(record.value or b""), ENRICHED, self._config.record_bytes_max),
            )
            return
        addresses = await persist(
            "snapshot",
            lambda: self._producer.send(ENRICHED, [record]),
            self._metrics,
            lambda: partition.generation == self._generation(),
        )
        if addresses:
            standing.snapshot = addresses[0].offset

    def _count(self, made: _Made, slice_: Slice) -> None:
        self._metrics.batches.inc()
        self._metrics.batch_events.inc(made.events)
        self._metrics.duplicates.labels("repeat").inc(made.repeats)
        for reject in made.rejects:
            self._metrics.rejected.labels(reject.stage, reject.code).inc()
        age_us = now_us() - slice_.records[-1].timestamp * 1000
        self._metrics.event_age_seconds.labels("enriched").observe(max(age_us, 0) / 1e6)


def _known(position: int | None) -> int:
    if position is None:
        stop_process(AssertionError("a partition without a position is at work"))
    return position


def _from(slice_: Slice, position: int) -> Slice | None:
    """The slice without what is already enriched, answering for everything from ``position`` on.

    A range begins where the one before ended, so it covers offsets that the log skips.
    """
    topic, partition, first, next_ = slice_.range
    if next_ <= position:
        return None
    if first > position:
        stop_process(
            Halt(
                "enrich.gap",
                f"{slice_.range} was delivered where offset {position} is next",
                "this is a bug of the transport; the next start goes on at the right place",
            )
        )
    records = [record for record in slice_.records if record.offset >= position]
    return Slice(OffsetRange(topic, partition, position, next_), records)
