"""One partition of the enriched topic for one export: gather, plan, post, commit, in order."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.agents.exports.body import Event, Place, events_of, message, rows_of
from streamapp.agents.exports.condition import Condition
from streamapp.agents.exports.courier import Courier
from streamapp.agents.exports.plans import Plan, Plans
from streamapp.agents.outcome import persist
from streamapp.core.clock import Clock
from streamapp.core.errors import Reject, Retry
from streamapp.core.exports import CONFIG_TYPE
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import RangeSet
from streamapp.core.slice import RecordLike
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import Cover
from streamapp.transport.clients import Reader

#: Of one message; an event that alone is larger goes alone.
BODY_BYTES_MAX = 4 << 20
#: Read at once; decompressed it may be ten times as much.
_READ_BYTES, _READ_RECORDS = 1 << 20, 32
_LOOK_MS = 250
#: A position behind which nothing matched is committed so often.
_IDLE_COMMIT_S = 2.0
logger = logging.getLogger("streamapp")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What the lanes of one export share."""

    courier: Courier
    columns: pa.Schema
    names: Sequence[str]
    condition: Callable[[], Condition]
    reader: Reader
    plans: Plans
    metrics: Metrics
    clock: Clock
    #: (partition) to the offset that the group committed, None for none.
    committed: Callable[[int], Awaitable[int | None]]
    #: (partition, offset): commits as a member of the group.
    commit: Callable[[int, int], Awaitable[None]]
    #: Takes what an event says that changes this export; None where none may.
    reconfigure: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None


class _Matched(NamedTuple):
    cover: Cover
    events: list[Event]
    bad: list[tuple[Event, Reject]]
    changes: list[dict[str, Any]]


