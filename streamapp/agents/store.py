"""The store agent: enriched records into DuckDB, exactly once, and only then acknowledged.

One FIFO for all partitions, because one transaction takes what has gathered.  While one is written
the next is decoded.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from streamapp.agents.asking.feed import AnswersFeed
from streamapp.agents.gather import Gather
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.typed import SliceEvent
from streamapp.agents.view import ViewAgent
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.metrics import Metrics
from streamapp.sink import StoredRecord, Written, keyed
from streamapp.sink.contract import Sink
from streamapp.topics.catalogue import ANSWERS
from streamapp.topics.enriched import decode

QUEUE_SLICES_MAX = 8
#: For how long a thread that decodes may keep the interpreter from the one that writes: Python's
#: own 5 ms would be a tenth of a transaction.
SWITCH_S = 0.0005
#: Encoded bytes after which a transaction waits for no more; decoded they are some times that.
TRANSACTION_BYTES = 32 << 20


@dataclass(frozen=True)
class Decoded:
    """A Slice of enriched records, ready to be written."""

    event: SliceEvent
    records: list[StoredRecord]

    @cached_property
    def rows(self) -> int:
        return sum(record.enriched.rows.num_rows for record in self.records)

    @cached_property
    def size_bytes(self) -> int:
        return sum(len(record.value or b"") for record in self.event.value.records)


class StoreAgent(ViewAgent):
    """Writes what has gathered as one transaction.

    Args:
        open_store: opens the sink.
        serve: starts to answer queries on the opened store, returns how to stop.
        metrics: of this process.
        generation: the consumer group's current generation.
        flush_rows: rows after which a transaction is not kept waiting for more.
        flush_ms_max: longest the first Slice of a transaction waits for others.
        feed: what else the store keeps, beside the enriched topic; None: nothing.
    """

    def __init__(
        self,
        open_store: Callable[[], Sink],
        serve: Callable[[Sink], Callable[[], None]],
        metrics: Metrics,
        generation: Callable[[], int],
        *,
        flush_rows: int,
        flush_ms_max: int,
        feed: AnswersFeed | None = None,
    ) -> None:
        super().__init__("streamapp-store", QUEUE_SLICES_MAX, metrics, generation)
        self._open_store = open_store
        self._serve = serve
        self._stop_serving: Callable[[], None] | None = None
        self._store: Sink | None = None
        self._feed = feed
        self._feeding: asyncio.Task[None] | None = None
        self._gather = Gather[Decoded](
            rows_enough=flush_rows, bytes_enough=TRANSACTION_BYTES, wait_s=flush_ms_max / 1000
        )

    def positions(self) -> Mapping[tuple[str, int], int]:
        known = self._store.positions() if self._store is not None else {}
        return {key: next_ for key, next_ in known.items() if key[0] != ANSWERS}

    async def _open(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        if self._store is None:
            self._store = await self._in_writer(self._open_store)
            self._stop_serving = self._serve(self._store)
            if self._feed is not None:
                feeding = self._feed.run(self._store, self._in_writer)
                self._feeding = asyncio.create_task(guarded(feeding))

    async def _close(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        if self._stop_serving is not None:
            await asyncio.to_thread(self._stop_serving)
        if self._store is not None:
            await self._in_writer(self._store.close)

    async def _work(self) -> None:
        decoding = asyncio.create_task(guarded(self._decode()))
        try:
            while True:
                await self._store_next()
        finally:
            decoding.cancel()

    async def _decode(self) -> None:
        """Slice after Slice, in their order, beside the writer's thread."""
        while True:
            event = await self._queue.get()
            if self._is_current(event):
                records = await asyncio.to_thread(_decoded, event)
                await self._gather.put(Decoded(event, records))

    async def _store_next(self) -> None:
        taken = [slice_ for slice_ in await self._gather.take() if self._is_current(slice_.event)]
        records = [record for slice_ in taken for record in slice_.records]
        if records:
            await self._store_all(records)
        for slice_ in taken:
            slice_.event.ack()

    async def _store_all(self, records: list[StoredRecord]) -> None:
        started_s = monotonic_s()
        written = await persist("store", lambda: self._write(records), self._metrics)
        if written is not None:
            self._count(written, records, monotonic_s() - started_s)

    async def _write(self, records: list[StoredRecord]) -> Written:
        assert self._store is not None  # noqa: S101  # positions came from it
        return await self._in_writer(self._store.write, records)

    def _count(self, written: Written, records: list[StoredRecord], seconds: float) -> None:
        self._metrics.commit_seconds.observe(seconds)
        self._metrics.stored_rows.inc(written.rows)
        self._metrics.duplicates.labels("range").inc(written.duplicates_by_range)
        self._metrics.duplicates.labels("id").inc(written.duplicates_by_id)
        self._metrics.ledger_holes.set(written.holes)
        newest = max((_newest_us(record) for record in records), default=0)
        if newest:
            self._metrics.event_age_seconds.labels("stored").observe(
                max(now_us() - newest, 0) / 1e6
            )


def _decoded(event: SliceEvent) -> list[StoredRecord]:
    range_ = event.value.range
    return [
        keyed(StoredRecord(decode(record), range_.topic, range_.partition, record.offset + 1))
        for record in event.value.records
    ]


def _newest_us(record: StoredRecord) -> int:
    rows = record.enriched.rows
    return int(rows.column("ingest_time")[-1].value) if rows.num_rows else 0
