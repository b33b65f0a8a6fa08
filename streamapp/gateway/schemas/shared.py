"""What gateways share by compacted topics: what they learned, and what clients configured.

Two topics of one partition each are followed to their ends every two seconds.  What cannot be
published or read now is tried again; the gateway's work never waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import NamedTuple

from streamapp.core.clock import Clock
from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.slice import RecordLike
from streamapp.gateway.schemas.learned import Learned
from streamapp.gateway.schemas.watch import Watch
from streamapp.topics.catalogue import SCHEMAS
from streamapp.transport.clients import Outgoing, Producer, Reader

_EVERY_S = 2.0
#: Gateways that are gone are looked for at a time of one's own, so that one takes them over.
_TAKE_OVER_S = (600.0, 4_200.0)
_RECORDS_PER_SEND = _RECORDS_PER_TURN = 64
_CLOSE_S_MAX = 5.0
_log = logging.getLogger("streamapp.gateway")


class Log(NamedTuple):
    """The log's clients, started."""

    producer: Producer
    reader: Reader


class Followed:
    """A topic of one partition, read to its end time and again.

    Args:
        topic: its name.
        take: gets every record once, and whether it was there at the first reading.
    """

    def __init__(self, topic: str, take: Callable[[RecordLike, bool], None]) -> None:
        self._topic = topic
        self._take = take
        self._next = 0
        #: Whether its end was reached once.
        self.has_begun = False
        self._reading = asyncio.Lock()

    async def follow(self, reader: Reader) -> None:
        """Read what came since.

        Raises:
            Refuse: there is no such topic.
            Retry: the log does not answer.
        """
        async with self._reading:
            _, end = await reader.bounds(self._topic, 0)
            while self._next < end:
                slice_ = await reader.read(self._topic, 0, self._next)
                for count, record in enumerate(slice_.records, 1):
                    self._take(record, not self.has_begun)
                    if count % _RECORDS_PER_TURN == 0:
                        await asyncio.sleep(0)
                if slice_.range.next <= self._next:
                    break  # compaction took what was last
                self._next = slice_.range.next
            self.has_begun = True


class Sharing:
    """Follows the topics, and publishes what was learned.

    Args:
        watch: what is learned by.
        log: None: nothing is shared, nor kept.
        others: topics that someone else follows, too.
        clock: of the gateway.
    """

    def __init__(
        self, watch: Watch, log: Log | None, others: Sequence[Followed], clock: Clock
    ) -> None:
        self._watch = watch
        self._learned: Learned = watch.learned
        self._log = log
        self._clock = clock
        self._schemas = Followed(SCHEMAS, self._take)
        self._others = others
        self._failed: set[str] = set()
        #: Records on their way; each stays until the log has it.
        self._unsent: dict[bytes, bytes | None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; what is on the log is read in the background."""
        self._tasks = [asyncio.create_task(self._watch.run()), asyncio.create_task(self._run())]
        for task in self._tasks:
            task.add_done_callback(_tell)

    async def stop(self) -> None:
        """Publish what was not, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watch.catch_up()
        try:
            async with asyncio.timeout(_CLOSE_S_MAX):
                await self._guarded("learned schemas", self._publish(float("inf")))
        except TimeoutError:
            _log.warning("learned schemas: what came last is not kept: the log does not answer")

    async def _run(self) -> None:
        take_over_s = self._clock.monotonic_s() + SystemRandom().uniform(*_TAKE_OVER_S)
        while True:
            await self.sync()
            if self._clock.monotonic_s() >= take_over_s:
                take_over_s += 24 * 3600
                self._learned.take_over(self._clock.now_us(), self._clock.monotonic_s())
            await asyncio.sleep(_EVERY_S)

    async def sync(self) -> None:
        """Read what others published, publish what is due, and guess types by all of it."""
        if self._log is not None:
            if await self._guarded("learned schemas", self._read(self._log)):
                await self._guarded("learned schemas", self._publish(self._clock.monotonic_s()))
            for one in self._others:
                await self._guarded("configuration", one.follow(self._log.reader))
        self._watch.reconsider()

    async def _read(self, log: Log) -> None:
        is_first = not self._schemas.has_begun
        await self._schemas.follow(log.reader)
        if is_first:
            self._learned.begin(self._clock.now_us())

    def _take(self, record: RecordLike, is_past: bool) -> None:
        self._learned.take(record.key, record.value, is_past=is_past)

    async def _publish(self, now_s: float) -> None:
        if self._log is None or not self._schemas.has_begun:
            return
        for key, value in self._learned.due(now_s):
            self._unsent.pop(key, None)  # so that tombstones stay behind what took over
            self._unsent[key] = value
        while some := list(self._unsent.items())[:_RECORDS_PER_SEND]:
            records = [Outgoing(value, key, partition=0) for key, value in some]
            await self._log.producer.send(SCHEMAS, records)
            for key, value in some:
                if self._unsent.get(key) is value:
                    del self._unsent[key]

    async def _guarded(self, what: str, work: Awaitable[None]) -> bool:
        """Whether it was done; one line in the log for a failure, not one for every try."""
        try:
            await work
        except StreamappError as error:
            if what not in self._failed:
                kind = "are not kept" if isinstance(error, Refuse) else "wait for the log"
                _log.warning("%s %s: %s", what, kind, error)
            self._failed.add(what)
            return False
        self._failed.discard(what)
        return True


def _tell(task: asyncio.Task[None]) -> None:
    """Events go on without it, but nobody would know why nothing is learned any more."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("nothing is learned of events any more", exc_info=task.exception())
