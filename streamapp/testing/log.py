"""A log in memory: the contract of :mod:`streamapp.transport.clients`, nothing on disk.

The log itself is plain and synchronous, which suits tests; ``producer()``, ``reader()`` and
``admin()`` are its clients, for code that wants those.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count, dropwhile
from threading import RLock

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.transport.clients import Address, Cluster, Copies, Outgoing, TopicSpec
from streamapp.transport.local.log import NAME, PARTITIONS_MAX, RECORD_BYTES_MAX
from streamapp.transport.routing import (
    check_deletable,
    checked_spec,
    no_offset,
    no_partition,
    routed,
    size_of,
)

#: What all topics of a log hold at most; a fuller one raises Retry, as one on a full disk does.
BYTES_MAX = 256 << 20


class _Partition:
    """Records in offset order; offsets never restart, whatever is dropped."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.next = 0
        self.bytes = 0

    def append(self, record: Outgoing, now_ms: int) -> int:
        """Keep a record under the next offset, which is returned."""
        offset = self.next
        timestamp = now_ms if record.timestamp_ms is None else record.timestamp_ms
        headers = tuple((name, value) for name, value in record.headers)
        self.records.append(Record(offset, timestamp, record.key, record.value, headers))
        self.next += 1
        self.bytes += size_of(record)
        return offset

    def from_offset(self, offset: int) -> Iterator[Record]:
        """The records at or after an offset."""
        start = bisect_left(self.records, offset, key=lambda record: record.offset)
        return (self.records[at] for at in range(start, len(self.records)))

    def keep(self, records: Iterable[Record]) -> None:
        """Drop all but these."""
        self.records = list(records)
        self.bytes = sum(map(_size, self.records))


