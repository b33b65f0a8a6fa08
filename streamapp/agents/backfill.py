"""The newest frames of the enriched topic, for a ring that has none: where they start, and they.

A ring of N frames wants the N newest events, not the topic from its beginning.  Records are looked
at backwards from the end, of their values only two columns of eight bytes per row; what lies before
the oldest that is wanted counts as done, so that nobody takes it for a gap.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.agents.feed import Feed
from streamapp.agents.kinship import InWriter
from streamapp.core.slice import RecordLike
from streamapp.ring import SourcePosition
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import Cover, decode_rows
from streamapp.transport.clients import Reader, started

Integers = npt.NDArray[np.int64]

#: Looking back begins with so few records, as each may hold hundreds of rows, and doubles.
STEP_FIRST, STEP_MAX = 16, 4096
#: Records without rows are stepped over, but not without end: so many for each wanted frame.
LOOK_PER_FRAME = 4
LOOK_MIN = 1024
#: What all partitions together have in hand while they are read again.
BYTES_IN_HAND, BYTES_MIN = 32 << 20, 64 << 10
RECORDS_MAX = 256
_COLUMNS = frozenset({"source_offset", "ingest_time"})


class _Seen(NamedTuple):
    """One record: its place, its header, and of each row the source offset and ingest time."""

    offset: int
    cover: Cover
    sources: Integers
    ingest_us: Integers


async def newest(
    reader: Reader, enriched: str, source: str, ends: Mapping[int, int], frames: int
) -> list[SourcePosition]:
    """Where the newest ``frames`` rows of all these partitions together begin, by ingest time.

    Args:
        reader: of the log.
        enriched: the topic.
        source: the topic that a partition without any record is from.
        ends: partition to the enriched offset before which to look.
        frames: how many rows are wanted.

    Returns:
        A position for each partition; behind its end where none of its rows is wanted.

    Raises:
        Retry: the log does not answer.
        Halt: the topic holds a record that is not ours.
    """
    seen = {p: await _look_back(reader, enriched, p, end, frames) for p, end in ends.items()}
    wanted = _newest_rows({p: _ingest_us(records) for p, records in seen.items()}, frames)
    return [_position(seen[p], wanted[p], (source, p), end) for p, end in ends.items()]


async def replay(
    reader: Reader, enriched: str, starts: Mapping[int, int], ends: Mapping[int, int]
) -> AsyncIterator[Sequence[RecordLike]]:
    """The records from start to end of each partition, all in the order in which they were written.

    Raises:
        Retry: the log does not answer.
    """
    at = dict(starts)
    hands: dict[int, deque[RecordLike]] = {p: deque() for p in at}
    bytes_max = max(BYTES_IN_HAND // max(len(at), 1), BYTES_MIN)
    while hands:
        for p in [p for p, hand in hands.items() if not hand]:
            records, at[p] = await _read(reader, (enriched, p), at[p], ends[p], bytes_max)
            hands[p].extend(records)
            if not records:
                del hands[p]
        taken: list[RecordLike] = []
        while hands and all(hands.values()):
            oldest = min(hands, key=lambda p: hands[p][0].timestamp)
            taken.append(hands[oldest].popleft())
        if taken:
            yield taken


async def fill(feed: Feed, reader: Reader, ends: Mapping[int, int], in_writer: InWriter) -> None:
    """Write what a ring lacks before these enriched offsets, of new partitions the newest rows.

    Called again after a Retry it goes on where it was, by the ring's own positions.

    Raises:
        Retry: the log does not answer.
    """
    held = feed.positions()
    unknown = {p: end for p, end in ends.items() if p not in held}
    async with started(reader):
        begin = await newest(reader, ENRICHED, RAW, unknown, feed.ring.spec.capacity)
        await in_writer(feed.start, begin)
        held |= {position.partition: position.next_enriched_offset for position in begin}
        async for records in replay(reader, ENRICHED, {p: held[p] for p in ends}, ends):
            await in_writer(feed.put, records)


async def _look_back(
    reader: Reader, topic: str, partition: int, end: int, frames: int
) -> list[_Seen]:
    """The partition's last records, in order, until they hold so many rows."""
    begin, _ = await reader.bounds(topic, partition)
    seen: deque[_Seen] = deque()
    rows, stop, step = 0, end, STEP_FIRST
    while stop > begin and rows < frames and len(seen) < max(LOOK_PER_FRAME * frames, LOOK_MIN):
        first = at = max(begin, stop - step)
        block: list[_Seen] = []
        while True:
            records, at = await _read(reader, (topic, partition), at, stop, BYTES_IN_HAND)
            if not records:
                break
            block += [_look(record) for record in records]
        rows += sum(len(record.sources) for record in block)
        seen.extendleft(reversed(block))
        stop, step = first, min(2 * step, STEP_MAX)
    return _once(seen)


def _once(records: Iterable[_Seen]) -> list[_Seen]:
    """Without the rows that an earlier record has: who lost a partition may publish them late."""
    found: list[_Seen] = []
    end = 0
    for record in records:
        new = record.sources >= end
        end = max(end, record.cover.next)
        found.append(record._replace(sources=record.sources[new], ingest_us=record.ingest_us[new]))
    return found


async def _read(
    reader: Reader, place: tuple[str, int], at: int, end: int, bytes_max: int
) -> tuple[list[RecordLike], int]:
    """The next records before ``end``, and where to go on; none when there are no more."""
    while at < end:
        slice_ = await reader.read(*place, at, records_max=RECORDS_MAX, bytes_max=bytes_max)
        records = [record for record in slice_.records if record.offset < end]
        if records or slice_.range.next <= at:
            return records, slice_.range.next
        at = slice_.range.next  # the log skips offsets
    return [], at


def _look(record: RecordLike) -> _Seen:
    cover, rows = decode_rows(record, _COLUMNS)
    if not rows.num_rows:
        none = np.empty(0, np.int64)
        return _Seen(record.offset, cover, none, none)
    ingest = rows.column("ingest_time").cast(pa.int64()).to_numpy()
    return _Seen(record.offset, cover, rows.column("source_offset").to_numpy(), ingest)


def _ingest_us(records: Sequence[_Seen]) -> Integers:
    """Of all rows, never falling: what is wanted of a partition must be its end, without holes."""
    if not records:
        return np.empty(0, np.int64)
    return np.maximum.accumulate(np.concatenate([record.ingest_us for record in records]))


def _newest_rows(times: Mapping[int, Integers], frames: int) -> dict[int, int]:
    """How many of each partition's last rows are among the newest ``frames`` of all."""
    none = np.empty(0, np.int64)
    owner = np.concatenate([none, *(np.full(len(t), p, np.int64) for p, t in times.items())])
    order = np.concatenate([none, *(np.arange(len(t), dtype=np.int64) for t in times.values())])
    moment = np.concatenate([none, *times.values()])
    chosen = owner[np.lexsort((order, moment))[-frames:]]
    return {p: int(np.count_nonzero(chosen == p)) for p in times}


def _position(
    records: Sequence[_Seen], wanted: int, source: tuple[str, int], end: int
) -> SourcePosition:
    """Where the last ``wanted`` rows of these records begin."""
    if not records:
        return SourcePosition(*source, 0, end)
    topic, partition = records[-1].cover.topic, records[-1].cover.partition
    for record in reversed(records):
        if wanted and wanted <= len(record.sources):
            return SourcePosition(topic, partition, int(record.sources[-wanted]), record.offset)
        wanted -= len(record.sources)
    return SourcePosition(topic, partition, max(r.cover.next for r in records), end)
