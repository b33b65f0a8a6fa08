"""Rows onto a topic in pieces, each once, however often this is stopped.

The same rows are always cut into the same pieces, so that a record's range says which rows it
holds; a digest of all that went before tells whether a sending that is resumed has the same rows.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from streamapp.agents.flow.record import OVERHEAD_BYTES, Aside, Mark, decode, encode, mark_of
from streamapp.agents.outcome import persist
from streamapp.agents.recovery import last_record
from streamapp.core.errors import StreamappError
from streamapp.core.metrics import Metrics
from streamapp.core.slice import RecordLike
from streamapp.plugin import Cancelled
from streamapp.transport.clients import Outgoing, Producer, Reader

T = TypeVar("T")
#: Rows of one record, and records of one append.
CHUNK_ROWS = 512
_RECORDS_AT_ONCE = 8


class Piece(NamedTuple):
    """What one record holds: rows, or none and rows that were set aside."""

    rows: pa.Table
    aside: Aside | None = None

    @property
    def length(self) -> int:
        """How far the positions go on behind it."""
        return 1 if self.aside else self.rows.num_rows


class Wrong(NamedTuple):
    """What to raise: for rows that are others than before, and for ones that no record can hold.

    ``too_large`` is told where they begin and end, and how many bytes they have and may have.
    """

    changed: StreamappError
    too_large: Callable[[int, int, int, int], StreamappError]


@dataclass(frozen=True, slots=True)
class Fed:
    """How far a topic was fed: its last record of each partition, the newest first."""

    run: int
    next: int
    digest: str
    is_done: bool
    state: bytes = b""


NOTHING = Fed(0, 0, "", is_done=True)


class Sending:
    """Sends pieces to one topic.

    Args:
        topic: that nobody else sends to.
        partitions: of it.
        producer: started.
        reader: started.
        metrics: of this process.
        record_bytes_max: of the topic.
        on_rows: told of rows that are on the log.
        still_ours: whether to go on.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        producer: Producer,
        reader: Reader,
        metrics: Metrics,
        record_bytes_max: int,
        on_rows: Callable[[int], None] = lambda _: None,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._topic, self._partitions = topic, partitions
        self._producer, self._reader, self._metrics = producer, reader, metrics
        self._on_rows, self._still_ours = on_rows, still_ours
        self.value_bytes_max = record_bytes_max - OVERHEAD_BYTES

    async def fed(self) -> Fed:
        """Where the topic stands.

        Raises:
            Retry: the log does not answer.
        """
        parts = []
        for partition in range(self._partitions):
            bounds = await self._reader.bounds(self._topic, partition)
            record = await last_record(
                self._reader, self._topic, partition, *bounds, is_meant=_is_fed
            )
            if record is not None:
                parts.append(decode(record))
        newest = max((part.mark.run for part in parts), default=0)
        if not newest:
            return NOTHING
        of_it = [part for part in parts if part.mark.run == newest]
        last = max(of_it, key=lambda part: _rows_before(part.mark))
        is_done = len(of_it) == self._partitions and all(part.mark.end for part in of_it)
        mark = last.mark
        return Fed(newest, _rows_before(mark), mark.digest, is_done=is_done, state=last.state)

    async def has(self, run: int) -> bool:
        """Whether all of a run is on the topic, or a later one.

        Raises:
            Cancelled: the topic is another's by now.
        """
        fed = await self._ours(self.fed)
        return fed.run > run or (fed.run == run and fed.is_done)

    async def send(
        self, pieces: Iterator[Piece], schema: pa.Schema, run: int, wrong: Wrong, state: bytes = b""
    ) -> int:
        """Send all pieces of a run that are not there, and say that there is no more.

        Args:
            pieces: of the run, from its beginning; read in a thread.
            schema: of their rows.
            run: its number.
            wrong: what to raise.
            state: kept in each record.

        Returns:
            Where the pieces ended: the number of rows, and of pieces that were set aside.

        Raises:
            Cancelled: the topic is another's by now.
        """
        fed = await self._ours(self.fed)
        has_ended = fed.run == run and fed.is_done
        if fed.run < run:
            fed = NOTHING
        digest, at, waiting, rows = hashlib.sha256(), 0, list[Outgoing](), 0
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            first, at = at, at + piece.length
            digest.update(_bytes_of(piece))
            if first < fed.next <= at and (at, digest.hexdigest()) != (fed.next, fed.digest):
                raise wrong.changed
            if at > fed.next:
                if has_ended:
                    raise wrong.changed
                mark = Mark(first, at, run, digest=digest.hexdigest())
                waiting.append(self._record(piece, mark, state, wrong))
                rows += piece.rows.num_rows
            if len(waiting) == _RECORDS_AT_ONCE:
                await self._send(waiting)
                self._on_rows(rows)
                waiting, rows = [], 0
        if at < fed.next:
            raise wrong.changed
        if has_ended:
            return at
        await self._send(waiting)
        self._on_rows(rows)
        mark = Mark(at, at + 1, run, end=True, digest=digest.hexdigest())
        nothing = schema.empty_table()
        await self._send(
            [encode(mark, nothing, state, partition=each) for each in range(self._partitions)]
        )
        return at

    def _record(self, piece: Piece, mark: Mark, state: bytes, wrong: Wrong) -> Outgoing:
        partition = mark.first // CHUNK_ROWS % self._partitions
        asides = [piece.aside] if piece.aside else []
        record = encode(mark, piece.rows, state, asides, partition)
        size = len(record.value or b"")
        if size > self.value_bytes_max:
            raise wrong.too_large(mark.first, mark.next, size, self.value_bytes_max)
        return record

    async def _send(self, records: Sequence[Outgoing]) -> None:
        """One record after the other, so that what is on the log is always a beginning."""
        groups = [records] if self._partitions == 1 else [[record] for record in records]
        for group in groups:
            if group:
                await self._ours(
                    lambda: self._producer.send(self._topic, group)  # noqa: B023  # awaited at once
                )

    async def _ours(self, attempt: Callable[[], Awaitable[T]]) -> T:
        found = await persist("feed", attempt, self._metrics, self._still_ours)
        if found is None:
            raise Cancelled
        return found


