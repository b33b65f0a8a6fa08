"""Slices for an agent on a transport that delivers records singly, as Faust's ``kafka://`` does.

What has arrived together is joined into one Slice per partition, without waiting for more.  Faust
starts at what the group committed, which may lie behind the agent's own position or, through
Faust's bookkeeping, past it.  What lies behind is cut off by the agent; what was passed over is
read from the log, so that the Slices of a partition have no hole.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from streamapp.agents.outcome import persist
from streamapp.agents.typed import SliceEvent, SliceMessage
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.transport.clients import Reader

#: A (topic, partition).
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one Slice: records, and bytes of their keys and values."""

    events_max: int
    bytes_max: int


@dataclass(slots=True)
class _Delivery:
    """Stands for the Faust message of a Slice that was read from the log."""

    generation_id: int


@dataclass(slots=True)
class JoinedEvent:
    """Many Faust events as one: its value is a Slice, acknowledging it acknowledges all."""

    value: Slice
    message: SliceMessage
    parts: tuple[Any, ...] = ()

    def ack(self) -> bool:
        """True when every part is done with its last reader."""
        acked = [part.ack() for part in self.parts]
        return all(acked)


class JoinedStream:
    """A stream of records as a stream of Slices; one that brings Slices is passed through.

    Args:
        stream: Faust's.
        positions: asked, once per partition and generation, where the agent stands.
        reader: reads what Faust passed over; started by ``positions``.
        generation: the consumer group's current generation.
        limits: of one Slice.
        metrics: of this process.
    """

    def __init__(
        self,
        stream: Any,
        positions: Callable[[Iterable[Any]], Awaitable[Mapping[Any, int]]],
        reader: Reader,
        generation: Callable[[], int],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._stream = stream
        self._positions = positions
        self._reader = reader
        self._generation = generation
        self._limits = limits
        self._metrics = metrics
        self._next: dict[Key, tuple[int, int]] = {}  # generation, offset
        self._stopping = False

    def stop(self) -> None:
        """Deliver nothing more; what is waiting stays unacknowledged."""
        self._stopping = True

    def noack(self) -> "JoinedStream":
        """This stream: nothing is ever acknowledged but by the agent."""
        return self

    async def events(self) -> AsyncIterator[SliceEvent]:
        """One event per Slice; a partition's in offset order and without a hole."""
        queue: asyncio.Queue[Any] = asyncio.Queue(self._limits.events_max)
        pump = asyncio.create_task(self._pump(queue))
        try:
            while (event := await queue.get()) is not None:
                if self._stopping:
                    return
                if isinstance(event.value, Slice):
                    yield event
                    continue
                for key, events in _by_partition(self._arrived(event, queue)).items():
                    async for joined in self._joined(key, events):
                        yield joined
            await pump
        finally:
            pump.cancel()

    async def _pump(self, queue: asyncio.Queue[Any]) -> None:
        try:
            async for event in self._stream.noack().events():
                await queue.put(event)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    def _arrived(self, first: Any, queue: asyncio.Queue[Any]) -> list[Any]:
        """What is here now and still ours, the first event included."""
        generation, events, size, event = self._generation(), [], 0, first
        while True:
            if event.message.generation_id == generation:
                events.append(event)
                size += len(event.message.value or b"") + len(event.message.key or b"")
            if queue.empty() or len(events) >= self._limits.events_max:
                return events
            if size >= self._limits.bytes_max:
                return events
            event = queue.get_nowait()
            if event is None:
                queue.put_nowait(None)
                return events

    async def _joined(self, key: Key, events: list[Any]) -> AsyncIterator[JoinedEvent]:
        """The events as Slices; where Faust passed records over, these come first."""
        generation = events[0].message.generation_id
        next_ = await self._position(key, generation)
        first, run = next_, list[Any]()
        for event in events:
            offset = event.message.offset
            if offset != next_ and run:
                yield _joined_event(key, first, run)
                first, run = next_, []
            if offset < next_:  # Faust went back to what the group committed
                first = offset
            elif offset > next_:
                async for slice_ in self._passed_over(key, next_, offset):
                    yield JoinedEvent(slice_, _Delivery(generation))
                    first = slice_.range.next
            run.append(event)
            next_ = offset + 1
        yield _joined_event(key, first, run)
        self._next[key] = generation, next_

    async def _position(self, key: Key, generation: int) -> int:
        known = self._next.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        positions = await self._positions([key])
        return positions[key]

    async def _passed_over(self, key: Key, at: int, end: int) -> AsyncIterator[Slice]:
        """The records from ``at`` to before ``end`` that the log has; often none."""
        while at < end:
            read = await persist("read", partial(self._read, key, at), self._metrics)
            assert read is not None  # noqa: S101  # persist without still_ours always returns
            records = [record for record in read.records if record.offset < end]
            if not records:
                return
            last = records[-1].offset + 1
            yield Slice(OffsetRange(*key, at, last), records)
            at = last

    async def _read(self, key: Key, at: int) -> Slice:
        begin, _ = await self._reader.bounds(*key)  # retention may have taken what follows ``at``
        return await self._reader.read(
            *key,
            max(at, begin),
            records_max=self._limits.events_max,
            bytes_max=self._limits.bytes_max,
        )


def _by_partition(events: list[Any]) -> dict[Key, list[Any]]:
    found: dict[Key, list[Any]] = {}
    for event in events:
        found.setdefault((event.message.topic, event.message.partition), []).append(event)
    return found


def _joined_event(key: Key, first: int, events: list[Any]) -> JoinedEvent:
    records = tuple(_record(event.message) for event in events)
    range_ = OffsetRange(*key, first, records[-1].offset + 1)
    return JoinedEvent(Slice(range_, records), events[0].message, tuple(events))


def _record(message: Any) -> Record:
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    timestamp_ms = round((message.timestamp or 0) * 1000)
    return Record(message.offset, timestamp_ms, message.key, message.value, tuple(pairs))
