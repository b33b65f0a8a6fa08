"""The ring: frames in shared memory; one writer, many readers that never block it and count losses.

Read it::

    from streamapp.ring import RingReader

    with RingReader.open("/dev/shm/streamapp/ring") as ring:
        for frames in ring.follow():
            model(frames.semantic)  # (n, dim) float32
            if frames.lost:
                ...  # the reader was too slow for this many

Promises: ``ring.never_torn`` (what is read is one row of one commit) and ``ring.loss_is_counted``
(frame ids only grow, and read + lost + void is their difference).  The bytes are in
:mod:`streamapp.ring.layout` and, for other languages, in ``include/streamapp_ring.h``.
"""

from streamapp.ring.engine import EngineName
from streamapp.ring.frames import Frame, Frames
from streamapp.ring.layout import DTYPE_CODES, RECORD_DTYPE, SOURCE_NONE, RingSpec, RowFlag, State
from streamapp.ring.reader import RingReader, RingStat, RingViews
from streamapp.ring.records import (
    ACTOR_TYPES,
    PRESENCE_FIELDS,
    SourcePosition,
    conversation_hash,
    conversation_hashes,
    new_records,
    pack_source,
    presence,
    unpack_source,
)
from streamapp.ring.writer import RingWriter

__all__ = [
    "ACTOR_TYPES",
    "DTYPE_CODES",
    "PRESENCE_FIELDS",
    "RECORD_DTYPE",
    "SOURCE_NONE",
    "EngineName",
    "Frame",
    "Frames",
    "RingReader",
    "RingSpec",
    "RingStat",
    "RingViews",
    "RingWriter",
    "RowFlag",
    "SourcePosition",
    "State",
    "conversation_hash",
    "conversation_hashes",
    "new_records",
    "pack_source",
    "presence",
    "unpack_source",
]