def chunks(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, bytes_max: int
) -> Iterator[pa.Table]:
    """All rows in chunks of ``CHUNK_ROWS``, wherever the batches end; of large rows in smaller."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= CHUNK_ROWS:
            yield from _halved(held.slice(0, CHUNK_ROWS), bytes_max)
            held = held.slice(CHUNK_ROWS)
    if held.num_rows:
        yield from _halved(held, bytes_max)


def _halved(chunk: pa.Table, bytes_max: int) -> Iterator[pa.Table]:
    if chunk.num_rows == 1 or chunk.nbytes <= bytes_max:
        yield chunk
        return
    middle = chunk.num_rows // 2
    yield from _halved(chunk.slice(0, middle), bytes_max)
    yield from _halved(chunk.slice(middle), bytes_max)


def _is_fed(record: RecordLike) -> bool:
    mark = mark_of(record)
    return mark is not None and mark.run > 0


def _rows_before(mark: Mark) -> int:
    """Where the pieces up to the end of a record end."""
    return mark.first if mark.end else mark.next


def _bytes_of(piece: Piece) -> bytes:
    """The same for the same rows, wherever they were cut from."""
    if piece.aside is None:
        return _stream(piece.rows)
    stage, reason, rows = piece.aside
    return b"\0".join((stage.encode(), reason.encode(), _stream(rows)))


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    columns = [_copied(column.combine_chunks()) for column in rows.columns]
    with pa.ipc.new_stream(sink, rows.schema) as out:
        out.write_table(pa.Table.from_arrays(columns, schema=rows.schema))
    return bytes(sink.getvalue())


def _copied(column: pa.Array) -> pa.Array:
    """A column of its own; below a null, where anything may be, ``take`` writes zeros."""
    if column.null_count or pa.types.is_nested(column.type):
        try:
            return column.take(pa.array(np.arange(len(column))))
        except pa.ArrowNotImplementedError:  # of a type that it does not know
            pass
    return pa.concat_arrays([column, column.slice(0, 0)])
