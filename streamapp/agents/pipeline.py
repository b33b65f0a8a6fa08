"""One source partition's way from Slices to enriched records: three steps that overlap.

    queue -> decode -> infer -> publish

Each step is one task that hands over in order through a queue of one, so while one Slice is
published the next is in the models and the one after that is decoded.  Whatever depends on what
came before is done by the infer step, in one thread, in order: repeats, the stages' state, and the
snapshots of it.  A snapshot is therefore taken between two Slices and published between them.
Nothing is published or acknowledged before what came before it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from streamapp.agents.making import Framing, Made, Making, Twin, no_frames
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.publish import (
    RECORD_OVERHEAD_BYTES,
    Standpoint,
    dead_letter,
    lost_record,
    snapshot_record,
)
from streamapp.agents.recovery import Standing
from streamapp.agents.room import Room
from streamapp.agents.typed import SliceEvent
from streamapp.core.batch import Batch
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import Halt
from streamapp.core.metrics import Metrics
from streamapp.core.packed import value_bytes
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import ByOffset, Slice
from streamapp.topics.catalogue import DEAD, ENRICHED
from streamapp.topics.wire import decode_slice
from streamapp.transport.clients import Address, Outgoing, Producer
from streamapp.workflow import Plan

logger = logging.getLogger("streamapp")

#: Slices that may wait to be decoded; the transport's own buffer comes on top.
QUEUE_SLICES_MAX = 2
#: Values of the Slices between decoding and acknowledgement; one Slice may always be there.
IN_WORK_BYTES_MAX = 32 << 20


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """Where the agent publishes, and its limits; names as in Settings."""

    record_bytes_max: int
    event_bytes_max: int
    snapshot_records: int
    snapshot_s: float
    conversations_max: int
    enriched: str = ENRICHED
    dead: str = DEAD


@dataclass(frozen=True, slots=True)
class Shared:
    """What all partitions of an agent use.

    ``decoding`` and ``inference`` have one thread each; ``bounds`` asks the log for a partition's
    first offset and the one past its last.
    """

    plan: Plan
    producer: Producer
    config: EnrichConfig
    metrics: Metrics
    generation: Callable[[], int]
    decoding: Executor
    inference: Executor
    bounds: Callable[[tuple[str, int]], Awaitable[tuple[int, int]]]
    twin: Twin | None = None
    framing: Framing = no_frames


@dataclass(slots=True)
class _Work:
    """A Slice on its way: ``fresh`` is what was not enriched before, None when all of it was."""

    event: SliceEvent
    fresh: Slice | None = None
    lost: OffsetRange | None = None
    batch: Batch | None = None
    made: Made | None = None
    size: int = 0


class Pipeline:
    """A partition while it is ours.

    Args:
        shared: by all partitions.
        key: topic and partition.
        generation: of the group, in which the partition became ours.
        standing: where it stands.
        position: the next source offset to enrich.
    """

    def __init__(
        self,
        shared: Shared,
        key: tuple[str, int],
        generation: int,
        standing: Standing,
        position: int,
    ) -> None:
        self.generation = generation
        #: The next source offset that is not published yet.
        self.position = position
        self.queue: asyncio.Queue[SliceEvent] = asyncio.Queue(QUEUE_SLICES_MAX)
        self._shared = shared
        self._key = key
        self._head = position  # the next one that is not decoded yet
        self._state = standing.state
        self._repeats = standing.repeats
        self._snapshot = standing.snapshot
        self._since_snapshot = standing.since_snapshot
        self._snapshot_at_s = monotonic_s()
        self._stopping = False
        self._room = Room(IN_WORK_BYTES_MAX)
        self._decoded: asyncio.Queue[_Work] = asyncio.Queue(1)
        self._made: asyncio.Queue[_Work] = asyncio.Queue(1)
        self._inferring = asyncio.Lock()
        steps = (self._decode, self._infer, self._publish)
        self._tasks = [asyncio.create_task(self._run(step)) for step in steps]

    def drop(self) -> None:
        """Publish and acknowledge nothing more."""
        for task in self._tasks:
            task.cancel()
        while not self.queue.empty():  # lets go a body that waits for a place
            self.queue.get_nowait()

    async def finish(self) -> None:
        """Finish what the models have begun; what waits for them is for the next owner."""
        self._stopping = True
        publishing = self._tasks[-1]
        async with self._inferring:
            finished = asyncio.ensure_future(self._made.join())
        # It ends by itself when the partition is no longer ours.
        await asyncio.wait({finished, publishing}, return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        self.drop()

    def _is_ours(self) -> bool:
        return self.generation == self._shared.generation()

    async def _run(self, step: Callable[[], Awaitable[None]]) -> None:
        await guarded(step())  # begun in the task: one that is dropped before it starts never is

    async def _decode(self) -> None:
        """First step: from the queue to columns."""
        loop = asyncio.get_running_loop()
        decode = partial(decode_slice, event_bytes_max=self._shared.config.event_bytes_max)
        while True:
            work = await self._begin(await self.queue.get())
            if work.fresh is not None:
                await self._room.take(work.size)
                work.batch = await loop.run_in_executor(self._shared.decoding, decode, work.fresh)
            await self._decoded.put(work)

    async def _begin(self, event: SliceEvent) -> _Work:
        """What of a Slice is new, and what the log lost before it."""
        work = _Work(event, _from(event.value, self._head))
        if work.fresh and work.fresh.records and work.fresh.records[0].offset > self._head:
            begin, _ = await self._shared.bounds(self._key)
            if begin > self._head:  # retention has overtaken us
                work.lost = OffsetRange(*self._key, self._head, begin)
                self._head = begin
                work.fresh = _from(event.value, begin)
        if work.fresh is not None:
            self._head = work.fresh.range.next
            work.size = value_bytes(work.fresh.records)
        return work

    async def _infer(self) -> None:
        """Second step: through the models, one Slice at a time."""
        loop = asyncio.get_running_loop()
        inference = self._shared.inference
        while True:
            work = await self._decoded.get()
            async with self._inferring:
                if self._stopping:
                    return
                if work.fresh is not None and work.batch is not None:
                    make = partial(self._make, work.fresh, work.batch)
                    work.made = await persist(
                        "stages",
                        partial(loop.run_in_executor, inference, make),
                        self._shared.metrics,
                        self._is_ours,
                    )
                    if work.made is None:
                        return
                await self._made.put(work)

    def _make(self, fresh: Slice, decoded: Batch) -> Made:
        """In the inference thread: run every stage, encode, and take a snapshot when it is due."""
        shared = self._shared
        making = Making(
            shared.plan,
            Standpoint(self._snapshot, shared.plan.provenance()),
            shared.config.record_bytes_max,
            shared.twin,
            shared.framing,
            self._is_ours,
        )
        made = making.of(decoded, ByOffset(fresh.records), self._state, self._repeats)
        self._since_snapshot += len(made.records)
        return made._replace(snapshot=self._snapshot_when_due(fresh.range.next))

    def _snapshot_when_due(self, next_: int) -> Outgoing | None:
        config = self._shared.config
        if self._since_snapshot < config.snapshot_records and (
            monotonic_s() - self._snapshot_at_s < config.snapshot_s
        ):
            return None
        self._since_snapshot = 0
        self._snapshot_at_s = monotonic_s()
        at = OffsetRange(*self._key, next_, next_)
        states = [*self._state.snapshot(), self._repeats.entry(next_ - 1)]
        record = snapshot_record(at, states, self._shared.plan.provenance())
        size = len(record.value or b"")
        if size + RECORD_OVERHEAD_BYTES <= config.record_bytes_max:
            return record
        self._shared.metrics.snapshots_too_large.inc()
        logger.warning(
            "the state snapshot of %s has %d bytes, %s takes %d: taking this partition over "
            "will read all records since the last one (lower STREAMAPP_CONVERSATIONS_MAX)",
            *(at, size, config.enriched, config.record_bytes_max),
        )
        return None

    async def _publish(self) -> None:
        """Third step: to the log, then acknowledged."""
        while await self._finish(await self._made.get()):
            self._made.task_done()
        self.drop()  # what comes behind is not ours either, and must not wait for us

    async def _finish(self, work: _Work) -> bool:
        """False when the partition was revoked: a later owner goes on from what is published."""
        if work.lost is not None and not await self._publish_loss(work.lost):
            return False
        made, fresh = work.made, work.fresh
        if made is not None and fresh is not None:
            if not await self._publish_made(made, fresh.range):
                return False
            self.position = fresh.range.next
            self._count(made, fresh)
        if not self._is_ours():
            return False
        work.event.ack()
        self._room.give(work.size)
        if made is None or made.snapshot is None:
            return True
        sent = await self._send("snapshot", self._shared.config.enriched, [made.snapshot])
        if sent is not None:
            self._snapshot = sent[0].offset
        return sent is not None

    async def _publish_loss(self, lost: OffsetRange) -> bool:
        record = lost_record(lost, Standpoint(self._snapshot, self._shared.plan.provenance()))
        if await self._send("publish", self._shared.config.enriched, [record]) is None:
            return False
        self._shared.metrics.lost.inc(lost.size)
        self.position = lost.next
        return True

    async def _publish_made(self, made: Made, range_: OffsetRange) -> bool:
        """Copies first: a crash in between repeats them, the other order would lose them."""
        letters = [dead_letter(range_, reject) for reject in made.rejects]
        sends = [
            ("dead letters", self._shared.config.dead, letters),
            *(("twin", topic, records) for topic, records in made.twins),
            ("publish", self._shared.config.enriched, made.records),
        ]
        for what, topic, records in sends:
            if records and await self._send(what, topic, records) is None:
                return False
        return True

    async def _send(
        self, what: str, topic: str, records: Sequence[Outgoing]
    ) -> list[Address] | None:
        """Where the records are, for good; None when the partition was revoked meanwhile.

        While stopping, a log that does not answer is not waited for either.
        """
        tried = False

        async def send() -> list[Address]:
            nonlocal tried
            tried = True
            return await self._shared.producer.send(topic, records)

        def goes_on() -> bool:
            return self._is_ours() and not (tried and self._stopping)

        return await persist(what, send, self._shared.metrics, goes_on)

    def _count(self, made: Made, slice_: Slice) -> None:
        metrics = self._shared.metrics
        metrics.batches.inc()
        metrics.batch_events.inc(made.events)
        metrics.duplicates.labels("repeat").inc(made.repeats)
        for reject in made.rejects:
            metrics.rejected.labels(reject.stage, reject.code).inc()
        for record in slice_.records[-1:]:
            age_us = now_us() - record.timestamp * 1000
            metrics.event_age_seconds.labels("enriched").observe(max(age_us, 0) / 1e6)


def _from(slice_: Slice, position: int) -> Slice | None:
    """The slice without what is already enriched, answering for everything from ``position`` on.

    A range begins where the one before ended, so it covers offsets that the log skips.

    Raises:
        Halt: the slice begins later.
    """
    _, _, first, next_ = slice_.range
    if next_ <= position:
        return None
    if first > position:
        raise Halt(
            "enrich.gap",
            f"{slice_.range} was delivered where offset {position} is next",
            "this is a bug of the transport; the next start goes on at the right place",
        )
    return slice_.since(position)
