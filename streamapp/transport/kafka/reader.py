"""Reader of a Kafka cluster (see :mod:`streamapp.transport.clients`).

It reads uncommitted, as Faust does: a record of an open or aborted transaction is a record, and
the end of a partition is its high watermark.
"""

import asyncio
from typing import NamedTuple

from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.transport.kafka.arrived import Arrived
from streamapp.transport.kafka.connection import Connection
from streamapp.transport.kafka.topics import Topics
from streamapp.transport.security import Security

_READ_UNCOMMITTED = 0
_BEGIN, _END = -2, -1
#: A broker is asked to wait so long at most, so that a reader that stops does not wait for it.
_WAIT_MS_MAX = 500
#: Fetched per record that is wanted, so that one record does not cost megabytes.
_BYTES_PER_RECORD = 4096


class _NothingFetchedError(KafkaError):
    """A broker that says that there is more, and does not give it."""

    retriable = True


class _Fetched(NamedTuple):
    records: list[Record]
    next: int
    end: int


class KafkaReader:
    """Reads ranges; ``url`` and ``security`` as of the admin."""

    def __init__(self, url: str, security: Security | None = None) -> None:
        self._connection = Connection(url, security)
        self._topics = Topics(self._connection)

    async def start(self) -> None:
        await self._connection.start()

    async def stop(self) -> None:
        await self._connection.stop()

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
        """As the protocol says.

        ``range.next`` also covers transaction markers and what compaction removed, as far as the
        fetch saw.
        """
        if offset < 0 or records_max < 1:
            raise Refuse(
                "read.arguments",
                f"cannot read {records_max} records at offset {offset}",
                "give an offset of 0 or more and 1 record or more",
            )
        await self._topics.require(topic, partition)
        deadline, at = monotonic_s() + wait_ms_max / 1000, offset
        while True:
            left_ms = max(int((deadline - monotonic_s()) * 1000), 0)
            fetched = await self._persist(
                topic, partition, at, records_max, bytes_max, min(left_ms, _WAIT_MS_MAX)
            )
            at = fetched.next
            # Without records go on as long as there is something to skip, then as long as we may.
            if fetched.records or (left_ms == 0 and at >= fetched.end):
                return Slice(OffsetRange(topic, partition, offset, at), fetched.records)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        await self._topics.require(topic, partition)
        begin, end = await self._connection.persist(
            lambda: self._bounds(topic, partition), f"the ends of {topic!r} [{partition}]"
        )
        return begin, end

    async def _persist(
        self, topic: str, partition: int, at: int, records_max: int, bytes_max: int, wait_ms: int
    ) -> _Fetched:
        """One fetch, tried again; where the offset is outside, what is inside."""

        async def attempt() -> _Fetched:
            try:
                return await self._fetch(topic, partition, at, records_max, bytes_max, wait_ms)
            except OffsetOutOfRangeError:
                begin, end = await self._bounds(topic, partition)
                if at < begin:  # retention took what was there
                    return _Fetched([], begin, end)
                await asyncio.sleep(wait_ms / 1000)
                return _Fetched([], at, end)

        return await self._connection.persist(attempt, f"records of {topic!r} [{partition}]")

    async def _fetch(
        self, topic: str, partition: int, at: int, records_max: int, bytes_max: int, wait_ms: int
    ) -> _Fetched:
        size = min(bytes_max, records_max * _BYTES_PER_RECORD)
        wanted = [(topic, [(partition, at, size)])]
        request = FetchRequest(wait_ms, 1, size, _READ_UNCOMMITTED, wanted)
        answer = await self._connection.ask_leader(
            topic, partition, request, group=("read", topic, partition)
        )
        for _, partitions in answer.topics:
            for _, code, end, *_, data in partitions:
                error = for_code(code)
                if error.errno:
                    raise error(topic)
                piece = Arrived(data or b"", at, check_crcs=True).take(records_max, bytes_max)
                records = [
                    Record(r.offset, r.timestamp, r.key, r.value, r.headers) for r in piece.records
                ]
                if piece.next > at or at >= end:
                    return _Fetched(records, piece.next, end)
        raise _NothingFetchedError(f"{topic}-{partition} has more from {at} on, and did not come")

    async def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        begin, end = [await self._edge(topic, partition, edge) for edge in (_BEGIN, _END)]
        return begin, end

    async def _edge(self, topic: str, partition: int, edge: int) -> int:
        request = OffsetRequest(-1, _READ_UNCOMMITTED, [(topic, [(partition, edge)])])
        answer = await self._connection.ask_leader(topic, partition, request)
        ((_, ((_, code, _, offset),)),) = answer.topics
        error = for_code(code)
        if error.errno:
            raise error(topic)
        return int(offset)
