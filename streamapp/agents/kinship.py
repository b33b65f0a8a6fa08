"""Does a ring hold this log's frames?  Offsets cannot tell: a log made anew counts from 0 again.

The ring outlives the log when a home is removed, or a topic is made anew under the same name.
Positions beyond the log's end show that at once; otherwise the newest frame of each source is
compared with the record that its address names, by the time the log took it.
"""

import numpy as np

from streamapp.ring import RingReader, RingWriter, unpack_source
from streamapp.transport.clients import Reader


async def holds_this_log(ring: RingWriter, reader: Reader, enriched: str) -> bool:
    """False when a source of the ring is not the topic of that name any more.

    Raises:
        Retry: the log does not answer.
    """
    sources = ring.sources()
    for source in sources:
        _, enriched_end = await reader.bounds(enriched, source.partition)
        _, source_end = await reader.bounds(source.topic, source.partition)
        if source.next_enriched_offset > enriched_end or source.next_source_offset > source_end:
            return False
    for index, (offset, ingest_us) in _newest_frames(ring).items():
        topic, partition = sources[index][:2]
        begin, _ = await reader.bounds(topic, partition)
        if offset < begin:
            continue  # retention took the record: nothing to compare with
        found = (await reader.read(topic, partition, offset, records_max=1)).records
        if not found or found[0].offset != offset or found[0].timestamp * 1000 != ingest_us:
            return False
    return True


def _newest_frames(ring: RingWriter) -> dict[int, tuple[int, int]]:
    """Source index to (source offset, ingest time in microseconds) of its newest frame."""
    with RingReader.open(ring.path) as reader:
        frames = reader.latest(ring.spec.capacity)
    indexes, offsets = unpack_source(frames.source_offset)
    newest = {}
    for index in np.unique(indexes):
        row = int(np.flatnonzero(indexes == index)[-1])
        newest[int(index)] = (int(offsets[row]), int(frames.ingest_us[row]))
    return newest
