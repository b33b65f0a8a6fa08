"""The store agent: enriched records into DuckDB, exactly once, and only then acknowledged.

One FIFO for all partitions, because one transaction takes what has gathered.
"""

import asyncio
from collections.abc import Callable, Mapping

from streamapp.agents.outcome import persist
from streamapp.agents.typed import SliceEvent
from streamapp.agents.view import ViewAgent
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.metrics import Metrics
from streamapp.sink import Store, StoredRecord, Written
from streamapp.topics.enriched import decode

QUEUE_SLICES_MAX = 8


class StoreAgent(ViewAgent):
    """Writes what has gathered as one transaction.

    Args:
        open_store: opens the store's file.
        serve: starts to answer queries on the opened store, returns how to stop.
        metrics: of this process.
        generation: the consumer group's current generation.
        flush_rows: rows after which a transaction is not kept waiting for more.
        flush_ms_max: longest the first Slice of a transaction waits for others.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        serve: Callable[[Store], Callable[[], None]],
        metrics: Metrics,
        generation: Callable[[], int],
        *,
        flush_rows: int,
        flush_ms_max: int,
    ) -> None:
        super().__init__("streamapp-store", QUEUE_SLICES_MAX, metrics, generation)
        self._open_store = open_store
        self._serve = serve
        self._stop_serving: Callable[[], None] | None = None
        self._store: Store | None = None
        self._flush_rows = flush_rows
        self._flush_s = flush_ms_max / 1000

    def positions(self) -> Mapping[tuple[str, int], int]:
        return self._store.positions() if self._store is not None else {}

    async def _open(self) -> None:
        if self._store is None:
            self._store = await self._in_writer(self._open_store)
            self._stop_serving = self._serve(self._store)

    async def _close(self) -> None:
        if self._stop_serving is not None:
            await asyncio.to_thread(self._stop_serving)
        if self._store is not None:
            await self._in_writer(self._store.close)

    async def _work(self) -> None:
        while True:
            current = [event for event in await self._gather() if self._is_current(event)]
            records = await self._in_writer(_decode, current)
            if records:
                await self._store_all(records)
            for event in current:
                event.ack()

    async def _store_all(self, records: list[StoredRecord]) -> None:
        started_s = monotonic_s()
        written = await persist("store", lambda: self._write(records), self._metrics)
        if written is not None:
            self._count(written, records, monotonic_s() - started_s)

    async def _gather(self) -> list[SliceEvent]:
        """The next Slice and those that come within the flush time, until there are rows enough.

        A Slice holds enriched records of hundreds of rows each, so records are counted, not rows,
        until decoded.
        """
        events = [await self._queue.get()]
        deadline_s = monotonic_s() + self._flush_s
        while sum(len(event.value) for event in events) * 8 < self._flush_rows:
            try:
                async with asyncio.timeout(max(deadline_s - monotonic_s(), 0)):
                    events.append(await self._queue.get())
            except TimeoutError:
                break
        return events

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


def _decode(events: list[SliceEvent]) -> list[StoredRecord]:
    return [
        StoredRecord(
            decode(record), event.value.range.topic, event.value.range.partition, record.offset + 1
        )
        for event in events
        for record in event.value.records
    ]


def _newest_us(record: StoredRecord) -> int:
    rows = record.enriched.rows
    return int(rows.column("ingest_time")[-1].value) if rows.num_rows else 0
