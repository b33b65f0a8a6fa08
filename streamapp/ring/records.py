"""Making records: defaults, the packed source address, presence bits and conversation hashes."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.ring.layout import OFFSET_BITS, RECORD_DTYPE, SOURCE_NONE, Array

_OFFSET_MASK = (1 << OFFSET_BITS) - 1

#: Values of ``actor_type``; -1 says unknown.
ACTOR_TYPES = ("system", "human", "agent", "tool")

#: Bit i of ``presence`` says that the field is known rather than a default.
PRESENCE_FIELDS = (
    "conversation_hash",
    "delta_time",
    "duration_ms",
    "velocity",
    "interrupt",
    "fill_rate",
    "sentiment",
    "confidence",
    "spin",
    "attractor_pull",
    "workflow_node",
    "case_status",
    "lead_status",
    "actor_type",
    "intent_id",
    "semantic",
)


class SourcePosition(NamedTuple):
    """How far a ring has got in one partition.

    ``next_source_offset``: every source offset below it is in the ring, was lapped, or had no row.
    ``next_enriched_offset``: where to go on reading the enriched partition that holds this source
    partition.
    """

    topic: str
    partition: int
    next_source_offset: int
    next_enriched_offset: int


def new_records(n: int) -> Array:
    """``n`` records of RECORD_DTYPE with every field unknown: NaN, -1, no turn, no source.

    A writer fills the fields it knows; stamp, frame_id and epoch are the ring's own.
    """
    records = np.zeros(n, RECORD_DTYPE)
    for name in ("delta_time", "velocity", "fill_rate", "sentiment", "confidence"):
        records[name] = np.nan
    for name in ("workflow_node", "case_status", "lead_status", "actor_type", "intent_id"):
        records[name] = -1
    records["spin"] = (1, 0, 0, 0)
    records["source_offset"] = SOURCE_NONE << OFFSET_BITS
    return records


def presence(*fields: str) -> int:
    """The presence bits of these fields; KeyError-like Refuse for a name that has none."""
    bits = 0
    for field in fields:
        if field not in PRESENCE_FIELDS:
            raise Refuse("ring.presence", f"no presence bit is named {field!r}")
        bits |= 1 << PRESENCE_FIELDS.index(field)
    return bits


def pack_source(index: int, offsets: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Record words of source offsets (n,); ``index`` is the source's (RingWriter.source_index)."""
    values = np.asarray(offsets, np.int64)
    if not 0 <= index < SOURCE_NONE or (
        values.size and not 0 <= values.min() <= values.max() <= _OFFSET_MASK
    ):
        raise Refuse(
            "ring.source_offset", f"source {index} with offsets up to 2^{OFFSET_BITS} was expected"
        )
    return values.astype(np.uint64) | np.uint64(index << OFFSET_BITS)


def unpack_source(
    words: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Source indexes and source offsets, each (n,), of record words."""
    return (words >> np.uint64(OFFSET_BITS)).astype(np.int64), (
        words & np.uint64(_OFFSET_MASK)
    ).astype(np.int64)


def conversation_hash(conversation: str | None) -> int:
    """First 8 bytes of BLAKE2b-64 of the conversation's UTF-8, little-endian; 0 for none."""
    if conversation is None:
        return 0
    return int.from_bytes(blake2b(conversation.encode(), digest_size=8).digest(), "little")


def conversation_hashes(conversations: Iterable[str | None]) -> npt.NDArray[np.uint64]:
    """:func:`conversation_hash` of each, shape (n,)."""
    names = list(conversations)
    known = {name: conversation_hash(name) for name in set(names)}
    return np.fromiter((known[name] for name in names), np.uint64, len(names))
