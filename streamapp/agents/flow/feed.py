"""Rows of a workflow's inputs onto its topics, each once, however often this is stopped.

Rows go in chunks of a fixed length, so that a record's range says which rows it holds; a digest of
all that went before tells whether a feeding that is resumed has the same rows.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from streamapp.agents.flow.record import OVERHEAD_BYTES, Mark, encode, mark_of
from streamapp.agents.outcome import persist
from streamapp.agents.recovery import last_record
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.transport.clients import Outgoing, Producer, Reader
from streamapp.workflow.data import Opened

#: Rows of one record, and records of one append.
CHUNK_ROWS = 512
_RECORDS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Fed:
    """How far a topic was fed: its last record of each partition, the newest first."""

    run: int
    next: int
    digest: str
    is_done: bool


_NOTHING = Fed(0, 0, "", is_done=True)


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
        self._inputs, self._partitions = inputs, partitions
        self._producer, self._reader, self._metrics = producer, reader, metrics
        self._value_bytes_max = record_bytes_max - OVERHEAD_BYTES
        self._on_rows = on_rows

    async def begin(self, collected: int) -> int:
        """The number of the run to be fed: one that was not finished, else a new one.

        Args:
            collected: the last run whose results were taken.
        """
        fed = [await self._fed(topic) for topic in self._inputs]
        newest = max((each.run for each in fed), default=0)
        is_done = all(each.is_done and each.run == newest for each in fed)
        return newest + 1 if is_done and newest in {0, collected} else newest

    async def run(self, run: int) -> dict[str, int]:
        """Feed all inputs, one after the other, and say that there is no more; rows by topic.

        Raises:
            Refuse: ``flow.inputs``: they changed since this run began; or as reading them does.
            Retry: an input does not answer, or died.
        """
        rows = {}
        for topic, opened in self._inputs.items():
            fed = await self._fed(topic)
            if fed.run != run:
                fed = _NOTHING
            is_done = fed.run == run and fed.is_done
            rows[topic] = fed.next if is_done else await self._one(topic, opened, run, fed)
        return rows

    async def _one(self, topic: str, opened: Opened, run: int, fed: Fed) -> int:
        digest, at, waiting = hashlib.sha256(), 0, list[Outgoing]()
        with await asyncio.to_thread(opened.read) as reader:
            chunks = _chunks(reader)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                first, at = at, at + chunk.num_rows
                digest.update(_bytes_of(chunk))
                if at == fed.next and digest.hexdigest() != fed.digest:
                    raise _changed(topic, opened.name)
                if at > fed.next:
                    mark = Mark(first, at, run, digest=digest.hexdigest())
                    waiting.append(self._record(opened.name, chunk, mark))
                if len(waiting) == _RECORDS_AT_ONCE:
                    await self._send(topic, waiting)
                    waiting = []
            if at < fed.next:
                raise _changed(topic, opened.name)
            schema = reader.schema
        await self._send(topic, waiting)
        ends = [
            encode(
                Mark(at, at + 1, run, end=True, digest=digest.hexdigest()),
                schema.empty_table(),
                partition=partition,
            )
            for partition in range(self._partitions)
        ]
        await self._send(topic, ends)
        return at

    def _record(self, name: str, chunk: pa.Table, mark: Mark) -> Outgoing:
        partition = mark.first // CHUNK_ROWS % self._partitions
        record = encode(mark, chunk, partition=partition)
        size = len(record.value or b"")
        if size > self._value_bytes_max:
            raise Refuse(
                "flow.too_large",
                f"input {name!r}: rows {mark.first + 1} to {mark.next} have {size:,} bytes;"
                f" a record may have {self._value_bytes_max:,}",
                "split long texts, or run the workflow without --stream",
            )
        return record

    async def _send(self, topic: str, records: list[Outgoing]) -> None:
        """One record after the other, so that what is on the log is always a beginning."""
        groups = [records] if self._partitions == 1 else [[record] for record in records]
        for group in groups:
            if group:
                await persist(
                    "feed",
                    lambda: self._producer.send(topic, group),  # noqa: B023  # awaited at once
                    self._metrics,
                )
        self._on_rows(sum(_rows(record) for record in records))

    async def _fed(self, topic: str) -> Fed:
        """Where the topic's feeding stands."""
        marks = []
        for partition in range(self._partitions):
            bounds = await self._reader.bounds(topic, partition)
            record = await last_record(self._reader, topic, partition, *bounds)
            mark = mark_of(record) if record is not None else None
            if mark is not None and mark.run:
                marks.append(mark)
        if not marks:
            return _NOTHING
        newest = max(mark.run for mark in marks)
        of_it = [mark for mark in marks if mark.run == newest]
        last = max(of_it, key=_rows_before)
        is_done = len(of_it) == self._partitions and all(mark.end for mark in of_it)
        return Fed(newest, _rows_before(last), last.digest, is_done=is_done)


def _changed(topic: str, name: str) -> Refuse:
    return Refuse(
        "flow.inputs",
        f"input {name!r} is not what it was when this run began",
        f"put it back, or give the run up: delete the topic {topic}",
    )


def _rows_before(mark: Mark) -> int:
    """Rows fed up to the end of a record."""
    return mark.first if mark.end else mark.next


def _rows(record: Outgoing) -> int:
    mark = mark_of(_Headers(record))
    return 0 if mark is None or mark.end else mark.next - mark.first


class _Headers:
    """A record that was not appended yet, as far as its header is looked at."""

    offset, timestamp, key, value = 0, 0, None, None

    def __init__(self, record: Outgoing) -> None:
        self.headers = record.headers


def _chunks(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """All rows in chunks of ``CHUNK_ROWS``, wherever the reader's batches end."""
    held = reader.schema.empty_table()
    for batch in reader:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= CHUNK_ROWS:
            yield held.slice(0, CHUNK_ROWS)
            held = held.slice(CHUNK_ROWS)
    if held.num_rows:
        yield held


def _bytes_of(chunk: pa.Table) -> memoryview:
    """The same for the same rows, wherever they were cut from."""
    sink = pa.BufferOutputStream()
    (batch,) = chunk.combine_chunks().to_batches()
    copied = pa.RecordBatch.from_arrays(
        [pa.concat_arrays([column, column.slice(0, 0)]) for column in batch.columns],
        schema=batch.schema,
    )
    with pa.ipc.new_stream(sink, batch.schema) as out:
        out.write_batch(copied)
    return memoryview(sink.getvalue())
