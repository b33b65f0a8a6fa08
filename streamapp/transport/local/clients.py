"""Producer, Reader and Admin of the local log (see :mod:`streamapp.transport.clients`)."""

from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from itertools import count

from streamapp.core.clock import monotonic_s, now_ms
from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Slice
from streamapp.transport.bundle import Bundle
from streamapp.transport.clients import Address, Cluster, Copies, Outgoing, TopicSpec
from streamapp.transport.gather import Fetched
from streamapp.transport.kafka.departing import partitions_of
from streamapp.transport.local.engine import LocalLog, Wanted, folder_of
from streamapp.transport.local.rows import BundledRows, Row, Rows, pack_headers
from streamapp.transport.local.wake import LOOK_EVERY_S, heard_within
from streamapp.transport.routing import checked_spec, routed


def rows_of(spec: TopicSpec, records: Sequence[Outgoing], keyless: int) -> list[Row]:
    """Records as rows; those without key and partition go to partition ``keyless``.

    Raises:
        Refuse, Reject: as :func:`route`.
    """
    now = now_ms()
    partitions, _ = routed(spec, records, keyless)
    return [
        Row(
            partition,
            now if timestamp is None else timestamp,
            key,
            value,
            pack_headers(headers) if headers else None,
        )
        for partition, (value, key, headers, _, timestamp) in zip(partitions, records, strict=True)
    ]


def _ready(spec: TopicSpec, records: Sequence[Outgoing], keyless: int) -> Rows | BundledRows:
    """Records ready to append; see :func:`rows_of`, which also says what is wrong with one."""
    if isinstance(records, Bundle) and int(records.sizes().max()) <= spec.record_bytes_max:
        return BundledRows(records, partitions_of(records, spec.partitions, keyless), now_ms())
    return Rows(rows_of(spec, records, keyless))


class LocalClient:
    """One open log."""

    def __init__(self, url: str) -> None:
        self._log = LocalLog(folder_of(url))

    async def start(self) -> None:
        await self._log.start()

    async def stop(self) -> None:
        await self._log.stop()


class LocalProducer(LocalClient):
    """Appends; concurrent calls share commits."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._turn = count()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        if not records:
            return []
        spec = self._log.require(topic)
        rows = _ready(spec, records, keyless=next(self._turn) % spec.partitions)
        offsets = await self._log.append(topic, rows)
        return [
            Address(topic, partition, offset)
            for partition, offset in zip(rows.partitions, offsets, strict=True)
        ]


class LocalReader(LocalClient):
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
        nothing = Fetched(offset, (), offset, 0)
        deadline = monotonic_s() + wait_ms_max / 1000
        with self._log.listening([topic]) as news:
            while True:
                news.clear()
                (piece,) = (await self._log.fetch(wanted)).pieces.values() or [nothing]
                left_s = deadline - monotonic_s()
                if piece.records or left_s <= 0:
                    break
                await heard_within(news, min(left_s, LOOK_EVERY_S))
        return Slice(OffsetRange(topic, partition, offset, piece.next), piece.records)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        self._log.require(topic, partition)
        return await self._log.bounds(topic, partition)


class LocalAdmin(LocalClient):
    """Topics and groups."""

    async def topics(self) -> Mapping[str, TopicSpec]:
        return self._log.topics()

    async def create(self, spec: TopicSpec) -> bool:
        made = await self._log.create(spec)
        checked_spec(self._log.require(spec.name), spec)
        return made

    async def committed(self, group: str) -> Mapping[tuple[str, int], int]:
        return await self._log.committed(group)

    async def groups(self) -> list[str]:
        return await self._log.groups()

    async def bytes_kept(self, topic: str) -> int:
        return await self._log.bytes_kept(topic)

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        await self._log.delete_records(topic, before)

    async def cluster(self) -> Cluster:
        """One broker, and an id that says where the log is only to who knows it."""
        digest = sha256(str(self._log.folder.resolve()).encode()).digest()
        return Cluster(urlsafe_b64encode(digest)[:22].decode(), (0,), 0)

    async def copies(self, topics: Collection[str]) -> Mapping[str, list[Copies]]:
        specs = [spec for topic in topics if (spec := self._log.spec(topic)) is not None]
        return {
            spec.name: [Copies(partition, 0, (0,), (0,)) for partition in range(spec.partitions)]
            for spec in specs
        }
