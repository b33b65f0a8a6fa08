"""Does a ring hold this log's frames?  Offsets cannot tell: a log made anew counts from 0 again.

The ring outlives the log when a home is removed, or a topic is made anew under the same name.
Positions beyond the log's end show that at once; otherwise the newest frame of each source is
compared with the record that its address names, by the time the log took it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from streamapp.agents.outcome import persist
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.ring import Ring, RingWriter, unpack_source
from streamapp.transport.clients import Reader, started

#: Calls a function in the thread that the ring is written from.
InWriter = Callable[..., Awaitable[Any]]
logger = logging.getLogger("streamapp")


async def open_ours(
    open_ring: Callable[[], RingWriter],
    reader: Reader,
    enriched: str,
    metrics: Metrics,
    in_writer: InWriter,
) -> RingWriter:
    """The ring with this log's frames; one that holds another log's is replaced by a new one.

    Waits as long as the log does not answer.

    Raises:
        Refuse: from ``open_ring``.
    """
    ring: RingWriter = await in_writer(open_ring)

    async def ask() -> bool:
        async with started(reader):
            return await holds_this_log(ring, reader, enriched)

    if await persist("connect", ask, metrics):
        return ring
    logger.warning("%s holds the frames of another log: it is started anew", ring.path)
    await in_writer(ring.close)
    ring.path.unlink(missing_ok=True)
    anew: RingWriter = await in_writer(open_ring)
    return anew


async def holds_this_log(ring: RingWriter, reader: Reader, enriched: str) -> bool:
    """False when a source of the ring is not the topic of that name any more.

    Raises:
        Retry: the log does not answer.
    """
    sources = ring.sources()
    for source in sources:
        enriched_end = await _end(reader, enriched, source.partition)
        source_end = await _end(reader, source.topic, source.partition)
        if source.next_enriched_offset > enriched_end or source.next_source_offset > source_end:
            return False
    for index, (offset, ingest_us) in _newest_frames(ring).items():
        if index >= len(sources):
            return False  # a frame of no source: somebody's own program wrote it
        topic, partition = sources[index][:2]
        begin, _ = await reader.bounds(topic, partition)
        if offset < begin:
            continue  # retention took the record: nothing to compare with
        found = (await reader.read(topic, partition, offset, records_max=1)).records
        if not found or found[0].offset != offset or found[0].timestamp * 1000 != ingest_us:
            return False
    return True


async def _end(reader: Reader, topic: str, partition: int) -> int:
    """One past the last offset; -1 when the log has no such partition."""
    try:
        return (await reader.bounds(topic, partition))[1]
    except Refuse as error:
        if error.code not in {"topic.unknown", "topic.partition"}:
            raise
        return -1


def _newest_frames(ring: RingWriter) -> dict[int, tuple[int, int]]:
    """Source index to (source offset, ingest time in microseconds) of its newest frame."""
    with Ring.open(ring.path, engine="twin") as file:  # the records only, and nobody writes now
        records = file.records[file.records["stamp"] == 2 * file.records["frame_id"] + 2]
    records = records[np.argsort(records["frame_id"])]
    indexes, offsets = unpack_source(records["source_offset"])
    newest = {}
    for index in np.unique(indexes):
        row = int(np.flatnonzero(indexes == index)[-1])
        newest[int(index)] = (int(offsets[row]), int(records["ingest_us"][row]))
    return newest
