"""The mirror agent: enriched rows into this host's ring, each once, across restarts.

Nothing is acknowledged that the ring does not have; the position to resume from is in the ring's
sources page, and the same Ledger as the store's filters what a replay brings again.  A ring that is
new, or was removed while it was written, gets the newest frames of the topic first.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from streamapp.agents.backfill import fill
from streamapp.agents.feed import Feed
from streamapp.agents.kinship import open_ours
from streamapp.agents.outcome import persist
from streamapp.agents.typed import SliceEvent
from streamapp.agents.view import ViewAgent
from streamapp.core.clock import monotonic_s
from streamapp.core.metrics import Metrics
from streamapp.ring import RingWriter
from streamapp.topics.catalogue import ENRICHED
from streamapp.transport.clients import Reader, started

QUEUE_SLICES_MAX = 4
#: So often the ring says that its writer lives, and its file is looked for.
BEAT_S = 1.0
logger = logging.getLogger("streamapp")


class MirrorAgent(ViewAgent):
    """Writes the enriched records of a Slice as one commit of the ring.

    Args:
        open_ring: becomes the ring's one writer.
        reader: to see whether the ring holds this log's frames, and to fill a new one.
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
        self._feed: Feed | None = None
        #: Partition to the enriched offset up to which the ring is filled from the log by us.
        self._ends: dict[int, int] = {}
        #: One at a time opens the ring or reads the log: an assignment, or the work between two.
        self._turn = asyncio.Lock()
        self._beat_s = 0.0

    def positions(self) -> Mapping[tuple[str, int], int]:
        found = self._feed.positions() if self._feed is not None else {}
        return {(ENRICHED, partition): offset for partition, offset in found.items()}

    async def _first(self, unknown: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """The ends of partitions that the ring does not know; what is before we read ourselves."""

        async def ask() -> None:
            async with self._turn, started(self._reader) as reader:
                for topic, partition in unknown:
                    if partition not in self._ends:
                        self._ends[partition] = (await reader.bounds(topic, partition))[1]

        if unknown:
            await persist("bounds", ask, self._metrics)
        return {(topic, partition): self._ends[partition] for topic, partition in unknown}

    async def _open(self) -> None:
        """This log's ring; one that holds another log's frames is replaced, and readers follow."""
        async with self._turn:
            if self._feed is None:
                ring = await open_ours(
                    self._open_ring, self._reader, ENRICHED, self._metrics, self._in_writer
                )
                await self._in_writer(self._take, ring)

    async def _close(self) -> None:
        if self._feed is not None:
            await self._in_writer(self._let_go)

    async def _work(self) -> None:
        while True:
            event = await self._next()
            if monotonic_s() - self._beat_s >= BEAT_S and not await self._in_writer(self._beat):
                await self._rebuild()
            if self._ends:
                await persist("backfill", self._fill, self._metrics)
            if event is None:
                continue
            if self._is_current(event):
                await self._in_writer(self._writing().put, event.value.records)
                event.ack()

    async def _next(self) -> SliceEvent | None:
        """The next Slice; None when none came while a heart beats."""
        try:
            async with asyncio.timeout(BEAT_S):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _rebuild(self) -> None:
        """Another file, filled up to where we were; what follows is in the queue or comes."""
        feed = self._writing()
        logger.warning("%s was removed or replaced: it is built anew", feed.ring.path)
        for partition, offset in feed.positions().items():
            self._ends.setdefault(partition, offset)
        await self._in_writer(self._let_go)
        await self._open()

    async def _fill(self) -> None:
        """Read what the ring lacks before ``_ends``, of a partition new to it the newest rows."""
        ends = dict(self._ends)  # an assignment may add to them meanwhile
        async with self._turn:
            await fill(self._writing(), self._reader, ends, self._in_writer)
        self._ends = {p: end for p, end in self._ends.items() if p not in ends}

    def _writing(self) -> Feed:
        assert self._feed is not None  # noqa: S101  # positions came from it
        return self._feed

    def _take(self, ring: RingWriter) -> None:
        """In the writer thread, as all that follows: begin to write this ring."""
        self._feed = Feed(ring, self._metrics)

    def _let_go(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _beat(self) -> bool:
        """False when the ring's file is not there."""
        self._beat_s = monotonic_s()
        return self._writing().beat()
