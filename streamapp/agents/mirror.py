"""The mirror agent: enriched rows into this host's ring, each once, across restarts.

Nothing is acknowledged that the ring does not have; the position to resume from is in the ring's
sources page, and the same Ledger as the store's filters what a replay brings again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from streamapp.agents.frames import frames
from streamapp.agents.kinship import holds_this_log
from streamapp.agents.outcome import guarded
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.clock import now_us
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import Ledger
from streamapp.core.slice import RecordLike
from streamapp.ring import RingWriter, SourcePosition
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import decode
from streamapp.transport.clients import Reader

QUEUE_SLICES_MAX = 4
logger = logging.getLogger("streamapp")


class MirrorAgent:
    """The agent's body and the ring's one writer thread.

    Args:
        open_ring: called when the first partition is assigned; importing the app locks no file.
        reader: to see whether the ring holds this log's frames.
        generation: the consumer group's current generation.
    """

    def __init__(
        self,
        open_ring: Callable[[], RingWriter],
        reader: Reader,
        metrics: Metrics,
        generation: Callable[[], int],
    ) -> None:
        self._open_ring = open_ring
        self._reader = reader
        self._ring: RingWriter | None = None
        self._metrics = metrics
        self._generation = generation
        self._ledger = Ledger()
        self._queue: asyncio.Queue[SliceEvent] = asyncio.Queue(QUEUE_SLICES_MAX)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="streamapp-ring")
        self._task: asyncio.Task[None] | None = None
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body: queue each Slice of enriched records."""
        if self._task is None:
            self._task = asyncio.create_task(guarded(self._work()))
        async for event in slice_events(stream):
            await self._queue.put(event)

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where the ring stands in each enriched partition; 0 where it has nothing."""
        return await guarded(self._start_positions(tps))

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next enriched offset of each partition that is not in the ring yet."""
        sources = self._ring.sources() if self._ring is not None else []
        return {(ENRICHED, source.partition): source.next_enriched_offset for source in sources}

    async def stop(self) -> None:
        """Write nothing more and close the ring."""
        if self._task is not None:
            self._task.cancel()
        if self._ring is not None:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._ring.close)
        self._writer.shutdown(wait=False)

    async def _start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        loop = asyncio.get_running_loop()
        if self._ring is None:
            self._ring = await self._open()
            self._ledger = self._ring.covered()
        # In the writer's thread, so that a commit still at work is counted in.
        sources = await loop.run_in_executor(self._writer, self._ring.sources)
        known = {source.partition: source.next_enriched_offset for source in sources}
        self.ready = True
        return {tp: known.get(tp[1], 0) for tp in tps}

    async def _open(self) -> RingWriter:
        """This log's ring; one that holds another log's frames is replaced, and readers follow."""
        loop = asyncio.get_running_loop()
        ring = await loop.run_in_executor(self._writer, self._open_ring)
        await self._reader.start()
        try:
            if await holds_this_log(ring, self._reader, ENRICHED):
                return ring
        finally:
            await self._reader.stop()
        logger.warning("%s holds the frames of another log: it is started anew", ring.path)
        ring.close()
        ring.path.unlink()
        return await loop.run_in_executor(self._writer, self._open_ring)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            event = await self._queue.get()
            if event.message.generation_id != self._generation():
                continue
            await loop.run_in_executor(self._writer, self._mirror, event.value.records)
            event.ack()

    def _mirror(self, records: Sequence[RecordLike]) -> None:
        """In the writer thread: each enriched record as one commit."""
        ring = self._ring
        assert ring is not None  # noqa: S101  # positions came from it
        for record in records:
            self._commit(ring, record)

    def _commit(self, ring: RingWriter, record: RecordLike) -> None:
        enriched = decode(record)
        topic, partition, first, next_ = enriched.cover.range
        done = self._ledger.of(topic, partition)
        if not len(done):
            done.add(0, first)  # this ring's history of the partition starts here
        rows = enriched.rows
        if rows.num_rows:
            fresh = ~done.mask(rows.column("source_offset").to_numpy())
            rows = rows if fresh.all() else rows.filter(pa.array(fresh))
        index = ring.source_index(topic, partition)
        records, vectors = frames(rows, index, ring.spec.dim)
        done.add(first, next_)
        # After a seek back, records come again that the ring has; its positions never go back.
        enriched_next = max(record.offset + 1, ring.sources()[index].next_enriched_offset)
        position = SourcePosition(topic, partition, done.prefix_end(0), enriched_next)
        ring.write(records, vectors, positions=[position])
        if len(records):
            self._metrics.frames.inc(len(records))
            age_us = now_us() - int(records["ingest_us"][-1])
            self._metrics.event_age_seconds.labels("mirrored").observe(max(age_us, 0) / 1e6)