class Lane:
    """Runs until it is stopped or cancelled; then the next owner goes on from its plan."""

    def __init__(self, work: Work, partition: int) -> None:
        self._work = work
        self._partition = partition
        self._condition = work.condition()
        self._stopping = False
        self._ready: deque[Event] = deque()
        self._ready_bytes = 0
        self._since_s = 0.0
        self._at = 0
        self._from = Place(0, 0)
        self._begun = False
        self._plan: Plan | None = None
        self._committed = -1
        self._committed_s = 0.0
        self._seen = RangeSet()
        self._target = work.courier.target

    def stop(self) -> None:
        """Finish the attempt that is under way, commit and end."""
        self._stopping = True
        self._target.wake()

    async def run(self) -> None:
        """Until stopped.

        Raises:
            Halt: the enriched topic holds what is not ours.
        """
        try:
            await self._log(self._begin)
            if self._plan is not None:
                batch = await self._log(self._taken) or []
                if self._stopping or (batch and not await self._deliver(batch)):
                    return
            while not self._stopping:
                if await self._gathered():
                    batch = self._batch()
                    await self._log(lambda: self._planned(batch))  # noqa: B023  # awaited here
                    if not await self._deliver(batch):
                        return
                    self._drop(len(batch))
                    await self._log(self._commit)
            if self._begun:
                with suppress(Retry):  # then the next owner knows by the plan
                    await self._commit()
        finally:
            self._condition.close()

    def _goes_on(self) -> bool:
        return not self._stopping

    async def _log(self, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """What the log is asked, until it answers; None when this lane was stopped before."""
        return await persist("export", attempt, self._work.metrics, self._goes_on)

    async def _deliver(self, batch: Sequence[Event]) -> bool:
        return await self._work.courier.deliver(batch, self._goes_on)

    # -- where it begins

    async def _begin(self) -> None:
        """Set the position: what the group committed, or further on what was planned behind it."""
        work, partition, name = self._work, self._partition, self._target.now.name
        begin, end = await work.reader.bounds(ENRICHED, partition)
        committed = await work.committed(partition)
        plan = await work.plans.find(name, partition)
        if plan is not None and not (begin <= plan.after.offset and plan.first.offset < end):
            plan = None  # of records that are gone
        if committed is None or committed > end:  # it never was here, or the topic was made anew
            if committed is not None:
                what = "[exports.%s] partition %d ends at %d, before its position %d: read anew"
                logger.error(what, name, partition, end, committed)
            begins = self._target.now.begin == "beginning" or committed is not None
            committed = begin if begins or plan is not None else end
            await work.commit(partition, committed)  # by the next time the end is elsewhere
        if committed < begin:
            what = (
                "[exports.%s] retention took records %d to %d of partition %d before they were read"
            )
            logger.error(what, name, committed, begin - 1, partition)
        at = Place(max(committed, begin), 0)
        if plan is not None:
            self._plan = plan if plan.first >= at else None
            at = max(at, plan.after)
        self._from, self._at, self._committed = at, at.offset, committed
        self._begun = True

    async def _taken(self) -> list[Event]:
        """The rows of the plan, as they were; what retention took since is left out."""
        events: list[Event] = []
        for offset, rows in self._plan.rows if self._plan else ():
            slice_ = await self._work.reader.read(
                ENRICHED, self._partition, offset, records_max=1, bytes_max=_READ_BYTES
            )
            if slice_.records and slice_.records[0].offset == offset:
                _, table = rows_of(slice_.records[0], self._work.columns)
                there = [row for row in rows if 0 <= row < table.num_rows]
                events += events_of(offset, table, there, self._work.names)
        return events

    async def _planned(self, batch: Sequence[Event]) -> None:
        places = (event.place for event in batch)
        await self._work.plans.write(Plan.of(self._target.now.name, self._partition, places))

    # -- gathering

    async def _gathered(self) -> bool:
        """Read on; True when a batch is due."""
        now = self._target.now
        full = len(self._ready) >= now.batch_size or self._ready_bytes >= BODY_BYTES_MAX
        left_ms = _LOOK_MS
        if self._ready:
            waited_ms = (self._work.clock.monotonic_s() - self._since_s) * 1000
            left_ms = min(int(now.interval_ms - waited_ms), _LOOK_MS)
        if full or (self._ready and left_ms <= 0):
            return True
        await self._log(lambda: self._read(left_ms))
        if not self._ready:
            await self._idle()
        return False

    async def _read(self, wait_ms: int) -> None:
        work = self._work
        slice_ = await work.reader.read(
            ENRICHED,
            self._partition,
            self._at,
            records_max=_READ_RECORDS,
            bytes_max=_READ_BYTES,
            wait_ms_max=wait_ms,
        )
        for record in slice_.records:
            cover, events, bad, changes = await asyncio.to_thread(self._matching, record)
            if work.reconfigure is not None:
                for change in changes:
                    await work.reconfigure(change)
            for event, error in bad:
                posted = message(self._target.now, [event])
                if not await work.courier.bury(posted, error.code, error.message, 1, self._goes_on):
                    return
            if events and not self._ready:
                self._since_s = work.clock.monotonic_s()
            self._ready.extend(events)
            self._ready_bytes += sum(len(event.value) for event in events)
            self._seen.add(cover.first, cover.next)
            self._at = record.offset + 1
        self._at = max(self._at, slice_.range.next)

    def _matching(self, record: RecordLike) -> _Matched:
        """In a thread: what of a record is to be posted, and what cannot be told of."""
        cover, rows = rows_of(record, self._work.columns)
        if not rows.num_rows:
            return _Matched(cover, [], [], [])
        repeated = self._seen.mask(rows.column("source_offset").to_numpy())
        first_row = self._from.row if record.offset == self._from.offset else 0
        found, bad = self._condition.matching(rows)

        def events(picked: Iterable[int]) -> list[Event]:
            wanted = [row for row in picked if row >= first_row and not repeated[row]]
            return events_of(record.offset, rows, wanted, self._work.names) if wanted else []

        cannot_tell = [(event, error) for row, error in bad for event in events([row])]
        return _Matched(cover, events(found), cannot_tell, list(_changes(rows)))

    async def _idle(self) -> None:
        if self._work.clock.monotonic_s() - self._committed_s >= _IDLE_COMMIT_S:
            await self._log(self._commit)

    def _batch(self) -> list[Event]:
        """What fits into one message, one at least."""
        batch: list[Event] = []
        size = 0
        for event in islice(self._ready, self._target.now.batch_size):
            size += len(event.value)
            if batch and size > BODY_BYTES_MAX:
                break
            batch.append(event)
        return batch

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._ready_bytes -= len(self._ready.popleft().value)
        self._since_s = self._work.clock.monotonic_s()

    async def _commit(self) -> None:
        offset = self._ready[0].place.offset if self._ready else self._at
        if offset > self._committed:
            await self._work.commit(self._partition, offset)
            self._committed = offset
        self._committed_s = self._work.clock.monotonic_s()


def _changes(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """What events say that change an export.

    Whoever may sign a webhook names its type, and must not change anything by that.
    """
    kinds = rows.column("type")
    if not pc.any(pc.equal(kinds, CONFIG_TYPE)).as_py():
        return
    chosen = rows.filter(pc.equal(kinds, CONFIG_TYPE)).select(["source", "payload"])
    for row in chosen.to_pylist():
        if not row["source"].startswith("/webhooks/"):
            yield msgspec.json.decode(row["payload"], type=dict[str, Any])
