"""Where frames came from: topic, partition and offset, and the way back from there."""

from typing import NamedTuple

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.ring.engine import Mapping
from streamapp.ring.frames import Frame
from streamapp.ring.layout import OFFSET_BITS, SOURCE_USED, SOURCES_MAX, Array
from streamapp.ring.opening import oldest
from streamapp.ring.records import SourcePosition, unpack_source


class Origin(NamedTuple):
    """The address of an event in its log."""

    topic: str
    partition: int
    offset: int


def sources_of(mapping: Mapping) -> dict[tuple[str, int], int]:
    """Topic and partition of every source that the ring names, with its index."""
    return {
        _place(source): index
        for index, source in enumerate(mapping.sources)
        if source["flags"] & SOURCE_USED
    }


def positions_of(mapping: Mapping) -> list[SourcePosition]:
    """How far the ring has got in each source, in order of index."""
    return [
        SourcePosition(
            *place,
            int(mapping.sources["next_source_offset"][index]),
            int(mapping.sources["next_enriched_offset"][index]),
        )
        for place, index in sources_of(mapping).items()
    ]


def _place(source: np.void) -> tuple[str, int]:
    return source["topic"].decode("utf-8", "replace"), int(source["partition"])


def origin_of(mapping: Mapping, frame: Frame) -> Origin | None:
    """The address of the event that a frame was made of; None when it came from no log.

    The mapping has to be of the ring that the frame was read from.
    """
    index, offset = divmod(frame.source_offset, 1 << OFFSET_BITS)
    source = mapping.sources[index] if index < SOURCES_MAX else None
    if source is None or not source["flags"] & SOURCE_USED:
        return None
    return Origin(*_place(source), offset)


def find_since(mapping: Mapping, source: tuple[str, int], offset: int) -> tuple[int, int]:
    """The first frame id of ``source`` from ``offset`` on, and how many offsets were missed."""
    index, offset = _index(mapping, source), max(0, int(offset))
    head = mapping.ops.head()
    ids, offsets = _offsets(mapping, index, head)
    later = np.flatnonzero(offsets >= offset)
    position = int(ids[later[0]]) if len(later) else head
    if len(offsets) and offsets.min() <= offset:
        return position, 0
    begin = offsets.min() if len(offsets) else mapping.sources["next_source_offset"][index]
    return position, max(0, int(begin) - offset)


def _index(mapping: Mapping, source: tuple[str, int]) -> int:
    known = sources_of(mapping)
    if source in known:
        return known[source]
    names = ", ".join(f"{topic}/{partition}" for topic, partition in known) or "none"
    raise Refuse(
        "ring.source",
        f"the ring has no frames from {source[0]}/{source[1]}",
        f"its sources are: {names}",
    )


def _offsets(mapping: Mapping, index: int, head: int) -> tuple[Array, Array]:
    """Frame ids and source offsets, both (k,), of the valid rows of a source below ``head``."""
    ids = np.arange(min(oldest(mapping), head), head, dtype=np.uint64)
    slots = ids & np.uint64(mapping.spec.capacity - 1)
    whole = mapping.records["stamp"][slots] == 2 * ids + 2
    indexes, offsets = unpack_source(mapping.records["source_offset"][slots])
    whole &= ids + np.uint64(mapping.spec.capacity) >= mapping.ops.claim()
    mine = whole & (indexes == index)
    return ids[mine], offsets[mine]
