"""The store agent: enriched records into DuckDB, exactly once, and only then acknowledged.

One FIFO for all partitions, because one transaction takes what has gathered.  The position to
resume from is the store's own; what the group committed is for lag tools only.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamapp.agents.outcome import guarded, persist
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.metrics import Metrics
from streamapp.sink import Store, StoredRecord, Written
from streamapp.topics.enriched import decode

QUEUE_SLICES_MAX = 8


class StoreAgent:
    """The agent's body, its queue and its writer.

    Args:
        open_store: called when the first partition is assigned; importing the app locks no file.
        serve: starts to answer queries on the opened store, returns how to stop.
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
        self._open_store = open_store
        self._serve = serve
        self._stop_serving: Callable[[], None] = _nothing
        self._store: Store | None = None
        self._metrics = metrics
        self._generation = generation
        self._flush_rows = flush_rows
        self._flush_s = flush_ms_max / 1000
        self._queue: asyncio.Queue[SliceEvent] = asyncio.Queue(QUEUE_SLICES_MAX)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="streamapp-store")
        self._task: asyncio.Task[None] | None = None
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body: queue each Slice of enriched records."""
        if self._task is None:
            self._task = asyncio.create_task(guarded(self._work()))
        async for event in slice_events(stream):
            await self._queue.put(event)

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where the store stands in each enriched partition; 0 where it has nothing."""
        return await guarded(self._start_positions(tps))

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next enriched offset of each partition that is not stored yet."""
        return self._store.positions() if self._store is not None else {}

    async def stop(self) -> None:
        """Write nothing more and close the file."""
        if self._task is not None:
            self._task.cancel()
        if self._store is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._stop_serving)
            await loop.run_in_executor(self._writer, self._store.close)
        self._writer.shutdown(wait=False)

    async def _start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        if self._store is None:
            loop = asyncio.get_running_loop()
            self._store = await loop.run_in_executor(self._writer, self._open_store)
            self._stop_serving = self._serve(self._store)
        known = self._store.positions()
        self.ready = True
        return {tp: known.get((tp[0], tp[1]), 0) for tp in tps}

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            events = await self._gather()
            current = [e for e in events if e.message.generation_id == self._generation()]
            records = await loop.run_in_executor(self._writer, _decode, current)
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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._store.write, records)

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


def _nothing() -> None:
    """Nothing is served before the store is open."""


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
