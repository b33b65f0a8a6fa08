"""Repeats of a partition's last events, dropped before the stages.

A producer that got no answer sends again with the same id.  The store keeps the repeat out of its
table anyway, but it would already have moved its conversation's kinetics and become a frame.  So
each partition remembers the ids of its last events among its state; only events that went through
count, so that a repaired dead letter may come again.
"""

from collections.abc import Sequence
from hashlib import blake2b

import pyarrow as pa

from streamapp.core.batch import Batch
from streamapp.core.state import StateEntry
from streamapp.workflow import PartitionState

STAGE = "repeats"
KIND = "id"


def without_repeats(batch: Batch, state: PartitionState) -> tuple[Batch, int]:
    """The batch without rows whose (source, id) went through before, and how many those were."""
    known = state.overlay().view(STAGE)
    seen: set[str] = set()
    keep: list[bool] = []
    for key in _keys(batch):
        keep.append(key not in seen and known.get(KIND, key) is None)
        seen.add(key)
    repeats = keep.count(False)
    if not repeats:
        return batch, 0
    return Batch(batch.rows.filter(pa.array(keep)), batch.range, batch.rejects), repeats


def remember(batch: Batch, state: PartitionState) -> Sequence[StateEntry]:
    """Note the rows that went through; returns the changes to publish beside them."""
    offsets = batch.offsets().tolist()
    entries = [
        StateEntry(STAGE, KIND, key, offset, True)
        for key, offset in zip(_keys(batch), offsets, strict=True)
    ]
    state.apply(entries)
    return entries


def _keys(batch: Batch) -> list[str]:
    pairs = zip(batch.strings("source"), batch.strings("id"), strict=True)
    return [
        blake2b(f"{source}\0{id_}".encode(), digest_size=8).hexdigest() for source, id_ in pairs
    ]