class MemoryLog:
    """Topics and their records, for one process; any thread may use it.

    Args:
        clock: stamps records that bring no time of their own, and says how old they are.
        bytes_max: keys, values and headers that all topics hold together.
    """

    def __init__(self, *, clock: Clock = SYSTEM, bytes_max: int = BYTES_MAX) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._specs: dict[str, TopicSpec] = {}
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._committed: dict[str, dict[tuple[str, int], int]] = {}
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._turn = count()
        self._lock = RLock()

    def producer(self) -> "MemoryProducer":
        """A client that appends."""
        return MemoryProducer(self)

    def reader(self) -> "MemoryReader":
        """A client that reads."""
        return MemoryReader(self)

    def admin(self) -> "MemoryAdmin":
        """A client for topics and groups."""
        return MemoryAdmin(self)

    def create(self, spec: TopicSpec) -> bool:
        """Create a topic; False when it exists.

        Raises:
            Refuse: a name, number of partitions or record size that cannot be, or it exists with
            another number of partitions.
        """
        with self._lock:
            existing = self._specs.get(spec.name)
            if existing is None:
                _check_spec(spec)
                self._specs[spec.name] = spec
                for partition in range(spec.partitions):
                    self._partitions[spec.name, partition] = _Partition()
                return True
        checked_spec(existing, spec)
        return False

    def topics(self) -> dict[str, TopicSpec]:
        """All topics by name."""
        return dict(self._specs)

    def append(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        """Append all records or none; their addresses in the order given.

        Raises:
            Refuse: unknown topic or partition.
            Reject: a record larger than the topic takes.
            Retry: the log is full.
        """
        with self._lock:
            spec = self._spec(topic)
            places, sizes = routed(spec, records, next(self._turn) % spec.partitions)
            self._check_room(sum(sizes))
            now_ms = self._clock.now_us() // 1_000
            addresses = [
                Address(topic, place, self._partitions[topic, place].append(record, now_ms))
                for place, record in zip(places, records, strict=True)
            ]
            for news, loop in self._waiting.items():
                loop.call_soon_threadsafe(news.set)
        return addresses

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        records_max: int = 4096,
        bytes_max: int = 8 << 20,
    ) -> Slice:
        """The records at or after ``offset``; at least one where there is one.

        Raises:
            Refuse: unknown topic or partition, or a number that cannot be.
        """
        if offset < 0 or records_max < 1:
            raise Refuse("read.arguments", f"cannot read {records_max} records at offset {offset}")
        records: list[Record] = []
        size = 0
        with self._lock:
            held = self._partition(topic, partition)
            for record in held.from_offset(offset):
                records.append(record)
                size += len(record.value or b"") + len(record.key or b"")
                if len(records) == records_max or size >= bytes_max:
                    break
            next_ = records[-1].offset + 1 if records else max(offset, held.next)
        return Slice(OffsetRange(topic, partition, offset, next_), records)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset still kept, and one past the last; equal when there is no record."""
        with self._lock:
            held = self._partition(topic, partition)
            return (held.records[0].offset if held.records else held.next), held.next

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Drop the records of partitions that lie before these offsets.

        Raises:
            Refuse: unknown topic or partition, an offset past the end, or the topic is compacted.
        """
        with self._lock:
            for partition, offset in before.items():
                held = self._partition(topic, partition)
                check_deletable(self._specs[topic])
                if not 0 <= offset <= held.next:
                    raise no_offset(self._specs[topic], partition, offset)
            for partition, offset in before.items():
                held = self._partitions[topic, partition]
                held.keep(held.from_offset(offset))

    def trim(self) -> None:
        """Drop what retention and compaction no longer keep; other logs do so now and then."""
        with self._lock:
            for spec in self._specs.values():
                parts = [self._partitions[spec.name, p] for p in range(spec.partitions)]
                _trim(spec, parts, self._clock.now_us() // 1_000)

    def commit(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """What a consumer group would commit."""
        with self._lock:
            self._committed.setdefault(group, {}).update(positions)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """What the group committed; empty for an unknown one."""
        return dict(self._committed.get(group, {}))

    def groups(self) -> list[str]:
        """Every group that committed, by name."""
        return sorted(self._committed)

    def bytes_kept(self, topic: str) -> int:
        """Bytes of keys, values and headers in a topic."""
        spec = self._spec(topic)
        return sum(self._partitions[topic, p].bytes for p in range(spec.partitions))

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever something was appended."""
        news = asyncio.Event()
        with self._lock:
            self._waiting[news] = asyncio.get_running_loop()
        try:
            yield news
        finally:
            with self._lock:
                del self._waiting[news]

    def _spec(self, topic: str) -> TopicSpec:
        if topic not in self._specs:
            known = ", ".join(sorted(self._specs)) or "none"
            raise Refuse(
                "topic.unknown", f"no topic is called {topic!r}", f"create it; there are: {known}"
            )
        return self._specs[topic]

    def _partition(self, topic: str, partition: int) -> _Partition:
        spec = self._spec(topic)
        if not 0 <= partition < spec.partitions:
            raise no_partition(spec, partition)
        return self._partitions[topic, partition]

    def _check_room(self, size: int) -> None:
        held = sum(part.bytes for part in self._partitions.values())
        if held + size > self._bytes_max:
            raise Retry(
                "log.full",
                f"the log holds {held} bytes and takes {self._bytes_max}, not {size} more",
                "give MemoryLog a larger bytes_max, or trim()",
            )


class _Client:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._open = False

    async def start(self) -> None:
        self._open = True

    async def stop(self) -> None:
        self._open = False

    async def _opened(self) -> MemoryLog:
        """The log, after others had their turn, as they have while another log does its work."""
        if not self._open:
            raise Halt("log.closed", "the log's client is not open", "start() it first")
        await asyncio.sleep(0)
        return self._log


class MemoryProducer(_Client):
    """Appends; what is appended is there."""

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        return (await self._opened()).append(topic, records) if records else []


class MemoryReader(_Client):
    """Reads ranges; a wait is by the event loop's time, not by the log's clock."""

    async def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        records_max: int = 4096,
        bytes_max: int = 8 << 20,
        wait_ms_max: int = 0,
    ) -> Slice:
        log = await self._opened()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_ms_max / 1000
        with log.listening() as news:
            while True:
                news.clear()
                found = log.read(
                    topic, partition, offset, records_max=records_max, bytes_max=bytes_max
                )
                left_s = deadline_s - loop.time()
                if found.records or left_s <= 0:
                    return found
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), left_s)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return (await self._opened()).bounds(topic, partition)


class MemoryAdmin(_Client):
    """Topics and groups."""

    async def topics(self) -> Mapping[str, TopicSpec]:
        return (await self._opened()).topics()

    async def create(self, spec: TopicSpec) -> bool:
        return (await self._opened()).create(spec)

    async def committed(self, group: str) -> Mapping[tuple[str, int], int]:
        return (await self._opened()).committed(group)

    async def groups(self) -> list[str]:
        return (await self._opened()).groups()

    async def bytes_kept(self, topic: str) -> int | None:
        return (await self._opened()).bytes_kept(topic)

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        (await self._opened()).delete_records(topic, before)

    async def cluster(self) -> Cluster:
        return Cluster("memory", (0,), 0)

    async def copies(self, topics: Collection[str]) -> Mapping[str, list[Copies]]:
        return {
            name: [Copies(partition, 0, (0,), (0,)) for partition in range(spec.partitions)]
            for name, spec in (await self._opened()).topics().items()
            if name in topics
        }


def _check_spec(spec: TopicSpec) -> None:
    problem = ""
    if not NAME.fullmatch(spec.name) or spec.name in {".", ".."}:
        problem = f"not a topic name: {spec.name[:300]!r}; use 1 to 249 of A-Z a-z 0-9 . _ -"
    elif not 1 <= spec.partitions <= PARTITIONS_MAX:
        problem = f"{spec.partitions} partitions; use 1 to {PARTITIONS_MAX}"
    elif not 1 <= spec.record_bytes_max <= RECORD_BYTES_MAX:
        problem = f"records of {spec.record_bytes_max} bytes; use 1 to {RECORD_BYTES_MAX}"
    if problem:
        what, _, fix = problem.partition("; ")
        raise Refuse("topic.declaration", f"topic {spec.name[:300]!r} cannot be: {what}", fix)


def _size(record: Record) -> int:
    return size_of(Outgoing(record.value, record.key, record.headers))


def _trim(spec: TopicSpec, parts: Sequence[_Partition], now_ms: int) -> None:
    for part in parts:
        if spec.retention_ms is not None:
            kept_from_ms = now_ms - spec.retention_ms
            part.keep(dropwhile(lambda record: record.timestamp < kept_from_ms, part.records))  # noqa: B023  # used at once
        if spec.compacted:
            newest = {record.key: record.offset for record in part.records}
            part.keep(
                record
                for record in part.records
                if record.key is None or newest[record.key] == record.offset
            )
    if spec.retention_bytes is not None:
        while sum(part.bytes for part in parts) > spec.retention_bytes:
            largest = max(parts, key=lambda part: part.bytes)
            largest.keep(largest.records[1:])
