"""A finished Batch to log records: enriched ones, split when too large, and dead letters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from streamapp.core.batch import Batch, Rejected
from streamapp.core.errors import Halt
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import RecordLike
from streamapp.core.state import StateEntry
from streamapp.topics.dead import context_headers
from streamapp.topics.enriched import Cover, Enriched, encode, no_rows
from streamapp.topics.wire import rejected
from streamapp.transport.clients import Outgoing

#: What the broker adds round a value: keys, headers and the batch they travel in.
RECORD_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What every record of a partition says beside its rows."""

    snapshot: int | None
    provenance: str


def enriched_records(
    batch: Batch,
    states: Sequence[StateEntry],
    standpoint: Standpoint,
    raw: Mapping[int, RecordLike],
    bytes_max: int,
) -> tuple[list[Outgoing], list[Rejected]]:
    """The records of one batch, in offset order, and the rejects that they carry.

    A record too large for the topic is split into consecutive disjoint sub-ranges, each with the
    state changes of its own offsets.  One event that alone is too large is rejected.

    Args:
        batch: enriched.
        states: every ``put`` of the batch in order; each record keeps the last one of a key.
        standpoint: of its partition.
        raw: the source records by offset, for the original bytes of a reject.
        bytes_max: the enriched topic's ``record_bytes_max``.
    """
    value, headers = encode(_record(batch, states, standpoint))
    if len(value) + RECORD_OVERHEAD_BYTES <= bytes_max:
        return [Outgoing(value, headers=headers, partition=batch.range.partition)], [*batch.rejects]
    records: list[Outgoing] = []
    rejects: list[Rejected] = []
    for part in _smaller(batch, raw, len(value), bytes_max):
        more, bad = enriched_records(part, states, standpoint, raw, bytes_max)
        records += more
        rejects += bad
    return records, rejects


def snapshot_record(range_: OffsetRange, states: Sequence[StateEntry], provenance: str) -> Outgoing:
    """A zero-row record with the partition's full state as it is before ``range_.next``."""
    cover = Cover(
        topic=range_.topic,
        partition=range_.partition,
        first=range_.next,
        next=range_.next,
        is_snapshot=True,
    )
    value, headers = encode(Enriched(cover, no_rows(), tuple(states), (), provenance))
    return Outgoing(value, headers=headers, partition=range_.partition)


def lost_record(range_: OffsetRange, standpoint: Standpoint) -> Outgoing:
    """A zero-row record for source offsets that the log dropped before we read them."""
    cover = Cover(
        topic=range_.topic,
        partition=range_.partition,
        first=range_.first,
        next=range_.next,
        lost=range_.size,
        snapshot=standpoint.snapshot,
    )
    value, headers = encode(Enriched(cover, no_rows(), (), (), standpoint.provenance))
    return Outgoing(value, headers=headers, partition=range_.partition)


def dead_letter(range_: OffsetRange, reject: Rejected) -> Outgoing:
    """The dead letter of a reject: original key, value and headers, then where, when and why.

    Its own time is when it is written: retention would take that of an old event at once.
    """
    context = {
        "topic": range_.topic,
        "partition": str(range_.partition),
        "offset": str(reject.source_offset),
        "timestamp": str(reject.timestamp),
        "stage": reject.stage,
        "exception.class.name": reject.code,
        "exception.message": re.sub(r"\s+", " ", reject.reason)[:1000],
    }
    headers = context_headers(reject.headers, context)
    return Outgoing(reject.value, key=reject.key, headers=headers)


def _record(batch: Batch, states: Sequence[StateEntry], standpoint: Standpoint) -> Enriched:
    topic, partition, first, next_ = batch.range
    last = {
        (entry.stage, entry.kind, entry.key): entry
        for entry in states
        if first <= entry.source_offset < next_
    }
    cover = Cover(
        topic=topic,
        partition=partition,
        first=first,
        next=next_,
        rows=len(batch),
        snapshot=standpoint.snapshot,
    )
    # In source order, so that replaying them evicts what the worker evicted.
    ordered = sorted(last.values(), key=lambda entry: entry.source_offset)
    return Enriched(cover, batch.rows, tuple(ordered), batch.rejects, standpoint.provenance)


def _smaller(
    batch: Batch, raw: Mapping[int, RecordLike], size: int, bytes_max: int
) -> tuple[Batch, ...]:
    """What to publish instead of a batch whose record has ``size`` bytes, too many."""
    rejected_at = [reject.source_offset for reject in batch.rejects]
    offsets = sorted([*batch.offsets().tolist(), *rejected_at])
    if len(offsets) > 1:
        return _cut(batch, offsets[len(offsets) // 2])
    if len(batch) == 1:
        reason = f"enriched it has {size:,} bytes, the topic takes {bytes_max:,}"
        reject = rejected(raw[offsets[0]], "publish", "enriched.too_large", reason)
        return (Batch(batch.rows.slice(0, 0), batch.range, (reject,)),)
    if batch.rejects and batch.rejects[0].value is not None:
        return (replace(batch, rejects=(_without_value(batch.rejects[0]),)),)
    raise Halt(
        "enriched.size",
        f"a record of {batch.range} without rows has {size:,} bytes, the topic takes {bytes_max:,}",
        "raise record_bytes_max of the enriched topic above that of the source topic",
    )


def _cut(batch: Batch, boundary: int) -> tuple[Batch, Batch]:
    """Two consecutive batches, the second with all that is at source offset ``boundary`` or on."""
    topic, partition, first, next_ = batch.range
    row = int(np.searchsorted(batch.offsets(), boundary))
    before = tuple(r for r in batch.rejects if r.source_offset < boundary)
    after = tuple(r for r in batch.rejects if r.source_offset >= boundary)
    return (
        Batch(batch.rows.slice(0, row), OffsetRange(topic, partition, first, boundary), before),
        Batch(batch.rows.slice(row), OffsetRange(topic, partition, boundary, next_), after),
    )


def _without_value(reject: Rejected) -> Rejected:
    """The address and the digest stand for bytes that do not fit; the source log still has them."""
    value = reject.value or b""
    digest = sha256(value).hexdigest()
    left = f"its {len(value):,} bytes (sha256 {digest}) are left on the source log"
    return replace(reject, value=None, reason=f"{reject.reason}; {left}")
