"""Producer of a Kafka cluster (see :mod:`streamapp.transport.clients`).

One lane per partition: calls that come while a batch is on its way go together in the next one, so
a single record leaves at once and a thousand callers share a request.  Batches are idempotent and
acknowledged by all replicas in sync; the broker recognises a batch that is tried again.

Values are not compressed: ours are Arrow with LZ4 inside, and for JSON of 1 KB LZ4 costs 15 times
what the rest of a record costs here.  A topic's ``compression.type`` has the broker do it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np

from streamapp.core.errors import Halt, Reject
from streamapp.transport.bundle import Bundle
from streamapp.transport.clients import Address, Outgoing, TopicSpec
from streamapp.transport.kafka.connection import Connection
from streamapp.transport.kafka.departing import partitions_of
from streamapp.transport.kafka.lane import Lane, Piece
from streamapp.transport.kafka.topics import Topics
from streamapp.transport.routing import route, routed
from streamapp.transport.security import Security

#: Bytes accepted and not acknowledged; whoever sends more waits.
IN_FLIGHT_BYTES_MAX = 64 << 20
#: What one record costs besides its bytes, in that sum.
_RECORD_BYTES = 100


class KafkaProducer:
    """Appends; ``url`` and ``security`` as of the admin."""

    def __init__(self, url: str, security: Security | None = None) -> None:
        self._connection = Connection(url, security)
        self._topics = Topics(self._connection)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._turn = count()
        self._room = _Room(IN_FLIGHT_BYTES_MAX)
        self._calls = 0
        self._new_future: Callable[[], asyncio.Future[int]]  # of the loop that it is started in
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = False

    async def start(self) -> None:
        await self._connection.start()
        self._new_future = asyncio.get_running_loop().create_future
        self._open = True

    async def stop(self) -> None:
        self._open = False
        try:
            await self._idle.wait()
            for lane in self._lanes.values():  # of callers that did not wait to the end
                await lane.finished()
        finally:  # whoever stops us may have no time to wait
            for lane in self._lanes.values():
                lane.abandon()
            await self._connection.stop()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        if not self._open:
            raise Halt(
                "log.closed", f"{self._connection.url} is not open", "start the client first"
            )
        self._calls += 1
        self._idle.clear()
        try:
            if len(records) == 1 and (spec := self._topics.known(topic)) is not None:
                return [await self._send_one(spec, records[0])]
            return await self._send(topic, records) if records else []
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        spec = await self._topics.require(topic)
        keyless = next(self._turn)
        try:
            partitions, sizes = _checked(spec, records, keyless)
        except Reject:
            newer = await self._topics.refreshed(topic)
            if newer is None:
                raise
            partitions, sizes = _checked(newer, records, keyless)
        await self._room.take(sum(sizes))
        pieces: list[tuple[int, Piece]] = []
        for partition, its_records, its_sizes in _by_partition(records, partitions, sizes):
            lane = self._lane(spec, partition)
            for piece in lane.cut(its_records, its_sizes):
                lane.append(piece)
                pieces.append((partition, piece))
        if len(pieces) > 1:  # nobody hears of one while another is on its way
            await asyncio.wait([piece.offset for _, piece in pieces])
        found: dict[int, list[int]] = {}
        try:
            for partition, piece in pieces:
                first = await piece.offset
                found.setdefault(partition, []).extend(range(first, first + len(piece.records)))
        except Exception:
            self._topics.forget(topic)  # it may have been made anew
            raise
        following = {partition: iter(offsets) for partition, offsets in found.items()}
        return [Address(topic, partition, next(following[partition])) for partition in partitions]

    async def _send_one(self, spec: TopicSpec, record: Outgoing) -> Address:
        """As :meth:`_send`, with less to do for it."""
        topic, keyless = spec.name, next(self._turn) % spec.partitions
        try:
            partition, size = route(spec, record, keyless)
            _require_key(spec, record)
        except Reject:
            return (await self._send(topic, [record]))[0]
        size += _RECORD_BYTES
        if not self._room.takes(size):
            await self._room.take(size)
        piece = Piece([record], size, self._new_future())
        self._lane(spec, partition).append(piece)
        try:
            return Address(topic, partition, await piece.offset)
        except Exception:
            self._topics.forget(topic)  # it may have been made anew
            raise

    def _lane(self, spec: TopicSpec, partition: int) -> Lane:
        key = spec.name, partition
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._connection, *key, self._room.give)
        lane.record_bytes_max = spec.record_bytes_max
        return lane


def _checked(
    spec: TopicSpec, records: Sequence[Outgoing], turn: int
) -> tuple[list[int], list[int]]:
    """Partitions of the records, and the bytes that each is counted with."""
    keyless = turn % spec.partitions
    found = None
    if not isinstance(records, list) and isinstance(records, Bundle):  # the first is fast to tell
        found = _routed(spec, records, keyless)
    partitions, sizes = found or routed(spec, records, keyless)
    for record in records if spec.compacted else ():
        _require_key(spec, record)
    return partitions, [size + _RECORD_BYTES for size in sizes]


def _require_key(spec: TopicSpec, record: Outgoing) -> None:
    if spec.compacted and record.key is None:
        raise Reject(
            "record.key",
            f"topic {spec.name!r} is compacted, and a record for it has no key",
            "give it the key that later records replace it by",
        )


def _routed(spec: TopicSpec, bundle: Bundle, keyless: int) -> tuple[list[int], list[int]] | None:
    """As ``routing.routed``; None when a record may be too large, which is said there."""
    sizes = bundle.sizes()
    if int(sizes.max()) > spec.record_bytes_max:
        return None
    return partitions_of(bundle, spec.partitions, keyless).tolist(), sizes.tolist()


def _by_partition(
    records: Sequence[Outgoing], partitions: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[int, Sequence[Outgoing], list[int]]]:
    """Records and sizes of each partition, in the order given."""
    indexes: dict[int, list[int]] = {}
    for index, partition in enumerate(partitions):
        indexes.setdefault(partition, []).append(index)
    for partition, places in indexes.items():
        if isinstance(records, Bundle):
            chosen: Sequence[Outgoing] = records.where(np.asarray(partitions) == partition)
        else:
            chosen = [records[place] for place in places]
        yield partition, chosen, [sizes[place] for place in places]


class _Room:
    """Bytes that may be in flight, given out in the order of asking."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def takes(self, size: int) -> bool:
        """Take ``size`` if it fits now, and nobody waits."""
        if self._waiting or not self._fits(size):
            return False
        self._left -= size
        return True

    async def take(self, size: int) -> None:
        """Wait until ``size`` fits; what is larger than all has all to itself."""
        if self.takes(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._waiting.remove((size, turn))
                self._let_in()
            raise

    def give(self, size: int) -> None:
        """Give ``size`` back."""
        self._left += size
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= size
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return size <= self._left or self._left == self._bytes_max
