"""Producer, Reader and Admin of the local log (see :mod:`streamapp.transport.clients`)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import cast

from streamapp.core.clock import monotonic_s, now_ms
from streamapp.core.errors import Refuse, Reject
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Slice
from streamapp.transport.clients import Address, Outgoing, TopicSpec
from streamapp.transport.local.engine import LocalLog, Wanted, folder_of
from streamapp.transport.local.log import Row, pack_headers
from streamapp.transport.local.wake import LOOK_EVERY_S, heard_within


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    from aiokafka.partitioner import murmur2  # late: it loads all of aiokafka

    return cast("int", murmur2(key)) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner gives to a key."""
    return _hash(key) % partitions if partitions > 1 else 0


def size_of(record: Outgoing) -> int:
    """Bytes of key, value and headers: what ``record_bytes_max`` limits."""
    return (
        len(record.value or b"")
        + len(record.key or b"")
        + sum(len(name) + len(value) for name, value in record.headers)
    )


def rows_of(spec: TopicSpec, records: Sequence[Outgoing], keyless: int) -> list[Row]:
    """Records ready to append; those without key and partition go to partition ``keyless``.

    Raises:
        Refuse: a partition that the topic does not have.
        Reject: a record that is too large.
    """
    now = now_ms()
    rows = []
    for record in records:
        partition = record.partition
        if partition is None:
            key = record.key
            partition = keyless if key is None else partition_of(key, spec.partitions)
        elif not 0 <= partition < spec.partitions:
            raise Refuse(
                "topic.partition",
                f"topic {spec.name!r} has partitions 0 to {spec.partitions - 1}, not {partition}",
            )
        size = size_of(record)
        if size > spec.record_bytes_max:
            raise Reject(
                "record.too_large",
                f"a record of {size} bytes is more than topic {spec.name!r} takes:"
                f" {spec.record_bytes_max}",
                "make it smaller or raise the topic's record_bytes_max",
            )
        timestamp = now if record.timestamp_ms is None else record.timestamp_ms
        headers = pack_headers(record.headers)
        rows.append(Row(partition, timestamp, record.key, record.value, headers))
    return rows


class _Client:
    def __init__(self, url: str) -> None:
        self._log = LocalLog(folder_of(url))

    async def start(self) -> None:
        await self._log.start()

    async def stop(self) -> None:
        await self._log.stop()


class LocalProducer(_Client):
    """Appends; concurrent calls share commits."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._turn = count()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        if not records:
            return []
        spec = self._log.require(topic)
        rows = rows_of(spec, records, keyless=next(self._turn) % spec.partitions)
        offsets = await self._log.append(topic, rows)
        return [
            Address(topic, row.partition, offset) for row, offset in zip(rows, offsets, strict=True)
        ]


class LocalReader(_Client):
    """Reads ranges."""

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
        self._log.require(topic, partition)
        if offset < 0 or records_max < 1:
            raise Refuse("read.arguments", f"cannot read {records_max} records at offset {offset}")
        wanted = [Wanted(topic, partition, offset, records_max, bytes_max)]
        deadline = monotonic_s() + wait_ms_max / 1000
        with self._log.listening([topic]) as news:
            while True:
                news.clear()
                fetched = await self._log.fetch(wanted)
                records = fetched.records.get((topic, partition), [])
                left_s = deadline - monotonic_s()
                if records or left_s <= 0:
                    break
                await heard_within(news, min(left_s, LOOK_EVERY_S))
        next_ = records[-1].offset + 1 if records else offset
        return Slice(OffsetRange(topic, partition, offset, next_), records)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        self._log.require(topic, partition)
        return await self._log.bounds(topic, partition)


class LocalAdmin(_Client):
    """Topics and groups."""

    async def topics(self) -> Mapping[str, TopicSpec]:
        return self._log.topics()

    async def create(self, spec: TopicSpec) -> bool:
        made = await self._log.create(spec)
        existing = self._log.require(spec.name)
        if existing.partitions != spec.partitions:
            raise Refuse(
                "topic.partitions",
                f"topic {spec.name!r} has {existing.partitions} partitions, not {spec.partitions}",
                "partition counts never change in place; use the number it has, or another name",
            )
        return made

    async def committed(self, group: str) -> Mapping[tuple[str, int], int]:
        return await self._log.committed(group)
