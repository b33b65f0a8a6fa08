"""Where a partition stands: what its enriched topic already covers, and the state after it.

The enriched topic is the truth, so a worker that takes a partition over loads the newest state
snapshot that the last record's header names, replays the records after it first-wins by source
offset, and starts the raw log at the end of the covered range.  Records that a zombie wrote after
us cover nothing new and so change nothing; a snapshot at the very end may be one of theirs, and
older than what stands before it, so it is never where the replay begins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from streamapp.core.errors import Halt, Retry
from streamapp.core.ranges import RangeSet
from streamapp.core.slice import RecordLike, Slice
from streamapp.topics.enriched import Cover, Enriched, cover_of, decode
from streamapp.transport.clients import Reader
from streamapp.workflow import PartitionState
from streamapp.workflow.repeats import Repeats, identities, of_the_stages

READ_BYTES_MAX = 32 << 20


@dataclass(slots=True)
class Standing:
    """What is known of one source partition when it is taken over.

    ``state`` is what the stages remember, ``repeats`` which events went through last;
    ``next`` is the first source offset not yet enriched, None when the enriched topic says nothing
    of it; ``snapshot`` the enriched offset of the newest state snapshot; ``since_snapshot`` records
    written after it.
    """

    state: PartitionState
    repeats: Repeats
    next: int | None = None
    snapshot: int | None = None
    since_snapshot: int = 0


async def recover(
    reader: Reader, source: tuple[str, int], enriched: str, keys_max: int
) -> Standing:
    """Rebuild the standing of one partition from its enriched topic.

    Args:
        reader: of the log.
        source: topic and partition; that of the enriched topic has the same number.
        enriched: the topic.
        keys_max: keys remembered per kind of state.

    Raises:
        Halt: the enriched topic holds records that are not ours, or not of this source: their
            offsets would pass for ours, and events be left out.
        Retry: the log does not answer.
    """
    topic, partition = source
    begin, end = await reader.bounds(enriched, partition)
    standing = Standing(PartitionState(keys_max), Repeats(keys_max))
    last = await _last_change(reader, enriched, partition, begin, end)
    if last is None:
        return standing
    _check_source(last, topic, enriched)
    at = max(begin, begin if last.snapshot is None else last.snapshot)
    done = RangeSet()
    while at < end:
        slice_ = await reader.read(enriched, partition, at, bytes_max=READ_BYTES_MAX)
        for record in slice_.records:
            found = decode(record)
            _check_source(found.cover, topic, enriched)
            _apply(standing, done, record.offset, found)
        if slice_.range.next <= at:  # skipping what is there would make another state of it
            raise Retry(
                "log.short", f"{enriched!r} [{partition}] ends at {end}, not read from {at}"
            )
        at = slice_.range.next
    return standing


async def _last_change(
    reader: Reader, topic: str, partition: int, begin: int, end: int
) -> Cover | None:
    """The header of the last record that is no snapshot, or of a snapshot where all are."""
    cover = None
    while (record := await last_record(reader, topic, partition, begin, end)) is not None:
        cover, end = cover_of(record), record.offset
        if not cover.is_snapshot:
            break
    return cover


async def last_record(
    reader: Reader,
    topic: str,
    partition: int,
    begin: int,
    end: int,
    is_meant: Callable[[RecordLike], bool] = lambda _: True,
) -> RecordLike | None:
    """The last record meant of a range; it may be far from the end, so look in growing steps."""
    step = 1
    while end > begin:
        at = start = max(begin, end - step)
        last: RecordLike | None = None
        while at < end:
            slice_: Slice = await reader.read(topic, partition, at)
            for record in slice_.records:
                if record.offset < end and is_meant(record):
                    last = record
            if not slice_.records:
                break
            at = slice_.range.next
        if last is not None or start == begin:
            return last
        step *= 8
    return None


def _check_source(cover: Cover, source: str, enriched: str) -> None:
    if cover.topic != source:
        raise Halt(
            "enrich.source",
            f"topic {enriched!r} holds rows of {cover.topic!r}, not of {source!r}",
            "name another enriched topic",
        )


def _apply(standing: Standing, done: RangeSet, offset: int, record: Enriched) -> None:
    """One enriched record: its states where its source offsets are new, then its range."""
    cover = record.cover
    if cover.is_snapshot:
        # Without a snapshot before it (retention took it) the records read so far are not the whole
        # state.  Otherwise a later one says nothing that the records before it did not say.
        if standing.next is None or (standing.snapshot is None and cover.next >= standing.next):
            standing.state.restore(of_the_stages(record.states))
            standing.repeats.restore(record.states)
            done.add(0, cover.next)
            standing.next = cover.next
        if cover.next == standing.next:
            standing.snapshot = offset
            standing.since_snapshot = 0
        return
    states = of_the_stages(record.states)
    standing.state.apply(entry for entry in states if entry.source_offset not in done)
    covered = done.mask(record.rows.column("source_offset").to_numpy())
    standing.repeats.remember(identities(record.rows.filter(pa.array(~covered))))
    done.add(cover.first, cover.next)
    start = cover.first if standing.next is None else standing.next
    standing.next = max(start, done.prefix_end(start))
    standing.since_snapshot += 1
