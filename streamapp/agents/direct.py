"""Direct mode: the worker writes its host's ring itself, and the model its vectors into it.

Round the stages of a batch lies one reservation: the embedding stage gets the reserved rows as its
memory, onnxruntime writes there, and when all else about the batch is done the records are added
and the rows committed.  One thread runs the models for all partitions, so there is one writer and
one reservation at a time.

Rows are committed before the batch is published: readers have them sooner, and everything published
is in the ring, so a killed worker leaves no gap.  What it had not published is inferred again, the
same (``state.replay_equal``), and the ring's ledger says that it is there.  The other order would
leave a gap after a crash, and need a reservation for each batch that waits for the log.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.agents.backfill import fill
from streamapp.agents.feed import Feed
from streamapp.agents.frames import EMBEDDING, copy_vectors, embedded, records_of, vectors
from streamapp.agents.kinship import InWriter, open_ours
from streamapp.agents.outcome import guarded, persist
from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.plugin import Stage, VectorStage
from streamapp.ring import Reservation, RingWriter, SourcePosition, new_records
from streamapp.ring.layout import Array
from streamapp.topics.catalogue import ENRICHED
from streamapp.transport.clients import Reader, started

#: So often the ring says that its writer lives, and its file is looked for.
BEAT_S = 1.0
Source = tuple[str, int]
logger = logging.getLogger("streamapp")


class DirectRing:
    """A worker's ring: opened before it joins its group, filled up for what it takes over.

    Args:
        open_ring: becomes the ring's one writer.
        reader: of its own, to see whose frames the ring holds and to fill in what it lacks.
        stages: of the plan; the one that writes ``embedding`` gets its memory from the ring.
        metrics: of this process.
    """

    def __init__(
        self,
        open_ring: Callable[[], RingWriter],
        reader: Reader,
        stages: Sequence[Stage],
        metrics: Metrics,
    ) -> None:
        self.frames = DirectFrames(stages)
        self._open_ring = open_ring
        self._reader = reader
        self._metrics = metrics
        self._in_thread: InWriter | None = None
        self._beating: asyncio.Task[None] | None = None
        #: One at a time fills a ring with its past or begins a new one.
        self._turn = asyncio.Lock()

    async def open(self, in_thread: InWriter) -> None:
        """Become the writer of this log's ring; from now on its thread is the given one.

        Raises:
            Refuse: another process writes the ring.
        """
        self._in_thread = in_thread
        ring = await open_ours(self._claim, self._reader, ENRICHED, self._metrics, in_thread)
        await in_thread(self._use, ring)
        self._beating = asyncio.create_task(guarded(self._beat()))

    async def take_over(self, positions: Mapping[Source, int]) -> None:
        """Have everything below each source's position in the ring, or what of it a ring holds.

        Rows that a terminal had not mirrored, or another host's worker enriched, are read from the
        log.  Nothing of these sources may be in work.
        """
        if positions:
            await persist("backfill", lambda: self._take_over(positions), self._metrics)

    async def _take_over(self, positions: Mapping[Source, int]) -> None:
        in_thread, frames = self._thread(), self.frames
        async with started(self._reader) as reader:
            ends = {source: (await reader.bounds(ENRICHED, source[1]))[1] for source in positions}
        async with self._turn:
            lacking = await in_thread(frames.lacking, positions)
            if lacking:
                partitions = {source[1]: ends[source] for source in lacking}
                await fill(frames.feed, self._reader, partitions, in_thread)
            await in_thread(frames.go_on, {s: (at, ends[s]) for s, at in positions.items()})

    async def close(self) -> None:
        """Give the ring up; no batch is in work any more."""
        if self._beating is not None:
            self._beating.cancel()
            await self._thread()(self.frames.feed.close)

    def _claim(self) -> RingWriter:
        try:
            return self._open_ring()
        except Refuse as error:
            if error.code != "ring.locked":
                raise
            raise Refuse(
                error.code,
                error.message,
                'ring = "direct" takes one worker on a host and no terminal: stop the other one, '
                'or set ring = "c" and let a terminal write for all workers',
            ) from None

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if not await self._thread()(self.frames.feed.beat):
                async with self._turn:
                    await self._thread()(self._rebuild)

    def _rebuild(self) -> None:
        """In the thread: another file for one that was removed, without its past."""
        ring = self.frames.feed.ring
        logger.warning("%s was removed or replaced: it is built anew", ring.path)
        self.frames.feed.close()
        self._use(self._claim())

    def _use(self, ring: RingWriter) -> None:
        """In the thread: write this ring from now on."""
        self.frames.use(Feed(ring, self._metrics))

    def _thread(self) -> InWriter:
        assert self._in_thread is not None  # noqa: S101  # opened first
        return self._in_thread


class DirectFrames:
    """Frames as the inference thread makes them; every method is called there.

    Attributes:
        feed: the ring and what it has.
    """

    feed: Feed

    def __init__(self, stages: Sequence[Stage]) -> None:
        #: Of each source: the next source offset, and the enriched one that a mirror goes on from.
        self._next: dict[Source, tuple[int, int]] = {}
        self._wanted = 0
        self._place: Reservation | None = None
        self._reserves = True
        for stage in stages:
            if isinstance(stage, VectorStage) and EMBEDDING in stage.writes:
                stage.allocate = self.allocate

    def use(self, feed: Feed) -> None:
        """Write this ring from now on; what was in work before is done with."""
        self.feed = feed
        self.go_on(self._next)

    def lacking(self, positions: Mapping[Source, int]) -> list[Source]:
        """The sources of which the ring does not have all that is below their position."""
        ledger = self.feed.ledger
        return [s for s, at in positions.items() if ledger.of(*s).prefix_end(0) < at]

    def go_on(self, positions: Mapping[Source, tuple[int, int]]) -> None:
        """Of each source nothing is wanted below a source offset, nor below an enriched one."""
        self._next |= positions
        ledger = self.feed.ledger
        for source, (at, _) in positions.items():
            ledger.of(*source).add(0, at)
        self.feed.start(
            [
                SourcePosition(*source, ledger.of(*source).prefix_end(0), enriched)
                for source, (_, enriched) in positions.items()
            ]
        )

    def allocate(self, rows: int, dim: int) -> npt.NDArray[np.float32]:
        """The reserved rows for a whole batch that is new to the ring; for all else new memory."""
        spec = self.feed.ring.spec
        if rows and rows == self._wanted and (dim, "<f4") == (spec.dim, spec.dtype):
            self._wanted = 0  # once: parts of a batch that failed are joined elsewhere
            self._place = self.feed.ring.reserve(rows)
            return self._place.semantic
        return np.empty((rows, dim), np.float32)

    @contextmanager
    def around(self, events: Batch) -> Iterator[Callable[[Batch], None]]:
        """Round the stages of a batch: give what they made of it to the result, or it is void.

        After void rows nothing is reserved until a batch comes through: a stage that keeps asking
        for another try would fill the ring with them.
        """
        known = self.feed.ledger.of(*events.range[:2]).mask(events.offsets())
        fits = len(events) <= self.feed.ring.spec.commit_rows_max
        self._wanted = len(events) if fits and self._reserves and not known.any() else 0
        try:
            yield self._commit
        finally:
            self._wanted, place, self._place = 0, self._place, None
            if place is not None and place.is_open:
                place.abandon()
                self._reserves = False

    def _commit(self, batch: Batch) -> None:
        """The batch's rows that the ring does not have, and how far their source is with them."""
        topic, partition, first, next_ = batch.range
        done = self.feed.ledger.of(topic, partition)
        fresh = ~done.mask(batch.offsets())
        begin, enriched = self._next.get((topic, partition), (first, 0))
        done.add(min(begin, first), next_)  # with what the log lost before this batch
        self._next[topic, partition] = next_, enriched
        position = SourcePosition(topic, partition, done.prefix_end(0), enriched)
        if self._place is None:
            rows = batch.rows if fresh.all() else batch.rows.filter(pa.array(fresh))
            self.feed.write(rows, position)
        else:
            self._fill(self._place, batch.rows, position)
        self._reserves = True

    def _fill(self, place: Reservation, rows: pa.RecordBatch, position: SourcePosition) -> None:
        """Reserved rows; where some were rejected since, the last ones become void."""
        n, spec = rows.num_rows, self.feed.ring.spec
        semantic = place.semantic[:n]
        known = embedded(rows, spec.dim)
        if lies_in(rows, semantic):
            semantic[~known] = 0
        else:
            copy_vectors(rows, EMBEDDING, semantic, 0)
        for column in spec.extra:
            copy_vectors(rows, column.name, place.columns[column.name][:n], np.nan)
        records = new_records(len(place))
        index = self.feed.ring.source_index(*position[:2])
        records[:n] = records_of(rows, index, spec.columns[0], known)
        self.feed.pull.into(records[:n], semantic, known)
        keep = None if n == len(place) else np.arange(len(place)) < n
        place.commit(records, positions=[position], keep=keep)
        self.feed.count(records[:n])


def lies_in(rows: pa.RecordBatch, memory: Array) -> bool:
    """Are the rows' vectors that very memory, in order?"""
    column = vectors(rows, EMBEDDING, memory.shape[1])
    if column is None or column.offset or not len(column):
        return False
    values = column.values.to_numpy(zero_copy_only=False)
    return bool(values.dtype == memory.dtype and values.ctypes.data == memory.ctypes.data)
