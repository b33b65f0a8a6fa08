"""One partition's way to its leader: one batch at a time, in order, each exactly once."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from streamapp.core.errors import Halt, Reject, StreamappError
from streamapp.transport.clients import Outgoing
from streamapp.transport.kafka.appending import Append
from streamapp.transport.kafka.connection import REQUEST_MS_MAX, Connection
from streamapp.transport.kafka.departing import Identity, encoded

#: Records of one batch; a larger one goes alone.
BATCH_BYTES_MAX = 1 << 20
#: How long a batch waits for as many callers as the one before had; one caller waits for nobody.
COMPANY_S_MAX = 0.001
_SEQUENCES = 1 << 31
#: The broker does not know our batches any more (its disk was lost, a day went by): begin anew.
_FORGOTTEN = (
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
)


@dataclass(slots=True, eq=False)
class Piece:
    """Records of one call for one partition that go in one batch; then, the first one's offset."""

    records: Sequence[Outgoing]
    size: int
    offset: asyncio.Future[int]
    settled: bool = False


class Lane:
    """What waits for one partition, and the task that appends it.

    When a batch fails, all that waits behind it fails with it, so that nothing overtakes it.
    """

    record_bytes_max = BATCH_BYTES_MAX

    def __init__(
        self,
        connection: Connection,
        topic: str,
        partition: int,
        on_done: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._topic, self._partition = topic, partition
        self._on_done = on_done
        self._waiting: deque[Piece] = deque()
        self._work: asyncio.Task[None] | None = None
        self._together = 1  # callers of the last batch
        self._company: asyncio.Future[None] | None = None
        self._identity: Identity | None = None
        self._sequence = 0

    def cut(self, records: Sequence[Outgoing], sizes: Sequence[int]) -> Iterator[Piece]:
        """Pieces that fit into one batch each; a record that does not has one for itself."""
        first, total, new = 0, 0, asyncio.get_running_loop().create_future
        for index, size in enumerate(sizes):
            if total + size > self._batch_bytes_max and index > first:
                yield Piece(records[first:index], total, new())
                first, total = index, 0
            total += size
        yield Piece(records[first:] if first else records, total, new())

    def append(self, piece: Piece) -> None:
        """Queue a piece."""
        self._waiting.append(piece)
        company = self._company
        if company is not None and len(self._waiting) >= self._together and not company.done():
            company.set_result(None)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._append_all())

    async def finished(self) -> None:
        """Wait until nothing is queued."""
        if self._work is not None:
            await self._work

    def abandon(self) -> None:
        """Stop appending; who still waits hears of it."""
        if self._work is not None:
            self._work.cancel()

    @property
    def _batch_bytes_max(self) -> int:
        return min(BATCH_BYTES_MAX, self.record_bytes_max)

    async def _append_all(self) -> None:
        while self._waiting:
            batch: list[Piece] = []
            try:
                await self._gather()
                batch = self._next_batch()
                await self._append(batch)
            except StreamappError as error:
                self._fail(batch, error)
                if not isinstance(error, Reject):
                    self._fail(list(self._waiting), error)
                    self._waiting.clear()
            except asyncio.CancelledError:
                closed = Halt("log.closed", f"{self._connection.url} was closed", "send it again")
                self._fail([*batch, *self._waiting], closed)
                self._waiting.clear()
                raise
            except Exception as error:  # noqa: BLE001  # nobody may wait for ever, whatever it is
                self._fail(batch, error)

    async def _gather(self) -> None:
        """Wait for those answered together a moment ago, or the first goes without the rest."""
        if len(self._waiting) >= self._together:
            return
        loop = asyncio.get_running_loop()
        company = self._company = loop.create_future()
        timer = loop.call_later(COMPANY_S_MAX, _resolve, company)
        try:
            await company
        finally:
            timer.cancel()
            self._company = None

    def _next_batch(self) -> list[Piece]:
        batch = [self._waiting.popleft()]
        total = batch[0].size
        while self._waiting and total + self._waiting[0].size <= self._batch_bytes_max:
            total += self._waiting[0].size
            batch.append(self._waiting.popleft())
        self._together = len(batch)
        return batch

    async def _append(self, batch: Sequence[Piece]) -> None:
        try:
            offset = await self._deliver(batch)
        except Reject:
            if len(batch) == 1:
                raise
            for piece in batch:  # only whose record it is shall hear of it
                await self._append_alone(piece)
            return
        for piece in batch:
            self._settle(piece, offset)
            offset += len(piece.records)

    async def _append_alone(self, piece: Piece) -> None:
        try:
            await self._append([piece])
        except Reject as error:
            self._fail([piece], error)

    def _fail(self, pieces: Sequence[Piece], error: BaseException) -> None:
        for piece in pieces:
            self._settle(piece, error)

    def _settle(self, piece: Piece, outcome: int | BaseException) -> None:
        if piece.settled:
            return
        piece.settled = True
        self._on_done(piece.size)
        if piece.offset.done():  # its caller left
            return
        if isinstance(outcome, int):
            piece.offset.set_result(outcome)
        else:
            piece.offset.set_exception(outcome)
            piece.offset.exception()  # nobody may be left to ask

    async def _deliver(self, batch: Sequence[Piece]) -> int:
        """Append one batch; the offset of its first record."""
        data: bytes | None = None

        async def attempt() -> int:
            nonlocal data
            if self._identity is None:
                self._identity, self._sequence, data = await self._new_identity(), 0, None
            if data is None:
                nbytes = sum(piece.size for piece in batch)
                records = [piece.records for piece in batch]
                data = encoded(records, nbytes, self._identity, self._sequence)
            try:
                return await self._produce(data)
            except _FORGOTTEN:
                self._identity = None
                raise _BeginAnewError from None

        what = f"topic {self._topic!r} partition {self._partition}"
        try:
            offset = await self._connection.persist(attempt, what)
        except BaseException:
            self._identity = None  # the next batch must not be taken for what became of this one
            raise
        self._sequence = (self._sequence + sum(len(piece.records) for piece in batch)) % _SEQUENCES
        return offset

    async def _new_identity(self) -> Identity:
        answer = await self._connection.ask(InitProducerIdRequest(None, REQUEST_MS_MAX))
        if answer.error_code:
            raise for_code(answer.error_code)("a producer id")
        return Identity(answer.producer_id, answer.producer_epoch)

    async def _produce(self, data: bytes) -> int:
        request = Append(self._topic, self._partition, data, REQUEST_MS_MAX)
        answer = await self._connection.ask_leader(self._topic, self._partition, request)
        ((_, ((_, code, offset, *_),)),) = answer.topics
        error = for_code(code)
        if error.errno:
            raise error(self._topic)
        return int(offset)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _BeginAnewError(KafkaError):
    """The batch was not appended, and goes again under a new identity."""

    retriable = True
