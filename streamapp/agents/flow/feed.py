"""Rows of a workflow's inputs onto its topics, each once, however often this is stopped."""

import asyncio
from collections.abc import Callable, Mapping

from streamapp.agents.flow.sending import Piece, Sending, Wrong, chunks
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.transport.clients import Producer, Reader
from streamapp.workflow.data import Opened


class Feed:
    """Feeds the topics of one workflow.

    Args:
        inputs: by topic.
        partitions: of each topic.
        producer: started.
        reader: started.
        metrics: of this process.
        record_bytes_max: of the topics.
        on_rows: told of rows that are on the log.
    """

    def __init__(
        self,
        inputs: Mapping[str, Opened],
        partitions: int,
        producer: Producer,
        reader: Reader,
        metrics: Metrics,
        record_bytes_max: int,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._inputs = inputs
        self._topics = {
            topic: Sending(topic, partitions, producer, reader, metrics, record_bytes_max, on_rows)
            for topic in inputs
        }

    async def begin(self, collected: int) -> int:
        """The number of the run to be fed: one that was not finished, else a new one.

        Args:
            collected: the last run whose results were taken.
        """
        fed = [await topic.fed() for topic in self._topics.values()]
        newest = max((each.run for each in fed), default=0)
        return newest if newest > collected else collected + 1

    async def run(self, run: int) -> dict[str, int]:
        """Feed all inputs, one after the other, and say that there is no more; rows by topic.

        Raises:
            Refuse: ``flow.inputs``: they changed since this run began; or as reading them does.
            Retry: an input does not answer, or died.
        """
        return {
            topic: await self._one(topic, opened, run) for topic, opened in self._inputs.items()
        }

    async def _one(self, topic: str, opened: Opened, run: int) -> int:
        """Rows that are there already are read too: for those that are bad, and for changes."""
        sending = self._topics[topic]
        with await asyncio.to_thread(opened.read) as reader:
            found = chunks(reader, reader.schema, sending.value_bytes_max)
            pieces = (Piece(chunk) for chunk in found)
            return await sending.send(pieces, reader.schema, run, _wrong(topic, opened.name))


def _wrong(topic: str, name: str) -> Wrong:
    changed = Refuse(
        "flow.inputs",
        f"input {name!r} is not what it was when this run began",
        f"put it back, or give the run up: delete the topic {topic}",
    )

    def too_large(first: int, next_: int, size: int, size_max: int) -> Refuse:
        return Refuse(
            "flow.too_large",
            f"input {name!r}: rows {first + 1} to {next_} have {size:,} bytes;"
            f" a record may have {size_max:,}",
            "split long texts, or run the workflow without --stream",
        )

    return Wrong(changed, too_large)
