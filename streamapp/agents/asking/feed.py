"""The store's share: records of ``events.answers`` into its table, from where that stands."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from streamapp.agents.asking.answers import rows_of
from streamapp.agents.outcome import persist
from streamapp.core.metrics import Metrics
from streamapp.core.slice import Slice
from streamapp.sink.answers import Answers
from streamapp.sink.contract import Sink
from streamapp.topics.catalogue import ANSWERS
from streamapp.transport.clients import Reader

_READ_BYTES, _READ_RECORDS = 4 << 20, 4096
_WAIT_MS = 1000
logger = logging.getLogger("streamapp")
#: Calls a function of the sink in its writer's thread.
InWriter = Callable[..., Awaitable[Any]]


class AnswersFeed:
    """Reads the topic's one partition; a plain reader, for the table knows its own position.

    Args:
        reader: not started; it is stopped.
        metrics: of this process.
    """

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics

    async def run(self, store: Sink, in_writer: InWriter) -> None:
        """Store answers until cancelled."""
        await persist("answers", self._reader.start, self._metrics)
        try:
            while True:
                await persist("answers", lambda: self._step(store, in_writer), self._metrics)
        finally:
            await self._reader.stop()

    async def _step(self, store: Sink, in_writer: InWriter) -> None:
        at = (await in_writer(store.positions)).get((ANSWERS, 0), 0)
        begin, end = await self._reader.bounds(ANSWERS, 0)
        if at > end:
            logger.error("%s ends at %d, before its position %d: read anew", ANSWERS, end, at)
            at = begin
        slice_: Slice = await self._reader.read(
            ANSWERS,
            0,
            max(at, begin),
            records_max=_READ_RECORDS,
            bytes_max=_READ_BYTES,
            wait_ms_max=_WAIT_MS,
        )
        if slice_.records:
            rows = await asyncio.to_thread(rows_of, slice_)
            await in_writer(store.write_answers, Answers(ANSWERS, 0, slice_.range.next, rows))
