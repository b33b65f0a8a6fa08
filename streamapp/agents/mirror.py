"""The mirror agent: enriched rows into this host's ring, each once, across restarts.

Nothing is acknowledged that the ring does not have; the position to resume from is in the ring's
sources page, and the same Ledger as the store's filters what a replay brings again.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from streamapp.agents.frames import frames
from streamapp.agents.kinship import holds_this_log
from streamapp.agents.outcome import persist
from streamapp.agents.view import ViewAgent
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


class MirrorAgent(ViewAgent):
    """Writes each enriched record as one commit of the ring.

    Args:
        open_ring: becomes the ring's one writer.
        reader: to see whether the ring holds this log's frames.
        metrics: of this process.
        generation: the consumer group's current generation.
    """

    def __init__(
        self,
        open_ring: Callable[[], RingWriter],
        reader: Reader,
        metrics: Metrics,
        generation: Callable[[], int],
    ) -> None:
        super().__init__("streamapp-ring", QUEUE_SLICES_MAX, metrics, generation)
        self._open_ring = open_ring
        self._reader = reader
        self._ring: RingWriter | None = None
        self._ledger = Ledger()

    def positions(self) -> Mapping[tuple[str, int], int]:
        sources = self._ring.sources() if self._ring is not None else []
        return {(ENRICHED, source.partition): source.next_enriched_offset for source in sources}

    async def _open(self) -> None:
        """This log's ring; one that holds another log's frames is replaced, and readers follow."""
        if self._ring is not None:
            return
        ring = await self._in_writer(self._open_ring)
        await persist("connect", self._reader.start, self._metrics)
        try:
            ours = await holds_this_log(ring, self._reader, ENRICHED)
        finally:
            await self._reader.stop()
        if not ours:
            logger.warning("%s holds the frames of another log: it is started anew", ring.path)
            ring.close()
            ring.path.unlink()
            ring = await self._in_writer(self._open_ring)
        self._ledger = ring.covered()
        self._ring = ring

    async def _close(self) -> None:
        if self._ring is not None:
            await self._in_writer(self._ring.close)

    async def _work(self) -> None:
        while True:
            event = await self._queue.get()
            if self._is_current(event):
                await self._in_writer(self._mirror, event.value.records)
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
