"""The results of one run off the topics, into a file for each output and for rows set aside."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from streamapp.agents.flow.record import Aside, Mark, Part, check_schema, decode, mark_of
from streamapp.agents.flow.units import Repeats
from streamapp.agents.outcome import persist
from streamapp.core.errors import Halt
from streamapp.core.metrics import Metrics
from streamapp.core.slice import Slice
from streamapp.plugin import Cancelled
from streamapp.transport.clients import Reader

T = TypeVar("T")
_WAIT_MS_MAX = 200
_READ_RECORDS_MAX = 4096
_READ_BYTES_MAX = 8 << 20
_RANK = b"rank"
#: Where to read each partition of a topic from.
Places = dict[str, list[int]]


class Passed(Exception):  # not an error: the topic was not read, or not there, in that run
    """A later run has begun on a topic, and the one that is meant never ended there."""


class Collect:
    """Reads topics of groups until each partition says that the run has ended.

    Args:
        reader: started.
        partitions: of each topic.
        run: which rows are meant.
        begin: where earlier runs ended, by topic; the others are read from their beginning.
        metrics: of this process.
        on_rows: told of rows that were read.
        still_ours: whether to go on waiting for rows.
    """

    def __init__(
        self,
        reader: Reader,
        partitions: int,
        run: int,
        begin: Places,
        metrics: Metrics,
        on_rows: Callable[[int], None] = lambda _: None,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reader, self._partitions, self._run = reader, partitions, run
        self._begin, self._metrics, self._on_rows = begin, metrics, on_rows
        self._still_ours = still_ours
        #: Where this run ended.
        self.ended: Places = {}

    async def rows(self, topic: str, schema: pa.Schema, into: Path) -> list[Aside]:
        """Write the topic's rows of the run for ``in_order``; what was set aside.

        Raises:
            Halt: the topic has records that are not ours, or overlap.
            Cancelled: they are no longer ours to wait for.
            Passed: the run will not end on this topic.
        """
        asides: list[Aside] = []
        with ExitStack() as stack:
            out = stack.enter_context(pa.ipc.new_stream(str(into), schema))
            ended = [
                await self._partition(topic, partition, out, schema, asides)
                for partition in range(self._partitions)
            ]
        self.ended[topic] = ended
        return asides

    async def _partition(
        self,
        topic: str,
        partition: int,
        out: pa.ipc.RecordBatchStreamWriter,
        schema: pa.Schema,
        asides: list[Aside],
    ) -> int:
        first, place = await self._begins(topic, partition)
        at, is_cut, repeats = max(place, first), place < first, Repeats()
        while True:
            slice_ = await self._read(topic, partition, at)
            for record in slice_.records:
                mark = mark_of(record)
                if is_cut and mark is not None and mark.run == self._run:
                    raise Halt(
                        "flow.source",
                        f"{topic!r} [{partition}] lost rows: it begins at {first}, and {place} is"
                        " next",
                        "delete the workflow's topics and feed it anew",
                    )
                is_cut = False
                if mark is not None and mark.run > self._run:
                    raise Passed
                if mark is None or mark.run != self._run or not repeats.is_new(mark):
                    continue
                part = decode(record)
                check_schema(part.rows, schema, f"topic {topic!r}")
                await asyncio.to_thread(_write, out, part)
                asides += part.asides
                self._on_rows(part.rows.num_rows)
                if mark.end:
                    return record.offset + 1
            at = max(at, slice_.range.next)

    async def _begins(self, topic: str, partition: int) -> tuple[int, int]:
        """Where the partition begins, and where an earlier run ended in it."""
        first, end = await self._ours(lambda: self._reader.bounds(topic, partition))
        places = self._begin.get(topic, ())
        place = places[partition] if len(places) == self._partitions else first
        if place <= first:
            return first, place
        before = partial(mark_before, self._reader, topic, partition, place, first)
        mark = None
        if place <= end:
            mark = await persist("collect", before, self._metrics, self._still_ours)
        is_end = mark is not None and mark.end and mark.run < self._run
        return first, place if is_end else first  # no end is there: the topic was made anew

    async def _read(self, topic: str, partition: int, at: int) -> Slice:
        return await self._ours(
            lambda: self._reader.read(
                topic,
                partition,
                at,
                records_max=_READ_RECORDS_MAX,
                bytes_max=_READ_BYTES_MAX,
                wait_ms_max=_WAIT_MS_MAX,
            )
        )

    async def _ours(self, attempt: Callable[[], Awaitable[T]]) -> T:
        found = await persist("collect", attempt, self._metrics, self._still_ours)
        if found is None:
            raise Cancelled
        return found


async def mark_before(
    reader: Reader, topic: str, partition: int, at: int, first: int
) -> Mark | None:
    """What the record before an offset stands for; None where it is another's, or not kept.

    Args:
        reader: started.
        topic: one of the workflow's.
        partition: of it.
        at: no further than the partition's end.
        first: where the partition begins.
    """
    if at <= first:
        return None
    found = (await reader.read(topic, partition, at - 1, records_max=1)).records
    return mark_of(found[0]) if found and found[0].offset == at - 1 else None


def _write(out: pa.ipc.RecordBatchStreamWriter, part: Part) -> None:
    """A record's rows, with their place among all of the run, where that is known."""
    for batch in part.rows.combine_chunks().to_batches():
        out.write_batch(batch, custom_metadata={_RANK: str(part.mark.rank or 0)})


def in_order(collected: Path) -> pa.Table:
    """Rows that were collected, mapped, as they were fed; where nobody knows that, as they came."""
    with pa.memory_map(str(collected)) as file:
        reader = pa.ipc.open_stream(file)
        found = list(reader.iter_batches_with_custom_metadata())
        found.sort(key=lambda each: int(each.custom_metadata[_RANK]))
        batches = [each.batch for each in found]
        return pa.Table.from_batches(batches, reader.schema).unify_dictionaries()


def joined(asides: Sequence[Aside]) -> Mapping[tuple[str, str], pa.Table]:
    """Rows that were set aside, by stage and reason."""
    found: dict[tuple[str, str], list[pa.Table]] = {}
    for aside in asides:
        found.setdefault((aside.stage, aside.reason), []).append(aside.rows)
    return {key: pa.concat_tables(tables) for key, tables in found.items()}
