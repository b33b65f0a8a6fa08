"""Faust's producer on the local log."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from itertools import count
from typing import Any, NamedTuple

from faust.exceptions import ProducerSendError
from faust.transport import base
from faust.types import TP, RecordMetadata

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Retry, StreamappError
from streamapp.transport.clients import Outgoing
from streamapp.transport.local.clients import rows_of
from streamapp.transport.local.rows import Row, Rows
from streamapp.transport.routing import partition_of

#: Messages that may wait to be appended; whoever sends more waits.
QUEUE_MESSAGES_MAX = 16_384

#: Pause between attempts while the log refuses for now (full disk, locked file).
RETRY_S = 0.2

#: How long a stopping app goes on trying.
RETRY_STOPPING_S = 5.0


class _Pending(NamedTuple):
    topic: str
    row: Row
    future: asyncio.Future[RecordMetadata]


class Producer(base.Producer):
    """Appends in order of sending; messages sent while one append runs go together in the next.

    While the log refuses for now it waits and tries again, so that nothing is reordered or dropped;
    after ``producer_request_timeout`` the messages fail and so does every later :meth:`flush`, so
    that no offset is committed for what was not sent.
    """

    def __post_init__(self) -> None:
        self._queue: deque[_Pending] = deque()
        self._room = asyncio.Event()
        self._delivery: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._turn = count()
        self._open = False

    async def on_start(self) -> None:
        await super().on_start()
        await self.transport.open_log()
        self._open = True

    async def on_stop(self) -> None:
        await self.flush()

    async def on_shutdown(self) -> None:
        if self._open:
            self._open = False
            await self.transport.close_log()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,  # noqa: ARG002  # Faust's signature
    ) -> Awaitable[RecordMetadata]:
        """Queue one message; the future that is returned is done when it is durable."""
        log = self.transport.log
        if log.spec(topic) is None:
            await self.transport.declare(topic)
        spec = log.require(topic)
        if partition is None and self.partitioner is not None:
            numbers = list(range(spec.partitions))
            partition = self.partitioner(key, numbers, numbers)
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        record = Outgoing(
            value, key, tuple(pairs), partition, int(timestamp * 1000) if timestamp else None
        )
        try:
            (row,) = rows_of(spec, [record], keyless=next(self._turn) % spec.partitions)
        except StreamappError as error:
            raise ProducerSendError(str(error)) from error
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._queue.append(_Pending(topic, row, future))
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._deliver())
        while len(self._queue) > QUEUE_MESSAGES_MAX and not future.done():
            self._room.clear()
            await self._room.wait()
        return future

    async def send_and_wait(self, *arguments: Any, **options: Any) -> RecordMetadata:
        """As :meth:`send`, until it is durable."""
        return await (await self.send(*arguments, **options))

    async def flush(self) -> None:
        """Wait until everything that was sent is durable.

        Raises:
            ProducerSendError: something was given up.
        """
        while self.buffer.size:
            await self.buffer.flush()
        while self._delivery is not None and not self._delivery.done():
            await asyncio.shield(self._delivery)
        if self._failure is not None:
            raise ProducerSendError(f"Messages were not sent: {self._failure}") from self._failure

    def key_partition(self, topic: str, key: bytes) -> TP:
        """The partition that a key's records go to."""
        spec = self.transport.log.require(topic)
        if self.partitioner is not None:
            numbers = list(range(spec.partitions))
            return TP(topic, self.partitioner(key, numbers, numbers))
        return TP(topic, partition_of(key, spec.partitions))

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,  # noqa: ARG002  # one copy
        **options: Any,
    ) -> None:
        """Create the topic if there is none."""
        await self.transport.declare(topic, partitions, **options)

    def supports_headers(self) -> bool:
        return True

    async def _deliver(self) -> None:
        while self._queue:
            batch = list(self._queue)
            for topic in dict.fromkeys(job.topic for job in batch):
                await self._append(topic, [job for job in batch if job.topic == topic])
            for _ in batch:
                self._queue.popleft()
            self._room.set()

    async def _append(self, topic: str, batch: list[_Pending]) -> None:
        started = monotonic_s()
        rows = Rows([job.row for job in batch])
        while True:
            try:
                offsets = await self.transport.log.append(topic, rows)
            except Retry as error:
                patience_s = RETRY_STOPPING_S if self.should_stop else self.request_timeout
                if monotonic_s() - started < patience_s:
                    self.log.warning("%s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                return self._fail(batch, error)
            except StreamappError as error:
                return self._fail(batch, error)
            for job, offset in zip(batch, offsets, strict=True):
                if not job.future.done():
                    job.future.set_result(_metadata(topic, job.row, offset))
            return None

    def _fail(self, batch: list[_Pending], error: StreamappError) -> None:
        self._failure = error
        for job in batch:
            if not job.future.done():
                job.future.set_exception(ProducerSendError(str(error)))


def _metadata(topic: str, row: Row, offset: int) -> RecordMetadata:
    tp = TP(topic, row.partition)
    return RecordMetadata(topic, row.partition, tp, offset, row.timestamp, 0)
