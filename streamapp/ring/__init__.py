"""The ring: frames in shared memory; one writer, many readers that never block it and count losses.

Read it::

    from streamapp.ring import RingReader

    with RingReader.open("/dev/shm/streamapp/ring") as reader:
        for frames in reader.follow():  # in asyncio: async for frames in reader
            model(frames.semantic)  # (n, dim) float32
            if frames.lost:
                ...  # the reader was too slow for this many

Promises: ``ring.never_torn`` (what is read is one row of one commit) and ``ring.loss_is_counted``
(frame ids only grow, and read + lost + void is their difference).  The bytes are in
:mod:`streamapp.ring.layout` and, for other languages, in ``include/streamapp_ring.h``;
``docs/ring.md`` is the page for readers.

The room from below:

- the file: ``layout`` (its bytes), ``check`` (is this one), ``files`` (opened, locked, made);
- the protocol: ``engine`` (a mapping, and what is done on it), by ``_ring`` in C or ``twin``;
- writing: ``start`` (recovery), ``writer``, ``reservation``, ``records``, ``rows`` (its input);
- reading: ``opening``, ``reader``, ``pool`` and ``frames`` (what it gives), ``arrivals`` (asyncio),
  ``window`` (no copy), ``origin`` (sources), ``stat``, ``consumer``;
- attractors, in a file of their own: ``control``, ``centroids``.
"""

from streamapp.ring.consumer import PhysicsConsumer
from streamapp.ring.engine import EngineName
from streamapp.ring.frames import Frame, Frames
from streamapp.ring.layout import (
    COLUMNS_MAX,
    DTYPE_CODES,
    RECORD_DTYPE,
    SOURCE_NONE,
    Column,
    RingSpec,
    RowFlag,
    State,
)
from streamapp.ring.origin import Origin
from streamapp.ring.reader import RingReader
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
from streamapp.ring.reservation import Reservation
from streamapp.ring.stat import RingStat
from streamapp.ring.window import Ring, Window
from streamapp.ring.writer import RingWriter

__all__ = [
    "ACTOR_TYPES",
    "COLUMNS_MAX",
    "DTYPE_CODES",
    "PRESENCE_FIELDS",
    "RECORD_DTYPE",
    "SOURCE_NONE",
    "Column",
    "EngineName",
    "Frame",
    "Frames",
    "Origin",
    "PhysicsConsumer",
    "Reservation",
    "Ring",
    "RingReader",
    "RingSpec",
    "RingStat",
    "RingWriter",
    "RowFlag",
    "SourcePosition",
    "State",
    "Window",
    "conversation_hash",
    "conversation_hashes",
    "new_records",
    "pack_source",
    "presence",
    "unpack_source",
]
